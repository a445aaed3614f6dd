"""Images as grids of patches: what every Vision Transformer and masked method shares."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError


def patchify(x: Tensor, p: int) -> Tensor:
    """Cut images into patches of p x p pixels: (B, C, H, W) -> (B, N, p*p*C), N = H/p * W/p.

    Patches in reading order; inside a patch pixel rows, then columns, then channels (MAE, He et al. 2022, `patchify`).
    """
    b, c, height, width = x.shape
    if height % p or width % p:
        raise InputError(f"patchify cuts images into {p} x {p} patches; {height} x {width} is no multiple of that.")
    x = x.reshape(b, c, height // p, p, width // p, p)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, p * p * c)


def unpatchify(tokens: Tensor, p: int, h: int, w: int) -> Tensor:
    """The inverse of `patchify`: (B, h*w, p*p*C) -> (B, C, h*p, w*p), for a grid of h rows and w columns of patches."""
    b, n, values = tokens.shape
    if n != h * w or values % (p * p):
        raise InputError(f"unpatchify got {n} tokens of {values} values for {h} x {w} patches of {p} x {p} pixels.")
    x = tokens.reshape(b, h, w, p, p, values // (p * p))
    return x.permute(0, 5, 1, 3, 2, 4).reshape(b, -1, h * p, w * p)


def interpolate_pos(
    pos: Tensor, h: int, w: int, *, grid: tuple[int, int] | None = None, antialias: bool = False, offset: float = 0.0
) -> Tensor:
    """Resize position embeddings to a grid of h x w patches: (1, P+N, D) -> (1, P+h*w, D), bicubic.

    The P leading embeddings (CLS) belong to no place and stay as they are.

    Args:
        pos: (1, P+N, D), patches in reading order.
        grid: (rows, columns) of the N patches, the rest is P; None for P = 1 and a square.
        antialias: timm's way (its cubic also has another coefficient); False is MAE's and DINO's.
        offset: DINO adds 0.1 to h and w when it computes the scale of the interpolation; 0 elsewhere.
    """
    if grid is None:
        side = round(max(pos.shape[1] - 1, 0) ** 0.5)
        grid, prefix = (side, side), 1
    else:
        prefix = pos.shape[1] - grid[0] * grid[1]
    if prefix < 0 or pos.shape[1] - prefix != grid[0] * grid[1]:
        raise InputError(f"interpolate_pos got {pos.shape[1]} embeddings, not those of a {grid[0]} x {grid[1]} grid.")
    if grid == (h, w):
        return pos
    lead, patches = pos[:, :prefix], pos[:, prefix:]
    image = patches.reshape(1, *grid, -1).permute(0, 3, 1, 2).float()  # bicubic in bf16 would move the places
    if offset:
        scale = ((h + offset) / grid[0], (w + offset) / grid[1])
        image = F.interpolate(image, scale_factor=scale, mode="bicubic", antialias=antialias)
    else:
        image = F.interpolate(image, size=(h, w), mode="bicubic", antialias=antialias)
    patches = image.permute(0, 2, 3, 1).reshape(1, h * w, -1).to(pos.dtype)
    return torch.cat([lead, patches], dim=1)


def keep_visible(tokens: Tensor, mask: Tensor) -> Tensor:
    """Leave hidden tokens out, in order: (B, N, D) and a mask (B, N) bool, True = hidden -> (B, V, D)."""
    visible = (~mask).sum(dim=1)
    if (visible != visible[0]).any():
        raise InputError("images of a batch must hide equally many patches when hidden ones are left out.")
    return tokens[~mask].reshape(len(tokens), int(visible[0]), -1)
