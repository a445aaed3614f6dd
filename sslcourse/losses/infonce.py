r"""InfoNCE and NT-Xent: pick the positive out of a crowd of negatives by cosine similarity.

For a query q, its positive k+ and the candidates C (k+ and the negatives), all L2-normalised,

    L = -log( exp(q.k+ / tau) / sum_{k in C} exp(q.k / tau) ) = logsumexp_{k in C}(q.k / tau) - q.k+ / tau

van den Oord et al. 2018 (CPC, Eq. 4) call it InfoNCE; `info_nce` is the form of MoCo (He et al. 2020, Eq. 1) and CLIP's
one direction. NT-Xent (Chen et al. 2020, SimCLR, Eq. 1) makes every one of the 2N views of a batch an anchor: its
positive is the other view of the same image, its candidates are all views but itself.

Everything is computed from log-sum-exp, so a temperature of 0.01 does not overflow, and in float32 or wider
(`losses.precision`), so half-precision embeddings are safe.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.precision import full_precision


@full_precision
def info_nce(q: Tensor, k: Tensor, negs: Tensor | None = None, tau: float = 0.1) -> Tensor:
    """InfoNCE of queries against keys (CPC, Eq. 4; MoCo, Eq. 1).

    Args:
        q: (N, D) float queries, L2-normalised inside.
        k: (N, D) float keys, L2-normalised inside; `k[i]` is the positive of `q[i]`. Detach it where the method does.
        negs: None: the other keys of the batch are the negatives; (M, D): negatives shared by all queries, such as
            MoCo's queue; (N, M, D): each query's own. Normalised inside. Given negatives replace the batch's.
        tau: temperature, > 0.

    Returns:
        scalar, mean over the N queries.

    Raises:
        InputError: shapes, dtypes or `tau` that make no loss, or no negatives (a batch of 1 with `negs=None`).
    """
    _check_pair("info_nce", q, k, tau)
    q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)
    if negs is None:
        if len(q) < 2:
            raise InputError(
                f"info_nce got a batch of {len(q)}: without a second key there are no negatives; pass negs."
            )
        logits = q @ k.T / tau
        positive = torch.arange(len(q), device=q.device)
    else:
        _check_negatives(q, negs)
        negs = F.normalize(negs, dim=-1)
        to_positive = (q * k).sum(dim=1, keepdim=True)
        to_negatives = q @ negs.T if negs.ndim == 2 else torch.einsum("nd,nmd->nm", q, negs)
        logits = torch.cat([to_positive, to_negatives], dim=1) / tau
        positive = torch.zeros(len(q), dtype=torch.long, device=q.device)  # column 0
    return F.cross_entropy(logits, positive)


@full_precision
def nt_xent(
    z1: Tensor,
    z2: Tensor,
    tau: float = 0.5,
    *,
    tile: int | None = None,
    normalize: bool = True,
    eps: float = 1e-12,
) -> Tensor:
    """NT-Xent, the loss of SimCLR (Chen et al. 2020, Eq. 1): every view has to find its partner among 2N - 1.

    Args:
        z1: (N, D) float, embeddings of the first views, L2-normalised inside.
        z2: (N, D) float, embeddings of the second views, in the same order.
        tau: temperature, > 0.
        tile: None: the readable form, which holds the (2N, 2N) logits and lets autograd differentiate them. An integer:
            the same value and gradient from `tile` rows of logits at a time. The gradient is computed in the forward
            pass, so memory is O(N * tile), and each logit is computed once; several times faster on large batches. 256
            suits a CPU, 1024 or more a GPU. It cannot be differentiated twice.
        normalize: False for embeddings that are used as they are.
        eps: the smallest norm that an embedding is divided by. A zero vector stays zero, and its gradient is 1/eps
            times that of its direction. The official TensorFlow code amounts to 1e-6.

    Returns:
        scalar, mean over 2N anchors. (The official TensorFlow code returns the sum of two means over N: twice this.)

    Raises:
        InputError: shapes, dtypes or `tau` that make no loss; a batch of 1, which has no negatives; `tile` < 1; a
            second derivative of the tiled form.
    """
    _check_views("nt_xent", z1, z2, tau)
    z = torch.cat([z1, z2])
    if normalize:
        z = F.normalize(z, dim=1, eps=eps)
    if tile is not None:
        if tile < 1:
            raise InputError(f"nt_xent got tile={tile}: a tile has at least 1 row.")
        return _TiledNTXent.apply(z, tau, tile)
    positive, candidates = nt_xent_masks(len(z1), device=z.device)
    logits = z @ z.T / tau
    log_denominator = logits.masked_fill(~candidates, -math.inf).logsumexp(dim=1)
    log_numerator = logits.masked_fill(~positive, 0.0).sum(dim=1)
    return (log_denominator - log_numerator).mean()


@full_precision
def cosine_similarity_matrix(a: Tensor, b: Tensor | None = None) -> Tensor:
    """Cosine similarity of every row of `a` with every row of `b`: (N, D), (M, D) float -> (N, M) in [-1, 1].

    `b=None` compares `a` with itself. A zero vector has similarity 0 with everything.
    """
    a = F.normalize(a, dim=1)
    b = a if b is None else F.normalize(b, dim=1)
    return a @ b.T


def nt_xent_masks(n: int, device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
    """Who is whose positive, and who is compared with whom, in a batch laid out as [view1; view2].

    Returns:
        positive: (2n, 2n) bool, one True a row: at column i + n for i < n, at i - n otherwise.
        candidates: (2n, 2n) bool, True everywhere but on the diagonal: a view is never compared with itself.
    """
    candidates = ~torch.eye(2 * n, dtype=torch.bool, device=device)
    return (~candidates).roll(n, dims=1), candidates


@full_precision
def nt_xent_loop(z1: Tensor, z2: Tensor, tau: float) -> Tensor:
    """NT-Xent one pair at a time, as SimCLR's Eq. 1 and Algorithm 1 write it. Slow; for reading and for checking.

    The paper interleaves the views (2k - 1, 2k); here view i + N is the partner of view i.

    Args:
        z1, z2: (N, D) float, L2-normalised inside.
        tau: temperature, > 0.

    Returns:
        scalar, mean over 2N anchors.
    """
    _check_views("nt_xent_loop", z1, z2, tau)
    z = torch.cat([z1, z2])
    z = z / z.norm(dim=1, keepdim=True).clamp_min(1e-12)
    views = len(z)
    losses = []
    for i in range(views):
        j = (i + len(z1)) % views
        log_numerator = z[i] @ z[j] / tau
        terms = torch.stack([z[i] @ z[k] / tau for k in range(views) if k != i])
        losses.append(torch.logsumexp(terms, dim=0) - log_numerator)  # = -log(numerator / denominator)
    return torch.stack(losses).mean()


class _TiledNTXent(torch.autograd.Function):
    """NT-Xent of embeddings z (2N, D) from `tile` rows of logits at a time, with dL/dz computed on the way.

    With P = softmax of the logits over the candidates (row i sums to 1 and P_ii = 0) and p(i) the partner of i,

        dL/dz_i = 1 / (2N tau) * ( sum_j P_ij z_j + sum_j P_ji z_j - 2 z_p(i) ).

    A block of rows of P is all that its own first term and everybody's second term need of it, so a block is computed,
    used twice and forgotten. What is saved for the backward pass is one (2N, D) tensor.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, tau: float, tile: int) -> Tensor:
        views = len(z)
        partner = z.roll(views // 2, dims=0)
        scaled = z / tau
        gradient = partner * -2.0
        total = -(scaled * partner).sum()
        for start in range(0, views, tile):
            rows = slice(start, start + tile)
            p = scaled[rows] @ z.T
            p.diagonal(start).fill_(-math.inf)
            highest = p.amax(dim=1, keepdim=True)
            p.sub_(highest).exp_()  # in place, here and below: a pass over memory costs more than the arithmetic
            mass = p.sum(dim=1, keepdim=True)
            total += (mass.log() + highest).sum()
            if not ctx.needs_input_grad[0]:
                continue
            p.div_(mass)
            gradient[rows].addmm_(p, z)
            gradient.addmm_(p.T, z[rows])
        ctx.save_for_backward(gradient.mul_(1 / (views * tau)))
        return total / views

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():  # create_graph=True; once_differentiable would let a wrong second derivative pass
            raise InputError("nt_xent with tile cannot be differentiated twice: use tile=None for higher derivatives.")
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None


def _check_pair(name: str, a: Tensor, b: Tensor, tau: float) -> None:
    if a.ndim != 2 or a.shape != b.shape:
        raise InputError(f"{name} needs two (N, D) tensors of one shape; got {tuple(a.shape)} and {tuple(b.shape)}.")
    if a.dtype != b.dtype or not a.is_floating_point():
        raise InputError(f"{name} needs embeddings of one floating-point dtype; got {a.dtype} and {b.dtype}.")
    if not tau > 0:
        raise InputError(f"{name} got tau={tau}: the temperature must be greater than 0.")


def _check_views(name: str, z1: Tensor, z2: Tensor, tau: float) -> None:
    _check_pair(name, z1, z2, tau)
    if len(z1) < 2:
        raise InputError(
            f"{name} got a batch of {len(z1)}: without a second image there are no negatives; use 2 or more."
        )


def _check_negatives(q: Tensor, negs: Tensor) -> None:
    fits = negs.ndim in (2, 3) and negs.shape[-1] == q.shape[1] and (negs.ndim == 2 or len(negs) == len(q))
    if not fits or negs.shape[-2] == 0:
        n, d = q.shape
        raise InputError(
            f"info_nce needs negs of shape (M, {d}) or ({n}, M, {d}) with M >= 1; got {tuple(negs.shape)}."
        )
    if negs.dtype != q.dtype:
        raise InputError(f"info_nce needs negatives of the dtype of the queries, {q.dtype}; got {negs.dtype}.")
