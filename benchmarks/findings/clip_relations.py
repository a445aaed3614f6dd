"""Does CLIP know who stands in front? A caption against one that differs in one thing, for the same image.

python -m benchmarks.findings.clip_relations

Scenes of two objects. The wrong caption names another object, exchanges the two colours, or exchanges the two objects:
the same bag of words in the last two (Yuksekgonul et al. 2023, "When and why vision-language models behave like
bags-of-words"). Chance is 1/2.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.findings import clip_common as common
from benchmarks.findings.common import Finding, run
from sslcourse.data import Shapes
from sslcourse.data.captioned import CLASSES, COLOURS

FRONT = " in front of "


def setting() -> dict[str, Any]:
    """What all arms share."""
    return common.setting() | {"objects": 2}


def captions(seed: int) -> tuple[Tensor, dict[str, list[str]]]:
    """(N, 3, S, S) images whose two objects differ in colour and in shape, and their captions: true ones and wrong."""
    world = Shapes("test", common.SIZE, seed, preset="captions", objects=(2, 2))
    p = world.parameters(range(common.TEST))
    differ = (p.kind[:, 0] != p.kind[:, 1]) & (p.colour[:, 0] != p.colour[:, 1])
    numbers = differ.nonzero()[0].tolist()
    said: dict[str, list[str]] = {"true": [], "another object": [], "colours exchanged": [], "order exchanged": []}
    for i in numbers:
        (a, b), (u, v) = p.kind[i, :2], p.colour[i, :2]
        absent = next(k % len(CLASSES) for k in range(int(b) + 1, int(b) + 3) if k % len(CLASSES) != a)
        said["true"].append(_name(u, a) + FRONT + _name(v, b))
        said["another object"].append(_name(u, a) + FRONT + _name(v, absent))
        said["colours exchanged"].append(_name(v, a) + FRONT + _name(u, b))
        said["order exchanged"].append(_name(v, b) + FRONT + _name(u, a))
    return world.images_of(numbers).images, said


@torch.no_grad()
def measure(seed: int) -> dict[str, float]:
    """Share of images that are nearer to the true caption than to the wrong one, for each way to be wrong."""
    images, said = captions(seed)
    img = F.normalize(common.embed(images), dim=1)
    cosine = {way: (img * F.normalize(common.model().text(texts), dim=1)).sum(dim=1) for way, texts in said.items()}
    true = cosine.pop("true")
    return {way: (true > wrong).float().mean().item() for way, wrong in cosine.items()}


def _name(colour: int, kind: int) -> str:
    text = f"{list(COLOURS)[colour]} {CLASSES[kind]}"
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


if __name__ == "__main__":
    question = "Is an image nearer to its caption than to one with another object, other colours or another order?"
    run(Finding("clip_relations", question, "share of images", "order exchanged", setting()), measure)
