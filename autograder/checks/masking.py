"""What the checks of masked methods share: parts of results, masks, inputs, and random masks judged in bulk."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from autograder.compare import Script, Step, run_here
from autograder.rubric import Draw
from autograder.student import Student
from sslcourse.data.masks import blockwise_mask
from sslcourse.nn.mini_mae import MiniMAE


def part(result: object, place: int, of: int = 3) -> Tensor:
    """One of the student's `of` results, or an empty tensor where there is none."""
    found = result[place] if isinstance(result, tuple | list) and len(result) == of else None
    return found if isinstance(found, Tensor) else torch.empty(0)


def visible(student: Student, result: object, x: Tensor, ratio: float, noise: Tensor) -> None:
    """The first result, by itself: a wrong mask costs its own property only."""
    got, keep = part(result, 0), int(x.shape[1] * (1 - ratio))
    if got.ndim != 3 or got.shape[1] != keep:
        student.wrong("not int(N * (1 - ratio)) tokens stay.")
    want = x.gather(1, noise.argsort(dim=1)[:, :keep, None].expand(-1, -1, x.shape[2]))
    if got.dtype != want.dtype or got.shape != want.shape or not torch.equal(got.sort(1)[0], want.sort(1)[0]):
        student.wrong("x_vis does not hold the tokens with the smallest noise.")


def orders(draw: Draw, b: int, n: int) -> Tensor:
    """(b, n) int64: another order for each image."""
    return torch.stack([draw.permutation(n) for _ in range(b)])


def backwards(b: int, n: int) -> Tensor:
    """(b, n) int64: an order that is its own inverse."""
    return torch.arange(n).flip(0).expand(b, n)


def hidden(draw: Draw, b: int, n: int, most: int = 0) -> Tensor:
    """(b, n) bool, image i hides 1 + i (or up to `most`) patches at places of its own."""
    counts = [1 + i % (most or n - 1) for i in range(b)]
    return torch.stack([draw.permutation(n) < count for count in counts])


def equal(draw: Draw, b: int, n: int, count: int) -> Tensor:
    """(b, n) bool with `count` hidden patches in every image."""
    return torch.stack([draw.permutation(n) < count for _ in range(b)])


RATIO = 0.75


def network(draw: Draw, n: int, ratio: float = RATIO) -> tuple[tuple[Any, ...], dict[str, Tensor]]:
    """Arguments of the constructor, and weights that the checks choose: no bias is 0, no position like another."""
    init = (n, 3, 8, 1, 4, 1, ratio)
    scale = {1: 0.5, 2: 0.5, 3: 1.5}
    return init, {name: draw.normal(*t.shape) * scale[t.ndim] for name, t in MiniMAE(*init).state_dict().items()}


def played(student: Student, init: tuple[Any, ...], load: dict[str, Tensor], step: Step) -> tuple[Any, Any]:
    """What the student's network and the library's did in this step."""
    script = Script(init, load, (step,))
    return student.outcome(script).value[0], run_here(student.reference, (script,), {}, False).value[0]


def words(draw: Draw, b: int, n: int, k: int) -> tuple[Tensor, Tensor]:
    """Logits (b, n, k) and tokens (b, n)."""
    return draw.normal(b, n, k) * 2, draw.integers(0, k, b, n)


def dvae_inputs(
    draw: Draw, b: int, k: int, d: int, h: int, w: int, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (b, k, h, w), a codebook (k, d), Gumbel noise."""
    noise = -(-draw.uniform(b, k, h, w, low=1e-6, high=1 - 1e-6).log()).log()
    return draw.normal(b, k, h, w) * scale, draw.normal(k, d), noise


# A student may roll the dice of `blockwise_mask` in another order than the library, so many masks are compared.

Statistic = Callable[[Tensor], Tensor]  # (M, h, w) bool -> (M,) float
KEPT = 3  # masks of one property that are tried on known mistakes, which takes time


def masks(student: Student, draw: Draw, count: int, *settings: Any) -> Tensor:
    """`count` masks of the student (count, h, w) bool, each with its own generator."""
    made, before = [], len(student.records)
    for _ in range(count):
        mask = student(*settings, draw.generator())
        if not isinstance(mask, Tensor) or mask.shape != settings[:2] or mask.dtype != torch.bool:
            student.wrong("return a mask of shape (h, w) and type bool.")
        made.append(mask)
    del student.records[before + KEPT :]
    return torch.stack(made)


def rows(mask: Tensor) -> Tensor:
    """How many rows hold something hidden."""
    return mask.any(dim=2).sum(dim=1).float()


def columns(mask: Tensor) -> Tensor:
    return mask.any(dim=1).sum(dim=1).float()


def count(mask: Tensor) -> Tensor:
    return mask.flatten(1).sum(dim=1).float()


def edges(mask: Tensor) -> Tensor:
    """How often hidden and visible patches meet: few large blocks have few edges."""
    return (mask[:, 1:] != mask[:, :-1]).flatten(1).sum(1).float() + (mask[..., 1:] != mask[..., :-1]).flatten(1).sum(1)


def elongated(mask: Tensor) -> Tensor:
    return (rows(mask) / columns(mask).clamp_min(1)).log().abs()


@functools.cache
def library_masks(settings: tuple[Any, ...]) -> Tensor:
    h, w, n_mask, least, most, aspect = settings
    return blockwise_mask(h, w, n_mask, least, most, aspect, Generator().manual_seed(0), batch=1500)


def like_the_library(made: Tensor, statistic: Statistic, settings: tuple[Any, ...]) -> bool:
    """Whether the mean of a statistic is that of the library's masks, within five standard errors and a little."""
    want, got = statistic(library_masks(settings)), statistic(made)
    return bool((got.mean() - want.mean()).abs() <= 5 * want.std() / len(made) ** 0.5 + 0.02 * want.mean().abs())
