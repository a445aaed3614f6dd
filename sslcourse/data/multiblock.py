"""I-JEPA's masks: several blocks to predict, and a large block without them to predict from."""

import math

import torch
from torch import Generator, Tensor

from sslcourse.data.rng import shard_rows
from sslcourse.errors import InputError

Pair = tuple[float, float]
_TRIES = 20  # places for a context block, of which the first with enough patches left is taken


def block_size(h: int, w: int, u: float, scale: Pair, aspect: Pair) -> tuple[int, int]:
    """Rows and columns of a block, smaller than the grid along both (Assran et al. 2023, section 3).

    The paper draws its area and its aspect ratio. The published code takes both from the *same* number `u` in [0, 1),
    so large blocks are tall; this does as the code.

    Args:
        scale: range of the area as a part of the h x w patches; aspect: range of height / width.
    """
    area = int(h * w * (scale[0] + u * (scale[1] - scale[0])))
    ratio = aspect[0] + u * (aspect[1] - aspect[0])
    return min(round(math.sqrt(area * ratio)), h - 1), min(round(math.sqrt(area / ratio)), w - 1)


def multiblock_masks(
    h: int,
    w: int,
    rng: Generator,
    *,
    batch: int,
    n_targets: int = 4,
    target_scale: Pair = (0.15, 0.2),
    context_scale: Pair = (0.85, 1.0),
    aspect: Pair = (0.75, 1.5),
    min_keep: int = 10,
) -> tuple[Tensor, Tensor]:
    """Which patches each image is predicted from and at which (Assran et al. 2023, section 3, "targets", "context").

    All images of a batch have blocks of one size; targets may overlap one another. From the context block what belongs
    to a target is taken out. So that images can be stacked, each keeps the first as many as the poorest has, in
    reading order, as the published code does.

    Args:
        h, w: rows and columns of patches, at least 2 each.
        min_keep: another place is tried for a context block that has not more than this many patches left.

    Returns:
        context: (B, K) int64, places in reading order.
        targets: (B, n_targets, M) int64.

    Raises:
        InputError: too small a grid, or scales that leave nothing to predict from.
    """
    if min(h, w) < 2 or n_targets < 1 or batch < 1:
        raise InputError(f"multiblock masks need 2 x 2 patches and a target or more; got {h} x {w} and {n_targets}.")
    total, mine = shard_rows(batch, rng)
    sizes = torch.rand(2, generator=rng).tolist()
    (th, tw), (ch, cw) = (
        block_size(h, w, sizes[0], target_scale, aspect),
        block_size(h, w, sizes[1], context_scale, (1, 1)),
    )
    place = torch.rand(total, 2, n_targets, generator=rng)[mine]
    target = _boxes(h, w, th, tw, place)
    place = torch.rand(total, 2, _TRIES, generator=rng)[mine]
    context = _boxes(h, w, ch, cw, place) & ~target.any(dim=1, keepdim=True)
    left = context.flatten(2).sum(dim=2)
    # The first try with enough left; where there is none, the one with most.
    best = torch.where((left > min_keep).any(dim=1), (left > min_keep).int().argmax(dim=1), left.argmax(dim=1))
    context = context[torch.arange(batch), best].flatten(1)
    keep, wanted = int(context.sum(dim=1).min()), th * tw
    if not keep or not wanted:
        raise InputError(f"targets of {th} x {tw} leave nothing of a context of {ch} x {cw} in {h} x {w} patches.")
    return _first(context, keep), _first(target.flatten(2), wanted)


def _boxes(h: int, w: int, height: int, width: int, place: Tensor) -> Tensor:
    """(B, K, h, w) bool, boxes at uniform numbers `place` (B, 2, K); like the published code, never at the last row
    or column of places where they would fit."""
    top, left = (place[:, 0] * (h - height)).floor(), (place[:, 1] * (w - width)).floor()
    row, column = torch.arange(h), torch.arange(w)
    rows = (row >= top[..., None]) & (row < top[..., None] + height)
    columns = (column >= left[..., None]) & (column < left[..., None] + width)
    return rows[..., :, None] & columns[..., None, :]


def _first(mask: Tensor, k: int) -> Tensor:
    """Places of the first k True of each row, in order: (..., N) bool -> (..., k) int64."""
    return (~mask).int().argsort(dim=-1, stable=True)[..., :k]
