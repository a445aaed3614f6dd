"""The pyramid Vision Transformer: queries from all tokens, keys and values from a map that was shrunk.

Wang et al. 2021, "Pyramid vision transformer"; shrinking by mean pooling as in PVT v2 and in UM-MAE's code (Li et al.
2022), which the parameter names follow.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.nn.patches import interpolate_pos
from sslcourse.nn.positions import sincos_positions
from sslcourse.nn.swin import ConvMerge
from sslcourse.nn.vit import Mlp, PatchEmbed


class PooledAttention(nn.Module):
    """Attention of maps (B, h, w, dim) to the means of their `pool` x `pool` blocks: O(N^2 / pool^2)."""

    def __init__(self, dim: int, n_heads: int, pool: int) -> None:
        super().__init__()
        self.n_heads, self.pool = n_heads, pool
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.sr, self.norm = nn.Conv2d(dim, dim, 1), nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, dim = x.shape
        small = self.sr(F.avg_pool2d(x.permute(0, 3, 1, 2), self.pool)).flatten(2).transpose(1, 2)
        q = self.q(x).reshape(b, h * w, self.n_heads, -1).transpose(1, 2)
        k, v = self.kv(self.norm(small)).reshape(b, small.shape[1], 2, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h, w, dim))


class PVTBlock(nn.Module):
    """A block on maps (B, h, w, dim), then maybe `merge`, which halves the map."""

    def __init__(self, dim: int, n_heads: int, pool: int, mlp_ratio: float, merge: nn.Module | None) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = PooledAttention(dim, n_heads, pool)
        self.mlp, self.merge = Mlp(dim, int(dim * mlp_ratio)), merge

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x if self.merge is None else self.merge(x)


class PVT(nn.Module):
    """A pyramid ViT without classifier: (B, 3, H, W) float -> (B, num_features), the mean of the last map.

    Args:
        image_size: side in pixels that positions are made for; others are interpolated.
        dims, depths, n_heads, mlp_ratios: of each stage.
        pools: by how much a stage shrinks its keys and values.
        mask_token: have a token that replaces hidden patches (SimMIM).
    """

    num_prefix = 0
    pos_embed: Tensor

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 4,
        dims: tuple[int, ...] = (64, 128, 320, 512),
        depths: tuple[int, ...] = (3, 4, 6, 3),
        n_heads: tuple[int, ...] = (1, 2, 5, 8),
        mlp_ratios: tuple[float, ...] = (8, 8, 4, 4),
        pools: tuple[int, ...] = (4, 2, 1, 1),
        *,
        mask_token: bool = False,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(patch_size, 3, dims[0])
        self.grid_size = self.patch_embed.grid(torch.empty(1, 3, image_size, image_size, device="meta"))
        self.register_buffer("pos_embed", sincos_positions(*self.grid_size, dim=dims[0], prefix=0))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dims[0])) if mask_token else None
        self.num_features, self.stride = dims[-1], patch_size * 2 ** (len(dims) - 1)
        blocks = []
        for stage, depth in enumerate(depths):
            for i in range(depth):
                ends = i == depth - 1 and stage < len(dims) - 1
                merge = ConvMerge(dims[stage], dims[stage + 1], 1e-6, norm=False) if ends else None
                blocks.append(PVTBlock(dims[stage], n_heads[stage], pools[stage], mlp_ratios[stage], merge))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dims[-1], eps=1e-6)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def patch_norm(self, tokens: Tensor) -> Tensor:
        """Tokens enter the first block as they are; a Swin normalises them."""
        return tokens

    def embed(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, rows, columns, dim) without positions, hidden tokens of `mask` (B, N) replaced."""
        tokens = self.patch_embed(x)
        if mask is not None and self.mask_token is not None:
            tokens = torch.where(mask[..., None], self.mask_token.to(tokens.dtype), tokens)
        return tokens.unflatten(1, self.patch_embed.grid(x))

    def places(self, h: int, w: int) -> Tensor:
        """The position embedding of every token of a whole image, (1, h, w, dim)."""
        return interpolate_pos(self.pos_embed, h, w, grid=self.grid_size).unflatten(1, (h, w))

    def run(self, tokens: Tensor, places: Tensor | None = None) -> Tensor:
        """Maps (B, h, w, dim) through all blocks and the last norm; `places` like `self.places`, of these tokens."""
        tokens = tokens + (self.places(*tokens.shape[1:3]) if places is None else places)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def forward_map(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, num_features, H / stride, W / stride)."""
        return self.run(self.embed(x, mask)).permute(0, 3, 1, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.forward_map(x, mask).mean(dim=(2, 3))
