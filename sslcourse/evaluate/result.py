"""A number is never printed alone: every protocol returns a `Result`, a value with its interval and its n.

Two questions need two intervals. "How well does *this model* do?" varies over the test images: `wilson_interval` and
`bootstrap_ci`. "How well does *this method* do?" varies over training runs: `seed_interval`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import Any

import torch
from torch import Tensor

from sslcourse.data.rng import step_generator
from sslcourse.errors import InputError


@dataclass(frozen=True)
class Result:
    """One measured number.

    Attributes:
        name: what was measured, for tables.
        value: the point estimate; accuracies are shares in [0, 1].
        low, high: ends of the 95 % interval; NaN where none can be given (one training run says nothing on spread).
        n: how many observations the interval is over.
        over: what these observations are, "images" or "seeds".
        detail: everything needed to repeat the measurement, plain JSON values.
        kept: what a paired comparison with another model on the same test set needs (`evaluate.paired`); not saved.
            "each": (n,) scores of the observations, `value` is their mean. "draws": (B,) values of a score that is no
            mean, on B resamples of the observations, the same ones for every model. "jackknife": its values without one
            group of the observations each.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    over: str = "images"
    detail: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.name}: {self.value:.3f} {self.interval} (n = {self.n} {self.over})"

    @property
    def counted(self) -> str:
        """What the interval is over, and what each run was tested on: "1000 images", "5 seeds x 1000 images"."""
        return f"{self.n} {self.over}" + (f" x {self.detail['each_on']}" if "each_on" in self.detail else "")

    @property
    def interval(self) -> str:
        """The interval as it stands in tables; signed for a difference."""
        if math.isnan(self.low):
            return "[no interval from 1]"
        sign = "+" if "minus" in self.detail else ""
        return f"[{self.low:{sign}.3f}, {self.high:{sign}.3f}]"


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927): keeps its coverage for small n and near 0 or 1.

    >>> [round(end, 3) for end in wilson_interval(8, 10)]
    [0.49, 0.943]
    """
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"wilson_interval needs 0 <= successes <= n and n >= 1; got {successes} of {n}.")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = successes / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # Exact at the ends, where rounding would leave 1e-17.
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


def bootstrap_ci(
    a: Tensor,
    b: Tensor | None = None,
    *,
    generator: torch.Generator,
    n_boot: int = 10_000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Two-sided percentile interval of the mean of `a`, or of the paired difference mean(a) - mean(b).

    With `b`, both models are resampled on the *same* images: the difficulty of an image is common to them and cancels,
    which is why a paired interval is much narrower than the difference of two separate ones (Efron 1979).

    Args:
        a, b: (N,) scores of each test image (bool or float; a hit is 1), in the same order.
        generator: a CPU generator; the same seed gives the same interval.
        n_boot: resamples.
        level: coverage.

    Returns:
        (low, high), the (1 - level) / 2 and (1 + level) / 2 quantiles.
    """
    if a.ndim != 1 or len(a) == 0 or (b is not None and b.shape != a.shape):
        other = "" if b is None else f" and {tuple(b.shape)}"
        raise InputError(f"bootstrap_ci needs one score an image, (N,) each; got {tuple(a.shape)}{other}.")
    if not 0 < level < 1:
        raise InputError(f"bootstrap_ci needs a level between 0 and 1; got {level}.")
    score = a.double().cpu() if b is None else a.double().cpu() - b.double().cpu()
    n = len(score)
    # In pieces: n_boot x N indices at once would be gigabytes for a real test set.
    piece = max(1, 2**22 // n)
    sizes = [piece] * (n_boot // piece) + ([n_boot % piece] if n_boot % piece else [])
    means = torch.cat([score[torch.randint(n, (s, n), generator=generator)].mean(dim=1) for s in sizes])
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=means.dtype)
    low, high = means.quantile(tails).tolist()
    return low, high


def seed_interval(values: Sequence[float], name: str = "", level: float = 0.95) -> Result:
    """Mean over training runs with Student's t interval; its n is the number of seeds."""
    n = len(values)
    if n == 0:
        raise InputError("seed_interval needs at least one run.")
    mean, kept = fmean(values), {"each": torch.tensor(values, dtype=torch.float64)}
    if n == 1:
        return Result(name, mean, math.nan, math.nan, 1, "seeds", {"values": list(values)}, kept)
    from scipy.special import stdtrit  # comes with scikit-learn; only reports need it

    half = float(stdtrit(n - 1, 0.5 + level / 2)) * stdev(values) / math.sqrt(n)
    return Result(name, mean, mean - half, mean + half, n, "seeds", {"values": list(values)}, kept)


def share_result(name: str, share: float, n: int, detail: dict[str, Any] | None = None) -> Result:
    """A share of hits among n test images with its Wilson interval."""
    low, high = wilson_interval(round(share * n), n)
    return Result(name, share, low, high, n, "images", detail or {})


def mean_result(
    name: str, each: Tensor, over: str, detail: dict[str, Any], *, seed: int = 0, n_boot: int = 2000
) -> Result:
    """The mean of one score an observation, (n,), with its bootstrap interval."""
    low, high = bootstrap_ci(each, generator=step_generator(seed, 0), n_boot=n_boot)
    kept = {"each": each.detach().double().cpu()}
    return Result(name, kept["each"].mean().item(), low, high, len(each), over, detail, kept)


def accuracy(name: str, scores: Tensor, truth: Tensor, detail: dict[str, Any]) -> Result:
    """Top-1 accuracy; `detail` gets the top-5 accuracy beside.

    Args:
        scores: (N, n_cls); equal scores go to the lower class.
        truth: (N,) int64.
    """
    right = scores.sort(dim=1, descending=True, stable=True).indices[:, :5] == truth.to(scores.device)[:, None]
    hits = right[:, 0].double().cpu()
    low, high = wilson_interval(int(hits.sum()), len(hits))
    detail = detail | {"top5": right.any(dim=1).double().mean().item()}
    return Result(name, hits.mean().item(), low, high, len(hits), "images", detail, {"each": hits})


def save_results(results: Iterable[Result], path: Path) -> None:
    """Write `results` as a JSON list, whole or not at all; a NaN becomes null so that any reader can parse it."""
    from sslcourse.train.checkpoint import write_json

    write_json(path, [to_json(r) for r in results])


def to_json(result: Result) -> dict[str, Any]:
    """A result without what it keeps, as plain JSON values."""
    row = {f.name: getattr(result, f.name) for f in fields(result) if f.name != "kept"}
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}


def from_json(row: dict[str, Any]) -> Result:
    """The result that `to_json` made a row of."""
    known: dict[str, Any] = {k: math.nan if v is None else v for k, v in row.items()}
    return Result(**known)


def print_results(results: Iterable[Result], title: str = "") -> None:
    """One table on standard output: name, value, 95 % interval, n; a line between the protocols."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left")
    table.add_column("what")
    for column in ("value", "95 % interval", "n"):
        table.add_column(column, justify="right")
    before = None
    for r in results:
        if before not in (None, r.detail.get("protocol")):
            table.add_section()
        before = r.detail.get("protocol")
        value = f"{r.value:+.3f}" if "minus" in r.detail else f"{r.value:.3f}"
        table.add_row(r.name, value, r.interval, r.counted)
    Console(markup=False).print(table)
