"""Do mixed images help where labels are few? Plain training, mixup (Zhang et al. 2018), CutMix (Yun et al. 2019).

    python -m benchmarks.findings.mixup_labels

A small convolutional network learns the classes of `LABELLED` scenes with DeiT's recipe, with one kind of mixing or
none, for equally many steps.
"""

from dataclasses import replace
from typing import Any

import torch

from benchmarks.findings import simclr_common as common
from benchmarks.findings.common import Finding, run
from sslcourse.data import Images
from sslcourse.data.augment import center_view
from sslcourse.methods.deit import DeiT

LABELLED, STEPS = 300, 400
ARMS = {
    "plain": {"mixup": 0.0, "cutmix": 0.0},
    "mixup": {"mixup": 0.2, "cutmix": 0.0},
    "CutMix": {"mixup": 0.0, "cutmix": 1.0},
}


def setting() -> dict[str, Any]:
    """What all arms share."""
    return common.setting() | common.FAST | {"method": "deit", "train": LABELLED, "steps": STEPS, "lr": 4e-3}


@torch.inference_mode()
def accuracy(model: DeiT, test: Images) -> float:
    """Share of test images whose class the classifier names."""
    model.eval()
    view = model.config.augment
    chosen = model.predict(center_view(test.images, view.size, view.mean, view.std)).argmax(dim=1)
    return float((chosen == test.labels).float().mean())


def measure(seed: int) -> dict[str, float]:
    """Accuracy on test images after training with each kind of mixing, for one seed."""
    data, test = common.images(seed)
    few, found = data.subset(torch.arange(min(LABELLED, len(data)))), {}
    for arm, mixing in ARMS.items():
        settings = common.config(seed, DeiT, steps=STEPS, **common.FAST, **mixing)
        settings = replace(settings, train=replace(settings.train, lr=4e-3))
        found[arm] = accuracy(common.trained(settings, few, DeiT), test)
    return found


if __name__ == "__main__":
    question = "Do mixed images help a classifier with few labels?"
    run(Finding("mixup_labels", question, "test accuracy", "plain", setting()), measure)
