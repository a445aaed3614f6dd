"""Prompts made from a ground-truth mask, as a promptable segmenter is trained: a box, points, a coarse mask.

Source: HQ-SAM, Ke et al. 2023, "Segment Anything in High Quality", section 4.1 (training).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError


def box_of(mask: Tensor) -> Tensor:
    """(..., 4) float x1 y1 x2 y2 of the first and last pixel of masks (..., H, W) bool; zeros for an empty mask."""
    return box_of_sides(*_rows_and_columns(mask))


def box_of_sides(rows: Tensor, columns: Tensor) -> Tensor:
    """`box_of` of masks that have a pixel in these rows (..., H) and columns (..., W), bool."""
    height, width = rows.shape[-1], columns.shape[-1]
    rows, columns = rows.int(), columns.int()
    x1, y1 = columns.argmax(-1), rows.argmax(-1)
    x2, y2 = width - 1 - columns.flip(-1).argmax(-1), height - 1 - rows.flip(-1).argmax(-1)
    box = torch.stack([x1, y1, x2, y2], dim=-1).float()
    return box * rows.any(-1)[..., None]


def _rows_and_columns(mask: Tensor) -> tuple[Tensor, Tensor]:
    """(..., H) and (..., W) bool: whether anything of a row or column is in the mask; eight pixels a machine word."""
    if not mask.is_contiguous() or any(
        step % 8 for step in (*mask.stride()[:-1], mask.shape[-1], mask.storage_offset())
    ):
        return mask.any(-1), mask.any(-2)
    words = mask.view(torch.int64)
    columns = torch.stack([some.sum(dim=-2) for some in words.split(255, dim=-2)]).view(torch.uint8)
    return (words != 0).any(-1), (columns > 0).any(dim=0)  # up to 255 rows add up without a carry


def points_in(mask: Tensor, order: Tensor, k: int) -> Tensor:
    """(k, 2) float x y of `k` pixels of a mask (H, W) bool, the first of `order`.

    Args:
        order: a permutation of the mask's pixels, numbered in reading order; `torch.randperm(mask.sum(), generator=g)`.

    Raises:
        InputError: a mask of fewer than `k` pixels.
    """
    inside = mask.nonzero()
    if len(inside) < k or len(order) != len(inside):
        raise InputError(f"points_in draws {k} of {len(inside)} pixels by an order of {len(order)} numbers.")
    return inside[order[:k]].flip(1).float()


def noisy_mask(mask: Tensor, noise: Tensor, factor: int = 8) -> Tensor:
    """A mask whose detail is lost: pixels that a `factor` times smaller copy cannot keep are decided by chance.

    Args:
        mask: (B, 1, H, W) float, 0 or 1.
        noise: (B, 1, H, W) standard normal numbers.

    Returns:
        (B, 1, H, W) bool.
    """
    height, width = mask.shape[-2:]
    small = F.interpolate(mask, (height // factor, width // factor), mode="bilinear", align_corners=False)
    back = F.interpolate(small, (height, width), mode="bilinear", align_corners=False)
    return mask + noise * ((mask - back).abs() >= 0.01) > 0.5
