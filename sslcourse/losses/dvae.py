"""One step of a discrete VAE: from logits to a code that can be decoded and back-propagated through.

Ramesh et al. 2021, "Zero-shot text-to-image generation", section 2.1, after Jang et al. 2016 and Maddison et al. 2016.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sslcourse.data.rng import shard_rows
from sslcourse.errors import InputError
from sslcourse.losses.precision import full_precision
from sslcourse.train.optim import warmup_cosine


@full_precision
def gumbel_dvae_step(
    logits: Tensor, codebook: Tensor, tau: float, gumbel: Tensor, hard: bool = False
) -> tuple[Tensor, Tensor]:
    """Sample a code at every place, relaxed so that gradients pass: softmax((logits + gumbel) / tau) of the codebook.

    For tau -> 0 the weights become one-hot, a sample of softmax(logits). `hard` takes the one-hot sample forward and
    the relaxed one's gradient backward (straight-through, Jang et al. 2016, section 2.2).

    Args:
        logits: (B, K, h, w).
        codebook: (K, D).
        tau: temperature, > 0.
        gumbel: like `logits`, of `gumbel_noise`.

    Returns:
        codes: (B, D, h, w).
        kl: scalar, KL(softmax(logits) || uniform) >= 0, mean over places and images; at most log K.
    """
    if not tau > 0:
        raise InputError(f"a temperature has to be above 0; got {tau}.")
    if gumbel.shape != logits.shape or codebook.shape[0] != logits.shape[1]:
        raise InputError(
            f"gumbel_dvae_step needs noise like logits {(*logits.shape,)} and a codebook of {logits.shape[1]} rows; "
            f"got {(*gumbel.shape,)} and {(*codebook.shape,)}."
        )
    weights = ((logits + gumbel) / tau).softmax(dim=1)
    if hard:
        one_hot = torch.zeros_like(weights).scatter_(1, weights.argmax(dim=1, keepdim=True), 1.0)
        weights = one_hot + weights - weights.detach()
    log_q = F.log_softmax(logits, dim=1)
    kl = (log_q.exp() * log_q).sum(dim=1).mean() + torch.tensor(float(logits.shape[1])).log()
    return torch.einsum("bkhw,kd->bdhw", weights, codebook), kl


def gumbel_noise(batch: int, shape: tuple[int, ...], rng: Generator) -> Tensor:
    """(batch, *shape) of -log(E), E exponential: argmax(logits + this) is a sample of softmax(logits)."""
    total, mine = shard_rows(batch, rng)
    return -torch.empty(total, *shape).exponential_(generator=rng)[mine].log()


def tau_schedule(step: int, total: int, start: float = 1.0, end: float = 1 / 16) -> float:
    """Temperature that falls from `start` to `end` along half a cosine (DALL-E, appendix A.2)."""
    return warmup_cosine(step, total, 0, start, end)
