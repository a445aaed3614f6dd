"""Scenes in words: one grammar, five ways to put it."""

import numpy as np

from sslcourse.data.shapes.sample import Parameters
from sslcourse.data.shapes.sdf import CLASSES
from sslcourse.data.shapes.settings import BACKGROUNDS, COLOURS, DOMAINS, TEXTURES

PHRASINGS = 5
_COVERED = {"plain": "", "stripes": "striped", "checks": "checked", "dots": "dotted"}
_GROUND = {"plain": "plain", "gradient": "shaded", "stripes": "striped", "checks": "checked", "clouds": "cloudy"}
_DOMAIN = {"photo": "a photo", "sketch": "a sketch", "inverted": "a negative"}
_COLOURS, _BIG, _SMALL = list(COLOURS), 0.74, 0.42


def describe(p: Parameters, phrasing: int | None = None) -> list[str]:
    """A sentence for every scene.

    Args:
        p: parameters of B scenes.
        phrasing: which of the `PHRASINGS` ways to put it; None takes each scene's own.
    """
    way = np.full(len(p), phrasing % PHRASINGS) if phrasing is not None else (p.phrasing * PHRASINGS).astype(int)
    return [_sentence(p, b, int(way[b])) for b in range(len(p))]


def _sentence(p: Parameters, b: int, way: int) -> str:
    things = [_object(p, b, k, brief=way == 1) for k in range(int(p.count[b]))]
    ground = _ground(p, b)
    domain = _DOMAIN[DOMAINS[p.domain[b]]]
    scene = things[0] + (" in front of " + _list(things[1:]) if len(things) > 1 else "")
    word = f", with the word {CLASSES[p.word[b]]} on a label" if p.word[b] >= 0 else ""
    if way == 0:
        return f"{domain} of {scene} on {ground}{word}"
    if way == 1:
        return f"{scene}{word}"
    if way == 2:
        return f"{scene} on {ground}{word}"
    if way == 3:
        return f"on {ground}, {scene}{word}"
    return f"{domain} that shows {scene}{word}"


def _object(p: Parameters, b: int, k: int, brief: bool) -> str:
    radius = p.radius[b, k]
    size = "" if brief else "large" if radius > _BIG else "small" if radius < _SMALL else ""
    colour = "" if DOMAINS[p.domain[b]] == "sketch" else _COLOURS[p.colour[b, k]]
    texture = "" if brief else _COVERED[TEXTURES[p.texture[b, k]]]
    return _with_article([size, colour, texture, CLASSES[p.kind[b, k]]])


def _ground(p: Parameters, b: int) -> str:
    if DOMAINS[p.domain[b]] == "sketch":
        return "white paper"
    return _with_article([_GROUND[BACKGROUNDS[p.background[b]]], _COLOURS[p.ground_colour[b]], "background"])


def _with_article(words: list[str]) -> str:
    text = " ".join(word for word in words if word)
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _list(things: list[str]) -> str:
    return things[0] if len(things) == 1 else ", ".join(things[:-1]) + " and " + things[-1]
