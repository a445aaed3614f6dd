"""Which augmentations have to be composed? SimCLR, section 3.1, in miniature: crop, colour, both.

python -m benchmarks.findings.simclr_augmentation
"""

from dataclasses import replace
from typing import Any

from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import METRIC, config, images, knn, setting, trained, untrained

CROP = {"scale": (0.5, 1.0)}  # the preset hardly crops, because of what this finding shows
ARMS: dict[str, dict[str, Any]] = {
    "crop and colour": CROP,
    "crop only": CROP | {"jitter_p": 0.0, "gray": 0.0, "solarize": 0.0},
    "colour only": {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)},
}


def measure(seed: int) -> dict[str, float]:
    """kNN accuracy of each arm and of the untrained network, for one seed."""
    data, base = images(seed), config(seed)
    arms = {
        name: knn(trained(replace(base, augment=replace(base.augment, **change)), data[0]).backbone, data)
        for name, change in ARMS.items()
    }
    return arms | {"untrained": knn(untrained(base).backbone, data)}


if __name__ == "__main__":
    question = "Which augmentations does SimCLR need on Shapes: crop, colour, or both?"
    run(Finding("simclr_augmentation", question, METRIC, "crop and colour", setting()), measure)
