"""Schedules and gradient rules of self-distillation, as the codes of SwAV, DINO, iBOT and DINOv2 have them."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sslcourse.errors import InputError


def warmup_then_cosine(
    step: int, total: int, warmup: int, base: float, final: float, *, start: float = 0.0, freeze: int = 0
) -> float:
    """0 for `freeze` steps, a line from `start` to `base`, half a cosine towards `final`, `final` from `total` on.

    Unlike `warmup_cosine`, the warm-up reaches `base` with its own last step and the cosine starts with `base` once
    more; `final` is not reached before `total`. Used for learning rate, weight decay (which rises) and the teacher's
    momentum.

    Args:
        step: 0 is the first.
        total: steps of the run, frozen and warm-up steps included.
        warmup, freeze: steps of each; freeze + warmup <= total.
    """
    if total <= 0 or min(warmup, freeze) < 0 or freeze + warmup > total or step < 0:
        raise InputError(
            f"warmup_then_cosine needs step >= 0 and 0 <= freeze + warmup <= total; got {step=}, {total=}, {warmup=}, "
            f"{freeze=}."
        )
    if step < freeze:
        return 0.0
    if step < freeze + warmup:
        return start + (base - start) * (step - freeze) / max(warmup - 1, 1)
    if step >= total:
        return final
    progress = (step - freeze - warmup) / (total - freeze - warmup)
    return final + 0.5 * (base - final) * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def clip_each_gradient(params: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale every gradient that is longer than `max_norm` down to it, each parameter by itself, in place.

    `torch.nn.utils.clip_grad_norm_` scales all gradients by one factor; DINO and iBOT clip them one by one.

    Returns:
        (P,) float64, the norms before clipping, of the parameters that have a gradient.
    """
    if not max_norm > 0:
        raise InputError(f"clip_each_gradient needs max_norm above 0; got {max_norm}.")
    grads = [p.grad for p in params if p.grad is not None]
    if not grads:
        return torch.zeros(0, dtype=torch.float64)
    norms = torch.stack([g.norm() for g in grads])
    for g, factor in zip(grads, (max_norm / (norms + 1e-6)).clamp_max(1), strict=True):
        g.mul_(factor)
    return norms.double()


def drop_gradients(module: nn.Module, part: str) -> None:
    """Forget the gradients of parameters with `part` in their name, so that no optimiser touches them in this step.

    DINO does so with "last_layer" during the first epoch: prototypes that move before the features mean anything drift
    together (Caron et al. 2021, appendix C).
    """
    for name, p in module.named_parameters():
        if part in name:
            p.grad = None
