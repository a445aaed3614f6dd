"""Runs one computation in every precision that a case lists, with the gradients it lists."""

from collections.abc import Callable
from typing import Any

import torch
from loading import Case
from torch import Tensor

PRECISIONS = {"": torch.float32, "64": torch.float64, "_bf16": torch.bfloat16}


def in_each_precision(case: Case, outputs: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> dict[str, Any]:
    """`outputs` of the inputs in float32, float64 and bfloat16, and d outputs["loss"] / d input, as far as listed."""
    results: dict[str, Any] = {}
    listed = [key.partition(".") for key in case.expected]
    for suffix, dtype in PRECISIONS.items():
        outs = [name for role, _, name in listed if role == f"out{suffix}"]
        grads = [name for role, _, name in listed if role == f"grad{suffix}"]
        if not outs and not grads:
            continue
        inputs = {name: _leaf(x, dtype) for name, x in case.inputs.items()}
        values = outputs(inputs)
        results |= {f"out{suffix}.{name}": values[name] for name in outs if name in values}
        if grads:
            leaves = [inputs[name] for name in grads]
            found = torch.autograd.grad(values["loss"].sum(), leaves)
            results |= {f"grad{suffix}.{name}": g for name, g in zip(grads, found, strict=True)}
    return results


def _leaf(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype).requires_grad_() if x.is_floating_point() else x
