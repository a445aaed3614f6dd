"""Losses of networks that draw what they were not shown."""

import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.precision import full_precision


@full_precision
def inpaint_l2(pred: Tensor, target: Tensor, mask: Tensor, overlap_w: float = 10.0, *, overlap: int = 1) -> Tensor:
    """Squared error inside a hole, the rim counted more (Context encoders, Pathak et al. 2016, Eq. 1 and Section 4).

    The rim of the hole has to fit what is around it, hence its weight. The paper lets the prediction overlap the known
    image by 7 pixels and weighs those 10 times; here the rim lies inside the hole.

    Args:
        pred, target: (B, C, H, W) float.
        mask: (B, 1, H, W) bool or 0/1, True in the hole.
        overlap_w: weight of the rim against the rest of the hole, >= 0; 1 for a plain mean.
        overlap: width of the rim in pixels; 0 for none.

    Returns:
        scalar, the weighted mean over the pixels and channels in the holes; 0 if there is no hole.
    """
    if pred.shape != target.shape or pred.ndim != 4 or mask.shape != (len(pred), 1, *pred.shape[2:]):
        raise InputError(
            f"inpaint_l2 needs two (B, C, H, W) images and a mask (B, 1, H, W); got {tuple(pred.shape)}, "
            f"{tuple(target.shape)} and {tuple(mask.shape)}."
        )
    hole = mask.to(pred.dtype)
    near_known = 1 - hole
    if overlap:  # outside the image nothing is known, so its edge is no rim
        near_known = F.max_pool2d(near_known, 2 * overlap + 1, stride=1, padding=overlap)
    weight = hole * (1 + (overlap_w - 1) * near_known)
    total = (weight * (pred - target).pow(2)).sum()
    return total / (weight.sum() * pred.shape[1]).clamp_min(1e-12)


@full_precision
def denoising_loss(pred: Tensor, clean: Tensor, damaged: Tensor | None = None, emphasis: float = 1.0) -> Tensor:
    """Squared error against the intact image, where it was damaged counted more (Vincent et al. 2010, section 4.2).

    The target is the image before the noise. `emphasis` 1 is the plain denoising autoencoder (Vincent et al. 2008).

    Args:
        pred, clean: (B, C, H, W) float.
        damaged: (B, 1, H, W) bool or 0/1, True where the input differs from `clean`; everywhere by default.
        emphasis: weight of damaged places against the others, >= 0.

    Returns:
        scalar, the weighted mean over pixels and channels; 0 if no place has any weight.
    """
    if pred.shape != clean.shape or pred.ndim != 4 or emphasis < 0:
        raise InputError(
            f"denoising_loss needs two (B, C, H, W) images and emphasis >= 0; got {tuple(pred.shape)}, "
            f"{tuple(clean.shape)} and {emphasis}."
        )
    error = (pred - clean).pow(2).mean(dim=1, keepdim=True)
    if damaged is None:
        return error.mean()
    if damaged.shape != error.shape:
        raise InputError(f"denoising_loss needs damaged places {tuple(error.shape)}; got {tuple(damaged.shape)}.")
    weight = 1 + (emphasis - 1) * damaged.to(error.dtype)
    return (weight * error).sum() / weight.sum().clamp_min(1e-12)
