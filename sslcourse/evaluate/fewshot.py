"""Few labels: how far does a frozen representation come with 1 % or 10 % of them?"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sslcourse.data.rng import mix, step_generator
from sslcourse.errors import InputError
from sslcourse.evaluate.linear import linear_probe
from sslcourse.evaluate.result import Result, seed_interval


def stratified_subset(labels: Tensor, fraction: float, seed: int = 0) -> Tensor:
    """Positions of `fraction` of the images of every class, at least one image each.

    Each class has an order that only the seed decides, and a subset is its beginning: so the 1 % are part of the 10 %,
    and a class does not change its choice when another class grows. Images without a label (-1) are never chosen.

    Args:
        labels: (N,) int64.
        fraction: in (0, 1].

    Returns:
        (n,) int64 positions in ascending order.

    >>> stratified_subset(torch.tensor([0] * 10 + [1] * 30), 0.1).shape
    torch.Size([4])
    """
    if labels.ndim != 1 or labels.is_floating_point() or not bool((labels >= 0).any()):
        raise InputError(
            f"stratified_subset needs integer labels (N,), some >= 0; got {labels.dtype} {(*labels.shape,)}."
        )
    if not 0 < fraction <= 1:
        raise InputError(f"stratified_subset takes a fraction in (0, 1], 0.01 for 1 %; got {fraction}.")
    labels = labels.cpu()
    chosen = []
    for label in labels[labels >= 0].unique().tolist():
        members = (labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=step_generator(mix(seed, label), 0))
        chosen.append(members[order[: max(1, round(fraction * len(members)))]])
    return torch.cat(chosen).sort().values


def few_labels(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    fraction: float = 0.01,
    subsets: int = 5,
    seed: int = 0,
    **options: Any,
) -> Result:
    """Linear probe on several random `stratified_subset`s: mean accuracy, and its interval over the subsets.

    With few labels the choice of the images moves the result more than the test set does: one subset is no result.

    Args:
        train_x, train_y, test_x, test_y: as in `linear_probe`.
        options: those of `fit_linear`.
    """
    if subsets < 1:
        raise InputError(f"few_labels needs one subset or more; got {subsets}.")
    values, n_labels = [], 0
    for s in range(subsets):
        rows = stratified_subset(train_y, fraction, mix(seed, s)).to(train_x.device)
        n_labels = len(rows)
        result = linear_probe(train_x[rows], train_y.to(rows.device)[rows], test_x, test_y, **options)
        values.append(result.value)
    found = seed_interval(values, "few_labels")
    detail = {"protocol": "few_labels", "fraction": fraction, "n_labels": n_labels, "n_test": len(test_y), "seed": seed}
    return replace(found, over="subsets", detail=detail | found.detail)
