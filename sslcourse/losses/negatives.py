r"""Hard negatives: weigh them by hardness (Robinson et al. 2021), or make more of them (MoCHi, Kalantidis et al. 2020).

Most of thousands of negatives are far away and teach nothing; the close ones teach most, and some of them are of the
anchor's own class (false negatives). Robinson et al. reweight by exp(beta * similarity) and subtract what a share
tau_plus of false negatives is expected to contribute. MoCHi mixes the hardest ones into synthetic ones.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.infonce import nt_xent_masks
from sslcourse.losses.precision import full_precision


@full_precision
def in_batch_similarities(z1: Tensor, z2: Tensor, *, normalize: bool = True) -> tuple[Tensor, Tensor]:
    """What SimCLR's 2N anchors compare themselves with, for `hcl_reweighted`.

    Args:
        z1, z2: (N, D) float, the two views in one order, N >= 2.
        normalize: False for embeddings that are used as they are.

    Returns:
        pos: (2N,) similarity of every view with its partner.
        neg: (2N, 2N - 2) similarities with all views of other images.
    """
    if z1.ndim != 2 or z1.shape != z2.shape or len(z1) < 2:
        raise InputError(
            f"in_batch_similarities needs two (N, D) tensors, N >= 2; got {(*z1.shape,)} and {(*z2.shape,)}."
        )
    z = torch.cat([z1, z2])
    z = F.normalize(z, dim=1) if normalize else z
    similarity = z @ z.T
    positive, candidates = nt_xent_masks(len(z1), device=z.device)
    return similarity[positive], similarity[candidates & ~positive].view(len(z), -1)


@full_precision
def hcl_reweighted(pos: Tensor, neg: Tensor, tau: float = 0.5, beta: float = 1.0, tau_plus: float = 0.1) -> Tensor:
    r"""InfoNCE with debiased, hardness-weighted negatives (Robinson et al. 2021, Eq. 4; Chuang et al. 2020, Eq. 8).

    With w_j proportional to exp(beta s_j / tau), of mean 1 over the M negatives,

        N_g = max( ( sum_j w_j exp(s_j / tau) - tau_plus M exp(s_+ / tau) ) / (1 - tau_plus),  M exp(-1 / tau) )
        L   = mean of -log( exp(s_+ / tau) / ( exp(s_+ / tau) + N_g ) )

    beta = 0 and tau_plus = 0 give NT-Xent. The gradient flows through the weights too, as in the authors' code.

    Args:
        pos: (A,) float, cosine similarity of each anchor with its positive.
        neg: (A, M) float, cosine similarities with its negatives, M >= 1.
        tau: temperature, > 0.
        beta: concentration on the hard negatives, >= 0.
        tau_plus: expected share of false negatives, 0 <= tau_plus < 1.

    Returns:
        scalar, mean over the anchors.
    """
    if pos.ndim != 1 or neg.ndim != 2 or len(neg) != len(pos) or neg.shape[1] == 0:
        raise InputError(f"hcl_reweighted needs pos (A,) and neg (A, M); got {tuple(pos.shape)}, {tuple(neg.shape)}.")
    if not tau > 0 or not beta >= 0 or not 0 <= tau_plus < 1:
        raise InputError(
            f"hcl_reweighted needs tau > 0, beta >= 0, 0 <= tau_plus < 1; got {tau}, {beta} and {tau_plus}."
        )
    log_m = math.log(neg.shape[1])
    log_pos, log_neg = pos / tau, neg / tau
    # In the log domain, since exp(100) at tau = 0.01 is beyond float32.
    weighted = log_m + ((1 + beta) * log_neg).logsumexp(dim=1) - (beta * log_neg).logsumexp(dim=1)
    floor = torch.full_like(weighted, log_m - 1 / tau)
    if tau_plus > 0:
        gap = log_pos + math.log(tau_plus) + log_m - weighted  # log of what is subtracted, relative to `weighted`
        positive = gap < 0
        weighted = weighted + torch.log1p(-torch.where(positive, gap, -1.0).exp()) - math.log1p(-tau_plus)
        weighted = torch.where(positive, weighted, floor)
    log_ng = torch.maximum(weighted, floor)
    return (torch.logaddexp(log_pos, log_ng) - log_pos).mean()


class MoCHiDraws(NamedTuple):
    """What is random in MoCHi: which of the hardest negatives are mixed, and how much of the first partner there is."""

    i: Tensor  # (B, s1) int64, positions among the hardest
    j: Tensor  # (B, s1) int64
    alpha: Tensor  # (B, s1, 1) in (0, 1)
    with_query: Tensor  # (B, s2) int64
    beta: Tensor  # (B, s2, 1) in (0, 0.5): below one half, so that the query never dominates its own negative


def mochi_draws(batch: int, n_hard: int, s1: int, s2: int, rng: torch.Generator) -> MoCHiDraws:
    """Draw the pairs and mixing coefficients of `mochi_mix` (on the CPU)."""
    pick = lambda s: torch.randint(n_hard, (batch, s), generator=rng)  # noqa: E731
    share = lambda s: torch.rand(batch, s, 1, generator=rng)  # noqa: E731
    return MoCHiDraws(pick(s1), pick(s1), share(s1), pick(s2), share(s2) / 2)


def mochi_mix(q: Tensor, hard: Tensor, draws: MoCHiDraws) -> Tensor:
    """Synthetic negatives (Kalantidis et al. 2020, Eq. 4 and 6): mixed hard negatives, and hard negatives mixed with q.

    Args:
        q: (B, D) float unit queries.
        hard: (B, n_hard, D) float unit hard negatives of each query.
        draws: see `MoCHiDraws`.

    Returns:
        (B, s1 + s2, D) float unit vectors without gradient.
    """
    draws = MoCHiDraws(*(d.to(q.device) for d in draws))
    with torch.no_grad():
        at = lambda index: hard.gather(1, index[:, :, None].expand(-1, -1, hard.shape[2]))  # noqa: E731
        between = draws.alpha * at(draws.i) + (1 - draws.alpha) * at(draws.j)
        towards_query = draws.beta * q[:, None] + (1 - draws.beta) * at(draws.with_query)
        return F.normalize(torch.cat([between, towards_query], dim=1), dim=2)


def mochi_synthesize(q: Tensor, negs: Tensor, n_hard: int, s1: int, s2: int, rng: torch.Generator) -> Tensor:
    """MoCHi (Kalantidis et al. 2020): s1 + s2 synthetic negatives a query from its `n_hard` hardest ones.

    Args:
        q: (B, D) float queries, L2-normalised inside.
        negs: (K, D) float negatives such as MoCo's queue, L2-normalised inside.
        n_hard: how many of the most similar negatives are mixed, 1 <= n_hard <= K.
        s1: synthetic negatives between two hard ones.
        s2: synthetic negatives between the query and a hard one.
        rng: CPU generator.

    Returns:
        (B, s1 + s2, D) float unit vectors without gradient; append them to each query's negatives.
    """
    if q.ndim != 2 or negs.ndim != 2 or q.shape[1] != negs.shape[1] or not 1 <= n_hard <= len(negs):
        raise InputError(
            f"mochi_synthesize needs q (B, D), negs (K, D) and 1 <= n_hard <= K; got {tuple(q.shape)}, "
            f"{tuple(negs.shape)} and {n_hard}."
        )
    with torch.no_grad():
        q, negs = F.normalize(q, dim=1), F.normalize(negs, dim=1)
        hardest = (q @ negs.T).topk(n_hard, dim=1).indices
    return mochi_mix(q, negs[hardest], mochi_draws(len(q), n_hard, s1, s2, rng))
