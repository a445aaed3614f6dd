"""Histograms of oriented gradients for whole batches, on their device (Dalal and Triggs 2005; MaskFeat's targets).

Two conventions. Both vote with the gradient's strength for `bins` orientations without sign in cells of pixels:

    "textbook"   differences [-1, 0, 1], none at the border; angle atan2(gy, gx); what scikit-image computes
    "maskfeat"   Sobel filters on an image reflected at the border; angle atan2(gx, gy), so from the vertical; what the
                 code of MaskFeat (Wei et al. 2021) computes: bins are mirrored, and equal to those of the transpose
"""

from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError, unknown


def hog_features(
    gray: Tensor,
    bins: int = 9,
    cell: int = 8,
    *,
    convention: Literal["textbook", "maskfeat"] = "textbook",
    window: int = 0,
) -> Tensor:
    """HOG of every image and channel, each cell brought to unit length by itself; no gradient goes back.

    Args:
        gray: (H, W), (B, H, W) or (B, C, H, W) float, H and W multiples of `cell`. Channels stay apart.
        bins: orientations in half a turn.
        cell: side of a cell in pixels.
        window: weigh votes by a Gaussian of this width around the middle of windows of so many pixels (std: half of
            it); 0 for none. H and W have to be multiples of it.

    Returns:
        (..., H / cell, W / cell, bins), non-negative; a cell without any gradient is all 0.
    """
    if convention not in ("textbook", "maskfeat"):
        raise unknown("HOG convention", convention, ["textbook", "maskfeat"])
    height, width = gray.shape[-2:]
    if cell < 1 or bins < 1 or height % cell or width % cell or (window and (height % window or width % window)):
        raise InputError(
            f"hog_features needs whole cells of {cell} px and windows of {window} px; got an image of {height} x "
            f"{width} and {bins} bins."
        )
    with torch.no_grad():
        return _hog(gray if gray.is_floating_point() else gray.float(), bins, cell, convention, window)


def _hog(gray: Tensor, bins: int, cell: int, convention: str, window: int) -> Tensor:
    height, width = gray.shape[-2:]
    dx, dy = _central(gray) if convention == "textbook" else _sobel(gray)
    if convention == "maskfeat":
        dx, dy = dy, dx
    place = torch.atan2(dy, dx).mul_(bins / torch.pi).floor_().remainder_(bins).long()
    strength = torch.hypot(dx, dy)
    if window:
        weight = gaussian_window(window).to(strength)
        strength = strength * weight.repeat(height // window, width // window)
    # Every pixel adds to one entry: its cell, times bins, plus its orientation.
    row = torch.arange(height, device=gray.device)[:, None] // cell * (width // cell)
    number = (row + torch.arange(width, device=gray.device) // cell) * bins
    flat = (number + place).flatten(-2)
    cells = (height // cell) * (width // cell)
    votes = strength.new_zeros(*gray.shape[:-2], cells * bins).scatter_add_(-1, flat, strength.flatten(-2))
    return F.normalize(votes.view(*gray.shape[:-2], height // cell, width // cell, bins), dim=-1)


def _central(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of the two neighbours; 0 in the first and the last row or column."""
    dx, dy = torch.zeros_like(x), torch.zeros_like(x)
    torch.sub(x[..., 2:], x[..., :-2], out=dx[..., 1:-1])
    torch.sub(x[..., 2:, :], x[..., :-2, :], out=dy[..., 1:-1, :])
    return dx, dy


def _sobel(x: Tensor) -> tuple[Tensor, Tensor]:
    """Left minus right and up minus down, each smoothed by [1, 2, 1] across, the image reflected at the border."""
    flat = x.reshape(-1, 1, *x.shape[-2:])
    padded = F.pad(flat, (1, 1, 1, 1), mode="reflect").view(*x.shape[:-2], x.shape[-2] + 2, x.shape[-1] + 2)
    tall = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    wide = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    return tall[..., :-2] - tall[..., 2:], wide[..., :-2, :] - wide[..., 2:, :]


@lru_cache(maxsize=8)
def gaussian_window(size: int) -> Tensor:
    """(size, size) weights that sum to 1, a Gaussian with standard deviation size // 2 around the middle."""
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    line = torch.exp(-0.5 * (place / (size // 2)).square())
    kernel = line[:, None] * line
    return (kernel / kernel.sum()).float()


def hog_targets(images: Tensor, patch: int, *, bins: int = 9, cell: int = 8, window: int = 0) -> Tensor:
    """MaskFeat's targets: the HOG of each patch, (B, C, H, W) -> (B, N, C * bins * (patch / cell)^2).

    Inside a patch channels, bins, rows of cells, columns of cells (section 3.2: 3 x 9 x 2 x 2 = 108 for 16 px).

    Raises:
        InputError: a patch of no whole number of cells.
    """
    if patch % cell:
        raise InputError(f"a patch of {patch} px does not hold a whole number of cells of {cell} px.")
    k = patch // cell
    hog = hog_features(images, bins, cell, convention="maskfeat", window=window)
    b, c, rows, columns, _ = hog.shape
    if rows % k or columns % k:
        raise InputError(f"{rows} x {columns} cells do not make whole patches of {k} x {k} cells.")
    hog = hog.view(b, c, rows // k, k, columns // k, k, bins)
    return hog.permute(0, 2, 4, 1, 6, 3, 5).reshape(b, (rows // k) * (columns // k), c * bins * k * k)
