"""Masks of everything: how dense must the grid of points be, and what does density cost? The shipped tiny SAM.

python -m benchmarks.findings.sam_everything

A part is found if some mask has an IoU of at least 0.75 with it; a mask is right if it has that with some whole,
emblem or dot. Time is the processor's, as a share of what the densest grid takes.
"""

import time
from typing import Any

import torch

from benchmarks.findings.common import Finding, run
from sslcourse.segment.automatic import SMALL, AutomaticMasks
from sslcourse.segment.files import load_tiny
from sslcourse.segment.predictor import Predictor
from sslcourse.segment.scenes import draw_scenes
from sslcourse.segment.scoring import iou_of

PRESET, SCENES, MIN_AREA, GOOD = "multi", 10, 12, 0.75
GRIDS = (2, 4, 8, 16, 32)


def measure(seed: int) -> dict[str, float]:
    """For every grid: shares of wholes and emblems found, share of masks that are right, and time."""
    scenes = draw_scenes(SCENES, "test", presets=(PRESET,), start=SCENES * seed)
    model = Predictor(load_tiny())
    values: dict[str, float] = {}
    seconds: dict[int, float] = {}
    for side in GRIDS:
        everything = AutomaticMasks(model, points_per_side=side, limits=SMALL)
        hits, wanted, right, given = [0, 0], [0, 0], 0, 0
        start = time.process_time()
        answers = [everything(image[:3]) for image in scenes.images]
        seconds[side] = time.process_time() - start
        for row, found in enumerate(answers):
            scene = scenes[slice(row, row + 1)]
            parts = [scene.objects(part, MIN_AREA)[1] for part in range(3)]
            masks = torch.stack([one.mask for one in found]) if found else torch.zeros(1, *parts[0].shape[1:]) > 0
            good = [iou_of(masks[:, None], part[None]) >= GOOD for part in parts]
            for part in range(2):
                hits[part] += int(good[part].any(dim=0).sum())
                wanted[part] += len(parts[part])
            given, right = given + len(found), right + int(torch.cat(good, dim=1).any(dim=1).sum())
        values[f"{side}: wholes found"], values[f"{side}: emblems found"] = (
            h / w for h, w in zip(hits, wanted, strict=True)
        )
        values[f"{side}: right"] = right / given if given else 0.0
    return values | {f"{side}: time": seconds[side] / seconds[GRIDS[-1]] for side in GRIDS}


def setting() -> dict[str, Any]:
    limits = {"pred_iou": SMALL.pred_iou, "stability": SMALL.stability}
    return {"preset": PRESET, "scenes": SCENES, "min_area": MIN_AREA, "good": GOOD, "grids": GRIDS, "limits": limits}


if __name__ == "__main__":
    question = "How do the points of a grid decide what is found, what is right and what it costs?"
    run(Finding("sam_everything", question, "share", "32: wholes found", setting()), measure)
