"""Does KoLeo spread features, and does that help to find an image again? DINOv2 without and with it (table 3a).

    python -m benchmarks.findings.koleo_spread

Nearest: the mean distance of a test image's unit feature to the nearest other one, as a share of the largest distance
there is, 2. Found: the share of random crops of test images whose nearest test image is the one they were cut from.
mAP: test images as queries against training images, where those of the same class are relevant.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.findings import nonegatives_common as common
from benchmarks.findings.common import Finding, run
from sslcourse.data.rng import step_generator
from sslcourse.evaluate import extract_features
from sslcourse.evaluate.features import frozen
from sslcourse.evaluate.retrieval import retrieval_map
from sslcourse.losses.koleo import nearest_neighbor
from sslcourse.nn.vit import ViT

WEIGHTS, STEPS = (0.0, 0.1), 200


def setting() -> dict[str, Any]:
    """What all arms share, for the record."""
    return common.setting(
        method="dinov2", backbone="vit, 2 blocks of width 64, patches of 8, stem of convolutions", steps=STEPS
    )


def network() -> ViT:
    """The untrained ViT."""
    return common.small_vit(mask_token=True, stem="conv")


@torch.no_grad()
def found_again(backbone: ViT, images: Tensor, features: Tensor, seed: int) -> float:
    """Share of crops of (N, 3, H, W) images that are nearest to their own image among (N, D) unit features."""
    with frozen(backbone):
        crops = normalize(backbone(common.VIEW(images, generator=step_generator(seed, 0))), dim=1)
    return float(((crops @ features.T).argmax(dim=1) == torch.arange(len(features))).float().mean())


def measure(seed: int) -> dict[str, float]:
    """Distance to the nearest neighbour, crops found again and mAP at each weight of KoLeo, for one seed."""
    data, values = common.images(seed), {}
    for weight in WEIGHTS:
        settings = common.config("dinov2", seed, koleo=weight)
        settings = replace(settings, train=replace(settings.train, steps=STEPS))
        model, _ = common.trained(common.build("dinov2", settings, network), data[0])
        bank, queries = (normalize(extract_features(model.backbone, part), dim=1) for part in data)
        near = (queries - queries[nearest_neighbor(queries)]).norm(dim=1).mean() / 2
        values |= {
            f"KoLeo {weight:g}, nearest": float(near),
            f"KoLeo {weight:g}, found": found_again(model.backbone, data[1].images, queries, seed),
            f"KoLeo {weight:g}, mAP": retrieval_map(bank, data[0].labels, queries, data[1].labels).value,
        }
    return values


if __name__ == "__main__":
    question = "Does KoLeo spread features, and does that help retrieval?"
    metric = "distance to the nearest neighbour / 2; crops found again; mAP of classes"
    run(Finding("koleo_spread", question, metric, "KoLeo 0, nearest", setting()), measure)
