"""Two models on one test set: the difficulty of an image is common to both, so only the difference has to vary.

Two separate intervals that overlap say little; the interval of the difference says whether it can be 0. Every number
here comes from results that keep their scores (`Result.kept`), so nothing is evaluated again.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sslcourse.data.rng import mix, step_generator
from sslcourse.errors import InputError
from sslcourse.evaluate.protocols import PROTOCOLS
from sslcourse.evaluate.result import Result, bootstrap_ci, seed_interval
from sslcourse.evaluate.robustness import fit_logit_line, mce, relative_mce

N_BOOT = 2000
_ENDS = torch.tensor([0.025, 0.975], dtype=torch.float64)


def with_comparisons(results: Sequence[Result], subjects: Sequence[str], references: Sequence[str]) -> list[Result]:
    """Results grouped by protocol, each group followed by what only pairs of models tell.

    Every subject minus every other representation, where more is better; mCE relative to the first reference where
    corruptions were evaluated; effective robustness against the line of the references where a shift was.

    Args:
        results: of `evaluate_encoder` for several representations on one task.
        subjects: representations in question, the first minus all others, the second minus all but the first, ...
        references: baselines, the models that subjects are measured by.
    """
    table: list[Result] = []
    for protocol in dict.fromkeys(r.detail["protocol"] for r in results):
        group = {r.detail["representation"]: r for r in results if r.detail["protocol"] == protocol}
        table += group.values()
        asked = [group[name] for name in subjects if name in group]
        known = [group[name] for name in references if name in group]
        for i, one in enumerate(asked if PROTOCOLS[protocol].ranks else []):
            table += [difference(one, other) for other in group.values() if other not in asked[: i + 1]]
        if protocol == "robustness" and known:
            table += [row for one in asked for row in mce_results(one, known[0])]
        if protocol == "shift" and known:
            table += [effective_robustness_result(one, known) for one in asked]
    return table


def is_comparison(result: Result) -> bool:
    """Whether a result is about two models: figures of models leave it out."""
    return "minus" in result.detail or "relative_to" in result.detail


def difference(a: Result, b: Result, *, seed: int = 0) -> Result:
    """How much better `a` is than `b` on the same observations, value(a) - value(b), with its paired interval.

    Over images (or objects, clips) both are resampled together; over seeds or subsets, the pairs that share a seed have
    Student's t interval.

    Raises:
        InputError: results of different protocols or test sets, or that keep no scores.
    """
    if a.detail.get("protocol") != b.detail.get("protocol") or (a.n, a.over) != (b.n, b.over):
        raise InputError(f"A paired difference needs one protocol and test set; got {a} and {b}.")
    names = [str(r.detail.get("representation", r.name)) for r in (a, b)]
    detail = {"protocol": a.detail.get("protocol"), "representation": names[0], "minus": names[1]}
    name = f"{detail['protocol']}, {names[0]} - {names[1]}"
    if "each" in a.kept and "each" in b.kept:
        gap = a.kept["each"] - b.kept["each"]
        if a.over in ("seeds", "subsets"):
            return replace(seed_interval(gap.tolist(), name), over=a.over, detail=detail | {"values": gap.tolist()})
        low, high = bootstrap_ci(gap, generator=step_generator(mix(seed, 7), 0), n_boot=N_BOOT)
        return Result(name, gap.mean().item(), low, high, a.n, a.over, detail, {"each": gap})
    if "draws" in a.kept and "draws" in b.kept:
        low, high = _ends(a.kept["draws"] - b.kept["draws"])
        return Result(name, a.value - b.value, low, high, a.n, a.over, detail)
    if "jackknife" in a.kept and "jackknife" in b.kept:
        return _jackknifed(a, b, name, detail)
    raise InputError(f"{a.name} and {b.name} keep no scores to pair; evaluate both in one call.")


def mce_results(a: Result, reference: Result, *, seed: int = 0) -> list[Result]:
    """mCE and relative mCE of `a` against a reference model, 1 is as robust, with intervals over the test images.

    Images are resampled for both at once. A reference that corruptions do not hurt has no relative mCE, and that row
    is left out.

    Args:
        a, reference: of `corruption_robustness`, with the same corruptions, severities and images.
    """
    for r in (a, reference):
        if "hits" not in r.kept:
            raise InputError(f"mCE needs the hits of `corruption_robustness`; {r.name} keeps none.")
    if a.kept["hits"].shape != reference.kept["hits"].shape:
        raise InputError("mCE compares models under the same corruptions of the same images.")
    names = [str(r.detail.get("representation", r.name)) for r in (a, reference)]
    weights = _resamples(a.n, seed)
    ours, theirs = _errors(a, weights), _errors(reference, weights)

    def score(protocol: str, i: int) -> Tensor:
        (clean, errors), (other_clean, other_errors) = ((part[i] for part in side) for side in (ours, theirs))
        if protocol == "mce":
            return mce(errors, other_errors)
        return relative_mce(errors, clean.item(), other_errors, other_clean.item())

    results = []
    for protocol in ("mce", "relative_mce"):
        try:
            values = torch.stack([score(protocol, i) for i in range(len(weights))])
        except InputError:
            continue  # the reference makes no errors (or no additional ones) in some resample, and they divide
        low, high = _ends(values[1:])
        detail = {"protocol": protocol, "representation": names[0], "relative_to": names[1]}
        name = f"{protocol}, {names[0]} / {names[1]}"
        results.append(Result(name, values[0].item(), low, high, a.n, a.over, detail, {"draws": values[1:]}))
    return results


def effective_robustness_result(a: Result, references: Sequence[Result], *, seed: int = 0) -> Result:
    """Accuracy of `a` under shift beyond the logit line through the references' probes (Taori et al. 2020).

    Every reference gives several points: its probes on a part and on all of the training labels. Test images with and
    without shift are resampled for all models at once, and the line is fitted anew in every resample.

    Args:
        a, references: of `domain_shift`, on the same images.
    """
    for r in (a, *references):
        if "ladder" not in r.kept or r.kept["ladder"].shape != a.kept["ladder"].shape:
            raise InputError(f"Effective robustness needs results of `domain_shift` on the same images; not {r.name}.")
    weights = [_resamples(a.n, mix(seed, part)) for part in range(2)]  # without and with shift: other images

    def accuracies(r: Result) -> Tensor:
        """(1 + B, 2, rungs), clipped away from 0 and 1, where logits end."""
        parts = [w @ hits.double().T / w.shape[1] for w, hits in zip(weights, r.kept["ladder"], strict=True)]
        half = 0.5 / a.n
        return torch.stack(parts, dim=1).clamp(half, 1 - half)

    points = torch.cat([accuracies(r) for r in references], dim=2)
    ours = accuracies(a)[:, :, -1]
    beyond = []
    for (x, y), (acc, shifted) in zip(points, ours, strict=True):
        beyond.append(shifted - fit_logit_line(x, y)(acc))
    value, draws = beyond[0], torch.stack(beyond[1:])
    low, high = _ends(draws)
    line = fit_logit_line(*points[0])
    representation = str(a.detail.get("representation", a.name))
    detail = {
        "protocol": "effective_robustness",
        "representation": representation,
        "minus": "the line",
        "references": [str(r.detail.get("representation", r.name)) for r in references],
        "slope": line.slope,
        "intercept": line.intercept,
        "n_points": points.shape[2],
    }
    name = f"effective robustness, {representation}"
    return Result(name, value.item(), low, high, a.n, a.over, detail, {"draws": draws})


def _jackknifed(a: Result, b: Result, name: str, detail: dict[str, Any]) -> Result:
    from scipy.special import stdtrit  # comes with scikit-learn

    gap = a.kept["jackknife"] - b.kept["jackknife"]
    half = float(stdtrit(len(gap) - 1, 0.975)) * ((len(gap) - 1) * gap.var(correction=0)).sqrt().item()
    value = a.value - b.value
    return Result(name, value, value - half, value + half, a.n, a.over, detail)


def _errors(r: Result, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Error rates of every resample: (1 + B,) on clean images, (1 + B, corruptions, severities) on corrupted ones."""
    hits, clean = r.kept["hits"].double(), r.kept["clean"].double()
    shares = (weights @ hits.flatten(0, 1).T / len(clean)).unflatten(1, hits.shape[:2])
    return 1 - weights @ clean / len(clean), (1 - shares).clamp(0, 1)  # rounding leaves 1e-16 outside


def _resamples(n: int, seed: int) -> Tensor:
    """(1 + B, n) float64: how often each image is drawn; the first row is the test set itself."""
    index = torch.randint(n, (500, n), generator=step_generator(mix(seed, 8), 0))
    drawn = torch.zeros(500, n, dtype=torch.float64).scatter_add_(1, index, torch.ones(500, n, dtype=torch.float64))
    return torch.cat([torch.ones(1, n, dtype=torch.float64), drawn])


def _ends(draws: Tensor) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles."""
    low, high = draws.double().quantile(_ENDS).tolist()
    return low, high
