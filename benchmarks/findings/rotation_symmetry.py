"""A pretext task teaches only what it needs: rotation prediction on shapes that look the same from all four sides.

python -m benchmarks.findings.rotation_symmetry
"""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from benchmarks.findings import simclr_common as common
from benchmarks.findings.common import Finding, run
from sslcourse.data import Images, Shapes
from sslcourse.data.augment import center_view
from sslcourse.data.pretext import rotation_batch
from sslcourse.methods.rotation import Rotation

ARMS = {"asymmetric": ("triangle", "heart", "moon"), "symmetric": ("disc", "square", "ring", "cross")}
# Light from one side, tilt, or a place off the centre would tell the angle of a symmetric shape, too.
EVEN = {"light": 0.0, "rotation": 0.0, "shift": 0.0, "textures": ("plain",), "backgrounds": ("plain",)}


def setting() -> dict[str, Any]:
    """What both arms share."""
    return common.setting() | {"steps": common.STEPS // 2, "batch_size": common.BATCH // 2, "shapes": EVEN}


def scenes(split: str, seed: int, classes: tuple[str, ...], n: int) -> Images:
    """Evenly lit upright shapes of these classes, in their own colour all over: the emblem would tell the angle."""
    world = Shapes(split, size=common.SIZE, seed=seed, classes=classes, **EVEN)
    data = world.as_images(n)
    parts = torch.cat([world.batch(range(at, min(at + 500, n))).parts[:, 0] for at in range(0, n, 500)])
    rim = torch.nn.functional.max_pool2d(parts[:, 1:2].float(), 5, stride=1, padding=2) > 0
    bare = parts[:, :1] & ~rim
    colour = data.images.float().masked_fill(~bare, torch.nan).flatten(2).nanmedian(dim=2).values
    painted = torch.where(parts[:, :1] & rim, colour[:, :, None, None].to(torch.uint8), data.images)
    return replace(data, images=painted)


@torch.no_grad()
def solved(model: nn.Module, data: Images) -> float:
    """Share of the four rotations of unseen images whose angle is found."""
    model.eval()
    turned, angle = rotation_batch(center_view(data.images, common.SIZE))
    found = [model.head(model.backbone(x)).argmax(dim=1) for x in turned.split(500)]
    return (torch.cat(found) == angle).float().mean().item()


def measure(seed: int) -> dict[str, float]:
    """Accuracy of the pretext task on unseen scenes, for one seed; chance is 1/4."""
    preset = Rotation.PRESETS["cpu"]
    view = replace(preset.augment, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    train = replace(preset.train, steps=max(1, common.STEPS // 2), batch_size=common.BATCH // 2, seed=seed)
    found = {}
    for arm, classes in ARMS.items():
        data = scenes("train", seed, classes, common.TRAIN)
        model = common.trained(replace(preset, augment=view, train=train), data, Rotation)
        found[arm] = solved(model, scenes("test", seed, classes, common.TEST))
    return found


if __name__ == "__main__":
    question = "Can rotation be predicted for shapes that look the same from all sides?"
    metric = "accuracy of the pretext task"
    run(Finding("rotation_symmetry", question, metric, "symmetric", setting()), measure)
