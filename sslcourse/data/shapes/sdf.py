"""The ten shapes as signed distance functions, and how a distance becomes a pixel.

A signed distance function gives every point of the plane its distance to an outline: negative inside, zero on it,
positive outside. One short formula draws a shape at any size, position and angle, with clean edges and an exact mask.

Coordinates are those of the object: x to the right, y down, the shape fits the unit disc. Only additions, products,
comparisons and square roots occur, which IEEE 754 rounds the same way everywhere: that is why a scene has the same
pixels on every machine, alone or in a batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor

ROOT2 = 2.0**0.5
ROOT3 = 3.0**0.5


def disc(x: Tensor, y: Tensor, radius: float | Tensor = 0.88) -> Tensor:
    """A filled circle; the exact distance."""
    return torch.sqrt(x * x + y * y) - radius


def square(x: Tensor, y: Tensor) -> Tensor:
    """An axis-aligned square with half-side 0.74."""
    return torch.maximum(x.abs(), y.abs()) - 0.74


def triangle(x: Tensor, y: Tensor) -> Tensor:
    """An equilateral triangle that points up: the largest of its three half-plane distances."""
    return torch.maximum(y, x.abs() * (ROOT3 / 2) - y * 0.5) - 0.5


def star(x: Tensor, y: Tensor) -> Tensor:
    """A five-pointed star {5/2}: the points that at most one of the five edge lines leaves outside.

    So its distance is the second largest of the five half-plane distances.
    """
    first = x * _PENTAGON[0][0] + y * _PENTAGON[0][1]
    second = torch.full_like(first, -1e4)
    for nx, ny in _PENTAGON[1:]:
        d = x * nx + y * ny
        second = torch.maximum(second, torch.minimum(first, d))
        first = torch.maximum(first, d)
    return second - 0.33


def cross(x: Tensor, y: Tensor) -> Tensor:
    """A plus sign: the union of two bars."""
    ax, ay = x.abs(), y.abs()
    return torch.maximum(torch.minimum(ax, ay) - 0.29, torch.maximum(ax, ay) - 0.92)


def ring(x: Tensor, y: Tensor) -> Tensor:
    """An annulus: a circle line made thick."""
    return (torch.sqrt(x * x + y * y) - 0.64).abs() - 0.27


def moon(x: Tensor, y: Tensor) -> Tensor:
    """A crescent: a disc with a second disc bitten off its right side."""
    bite = x - 0.52
    return torch.maximum(disc(x, y, 0.92), 0.72 - torch.sqrt(bite * bite + y * y))


def heart(x: Tensor, y: Tensor) -> Tensor:
    """A square on its corner with a half disc on each of its two upper sides."""
    ax, low = x.abs(), y - 0.12
    side = 0.52
    corner = torch.maximum((ax + low).abs(), (ax - low).abs()) * (1 / ROOT2) - side
    cx, cy = ax - side / ROOT2, low + side / ROOT2
    return torch.minimum(corner, torch.sqrt(cx * cx + cy * cy) - side)


def arrow(x: Tensor, y: Tensor) -> Tensor:
    """An arrow that points up: a triangular head on a shaft."""
    ax = x.abs()
    head = torch.maximum((ax - y) * (1 / ROOT2) - 0.92 / ROOT2, y - 0.0)
    shaft = torch.maximum(ax - 0.27, (y - 0.42).abs() - 0.46)
    return torch.minimum(head, shaft)


def bowtie(x: Tensor, y: Tensor) -> Tensor:
    """Two triangles, tip to tip, joined by a narrow knot."""
    ax, ay = x.abs(), y.abs()
    return torch.maximum((ay - ax * 0.75) * 0.8 - 0.1, ax - 0.82)


# Outward normals of the pentagon inside the star; the first tip points up (y is down), so one edge line faces up.
_PENTAGON = [
    (0.0, -1.0),
    (0.9510565162951535, -0.30901699437494745),
    (0.5877852522924731, 0.8090169943749475),
    (-0.5877852522924731, 0.8090169943749475),
    (-0.9510565162951535, -0.30901699437494745),
]

SHAPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "disc": disc,
    "square": square,
    "triangle": triangle,
    "star": star,
    "cross": cross,
    "ring": ring,
    "moon": moon,
    "heart": heart,
    "arrow": arrow,
    "bowtie": bowtie,
}
CLASSES: list[str] = list(SHAPES)

# Where each shape wears its emblem: the centre (x, y) and the radius of a disc that fits inside the shape there.
# Never in the middle, so that every shape, even a disc, shows which way it is turned.
EMBLEM: dict[str, tuple[float, float, float]] = {
    "disc": (0.0, -0.36, 0.34),
    "square": (0.0, -0.32, 0.34),
    "triangle": (0.0, 0.06, 0.34),
    "star": (0.0, -0.12, 0.28),
    "cross": (0.0, -0.50, 0.27),
    "ring": (0.0, -0.64, 0.25),
    "moon": (-0.56, 0.0, 0.30),
    "heart": (-0.34, -0.26, 0.34),
    "arrow": (0.0, -0.30, 0.28),
    "bowtie": (-0.52, 0.0, 0.30),
}


def coverage(distance: Tensor, width: float = 1.5) -> Tensor:
    """Smoothstep from 1 inside to 0 outside over `width` pixels around the outline: antialiasing without supersampling.

    Args:
        distance: signed distance in pixels, any shape.

    Returns:
        The share of each pixel that the shape covers, in [0, 1]; 0.5 on the outline.
    """
    t = (0.5 - distance * (1 / width)).clamp_(0, 1)
    return t * t * (3 - 2 * t)


def wave(u: Tensor) -> Tensor:
    """A smooth wave of period 1 with values in [0, 1], made of smoothstep: 0 at whole numbers, 1 half way."""
    t = 1 - 2 * (u - u.floor() - 0.5).abs()
    return t * t * (3 - 2 * t)
