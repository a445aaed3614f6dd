r"""The pure functions of MoCo (He et al. 2020), whose negatives wait in a queue, and of MoCo v3 (Chen et al. 2021).

L_q = -log( exp(q.k+ / tau) / ( exp(q.k+ / tau) + sum_{k in queue} exp(q.k / tau) ) )        (MoCo, Eq. 1)
"""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.infonce import info_nce
from sslcourse.losses.precision import full_precision


@full_precision
def moco_logits(
    q: Tensor, k: Tensor, queue: Tensor, tau: float = 0.07, *, own: Tensor | None = None, normalize: bool = True
) -> tuple[Tensor, Tensor]:
    """Logits of the (1 + K)-way choice that MoCo trains (Algorithm 1), for `F.cross_entropy(logits, labels)`.

    Args:
        q: (B, D) float queries, L2-normalised inside; the gradient flows through them only.
        k: (B, D) float keys of the momentum encoder, L2-normalised inside, detached.
        queue: (K, D) float unit keys of earlier batches, detached and copied, so that it may be overwritten before
            `backward`. K = 0 leaves the positive alone.
        tau: temperature, > 0.
        own: (B, M, D) float unit negatives that each query has beside the queue, such as MoCHi's; detached.
        normalize: False for queries and keys that are used as they are.

    Returns:
        logits: (B, 1 + K + M), column 0 the positive.
        labels: (B,) int64 zeros.
    """
    if q.ndim != 2 or q.shape != k.shape or queue.ndim != 2 or queue.shape[1] != q.shape[1]:
        raise InputError(
            f"moco_logits needs q and k (B, D) and a queue (K, D); got {tuple(q.shape)}, {tuple(k.shape)} and "
            f"{tuple(queue.shape)}."
        )
    if not tau > 0:
        raise InputError(f"moco_logits got tau={tau}: the temperature must be greater than 0.")
    k = k.detach()
    if normalize:
        q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)
    positive = (q * k).sum(dim=1, keepdim=True)
    negatives = [q @ queue.detach().clone().T]
    if own is not None:
        negatives.append(torch.einsum("bd,bmd->bm", q, own.detach()))
    logits = torch.cat([positive, *negatives], dim=1) / tau
    return logits, torch.zeros(len(q), dtype=torch.long, device=q.device)


Pointer = TypeVar("Pointer", int, Tensor)


@torch.no_grad()
def queue_enqueue(queue: Tensor, ptr: Pointer, keys: Tensor) -> Pointer:
    """Overwrite the oldest rows of a ring buffer with a batch of keys, in place; return the next write position.

    Call it after the loss: a key that is already in the queue would be its own negative. The batch may wrap around the
    end, so K need not be a multiple of B (the official code asserts that it is).

    Args:
        queue: (K, D) float, changed in place.
        ptr: where to write first, 0 <= ptr < K; a tensor () on the device of the queue spares a GPU the wait for it.
        keys: (B, D) float, B <= K, stored L2-normalised.
    """
    size, n = len(queue), len(keys)
    if keys.ndim != 2 or keys.shape[1] != queue.shape[1] or n > size or (isinstance(ptr, int) and not 0 <= ptr < size):
        raise InputError(
            f"queue_enqueue cannot write keys {tuple(keys.shape)} at {ptr} of a queue {tuple(queue.shape)}."
        )
    at = (ptr + torch.arange(n, device=queue.device)) % size
    queue[at] = F.normalize(keys.detach(), dim=1).to(queue.dtype)
    return (ptr + n) % size


def shuffle_bn(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shuffle a batch before the key encoder, so that its batch norm sees other groups than the query's (Section 3.3).

    Without it the statistics of the small batch on each GPU tell which group a key came from, and the pretext task can
    be solved by that leak. It matters only where batch norm sees a part of the batch at a time.

    Returns:
        shuffled: x in a random order.
        inverse: (B,) int64; ``shuffled[inverse]`` is x again.
    """
    order = torch.randperm(len(x), generator=generator).to(x.device)
    return x[order], order.argsort()


def symmetric_moco_v3(q1: Tensor, q2: Tensor, k1: Tensor, k2: Tensor, tau: float = 0.2) -> Tensor:
    """Loss of MoCo v3 (Chen et al. 2021, Algorithm 1): 2 tau (ctr(q1, k2) + ctr(q2, k1)), negatives from the batch.

    The factor 2 tau makes the size of the gradient less dependent on the temperature.

    Args:
        q1, q2: (B, D) float predictions of the two views, L2-normalised inside.
        k1, k2: (B, D) float momentum keys of the two views, L2-normalised inside, detached.
        tau: temperature, > 0.

    Returns:
        scalar, the sum of both directions, each a mean over B.
    """
    return 2 * tau * (info_nce(q1, k2.detach(), tau=tau) + info_nce(q2, k1.detach(), tau=tau))
