"""How many labelled images a class is a sentence worth? Zero-shot against linear probes on k images of every class.

Radford et al. 2021, section 3.1.5: a probe on the same image features meets zero-shot CLIP at about four images a class
on average over their 20 datasets; with one it is far below, since words say what is meant and one image does not.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sslcourse.data.rng import mix, step_generator
from sslcourse.errors import InputError
from sslcourse.evaluate.linear import linear_probe
from sslcourse.evaluate.result import Result, seed_interval


def k_per_class(labels: Tensor, k: int, seed: int = 0) -> Tensor:
    """Positions of k images of every class; those of a smaller k are among those of a larger one.

    Args:
        labels: (N,) int64; images without a label (-1) are never chosen.
        k: images of a class, >= 1.

    Returns:
        (C * k,) int64 positions in ascending order.

    Raises:
        InputError: a class with fewer than k images.
    """
    classes = labels[labels >= 0].unique().tolist()
    if k < 1 or not classes:
        raise InputError(f"k_per_class takes k >= 1 and labels of 0 or more; got k={k}, {len(classes)} classes.")
    chosen = []
    for label in classes:
        members = (labels == label).nonzero().flatten().cpu()
        if len(members) < k:
            raise InputError(f"class {label} has {len(members)} images, which is fewer than k={k}.")
        order = torch.randperm(len(members), generator=step_generator(mix(seed, label), 0))
        chosen.append(members[order[:k]])
    return torch.cat(chosen).sort().values


def k_shot(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    k: int,
    *,
    subsets: int = 5,
    seed: int = 0,
    **options: Any,
) -> Result:
    """Linear probe on k images of every class: mean accuracy, and its interval over several choices of them.

    Args:
        train_x, train_y, test_x, test_y: (N, D) features and (N,) classes, as in `linear_probe`.
        k: images of a class.
        subsets: how many choices; which images they are moves the result more than the test set does.
        options: those of `fit_linear`.
    """
    if subsets < 1:
        raise InputError(f"k_shot needs one subset or more; got {subsets}.")
    values = []
    for s in range(subsets):
        rows = k_per_class(train_y, k, mix(seed, s)).to(train_x.device)
        values.append(linear_probe(train_x[rows], train_y.to(rows.device)[rows], test_x, test_y, **options).value)
    found = seed_interval(values, f"{k}-shot")
    detail = {"protocol": "k_shot", "k": k, "n_test": len(test_y), "seed": seed}
    return replace(found, over="subsets", detail=detail | found.detail)


def shots_to_match(zero_shot: float, shots: Mapping[int, float] | Sequence[tuple[int, float]]) -> float:
    """Images a class at which the probe reaches the zero-shot accuracy (figure 7).

    Interpolated linearly in log k between the k that were measured.

    Args:
        zero_shot: accuracy of the words, in [0, 1].
        shots: k -> accuracy of the k-shot probe.

    Returns:
        k; at most the smallest measured one where that is enough, infinity where none of them is.
    """
    pairs = sorted(dict(shots).items())
    if not pairs or pairs[0][0] < 1:
        raise InputError("shots_to_match needs accuracies of one or more k >= 1.")
    if pairs[0][1] >= zero_shot:
        return float(pairs[0][0])
    for (k0, low), (k1, high) in pairwise(pairs):
        if high >= zero_shot:
            share = (zero_shot - low) / (high - low)
            return math.exp(math.log(k0) + share * math.log(k1 / k0))
    return math.inf
