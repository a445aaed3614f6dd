"""Random numbers by address: the value for (seed, scene, attribute) is a hash, so any scene costs the same to reach.

A generator with a state would have to draw scenes 0 to 999 before scene 1000, and a new attribute would shift the
numbers of all others. A counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3")
has neither problem: each attribute hashes its own name, each scene its own number.
"""

from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sslcourse.data.rng import mix

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def _splitmix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of splitmix64 (Steele et al. 2014), a bijection: distinct counters never collide."""
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))


class Counter:
    """Uniform numbers for a set of scenes.

    Args:
        seed: the seed of the world.
        scenes: (N,) scene numbers, non-negative.
    """

    def __init__(self, seed: int, scenes: NDArray[np.int64]) -> None:
        self.seed = seed
        self.scenes = np.asarray(scenes, dtype=np.uint64)

    def uniform(self, name: str, *shape: int) -> NDArray[np.float64]:
        """(N, *shape) float64 in [0, 1), 32 random bits each; they depend on (seed, scene, name, position) only."""
        key = np.uint64(mix(self.seed, crc32(name.encode())))
        state = _splitmix(key + self.scenes * _GOLDEN)
        count = int(np.prod(shape, dtype=np.int64))
        steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
        bits = _splitmix(state[:, None] + steps) >> np.uint64(32)
        return (bits.astype(np.float64) * 2.0**-32).reshape(len(self.scenes), *shape)

    def between(self, name: str, low: float, high: float, *shape: int) -> NDArray[np.float64]:
        """(N, *shape) uniform in [low, high)."""
        return low + (high - low) * self.uniform(name, *shape)

    def choice(self, name: str, n: int, *shape: int) -> NDArray[np.int64]:
        """(N, *shape) whole numbers in [0, n)."""
        return (self.uniform(name, *shape) * n).astype(np.int64)
