"""Gradients and states of whole modules under the official names."""

from functools import partial
from typing import Any

import torch
from loading import Case
from torch import Tensor, nn


def gradients_of(case: Case, reader: Any, model: nn.Module, old: str = "", new: str = "") -> dict[str, Any]:
    """Our gradients under the official names; `old` is another official prefix for what is called `new`, too."""
    named = dict(model.named_parameters())
    listed = {key: value for key, value in case.expected.items() if key.startswith("grad_param.")}
    rounding = 1e-5 * max(value.abs().max() for value in listed.values())
    results: dict[str, Any] = {}
    for key, official in listed.items():
        name = key.removeprefix("grad_param.")
        full = new + name.removeprefix(old) if old and name.startswith(old) else name
        (ours,) = reader({full: torch.zeros(1)}, model)
        results[key] = named[ours].grad
        if official.abs().max() < rounding:  # a bias that batch norm removes: its gradient is 0 but for rounding
            results[key] = partial(_below, named[ours].grad, rounding)
    return results


def _below(ours: Tensor, bound: Tensor, official: Tensor) -> None:
    assert ours.shape == official.shape
    assert ours.abs().max() < bound, f"{ours.abs().max()} where {bound} is rounding"


def state_after(case: Case, reader: Any, model: nn.Module, prefix: str = "state_after/") -> dict[str, Any]:
    """A comparison of our state with the official one, under each official name."""
    listed = {key.removeprefix(prefix): value for key, value in case.expected.items() if key.startswith(prefix)}
    official, ours = reader(listed, model), model.state_dict()
    assert official.keys() == ours.keys()

    def compare(name: str, _: Tensor) -> None:
        for key in reader({name: listed[name]}, model):
            if key in official:  # a bias that the reader folds into batch norm is compared there
                torch.testing.assert_close(ours[key], official[key], rtol=1e-4, atol=1e-5)

    return {prefix + name: partial(compare, name) for name in listed}
