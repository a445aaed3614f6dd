"""Which loss spreads images evenly? Thirty pairs of points follow the gradient of four losses around a circle.

python -m benchmarks.findings.circle_losses

All start on one half of the circle. Evenness is the mean of exp(-2 d^2) over pairs of images, whose logarithm is the
uniformity of Wang and Isola (2020); lower is more even.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.findings.common import Finding, run
from sslcourse.data.rng import step_generator
from sslcourse.losses.infonce import info_nce
from sslcourse.losses.pairwise import batch_hard_triplet, chopra_contrastive, n_pair, pairwise_distance
from sslcourse.train.monitor import uniformity

IMAGES, STEPS, LR = 30, 250, 0.04


def setting() -> dict[str, Any]:
    """What all arms share."""
    return {"images": IMAGES, "views": 2, "steps": STEPS, "optimizer": f"Adam, {LR}", "dim": 2}


def pairs(z: Tensor, y: Tensor) -> Tensor:
    """The contrastive loss of all pairs, margin 1."""
    i, j = torch.triu_indices(len(z), len(z), 1)
    return chopra_contrastive(pairwise_distance(z, z)[i, j], y[i] == y[j], 1.0)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "all pairs": pairs,
    "triplet": lambda z, y: batch_hard_triplet(z, y, 0.3),
    "N-pair": lambda z, y: n_pair(*z.chunk(2)),
    "InfoNCE": lambda z, y: info_nce(*z.chunk(2), tau=0.1),
}


def start(seed: int) -> Tensor:
    """Angles of the 2N points: images on one half of the circle, their second views near them."""
    g = step_generator(seed, 0)
    first = math.pi * torch.rand(IMAGES, generator=g)
    return torch.cat([first, first + 0.5 * torch.randn(IMAGES, generator=g)])


def points(angle: Tensor) -> Tensor:
    """(2N,) angles to (2N, 2) unit vectors."""
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def follow(loss: Callable[[Tensor, Tensor], Tensor], angle: Tensor) -> Tensor:
    """Where the gradient of a loss takes the points: (2N, 2)."""
    angle = angle.clone().requires_grad_()
    optimizer = torch.optim.Adam([angle], lr=LR)
    y = torch.arange(IMAGES).repeat(2)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(points(angle), y).backward()
        optimizer.step()
    return points(angle.detach())


def measure(seed: int) -> dict[str, float]:
    """Mean exp(-2 d^2) between images at the start, after each loss, and spread perfectly evenly."""
    angle = start(seed)
    evenly = points(2 * math.pi * torch.arange(IMAGES) / IMAGES)
    ends = {"start": points(angle)} | {name: follow(loss, angle) for name, loss in LOSSES.items()}
    found = {name: uniformity(z[:IMAGES]).exp().item() for name, z in ends.items()}
    return found | {"perfectly even": uniformity(evenly).exp().item()}


if __name__ == "__main__":
    question = "Which loss spreads thirty images evenly over a circle?"
    run(Finding("circle_losses", question, "mean exp(-2 d^2), lower is more even", "InfoNCE", setting()), measure)
