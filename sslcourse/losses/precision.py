"""Losses compute in float32 or float64, whatever the precision of the network that feeds them.

A similarity of 0.9 in bfloat16 is known to 0.004; divided by a temperature of 0.05 that is an error of 0.08 in a logit,
as large as the differences the loss is made of. So half-precision inputs are widened, and autocast, which would run
the matrix products of a loss in bfloat16 again, is switched off inside. Gradients come back in the precision of the
input.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def widen(x: object) -> object:
    """`x`, as float32 if it is a float16 or bfloat16 tensor; so are the tensors of a list or tuple."""
    if isinstance(x, list | tuple):
        return [widen(y) for y in x]
    return x.float() if isinstance(x, Tensor) and x.dtype in (torch.float16, torch.bfloat16) else x


def full_precision(loss: Callable[P, R]) -> Callable[P, R]:
    """Decorate a loss so that it runs in at least float32 and outside autocast."""

    @wraps(loss)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        flat = [y for x in (*args, *kwargs.values()) for y in (x if isinstance(x, list | tuple) else (x,))]
        tensors = [x for x in flat if isinstance(x, Tensor)]
        device = tensors[0].device.type if tensors else "cpu"
        with torch.autocast(device, enabled=False):
            return loss(*map(widen, args), **{name: widen(x) for name, x in kwargs.items()})  # type: ignore[arg-type]

    return wrapper
