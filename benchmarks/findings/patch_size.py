"""Small patches: what they give and what they cost. DINO with patches of 16, 8 and 4 pixels (its figure 5).

    python -m benchmarks.findings.patch_size

All networks have the same two blocks behind a stem of convolutions, and see the same crops; halving the side makes four
times as many tokens.
"""

import time
from functools import partial
from typing import Any

import torch

from benchmarks.findings import nonegatives_common as common
from benchmarks.findings import simclr_common as shared
from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import knn
from sslcourse.nn.vit import ViT

PATCHES, STEPS = (16, 8, 4), 400
TIMED, TIMES = 64, 5  # images in a batch, batches of which the fastest counts


def setting() -> dict[str, Any]:
    """What all arms share, for the record."""
    return common.vit_setting(steps=STEPS, timed=TIMED)


@torch.inference_mode()
def seconds(vit: ViT) -> float:
    """CPU seconds of a batch."""
    images, best = torch.zeros(TIMED, 3, shared.SIZE, shared.SIZE), float("inf")
    for _ in range(TIMES):
        start = time.process_time()
        vit(images)
        best = min(best, time.process_time() - start)
    return best


def measure(seed: int) -> dict[str, float]:
    """kNN accuracy and relative speed at each patch size, for one seed."""
    data, accuracy, cost = common.images(seed), {}, {}
    for patch in PATCHES:
        model = common.build(
            "dino", common.vit_config("dino", seed, steps=STEPS), partial(common.hybrid, patch_size=patch)
        )
        accuracy[f"patch {patch}, kNN"] = knn(common.trained(model, data[0])[0].backbone, data)
        cost[f"patch {patch}, speed"] = seconds(model.backbone)
    fastest = min(cost.values())
    return accuracy | {arm: fastest / value for arm, value in cost.items()}


if __name__ == "__main__":
    question = "What do smaller patches give DINO, and what do they cost?"
    metric = "kNN accuracy (k = 20); CPU seconds of the fastest / CPU seconds"
    run(Finding("patch_size", question, metric, "patch 16, kNN", setting()), measure)
