"""Seeded, stateless random streams.

A run never stores the state of a random generator: step `s` of seed `k` draws from `step_generator(k, s)`, so a run that
stops and resumes sees the same numbers as one that never stopped, and so does a GPU (all draws happen on the CPU).
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


def step_generator(seed: int, step: int) -> torch.Generator:
    """A CPU generator for one step of one seed."""
    return torch.Generator().manual_seed(mix(seed, step))
