"""The data engine of `data_engine`, seed 0, click by click on three unseen scenes: what the film of chapter 11 shows.

python -m benchmarks.findings.engine_film        writes curves/data_engine.json
"""

import base64
import io
import json
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.findings.common import FOLDER
from benchmarks.findings.data_engine import HOW, PRESET, ROUNDS, rounds
from sslcourse.segment.clicks import center_click
from sslcourse.segment.engine import Round, annotate, confident_mask
from sslcourse.segment.rle import mask_to_rle
from sslcourse.segment.sam import Sam
from sslcourse.segment.scenes import SceneMasks, draw_scenes
from sslcourse.segment.scoring import iou_of

FILE = FOLDER / "curves" / "data_engine.json"
SHOWN = (4, 9, 17)  # unseen scenes, the same ones in every round


def frame(gt: Tensor, mask: Tensor, click: list[float] | None) -> dict[str, Any]:
    """A mask, how good it is, and the click x y label that led to it."""
    return {"counts": mask_to_rle(mask)["counts"], "iou": round(float(iou_of(mask, gt)), 3), "click": click}


@torch.no_grad()
def frames(model: Sam, scene: SceneMasks, stage: str) -> list[dict[str, Any]]:
    """What happens to the first object of a scene: the model's own mask, or mask after mask; none where skipped."""
    gt = scene.objects(0, 12)[1][0]
    embedding = model.encode(model.preprocess(scene.images[:, :3]))
    own = None if stage == "assisted" else confident_mask(model, embedding, gt, HOW)
    if own is not None:
        return [frame(gt, own, None)]
    out: list[dict[str, Any]] = []
    mask: Tensor | None = None
    while stage != "automatic" and len(out) < HOW.patience and (mask is None or out[-1]["iou"] < HOW.good):
        place, label = center_click(gt[None], None if mask is None else mask[None])
        mask, _ = annotate(model, embedding, gt, replace(HOW, patience=len(out) + 1))
        out.append(frame(gt, mask, [*place[0, 0].tolist(), int(label)]))
    return out


def numbers(found: Round) -> dict[str, float]:
    """A round in four numbers: seconds an object, share of objects with a mask, their IoU, clicks an object."""
    return {
        "seconds": round(found.seconds / found.objects, 2),
        "masks": round(found.masks / found.objects, 3),
        "iou": round(found.iou, 3),
        "clicks": round(found.clicks / found.objects, 2),
    }


def shown_scenes() -> SceneMasks:
    """The scenes of the film."""
    return draw_scenes(max(SHOWN) + 1, "test", presets=(PRESET,))[torch.tensor(SHOWN)]


def pictures() -> list[str]:
    """These scenes as addresses that hold a PNG. They are drawn again for a page: a record keeps numbers only."""
    told = []
    for image in shown_scenes().images[:, :3]:
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, format="PNG", optimize=True)
        told.append("data:image/png;base64," + base64.b64encode(file.getvalue()).decode())
    return told


def film() -> dict[str, Any]:
    """Every round: its numbers with and without retraining, and the frames of every scene."""
    scenes, told = shown_scenes(), []
    for (name, found, model), (_, alone, _) in zip(rounds(0, True), rounds(0, False), strict=True):
        shown = [frames(model, scenes[slice(i, i + 1)], ROUNDS[name]) for i in range(len(SHOWN))]
        told.append({"name": name, **numbers(found), "alone": numbers(alone), "scenes": shown})
    times = {"click": HOW.seconds_a_click, "object": HOW.seconds_an_object, "good": HOW.good, "patience": HOW.patience}
    return {"size": scenes.size, "annotator": times, "rounds": told}


if __name__ == "__main__":
    FILE.write_text(json.dumps(film(), separators=(",", ":")) + "\n", encoding="utf-8")
    print("wrote", FILE, FILE.stat().st_size, "bytes")
