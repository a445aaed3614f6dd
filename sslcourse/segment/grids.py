"""Where automatic masks are asked for: regular grids of points, on the image and on crops of it.

Source: Kirillov et al. 2023, "Segment Anything", appendix B; the geometry of the crops is the official code's.
"""

from itertools import product
from math import ceil

import torch
from torch import Tensor

from sslcourse.errors import InputError


def point_grid(n: int) -> Tensor:
    """(n * n, 2) float64 x y in [0, 1]: the centres of n x n cells, x fastest."""
    if n < 1:
        raise InputError(f"a grid has at least one point a side; got {n}.")
    centres = torch.linspace(1 / (2 * n), 1 - 1 / (2 * n), n, dtype=torch.float64)
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


def layer_grids(n: int, layers: int, scale: int) -> list[Tensor]:
    """The grid of the image and of every layer of crops: layer i has n / scale^i points a side, rounded down.

    Raises:
        InputError: a layer that has no point left.
    """
    sides = [int(n / scale**i) for i in range(layers + 1)]
    if min(sides) < 1:
        raise InputError(f"{n} points a side divided by {scale} leave layer {sides.index(0)} of the crops without any.")
    return [point_grid(side) for side in sides]


def crop_boxes(size: tuple[int, int], layers: int, overlap: float = 512 / 1500) -> tuple[Tensor, Tensor]:
    """The image and overlapping crops of it: layer i has 2^i x 2^i crops of equal size.

    Args:
        size: (H, W) of the image.
        layers: layers of crops beside the image itself, which is layer 0.
        overlap: of the crops of the first layer, relative to the image's short side; each layer has half of it.

    Returns:
        boxes (K, 4) int64 x1 y1 x2 y2, cut off at the image; layers (K,) int64. Within a layer, crops one below the
        other come first.
    """
    height, width = size
    boxes, of = [(0, 0, width, height)], [0]
    for layer in range(1, layers + 1):
        n = 2**layer
        shared = int(overlap * min(height, width) * (2 / n))
        w, h = (ceil((shared * (n - 1) + side) / n) for side in (width, height))
        starts = ([int((length - shared) * k) for k in range(n)] for length in (w, h))
        for x, y in product(*starts):
            boxes.append((x, y, min(x + w, width), min(y + h, height)))
            of.append(layer)
    return torch.tensor(boxes), torch.tensor(of)
