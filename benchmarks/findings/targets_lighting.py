"""What an MAE predicts where light falls at random: pixels, standardised pixels or HOG.

    python -m benchmarks.findings.targets_lighting

Every image, of training and of test, is darkened by a factor, and by another one that changes from side to side in a
direction of its own. Who predicts pixels has to say how bright a hidden patch is; HOG, whose cells have unit length,
leaves that out, which MaskFeat gives as a reason for it (Wei et al. 2021, section 3.2), and so do standardised patches.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.findings import masked_common as common
from benchmarks.findings.common import Finding, run
from sslcourse.data import Images
from sslcourse.data.rng import step_generator
from sslcourse.evaluate import extract_features, knn_accuracy

TARGETS = ("pixels", "normalized", "hog")
DARKEST = 0.3


def setting() -> dict[str, Any]:
    """What all arms share, for the record."""
    return common.setting(data="shapes, sketch, lit at random", method="mae", darkest=DARKEST)


def lit(images: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, H, W) uint8 under random light: times a number in [`DARKEST`, 1], times a ramp that falls as far."""
    b, _, h, w = images.shape
    gain, depth, angle = torch.rand(3, b, 1, 1, generator=generator)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    across = (angle * 2 * math.pi).cos() * columns + (angle * 2 * math.pi).sin() * rows  # in [-sqrt 2, sqrt 2]
    ramp = 1 - (1 - DARKEST) * depth * (across / math.sqrt(2) + 1) / 2
    light = (DARKEST + (1 - DARKEST) * gain) * ramp
    return (images * light[:, None]).round().to(torch.uint8)


def images(seed: int) -> tuple[Images, Images]:
    """Training and test images under random light."""
    bank, test = (
        replace(part, images=lit(part.images, step_generator(seed, i))) for i, part in enumerate(common.images(seed))
    )
    return bank, test


def measure(seed: int) -> dict[str, float]:
    """Accuracies of the encoder of every target and of the untrained one, for one seed."""
    data = images(seed)
    encoders = {target: common.trained("mae", common.config(seed, "mae", target=target), data[0]) for target in TARGETS}
    encoders["untrained"] = common.untrained("mae", common.config(seed, "mae"))
    found = {f"{arm}, linear": common.linear(encoder, data) for arm, encoder in encoders.items()}
    return found | {f"{arm}, kNN": knn(encoder, data) for arm, encoder in encoders.items()}


def knn(encoder: Any, data: tuple[Images, Images]) -> float:
    """Accuracy of the 20 nearest of the labelled images."""
    bank, test = common.labelled(data[0], common.LABELLED), data[1]
    x, q = (extract_features(common.Places(encoder), part) for part in (bank, test))
    return knn_accuracy(x, bank.labels, q, test.labels).value


if __name__ == "__main__":
    question = "Which target of an MAE makes classes of Shapes linearly separable under random light?"
    run(Finding("targets_lighting", question, "accuracy", "pixels, linear", setting()), measure)
