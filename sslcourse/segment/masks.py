"""Small functions of masks: stability, boxes, crops, small regions. Masks are (..., H, W), boxes x1 y1 x2 y2.

Boxes of masks name their first and last pixel (`box_of`), as SAM's code does: one pixel gives a box without extent.
Source: Kirillov et al. 2023, "Segment Anything", appendix B; the edge tolerance is the official code's.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError

_WORDS = 128  # of eight pixels, that are added at once


def count_pixels(mask: Tensor) -> Tensor:
    """(...) int64, the areas of masks (..., H, W) bool.

    Eight pixels are one machine word: up to 255 words are added without a carry from byte to byte, which is three times
    as fast as to add pixels.
    """
    flat = mask.flatten(-2)
    steps = (*flat.stride()[:-1], flat.storage_offset())
    if not flat.numel() or flat.shape[-1] % (8 * _WORDS) or not flat.is_contiguous() or any(step % 8 for step in steps):
        return flat.sum(dim=-1)
    words = flat.view(torch.int64).unflatten(-1, (-1, _WORDS)).sum(dim=-1)
    return words.view(torch.uint8).sum(dim=-1)


def stability_score(logits: Tensor, threshold: float = 0.0, delta: float = 1.0, *, empty: float = 0.0) -> Tensor:
    """IoU of the masks at threshold + delta and threshold - delta: does the cut-off matter?

    The first is contained in the second, so the IoU is the ratio of their areas.

    Args:
        logits: (..., H, W).
        empty: the score where even the larger mask is empty. The official code of SAM gives NaN, which no threshold
            lets pass, as 0; SAM 2 counts such a mask as stable.

    Returns:
        (...) float in [0, 1].
    """
    inner = count_pixels(logits > threshold + delta)
    outer = count_pixels(logits > threshold - delta)
    return torch.where(outer > 0, inner / outer.clamp_min(1), empty)


def boundary(mask: Tensor, d: int) -> Tensor:
    """Pixels of masks (..., H, W) bool with a pixel outside within d rows and columns; beyond the image is outside."""
    if mask.dtype != torch.bool or d < 1:
        raise InputError(f"a boundary is of a bool mask and at least 1 pixel wide; got {mask.dtype} and {d}.")
    height, width = mask.shape[-2:]
    outside = F.pad((~mask).float().reshape(-1, 1, height, width), (d, d, d, d), value=1.0)
    near = F.max_pool2d(F.max_pool2d(outside, (2 * d + 1, 1), stride=1), (1, 2 * d + 1), stride=1) > 0
    return mask & near.view(mask.shape)


def boundary_iou(a: Tensor, b: Tensor, d: int) -> Tensor:
    """IoU of the inner boundaries, d pixels wide, of masks (..., H, W) bool: (...), 1 where both are empty.

    Source: Cheng et al. 2021, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", section 4.

    `sslcourse.evaluate.boundary_iou` takes the width as a share of the image's diagonal.
    """
    inner_a, inner_b = boundary(a, d), boundary(b, d)
    union = (inner_a | inner_b).sum(dim=(-2, -1))
    return torch.where(union > 0, (inner_a & inner_b).sum(dim=(-2, -1)) / union.clamp_min(1), 1.0)


def boxes_near_crop_edge(boxes: Tensor, crop: Tensor, image: Tensor, tolerance: float = 20.0) -> Tensor:
    """Which objects the edge of a crop cuts: a side within `tolerance` px of the crop's, but not of the image's.

    Args:
        boxes: (K, 4) in pixels of the crop.
        crop, image: (4,) x1 y1 x2 y2 of both, in pixels of the image.

    Returns:
        (K,) bool.
    """
    boxes = uncrop_boxes(boxes, crop).float()
    near_crop = (boxes - crop.to(boxes)).abs() <= tolerance
    near_image = (boxes - image.to(boxes)).abs() <= tolerance
    return (near_crop & ~near_image).any(dim=1)


def uncrop_boxes(boxes: Tensor, crop: Tensor) -> Tensor:
    """Boxes (K, 4) in pixels of a crop to pixels of the image."""
    return boxes + crop[:2].to(boxes).repeat(2)


def uncrop_masks(masks: Tensor, crop: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (..., h, w) of a crop on the whole image: (..., H, W), false (or 0) outside the crop."""
    x1, y1, x2, y2 = (int(v) for v in crop)
    full = masks.new_zeros((*masks.shape[:-2], *size))
    full[..., y1:y2, x1:x2] = masks
    return full


def to_xywh(boxes: Tensor) -> Tensor:
    """(..., 4) x1 y1 x2 y2 -> x y width height."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], dim=-1)


def to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) centre x, centre y, width, height -> x1 y1 x2 y2."""
    corner = boxes[..., :2] - boxes[..., 2:] / 2
    return torch.cat([corner, corner + boxes[..., 2:]], dim=-1)


def remove_small_regions(mask: Tensor, area: float, mode: Literal["holes", "islands"]) -> tuple[Tensor, bool]:
    """Fill holes, or drop islands, of fewer than `area` pixels; the largest island always stays.

    Regions are 8-connected, holes too; what the mask encloses with the image's border counts as a hole.

    Args:
        mask: (H, W) bool.

    Returns:
        the mask, and whether it was changed.
    """
    if mode not in ("holes", "islands"):
        raise InputError(f"remove_small_regions removes 'holes' or 'islands'; got mode={mode!r}.")
    from scipy.ndimage import label  # comes with scikit-learn

    holes = mode == "holes"
    regions, n = label((~mask if holes else mask).cpu().numpy(), structure=[[1] * 3] * 3)
    found = torch.from_numpy(regions).to(mask.device).long()
    sizes = torch.bincount(found.flatten(), minlength=n + 1)[1:]
    small = sizes < area
    if not small.any():
        return mask, False
    if not holes and small.all():
        small[sizes.argmax()] = False
    drop = torch.cat([small.new_zeros(1), small])[found]
    return (mask | drop if holes else mask & ~drop), True
