"""The knobs of the embedded world, its vocabulary and its presets."""

from dataclasses import dataclass, fields, replace
from typing import Any

from sslcourse.data.shapes.sdf import CLASSES
from sslcourse.errors import InputError, unknown

# Ten hues, in turns of the colour wheel; class k has the hue k when class and colour are correlated.
COLOURS: dict[str, float] = {
    "red": 0.0,
    "orange": 0.075,
    "yellow": 0.15,
    "lime": 0.24,
    "green": 0.36,
    "teal": 0.46,
    "sky": 0.55,
    "blue": 0.64,
    "violet": 0.76,
    "pink": 0.90,
}
TEXTURES: list[str] = ["plain", "stripes", "checks", "dots"]
BACKGROUNDS: list[str] = ["plain", "gradient", "stripes", "checks", "clouds"]
DOMAINS: list[str] = ["photo", "sketch", "inverted"]
WORDS: list[str] = ["none", "own", "other", "random"]
ORIENTATIONS: list[str] = ["up", "right", "down", "left"]
SPLITS: list[str] = ["train", "val", "test"]

# What a label can be, and the names of its values.
LABELS: dict[str, list[str]] = {
    "class": CLASSES,
    "orientation": ORIENTATIONS,
    "colour": list(COLOURS),
    "texture": TEXTURES,
    "background": BACKGROUNDS,
    "domain": DOMAINS,
}


@dataclass(frozen=True)
class Settings:
    """Everything that can be turned. Each knob moves its own attribute and leaves all others where they were."""

    label: str = "class"
    """What `label` says about the nearest object: class, orientation, colour, texture, background or domain."""
    classes: tuple[str, ...] = tuple(CLASSES)
    """The shapes that occur."""
    objects: tuple[int, int] = (1, 1)
    """Fewest and most objects in a scene; from two on, near ones hide parts of far ones."""
    size: tuple[float, float] = (0.62, 0.82)
    """Smallest and largest radius of an object, as a share of half the image side."""
    shift: float = 0.18
    """Largest distance of the object from the centre along each axis, as a share of half the image side."""
    rotation: float = 15.0
    """Largest tilt in degrees, either way."""
    quarter_turns: bool = False
    """Whether objects also turn by whole quarter turns: up, right, down, left."""
    colours: tuple[str, ...] = tuple(COLOURS)
    """The hues that objects and backgrounds take."""
    textures: tuple[str, ...] = ("plain", "stripes")
    """What objects are covered with."""
    backgrounds: tuple[str, ...] = ("plain", "gradient")
    """What is behind the objects."""
    dark_objects: float = 0.5
    """Share of scenes with a dark object on a light ground; the others are light on dark."""
    light: float = 0.3
    """Strength of the light, which falls from one side: 0 is even, 1 leaves the far side black."""
    domains: tuple[str, ...] = ("photo",)
    """How the scene is drawn: photo (light and shadow), sketch (ink on paper), inverted (a negative)."""
    word: str = "none"
    """The word on a label in front of the object: none, own (its class), other (never its class) or random."""
    background_correlation: float = 0.0
    """Share of scenes whose background (kind and hue) follows from the class."""
    colour_correlation: float = 0.0
    """Share of scenes whose object colour follows from the class."""
    corruption: str | None = None
    """A corruption of `sslcourse.data.corruptions`, applied to the finished image."""
    severity: int = 3
    """How strong the corruption is, 1 to 5."""


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
}


def settings(preset: str = "default", **knobs: Any) -> Settings:
    """The settings of a preset with some knobs turned; unknown names raise `InputError` with the nearest name."""
    if preset not in PRESETS:
        raise unknown("preset of Shapes", preset, PRESETS)
    names = [f.name for f in fields(Settings)]
    for name in knobs:
        if name not in names:
            raise unknown("knob of Shapes", name, names)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in {**PRESETS[preset], **knobs}.items()}
    made = replace(Settings(), **values)
    _check(made)
    return made


def _check(s: Settings) -> None:
    vocabulary = {
        "classes": CLASSES,
        "colours": list(COLOURS),
        "textures": TEXTURES,
        "backgrounds": BACKGROUNDS,
        "domains": DOMAINS,
    }
    for knob, known in vocabulary.items():
        chosen = getattr(s, knob)
        if isinstance(chosen, str) or not chosen:
            raise InputError(f"Shapes: {knob} takes a list of names, for example {knob}=['{known[0]}'].")
        for name in chosen:
            if name not in known:
                raise unknown(f"name in the Shapes knob {knob}:", name, known)
    if s.label not in LABELS:
        raise unknown("label of Shapes", s.label, LABELS)
    if s.word not in WORDS:
        raise unknown("value of the Shapes knob word:", s.word, WORDS)
    if not 1 <= s.objects[0] <= s.objects[1] <= 6:
        raise InputError(f"Shapes: objects takes (fewest, most) between 1 and 6; got {s.objects}.")
    if not 0.05 <= s.size[0] <= s.size[1] <= 1.5:
        raise InputError(f"Shapes: size takes (smallest, largest) radius between 0.05 and 1.5; got {s.size}.")
    for knob in ("dark_objects", "light", "background_correlation", "colour_correlation"):
        if not 0 <= getattr(s, knob) <= 1:
            raise InputError(f"Shapes: {knob} lies between 0 and 1; got {getattr(s, knob)}.")
    if s.severity not in (1, 2, 3, 4, 5):
        raise InputError(f"Shapes: severity is one of 1, 2, 3, 4, 5; got {s.severity}.")
