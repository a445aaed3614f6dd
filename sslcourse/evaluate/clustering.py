"""Clustering: do the classes appear without a single label?

k-means on frozen features, then the clusters are compared with the classes. Cluster numbers mean nothing, so accuracy
is that of the best one-to-one matching of clusters to classes (Hungarian method; Xie et al. 2016, DEC, eq. 10);
ARI, NMI and FMI need no matching.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sslcourse.errors import InputError
from sslcourse.evaluate.result import Result, share_result


def contingency(pred: Tensor, truth: Tensor) -> Tensor:
    """(clusters, classes) int64: how many images are in cluster i and class j.

    Args:
        pred, truth: (N,) int64, 0 or more.
    """
    if pred.shape != truth.shape or pred.ndim != 1 or len(pred) == 0:
        raise InputError(
            f"A clustering needs one cluster and one class an image; got {(*pred.shape,)}, {(*truth.shape,)}."
        )
    if pred.is_floating_point() or truth.is_floating_point() or int(pred.min()) < 0 or int(truth.min()) < 0:
        raise InputError("Clusters and classes are integers, 0 or more (-1 marks an image without a label).")
    clusters, classes = int(pred.max()) + 1, int(truth.max()) + 1
    counts = torch.bincount(pred * classes + truth.to(pred.device), minlength=clusters * classes)
    return counts.view(clusters, classes)


def cluster_accuracy(pred: Tensor, truth: Tensor) -> float:
    """Share of images whose cluster is matched to their class, under the best one-to-one matching.

    With more clusters than classes, the clusters left over count as wrong.

    Args:
        pred, truth: (N,) int64, 0 or more.

    >>> cluster_accuracy(torch.tensor([2, 2, 0, 0]), torch.tensor([0, 0, 1, 0]))
    0.75
    """
    return matched(pred, truth).double().mean().item()


def matched(pred: Tensor, truth: Tensor) -> Tensor:
    """(N,) bool: is the image's cluster matched to its class? The matching is that of `cluster_accuracy`."""
    from scipy.optimize import linear_sum_assignment  # comes with scikit-learn

    counts = contingency(pred, truth).cpu().numpy()
    rows, columns = (torch.from_numpy(index) for index in linear_sum_assignment(counts, maximize=True))
    class_of = torch.full((len(counts),), -1).scatter_(0, rows, columns).to(pred.device)
    return class_of[pred] == truth.to(pred.device)


def clustering_scores(pred: Tensor, truth: Tensor) -> dict[str, float]:
    """ "acc" as `cluster_accuracy`; "ari", "nmi" (arithmetic mean) and "fmi" of scikit-learn. 1 is perfect."""
    from sklearn import metrics

    accuracy = cluster_accuracy(pred, truth)
    a, b = truth.cpu().numpy(), pred.cpu().numpy()
    return {
        "acc": accuracy,
        "ari": float(metrics.adjusted_rand_score(a, b)),
        "nmi": float(metrics.normalized_mutual_info_score(a, b)),
        "fmi": float(metrics.fowlkes_mallows_score(a, b)),
    }


def kmeans(x: Tensor, k: int, *, seed: int = 0, n_init: int = 5, max_iter: int = 100) -> Tensor:
    """(k, D) centres of the best of `n_init` runs of k-means (Lloyd, k-means++ start; scikit-learn).

    Args:
        x: (N, D) float features, N >= k.
    """
    if x.ndim != 2 or not 1 <= k <= len(x):
        raise InputError(f"k-means with k={k} needs features (N, D), N >= k; got {tuple(x.shape)}.")
    if not bool(x.isfinite().all()):
        raise InputError("k-means needs finite features; found NaN or infinity: did the training diverge?")
    from sklearn.cluster import KMeans

    found = KMeans(k, n_init=n_init, max_iter=max_iter, random_state=seed).fit(x.detach().float().cpu().numpy())
    return torch.from_numpy(found.cluster_centers_).to(x.device, x.dtype)


def nearest(x: Tensor, centres: Tensor) -> Tensor:
    """(N,) int64: the nearest centre of every feature, Euclidean; among equals the first."""
    # ||x||^2 is common to all centres, so it is left out.
    return (centres.square().sum(dim=1) - 2 * x @ centres.T).argmin(dim=1)


def kmeans_accuracy(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    k: int | None = None,
    seed: int = 0,
) -> Result:
    """k-means on unit-length training features; accuracy of the test images' clusters, with ARI, NMI, FMI in `detail`.

    The training labels give only the number of clusters, and only where `k` does not.

    Args:
        train_x, train_y, test_x, test_y: (N, D), (N,), (M, D), (M,).
        k: number of clusters; that of the training classes by default.
    """
    if test_x.shape[:1] != test_y.shape or len(test_y) == 0 or test_x.shape[1:] != train_x.shape[1:]:
        raise InputError(f"Clustering needs test features and labels; got {(*test_x.shape,)} and {(*test_y.shape,)}.")
    if not bool(test_x.isfinite().all()):
        raise InputError("Clustering needs finite test features; found NaN or infinity.")
    k = k or len(train_y[train_y >= 0].unique())
    centres = kmeans(normalize(train_x.float(), dim=1), k, seed=seed)
    pred = nearest(normalize(test_x.float(), dim=1), centres)
    scores = clustering_scores(pred, test_y.to(pred.device))
    detail = {"protocol": "clustering", "k": k, "seed": seed, "n_train": len(train_x)} | scores
    hits = matched(pred, test_y.to(pred.device)).double().cpu()
    return replace(share_result("clustering", scores["acc"], len(test_y), detail), kept={"each": hits})
