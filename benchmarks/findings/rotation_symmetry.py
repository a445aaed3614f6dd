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
# An emblem, light from one side, tilt, or a place off the centre would tell the angle of a symmetric shape, too.
EVEN: dict[str, Any] = {
    "emblem": False,
    "light": 0.0,
    "rotation": 0.0,
    "shift": 0.0,
    "textures": ("plain",),
    "backgrounds": ("plain",),
}


def setting() -> dict[str, Any]:
    """What both arms share."""
    return (
        common.setting() | common.FAST | {"steps": common.STEPS // 2, "batch_size": common.BATCH // 2, "shapes": EVEN}
    )


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
    settings = replace(preset, **common.FAST, augment=view, train=train)
    found = {}
    for arm, classes in ARMS.items():
        world = {"size": common.SIZE, "seed": seed, "classes": classes, **EVEN}
        model = common.trained(settings, Shapes("train", **world).as_images(common.TRAIN), Rotation)
        found[arm] = solved(model, Shapes("test", **world).as_images(common.TEST))
    return found


if __name__ == "__main__":
    question = "Can rotation be predicted for shapes that look the same from all sides?"
    metric = "accuracy of the pretext task"
    run(Finding("rotation_symmetry", question, metric, "symmetric", setting()), measure)
