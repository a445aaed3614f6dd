"""Images as grids of patches: what every Vision Transformer and masked method shares."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.data.masks import hidden_count
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


def random_masking(x: Tensor, ratio: float, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Leave tokens out, each image its own (MAE, He et al. 2021, section 3, "simple implementation").

    Args:
        x: (B, N, D) tokens, positions already added.
        ratio: part that is left out; floor(N (1 - ratio)) stay.
        noise: (B, N) numbers, one a token; those with the smallest stay.

    Returns:
        x_vis: (B, V, D), in order of their noise.
        mask: (B, N) bool, True = left out, in reading order.
        ids_restore: (B, N) int64, where each token went in "kept, then left out": what `decoder_unshuffle` needs.
    """
    if noise.shape != x.shape[:2]:
        raise InputError(f"random_masking needs a number a token, {(*x.shape[:2],)}; got {(*noise.shape,)}.")
    keep = x.shape[1] - hidden_count(x.shape[1], ratio)
    ids_shuffle = noise.argsort(dim=1)
    ids_restore = ids_shuffle.argsort(dim=1)
    return take(x, ids_shuffle[:, :keep]), ids_restore >= keep, ids_restore


def decoder_unshuffle(x_vis: Tensor, mask_token: Tensor, ids_restore: Tensor, *, prefix: int = 1) -> Tensor:
    """Put visible tokens back in their places and a mask token everywhere else (MAE, section 3, decoder).

    Args:
        x_vis: (B, prefix + V, D), the first `prefix` (CLS) without a place.
        mask_token: (1, 1, D) or (D,).
        ids_restore: (B, N) of `random_masking`, N >= V.

    Returns:
        (B, prefix + N, D); positions are added after this, so that mask tokens have one, too.
    """
    lead, visible = x_vis[:, :prefix], x_vis[:, prefix:]
    hidden = ids_restore.shape[1] - visible.shape[1]
    if hidden < 0:
        raise InputError(f"decoder_unshuffle got {visible.shape[1]} tokens for {ids_restore.shape[1]} places.")
    filler = mask_token.to(visible.dtype).expand(len(visible), hidden, -1)
    return torch.cat([lead, take(torch.cat([visible, filler], dim=1), ids_restore)], dim=1)


def secondary_mask(x_vis: Tensor, mask_token: Tensor, ratio: float, noise: Tensor) -> tuple[Tensor, Tensor]:
    """UM-MAE's second mask: a share of the *kept* tokens becomes a token that says nothing (Li et al. 2022, 3.2).

    They stay in the sequence, so nothing gets cheaper, and are no part of the loss: they make a task harder that
    uniform sampling has made easy.

    Args:
        x_vis: (B, V, D) kept tokens before positions are added, so that a replaced token still has its own.
        mask_token: (1, 1, D) or (D,).
        ratio: of the V tokens; floor(V (1 - ratio)) stay as they are.
        noise: (B, V); tokens with the smallest stay.

    Returns:
        (B, V, D) and the mask (B, V) bool, True = replaced.
    """
    if noise.shape != x_vis.shape[:2]:
        raise InputError(f"secondary_mask needs a number a token, {(*x_vis.shape[:2],)}; got {(*noise.shape,)}.")
    keep = x_vis.shape[1] - hidden_count(x_vis.shape[1], ratio)
    mask = noise.argsort(dim=1).argsort(dim=1) >= keep
    return torch.where(mask[..., None], mask_token.to(x_vis.dtype), x_vis), mask


def compact(x: Tensor, mask: Tensor) -> Tensor:
    """Move the cells that are kept together: of each 2 x 2 cells of a map the one that is not hidden (UM-MAE, fig. 2).

    Args:
        x: (B, C, H, W), an image or a map; a cell is H / h x W / w of its places.
        mask: (B, h, w) bool, True = hidden, all but one of each 2 x 2 (`uniform_sampling`).

    Returns:
        (B, C, H / 2, W / 2). Cells stay in their blocks, so the order within a row of blocks is by block.
    """
    b, h, w = mask.shape
    kept = ~mask.view(b, h // 2, 2, w // 2, 2).transpose(2, 3).flatten(3)
    if x.shape[2] % h or x.shape[3] % w or (kept.sum(dim=-1) != 1).any():
        raise InputError(f"compact takes masks that keep one cell of each 2 x 2 and fit a map {(*x.shape[2:],)}.")
    kh, kw = x.shape[2] // h, x.shape[3] // w
    cells = x.reshape(b, -1, h // 2, 2, kh, w // 2, 2, kw).permute(0, 2, 5, 3, 6, 1, 4, 7).flatten(3, 4)
    chosen = cells[kept].view(b, h // 2, w // 2, -1, kh, kw)
    return chosen.permute(0, 3, 1, 4, 2, 5).reshape(b, -1, h // 2 * kh, w // 2 * kw)


def restore_order(mask: Tensor, *, by_block: bool = False) -> Tensor:
    """`ids_restore` of "kept, then hidden" for a mask of cells (B, h, w): (B, h * w) int64, for `decoder_unshuffle`.

    Hidden cells stand in reading order, kept ones, too, or with `by_block` as `compact` lists them.
    """
    order = mask.flatten(1).int().argsort(dim=1, stable=True)
    if by_block:
        number = torch.arange(order.shape[1], device=mask.device).view(1, 1, *mask.shape[1:])
        kept = compact(number.expand(len(mask), -1, -1, -1), mask).flatten(1)
        order = torch.cat([kept, order[:, kept.shape[1] :]], dim=1)
    return order.argsort(dim=1)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Tokens by their place, each image its own: (B, N, D) and (B, K) int64 -> (B, K, D)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))


def tubelet_embed(x: Tensor, t: int, p: int, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Cut clips into tubelets of t frames x p x p pixels, and map each linearly (ViViT, Arnab et al. 2021, sec. 3.2).

    Args:
        x: (B, C, T, H, W), T a multiple of t, H and W of p.
        weight: (D, t*p*p*C) of a linear layer; None leaves the pixels.
        bias: (D,).

    Returns:
        (B, N, D) or (B, N, t*p*p*C), N = T/t * H/p * W/p: tubelets by time, row, column; inside a tubelet frames, pixel
        rows, columns, channels. A 3-D convolution with stride (t, p, p) is the same map with its kernel (D, C, t, p, p)
        permuted to (D, t, p, p, C).
    """
    b, c, frames, height, width = x.shape
    if frames % t or height % p or width % p:
        raise InputError(
            f"tubelet_embed cuts clips into {t} frames x {p} x {p} px; {frames} x {height} x {width} is no multiple."
        )
    x = x.reshape(b, c, frames // t, t, height // p, p, width // p, p)
    tokens = x.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(b, -1, t * p * p * c)
    return tokens if weight is None else F.linear(tokens, weight, bias)
