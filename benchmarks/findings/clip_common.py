"""What the findings on the shipped CLIP share: scenes of a seed, frozen features, hits of a zero-shot classifier.

Nothing is trained here. A seed draws the scenes that are shown; the model never saw them, and where it says so not even
their combinations of colour and shape.
"""

from functools import cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sslcourse.data import Images, Shapes
from sslcourse.data.captioned import COLOURS, HELD_OUT
from sslcourse.evaluate.zeroshot import prompt_logits, zero_shot_weights
from sslcourse.zoo.words import WordModel, word_model

SIZE, TEST = 32, 1000
MODEL = "clip_shapes"
SHIFTS: dict[str, dict[str, Any]] = {  # of the scenes, by what they are shown as
    "photo": {},
    "sketch": {"domains": ("sketch",)},
    "inverted": {"domains": ("inverted",)},
    "noise": {"corruption": "gaussian_noise", "severity": 3},
}


def setting() -> dict[str, Any]:
    """What every arm of these findings shares, for the record."""
    return {"data": "shapes, preset captions", "size": SIZE, "test": TEST, "model": MODEL, "trained here": "nothing"}


@cache
def model() -> WordModel:
    """The CLIP that comes with the repository; texts that are too long are cut."""
    return word_model(MODEL, truncate=True)


def embed(images: Tensor) -> Tensor:
    """(N, 3, S, S) uint8 -> (N, D) frozen image embeddings."""
    return model().embed([Image.fromarray(image) for image in images.permute(0, 2, 3, 1).numpy()])


def single(split: str, n: int, seed: int, **knobs: Any) -> Images:
    """Scenes of one object; labels are the ten shapes."""
    return Shapes(split, SIZE, seed, preset="captions", objects=(1, 1), **knobs).as_images(n)


def unseen(labels: Tensor) -> Tensor:
    """Numbers of held-out `PAIRS` -> 0 to 19, in the order of `sorted(HELD_OUT)`."""
    return torch.searchsorted(torch.tensor(sorted(HELD_OUT)), labels)


def words_accuracy(img: Tensor, labels: Tensor, classes: list[str], templates: tuple[str, ...]) -> float:
    """Share of images (embeddings) whose class the nearest class weight names."""
    weights = zero_shot_weights(model().text, classes, templates)
    return (prompt_logits(img, weights).argmax(dim=1) == labels).float().mean().item()


def shape_accuracy(img: Tensor, labels: Tensor, pair_weights: Tensor) -> float:
    """Share of images whose shape is that of the best of `PAIRS`.

    Every caption of an object names its colour, too, so a name without one is a prompt that the model hardly knows.

    Args:
        img: (N, D) embeddings; labels: (N,) of the ten shapes; pair_weights: (D, 100) of `zero_shot_weights`.
    """
    return (prompt_logits(img, pair_weights).argmax(dim=1) // len(COLOURS) == labels).float().mean().item()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of rows (N, C) whose largest entry is that of their label."""
    return (logits.argmax(dim=1).cpu() == labels).float().mean().item()


def inside(share: float) -> float:
    """Half an image from 0 and 1, where the logit axis ends."""
    half = 0.5 / TEST
    return min(max(share, half), 1 - half)
