"""Robustness: what is left when pixels go bad, and is it more than accuracy alone explains?

    mCE = mean_c  sum_s E_{c,s} / sum_s R_{c,s}                          (Hendrycks & Dietterich 2019, section 4.2)
    relative mCE = mean_c  sum_s (E_{c,s} - E_0) / sum_s (R_{c,s} - R_0)

with the error rate E of the model and R of a reference model under corruption c at severity s, and E_0, R_0 on clean
images. Sums over severities come first: a mean of ratios would let the mildest severity, with its small R, dominate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sslcourse.data.corruptions import CORRUPTIONS, corrupt
from sslcourse.data.images import Images
from sslcourse.data.rng import step_generator
from sslcourse.errors import InputError
from sslcourse.evaluate.encoder import Encoder
from sslcourse.evaluate.fewshot import stratified_subset
from sslcourse.evaluate.linear import fit_linear
from sslcourse.evaluate.result import Result, accuracy, mean_result

SEVERITIES = (1, 2, 3, 4, 5)
LADDER = (0.05, 0.2, 1.0)  # shares of the training labels that `domain_shift` fits a probe on


def mce(errors: Tensor, reference: Tensor) -> Tensor:
    """Mean corruption error relative to a reference model; 1 is as robust as the reference, lower is better.

    Args:
        errors, reference: (corruptions, severities) error rates (1 - accuracy), clean images left out.

    Returns:
        scalar (a ratio, not per cent).
    """
    _check(errors, reference)
    return _mean_ratio(errors.double().sum(dim=1), reference.double().sum(dim=1))


def relative_mce(errors: Tensor, clean: float, reference: Tensor, reference_clean: float) -> Tensor:
    """How much error corruptions *add*, relative to a reference model: a poor model does not look robust by it.

    Args:
        errors, reference: as in `mce`.
        clean, reference_clean: error rates on the clean images.
    """
    _check(errors, reference)
    return _mean_ratio((errors.double() - clean).sum(dim=1), (reference.double() - reference_clean).sum(dim=1))


@dataclass(frozen=True)
class LogitLine:
    """logit(accuracy under shift) = slope * logit(accuracy) + intercept, over a set of reference models."""

    slope: float
    intercept: float

    def __call__(self, acc_id: Tensor | float) -> Tensor:
        """The accuracy under shift that a model of this accuracy is expected to have."""
        return torch.sigmoid(self.slope * _logit(acc_id) + self.intercept)


def fit_logit_line(acc_id: Tensor | Sequence[float], acc_ood: Tensor | Sequence[float]) -> LogitLine:
    """Least squares on logit axes, on which such pairs of accuracies lie near a line (Taori et al. 2020, section 2).

    Args:
        acc_id, acc_ood: accuracies of two or more reference models without and with shift, in (0, 1).
    """
    x, y = _logit(acc_id), _logit(acc_ood)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2 or float(x.std()) == 0:
        raise InputError("A logit line needs the two accuracies of at least two reference models that differ.")
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return LogitLine(slope.item(), (y.mean() - slope * x.mean()).item())


def effective_robustness(acc_id: float, acc_ood: float, fit: LogitLine | Tensor) -> float:
    """Accuracy under shift beyond what the reference models lead one to expect at this accuracy without shift.

    Args:
        acc_id, acc_ood: the model's accuracies without and with shift, in (0, 1).
        fit: the line of the reference models, or their accuracies (M, 2), a row (without, with shift) for each, from
            which it is fitted. The model itself is not among them: it would pull the line towards itself.

    Returns:
        a difference of accuracies: above 0 where the model keeps more than the reference models lead one to expect.
    """
    if isinstance(fit, Tensor):
        if fit.ndim != 2 or fit.shape[1] != 2:
            raise InputError(f"effective_robustness takes reference models as (M, 2) accuracies; got {(*fit.shape,)}.")
        fit = fit_logit_line(fit[:, 0], fit[:, 1])
    return acc_ood - fit(acc_id).item()


def corruption_hits(
    predict: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    kinds: Sequence[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    batch_size: int = 512,
) -> Tensor:
    """Which images are still recognised, (corruptions, severities, N) bool. The noise is the same for every model.

    Args:
        predict: (B, 3, H, W) uint8 -> (B,) predicted classes; fitted on clean images only.
        images: (N, 3, H, W) uint8; labels: (N,).
    """
    hits = torch.zeros(len(kinds), len(severities), len(images), dtype=torch.bool)
    for c, kind in enumerate(kinds):
        for s, severity in enumerate(severities):
            for b, rows in enumerate(torch.arange(len(images)).split(batch_size)):
                generator = step_generator(seed, (c * len(severities) + s) * 2**20 + b)
                seen = predict(corrupt(images[rows], kind, severity, generator))
                hits[c, s, rows] = seen.cpu() == labels[rows].cpu()
    return hits


def corruption_robustness(
    encoder: Encoder,
    train: Images,
    test: Images,
    *,
    kinds: Sequence[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    **options: Any,
) -> Result:
    """Accuracy under corruption of a linear probe on clean training features, over the test images.

    Args:
        train, test: with labels; only the test images are corrupted.
        options: those of `fit_linear`.
    """
    probe = fit_linear(encoder(train), train.labels, **options)

    def predict(images: Tensor) -> Tensor:
        return probe(encoder(images)).argmax(dim=1)

    clean = (predict(test.images) == test.labels.to(probe.weight.device)).cpu()
    hits = corruption_hits(predict, test.images, test.labels, kinds=kinds, severities=severities, seed=seed)
    return robustness_result(hits, clean, kinds, seed=seed)


def domain_shift(
    encoder: Encoder, train: Images, test: Images, shifted: Images, *, seed: int = 0, **options: Any
) -> Result:
    """Accuracy on `shifted` of a linear probe on `train`; `detail` has that on `test`, from the same domain as `train`.

    Probes on a part of the training labels are weaker models of the same kind: `detail["ladder"]` has the two
    accuracies of each, for `fit_logit_line` (`evaluate.paired.effective_robustness_result` does that).

    Args:
        options: those of `fit_linear`.
    """
    n_cls = len(train.classes) or None
    x, sets = encoder(train), (test, shifted)
    features = [encoder(images) for images in sets]
    rungs = []
    for share in LADDER:
        rows = stratified_subset(train.labels, share, seed)
        probe = fit_linear(x[rows.to(x.device)], train.labels[rows], n_cls=n_cls, seed=seed, **options)
        scores = [probe(f) for f in features]
        rungs.append([(s.argmax(dim=1).cpu() == d.labels.cpu()).float() for s, d in zip(scores, sets, strict=True)])
    ladder = [[hits.mean().item() for hits in pair] for pair in rungs]
    detail = {"protocol": "shift", "shifted": shifted.name, **probe.detail, "unshifted_accuracy": ladder[-1][0]}
    detail["ladder"] = [[share, *pair] for share, pair in zip(LADDER, ladder, strict=True)]
    result = accuracy("shift", scores[1], shifted.labels, detail)
    if len(test) == len(shifted):
        result.kept["ladder"] = torch.stack([torch.stack(part) for part in zip(*rungs, strict=True)])  # (2, rungs, N)
    return result


def robustness_result(hits: Tensor, clean: Tensor, kinds: Sequence[str], *, seed: int = 0) -> Result:
    """Mean accuracy over corruptions and severities; `detail` keeps the errors that `mce` takes.

    Args:
        hits: of `corruption_hits`.
        clean: (N,) bool, which clean images are recognised.
    """
    detail = {
        "protocol": "robustness",
        "clean_accuracy": clean.double().mean().item(),
        "errors": dict(zip(kinds, (1 - hits.double().mean(dim=2)).tolist(), strict=True)),
        "seed": seed,
    }
    result = mean_result("robustness", hits.double().mean(dim=(0, 1)), "images", detail, seed=seed)
    result.kept.update(hits=hits, clean=clean)
    return result


def _mean_ratio(ours: Tensor, reference: Tensor) -> Tensor:
    if bool((reference <= 0).any()):
        raise InputError("mCE divides by the reference's errors, whose sum has to be above 0 for every corruption.")
    return (ours / reference).mean()


def _check(errors: Tensor, reference: Tensor) -> None:
    if errors.shape != reference.shape or errors.ndim != 2 or errors.numel() == 0:
        raise InputError(
            f"mCE needs errors (corruptions, severities) of both models; got {(*errors.shape,)}, {(*reference.shape,)}."
        )
    if not all(bool(((x >= 0) & (x <= 1)).all()) for x in (errors, reference)):
        raise InputError("mCE needs error rates in [0, 1]: 1 - accuracy, not per cent.")


def _logit(p: Tensor | Sequence[float] | float) -> Tensor:
    p = torch.as_tensor(p, dtype=torch.float64)
    if not bool(((p > 0) & (p < 1)).all()):
        raise InputError("Logit axes need accuracies between 0 and 1, both excluded.")
    return p.logit()
