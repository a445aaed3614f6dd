"""Population-based augmentation in miniature: many short trainings with different policies; the worst copy the best.

Ho, Liang, Stoica, Abbeel, Chen 2019, "Population based augmentation: efficient learning of augmentation policy
schedules", arXiv:1905.05393. A policy gives every operation, which is listed twice, a probability in tenths and a
magnitude in 0 to 9. After each round of training the worst quarter of the population takes over networks and policies
of the best quarter (exploit) and changes the policies a little (explore). What the best member went through is a
schedule: which augmentation, when.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from sslcourse.data.policies import OPERATIONS, Program, program_of, run_program
from sslcourse.data.rng import shard_rows
from sslcourse.errors import InputError

COUNT = torch.tensor([0.2, 0.3, 0.5])  # chances of 0, 1 and 2 operations (algorithm 1)
LISTED = 2 * (len(OPERATIONS) - 1)  # every operation but Identity, twice
State = TypeVar("State")


@dataclass(frozen=True)
class PopulationPolicy:
    """`policy(images, generator=g)`: algorithm 1 of the paper, for every image of a batch."""

    probability: Tensor
    """(LISTED,) int64, in tenths: 0 to 10."""
    magnitude: Tensor
    """(LISTED,) int64: 0 to 9."""

    def __post_init__(self) -> None:
        for name, most in (("probability", 10), ("magnitude", 9)):
            values = getattr(self, name)
            if values.shape != (LISTED,) or values.min() < 0 or values.max() > most:
                raise InputError(f"PopulationPolicy needs {LISTED} values of {name} in 0 to {most}; got {values}.")

    def __call__(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, 3, H, W) uint8, at most two operations an image."""
        total, mine = shard_rows(len(x), generator)
        return run_program(x, self.draw(total, *x.shape[2:], generator=generator).rows(mine))

    def draw(self, n: int, height: int, width: int, *, generator: torch.Generator) -> Program:
        """The operations of `n` images: in random order, each with its probability, until the count is reached."""
        count = torch.multinomial(COUNT.expand(n, 3), 1, generator=generator) if n else torch.zeros(0, 1)
        order = torch.rand(n, LISTED, generator=generator).argsort(1)
        happens = torch.rand(n, LISTED, generator=generator) < self.probability[order] / 10
        happens &= happens.cumsum(1) <= count
        first = happens.int().argsort(dim=1, descending=True, stable=True)[:, :2]
        chosen, used = order.gather(1, first), happens.gather(1, first)
        sign = 1 - 2 * torch.randint(2, (n, 2), generator=generator)
        operation = torch.where(used, chosen % (len(OPERATIONS) - 1) + 1, 0)
        return program_of(operation, self.magnitude[chosen], sign, 10, height, width)


def random_policy(generator: torch.Generator) -> PopulationPolicy:
    """Every probability and magnitude uniform."""
    return PopulationPolicy(*(torch.randint(most, (LISTED,), generator=generator) for most in (11, 10)))


def explore(policy: PopulationPolicy, generator: torch.Generator) -> PopulationPolicy:
    """A policy nearby (algorithm 2): each number drawn anew with chance 0.2, else moved by up to 3 either way."""

    def moved(values: Tensor, most: int) -> Tensor:
        anew = torch.rand(LISTED, generator=generator) < 0.2
        step = torch.randint(4, (LISTED,), generator=generator) * (
            1 - 2 * torch.randint(2, (LISTED,), generator=generator)
        )
        drawn = torch.randint(most + 1, (LISTED,), generator=generator)
        return torch.where(anew, drawn, (values + step).clamp(0, most))

    return PopulationPolicy(moved(policy.probability, 10), moved(policy.magnitude, 9))


def exploit(scores: Sequence[float], share: float = 0.25) -> list[int]:
    """Whom every member copies: itself, or, in the worst `share`, one of the best in turn (truncation selection)."""
    if not scores or not 0 <= share <= 0.5:
        raise InputError(f"exploit needs scores and a share in [0, 0.5]; got {len(scores)} and {share}.")
    worst_first = sorted(range(len(scores)), key=lambda member: scores[member])
    moved = int(share * len(scores))
    parents = list(range(len(scores)))
    for bad, good in zip(worst_first[:moved], reversed(worst_first), strict=False):
        parents[bad] = good
    return parents


class Found(NamedTuple):
    """The best member at the end: its policy in every round, its last score, its state."""

    schedule: list[PopulationPolicy]
    score: float
    state: object


def population_based_augmentation(
    states: Sequence[State],
    train: Callable[[State, PopulationPolicy, int], None],
    score: Callable[[State], float],
    *,
    rounds: int,
    generator: torch.Generator,
) -> Found:
    """Train a population with one policy each, in rounds of train, score, exploit and explore.

    Args:
        states: what each member trains, a network and its optimiser for example; copied where a member is taken over.
        train: (state, policy, round), trains a state in place for one round.
        score: accuracy of a state on images that nobody trained on; higher is better.
        rounds: how often, >= 1.
        generator: CPU generator.
    """
    if len(states) < 2 or rounds < 1:
        raise InputError(f"A population needs 2 or more members and 1 or more rounds; got {len(states)} and {rounds}.")
    members = list(states)
    schedules = [[random_policy(generator)] for _ in members]
    for number in range(rounds):
        for state, schedule in zip(members, schedules, strict=True):
            train(state, schedule[-1], number)
        scores = [score(state) for state in members]
        if number + 1 < rounds:
            parents = exploit(scores)
            members = [copy.deepcopy(members[p]) if p != i else members[p] for i, p in enumerate(parents)]
            nexts = [
                explore(schedules[p][-1], generator) if p != i else schedules[i][-1] for i, p in enumerate(parents)
            ]
            schedules = [[*schedules[p], policy] for p, policy in zip(parents, nexts, strict=True)]
    best = max(range(len(scores)), key=lambda member: scores[member])
    return Found(schedules[best], scores[best], members[best])
