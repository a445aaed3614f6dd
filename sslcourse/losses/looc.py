r"""LooC (Xiao et al. 2021): one embedding space for each augmentation, indifferent to all augmentations but that one.

Being told that two differently coloured views are the same teaches a network to ignore colour, which a task may need.
With n augmentations LooC makes, beside the query and a key k_0 with augmentations of its own, keys k_1 .. k_n; k_i
shares the parameters of augmentation i with the query and nothing else. There are n + 1 spaces:

    Z_0, indifferent to all:    every key of the image is a positive, one at a time
    Z_i, sensitive to i:        k_i is the positive; the *other keys of the same image* are negatives, since they differ
                                in augmentation i, and so are other images

    L = -1/(n+1) ( 1/(n+1) sum_j log E_0j / (E_0j + N_0)  +  sum_i log E_ii / (sum_j E_ij + N_i) ),

E_ij = exp(q_i.k_ij / tau) in space i, N_i the sum over the negatives of other images that wait in queue i.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.precision import full_precision


def looc_targets(views: Tensor, n_aug: int) -> tuple[Tensor, Tensor]:
    """Which views of an image are positives and which negatives of the query, in every embedding space.

    Args:
        views: (V, n_aug) int64, which draw of every augmentation a view was made with; row 0 is the query. Two views
            share an augmentation where their draws are equal. `looc_draws` gives the paper's.
        n_aug: number of augmentations n.

    Returns:
        positive: (n_aug + 1, V) bool. Row 0, the space indifferent to all: every view but the query. Row i: the views
            that share augmentation i - 1 with the query.
        negative: (n_aug + 1, V) bool, the other views but the query; none in row 0.
    """
    if views.ndim != 2 or views.shape[1] != n_aug or n_aug < 1 or len(views) < 2:
        raise InputError(f"looc_targets needs draws (V, {n_aug}) of a query and a key at least; got {(*views.shape,)}.")
    others = torch.ones(len(views), dtype=torch.bool, device=views.device)
    others[0] = False
    shared = (views == views[0]).T & others
    positive = torch.cat([others[None], shared])
    return positive, others & ~positive


def looc_draws(n_aug: int) -> Tensor:
    """The views of the paper: query, k_0 with all draws its own, k_i that shares draw i: (n_aug + 2, n_aug) int64."""
    draws = torch.arange(n_aug + 2)[:, None].expand(-1, n_aug).clone()
    for i in range(n_aug):
        draws[i + 2, i] = 0
    return draws


@full_precision
def looc_loss(q: Tensor, k: Tensor, queues: Tensor, tau: float = 0.2, *, draws: Tensor | None = None) -> Tensor:
    """The loss of LooC over all its spaces; with n = 0 augmentations it is MoCo.

    Args:
        q: (S, B, D) float, the query in each of the S = n + 1 spaces, L2-normalised inside.
        k: (S, V, B, D) float, the V = n + 1 keys k_0 .. k_n in each space, L2-normalised inside, detached.
        queues: (S, K, D) float unit keys of other images, one queue a space.
        tau: temperature, > 0.
        draws: (1 + V, n) int64 as in `looc_targets`; None for the paper's.

    Returns:
        scalar, mean over the B images and the S spaces.
    """
    s, b, d = q.shape
    if k.shape[:1] != (s,) or k.shape[2:] != (b, d) or queues.shape[::2] != (s, d) or not tau > 0:
        raise InputError(
            f"looc_loss needs q (S, B, D), k (S, V, B, D), queues (S, K, D) and tau > 0; got {(*q.shape,)}, "
            f"{(*k.shape,)}, {(*queues.shape,)} and {tau}."
        )
    q, k = F.normalize(q, dim=2), F.normalize(k.detach(), dim=3)
    own = torch.einsum("sbd,svbd->sbv", q, k) / tau
    others = torch.einsum("sbd,skd->sbk", q, queues.detach()).div(tau)
    losses = []
    if s == 1:
        positive, negative = (torch.full((1, k.shape[1]), value, device=q.device) for value in (True, False))
    else:
        draws = looc_draws(s - 1) if draws is None else draws
        positive, negative = (m[:, 1:].to(q.device) for m in looc_targets(draws, s - 1))
    for space in range(s):
        rivals = torch.cat([own[space][:, negative[space]], others[space]], dim=1).logsumexp(dim=1, keepdim=True)
        log_positive = own[space][:, positive[space]]
        losses.append((torch.logaddexp(log_positive, rivals) - log_positive).mean())
    return torch.stack(losses).mean()
