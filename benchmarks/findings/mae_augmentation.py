"""What MAE needs of augmentation, and what SimCLR: crops alone, or crops with strong changes of colour.

    python -m benchmarks.findings.mae_augmentation

MAE's table 1e: random crops are enough, and colour jitter makes it worse, whereas contrastive methods fall behind
without it (Chen et al. 2020, figure 5), since two crops of an image have its colours in common. Both methods see the
same crops; the colour is SimCLR's, grey images included. MAE has the ViT of `masked_common`, SimCLR the small
convolutional network; both are asked by a linear probe.
"""

from dataclasses import replace
from typing import Any

from benchmarks.findings import masked_common as common
from benchmarks.findings.common import Finding, run
from sslcourse.data.augment import Augment
from sslcourse.methods.simclr import SimCLR

COLOUR = replace(SimCLR.PRESETS["cpu"].augment, size=common.SIZE, scale=(0.6, 1.0))
VIEWS: dict[str, Augment] = {
    "crop": replace(COLOUR, jitter_p=0.0, gray=0.0, blur=0.0),
    "crop and colour": replace(COLOUR, blur=0.0),
}
BACKBONES = {"MAE": common.BACKBONE, "SimCLR": "convnet_fast"}


def setting() -> dict[str, Any]:
    """What all arms share, for the record."""
    return common.setting(data="shapes", backbone=BACKBONES)


def measure(seed: int) -> dict[str, float]:
    """Accuracy of a linear probe for both methods and both views, and untrained, for one seed."""
    data, found = common.images(seed, "default"), {}
    for method, backbone in BACKBONES.items():
        name = method.lower()
        for view, augment in VIEWS.items():
            settings = common.config(seed, name, backbone=backbone, augment=augment)
            found[f"{method}, {view}"] = common.linear(common.trained(name, settings, data[0]), data)
        found[f"{method}, untrained"] = common.linear(common.untrained(name, settings), data)
    return found


if __name__ == "__main__":
    question = "Do MAE and SimCLR need changes of colour beside crops, on Shapes?"
    run(Finding("mae_augmentation", question, "accuracy of a linear probe", "MAE, crop", setting()), measure)
