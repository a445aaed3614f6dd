"""The small transformer that turns encoded visible tokens into pixels of all patches (MAE, He et al. 2021)."""

from typing import Any

import torch
from torch import Tensor, nn

from sslcourse.errors import InputError
from sslcourse.nn.patches import decoder_unshuffle, interpolate_pos
from sslcourse.nn.positions import sincos_positions
from sslcourse.nn.vit import Block


class TokenDecoder(nn.Module):
    """Narrow the tokens, put mask tokens in the empty places, add positions, attend, predict.

    Args:
        width: of the tokens that come in.
        out: values a token predicts.
        pos: (1, prefix + N, dim) fixed positions, those of the `prefix` (CLS) first.
        grid: (rows, columns) of the N places, or None where they are never interpolated (clips).
        prefix: tokens without a place (CLS), which come first.
        depth, n_heads: of its blocks.
        embed_bias: whether the first layer has a bias.

    Shape: (B, prefix + V, width) and ids_restore (B, N) -> (B, N, out), in reading order.

    Raises:
        InputError: fewer than 0 blocks, or heads that do not divide the width.
    """

    pos_embed: Tensor

    def __init__(
        self,
        width: int,
        out: int,
        pos: Tensor,
        grid: tuple[int, int] | None,
        *,
        depth: int,
        n_heads: int,
        prefix: int = 1,
        embed_bias: bool = True,
    ) -> None:
        super().__init__()
        dim = pos.shape[2]
        if depth < 0 or n_heads < 1 or dim % n_heads:
            raise InputError(
                f"a decoder has 0 blocks or more and a width that its heads divide; got {depth} blocks and {n_heads} "
                f"heads for a width of {dim}."
            )
        self.grid, self.prefix = grid, prefix
        self.embed = nn.Linear(width, dim, bias=embed_bias)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("pos_embed", pos)
        self.blocks = nn.ModuleList(Block(dim, n_heads, 4.0, True, None) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, out)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, ids_restore: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """`grid`: rows and columns of the image, None for those that the positions were made for."""
        tokens = decoder_unshuffle(self.embed(tokens), self.mask_token, ids_restore, prefix=self.prefix)
        return self.predict(tokens, grid)

    def predict(self, tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Tokens of this decoder's width, all in their places, (B, prefix + N, dim) -> (B, N, out)."""
        pos = self.pos_embed
        if grid is not None and self.grid is not None:
            pos = interpolate_pos(pos, *grid, grid=self.grid)
        tokens = tokens + pos
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, self.prefix :]))


def mae_decoder(config: Any, width: int, out: int, grid: tuple[int, int], *, prefix: int = 1) -> TokenDecoder:
    """A decoder with the `decoder_dim`, `decoder_depth` and `decoder_heads` of `config` and MAE's positions."""
    pos = sincos_positions(*grid, dim=config.decoder_dim, prefix=prefix)
    depth, heads = config.decoder_depth, config.decoder_heads
    return TokenDecoder(width, out, pos, grid, depth=depth, n_heads=heads, prefix=prefix)
