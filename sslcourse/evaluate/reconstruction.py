"""How well hidden patches are painted, and what painting is worth that has learned nothing."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.data.masks import upsample_mask
from sslcourse.errors import InputError


@torch.no_grad()
def paint(mae: Any, images: Tensor, order: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """What a trained MAE paints into hidden patches, at any ratio, whatever it was trained with.

    Args:
        mae: a `MAE` whose target is pixels; it is in eval mode meanwhile.
        images: (B, 3, H, W) uint8 at the size that the MAE sees, or another multiple of its patch.
        order: (B, N), a number a patch, those with the largest are hidden (`mask_order`).
        ratio: of the patches that are hidden, in [0, 1).

    Returns:
        Painted images (B, 3, H, W) float in [0, 1], visible patches as they are, and the mask (B, h, w) bool.

    Raises:
        InputError: a ratio out of its range, or a target that is no picture.
    """
    if not 0 <= ratio < 1:
        raise InputError(f"the ratio of what is hidden has to be in [0, 1); got {ratio}.")
    view, own, training = mae.config.augment, mae.config, mae.training
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (view.mean, view.std))
    x = (images / 255 - mean) / std
    mae.config = replace(own, ratio=ratio)
    try:
        mae.eval()
        mask = mae.encode(x, order)[1]
        painted = mae.reconstruct([x, order])
    finally:
        mae.config = own
        mae.train(training)
    return (painted * std + mean).clamp(0, 1), mask.unflatten(1, mae.backbone.patch_embed.grid(x))


def copy_nearest(images: Tensor, mask: Tensor) -> Tensor:
    """Paint every hidden patch with the mean colour of the nearest visible patch, which takes no training.

    Where several are equally near, with the mean of them. It tells how much of a masked image can be had from its
    neighbourhood, without knowing what is in the picture.

    Args:
        images: (B, C, H, W) float.
        mask: (B, h, w) bool, True = hidden, on the grid of patches of H / h x W / w pixels.

    Returns:
        (B, C, H, W), visible patches as they are.

    Raises:
        InputError: a grid that the images are no multiple of, or an image without a visible patch.
    """
    ph, pw = _patch(images, mask)
    if bool(mask.flatten(1).all(dim=1).any()):
        raise InputError("copy_nearest needs a visible patch in every image to copy from.")
    h, w = mask.shape[1:]
    colours = F.avg_pool2d(images, (ph, pw)).flatten(2)  # (B, C, N)
    rows, columns = torch.arange(h, device=mask.device), torch.arange(w, device=mask.device)
    places = torch.stack([rows.repeat_interleave(w), columns.repeat(h)], dim=1)
    between = (places[:, None] - places).square().sum(dim=-1)  # whole numbers, so that ties are ties
    far = between.max() + 1
    distance = torch.where(mask.flatten(1)[:, None], far, between)  # (B, N, N): to visible patches only
    nearest = (distance == distance.amin(dim=2, keepdim=True)).to(images.dtype)
    nearest = nearest / nearest.sum(dim=2, keepdim=True)
    copied = torch.einsum("bnm,bcm->bcn", nearest, colours).unflatten(2, (h, w))
    copied = copied.repeat_interleave(ph, 2).repeat_interleave(pw, 3)
    return torch.where(_spread(mask, ph, pw), copied, images)


def unexplained(painted: Tensor, images: Tensor, mask: Tensor, *, pooled: bool = False) -> Tensor:
    """Squared error of hidden pixels as a share of what painting the image's mean colour would make: (B,).

    0 is perfect, 1 no better than one colour for all, and it has no upper end. An image without hidden pixels, or of
    one colour, has 0 / 0, which is 0 here.

    Args:
        painted, images: (B, C, H, W) float.
        mask: (B, h, w) bool, True = hidden.
        pooled: divide by the mean over the batch of what the mean colours would make. Then the mean of the result is
            the share of all hidden pixels together, so that images of nearly one colour count little.
    """
    if painted.shape != images.shape:
        raise InputError(f"unexplained compares images of one shape; got {(*painted.shape,)} and {(*images.shape,)}.")
    hidden = _spread(mask, *_patch(images, mask)).to(images.dtype)
    error = ((painted - images).square() * hidden).flatten(1).sum(dim=1)
    spread = ((images - images.mean(dim=(2, 3), keepdim=True)).square() * hidden).flatten(1).sum(dim=1)
    spread = spread.mean().expand_as(spread) if pooled else spread
    return torch.where(spread > 0, error / spread.clamp(min=torch.finfo(images.dtype).tiny), 0.0)


def _patch(images: Tensor, mask: Tensor) -> tuple[int, int]:
    """Sides of a patch in pixels."""
    sides = images.shape[2:]
    if images.ndim != 4 or mask.ndim != 3 or len(mask) != len(images) or any(
        n % g for n, g in zip(sides, mask.shape[1:], strict=True)
    ):  # fmt: skip
        raise InputError(
            f"a mask (B, h, w) has to fit its images (B, C, H, W), H a multiple of h and W of w; got {(*mask.shape,)} "
            f"for {(*images.shape,)}."
        )
    return sides[0] // mask.shape[1], sides[1] // mask.shape[2]


def _spread(mask: Tensor, ph: int, pw: int) -> Tensor:
    """(B, h, w) -> (B, 1, H, W)."""
    return (upsample_mask(mask, ph) if ph == pw else mask.repeat_interleave(ph, 1).repeat_interleave(pw, 2))[:, None]
