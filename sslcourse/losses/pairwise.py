r"""Metric learning with labels: pull pairs of one class together, push pairs of different classes apart.

In the order of the field: pairs (Chopra et al. 2005, Hadsell et al. 2006), triplets (Schroff et al. 2015, Hermans et
al. 2017), all pairs of a batch at once (Oh Song et al. 2016), one positive among many negatives (Sohn 2016), and a
soft vote of all neighbours (Salakhutdinov & Hinton 2007, Frosst et al. 2019).

Distances are Euclidean. Embeddings are taken as they are: normalise them before where a paper does.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.precision import full_precision


def pairwise_distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (N, D), (M, D) -> (N, M), with gradient 0 instead of NaN where two points coincide.

    The square root has an infinite slope at 0, and every embedding is at distance 0 from itself.
    """
    squared = (a[:, None] - b[None]).pow(2).sum(dim=2)
    apart = squared > 0
    return torch.where(apart, squared, 1.0).sqrt() * apart


@full_precision
def chopra_contrastive(d: Tensor, same: Tensor, margin: float = 1.0) -> Tensor:
    """The contrastive loss of pairs, mean of same * d^2 + (1 - same) * max(0, margin - d)^2.

    Chopra et al. 2005 have the idea; this form is Hadsell et al. 2006, Eq. 4, without its factor 1/2.

    Args:
        d: (...) float distances, >= 0.
        same: (...) bool or 0/1, True where the pair belongs together.
        margin: beyond this distance a pair of different classes is left alone, > 0.

    Returns:
        scalar, mean over all pairs.
    """
    if d.shape != same.shape:
        raise InputError(
            f"chopra_contrastive needs one label a distance; got {tuple(d.shape)} and {tuple(same.shape)}."
        )
    _check_margin("chopra_contrastive", margin)
    same = same.to(d.dtype)
    return (same * d.pow(2) + (1 - same) * F.relu(margin - d).pow(2)).mean()


@full_precision
def margin_pairs(
    z: Tensor, y: Tensor, pos_margin: float = 0.0, neg_margin: float = 1.0, *, active_only: bool = True
) -> Tensor:
    """All pairs of a batch with a linear hinge on each side, the form of metric-learning libraries.

        mean over positive pairs of max(0, d - pos_margin)  +  mean over negative pairs of max(0, neg_margin - d)

    Args:
        z: (N, D) float embeddings.
        y: (N,) int labels.
        pos_margin: positives nearer than this are left alone, >= 0.
        neg_margin: negatives further away than this are left alone, >= 0.
        active_only: average over the pairs with a loss above 0 only.

    Returns:
        scalar; a kind of pair that the batch lacks counts as 0.
    """
    same, others = _pair_masks("margin_pairs", z, y)
    _check_margin("margin_pairs", min(pos_margin, neg_margin))
    d = pairwise_distance(z, z)
    sides = F.relu(d[same] - pos_margin), F.relu(neg_margin - d[others])
    pull, push = (_mean_or_zero(side[side > 0] if active_only else side, z) for side in sides)
    return pull + push


@full_precision
def batch_hard_triplet(z: Tensor, y: Tensor, margin: float = 0.2) -> Tensor:
    """Triplet loss with the hardest positive and the hardest negative of the batch (Hermans et al. 2017, Eq. 5).

        mean over anchors a of max(0, margin + max_{p: y_p = y_a, p != a} d_ap - min_{n: y_n != y_a} d_an)

    Args:
        z: (N, D) float embeddings.
        y: (N,) int labels.
        margin: >= 0.

    Returns:
        scalar, mean over the anchors that have both a positive and a negative; 0 if none has.
    """
    same, others = _pair_masks("batch_hard_triplet", z, y)
    _check_margin("batch_hard_triplet", margin)
    d = pairwise_distance(z, z)
    furthest = d.masked_fill(~same, -math.inf).amax(dim=1)
    nearest = d.masked_fill(~others, math.inf).amin(dim=1)
    counts = same.any(dim=1) & others.any(dim=1)
    return _mean_or_zero(F.relu(margin + furthest[counts] - nearest[counts]), z)


@full_precision
def triplet(
    z: Tensor,
    y: Tensor,
    margin: float = 0.2,
    *,
    mining: Literal["all", "semi_hard"] = "all",
    squared: bool = False,
    swap: bool = False,
    soft: bool = False,
    active_only: bool = True,
) -> Tensor:
    """Triplet loss max(0, d_ap - d_an + margin) over the triplets of a batch (Schroff et al. 2015, FaceNet, Eq. 2-3).

    Args:
        z: (N, D) float embeddings.
        y: (N,) int labels.
        margin: >= 0.
        mining: "all" triplets, or "semi_hard": for each (anchor, positive) the nearest negative that is further away
            than the positive, or the furthest negative where there is none (FaceNet, Section 3.2).
        squared: use squared distances, as FaceNet does.
        swap: measure the negative from whichever of anchor and positive it is nearer to (Balntas et al. 2016).
        soft: log(1 + exp(.)) in place of max(0, .) (Hermans et al. 2017, "soft margin"); no triplet is ever solved.
        active_only: average over the triplets with a loss above 0, so that the many solved ones do not drown the rest.

    Returns:
        scalar; 0 if there is no such triplet.
    """
    same, others = _pair_masks("triplet", z, y)
    _check_margin("triplet", margin)
    if swap and mining != "all":
        raise InputError(f"triplet swaps anchor and positive with mining='all' only; got mining='{mining}'.")
    d = pairwise_distance(z, z)
    d = d.pow(2) if squared else d
    if mining == "all":
        to_negative = torch.minimum(d[:, None, :], d[None, :, :]) if swap else d[:, None, :]
        losses = (d[:, :, None] - to_negative + margin)[same[:, :, None] & others[:, None, :]]
    else:
        anchor, positive = (same & others.any(dim=1, keepdim=True)).nonzero(as_tuple=True)
        to_positive, row, negative = d[anchor, positive], d[anchor], others[anchor]
        further = negative & (row > to_positive[:, None])
        nearest = row.masked_fill(~further, math.inf).amin(dim=1)
        furthest = row.masked_fill(~negative, -math.inf).amax(dim=1)
        losses = to_positive - torch.where(further.any(dim=1), nearest, furthest) + margin
    losses = F.softplus(losses) if soft else F.relu(losses)
    return _mean_or_zero(losses[losses > 0] if active_only else losses, z)


@full_precision
def lifted_structured(z: Tensor, y: Tensor, margin: float = 1.0) -> Tensor:
    """Lifted structured loss: each positive pair against all negatives of both its ends (Oh Song et al. 2016, Eq. 4).

        J_ij = logsumexp( margin - d_ik for negatives k of i, margin - d_jl for negatives l of j ) + d_ij
        L    = 1 / (2 |P|) * sum over the positive pairs of max(0, J_ij)^2

    Args:
        z: (N, D) float embeddings (the paper does not normalise them).
        y: (N,) int labels.
        margin: alpha in the paper, > 0.

    Returns:
        scalar, mean over positive pairs of half the squared hinge; 0 if there is no positive pair or no negative.
    """
    same, others = _pair_masks("lifted_structured", z, y)
    _check_margin("lifted_structured", margin)
    d = pairwise_distance(z, z)
    i, j = (same & others.any(dim=1, keepdim=True)).triu(diagonal=1).nonzero(as_tuple=True)
    push = (margin - d).masked_fill(~others, -math.inf)
    both_ends = torch.cat([push[i], push[j]], dim=1).logsumexp(dim=1)
    return _mean_or_zero(F.relu(both_ends + d[i, j]).pow(2) / 2, z)


@full_precision
def lifted_generalized(z: Tensor, y: Tensor, margin: float = 1.0) -> Tensor:
    """The lifted loss an anchor at a time (Hermans et al. 2017, Eq. 7), with a soft maximum on both sides.

        mean over anchors of max(0, logsumexp_p d_ap + logsumexp_n (margin - d_an))

    Args:
        z: (N, D) float embeddings.
        y: (N,) int labels.
        margin: >= 0.

    Returns:
        scalar, mean over all N anchors; a side that an anchor lacks counts as 0, so one without positives still pushes.
    """
    same, others = _pair_masks("lifted_generalized", z, y)
    _check_margin("lifted_generalized", margin)
    d = pairwise_distance(z, z)
    return F.relu(_soft_maximum(d, same) + _soft_maximum(margin - d, others)).mean()


@full_precision
def n_pair(a: Tensor, p: Tensor, l2: float = 0.0) -> Tensor:
    """N-pair loss: tell the positive from the other N - 1 classes' positives (Sohn 2016, Eq. 11 and Section 3.2.2).

    It is InfoNCE without temperature and without normalisation; instead the squared norms are kept small.

    Args:
        a: (N, D) float anchors, one of each class.
        p: (N, D) float positives in the same order.
        l2: weight of the mean squared norm of all 2N embeddings, >= 0.

    Returns:
        scalar, mean over the N anchors, plus the regulariser.
    """
    if a.ndim != 2 or a.shape != p.shape or len(a) < 2:
        raise InputError(f"n_pair needs two (N, D) tensors with N >= 2; got {tuple(a.shape)} and {tuple(p.shape)}.")
    loss = F.cross_entropy(a @ p.T, torch.arange(len(a), device=a.device))
    return loss + l2 * torch.cat([a, p]).pow(2).sum(dim=1).mean()


@full_precision
def soft_nearest_neighbor(z: Tensor, y: Tensor, T: float = 1.0) -> Tensor:
    """Soft nearest neighbours: how likely one drawn by distance has the same class (Frosst et al. 2019, Eq. 1).

        -mean over i of log( sum_{j != i, y_j = y_i} exp(-d_ij^2 / T) / sum_{k != i} exp(-d_ik^2 / T) )

    Args:
        z: (N, D) float embeddings.
        y: (N,) int labels.
        T: temperature of the squared distances, > 0.

    Returns:
        scalar, mean over the points that have another point of their class; 0 if none has.
    """
    same, others = _pair_masks("soft_nearest_neighbor", z, y)
    if not T > 0:
        raise InputError(f"soft_nearest_neighbor got T={T}: the temperature must be greater than 0.")
    logits = -(z[:, None] - z[None]).pow(2).sum(dim=2) / T
    counts = same.any(dim=1)
    logits, same, others = logits[counts], same[counts], others[counts]
    everyone = logits.masked_fill(~(same | others), -math.inf).logsumexp(dim=1)
    own_class = logits.masked_fill(~same, -math.inf).logsumexp(dim=1)
    return _mean_or_zero(everyone - own_class, z)


def _pair_masks(name: str, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(N, N) bool: pairs of one class without the diagonal, pairs of different classes."""
    if z.ndim != 2 or not z.is_floating_point() or y.shape != z.shape[:1]:
        raise InputError(
            f"{name} needs (N, D) float z and (N,) labels; got {z.dtype} {tuple(z.shape)} and {tuple(y.shape)}."
        )
    equal = y[:, None] == y[None, :]
    return equal & ~torch.eye(len(y), dtype=torch.bool, device=y.device), ~equal


def _soft_maximum(values: Tensor, mask: Tensor) -> Tensor:
    """logsumexp over the True entries of each row, 0 where there are none."""
    some = mask.any(dim=1)
    return values.masked_fill(~mask & some[:, None], -math.inf).logsumexp(dim=1) * some


def _check_margin(name: str, margin: float) -> None:
    if not margin >= 0:
        raise InputError(f"{name} got margin={margin}: a margin is 0 or more.")


def _mean_or_zero(values: Tensor, z: Tensor) -> Tensor:
    """The mean, or a 0 that is still connected to the embeddings, so that `backward` works."""
    return values.mean() if values.numel() else z.sum() * 0.0
