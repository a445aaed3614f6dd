"""What a representation looks like, without a task: how two of them relate, how similar positives and negatives are.

Spread, effective rank, alignment and uniformity are in `sslcourse.train.monitor`, which watches them during training.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sslcourse.errors import InputError
from sslcourse.train.monitor import measure


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
    below = negative.cumsum(0) - negative
    pairs = positive.sum().double() * negative.sum()
    auc = ((positive * (below + negative / 2)).sum() / pairs).item() if pairs > 0 else float("nan")
    return SimilarityHistogram(torch.linspace(-1, 1, bins + 1), positive, negative, auc)


def diagnose(z: Tensor, labels: Tensor | None = None, positive: Tensor | None = None) -> dict[str, float]:
    """All the numbers about features (N, D): the monitors, and with labels how well cosines tell same from different.

    Args:
        positive: (N, D) features of second views, for the alignment.
    """
    values = measure(z, positive)
    return values if labels is None else values | {"pair_auc": similarity_histogram(z, labels).auc}
