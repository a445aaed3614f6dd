"""What the training loop needs beside PyTorch's own optimisers: LARS, the EMA of a teacher, schedules, groups.

Schedules are pure functions of the step, so a resumed run needs no scheduler state.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sslcourse.errors import InputError, unknown

Tensors = list[Tensor]


class LARS(Optimizer):
    r"""Layer-wise adaptive rate scaling (You et al. 2017, "Large batch training of convolutional networks", Alg. 1).

    The step length of a layer follows the size of its weights, so that one learning rate fits all layers at batch sizes
    of thousands; SimCLR, BYOL and MoCo v3 train with it. For each weight p with gradient g,

        g <- g + weight_decay * p
        g <- g * trust_coefficient * |p| / |g|        (1 in place of the factor where either norm is 0)
        v <- momentum * v + g
        p <- p - lr * v

    Biases and normalisation parameters skip the first two lines.

    Args:
        params: parameters or groups of them. A group may set `exclude`: True skips decay and scaling for all of it,
            False for none of it, None (the default) for its tensors of at most one dimension. The official JAX code of
            BYOL decides by name: `param_groups` makes such groups.
        lr: learning rate, >= 0, applied after the momentum.
        momentum: in [0, 1).
        weight_decay: >= 0.
        trust_coefficient: > 0, called eta in the paper.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        exclude: bool | None = None,
    ) -> None:
        if lr < 0 or not 0 <= momentum < 1 or weight_decay < 0 or not trust_coefficient > 0:
            raise InputError(
                f"LARS needs lr >= 0, 0 <= momentum < 1, weight_decay >= 0 and trust_coefficient > 0; got {lr=}, "
                f"{momentum=}, {weight_decay=}, {trust_coefficient=}."
            )
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "exclude": exclude,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; the gradients themselves are left as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                if not self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            excluded = [p for p in params if _is_excluded(p, group["exclude"])]
            adapted = [p for p in params if not _is_excluded(p, group["exclude"])]
            on_cpu = [p for p in adapted if _fits_fused(p)]
            elsewhere = [p for p in adapted if not _fits_fused(p)]
            self._descend(excluded, [p.grad for p in excluded], group)
            self._descend(elsewhere, _adapted(elsewhere, [p.grad for p in elsewhere], group), group)
            for p in on_cpu:
                _descend_fused(p, p.grad, self.state[p]["momentum_buffer"], group)
        return loss

    def _descend(self, params: Tensors, grads: Tensors, group: dict[str, Any]) -> None:
        if params:
            velocity = [self.state[p]["momentum_buffer"] for p in params]
            torch._foreach_mul_(velocity, group["momentum"])
            torch._foreach_add_(velocity, grads)
            torch._foreach_add_(params, velocity, alpha=-group["lr"])


def _is_excluded(p: Tensor, exclude: bool | None) -> bool:
    return p.ndim <= 1 if exclude is None else exclude


def _adapted(params: Tensors, grads: Tensors, group: dict[str, Any]) -> Tensors:
    """The decayed gradients times their trust ratios, as new tensors; no ratio leaves the device."""
    if not params:
        return []
    decayed = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
    p_norm = torch.stack(torch._foreach_norm(params))
    g_norm = torch.stack(torch._foreach_norm(decayed))
    defined = (p_norm > 0) & (g_norm > 0)
    ratio = torch.where(defined, group["trust_coefficient"] * p_norm / g_norm.where(defined, 1.0), 1.0)
    torch._foreach_mul_(decayed, ratio.unbind())
    return decayed


def _fits_fused(p: Tensor) -> bool:
    """Whether p and its gradient lie on the CPU in one dense order, as `_descend_fused` reads them."""
    dense = p.is_contiguous() or (p.ndim == 4 and p.is_contiguous(memory_format=torch.channels_last))
    same = p.grad is not None and p.grad.stride() == p.stride() and p.grad.dtype == p.dtype
    return p.device.type == "cpu" and p.dtype in (torch.float32, torch.float64) and dense and same


def _descend_fused(p: Tensor, grad: Tensor, velocity: Tensor, group: dict[str, Any]) -> None:
    """The same step for one weight on a CPU, where memory traffic is what costs.

    The decayed gradient is never a tensor: its norm comes from inner products, and the step is one pass of the fused
    SGD kernel, v <- momentum v + (1 - dampening)(g + weight_decay p), with the trust ratio as 1 - dampening.
    """
    decay = group["weight_decay"]
    flat_p, flat_grad = (x.as_strided((x.numel(),), (1,)) for x in (p, grad))
    p_square = flat_p.dot(flat_p).item()
    terms = flat_grad.dot(flat_grad).item() + decay**2 * p_square
    g_square = terms + 2 * decay * flat_grad.dot(flat_p).item() if decay else terms  # |g + weight_decay p|^2
    if g_square < 0.01 * terms:  # the terms cancel, and float32 has lost what is left
        g_square = flat_grad.add(flat_p, alpha=decay).square_().sum().item()
    ratio = group["trust_coefficient"] * math.sqrt(p_square / g_square) if p_square > 0 and g_square > 0 else 1.0
    torch._fused_sgd_(
        [p],
        [grad],
        [velocity],
        weight_decay=decay,
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=1 - ratio,
        nesterov=False,
        maximize=False,
        is_first_step=False,
    )


def param_groups(
    module: nn.Module,
    weight_decay: float,
    exclude: Callable[[str, Tensor], bool] = lambda name, p: p.ndim <= 1,
) -> list[dict[str, Any]]:
    """The trainable parameters of `module` in two groups: with weight decay, and without.

    Args:
        module: parameters that do not require a gradient are left out.
        weight_decay: of the first group; the second has 0.
        exclude: which parameters go to the second group, from name and tensor. By default biases and the parameters of
            normalisation layers, which have one dimension.

    Returns:
        groups for any optimiser of PyTorch and for `LARS`, which reads `exclude`. Empty groups are left out.
    """
    trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trainable if not exclude(name, p)]
    excluded = [p for name, p in trainable if exclude(name, p)]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay, "exclude": False},
        {"params": excluded, "weight_decay": 0.0, "exclude": True},
    ]
    return [group for group in groups if group["params"]]


@torch.no_grad()
def ema_update(
    online: nn.Module | Iterable[Tensor],
    target: nn.Module | Iterable[Tensor],
    m: float,
    buffers: Literal["copy", "average", "keep"] = "copy",
) -> None:
    """target <- m * target + (1 - m) * online, in place (BYOL, Grill et al. 2020, Eq. 1; MoCo, He et al. 2020, Eq. 2).

    Args:
        online: the module that gradients train, or its tensors.
        target: the module that follows it, with the same names, or as many tensors in the same order.
        m: momentum in [0, 1]; 1 leaves the target alone, 0 makes it a copy.
        buffers: what happens to a module's buffers (batch-norm statistics). "copy": the online ones; "average": like
            parameters, integers are copied; "keep": the target's own, as its forward passes leave them (MoCo).

    Raises:
        InputError: m outside [0, 1], or modules whose parameters differ in name or shape.
    """
    if not 0 <= m <= 1:
        raise InputError(f"ema_update got m={m}: the momentum lies between 0 and 1.")
    if buffers not in ("copy", "average", "keep"):
        raise unknown("way to treat buffers", buffers, ("copy", "average", "keep"))
    if isinstance(online, nn.Module) and isinstance(target, nn.Module):
        _average(*_paired(dict(online.named_parameters()), dict(target.named_parameters())), m)
        if buffers != "keep":
            pairs = _paired(dict(online.named_buffers()), dict(target.named_buffers()))
            _average(*pairs, m if buffers == "average" else 0.0)
    elif isinstance(online, nn.Module) or isinstance(target, nn.Module):
        raise InputError("ema_update needs two modules or two lists of tensors, not one of each.")
    else:
        _average(*_paired(dict(enumerate(online)), dict(enumerate(target))), m)


def _paired(online: dict[Any, Tensor], target: dict[Any, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Both sides in the order of `target`, matched by name: the modules may register the same parts in two orders."""
    if online.keys() != target.keys():
        odd = next(iter(online.keys() ^ target.keys()))
        raise InputError(f"ema_update: only one of online and target has '{odd}': pass two copies of one architecture.")
    for name, t in target.items():
        if online[name].shape != t.shape:
            raise InputError(
                f"ema_update: '{name}' is {tuple(online[name].shape)} online but {tuple(t.shape)} in the target."
            )
    return [online[name] for name in target], list(target.values())


def _average(online: list[Tensor], target: list[Tensor], m: float) -> None:
    if m == 1:
        return
    floats = [i for i, t in enumerate(target) if t.is_floating_point()]
    for i in set(range(len(target))) - set(floats):
        target[i].copy_(online[i])  # counters: an average of integers means nothing
    if floats:
        new = [online[i].to(target[i].dtype) for i in floats]
        torch._foreach_lerp_([target[i] for i in floats], new, 1 - m)


def warmup_cosine(step: int, total_steps: int, warmup_steps: int, base: float, final: float = 0.0) -> float:
    """Linear warm-up from 0 to `base`, then half a cosine down to `final` (SimCLR, Chen et al. 2020, App. B.6).

    The value is `base` exactly at `step == warmup_steps` and `final` from `step == total_steps` on.

    Args:
        step: 0 is the first step; may be fractional.
        total_steps: > 0, the warm-up included.
        warmup_steps: in [0, total_steps].
        base: peak, usually `scaled_lr(...)`.
        final: the value at the end.
    """
    if total_steps <= 0 or not 0 <= warmup_steps <= total_steps:
        raise InputError(
            "warmup_cosine needs total_steps > 0 and 0 <= warmup_steps <= total_steps; "
            f"got {total_steps=}, {warmup_steps=}."
        )
    if step < warmup_steps:
        return base * step / warmup_steps
    if step >= total_steps:
        return final
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return final + (base - final) * 0.5 * (1 + math.cos(math.pi * progress))


def cosine_ema_schedule(step: int, total: int, base: float) -> float:
    """Momentum of a target network, from `base` at step 0 along half a cosine to exactly 1 at `total` (BYOL, App. J).

    Args:
        step: 0 is the first step; from `total` on the value stays 1.
        total: > 0 steps.
        base: in [0, 1].
    """
    if total <= 0 or not 0 <= base <= 1:
        raise InputError(f"cosine_ema_schedule needs total > 0 and 0 <= base <= 1; got {total=}, {base=}.")
    return 1 - (1 - base) * 0.5 * (1 + math.cos(math.pi * min(step, total) / total))


def scaled_lr(base: float, batch: int, rule: Literal["linear", "sqrt"] = "linear") -> float:
    """The learning rate for a batch size (SimCLR, Chen et al. 2020, Sec. 2.2 and App. B.1).

    "linear": base * batch / 256 (SimCLR: base 0.3); "sqrt": base * sqrt(batch), for small batches (base 0.075).
    """
    if rule == "linear":
        return base * batch / 256
    if rule == "sqrt":
        return base * math.sqrt(batch)
    raise unknown("learning-rate scaling", rule, ("linear", "sqrt"))
