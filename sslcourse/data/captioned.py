"""Scenes with captions, and combinations of colour and shape that no caption and no image of the training set shows.

A model that has seen red stars and blue hearts, but never a red heart, recognises one only if it has learned colour and
shape as two things: what `combinations` asks. One pair in five is held out, two colours of every shape.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sslcourse.data.images import Images
from sslcourse.data.shapes import CLASSES, COLOURS, Shapes
from sslcourse.data.shapes.sample import Parameters
from sslcourse.errors import InputError

PAIRS = [f"{colour} {kind}" for kind in CLASSES for colour in COLOURS]  # number kind * 10 + colour
HELD_OUT = [kind * len(COLOURS) + colour for kind in range(len(CLASSES)) for colour in (kind, (kind + 5) % 10)]
_CHUNK = 1000

Choice = Callable[[Parameters], Any]  # -> (B,) bool


def pairs_of(p: Parameters) -> NDArray[np.int64]:
    """(B, K) which of `PAIRS` each object shows; -1 for objects that are not there."""
    there = np.arange(p.kind.shape[1]) < p.count[:, None]
    return np.where(there, p.kind * len(COLOURS) + p.colour, -1)


def captioned(
    split: str = "train", n: int = 12_000, size: int = 32, seed: int = 0, *, preset: str = "captions"
) -> Images:
    """The first `n` scenes of one to three objects without a held-out pair, with five captions each.

    The label is the class of the nearest object.
    """
    world = Shapes(split, size, seed, preset=preset)
    chosen = _first(world, n, lambda p: ~np.isin(pairs_of(p), HELD_OUT).any(axis=1))
    return _drawn(world, chosen, captions=True)


def combinations(
    split: str = "test", n: int = 1000, size: int = 32, seed: int = 0, *, held_out: bool = True, **knobs: Any
) -> Images:
    """Scenes of one object that shows a held-out pair (or one that is not): labels are numbers of `PAIRS`.

    Args:
        split, size, seed: as in `Shapes`.
        n: number of images.
        held_out: False for pairs that the training set shows.
        knobs: of `Shapes`, for example ``domains=("sketch",)``.
    """
    world = Shapes(split, size, seed, preset="captions", **{"objects": (1, 1), **knobs})
    chosen = _first(world, n, lambda p: np.isin(pairs_of(p)[:, 0], HELD_OUT) == held_out)
    images = _drawn(world, chosen, captions=False)
    labels = torch.from_numpy(pairs_of(world.parameters(chosen))[:, 0])
    return replace(images, labels=labels, classes=PAIRS)


def _first(world: Shapes, n: int, fits: Choice) -> list[int]:
    """Numbers of the first `n` scenes that fit."""
    if n < 1:
        raise InputError(f"a set of captioned scenes has at least one image; got n={n}.")
    found: list[int] = []
    start = 0
    while len(found) < n:
        fitting = fits(world.parameters(range(start, start + _CHUNK)))
        found += (start + fitting.nonzero()[0]).tolist()
        start += _CHUNK
    return found[:n]


def _drawn(world: Shapes, numbers: list[int], *, captions: bool) -> Images:
    parts = [world.images_of(numbers[i : i + _CHUNK]) for i in range(0, len(numbers), _CHUNK)]
    images, labels = torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])
    words = world.captions(numbers) if captions else []
    return Images(images, labels, parts[0].classes, "captions", words)
