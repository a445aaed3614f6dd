"""The knobs of the embedded world, its vocabulary and its presets."""

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from sslcourse.data.corruptions import CORRUPTIONS
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

_PLAIN: dict[str, Any] = {"textures": ("plain",), "backgrounds": ("plain",)}
_ALL: dict[str, Any] = {"textures": tuple(TEXTURES), "backgrounds": tuple(BACKGROUNDS)}

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
    radius: tuple[float, float] = (0.5, 0.8)
    """Smallest and largest radius of an object, as a share of half the image side."""
    shift: float = 0.3
    """Largest distance of the object from the centre along each axis, as a share of half the image side."""
    rotation: float = 25.0
    """Largest tilt in degrees, either way."""
    quarter_turns: bool = False
    """Whether objects also turn by whole quarter turns: to the right, upside down, to the left."""
    colours: tuple[str, ...] = tuple(COLOURS)
    """The hues that objects and backgrounds take."""
    textures: tuple[str, ...] = ("plain", "stripes")
    """What objects are covered with."""
    backgrounds: tuple[str, ...] = ("plain", "gradient")
    """What is behind the objects."""
    dark_objects: float = 0.5
    """Share of scenes with a dark object on a light ground; the others are light on dark."""
    light: float = 0.5
    """Strength of the light, which falls from one side: 0 is even, 1 leaves the far side black."""
    domains: tuple[str, ...] = ("photo",)
    """How the scene is drawn: photo (light and shadow), sketch (ink on paper), inverted (a negative)."""
    word: str = "none"
    """The word on a label in front of the object: none, own (its class), other (never its class) or random."""
    background_correlation: float = 0.0
    """Share of scenes whose background (kind and hue) follows from the class."""
    colour_correlation: float = 0.0
    """Share of scenes whose object colour follows from the class."""
    emblem: bool = True
    """Whether objects wear the round emblem with its dot, without which some shapes look the same from all sides."""
    contrast: float = 1.0
    """How far the lightness of an object keeps from that of its ground: 0 is any colour on any colour."""
    corruption: str | None = None
    """A corruption of `sslcourse.data.corruptions`, applied to the finished image."""
    severity: int = 3
    """How strong the corruption is, 1 to 5."""


class Preset(NamedTuple):
    """A named setting: what it is for, and the knobs it turns."""

    about: str
    knobs: dict[str, Any]


PRESETS: dict[str, Preset] = {
    "default": Preset("One large object. Its pixels mislead, its shape does not: what the miniatures train on.", {}),
    "easy": Preset(
        "Plain light objects of one size on dark ground: for a first look, and for tests.",
        {"radius": (0.75, 0.75), "shift": 0.05, "rotation": 5.0, "dark_objects": 0.0, "light": 0.1, **_PLAIN},
    ),
    "hard": Preset(
        "Any colour on any colour, any turn, every texture and background: nothing learns this in two minutes.",
        {"radius": (0.35, 0.8), "shift": 0.35, "rotation": 180.0, "contrast": 0.3, "light": 0.7, **_ALL},
    ),
    "multi": Preset(
        "Two to four objects that hide parts of each other: detection, segmentation, order in depth.",
        {"objects": (2, 4), "radius": (0.32, 0.48), "shift": 0.08, "rotation": 30.0, **_ALL},
    ),
    "captions": Preset(
        "One to three objects, every texture and background: scenes that are worth a sentence.",
        {"objects": (1, 3), "radius": (0.34, 0.52), "shift": 0.08, **_ALL},
    ),
    "correlated_background": Preset(
        "The background gives the class away in 95 % of the scenes; test with background_correlation=0.",
        {"background_correlation": 0.95, "backgrounds": tuple(BACKGROUNDS)},
    ),
    "correlated_colour": Preset(
        "The colour gives the class away in 95 % of the scenes; test with colour_correlation=0.",
        {"colour_correlation": 0.95},
    ),
    "rotation": Preset(
        "The label is which way the object is turned: an encoder that ignores rotation fails.",
        {"label": "orientation", "quarter_turns": True, "rotation": 10.0},
    ),
    "written_word": Preset(
        "A label in front of the object names its class; test with word='other', which always lies.",
        {"word": "own"},
    ),
    "sketch": Preset("Ink on paper: no colour, no light.", {"domains": ("sketch",)}),
    "inverted": Preset("Photographic negatives.", {"domains": ("inverted",)}),
    "domains": Preset("Photos, sketches and negatives, a third each.", {"domains": tuple(DOMAINS)}),
    "corrupted": Preset("The default behind sensor noise of severity 3.", {"corruption": "gaussian_noise"}),
}


def settings(preset: str = "default", **knobs: Any) -> Settings:
    """The settings of a preset with some knobs turned; unknown names raise `InputError` with the nearest name."""
    if preset not in PRESETS:
        raise unknown("preset of Shapes", preset, PRESETS)
    names = [f.name for f in fields(Settings)]
    for name in knobs:
        if name not in names:
            raise unknown("knob of Shapes", name, names)
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in {**PRESETS[preset].knobs, **knobs}.items()
    }
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
    for knob in ("objects", "radius"):
        if not isinstance(getattr(s, knob), tuple) or len(getattr(s, knob)) != 2:
            raise InputError(f"Shapes: {knob} takes two numbers, (lowest, highest); got {getattr(s, knob)!r}.")
    if not 1 <= s.objects[0] <= s.objects[1] <= 6:
        raise InputError(f"Shapes: objects takes (fewest, most) between 1 and 6; got {s.objects}.")
    if not 0.05 <= s.radius[0] <= s.radius[1] <= 1.5:
        raise InputError(f"Shapes: radius takes (smallest, largest) between 0.05 and 1.5; got {s.radius}.")
    for knob in ("dark_objects", "light", "contrast", "background_correlation", "colour_correlation"):
        if not 0 <= getattr(s, knob) <= 1:
            raise InputError(f"Shapes: {knob} lies between 0 and 1; got {getattr(s, knob)}.")
    if s.word == "other" and len(s.classes) < 2:
        raise InputError("Shapes: word='other' needs at least two classes to choose a wrong one from.")
    if s.corruption is not None and s.corruption not in CORRUPTIONS:
        raise unknown("corruption of Shapes", s.corruption, CORRUPTIONS)
    if s.severity not in (1, 2, 3, 4, 5):
        raise InputError(f"Shapes: severity is one of 1, 2, 3, 4, 5; got {s.severity}.")
