r"""Policies of augmentation: which of torchvision's operations an image gets, drawn anew for every image of a batch.

AutoAugment (Cubuk et al. 2019, "AutoAugment: learning augmentation strategies from data", arXiv:1805.09501) learned 25
pairs of operations with their probabilities; RandAugment (Cubuk et al. 2020, "RandAugment: practical automated data
augmentation with a reduced search space", arXiv:1909.13719) draws n of 14 operations and has one magnitude for all.

torchvision draws one policy for a whole batch, from the global generator. Here every image has its own, from the
generator that is passed; images with the same operation are computed together, by torchvision's own functions.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sslcourse.data.rng import shard_rows
from sslcourse.errors import InputError, unknown

# In the order in which RandAugment (the first 14) and AutoAugment (all but the first) list them.
OPERATIONS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
    "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert",
)  # fmt: skip
SIGNED = OPERATIONS[1:10]  # go either way
PLAIN = ("Identity", "AutoContrast", "Equalize", "Invert")  # have no magnitude


class Program(NamedTuple):
    """What happens to every image, step after step."""

    operation: Tensor  # (B, S) int64, positions in OPERATIONS
    magnitude: Tensor  # (B, S) float64, as `operate` takes it

    def rows(self, rows: slice) -> "Program":
        """That of some of the images."""
        return Program(self.operation[rows], self.magnitude[rows])


def operate(x: Tensor, name: str, magnitude: float = 0.0) -> Tensor:
    """One of `OPERATIONS` on all images, black where nothing is left of them.

    Args:
        x: (B, 3, H, W) uint8.
        name: what to do.
        magnitude: slope of a shear, pixels of a translation, degrees, a change of the factor of brightness, colour,
            contrast or sharpness (0 changes nothing), bits kept (posterize), a threshold in 0 to 255 (solarize).

    Returns:
        (B, 3, H, W) uint8.
    """
    if name not in OPERATIONS:
        raise unknown("operation", name, OPERATIONS)
    if x.ndim != 4 or x.dtype != torch.uint8:
        raise InputError(f"operate takes (B, 3, H, W) uint8 images; got {x.dtype} {tuple(x.shape)}.")
    return x if name == "Identity" or not len(x) else _functions()[name](x, magnitude)


def magnitudes(name: str, bins: int, height: int, width: int) -> Tensor:
    """What the levels 0, ..., bins - 1 mean for an operation on images of this size: (bins,) float64, 0 if nothing."""
    if name in PLAIN:
        return torch.zeros(bins).double()
    if name == "Posterize":
        return (8 - (torch.arange(bins) / ((bins - 1) / 4)).round()).double()
    if name == "Solarize":
        return torch.linspace(255.0, 0.0, bins).double()
    most = {"ShearX": 0.3, "ShearY": 0.3, "TranslateX": 150 / 331 * width, "TranslateY": 150 / 331 * height}
    return torch.linspace(0.0, (most | {"Rotate": 30.0}).get(name, 0.9), bins).double()


def run_program(x: Tensor, program: Program) -> Tensor:
    """Every image through its own steps: (B, 3, H, W) uint8 -> the same. No randomness is in here."""
    if program.operation.shape != program.magnitude.shape or len(program.operation) != len(x):
        raise InputError(f"A program of {len(program.operation)} rows cannot run on {len(x)} images.")
    out = x.clone()
    for operation, magnitude in zip(program.operation.T.tolist(), program.magnitude.T.tolist(), strict=True):
        alike: dict[tuple[int, float], list[int]] = defaultdict(list)
        for row, key in enumerate(zip(operation, magnitude, strict=True)):
            alike[key].append(row)
        for (index, value), rows in alike.items():
            if index:
                chosen = torch.tensor(rows, device=x.device)
                out[chosen] = operate(out[chosen], OPERATIONS[index], value)
    return out


@dataclass(frozen=True)
class RandAugment:
    """`RandAugment()(images, generator=g)`: n random operations of one magnitude (section 3)."""

    n: int = 2
    """Operations an image."""
    magnitude: int = 9
    """Their level."""
    bins: int = 31
    """Levels there are."""

    def __post_init__(self) -> None:
        if self.n < 0 or not 0 <= self.magnitude < self.bins or self.bins < 2:
            raise InputError(f"RandAugment needs n >= 0 and 0 <= magnitude < bins; got {self}.")

    def __call__(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, 3, H, W) uint8, every image with operations of its own."""
        total, mine = shard_rows(len(x), generator)
        return run_program(x, self.draw(total, *x.shape[2:], generator=generator).rows(mine))

    def draw(self, n: int, height: int, width: int, *, generator: torch.Generator) -> Program:
        """The operations of `n` images of (height, width)."""
        operation = torch.randint(len(OPERATIONS) - 1, (n, self.n), generator=generator)  # all but Invert
        sign = 1 - 2 * torch.randint(2, (n, self.n), generator=generator)
        return program_of(operation, torch.full_like(operation, self.magnitude), sign, self.bins, height, width)


@dataclass(frozen=True)
class AutoAugment:
    """`AutoAugment("cifar10")(images, generator=g)`: one of 25 learned pairs of operations (section 3, appendix)."""

    policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet"
    """The set of images on which the policy was learned."""

    def __post_init__(self) -> None:
        if self.policy not in ("imagenet", "cifar10", "svhn"):
            raise unknown("AutoAugment policy", self.policy, ["imagenet", "cifar10", "svhn"])

    def __call__(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, 3, H, W) uint8, every image with a pair of its own."""
        total, mine = shard_rows(len(x), generator)
        return run_program(x, self.draw(total, *x.shape[2:], generator=generator).rows(mine))

    def draw(self, n: int, height: int, width: int, *, generator: torch.Generator) -> Program:
        """The operations of `n` images of (height, width)."""
        pairs = [[(OPERATIONS.index(name), p, level or 0) for name, p, level in pair] for pair in _learned(self.policy)]
        table = torch.tensor(pairs, dtype=torch.float64)[torch.randint(len(pairs), (n,), generator=generator)]
        happens = torch.rand(n, 2, generator=generator) <= table[..., 1]
        sign = 1 - 2 * torch.randint(2, (n, 2), generator=generator)
        operation = torch.where(happens, table[..., 0].long(), 0)
        return program_of(operation, table[..., 2].long(), sign, 10, height, width)


def program_of(operation: Tensor, level: Tensor, sign: Tensor, bins: int, height: int, width: int) -> Program:
    """The program of these operations at these levels of `bins`, all (B, S), in the direction of `sign` (1 or -1)."""
    table = torch.stack([magnitudes(name, bins, height, width) for name in OPERATIONS])
    signed = torch.tensor([name in SIGNED for name in OPERATIONS])[operation]
    return Program(operation, table[operation, level] * torch.where(signed, sign, 1))


@cache
def _functions() -> dict[str, Callable[[Tensor, float], Tensor]]:
    """torchvision's functions, imported when first needed; a shear is about the upper left corner, as in the papers."""
    from torchvision.transforms import functional as F

    def affine(x: Tensor, shift: list[int], shear: list[float]) -> Tensor:
        return F.affine(x, 0.0, shift, 1.0, shear, center=None if any(shift) else [0, 0])

    return {
        "ShearX": lambda x, m: affine(x, [0, 0], [math.degrees(math.atan(m)), 0.0]),
        "ShearY": lambda x, m: affine(x, [0, 0], [0.0, math.degrees(math.atan(m))]),
        "TranslateX": lambda x, m: affine(x, [int(m), 0], [0.0, 0.0]),
        "TranslateY": lambda x, m: affine(x, [0, int(m)], [0.0, 0.0]),
        "Rotate": lambda x, m: F.rotate(x, m),
        "Brightness": lambda x, m: F.adjust_brightness(x, 1.0 + m),
        "Color": lambda x, m: F.adjust_saturation(x, 1.0 + m),
        "Contrast": lambda x, m: F.adjust_contrast(x, 1.0 + m),
        "Sharpness": lambda x, m: F.adjust_sharpness(x, 1.0 + m),
        "Posterize": lambda x, m: F.posterize(x, int(m)),
        "Solarize": lambda x, m: F.solarize(x, m),
        "AutoContrast": lambda x, m: F.autocontrast(x),
        "Equalize": lambda x, m: F.equalize(x),
        "Invert": lambda x, m: F.invert(x),
    }


def _learned(policy: str) -> list[tuple[tuple[str, float, int | None], ...]]:
    from torchvision.transforms import AutoAugment as Published
    from torchvision.transforms import AutoAugmentPolicy

    return Published(AutoAugmentPolicy(policy)).policies
