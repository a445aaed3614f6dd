"""Seeded, stateless random streams.

A run never stores the state of a random generator: step `s` of seed `k` draws from `step_generator(k, s)`, so a run
that stops and resumes sees the same numbers as one that never stopped, and so does a GPU (all draws happen on the CPU).
"""

import torch

_MIX = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: neighbouring steps get unrelated seeds (splitmix64)
_MASK = (1 << 64) - 1


def mix(*values: int) -> int:
    """Hash integers into one 63-bit seed; the order matters: ``mix(1, 2) != mix(2, 1)``."""
    state = 0
    for value in values:
        state = (state + _MIX + (value & _MASK)) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


class ShardGenerator(torch.Generator):
    """A generator of one of `world` processes that share a batch in equal slices; it knows which slice is its own."""

    rank: int = 0
    world: int = 1


def step_generator(seed: int, step: int, *, rank: int = 0, world: int = 1) -> torch.Generator:
    """A CPU generator for one step of one seed, the same on all `world` processes but for knowing its `rank`."""
    generator = ShardGenerator()
    generator.manual_seed(mix(seed, step))
    generator.rank, generator.world = rank, world
    return generator


def shard_rows(n: int, generator: torch.Generator) -> tuple[int, slice]:
    """How many images to draw numbers for, and which of them are ours: N processes then see the views of one.

    Whoever draws one row of numbers an image draws rows for the whole batch and keeps a slice of them::

        total, mine = shard_rows(len(x), generator)
        angle = torch.rand(total, generator=generator)[mine]

    Args:
        n: images of this process.
        generator: from `step_generator`; any other generator is that of a single process.
    """
    rank, world = getattr(generator, "rank", 0), getattr(generator, "world", 1)
    return n * world, slice(rank * n, (rank + 1) * n)
