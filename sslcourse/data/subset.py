"""Seeded choices among labelled images."""

import torch
from torch import Tensor

from sslcourse.data.rng import mix, step_generator
from sslcourse.errors import InputError


def balanced_order(labels: Tensor, seed: int = 0) -> Tensor:
    """(N,) int64: a seeded order whose every beginning is as balanced over the classes as it can be.

    Within a class the order is random; classes take turns. So the first n are a class-stratified sample, and a
    smaller sample is contained in a larger one.

    >>> balanced_order(torch.tensor([0, 0, 0, 1, 1])).tolist()  # turns: 0, 1, 0, 1, 0
    [2, 4, 0, 3, 1]
    """
    order = torch.randperm(len(labels), generator=step_generator(seed, 0))
    order = order[labels[order].argsort(stable=True)]
    counts = labels[order].unique_consecutive(return_counts=True)[1]
    turn = torch.cat([torch.arange(int(count)) for count in counts]) if len(counts) else order
    return order[turn.argsort(stable=True)]


def first_n(labels: Tensor, n: int | None, seed: int, name: str) -> Tensor:
    """Positions of the first `n` images in balanced order; all of them, in their own order, for None."""
    if n is None:
        return torch.arange(len(labels))
    if not 1 <= n <= len(labels):
        raise InputError(f"{name} has {len(labels):,} images here; n must be between 1 and that, got {n}.")
    return balanced_order(labels, seed)[:n]


def stratified_test(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """(N,) bool: a seeded `fraction` of every class, rounded."""
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=step_generator(mix(seed, label), 0))
        is_test[members[order[: round(fraction * len(members))]]] = True
    return is_test
