"""DeepCluster: cluster the features, call the clusters labels, learn them, and cluster again.

Caron et al. 2018, "Deep clustering for unsupervised learning of visual features", arXiv:1807.05520, section 3; version
2 is appendix C of SwAV (Caron et al. 2020): spherical k-means on a memory of the features of the last epoch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sslcourse.errors import InputError

UNSEEN = -100  # what cross-entropy ignores


def whiten(features: Tensor, dim: int) -> Tensor:
    """PCA to `dim` directions, each scaled to variance 1, then unit length (section 3.2): (N, D) -> (N, dim).

    Directions without variance are not blown up to noise, as the official code does (see `pca_projection`).
    """
    from sslcourse.evaluate.descriptors import Whitening  # the evaluation package is more than training needs

    wide = features.double()  # small eigenvalues are differences of large numbers
    return F.normalize(Whitening.fit(wide, dim)(wide), dim=1).to(features.dtype)


@torch.no_grad()
def kmeans_pseudolabels(f: Tensor, k: int, iters: int = 20, seed: int = 0) -> Tensor:
    """k-means labels of L2-normalised features, with no cluster left empty (section 3.3, "Trivial solutions").

    A cluster that loses all its points gets the centroid of the largest one, moved a little, and shares its points.
    The result depends on (f, k, iters, seed) only. Labels mean nothing from one call to the next: re-initialise the
    classifier that is trained on them.

    Args:
        f: (N, D) float, N >= k.
        k: clusters, >= 1.
        iters: assignments and updates, >= 1.

    Returns:
        (N,) int64 in [0, k); each label at least once where f has k distinct directions.
    """
    _check(f, k, iters)
    f = F.normalize(f.float(), dim=1)
    generator = torch.Generator().manual_seed(seed)
    centroids = f[torch.randperm(len(f), generator=generator)[:k].to(f.device)]
    labels = _nearest(f, centroids)
    for _ in range(iters):
        centroids, counts = _means(f, labels, centroids)
        for empty in (counts == 0).nonzero().flatten().tolist():
            largest = int(counts.argmax())
            push = torch.randn(f.shape[1], generator=generator).to(f) * 1e-3
            centroids[empty], centroids[largest] = centroids[largest] + push, centroids[largest] - push
            counts[empty] = counts[largest] // 2
            counts[largest] -= counts[empty]
        labels = _nearest(f, centroids)
    return _fill(f, labels, centroids)


def _fill(f: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    """Give every cluster that the last assignment left empty the point of a shared cluster that fits its own worst."""
    distance = (f - centroids[labels]).square().sum(dim=1)
    counts = labels.bincount(minlength=len(centroids))
    for empty in (counts == 0).nonzero().flatten().tolist():
        worst = int(distance.where(counts[labels] > 1, -1.0).argmax())
        counts[labels[worst]] -= 1
        labels[worst], counts[empty], distance[worst] = empty, 1, 0.0
    return labels


@torch.no_grad()
def spherical_kmeans(x: Tensor, centroids: Tensor, iters: int = 10) -> tuple[Tensor, Tensor]:
    """k-means with dot products for unit vectors (DeepCluster v2).

    Args:
        x: (N, D) unit vectors; centroids: (K, D) to start from, usually K rows of x.
        iters: rounds of assigning, averaging and normalising; a cluster without points keeps its centroid.

    Returns:
        (N,) int64 assignments to the final centroids, and those (K, D), of unit length.
    """
    _check(x, len(centroids), iters)
    for _ in range(iters):
        means, _ = _means(x, (x @ centroids.T).argmax(dim=1), centroids)
        centroids = F.normalize(means, dim=1)
    return (x @ centroids.T).argmax(dim=1), centroids


def memory_labels(assignments: Tensor, index: Tensor, size: int) -> Tensor:
    """Labels of all images from those in the memory: (N,), (N,) -> (size,), `UNSEEN` where an image was never seen."""
    labels = torch.full((size,), UNSEEN, dtype=torch.int64, device=assignments.device)
    labels[index] = assignments
    return labels


def uniform_sample(labels: Tensor, generator: Generator, n: int | None = None) -> Tensor:
    """Indices of an epoch in which every non-empty cluster is drawn equally often, in random order (section 3.3).

    Each cluster gives floor(n / clusters) + 1 images, again and again the same ones where it has too few; the surplus
    is cut off at random. As in the official code, a cluster of exactly that size is drawn with replacement, too.

    Args:
        labels: (N,) int64, 0 or more; negative ones are left out.
        n: length of the epoch, N by default.
    """
    n = len(labels) if n is None else n
    clusters = labels[labels >= 0].unique().tolist()
    if not clusters or n < 1:
        raise InputError(
            f"uniform_sample needs a label of 0 or more and n >= 1; got n={n} and {len(clusters)} clusters."
        )
    each = n // len(clusters) + 1
    drawn = []
    for cluster in clusters:
        members = (labels == cluster).nonzero().flatten().cpu()
        if len(members) > each:
            pick = torch.randperm(len(members), generator=generator)[:each]
        else:
            pick = torch.randint(len(members), (each,), generator=generator)
        drawn.append(members[pick])
    every = torch.cat(drawn)
    return every[torch.randperm(len(every), generator=generator)[:n]]


def sobel(x: Tensor) -> Tensor:
    """Horizontal and vertical derivative of the mean of the channels: (B, 3, H, W) -> (B, 2, H, W), zero padding.

    DeepCluster's input: colour would be clustered before shape (section 4).
    """
    if x.ndim != 4 or x.shape[1] != 3:
        raise InputError(f"sobel takes images (B, 3, H, W); got {tuple(x.shape)}.")
    across = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]], device=x.device, dtype=x.dtype)
    return F.conv2d(x.mean(dim=1, keepdim=True), torch.stack([across, across.T])[:, None], padding=1)


def inverse_sqrt_lr(step: int, lr: float, decay: float) -> float:
    """lr / sqrt(1 + lr decay step): the schedule of the classifier that reads the layers."""
    return lr / math.sqrt(1 + lr * decay * step)


def _means(x: Tensor, labels: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the points of each cluster, the old centroid where it has none, and the counts."""
    counts = labels.bincount(minlength=len(old))
    sums = torch.zeros_like(old).index_add_(0, labels, x)
    return torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], old), counts


def _nearest(x: Tensor, centroids: Tensor) -> Tensor:
    return (centroids.square().sum(dim=1) - 2 * x @ centroids.T).argmin(dim=1)


def _check(x: Tensor, k: int, iters: int) -> None:
    if x.ndim != 2 or not 1 <= k <= len(x) or iters < 1 or not bool(x.isfinite().all()):
        raise InputError(f"k-means needs finite features (N, D), 1 <= k <= N, iters >= 1; got {tuple(x.shape)}, k={k}.")
