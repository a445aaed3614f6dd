"""Swin: a Vision Transformer whose attention stays in windows, and whose map halves from stage to stage.

Liu et al. 2021, "Swin transformer", section 3. Two kinds of relative positions: Swin's table of a number a pair of
places in a window, and the small network of UM-MAE (Li et al. 2022, section 3.3) on the distance in the *image*, which
also works where tokens have been moved together.
"""

from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.errors import InputError
from sslcourse.nn.relative import RelativePositionBias
from sslcourse.nn.vit import Mlp, PatchEmbed

Relative = Literal["table", "mlp"]


class WindowAttention(nn.Module):
    """Attention among the tokens of each window: (B, W, N, dim) -> the same, W windows of N = side^2 tokens.

    Args:
        window: side that a table is made for; it is interpolated for others.
        relative: "table" or "mlp", two linear layers on sign(d) log(1 + |d|) of the distance d from query to key.
        hidden: width of that network.
        unit: how many of the image's tokens a distance of 1 spans.
    """

    def __init__(self, dim: int, n_heads: int, window: int, relative: Relative, hidden: int, unit: int = 1) -> None:
        super().__init__()
        self.n_heads, self.unit = n_heads, unit
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.rel_pos = RelativePositionBias((window, window), n_heads) if relative == "table" else None
        self.rel_mlp = None
        if relative == "mlp":
            self.rel_mlp = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, n_heads))

    def bias(self, side: int, places: Tensor | None, reach: int) -> Tensor:
        """(n_heads, N, N), or (B or 1, W, n_heads, N, N) from codes of places (B or 1, W, N), see `coded`.

        There are few distances and many pairs, so the small network works on every distance once.
        """
        if self.rel_mlp is None or places is None:
            assert self.rel_pos is not None
            return self.rel_pos((side, side))
        line = torch.arange(-reach, reach + 1, device=places.device).to(self.proj.weight) / self.unit
        line = line.sign() * line.abs().log1p()
        every = self.rel_mlp(torch.cartesian_prod(line, line))  # (distances, n_heads)
        none = len(line) * reach + reach  # the number of the distance (0, 0)
        number = places[:, :, None] - places[:, :, :, None] + none  # [.., query, key] = key - query
        return F.embedding(number, every).movedim(-1, 2)

    def forward(self, x: Tensor, places: Tensor | None, reach: int, mask: Tensor | None) -> Tensor:
        b, w, n, dim = x.shape
        q, k, v = self.qkv(x).reshape(b, w, n, 3, self.n_heads, -1).permute(3, 0, 1, 4, 2, 5)  # (B, W, heads, N, d)
        bias = self.bias(round(n**0.5), places, reach)
        bias = bias if mask is None else bias + mask[:, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.proj(out.transpose(2, 3).reshape(b, w, n, dim))


class SwinBlock(nn.Module):
    """A block on maps (B, rows, columns, dim): window attention and MLP, each added to its input, then maybe `merge`.

    Args:
        window: side of the windows; a map that is not larger is one window.
        shift: how far windows are moved up and left, so that neighbours of the block before meet.
        merge: what halves the map after the last block of a stage.
    """

    def __init__(
        self, dim: int, n_heads: int, window: int, shift: int, relative: Relative, hidden: int, unit: int, eps: float,
        merge: nn.Module | None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)
        self.attn = WindowAttention(dim, n_heads, window, relative, hidden, unit)
        self.mlp = Mlp(dim, 4 * dim)
        self.merge = merge

    def forward(self, x: Tensor, places: Tensor | None, reach: int) -> tuple[Tensor, Tensor | None]:
        """The map and the codes of its tokens' places, (B or 1, rows, columns), or None for a table."""
        h, w = x.shape[1:3]
        window, shift = (self.window, self.shift) if min(h, w) > self.window else (min(h, w), 0)
        if h % window or w % window:
            raise InputError(f"a Swin cannot cut a map of {h} x {w} tokens into windows of {window} x {window}.")
        y, at = self.norm1(x), places
        if shift:
            y = y.roll((-shift, -shift), dims=(1, 2))
            at = at if at is None else at.roll((-shift, -shift), dims=(1, 2))
        mask = shift_mask(h, w, window, shift).to(x.device) if shift else None
        at = at if at is None else to_windows(at[..., None], window)[..., 0]
        y = self.attn(to_windows(y, window), at, reach, mask)
        y = from_windows(y, window, h, w)
        x = x + (y.roll((shift, shift), dims=(1, 2)) if shift else y)
        x = x + self.mlp(self.norm2(x))
        if self.merge is not None:
            x, places = self.merge(x), None if places is None else places[:, ::2, ::2]
        return x, places


class LinearMerge(nn.Module):
    """Swin's: the four tokens of each 2 x 2 side by side, normalised, mapped to twice the width (section 3.1)."""

    def __init__(self, dim: int, out: int, eps: float) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * dim, eps=eps), nn.Linear(4 * dim, out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], dim=-1)
        return self.reduction(self.norm(x))


class ConvMerge(nn.Module):
    """UM-MAE's: normalised (or not, with `norm=False`), then a 2 x 2 convolution with stride 2."""

    def __init__(self, dim: int, out: int, eps: float, norm: bool = True) -> None:
        super().__init__()
        self.norm: nn.Module = nn.LayerNorm(dim, eps=eps) if norm else nn.Identity()
        self.proj = nn.Conv2d(dim, out, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Swin(nn.Module):
    """A Swin without classifier: (B, 3, H, W) float -> (B, num_features), the mean of the last map.

    Args:
        image_size: side in pixels, which decides whether a stage is larger than a window.
        patch_size, dim, depths, n_heads: of the paper; the width doubles from stage to stage.
        window: side of windows in tokens.
        relative: "table" with Swin's merging, or "mlp" with UM-MAE's.
        hidden: width of the "mlp".
        mask_token: have a token that replaces hidden patches (SimMIM).
    """

    num_prefix = 0

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 4,
        dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        n_heads: tuple[int, ...] = (3, 6, 12, 24),
        window: int = 7,
        *,
        relative: Relative = "table",
        hidden: int = 32,
        mask_token: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(patch_size, 3, dim)
        self.patch_norm = nn.LayerNorm(dim, eps=eps)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim)) if mask_token else None
        self.relative, self.num_features = relative, dim * 2 ** (len(depths) - 1)
        self.stride = patch_size * 2 ** (len(depths) - 1)
        blocks: list[nn.Module] = []
        for stage, (depth, heads) in enumerate(zip(depths, n_heads, strict=True)):
            width, last = dim * 2**stage, stage == len(depths) - 1
            side = min(window, image_size // patch_size // 2**stage)
            for i in range(depth):
                merge: nn.Module | None = None
                if i == depth - 1 and not last:
                    merge = (LinearMerge if relative == "table" else ConvMerge)(width, 2 * width, eps)
                blocks.append(
                    SwinBlock(width, heads, side, side // 2 * (i % 2), relative, hidden, 2**stage, eps, merge)
                )
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(self.num_features, eps=eps)
        for parameter_name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=0.02)
            elif parameter_name.endswith("bias"):
                nn.init.zeros_(parameter)

    def embed(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> the first block's map (B, rows, columns, dim), hidden tokens of `mask` (B, N) replaced."""
        tokens = self.patch_norm(self.patch_embed(x))
        if mask is not None:
            if self.mask_token is None or mask.shape != tokens.shape[:2]:
                raise InputError(f"a Swin with a mask token takes masks {(*tokens.shape[:2],)}; got {(*mask.shape,)}.")
            tokens = torch.where(mask[..., None], self.mask_token.to(tokens.dtype), tokens)
        return tokens.unflatten(1, self.patch_embed.grid(x))

    def places(self, h: int, w: int) -> Tensor:
        """Row and column of every token of a whole image, (1, h, w, 2) int64."""
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        return torch.stack([rows, columns], dim=-1)[None].to(self.norm.weight.device)

    def run(self, tokens: Tensor, places: Tensor | None = None) -> Tensor:
        """Maps (B, h, w, dim) through all blocks and the last norm: (B, h', w', num_features).

        `places` (B or 1, h, w, 2) int64 says where in the image each token was, for relative="mlp"; None: side by side.
        """
        at, reach = None, 0
        if self.relative == "mlp":
            at, reach = coded(self.places(*tokens.shape[1:3]) if places is None else places)
        for block in self.blocks:
            tokens, at = block(tokens, at, reach)
        return self.norm(tokens)

    def forward_map(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, num_features, H / stride, W / stride)."""
        return self.run(self.embed(x, mask)).permute(0, 3, 1, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.forward_map(x, mask).mean(dim=(2, 3))


def coded(places: Tensor) -> tuple[Tensor, int]:
    """Rows and columns (..., 2) int64 as one number each, (...), and the farthest `reach` of them.

    row * (2 reach + 1) + column: the difference of two codes tells both differences.
    """
    reach = int(places.max())
    return places[..., 0] * (2 * reach + 1) + places[..., 1], reach


def to_windows(x: Tensor, side: int) -> Tensor:
    """(B, h, w, D) -> (B, W, side^2, D), windows and the tokens in them in reading order."""
    b, h, w, dim = x.shape
    x = x.reshape(b, h // side, side, w // side, side, dim).transpose(2, 3)
    return x.reshape(b, (h // side) * (w // side), side * side, dim)


def from_windows(x: Tensor, side: int, h: int, w: int) -> Tensor:
    """The inverse of `to_windows`."""
    x = x.reshape(len(x), h // side, w // side, side, side, x.shape[-1]).transpose(2, 3)
    return x.reshape(len(x), h, w, x.shape[-1])


@lru_cache(maxsize=32)
def shift_mask(h: int, w: int, side: int, shift: int) -> Tensor:
    """-inf between tokens that the shift brought into one window from opposite ends of the map, else 0: (W, N, N)."""
    part = []
    for n in (h, w):
        line = torch.zeros(n, device="cpu")  # kept for other calls, whatever device is the default in this one
        line[n - side : n - shift], line[n - shift :] = 1, 2
        part.append(line)
    regions = to_windows((3 * part[0][:, None] + part[1])[None, :, :, None], side)[0, :, :, 0]
    return torch.where(regions[:, :, None] == regions[:, None], 0.0, float("-inf"))
