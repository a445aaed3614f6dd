r"""Supervised contrastive losses (Khosla et al. 2020): every view of every image of my class is a positive.

With P(i) the positives of anchor i and A(i) all views but i itself,

    L_out = mean_i  -1/|P(i)| sum_{p in P(i)} log( exp(z_i.z_p / tau) / sum_{a in A(i)} exp(z_i.z_a / tau) )   (Eq. 2)
    L_in  = mean_i  -log( 1/|P(i)| sum_{p in P(i)} exp(z_i.z_p / tau) / sum_{a in A(i)} exp(z_i.z_a / tau) )   (Eq. 3)

By Jensen's inequality L_in <= L_out, with equality when all positives are equally similar; yet L_out trains better
(78.7 against 67.4 % on ImageNet), because its gradient does not fade on the positives that are still far away.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.precision import full_precision


@full_precision
def supcon_out(
    z: Tensor,
    y: Tensor | None = None,
    tau: float = 0.1,
    *,
    mask: Tensor | None = None,
    all_anchors: bool = True,
    normalize: bool = True,
    tile: int | None = None,
) -> Tensor:
    """L_out: the mean over positives outside the logarithm (Khosla et al. 2020, Eq. 2).

    Args:
        z: (B, V, D) float, V views of B images, L2-normalised inside.
        y: (B,) int labels; None: every image is its own class, and with two views this is NT-Xent.
        tau: temperature, > 0.
        mask: (B, B), in place of labels: entry (i, j) is not 0 where the views of j are positives of the views of i.
        all_anchors: every view is an anchor; False: only the first view of each image.
        normalize: False for embeddings that are used as they are.
        tile: an integer gives the same value and gradient from so many rows of similarities at a time, as in `nt_xent`:
            O(B V tile) memory. With labels (not a mask) and all anchors only; cannot be differentiated twice.

    Returns:
        scalar, mean over the anchors; an anchor without positives counts as 0.
    """
    if tile is not None:
        _check("supcon_out", z, y, tau, mask)
        if tile < 1 or mask is not None or not all_anchors:
            raise InputError(f"supcon_out with tile={tile} needs tile >= 1, labels and all anchors; use tile=None.")
        views, labels = _by_view(z, normalize), _classes(z, y).repeat(z.shape[1])
        return _TiledSupCon.apply(views, labels, tau, tile)
    logits, positive, denominator = _supcon_terms("supcon_out", z, y, tau, mask, all_anchors, normalize)
    count = positive.sum(dim=1)
    mean_positive = logits.masked_fill(~positive, 0.0).sum(dim=1) / count.clamp_min(1)
    return ((denominator - mean_positive) * (count > 0)).mean()


@full_precision
def supcon_in(
    z: Tensor,
    y: Tensor | None = None,
    tau: float = 0.1,
    *,
    mask: Tensor | None = None,
    all_anchors: bool = True,
    normalize: bool = True,
) -> Tensor:
    """L_in: the mean over positives inside the logarithm (Khosla et al. 2020, Eq. 3). Arguments as in `supcon_out`."""
    logits, positive, denominator = _supcon_terms("supcon_in", z, y, tau, mask, all_anchors, normalize)
    count = positive.sum(dim=1)
    has_positive = count > 0
    # Rows without positives are replaced before the log-sum-exp: an empty one is -inf, and its gradient NaN.
    safe = logits.masked_fill(~positive & has_positive[:, None], -math.inf)
    log_mean_positive = safe.logsumexp(dim=1) - count.clamp_min(1).log()
    return ((denominator - log_mean_positive) * has_positive).mean()


@full_precision
def nt_xent_pairs(z: Tensor, y: Tensor, tau: float = 0.1) -> Tensor:
    """One InfoNCE a positive pair: its negatives are the other classes only, never the other positives.

    With two samples a class it is NT-Xent; with more it is neither NT-Xent nor SupCon, whose positives compete with
    each other. Metric-learning libraries call this form NT-Xent with labels.

    Args:
        z: (N, D) float, L2-normalised inside.
        y: (N,) int labels.
        tau: temperature, > 0.

    Returns:
        scalar, mean over the ordered positive pairs; 0 if there is none.
    """
    if z.ndim != 2 or not z.is_floating_point() or y.shape != z.shape[:1]:
        raise InputError(f"nt_xent_pairs needs float (N, D) and (N,) labels; got {tuple(z.shape)}, {tuple(y.shape)}.")
    if not tau > 0:
        raise InputError(f"nt_xent_pairs got tau={tau}: the temperature must be greater than 0.")
    z = F.normalize(z, dim=1)
    logits, equal = z @ z.T / tau, y[:, None] == y[None, :]
    # The lowest number instead of -inf: an anchor without negatives has log-sum-exp "nothing", with gradient 0.
    log_negatives = logits.masked_fill(equal, torch.finfo(z.dtype).min).logsumexp(dim=1)
    anchor, positive = (equal & ~torch.eye(len(z), dtype=torch.bool, device=z.device)).nonzero(as_tuple=True)
    if not len(anchor):
        return z.sum() * 0.0
    return F.softplus(log_negatives[anchor] - logits[anchor, positive]).mean()


def _supcon_terms(
    name: str, z: Tensor, y: Tensor | None, tau: float, mask: Tensor | None, all_anchors: bool, normalize: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (anchors, V B) view by view, which of them are positives, and the log-denominators (anchors,)."""
    _check(name, z, y, tau, mask)
    b, v, _ = z.shape
    if mask is None:
        y = _classes(z, y)
        mask = y[:, None] == y[None, :]
    views = _by_view(z, normalize)
    anchors = views if all_anchors else views[:b]
    itself = torch.eye(len(anchors), b * v, dtype=torch.bool, device=z.device)
    logits = anchors @ views.T / tau
    positive = (mask != 0).repeat(len(anchors) // b, v) & ~itself
    return logits, positive, logits.masked_fill(itself, -math.inf).logsumexp(dim=1)


class _TiledSupCon(torch.autograd.Function):
    """L_out of views z (M, D) with labels y from `tile` rows of logits at a time, with dL/dz computed on the way.

    With P = softmax of the logits over all but the diagonal, c the class of i, n_c its views, S_c their sum, and
    anchors without positives (n_c = 1) counted as 0,

        L       = 1/M sum_i ( logsumexp_i - z_i.(S_c - z_i) / (tau (n_c - 1)) )
        dL/dz_i = 1/(M tau) ( sum_j P_ij z_j + sum_j P_ji z_j - 2 (S_c - z_i) / (n_c - 1) ),

    so the positives need no (M, M) matrix at all, and a block of rows of P is computed, used twice and forgotten.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor, tau: float, tile: int) -> Tensor:
        count = torch.bincount(y)[y]
        counts = (count > 1).to(z.dtype)
        sums = z.new_zeros(int(y.max()) + 1, z.shape[1]).index_add_(0, y, z)
        mean_positive = (sums[y] - z) * (counts / (count - 1).clamp_min(1))[:, None]
        gradient = mean_positive * -2.0
        scaled = z / tau
        total = -(scaled * mean_positive).sum()
        for start in range(0, len(z), tile):
            rows = slice(start, start + tile)
            p = scaled[rows] @ z.T
            p.diagonal(start).fill_(-math.inf)
            highest = p.amax(dim=1, keepdim=True)
            p.sub_(highest).exp_()
            mass = p.sum(dim=1, keepdim=True)
            total += ((mass.log() + highest)[:, 0] * counts[rows]).sum()
            if not ctx.needs_input_grad[0]:
                continue
            p.mul_(counts[rows, None] / mass)
            gradient[rows].addmm_(p, z)
            gradient.addmm_(p.T, z[rows])
        ctx.save_for_backward(gradient.mul_(1 / (len(z) * tau)))
        return total / len(z)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        if torch.is_grad_enabled():
            raise InputError("supcon_out with tile cannot be differentiated twice: use tile=None.")
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None, None


def _by_view(z: Tensor, normalize: bool) -> Tensor:
    """(B, V, D) -> (V B, D), row = view * B + image."""
    views = z.transpose(0, 1).flatten(0, 1)
    return F.normalize(views, dim=1) if normalize else views


def _classes(z: Tensor, y: Tensor | None) -> Tensor:
    """Labels as 0, 1, ...; every image its own class where there are none."""
    return torch.arange(len(z), device=z.device) if y is None else y.unique(return_inverse=True)[1]


def _check(name: str, z: Tensor, y: Tensor | None, tau: float, mask: Tensor | None) -> None:
    if z.ndim != 3 or not z.is_floating_point():
        raise InputError(f"{name} needs float embeddings (B, V, D); got {z.dtype} {tuple(z.shape)}.")
    b, v, _ = z.shape
    if b * v < 2:
        raise InputError(f"{name} got one view of one image: there is nothing to compare it with.")
    if not tau > 0:
        raise InputError(f"{name} got tau={tau}: the temperature must be greater than 0.")
    if y is not None and mask is not None:
        raise InputError(f"{name} takes labels or a mask, not both.")
    if (y is not None and y.shape != (b,)) or (mask is not None and mask.shape != (b, b)):
        raise InputError(f"{name} needs {b} labels or a ({b}, {b}) mask for embeddings {tuple(z.shape)}.")
