"""Relative positions: a learned number for every pair of places, added to the attention before its softmax.

BEiT (Bao et al. 2021, appendix), after Swin (Liu et al. 2021, equation 4).
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from sslcourse.errors import InputError


class RelativePositionBias(nn.Module):
    """The bias of a grid of h x w tokens, with or without tokens that have no place (CLS).

    Args:
        grid: (h, w) that the table is stored for; for other grids it is interpolated.
        n_heads: attention heads, each with its own numbers.
        prefix: leading tokens without a place; they share three numbers a head: from them to a patch, from a patch to
            them, among them.

    Attributes:
        table: ((2h - 1)(2w - 1), n_heads), with a prefix three rows more.

    Shape: forward (h, w) -> (n_heads, prefix + h*w, prefix + h*w), rows are queries.
    """

    def __init__(self, grid: tuple[int, int], n_heads: int, *, prefix: int = 0) -> None:
        super().__init__()
        self.grid, self.prefix = grid, prefix
        rows = (2 * grid[0] - 1) * (2 * grid[1] - 1) + (3 if prefix else 0)
        self.table = nn.Parameter(torch.zeros(rows, n_heads))
        self.index: Tensor
        self.register_buffer("index", relative_index(*grid, prefix=prefix), persistent=False)

    def forward(self, grid: tuple[int, int] | None = None) -> Tensor:
        if grid is None or grid == self.grid:
            return relative_bias(self.table, self.index)
        index = relative_index(*grid, prefix=self.prefix).to(self.table.device)
        return relative_bias(resize_relative(self.table, self.grid, grid), index)


def relative_bias(table: Tensor, index: Tensor) -> Tensor:
    """(rows, n_heads) and (T, T) int64 -> (n_heads, T, T)."""
    return table[index].permute(2, 0, 1)


def relative_index(h: int, w: int, *, prefix: int = 0) -> Tensor:
    """Which row of the table belongs to (query, key): (T, T) int64, T = prefix + h * w.

    Patches at (yq, xq) and (yk, xk): (yq - yk + h - 1)(2w - 1) + xq - xk + w - 1. The last three rows: from a prefix
    token to a patch, from a patch to a prefix token, among prefix tokens.
    """
    y, x = (c.flatten() for c in torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"))
    between = (y[:, None] - y + h - 1) * (2 * w - 1) + x[:, None] - x + w - 1
    if not prefix:
        return between
    rows = (2 * h - 1) * (2 * w - 1)
    index = torch.full((prefix + h * w, prefix + h * w), rows + 2)
    index[:prefix, prefix:], index[prefix:, :prefix], index[prefix:, prefix:] = rows, rows + 1, between
    return index


def resize_relative(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Interpolate the table of one grid to another grid, along each axis by itself; rows without a place stay.

    Near places matter most, so the old distances 0, 1, 2, ... are spread over the new ones as a geometric series
    0, 1, 1 + q, 1 + q + q^2, ...: neighbours stay neighbours, far places move apart. Between them runs a bicubic spline
    (the fine-tuning codes of BEiT and SimMIM).

    Args:
        table: ((2h - 1)(2w - 1) + extra, n_heads) of the grid `old` = (h, w).
    """
    sizes = [2 * side - 1 for side in old]
    extra = len(table) - sizes[0] * sizes[1]
    if extra < 0:
        raise InputError(f"a table of {len(table)} rows is too small for a grid of {old[0]} x {old[1]} places.")
    if old == new:
        return table
    places, rest = table[: len(table) - extra], table[len(table) - extra :]
    rows, columns = (_spline(a, b).to(table.device) for a, b in zip(old, new, strict=True))
    image = places.double().view(*sizes, -1)
    image = torch.einsum("ih,hwc,jw->ijc", rows, image, columns).flatten(0, 1)
    return torch.cat([image.to(table.dtype), rest])


@lru_cache(maxsize=64)
def _spline(old: int, new: int) -> Tensor:
    """The linear map (2 new - 1, 2 old - 1) that interpolates values at the old distances at the new ones."""
    exact: Any = {"dtype": torch.float64, "device": "cpu"}  # kept for other calls, whatever the default device is
    if old == 1:
        return torch.ones(2 * new - 1, 1, **exact)
    distances = torch.cumsum(_ratio(old, new) ** torch.arange(old - 1, **exact), dim=0)
    places = torch.cat([-distances.flip(0), distances.new_zeros(1), distances])
    wanted = torch.arange(1.0 - new, new, **exact).clamp(float(places[0]), float(places[-1]))
    return cubic_spline(places, wanted)


def cubic_spline(places: Tensor, wanted: Tensor) -> Tensor:
    """The matrix (M, N) that takes values at N rising `places` to those of a cubic spline through them at M others.

    The spline has one cubic on the first two intervals and one on the last two ("not a knot", what FITPACK and scipy
    do; de Boor 1978, chapter IV). Through 3 places or fewer it runs straight from each to the next.
    """
    n = len(places)
    step = places.diff()
    curve = places.new_zeros(n, n)  # second derivatives at the places, as a map of the values there
    if n > 3:
        inner = torch.arange(1, n - 1, device=places.device)
        system, slopes = places.new_zeros(n, n), places.new_zeros(n, n)
        system[inner, inner - 1], system[inner, inner + 1] = step[:-1], step[1:]
        system[inner, inner] = 2 * (step[:-1] + step[1:])
        slopes[inner, inner - 1], slopes[inner, inner + 1] = 6 / step[:-1], 6 / step[1:]
        slopes[inner, inner] = -6 / step[:-1] - 6 / step[1:]
        system[0, :3] = torch.stack([step[1], -step[0] - step[1], step[0]])
        system[-1, -3:] = torch.stack([step[-1], -step[-2] - step[-1], step[-2]])
        curve = torch.linalg.solve(system, slopes)
    left = (torch.searchsorted(places, wanted, right=True) - 1).clamp(0, n - 2)
    h = step[left]
    right_share = (wanted - places[left]) / h
    left_share = 1 - right_share
    eye = torch.eye(n, dtype=places.dtype, device=places.device)
    bend_left, bend_right = ((s**3 - s) * h**2 / 6 for s in (left_share, right_share))
    straight = left_share[:, None] * eye[left] + right_share[:, None] * eye[left + 1]
    return straight + bend_left[:, None] * curve[left] + bend_right[:, None] * curve[left + 1]


def _ratio(old: int, new: int) -> float:
    """q in [1.01, 1.5] such that 1 + q + ... + q^(old - 2), the largest old distance, is about new - 1."""
    low, high, q = 1.01, 1.5, 1.0
    while high - low > 1e-6:
        q = (low + high) / 2
        if (q ** (old - 1) - 1) / (q - 1) > new - 1:
            high = q
        else:
            low = q
    return q
