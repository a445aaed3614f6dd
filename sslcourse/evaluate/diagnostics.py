"""What a representation looks like, without a task: how two of them relate, how similar positives and negatives are.

Spread, effective rank, alignment and uniformity are in `sslcourse.train.monitor`, which watches them during training.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sslcourse.data.augment import Augment
from sslcourse.data.rng import mix, step_generator
from sslcourse.errors import InputError
from sslcourse.evaluate.baselines import RAW
from sslcourse.evaluate.encoder import Encoder
from sslcourse.evaluate.features import extract_features
from sslcourse.evaluate.result import Result, mean_result
from sslcourse.train.monitor import feature_std, measure, rankme, uniformity

LOOKED_AT = 1000  # test images that a diagnosis takes; RankMe and uniformity grow with their square
GROUPS = 20  # of the jackknife


def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Linear centred kernel alignment, ||Y^T X||^2 / (||X^T X|| ||Y^T Y||), columns centred (Kornblith et al. 2019).

    1 where one representation is a rotated, scaled copy of the other; near 0 where they share nothing. Features far
    wider than N images look alike by chance: take many images.

    Args:
        x: (N, D1), y: (N, D2) features of the same images, N >= 2.

    Returns:
        scalar in [0, 1], float64.
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 2:
        raise InputError(f"linear_cka compares (N, D1) with (N, D2), N >= 2; got {(*x.shape,)} and {(*y.shape,)}.")
    x, y = (f.double() - f.double().mean(dim=0) for f in (x, y))
    shared, own_x, own_y = (torch.linalg.matrix_norm(a.T @ b) for a, b in ((y, x), (x, x), (y, y)))
    if not float(own_x) > 0 or not float(own_y) > 0:
        raise InputError("linear_cka needs features that differ between images; one of the two is constant or NaN.")
    return shared.square() / (own_x * own_y)


@dataclass(frozen=True)
class SimilarityHistogram:
    """Cosine similarities of pairs, counted in equal bins of [-1, 1].

    Attributes:
        edges: (bins + 1,).
        positive, negative: (bins,) int64 pairs of the same label and of different labels.
        auc: probability that a positive pair is more similar than a negative one, from the bins (ties count half).
    """

    edges: Tensor
    positive: Tensor
    negative: Tensor
    auc: float


def similarity_histogram(z: Tensor, labels: Tensor, *, bins: int = 100, chunk: int = 1024) -> SimilarityHistogram:
    """Histogram of the cosines of all pairs i < j, by whether the labels are equal.

    Args:
        z: (N, D) embeddings; labels: (N,). For two views of N images, pass both with `labels` arange(N) twice.
        chunk: rows compared at once.
    """
    if z.ndim != 2 or labels.shape != z.shape[:1] or len(z) < 2 or bins < 2:
        raise InputError(f"similarity_histogram needs (N, D) with N labels, N >= 2; got {tuple(z.shape)}.")
    if not bool(z.isfinite().all()):
        raise InputError("similarity_histogram needs finite embeddings; found NaN or infinity.")
    z, labels = normalize(z.float(), dim=1), labels.to(z.device)
    counts = torch.zeros(2, bins, dtype=torch.long, device=z.device)
    columns = torch.arange(len(z), device=z.device)
    for row in columns.split(chunk):
        cosine = z[row] @ z.T
        later = columns > row[:, None]
        cell = ((cosine[later] + 1) / 2 * bins).long().clamp(0, bins - 1)
        same = (labels[row, None] == labels)[later].long()
        counts += torch.bincount(same * bins + cell, minlength=2 * bins).view(2, bins)
    negative, positive = counts.cpu()
    auc = _auc(positive, negative)
    return SimilarityHistogram(torch.linspace(-1, 1, bins + 1), positive, negative, auc)


def diagnose(z: Tensor, labels: Tensor | None = None, positive: Tensor | None = None) -> dict[str, float]:
    """All the numbers about features (N, D): the monitors, and with labels how well cosines tell same from different.

    Args:
        positive: (N, D) features of second views, for the alignment.
    """
    values = measure(z, positive)
    return values if labels is None else values | {"pair_auc": similarity_histogram(z, labels).auc}


def spread_of_features(train_x: Tensor, train_y: Tensor, x: Tensor, y: Tensor, *, seed: int = 0) -> Result:
    """Feature std of the test images, 1 for directions all over the sphere and 0 for a collapse; see `train.monitor`.

    Training features play no part. The interval is that of a jackknife over groups of the images.
    """
    return _jackknifed("spread", lambda rows: feature_std(rows[0]).item(), [_sample(x, seed)], seed)


def rank_of_features(train_x: Tensor, train_y: Tensor, x: Tensor, y: Tensor, *, seed: int = 0) -> Result:
    """RankMe of the test images (at most as large as their number): how many dimensions are in use."""
    return _jackknifed("rankme", lambda rows: rankme(rows[0]).item(), [_sample(x, seed)], seed)


def uniformity_of_features(train_x: Tensor, train_y: Tensor, x: Tensor, y: Tensor, *, seed: int = 0) -> Result:
    """Uniformity of the test images, lower is more uniform."""
    return _jackknifed("uniformity", lambda rows: uniformity(rows[0]).item(), [_sample(x, seed)], seed)


def pair_auc(train_x: Tensor, train_y: Tensor, x: Tensor, y: Tensor, *, seed: int = 0) -> Result:
    """How often two test images of one class are more similar than two of different classes.

    `kept` has the histograms of their similarities, which `plot_histograms` shows.
    """
    x, y = _sample(x, seed), _sample(y, seed)
    whole = similarity_histogram(x, y)
    if whole.auc != whole.auc:
        raise InputError("pair_auc needs test images of two classes, and one class with two images.")
    result = _jackknifed("pair_auc", lambda rows: similarity_histogram(rows[0], rows[1]).auc, [x, y], seed)
    result.kept.update(edges=whole.edges, positive=whole.positive, negative=whole.negative)
    return result


def alignment_of_views(encoder: Encoder, train: Any, test: Any, *, seed: int = 0) -> Result:
    """Mean squared distance between the features of two random views of each test image, 0 is perfect.

    Wang and Isola 2020, section 4.1.1, alpha = 2. The views are SimCLR's, the same ones for every representation. A
    collapsed network is perfectly aligned: read it beside the uniformity.
    """
    images = test.images[_chosen(len(test), seed).sort().values]
    view = Augment(encoder.size or min(images.shape[-2:]), mean=encoder.mean, std=encoder.std)
    z = []
    for which in range(2):
        parts = images.split(encoder.batch_size)
        views = [view(part, generator=step_generator(mix(seed, which), i)) for i, part in enumerate(parts)]
        z.append(normalize(encoder.vectors(torch.cat(views)), dim=1))
    squared = (z[0] - z[1]).square().sum(dim=1).cpu()
    detail = {"protocol": "alignment", "seed": seed, "crop": list(view.scale)}
    return mean_result("alignment", squared, "images", detail, seed=seed)


def cka_with_pixels(encoder: Encoder, train: Any, test: Any, *, seed: int = 0) -> Result:
    """Linear CKA of the representation with the raw pixels of the test images: how much of it is only how they look."""
    images = _sample(test.images, seed)
    pixels = extract_features(torch.nn.Flatten(), images, size=min(64, *images.shape[-2:]), **RAW)
    rows = [encoder(images).cpu(), pixels.cpu()]
    return _jackknifed("cka", lambda rows: linear_cka(rows[0], rows[1]).item(), rows, seed)


def _chosen(n: int, seed: int) -> Tensor:
    """At most `LOOKED_AT` of n positions, in random order."""
    return torch.randperm(n, generator=step_generator(mix(seed, 9), 0))[:LOOKED_AT]


def _sample(rows: Tensor, seed: int) -> Tensor:
    """The rows at `_chosen`; the same ones for tensors of one length."""
    return rows[_chosen(len(rows), seed).to(rows.device)]


def _jackknifed(name: str, score: Callable[[list[Tensor]], float], rows: list[Tensor], seed: int) -> Result:
    """A score of all rows, with Student's interval from scores that leave out one group of the images each.

    A bootstrap would not do: an image drawn twice is a pair of equal features, and these scores are about pairs.
    """
    from scipy.special import stdtrit  # comes with scikit-learn

    n = len(rows[0])
    groups = min(GROUPS, n // 2)
    if groups < 2:
        raise InputError(f"{name} needs four test images or more; got {n}.")
    if not all(bool(r.isfinite().all()) for r in rows):
        raise InputError(f"{name} needs finite features; found NaN or infinity: did the training diverge?")
    value = score(rows)
    place = torch.arange(n) % groups  # `_sample` has put them into random order
    parts = [score([r[(place != g).to(r.device)] for r in rows]) for g in range(groups)]
    draws = torch.tensor(parts, dtype=torch.float64)
    error = ((groups - 1) * draws.var(correction=0)).sqrt().item()
    half = float(stdtrit(groups - 1, 0.975)) * error
    detail = {"protocol": name, "groups": groups, "seed": seed}
    return Result(name, value, value - half, value + half, n, "images", detail, {"jackknife": draws})


def _auc(positive: Tensor, negative: Tensor) -> float:
    """Chance that a positive pair is more similar than a negative one, from histograms; NaN without both kinds."""
    below = negative.cumsum(0) - negative
    pairs = positive.sum().double() * negative.sum()
    return ((positive * (below + negative / 2)).sum() / pairs).item() if pairs > 0 else float("nan")
