"""From scene parameters to pixels: the painter's algorithm on a batch, far objects first.

Every operation on pixels is one elementwise IEEE operation (no fused or matrix products), so a scene has the same
bits whatever stands beside it in the batch. Edges are antialiased by a smoothstep of the distance, so nothing is
drawn twice and shrunk.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslcourse.data.shapes.sample import EMBLEM_TABLE, Ints, Parameters, tensor
from sslcourse.data.shapes.sdf import CLASSES, SHAPES, coverage, wave
from sslcourse.data.shapes.settings import BACKGROUNDS, DOMAINS, TEXTURES
from sslcourse.data.shapes.words import word_label

CHUNK_PIXELS = 1 << 18  # pixels drawn at a time: a plane of 1 MB stays in the cache
SKETCH = DOMAINS.index("sketch")
INVERTED = DOMAINS.index("inverted")


@dataclass
class Drawing:
    """B scenes: image (B, 3, S, S) uint8; parts (B, K, 3, S, S) float, what shows of whole, emblem and dot; area (B, K)
    int64, pixels of the whole with nothing in front. The last two are empty where no mattes were asked for."""

    image: Tensor
    parts: Tensor
    area: Tensor

    def masks(self) -> Tensor:
        """(B, K, 3, S, S) bool: pixels of which a part gives more than half the colour, so no two objects overlap."""
        return self.parts > 0.5


def render(p: Parameters, size: int, device: torch.device | str = "cpu", mattes: bool = True) -> Drawing:
    """Draw scenes at size x size pixels; `mattes=False` skips the labels, for those who only want images."""
    step = max(1, CHUNK_PIXELS // (size * size))
    chunks = [_render(p.at(np.arange(i, min(i + step, len(p)))), size, device, mattes) for i in range(0, len(p), step)]
    image, parts, area = (torch.cat(part) for part in zip(*((c.image, c.parts, c.area) for c in chunks), strict=True))
    return Drawing(image, parts, area)


def _render(p: Parameters, size: int, device: torch.device | str, mattes: bool) -> Drawing:
    axis = (torch.arange(size, dtype=torch.float32, device=device) * 2 + 1) * (1 / size) - 1
    x, y = axis[None, None, :], axis[None, :, None]
    b, k = p.kind.shape
    canvas = _ground(p, x, y)
    drawing = Drawing(
        canvas,
        torch.zeros(b, k if mattes else 0, 3, size, size, device=device),
        torch.zeros(b, k if mattes else 0, dtype=torch.int64, device=device),
    )
    for far in reversed(range(k)):
        rows = np.flatnonzero(p.count > far)
        if len(rows) == b:
            _paint_object(drawing, p, far, x, y)
        elif len(rows):
            at = torch.from_numpy(rows).to(device)
            some = Drawing(canvas[at], drawing.parts[at], drawing.area[at])
            _paint_object(some, p.at(rows), far, x, y)
            canvas[at], drawing.parts[at], drawing.area[at] = some.image, some.parts, some.area
    canvas *= _light(p, x, y)[:, None]
    rows = np.flatnonzero(p.word >= 0)
    if len(rows):
        at = torch.from_numpy(rows).to(device)
        ink, paper = word_label(p.word[rows], p.word_y[rows], size, device)
        canvas[at] = (canvas[at] * (1 - paper)[:, None]) + (paper - ink)[:, None]
        drawing.parts[at] *= (1 - paper)[:, None, None]
    negative = _column(p.domain == INVERTED, device)[:, None]
    canvas = torch.where(negative > 0, 1 - canvas, canvas)
    drawing.image = (canvas * 255 + 0.5).clamp_(0, 255).to(torch.uint8)
    return drawing


def _column(values: np.ndarray, device: torch.device | str) -> Tensor:
    """(B,) numbers as (B, 1, 1), to meet planes (B, H, W)."""
    return tensor(values, device)[:, None, None]


def _over(below: Tensor, above: Tensor, alpha: Tensor) -> Tensor:
    """The over operator (Porter & Duff 1984) for an opaque ground: below + alpha (above - below)."""
    return below + (above - below) * alpha


def _ground(p: Parameters, x: Tensor, y: Tensor) -> Tensor:
    """The background (B, 3, S, S): two colours mixed by plain, gradient, stripes, checks or clouds."""
    waves = tensor(p.ground_waves, x.device)
    u = [x * waves[:, i, 0, None, None] + y * waves[:, i, 1, None, None] + waves[:, i, 2, None, None] for i in range(3)]
    kind = _column(p.background, x.device)
    mix = torch.zeros_like(u[0])
    for index, name in enumerate(BACKGROUNDS):
        if name == "plain" or not (p.background == index).any():
            continue
        if name == "gradient":
            plane = (x * waves[:, 0, 0, None, None] + y * waves[:, 0, 1, None, None]) * 0.25 + 0.5
        elif name == "stripes":
            plane = wave(u[0])
        elif name == "checks":
            a, b = wave(u[0]), wave(u[1])
            plane = a + b - 2 * a * b
        else:
            plane = (wave(u[0]) + wave(u[1]) + wave(u[2])) * (1 / 3)
        mix = torch.where(kind == index, plane, mix)
    colours = tensor(p.ground, x.device)[..., None, None]
    return _over(colours[:, 0], colours[:, 1], mix.clamp_(0, 1)[:, None])


def _light(p: Parameters, x: Tensor, y: Tensor) -> Tensor:
    """Brightness (B, S, S) that falls across the image from one side; a sketch has none."""
    slope = p.light * (p.domain != SKETCH)[:, None]
    across = x * _column(slope[:, 0], x.device) + y * _column(slope[:, 1], x.device)
    return 1 - _column(np.abs(slope).sum(1), x.device) * 0.5 + across * 0.5


def _paint_object(drawing: Drawing, p: Parameters, k: int, x: Tensor, y: Tensor) -> None:
    """Paint object k of every scene onto the image, in place, and its mattes over those of the objects behind it."""
    canvas, parts = drawing.image, drawing.parts
    device, scale = canvas.device, canvas.shape[-1] / 2
    radius, cos, sin = p.radius[:, k], np.cos(p.angle[:, k]), np.sin(p.angle[:, k])
    dx, dy = x - _column(p.x[:, k], device), y - _column(p.y[:, k], device)
    c, s = _column(cos / radius, device), _column(sin / radius, device)
    u, v = dx * c + dy * s, dy * c - dx * s
    pixels = _column(radius * scale, device)
    body = _distance(u, v, p.kind[:, k]) * pixels
    cover = coverage(body)

    ex, ey, er = (EMBLEM_TABLE[p.kind[:, k], i] for i in range(3))
    eu, ev = u - _column(ex, device), v - _column(ey, device)
    centre = torch.sqrt(eu * eu + ev * ev) * pixels
    # Never so small that a 32 px image loses them.
    emblem_radius = np.maximum(er * radius * scale * 0.85, 2.0)
    dot_radius = np.maximum(emblem_radius * 0.42, 1.0)
    worn = cover * _column(p.emblem, device)
    emblem = coverage(centre - _column(emblem_radius, device)) * worn
    dot = coverage(centre - _column(dot_radius, device)) * worn

    paint = tensor(p.paint[:, k], device)[..., None, None]
    colour = _over(paint[:, 0], paint[:, 1], _texture(p, k, u, v)[:, None])
    sketch = p.domain == SKETCH
    if sketch.any():
        rim = (centre - _column(emblem_radius, device)).abs() + _column(1e3 * (1 - p.emblem), device)
        outline = coverage(torch.minimum(body.abs(), rim) - 0.6)
        colour = _over(colour, torch.full_like(colour, 0.15), (outline * _column(sketch, device))[:, None])
    colour = _over(colour, paint[:, 2], (emblem * _column(~sketch, device))[:, None])
    colour = _over(colour, paint[:, 3], dot[:, None])
    if not sketch.all():
        # A soft round shadow lifts the object off its ground.
        shadow = coverage(torch.sqrt(u * u + v * v) - 0.85, 0.9) * _column(np.where(sketch, 0, 0.25), device)
        canvas *= (1 - shadow)[:, None]
    canvas.copy_(_over(canvas, colour, cover[:, None]))
    if parts.shape[1]:
        parts[:, k + 1 :] *= (1 - cover)[:, None, None]
        parts[:, k, 0], parts[:, k, 1], parts[:, k, 2] = cover, emblem, dot
        drawing.area[:, k] = (cover > 0.5).sum((1, 2))


def _distance(u: Tensor, v: Tensor, kind: Ints) -> Tensor:
    """Signed distances (B, S, S) in object radii; each class draws its own scenes only."""
    present = np.unique(kind)
    if len(present) == 1:
        return SHAPES[CLASSES[present[0]]](u, v)
    out = torch.empty_like(u)
    for c in present:
        at = torch.from_numpy(np.flatnonzero(kind == c)).to(u.device)
        out[at] = SHAPES[CLASSES[c]](u[at], v[at])
    return out


def _texture(p: Parameters, k: int, u: Tensor, v: Tensor) -> Tensor:
    """How much of the texture's colour shows (B, S, S), in the object's own coordinates."""
    kinds = p.texture[:, k]
    kind, frequency, phase = (_column(a, u.device) for a in (kinds, p.frequency[:, k], p.phase[:, k]))
    mix = torch.zeros_like(u)
    if (kinds > 0).any():
        a, b = wave((u + v) * frequency + phase), wave((u - v) * frequency + phase)
        for index, name in enumerate(TEXTURES):
            if name == "plain" or not (kinds == index).any():
                continue
            plane = a if name == "stripes" else a + b - 2 * a * b if name == "checks" else a * b
            mix = torch.where(kind == index, plane, mix)
    return mix
