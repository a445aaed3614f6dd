r"""SAM's image encoder: a plain ViT with attention in windows, decomposed relative positions, and a convolutional neck.

Kirillov et al. 2023, "Segment Anything", section 3 and appendix A; the backbone is that of Li et al. 2022, "Exploring
Plain Vision Transformer Backbones for Object Detection". All blocks but a few attend inside windows of w x w tokens;
the rest attend globally. The logit of query (i, j) and key (m, n) is

    q.k / sqrt(d)  +  q.R_h[i - m]  +  q.R_w[j - n]

with a learned table R of 2L - 1 rows an axis. Tokens stay a map (B, H, W, C) throughout. Parameters carry the official
names, so that official checkpoints fit.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.errors import InputError


def window_partition(x: Tensor, window: int) -> tuple[Tensor, tuple[int, int]]:
    """Cut maps into windows: (B, H, W, C) -> (B * n, window, window, C), and the padded (height, width).

    Zeros are added below and on the right up to a multiple of `window`. Windows are in reading order, image by image.
    """
    b, h, w, c = x.shape
    padded = (-(-h // window) * window, -(-w // window) * window)
    x = F.pad(x, (0, 0, 0, padded[1] - w, 0, padded[0] - h))
    x = x.reshape(b, padded[0] // window, window, padded[1] // window, window, c)
    return x.transpose(2, 3).reshape(-1, window, window, c), padded


def window_unpartition(windows: Tensor, padded: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The inverse of `window_partition`: -> (B, H, W, C) of `size`, the padding removed."""
    window, c = windows.shape[1], windows.shape[-1]
    x = windows.reshape(-1, padded[0] // window, padded[1] // window, window, window, c)
    return x.transpose(2, 3).reshape(-1, *padded, c)[:, : size[0], : size[1]]


def relative_positions(table: Tensor, n_queries: int, n_keys: int) -> Tensor:
    """The row of the table for every query and key of one axis: (L, d) -> (n_queries, n_keys, d).

    Row r of the table belongs to the offset query - key = r - (L - 1) / 2. A table for another length is interpolated
    linearly to 2 max(n_queries, n_keys) - 1 rows. Where the two lengths differ, the shorter axis is stretched onto the
    longer one, and a fractional offset is rounded down (as in the official code).
    """
    longest = max(n_queries, n_keys)
    if len(table) != 2 * longest - 1:
        table = F.interpolate(table.T[None], size=2 * longest - 1, mode="linear")[0].T
    queries = torch.arange(n_queries, device=table.device)[:, None] * max(n_keys / n_queries, 1.0)
    keys = torch.arange(n_keys, device=table.device)[None] * max(n_queries / n_keys, 1.0)
    offset = queries - keys + (n_keys - 1) * max(n_queries / n_keys, 1.0)
    return table[offset.long()]


def decomposed_bias(
    q: Tensor, table_h: Tensor, table_w: Tensor, q_size: tuple[int, int], k_size: tuple[int, int]
) -> Tensor:
    """q.R_h + q.R_w, what relative positions add to the attention logits.

    Args:
        q: (B, qh * qw, d) queries, not divided by sqrt(d).
        table_h, table_w: (L, d) tables of the two axes.
        q_size, k_size: (height, width) of the maps of queries and keys.

    Returns:
        (B, qh * qw, kh * kw).
    """
    (qh, qw), (kh, kw) = q_size, k_size
    grid = q.reshape(len(q), qh, qw, -1)
    along_h = torch.einsum("bijd,imd->bijm", grid, relative_positions(table_h, qh, kh))
    along_w = torch.einsum("bijd,jnd->bijn", grid, relative_positions(table_w, qw, kw))
    return (along_h[..., :, None] + along_w[..., None, :]).reshape(len(q), qh * qw, kh * kw)


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of a map (B, C, H, W), at every place."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class WindowAttention(nn.Module):
    """Multi-head self-attention with decomposed relative positions on maps of any size: (B, H, W, dim) -> the same.

    `table_size` is the (height, width) that the tables are stored for; others are interpolated.
    """

    def __init__(self, dim: int, n_heads: int, table_size: tuple[int, int]) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * table_size[0] - 1, dim // n_heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * table_size[1] - 1, dim // n_heads))

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, h * w, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        bias = decomposed_bias(q.flatten(0, 1), self.rel_pos_h, self.rel_pos_w, (h, w), (h, w))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.view(b, self.n_heads, h * w, h * w))
        return self.proj(out.transpose(1, 2).reshape(b, h, w, -1))


class MLPBlock(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, dim: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.lin1, self.lin2, self.activation = nn.Linear(dim, hidden), nn.Linear(hidden, dim), activation

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.activation(self.lin1(x)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), on maps; `window` 0 is global attention.

    The padding of windows comes after the norm: padded tokens are zeros, their keys and values the biases, and real
    tokens do attend to them.
    """

    def __init__(self, dim: int, n_heads: int, mlp_ratio: float, window: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.window = window
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = WindowAttention(dim, n_heads, (window, window) if window else grid)
        self.mlp = MLPBlock(dim, int(dim * mlp_ratio), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        if self.window:
            windows, padded = window_partition(y, self.window)
            y = window_unpartition(self.attn(windows), padded, (x.shape[1], x.shape[2]))
        else:
            y = self.attn(y)
        x = x + y
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """A linear layer on every patch, written as a convolution: (B, 3, H, W) -> (B, H/p, W/p, dim)."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


def neck(dim: int, out_channels: int) -> nn.Sequential:
    """1 x 1 and 3 x 3 convolutions, each with a norm: (B, dim, H, W) -> (B, out_channels, H, W)."""
    return nn.Sequential(
        nn.Conv2d(dim, out_channels, 1, bias=False),
        LayerNorm2d(out_channels),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        LayerNorm2d(out_channels),
    )


class ImageEncoder(nn.Module):
    """SAM's encoder: (B, 3, S, S) standardised and padded -> (B, out_channels, S/p, S/p).

    Args:
        image_size: side S of the square input in pixels, a multiple of `patch_size`; no other size goes in.
        patch_size, dim, depth, n_heads, mlp_ratio: of the ViT.
        window: side of a window in tokens.
        global_blocks: indices of the blocks that attend globally.
        out_channels: width of the neck's output, the width of the prompts.

    `forward_features` also gives what HQ-SAM fuses: the map behind the first global block, (B, S/p, S/p, dim).
    """

    def __init__(
        self,
        image_size: int = 1024,
        patch_size: int = 16,
        dim: int = 768,
        depth: int = 12,
        n_heads: int = 12,
        mlp_ratio: float = 4.0,
        window: int = 14,
        global_blocks: Sequence[int] = (2, 5, 8, 11),
        out_channels: int = 256,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise InputError(f"ImageEncoder needs an image_size that is a multiple of {patch_size}; got {image_size}.")
        self.image_size, self.grid = image_size, image_size // patch_size
        self.early_channels = dim
        grid = (self.grid, self.grid)
        self.patch_embed = PatchEmbed(patch_size, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, *grid, dim))
        self.blocks = nn.ModuleList(
            Block(dim, n_heads, mlp_ratio, 0 if i in global_blocks else window, grid) for i in range(depth)
        )
        self.neck = neck(dim, out_channels)
        self.first_global = min(global_blocks, default=depth - 1)

    def forward_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The embedding (B, out_channels, g, g) and the early map (B, g, g, dim) behind the first global block."""
        if x.shape[-2:] != (self.image_size, self.image_size):
            size = self.image_size
            raise InputError(f"this encoder takes images of {size} x {size} px; got {x.shape[-2]} x {x.shape[-1]}.")
        x = self.patch_embed(x) + self.pos_embed
        early = x
        for i, block in enumerate(self.blocks):
            x = block(x)
            early = x if i == self.first_global else early
        return self.neck(x.permute(0, 3, 1, 2)), early

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_features(x)[0]
