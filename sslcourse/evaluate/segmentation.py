"""Scores of masks: mean IoU over classes, IoU and boundary IoU of binary masks."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError


def confusion_matrix(pred: Tensor, target: Tensor, n_classes: int, ignore: int = 255) -> Tensor:
    """(n_classes, n_classes) int64: pixels of true class i that were called j. Matrices of batches add up.

    Args:
        pred, target: integer class maps of one shape; what `pred` says where `target` is `ignore` does not matter.
        n_classes: classes are 0 .. n_classes - 1.
        ignore: value of `target` that marks pixels without a label.
    """
    if pred.shape != target.shape or pred.is_floating_point() or target.is_floating_point():
        raise InputError(
            f"Class maps need one shape and integers; got {pred.dtype} {tuple(pred.shape)} and "
            f"{target.dtype} {tuple(target.shape)}."
        )
    counted = target != ignore
    truth, called = target[counted].long(), pred[counted].long()  # int64: class * n_classes would overflow uint8
    for what, values in (("target", truth), ("pred", called)):
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < n_classes:
            low, high = int(values.min()), int(values.max())
            raise InputError(f"miou with n_classes={n_classes} got {what} values from {low} to {high}.")
    return torch.bincount(truth * n_classes + called, minlength=n_classes**2).view(n_classes, n_classes)


def iou_of_classes(confusion: Tensor) -> Tensor:
    """(..., C) float64 intersection over union of every class of (..., C, C); NaN for one that occurs nowhere."""
    hit = confusion.diagonal(dim1=-2, dim2=-1)
    union = confusion.sum(dim=-1) + confusion.sum(dim=-2) - hit
    return hit.double() / union  # 0 / 0 is NaN


def miou(pred: Tensor, target: Tensor, n_classes: int, ignore: int = 255) -> Tensor:
    """Mean IoU: pixels of all images in one confusion matrix, then the mean over the classes.

    A class that neither the target nor the prediction has is left out (PASCAL VOC and Cityscapes, where every class
    occurs, do not say); a class that is only predicted counts as 0.

    Args:
        pred, target, n_classes, ignore: as in `confusion_matrix`.

    Returns:
        scalar in [0, 1], float64.

    Raises:
        InputError: shapes that differ, values out of range, or not one pixel with a label.
    """
    iou = iou_of_classes(confusion_matrix(pred, target, n_classes, ignore))
    if bool(iou.isnan().all()):
        raise InputError(f"miou needs at least one pixel with a label; all of the target is {ignore}.")
    return iou.nanmean()


def mask_iou(a: Tensor, b: Tensor) -> Tensor:
    """(...,) float64 intersection over union of masks (..., H, W) bool; 1 where both are empty."""
    if a.shape != b.shape or a.dtype != torch.bool or b.dtype != torch.bool:
        raise InputError(
            f"mask_iou compares bool masks of one shape; got {a.dtype} {(*a.shape,)}, {b.dtype} {(*b.shape,)}."
        )
    hit, union = (a & b).sum(dim=(-2, -1)), (a | b).sum(dim=(-2, -1))
    return torch.where(union > 0, hit.double() / union.clamp_min(1), 1.0)


def mask_boundary(mask: Tensor, ratio: float = 0.02) -> Tensor:
    """Pixels of a mask within d of its outside; outside the image counts as outside the mask.

    d is `ratio` of the image's diagonal, at least 1 pixel (Cheng et al. 2021, "Boundary IoU", section 4).

    Args:
        mask: (..., H, W) bool.

    Returns:
        (..., H, W) bool.
    """
    height, width = mask.shape[-2:]
    d = max(1, round(ratio * (height**2 + width**2) ** 0.5))
    # d erosions by 3 x 3 are one by a square of 2 d + 1: the minimum over it, a maximum of the complement.
    outside = F.pad((~mask).float().reshape(-1, 1, height, width), (d, d, d, d), value=1.0)
    rows = F.max_pool2d(outside, (2 * d + 1, 1), stride=1)
    eroded = F.max_pool2d(rows, (1, 2 * d + 1), stride=1) == 0
    return mask & ~eroded.view(mask.shape)


def boundary_iou(a: Tensor, b: Tensor, ratio: float = 0.02) -> Tensor:
    """(...,) float64 IoU of the boundaries of masks (..., H, W) bool: how well do the outlines agree, at any size?"""
    return mask_iou(mask_boundary(a, ratio), mask_boundary(b, ratio))
