"""Position embeddings that are computed, not learned."""

from typing import Any, Literal

import torch
from torch import Tensor

from sslcourse.errors import InputError


def sincos_2d(h: int, w: int, dim: int, *, first: Literal["row", "column"] = "column") -> Tensor:
    """Sines and cosines of the row and of the column of every patch (Vaswani et al. 2017, Section 3.5, twice).

    Half of the values tell the row, half the column, each as [sin(t / 10000^(4j/dim)), cos(...)] for j < dim / 4.

    Args:
        h, w: rows and columns of patches.
        dim: width, a multiple of 4.
        first: which of the two takes the first half: "column" is MAE's order, "row" MoCo v3's.

    Returns:
        (h * w, dim) float32, patches in reading order.
    """
    if dim % 4 or min(h, w, dim) < 1:
        raise InputError(f"sincos_2d needs a grid and a width that is a multiple of 4; got {h} x {w} and {dim}.")
    omega = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    halves = []
    for place in (row, column) if first == "row" else (column, row):
        angle = place.flatten()[:, None] * omega
        halves += [angle.sin(), angle.cos()]
    return torch.cat(halves, dim=1).float()


def sincos_positions(h: int, w: int, dim: int, prefix: int = 1) -> Tensor:
    """`sincos_2d` after zeros for `prefix` tokens without a place, (1, prefix + h * w, dim): MAE's positions."""
    return torch.cat([torch.zeros(prefix, dim), sincos_2d(h, w, dim)])[None]


def fix_positions(vit: Any) -> Any:
    """Give a ViT positions by sine and cosine that are not trained (MAE, appendix A.1), and return it."""
    h, w = vit.grid_size
    positions = sincos_positions(h, w, vit.num_features, int(vit.pos_for_class))
    vit.pos_embed.requires_grad_(False).copy_(positions)
    return vit


def sinusoid(n: int, dim: int) -> Tensor:
    """Sines (even columns) and cosines (odd) of the places 0 .. n-1, (n, dim): Vaswani et al. 2017, section 3.5."""
    if dim % 2 or min(n, dim) < 1:
        raise InputError(f"sinusoid needs places and an even width; got {n} and {dim}.")
    angle = torch.arange(n)[:, None] / 10000.0 ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()
