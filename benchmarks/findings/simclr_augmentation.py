"""Which augmentations have to be composed? SimCLR, section 3.1, in miniature: crop, colour, both, neither.

python -m benchmarks.findings.simclr_augmentation
"""

from dataclasses import replace

from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import METRIC, SIZE, TEST, TRAIN, config, images, knn, trained, untrained

STEPS = 200
NO_CROP = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
NO_COLOUR = {"jitter_p": 0.0, "gray": 0.0}
ARMS = {
    "crop and colour": {},
    "crop only": NO_COLOUR,
    "colour only": NO_CROP,
    "flip only": NO_CROP | NO_COLOUR,
}


def measure(seed: int) -> dict[str, float]:
    """kNN accuracy of each arm and of the untrained network, for one seed."""
    data, base = images(seed), config(seed, STEPS)
    arms = {
        name: knn(trained(replace(base, augment=replace(base.augment, **change)), data[0]).backbone, data)
        for name, change in ARMS.items()
    }
    return arms | {"untrained": knn(untrained(base).backbone, data)}


if __name__ == "__main__":
    run(
        Finding(
            name="simclr_augmentation",
            question="Which augmentations does SimCLR need on Shapes: crop, colour, or both?",
            metric=METRIC,
            baseline="crop and colour",
            setting={"preset": "cpu", "steps": STEPS, "data": "shapes", "size": SIZE, "train": TRAIN, "test": TEST},
        ),
        measure,
    )
