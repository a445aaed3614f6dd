"""What can be said of an enlarged mask without enlarging it: about where its box lies, and how stable it can be.

Bilinear interpolation makes every pixel from four neighbours, as a weighted mean. So it lies between the lowest and the
highest of them: where all four are above a threshold, the pixel is too, and where none is, it is not.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sslcourse.segment.mask_prompts import box_of_sides

MARGIN = 0.05  # of a logit: far more than the rounding of an interpolation
_AT_ONCE = 16  # masks: what stays in the processor's cache is faster


class Bounds(NamedTuple):
    """Of K masks.

    Attributes:
        inner, outer: (K, 4) boxes, first and last pixel, within and around that of the mask; zeros where nothing is
            sure, or where the mask is empty for sure.
        stability: (K,) what `masks.stability_score` is at most.
    """

    inner: Tensor
    outer: Tensor
    stability: Tensor

    def repeat(self, box: Tensor, limit: float) -> Tensor:
        """(K,) bool: whether the IoU of the mask's box with `box` (4,) is above `limit` for sure."""
        low, high = torch.maximum(self.inner[:, :2], box[:2]), torch.minimum(self.inner[:, 2:], box[2:])
        shared = (high - low).clamp_min(0).prod(dim=1)
        most = (self.outer[:, 2:] - self.outer[:, :2]).prod(dim=1) + (box[2:] - box[:2]).prod()
        return shared / (most - shared).clamp_min(1) > limit + 1e-4  # what is near is not sure


def bounds_of(logits: Tensor, size: tuple[int, int], threshold: float = 0.0, delta: float = 1.0) -> Bounds:
    """Bounds of the masks that (K, h, w) logits become at `size` (H, W), bilinearly; `delta` of the stability."""
    (rows, row), (columns, column) = (_pairs(s, n) for s, n in zip(logits.shape[1:], size, strict=True))
    of_row, of_column = (torch.bincount(i).to(logits) for i in (row, column))  # how many pixels have these neighbours
    found = []
    for some in logits.split(_AT_ONCE):
        low, high = (_each(some, rows, columns, f) for f in (torch.minimum, torch.maximum))
        sides = [
            (x.amax(dim=2) > at, x.amax(dim=1) > at)
            for x, at in ((low, threshold + MARGIN), (high, threshold - MARGIN))
        ]
        boxes = [box_of_sides(r[:, row], c[:, column]) for r, c in sides]
        most = (high > threshold + delta - MARGIN).to(logits) @ of_column @ of_row
        least = (low > threshold - delta + MARGIN).to(logits) @ of_column @ of_row
        found.append((*boxes, (most / least.clamp_min(1e-9)).clamp_max(1)))
    if not found:
        return Bounds(logits.new_zeros(0, 4), logits.new_zeros(0, 4), logits.new_zeros(0))
    return Bounds(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _pairs(small: int, large: int) -> tuple[Tensor, Tensor]:
    """The neighbours i and i + 1 of `small` that those of `large` lie between: the i that occur, and which of them."""
    place = ((torch.arange(large, dtype=torch.float64) + 0.5) * small / large - 0.5).clamp(0, max(small - 2, 0))
    return place.long().unique(return_inverse=True)


def _each(x: Tensor, rows: Tensor, columns: Tensor, f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`f` of the four neighbours at the pairs that occur; enlarging, these are all there are, and need no look-up."""
    for dim, first in ((1, rows), (2, columns)):
        n = x.shape[dim] - 1
        if n == 0:
            continue
        x = f(x.narrow(dim, 0, n), x.narrow(dim, 1, n))
        x = x if len(first) == n else x.index_select(dim, first)
    return x
