"""The data engine as a simulation: a model helps to annotate, and is trained on what it helped to annotate.

Kirillov et al. 2023, "Segment Anything", section 4. An annotator clicks the middle of the largest error until a mask is
good or patience ends. The truth is known to that annotator and to the score, not to the model, which only ever sees
masks that were collected.

    assisted         every object is clicked
    semi-automatic   what the model is confident of is taken as it is; the other objects are clicked
    automatic        confident and stable masks only, nobody clicks
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sslcourse.errors import unknown
from sslcourse.segment.clicks import center_click
from sslcourse.segment.masks import stability_score
from sslcourse.segment.sam import Embedding, Sam
from sslcourse.segment.scenes import N_PARTS, SceneMasks
from sslcourse.segment.scoring import iou_of

Stage = Literal["assisted", "semi-automatic", "automatic"]
STAGES: tuple[Stage, ...] = ("assisted", "semi-automatic", "automatic")


@dataclass(frozen=True)
class Annotator:
    """What the simulated annotator does; times are assumptions, to be set to what a tool takes.

    Attributes:
        good: IoU from which on a mask is accepted.
        patience: clicks after which it is accepted anyway.
        confident: predicted IoU from which on the model's first mask is taken unseen.
        stable: stability from which on it is.
        seconds_a_click, seconds_an_object: what a click, and turning to the next object, takes.
    """

    good: float = 0.9
    patience: int = 6
    confident: float = 0.88
    stable: float = 0.9
    seconds_a_click: float = 1.5
    seconds_an_object: float = 4.0


@dataclass(frozen=True)
class Round:
    """What a stage brought.

    Attributes:
        stage: its name.
        objects: number of objects in its scenes.
        masks: how many of them got a mask.
        iou: mean IoU of those masks with the truth; 0 without any.
        clicks: of the annotator, in all.
        seconds: of the annotator, in all.
        collected: the scenes with the masks that were collected, wholes without parts.
    """

    stage: Stage
    objects: int
    masks: int
    iou: float
    clicks: int
    seconds: float
    collected: SceneMasks


def _answer(
    model: Sam, embedding: Embedding, points: Tensor, labels: Tensor, low: Tensor | None
) -> tuple[Tensor, float]:
    """Low-resolution logits (1, 1, h, w) and predicted IoU: the best of three for one click, the single mask after."""
    logits, iou = model.decode(embedding, points, labels, masks=low, multimask=low is None)
    best = int(iou[0].argmax())
    return logits[:, best : best + 1], float(iou[0, best])


def _full(model: Sam, low: Tensor) -> Tensor:
    """(S, S) logits."""
    size = (model.image_size, model.image_size)
    return model.postprocess(low, size, size)[0, 0]


@torch.no_grad()
def annotate(model: Sam, embedding: Embedding, gt: Tensor, how: Annotator) -> tuple[Tensor, int]:
    """Click until the mask of an object (S, S) bool is good: the mask, and the number of clicks."""
    points, labels = center_click(gt[None], None)
    low: Tensor | None = None
    mask = torch.zeros_like(gt)
    for clicks in range(1, how.patience + 1):
        low, _ = _answer(model, embedding, points, labels, low)
        mask = _full(model, low) > model.mask_threshold
        if float(iou_of(mask, gt)) >= how.good:
            return mask, clicks
        place, label = center_click(gt[None], mask[None])
        points, labels = torch.cat([points, place], dim=1), torch.cat([labels, label], dim=1)
    return mask, how.patience


@torch.no_grad()
def confident_mask(model: Sam, embedding: Embedding, gt: Tensor, how: Annotator) -> Tensor | None:
    """The model's mask for a click in the middle of an object, None where it is in doubt itself."""
    low, iou = _answer(model, embedding, *center_click(gt[None], None), None)
    logits = _full(model, low)
    sure = iou >= how.confident and float(stability_score(logits, model.mask_threshold)) >= how.stable
    return logits > model.mask_threshold if sure else None


def run_stage(model: Sam, scenes: SceneMasks, stage: Stage, how: Annotator | None = None) -> Round:
    """One stage over the objects of scenes.

    Raises:
        InputError: an unknown stage.
    """
    if stage not in STAGES:
        raise unknown("stage of the data engine", stage, STAGES)
    how = how or Annotator()
    model.eval()
    images, clicks, seconds, objects = scenes.images.clone(), 0, 0.0, 0
    ious: list[float] = []
    for row in range(len(scenes)):
        scene = scenes[slice(row, row + 1)]
        with torch.no_grad():
            embedding = model.encode(model.preprocess(scene.images[:, :3]))
        ids = torch.zeros_like(images[row, 3])
        for k, gt in enumerate(scene.objects(0, 12)[1]):
            objects += 1
            mask = None if stage == "assisted" else confident_mask(model, embedding, gt, how)
            if mask is None and stage != "automatic":
                mask, n = annotate(model, embedding, gt, how)
                clicks, seconds = clicks + n, seconds + how.seconds_an_object + n * how.seconds_a_click
            if mask is not None:
                ids[mask] = 1 + N_PARTS * k
                ious.append(float(iou_of(mask, gt)))
        images[row, 3] = ids
    mean = sum(ious) / len(ious) if ious else 0.0
    return Round(stage, objects, len(ious), mean, clicks, seconds, SceneMasks(images, scenes.n_objects))


def data_engine(
    model: Sam,
    scenes: Sequence[SceneMasks],
    retrain: Callable[[Sam, SceneMasks], None],
    how: Annotator | None = None,
) -> list[Round]:
    """The three stages, each on scenes of its own; after each but the last, `retrain(model, collected)`."""
    rounds: list[Round] = []
    for stage, part in zip(STAGES, scenes, strict=True):
        rounds.append(run_stage(model, part, stage, how))
        if stage != STAGES[-1]:
            retrain(model, rounds[-1].collected)
    return rounds
