"""Where an early error cannot be mended: SAM is given boxes that are more and more wrong, and boxes found by words.

Words to box to mask is a chain. A box that is a little off is mended by SAM, which looks at the image again; a box
around another object, or around too little of the right one, is not: nobody asks the words again.
python -m benchmarks.findings.grounded_errors
"""

from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.findings.common import Finding, run
from sslcourse.data.rng import step_generator
from sslcourse.segment.family_scoring import text_ious
from sslcourse.segment.files import load_small, load_tiny
from sslcourse.segment.grounded_training import draw_named
from sslcourse.segment.mask_prompts import box_of
from sslcourse.segment.sam import Sam
from sslcourse.segment.scenes import SceneMasks
from sslcourse.segment.scoring import iou_of, objects_of
from sslcourse.segment.text_to_box import TextToBox

TEST, SHIFTS = 40, (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)


@torch.no_grad()
def shifted_box_ious(model: Sam, scenes: SceneMasks, shift: float, seed: int) -> Tensor:
    """(M,) IoU of wholes with the masks for their boxes, moved by `shift` of their size in a random direction."""
    found, size = [], (model.image_size, model.image_size)
    generator = step_generator(seed, 0)
    for some in objects_of(model, scenes, 0):
        boxes = box_of(some.masks)
        turn = 2 * torch.pi * torch.rand(len(boxes), 1, generator=generator)
        extent = boxes[:, 2:] - boxes[:, :2]
        moved = boxes + (shift * torch.cat([turn.cos(), turn.sin()], dim=1) * extent).repeat(1, 2)
        low, _ = model.decode(some.embedding, boxes=moved.clamp(0, model.image_size - 1), multimask=False)
        found.append(iou_of(model.postprocess(low, size, size)[:, 0] > 0, some.masks))
    return torch.cat(found)


def measure(seed: int) -> dict[str, float]:
    """Mean IoU of masks for boxes that are off, and shares of good masks (IoU 0.5) given what the words found."""
    sam, scenes = load_tiny(), draw_named(TEST, "test", start=TEST * seed)
    values = {f"box off by {s:.0%}": float(shifted_box_ious(sam, scenes, s, seed).mean()) for s in SHIFTS}
    boxes, masks = text_ious(cast(TextToBox, load_small(name="tiny_grounded")), sam, scenes)
    right, good = boxes >= 0.5, masks >= 0.5
    values["words: right box"] = float(right.double().mean())
    values["words: good mask"] = float(good.double().mean())
    values["words: good mask, where the box was right"] = float(good[right].double().mean()) if right.any() else 0.0
    values["words: good mask, where it was wrong"] = float(good[~right].double().mean()) if (~right).any() else 0.0
    return values


def setting() -> dict[str, Any]:
    return {"test": TEST, "shifts": list(SHIFTS)}


if __name__ == "__main__":
    question = "Which errors of the box does SAM mend, and which stay?"
    run(Finding("grounded_errors", question, "IoU, or share", "box off by 0%", setting()), measure)
