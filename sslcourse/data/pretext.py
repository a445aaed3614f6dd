"""Puzzles that an image sets by itself: which way is up, how were the tiles shuffled, where does this patch belong.

Each function makes a batch of questions; the answers are the labels that nobody had to give.
"""

import math

import torch
from torch import Tensor

from sslcourse.errors import InputError

_POOL = 1 << 17  # permutations that are tried where there are too many to list


def rotation_batch(x: Tensor) -> tuple[Tensor, Tensor]:
    """Every image in its four orientations (RotNet, Gidaris et al. 2018, Section 3.1).

    Args:
        x: (B, C, H, W) of any dtype. Of an image that is not square its central square is turned.

    Returns:
        x4: (4B, C, S, S), S = min(H, W); block k of B images is turned by k quarter turns counter-clockwise.
        y: (4B,) int64, k.
    """
    if x.ndim != 4:
        raise InputError(f"rotation_batch needs images (B, C, H, W); got {tuple(x.shape)}.")
    side = min(x.shape[2:])
    top, left = ((length - side) // 2 for length in x.shape[2:])
    square = x[:, :, top : top + side, left : left + side]
    turned = torch.cat([square.rot90(k, dims=(2, 3)) for k in range(4)])
    return turned, torch.arange(4, device=x.device).repeat_interleave(len(x))


def jigsaw_permutations(n_perm: int, n_tiles: int = 9, seed: int = 0) -> Tensor:
    """A set of permutations that are far from each other, chosen greedily (Noroozi and Favaro 2016, Section 4.2).

    Each next one has the largest possible smallest Hamming distance to those chosen before; chance, from `seed`, picks
    the first one and among equals. Up to 9 tiles all permutations are candidates, beyond that a sample of them.

    Returns:
        (n_perm, n_tiles) int64, all different.
    """
    if not (n_tiles >= 2 and 1 <= n_perm <= math.factorial(n_tiles)):
        raise InputError(f"jigsaw_permutations cannot choose {n_perm} different permutations of {n_tiles} tiles.")
    rng = torch.Generator().manual_seed(seed)
    if n_tiles <= 9:
        pool = _all_permutations(n_tiles)
    else:
        pool = torch.rand(_POOL, n_tiles, generator=rng).argsort(dim=1).to(torch.uint8)
    pool = pool[torch.randperm(len(pool), generator=rng)]  # arg max takes the first of equals, which is now any of them
    columns = pool.T.contiguous()
    nearest = torch.full((len(pool),), n_tiles, dtype=torch.uint8)
    chosen = [0]
    while len(chosen) < n_perm:
        last = columns[:, chosen[-1]]
        distance = torch.zeros(len(pool), dtype=torch.uint8)
        for tile, column in zip(last, columns, strict=True):
            distance += column != tile
        nearest = torch.minimum(nearest, distance)
        chosen.append(int(nearest.argmax()))
    return pool[chosen].long()


def _all_permutations(n: int) -> Tensor:
    """(n!, n) uint8: every permutation of n - 1 tiles with the last tile put in at every place."""
    pool = torch.zeros(1, 1, dtype=torch.uint8)
    for last in range(1, n):
        new = torch.full((len(pool), 1), last, dtype=torch.uint8)
        pool = torch.cat([torch.cat([pool[:, :i], new, pool[:, i:]], dim=1) for i in range(last + 1)])
    return pool


def tile_and_shuffle(x: Tensor, perm: Tensor, grid: int = 3, gap: int = 0) -> Tensor:
    """Cut images into grid x grid tiles and put them in another order (Noroozi and Favaro 2016, Section 3.1).

    Args:
        x: (B, C, H, W).
        perm: (B, n) or (n,) int64, n = grid^2, tiles counted in reading order: place j of image b gets tile perm[b, j].
        grid: tiles on a side; pixels that do not fill a tile are left out at the bottom and the right.
        gap: pixels between neighbouring tiles, taken from all sides of a tile, so that edges do not continue.

    Returns:
        (B, n, C, h, w), h = H // grid - gap.
    """
    height, width = (length // grid for length in x.shape[2:])
    if x.ndim != 4 or gap < 0 or min(height, width) <= gap or perm.shape not in ((grid**2,), (len(x), grid**2)):
        raise InputError(
            f"tile_and_shuffle cannot cut {tuple(x.shape)} into {grid} x {grid} tiles with a gap of {gap} and order "
            f"them by perm {tuple(perm.shape)}."
        )
    cells = x[:, :, : grid * height, : grid * width].reshape(*x.shape[:2], grid, height, grid, width)
    cells = cells.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    before, h, w = gap // 2, height - gap, width - gap
    tiles = cells[..., before : before + h, before : before + w]
    order = perm.expand(len(x), -1).to(x.device)
    return tiles[torch.arange(len(x), device=x.device)[:, None], order]


def context_pair(
    x: Tensor, cy: Tensor | int, cx: Tensor | int, patch: int, gap: int, label: Tensor | int
) -> tuple[Tensor, Tensor]:
    """A patch and one of its eight neighbours (Doersch et al. 2015, Section 3).

    Args:
        x: (B, C, H, W).
        cy, cx: (B,) int64 or a number, centre of the first patch: it covers [cy - patch // 2, cy - patch // 2 + patch).
        patch: side in pixels.
        gap: pixels between the two patches, so that lines and textures do not continue across the border.
        label: (B,) int64 or a number, 0 .. 7, which neighbour: the eight places around the centre in reading order.

    Returns:
        p0, p1: (B, C, patch, patch), the central patch and the neighbour.

    Raises:
        InputError: a label that does not exist, or a patch that sticks out of the image.
    """
    cy, cx, label = (torch.as_tensor(v, device=x.device).expand(len(x)) for v in (cy, cx, label))
    if bool(((label < 0) | (label > 7)).any()):
        raise InputError("context_pair has labels 0 to 7, the places around the centre.")
    place = label + (label >= 4)  # in a 3 x 3 grid, place 4 is the centre itself
    step = patch + gap
    top, left = cy - patch // 2, cx - patch // 2
    return _patches(x, top, left, patch), _patches(
        x, top + (place // 3 - 1) * step, left + (place % 3 - 1) * step, patch
    )


def _patches(x: Tensor, top: Tensor, left: Tensor, patch: int) -> Tensor:
    """(B, C, patch, patch) at (B,) corners."""
    height, width = x.shape[2:]
    if bool(((top < 0) | (left < 0) | (top + patch > height) | (left + patch > width)).any()):
        raise InputError(f"context_pair: a patch of {patch} pixels sticks out of the {height} x {width} image.")
    span = torch.arange(patch, device=x.device)
    rows, columns = (top[:, None] + span)[:, None, :, None], (left[:, None] + span)[:, None, None, :]
    at = torch.arange(len(x), device=x.device)[:, None, None, None]
    return x[at, torch.arange(x.shape[1], device=x.device)[None, :, None, None], rows, columns]
