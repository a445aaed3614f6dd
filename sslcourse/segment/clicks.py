"""The simulated annotator: boxes with jitter, clicks on errors.

SAM (Kirillov et al. 2023, appendix A, "Training algorithm") draws a first prompt, a point in the object or a box with
noise, then clicks on the errors of the prediction. Which pixel is drawn uniformly in training; an annotator, and the
evaluation of section 7, clicks the middle of the largest error. Masks are (B, H, W) bool, points x y pixel indices.
"""

import torch
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.segment.mask_prompts import box_of


def jittered_box(mask: Tensor, uniform: Tensor, noise: float = 0.1, bound: float = 20.0) -> Tensor:
    """Boxes of masks, every side moved by up to `noise` times the box's extent, at most `bound` px, kept in the image.

    Args:
        mask: (B, H, W) bool.
        uniform: (B, 4) uniform numbers in [0, 1], for x1 y1 x2 y2.

    Returns:
        (B, 4) float.
    """
    height, width = mask.shape[-2:]
    box = box_of(mask)
    extent = (box[:, 2:] - box[:, :2]) * noise
    moved = box + (2 * uniform - 1) * extent.clamp(max=bound).repeat(1, 2)
    return torch.minimum(moved.clamp_min(0), moved.new_tensor([width - 1, height - 1] * 2))


def errors(gt: Tensor, pred: Tensor | None) -> tuple[Tensor, Tensor]:
    """False positives and false negatives, (B, H, W) bool each; without a prediction all of `gt` is missing."""
    pred = torch.zeros_like(gt) if pred is None else pred
    if gt.shape != pred.shape or gt.dtype != torch.bool or pred.dtype != torch.bool:
        raise InputError(
            f"clicks compare bool masks of one shape; got {gt.dtype} {(*gt.shape,)}, {pred.dtype} {(*pred.shape,)}."
        )
    return pred & ~gt, gt & ~pred


def uniform_clicks(gt: Tensor, pred: Tensor | None, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Clicks on pixels that are drawn uniformly among the errors, with replacement.

    A false negative is included (label 1), a false positive excluded (0). Where nothing is wrong, a background pixel is
    excluded; where there is no background either, the first pixel is.

    Args:
        gt, pred: (B, H, W) bool.
        uniform: (B, P, H, W, 2) uniform numbers, for excluding and including every pixel: the largest among the errors
            is clicked.

    Returns:
        points (B, P, 2) float, labels (B, P) int64.
    """
    wrong, missing = errors(gt, pred)
    right = ~(wrong | missing).flatten(1).any(dim=1)[:, None, None]
    allowed = torch.stack([wrong | (right & ~gt), missing], dim=-1)[:, None]
    place = (uniform * allowed).flatten(2).argmax(dim=2)
    labels, pixel = place % 2, place // 2
    return _as_points(pixel, gt.shape[-1]), labels


def one_click(gt: Tensor, pred: Tensor | None, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """`uniform_clicks` with one click and one random number an object, which is what training needs.

    The errors are numbered in reading order, false positives before false negatives; with n of them, a number u in
    [0, 1) clicks the one of number floor(u n).

    Args:
        gt, pred: (B, H, W) bool.
        uniform: (B,) uniform numbers in [0, 1).

    Returns:
        points (B, 1, 2) float, labels (B, 1) int64.
    """
    wrong, missing = errors(gt, pred)
    wrong, missing, background = wrong.flatten(1), missing.flatten(1), ~gt.flatten(1)
    right = ~(wrong | missing).any(dim=1, keepdim=True)
    seen = torch.cat([wrong | (right & background), missing], dim=1).cumsum(dim=1)
    wanted = (uniform.to(seen.device) * seen[:, -1]).floor().long() + 1  # a number of 1 would be one too far
    place = (seen >= torch.minimum(wanted, seen[:, -1].clamp_min(1))[:, None]).int().argmax(dim=1)
    n = wrong.shape[1]
    return _as_points((place % n)[:, None], gt.shape[-1]), (place >= n).long()[:, None]


def center_click(gt: Tensor, pred: Tensor | None, *, border_counts: bool = True) -> tuple[Tensor, Tensor]:
    """One click in the middle of the largest error: the pixel farthest from its outside, false negative or positive.

    Of equally deep pixels the first is taken, of equally deep errors the false positive. Where nothing is wrong, the
    first background pixel is excluded.

    Args:
        gt, pred: (B, H, W) bool.
        border_counts: whether what lies beyond the image is outside of an error.

    Returns:
        points (B, 1, 2) float, labels (B, 1) int64.
    """
    wrong, missing = errors(gt, pred)
    depth = squared_depth(torch.stack([wrong, missing], dim=1), border_counts=border_counts).flatten(2)
    deepest, pixel = depth.max(dim=2)[0], depth.argmax(dim=2)
    include = deepest[:, 1] > deepest[:, 0]
    chosen = torch.where(include, pixel[:, 1], pixel[:, 0])
    background = (~gt).flatten(1).int().argmax(dim=1)
    chosen = torch.where(deepest.amax(dim=1) > 0, chosen, background)
    return _as_points(chosen[:, None], gt.shape[-1]), include[:, None].long()


def _as_points(pixel: Tensor, width: int) -> Tensor:
    return torch.stack([pixel % width, pixel // width], dim=-1).float()


def squared_depth(mask: Tensor, *, border_counts: bool = True) -> Tensor:
    """Squared distance of every pixel of a mask to the nearest pixel outside it; 0 outside. Exact.

    First along columns, then along rows: d^2(y, x) = min over k of (x - k)^2 + (distance in column k)^2 (Felzenszwalb
    and Huttenlocher 2012, "Distance Transforms of Sampled Functions", section 3).

    Args:
        mask: (..., H, W) bool.
        border_counts: whether what lies beyond the image is outside. If not and all of the image is inside, all pixels
            are equally (height + width) deep.

    Returns:
        (..., H, W) float.
    """
    height, width = mask.shape[-2:]
    far = height + width
    y = torch.arange(height, device=mask.device)[:, None]
    above = torch.where(mask, -1 if border_counts else -far, y).cummax(dim=-2)[0]
    below = torch.where(mask, height if border_counts else 2 * far, y).flip(-2).cummin(dim=-2)[0].flip(-2)
    column = torch.minimum(torch.minimum(y - above, below - y), torch.tensor(far, device=mask.device)).float() ** 2
    if border_counts:
        x = torch.arange(width, device=mask.device)
        best = torch.minimum(column, torch.minimum(x + 1, width - x).float() ** 2)
    else:
        best = column.clone()
    for step in range(1, width):
        if step**2 >= float(best.max()):  # no pixel that far away can be nearer than what was found
            break
        best[..., step:] = torch.minimum(best[..., step:], column[..., :-step] + step**2)
        best[..., :-step] = torch.minimum(best[..., :-step], column[..., step:] + step**2)
    return best * mask
