"""From masks to mattes: trimaps, compositing, scores and losses of alpha, and Matting Anything's refinement.

An alpha matte a in [0, 1] says how much of a pixel is foreground: I = a F + (1 - a) B (Porter and Duff 1984). A trimap
says where that is in question. Scores: Rhemann et al. 2009, "A Perceptually Motivated Online Benchmark for Image
Matting". Refinement: Li et al. 2023, "Matting Anything", section 3.2. Masks and mattes are (..., H, W).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.precision import full_precision
from sslcourse.segment.mask_prompts import box_of

BACKGROUND, UNKNOWN, FOREGROUND = 0, 1, 2
_SOLID = 1 / 255  # nearer to 0 or 1 than this, an 8-bit matte is solid


def ellipse(k: int) -> Tensor:
    """A (k, k) bool disc as OpenCV draws it; its middle is (k // 2, k // 2), so an even one is lopsided."""
    if k < 1:
        raise InputError(f"a disc is at least one pixel wide; got {k}.")
    r = k // 2
    disc = torch.zeros(k, k, dtype=torch.bool)
    for row in range(k):
        off = row - r
        half = round(r * math.sqrt((r * r - off * off) / (r * r))) if r else 0
        disc[row, max(r - half, 0) : min(r + half + 1, k)] = True
    return disc


def dilate(mask: Tensor, kernel: Tensor) -> Tensor:
    """Pixels with a pixel of the mask (..., H, W) bool below the kernel (k, k) bool, centred on (k // 2, k // 2)."""
    k = len(kernel)
    before, after = k // 2, k - 1 - k // 2
    flat = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    padded = F.pad(flat, (before, after, before, after))
    hits = F.conv2d(padded, kernel.to(padded)[None, None])
    return (hits > 0.5).reshape(mask.shape)


def erode(mask: Tensor, kernel: Tensor) -> Tensor:
    """Pixels with nothing but the mask below the kernel; what lies beyond the image counts as the mask."""
    return ~dilate(~mask, kernel)


def mask_to_trimap(mask: Tensor, radius: int) -> Tensor:
    """A trimap with a band of `radius` pixels on both sides of the mask's outline.

    Args:
        mask: (..., H, W) bool.
        radius: of the disc (2 radius + 1 pixels wide) that the mask is dilated and eroded with.

    Returns:
        (..., H, W) uint8: 0 background, 1 unknown, 2 foreground.
    """
    if mask.dtype != torch.bool or radius < 0:
        raise InputError(f"mask_to_trimap takes a bool mask and a radius from 0 on; got {mask.dtype} and {radius}.")
    kernel = ellipse(2 * radius + 1)
    return erode(mask, kernel).to(torch.uint8) + dilate(mask, kernel).to(torch.uint8)


def alpha_composite(alpha: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    """a F + (1 - a) B, with a foreground that is not premultiplied.

    Args:
        alpha: (..., 1, H, W) or broadcastable, in [0, 1].
        foreground, background: (..., 3, H, W) float.
    """
    if alpha.numel() and not (float(alpha.min()) >= 0 and float(alpha.max()) <= 1):
        raise InputError(
            f"alpha lies in [0, 1]; got values from {float(alpha.min()):g} to {float(alpha.max()):g} (divide 0 .. 255 "
            "by 255)."
        )
    return alpha * foreground + (1 - alpha) * background


def _unknown(alpha: Tensor, true: Tensor, trimap: Tensor | None) -> Tensor:
    if alpha.shape != true.shape or (trimap is not None and trimap.shape != true.shape):
        raise InputError(f"mattes and trimap have one shape; got {(*alpha.shape,)} and {(*true.shape,)}.")
    return torch.ones_like(true, dtype=torch.bool) if trimap is None else trimap == UNKNOWN


def sad(alpha: Tensor, true: Tensor, trimap: Tensor | None = None) -> Tensor:
    """(...) sum of absolute differences over the unknown pixels (all without a trimap), in thousands."""
    return ((alpha - true).abs() * _unknown(alpha, true, trimap)).sum(dim=(-2, -1)) / 1000


def mse(alpha: Tensor, true: Tensor, trimap: Tensor | None = None) -> Tensor:
    """(...) mean squared difference over the unknown pixels (all without a trimap); 0 if there are none."""
    counted = _unknown(alpha, true, trimap)
    return ((alpha - true) ** 2 * counted).sum(dim=(-2, -1)) / counted.sum(dim=(-2, -1)).clamp_min(1)


def gradient_magnitude(alpha: Tensor, sigma: float = 1.4) -> Tensor:
    """(..., H, W) length of the gradient of a matte smoothed by a Gaussian; the border is continued."""
    radius = math.ceil(3 * sigma)
    x = torch.arange(-radius, radius + 1, dtype=alpha.dtype, device=alpha.device)
    smooth = torch.exp(-(x**2) / (2 * sigma**2))
    smooth = smooth / smooth.sum()
    slope = -x / sigma**2 * smooth
    flat = alpha.reshape(-1, 1, *alpha.shape[-2:])
    padded = F.pad(flat, (radius,) * 4, mode="replicate")

    def along(rows: Tensor, columns: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(padded, rows[None, None, :, None]), columns[None, None, None])

    return torch.hypot(along(slope, smooth), along(smooth, slope)).reshape(alpha.shape)


def gradient_error(alpha: Tensor, true: Tensor, trimap: Tensor | None = None, sigma: float = 1.4) -> Tensor:
    """(...) sum of squared differences of the gradients' lengths over the unknown pixels, in thousands."""
    difference = gradient_magnitude(alpha, sigma) - gradient_magnitude(true, sigma)
    return (difference**2 * _unknown(alpha, true, trimap)).sum(dim=(-2, -1)) / 1000


@full_precision
def weighted_l1(pred: Tensor, true: Tensor, weight: Tensor | None = None) -> Tensor:
    """Scalar: the mean of |pred - true|, weighted where `weight` (broadcast) is given."""
    difference = (pred - true).abs()
    if weight is None:
        return difference.mean()
    weight = weight.expand_as(difference)
    return (difference * weight).sum() / (weight.sum() + 1e-8)


def _blur(x: Tensor, scale: float = 1.0) -> Tensor:
    """A 5 x 5 binomial filter on every channel, the border reflected."""
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=x.dtype, device=x.device) / 16
    kernel = (row[:, None] * row * scale).expand(x.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, groups=x.shape[1])


def laplacian_pyramid(x: Tensor, levels: int = 5) -> list[Tensor]:
    """What each halving of (B, C, H, W) loses, the finest first; the coarse rest is left out."""
    smallest = min(x.shape[-2:]) / 2 ** (levels - 1)
    if smallest <= 2:
        raise InputError(f"{levels} levels need sides above {2**levels} px; got {x.shape[-2]} x {x.shape[-1]}.")
    pyramid = []
    for _ in range(levels):
        small = _blur(x)[..., ::2, ::2]
        spread = x.new_zeros(*x.shape[:2], 2 * small.shape[2], 2 * small.shape[3])
        spread[..., ::2, ::2] = small
        pyramid.append(x - _blur(spread, 4.0)[..., : x.shape[2], : x.shape[3]])
        x = small
    return pyramid


@full_precision
def laplacian_loss(pred: Tensor, true: Tensor, weight: Tensor | None = None, levels: int = 5) -> Tensor:
    """Sum over levels i of 2^i times the mean difference of the Laplacian pyramids (Hou and Liu 2019): scalar.

    Args:
        pred, true: (B, 1, H, W).
        weight: (B, 1, H, W); every second pixel of it weighs the next level.
    """
    loss = pred.new_zeros(())
    for i, (a, b) in enumerate(zip(laplacian_pyramid(pred, levels), laplacian_pyramid(true, levels), strict=True)):
        loss = loss + 2**i * weighted_l1(a, b, weight)
        weight = None if weight is None else weight[..., ::2, ::2]
    return loss


@full_precision
def composition_loss(
    alpha: Tensor, foreground: Tensor, background: Tensor, image: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Mean difference of the recomposed and the true image: (B, 1, H, W), three times (B, 3, H, W) -> scalar."""
    return weighted_l1(alpha * foreground + (1 - alpha) * background, image, weight)


def unknown_of_alpha(alpha: Tensor, k: int, *, one_sided: bool = False) -> Tensor:
    """Where a predicted matte is to be refined: around what is neither 0 nor 1, (..., H, W) bool.

    Args:
        k: width of the disc that the region is dilated with.
        one_sided: dilate all that is not background, but leave solid foreground as it is.
    """
    if one_sided:
        return dilate(alpha >= _SOLID, ellipse(k)) & ~(alpha > 1 - _SOLID)
    return dilate((alpha >= _SOLID) & (alpha <= 1 - _SOLID), ellipse(k))


def unknown_of_mask(mask: Tensor, k: int, *, one_sided: bool = False) -> Tensor:
    """Where a mask (..., H, W) bool is to be refined: along its outline, or (`one_sided`) just outside of it."""
    grown = dilate(mask, ellipse(k))
    return grown & ~mask if one_sided else grown & ~erode(mask, ellipse(k))


def outside_box(mask: Tensor) -> Tensor:
    """True outside the box of each mask (..., H, W) bool; the box's last row and column count as outside."""
    height, width = mask.shape[-2:]
    x1, y1, x2, y2 = (side[..., None, None] for side in box_of(mask).unbind(-1))
    x, y = torch.arange(width, device=mask.device), torch.arange(height, device=mask.device)[:, None]
    return ~((x >= x1) & (x < x2) & (y >= y1) & (y < y2))


def refine_alpha(
    mask: Tensor,
    os8: Tensor,
    os4: Tensor,
    os1: Tensor,
    *,
    widths: tuple[int, int, int] = (10, 20, 10),
    mask_guided: bool = True,
    one_sided: bool = False,
) -> Tensor:
    """Matting Anything's last step: coarse predictions are replaced by finer ones where they are in doubt.

    Args:
        mask: (..., H, W) float 0 or 1, SAM's.
        os8, os4, os1: mattes predicted at 1/8, 1/4 and full resolution, at the size of the mask.
        widths: of the bands to refine with os8, os4 and os1; discs are half as wide.
        mask_guided: start from the mask and refine its outline; else from os8 inside the mask's box.
        one_sided: see `unknown_of_mask` and `unknown_of_alpha`.

    Returns:
        (..., H, W).
    """
    inside = mask > 0.5
    if mask_guided:
        alpha = torch.where(unknown_of_mask(inside, widths[0] // 2, one_sided=one_sided), os8, mask)
    else:
        alpha = torch.where(outside_box(inside), mask, os8)
    for finer, width in ((os4, widths[1]), (os1, widths[2])):
        alpha = torch.where(unknown_of_alpha(alpha, width // 2, one_sided=one_sided), finer, alpha)
    return alpha
