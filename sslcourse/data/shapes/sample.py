"""From scene numbers to scene parameters: what is where, in which colours. A few numbers a scene, drawn on the CPU."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sslcourse.data.shapes.counter import Counter
from sslcourse.data.shapes.sdf import CLASSES, EMBLEM
from sslcourse.data.shapes.settings import BACKGROUNDS, COLOURS, DOMAINS, TEXTURES, Settings

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_HUES = np.array(list(COLOURS.values()))


@dataclass
class Parameters:
    """All that a renderer needs to know. (B, K) for objects, nearest first; (B,) for scenes; colours end in 3 (RGB)."""

    count: Ints  # (B,) objects present
    kind: Ints  # (B, K) index into CLASSES
    x: Floats  # (B, K) centre, in half image sides from the middle of the image, to the right
    y: Floats  # (B, K) downwards
    radius: Floats  # (B, K) in half image sides
    angle: Floats  # (B, K) radians, clockwise on the screen
    colour: Ints  # (B, K) index into COLOURS
    texture: Ints  # (B, K) index into TEXTURES
    frequency: Floats  # (B, K) texture periods a radius
    phase: Floats  # (B, K)
    paint: Floats  # (B, K, 4, 3) RGB of body, texture, emblem, dot
    background: Ints  # (B,) index into BACKGROUNDS
    ground_colour: Ints  # (B,) index into COLOURS
    ground: Floats  # (B, 2, 3) the two colours of the background
    ground_waves: Floats  # (B, 3, 3) three plane waves: frequency along x, along y, phase
    light: Floats  # (B, 2) slope of the brightness along x and y
    domain: Ints  # (B,) index into DOMAINS
    emblem: Floats  # (B,) 1 where objects wear it, else 0
    word: Ints  # (B,) index into CLASSES, -1 for none
    word_y: Floats  # (B,) height of the word's label
    phrasing: Floats  # (B,) in [0, 1), how the caption is put

    def __len__(self) -> int:
        return len(self.count)

    def at(self, index: NDArray[np.int64]) -> "Parameters":
        """The parameters of some of the scenes."""
        return Parameters(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


def sample(s: Settings, seed: int, scenes: NDArray[np.int64]) -> Parameters:
    """The parameters of the scenes with these numbers: the same for ever, in any order and company."""
    draw = Counter(seed, scenes)
    n, k = len(scenes), s.objects[1]
    kind = _classes(s, seed, scenes, k)
    count = s.objects[0] + draw.choice("count", k - s.objects[0] + 1)
    x, y = _places(s, draw, count, k)
    angle = np.deg2rad(draw.between("angle", -s.rotation, s.rotation, k))
    if s.quarter_turns:
        angle = angle + draw.choice("quarter turns", 4, k) * (np.pi / 2)
    colour = _names(draw, "colour", s.colours, list(COLOURS), k)
    tied = draw.uniform("colour tied") < s.colour_correlation
    colour[tied, 0] = kind[tied, 0]
    background = _names(draw, "background", s.backgrounds, BACKGROUNDS)
    ground_colour = _names(draw, "ground colour", s.colours, list(COLOURS))
    tied = draw.uniform("background tied") < s.background_correlation
    background[tied] = kind[tied, 0] % len(BACKGROUNDS)
    ground_colour[tied] = kind[tied, 0]
    domain = _names(draw, "domain", s.domains, DOMAINS)
    paint, ground = _paints(s, draw, colour, ground_colour, domain)
    slope, turn = draw.between("light", 0, s.light), draw.between("light from", 0, 2 * np.pi)
    return Parameters(
        count=count,
        kind=kind,
        x=x,
        y=y,
        radius=draw.between("radius", *s.radius, k),
        angle=angle,
        colour=colour,
        texture=_names(draw, "texture", s.textures, TEXTURES, k),
        frequency=draw.between("texture frequency", 1.6, 2.6, k),
        phase=draw.uniform("texture phase", k),
        paint=paint,
        background=background,
        ground_colour=ground_colour,
        ground=ground,
        ground_waves=_waves(draw, background, n),
        light=np.stack([slope * np.cos(turn), slope * np.sin(turn)], 1),
        domain=domain,
        emblem=np.full(n, float(s.emblem)),
        word=_words(s, draw, kind[:, 0]),
        word_y=np.where(draw.uniform("word above") < 0.5, -1, 1) * draw.between("word height", 0.45, 0.75),
        phrasing=draw.uniform("phrasing"),
    )


def _names(draw: Counter, name: str, chosen: tuple[str, ...], known: list[str], *shape: int) -> Ints:
    """Uniform among the chosen names, as indices into the whole vocabulary."""
    index = np.array([known.index(c) for c in chosen])
    return index[draw.choice(name, len(index), *shape)]


def _classes(s: Settings, seed: int, scenes: NDArray[np.int64], k: int) -> Ints:
    """Classes (N, k). The nearest object's are balanced: each run of `len(classes)` scenes has every class once."""
    index = np.array([CLASSES.index(c) for c in s.classes])
    block, place = scenes // len(index), scenes % len(index)
    order = Counter(seed, block).uniform("class", len(index)).argsort(1)
    nearest = index[order[np.arange(len(scenes)), place]]
    others = _names(Counter(seed, scenes), "other class", s.classes, CLASSES, k)
    others[:, 0] = nearest
    return others


def _places(s: Settings, draw: Counter, count: Ints, k: int) -> tuple[Floats, Floats]:
    """Centres (N, k). Several objects stand around the middle, so that neighbours overlap but none is hidden."""
    x, y = draw.between("x", -s.shift, s.shift, k), draw.between("y", -s.shift, s.shift, k)
    if k > 1:
        turn = draw.between("place", 0, 2 * np.pi)[:, None] + 2 * np.pi * np.arange(k) / np.maximum(count, 1)[:, None]
        spread = np.where(count > 1, 0.42, 0.0)[:, None]
        x, y = x + spread * np.cos(turn), y + spread * np.sin(turn)
    return x, y


def _waves(draw: Counter, background: Ints, n: int) -> Floats:
    """Three plane waves a scene (N, 3, 3): what stripes, checks and clouds are made of."""
    turn = draw.between("wave angle", 0, np.pi, 3)
    clouds = (background == BACKGROUNDS.index("clouds"))[:, None]
    turn = np.where(clouds, turn, turn[:, :1] + np.array([0, np.pi / 2, 0]))
    u = draw.uniform("wave frequency", 3)
    frequency = np.where(clouds, 0.5 + 1.2 * u, 1.5 + 1.5 * u[:, :1])
    return np.stack([frequency * np.cos(turn), frequency * np.sin(turn), draw.uniform("wave phase", 3)], 2)


def _paints(s: Settings, draw: Counter, colour: Ints, ground_colour: Ints, domain: Ints) -> tuple[Floats, Floats]:
    """RGB of body, texture, emblem and dot (N, k, 4, 3) and of the two ground colours (N, 2, 3)."""
    k = colour.shape[1]
    dark = (draw.uniform("dark") < s.dark_objects)[:, None]
    hue = _HUES[colour] + draw.between("hue", -0.02, 0.02, k)
    value = np.where(dark, draw.between("value dark", 0.25, 0.45, k), draw.between("value", 0.8, 1.0, k))
    value = s.contrast * value + (1 - s.contrast) * draw.between("value any", 0.2, 1.0, k)
    saturation = draw.between("saturation", 0.5, 0.95, k)
    body = hsv_to_rgb(hue, saturation, value)
    # The texture stays on the object's side of grey, so that the outline always shows.
    texture = hsv_to_rgb(hue, saturation * 0.6, np.where(dark, value + 0.15, value - 0.2).clip(0, 1))
    emblem = hsv_to_rgb(hue + 0.5, 0.25, np.where(dark, 0.85, 0.3))
    paint = np.stack([body, texture, emblem, body], 2)
    ground_value = np.where(dark, draw.between("ground light", 0.75, 1.0, 2), draw.between("ground dark", 0.1, 0.4, 2))
    ground_value = s.contrast * ground_value + (1 - s.contrast) * draw.between("ground any", 0.1, 1.0, 2)
    ground_hue = (_HUES[ground_colour] + draw.between("ground hue", -0.03, 0.03))[:, None]
    ground = hsv_to_rgb(ground_hue, draw.between("ground saturation", 0.15, 0.6, 2), ground_value)
    sketch = domain == DOMAINS.index("sketch")
    paint[sketch] = np.array([0.97, 0.80, 0.97, 0.45])[:, None]
    ground[sketch] = 0.97
    return paint, ground


def _words(s: Settings, draw: Counter, kind: Ints) -> Ints:
    """The word of each scene, as an index into CLASSES; -1 where there is none."""
    own = np.array([CLASSES.index(c) for c in s.classes])
    place = np.array([s.classes.index(CLASSES[c]) for c in kind]) if len(kind) else kind
    if s.word == "own":
        return kind.copy()
    if s.word == "random":
        return own[draw.choice("word", len(own))]
    if s.word == "other":
        return own[(place + 1 + draw.choice("other word", len(own) - 1)) % len(own)]
    return np.full(len(kind), -1)


def hsv_to_rgb(hue: Floats, saturation: Floats | float, value: Floats | float) -> Floats:
    """Hue (turns), saturation and value in [0, 1] to RGB in [0, 1]: (..., 3) (Smith 1978, in its closed form)."""
    hue, saturation, value = np.broadcast_arrays(hue, saturation, value)
    k = (np.array([5.0, 3.0, 1.0]) + 6 * hue[..., None]) % 6
    chroma = np.clip(np.minimum(k, 4 - k), 0, 1)
    return (value[..., None] * (1 - saturation[..., None] * chroma)).clip(0, 1)


def tensor(a: Floats, device: torch.device | str) -> Tensor:
    """float64 parameters as float32 on the device: rounded once, so the same on every machine."""
    return torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32)).to(device)


EMBLEM_TABLE: Floats = np.array([EMBLEM[c] for c in CLASSES])
