r"""SwAV: assign images to prototypes so that all are used equally, and predict the assignment of another view.

Codes are the solution of an entropy-regularised transport between N images and K prototypes,

    max_Q  <Q, scores> + eps H(Q)    over Q >= 0 whose rows sum to 1 and columns to N / K,

found by normalising columns and rows of exp(scores / eps) in turn (Sinkhorn-Knopp; Cuturi 2013). The loss is

    L = 1/G sum_{i < G} 1/(V - 1) sum_{v != i} -mean_b sum_k Q_i log softmax(scores_v / tau).

Caron et al. 2020, "Unsupervised learning of visual features by contrasting cluster assignments", arXiv:2006.09882,
Eq. 2 to 6 and Section 3.4.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.precision import full_precision
from sslcourse.train.distributed import gather


@torch.no_grad()
@full_precision
def sinkhorn(scores: Tensor, eps: float = 0.05, n_iter: int = 3) -> Tensor:
    """Soft assignments that use all prototypes equally, without gradient.

    At first in the log domain: exp(scores / eps) overflows float32 where scores / eps > 88, as it is for eps 0.01 and a
    cosine near 1; here no such number is formed. After one iteration every column has an entry of 1 / (N K) or more,
    so that the others need no logarithms. Each iteration normalises the prototypes first and the samples last, so rows
    sum to 1 exactly and columns to N / K in the limit of many iterations. Total mass and the factors 1/K and 1/N of the
    paper cancel in that last step. With several processes the columns run over the batches of all of them.

    Args:
        scores: (N, K) float, similarities with the prototypes; a process may have none, N = 0.
        eps: strength of the entropy term, > 0. Small: hard assignments; large: uniform ones.
        n_iter: iterations, >= 1.

    Returns:
        (N, K), rows sum to 1.
    """
    if scores.ndim != 2 or scores.shape[1] < 1:
        raise InputError(f"sinkhorn needs scores (N, K), K >= 1; got {tuple(scores.shape)}.")
    if not eps > 0 or n_iter < 1:
        raise InputError(f"sinkhorn needs eps > 0 and n_iter >= 1; got eps={eps} and n_iter={n_iter}.")
    log_q = scores / eps
    log_q -= gather(_log_column_sums(log_q)).logsumexp(dim=0)  # of all processes
    q = log_q.softmax(dim=1)
    for _ in range(n_iter - 1):
        q /= gather(q.sum(dim=0, keepdim=True)).sum(dim=0)
        q /= q.sum(dim=1, keepdim=True)
    return q


def _log_column_sums(x: Tensor) -> Tensor:
    """`x.logsumexp(dim=0, keepdim=True)`, which takes several times as long on a CPU."""
    if not len(x):
        return x.new_full((1, x.shape[1]), -torch.inf)
    largest = x.amax(dim=0, keepdim=True)
    return (x - largest).exp_().sum(dim=0, keepdim=True).log_() + largest


@full_precision
def swav_loss(scores: Sequence[Tensor], codes: Sequence[Tensor], tau: float = 0.1) -> Tensor:
    """Swapped prediction: every view predicts the codes of the *other* global views.

    Args:
        scores: V tensors (B, K), similarities of each view with the unit prototypes, global views first.
        codes: G <= V tensors (B, K) of `sinkhorn`, codes[i] those of view i; detached.
        tau: temperature of the prediction, > 0; not Sinkhorn's eps.

    Returns:
        scalar, the mean over codes, over the V - 1 other views and over the batch.
    """
    if not tau > 0:
        raise InputError(f"swav_loss got tau={tau}: the temperature must be greater than 0.")
    if len(scores) < 2 or not 1 <= len(codes) <= len(scores):
        raise InputError(
            f"swav_loss needs 2 or more views and codes of the first ones; got {len(scores)}, {len(codes)}."
        )
    if len({tuple(x.shape) for x in (*scores, *codes)}) > 1:
        raise InputError(f"swav_loss needs one shape (B, K); got {[tuple(x.shape) for x in (*scores, *codes)]}.")
    log_p = [F.log_softmax(s / tau, dim=1) for s in scores]
    terms = [
        -(q.detach() * log_p[v]).sum(dim=1).mean() for i, q in enumerate(codes) for v in range(len(scores)) if v != i
    ]
    return torch.stack(terms).mean()


def swav_codes(scores: Tensor, queued: Tensor | None = None, eps: float = 0.05, n_iter: int = 3) -> Tensor:
    """Codes of a batch that is smaller than the number of prototypes, with earlier images to balance it (Section 3.4).

    Args:
        scores: (B, K) of the batch.
        queued: (Q, K), scores of stored embeddings with the prototypes of now; None for none.

    Returns:
        (B, K): the rows of the batch.
    """
    if queued is None:
        return sinkhorn(scores, eps, n_iter)
    return sinkhorn(torch.cat([queued, scores]), eps, n_iter)[len(queued) :]


@torch.no_grad()
def normalize_prototypes(weight: Tensor) -> None:
    """Bring the prototypes (K, D) back to unit length, in place; SwAV does so before every step."""
    weight.copy_(F.normalize(weight, dim=1))
