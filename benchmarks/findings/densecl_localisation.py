"""Does a loss on every cell of the map help where places matter? DenseCL (Wang et al. 2021, section 4) in miniature.

    python -m benchmarks.findings.densecl_localisation

Views are crops of scenes of several objects, so two crops of one scene share only some; a linear layer on the frozen
map of whole scenes then says which class is where. With lambda = 0 DenseCL is MoCo v2: one number is all that differs.
"""

from dataclasses import replace
from typing import Any

from benchmarks.findings import simclr_common as common
from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import FAST, config, trained, untrained
from sslcourse.data import Shapes
from sslcourse.evaluate.dense import segmentation_probe
from sslcourse.evaluate.dense_data import shapes_classes
from sslcourse.evaluate.encoder import Encoder
from sslcourse.methods.densecl import DenseCL

PRESET, SIZE = "multi", 64  # of the scenes; the views are half as wide
VIEW = {"scale": (0.25, 0.6)}
WEIGHTS = {"global": 0.0, "global and dense": 0.5}
STEPS, BATCH, PROBE_STEPS = 400, 64, 150


def settings(seed: int, dense: float) -> Any:
    """The preset "cpu" with another weight of the dense loss."""
    made = config(seed, DenseCL, steps=STEPS, batch=BATCH, dense=dense, **FAST)
    return replace(made, augment=replace(made.augment, **VIEW))


def setting() -> dict[str, Any]:
    """What all arms share."""
    length = {"steps": STEPS, "batch_size": BATCH, "train": common.TRAIN // 2, "test": common.TEST // 2}
    mine = {"method": "densecl", "shapes": PRESET, "size": SIZE, "view": VIEW, "probe steps": PROBE_STEPS}
    return common.setting() | FAST | length | mine


def measure(seed: int) -> dict[str, float]:
    """mIoU of class maps with and without the dense loss and without training, for one seed."""
    data = Shapes("train", size=SIZE, seed=seed, preset=PRESET).as_images(common.TRAIN // 2)
    parts = [shapes_classes(split, common.TEST // 2, SIZE, preset=PRESET, seed=seed) for split in ("train", "test")]
    models = {arm: trained(settings(seed, weight), data, DenseCL) for arm, weight in WEIGHTS.items()}
    models["untrained"] = untrained(settings(seed, 0.0), DenseCL)
    return {
        arm: segmentation_probe(Encoder(model.backbone), *parts, steps=PROBE_STEPS, seed=seed).value
        for arm, model in models.items()
    }


if __name__ == "__main__":
    question = "Does a loss on every cell of the map help to tell what is where?"
    run(Finding("densecl_localisation", question, "mIoU of a linear probe", "global", setting()), measure)
