"""What keeps DINO's prototypes in use, and does the teacher need momentum? (Its table 7; DINOv2's Sinkhorn.)

    python -m benchmarks.findings.dino_parts

Arms: targets by centering, by a softmax alone, by Sinkhorn; and by centering without momentum, where the teacher is the
student without gradient. In use: every test image chooses the prototype that the teacher puts first, of the centred
logits where there is a centre and of the plain ones otherwise, so Sinkhorn has to have balanced them in training;
exp(entropy) of these choices, as a share of all prototypes. Information: as in `dino_centering`.
"""

import math
from typing import Any

import torch

from benchmarks.findings import dino_centering as dino
from benchmarks.findings import simclr_common as shared
from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import knn

ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "centering": ("mean", {}),
    "softmax": ("none", {}),
    "Sinkhorn": ("sinkhorn", {}),
    "no momentum": ("mean", {"m": 0.0}),
}


def setting() -> dict[str, Any]:
    """What all arms share, for the record."""
    return dino.setting() | {"tt": dino.SHARP, "m": dino.CHANGES["m"]}


@torch.no_grad()
def in_use(model: dino.Watched) -> tuple[float, float]:
    """Of one view of some test images: exp(entropy of the chosen prototypes) / K, and the information in the targets.

    Both without Sinkhorn, which would balance the test images too.
    """
    model.eval()
    logits = model.teacher["head"](model.backbone(model.view)) - model.targets.center  # 0 where there is no centre
    k = logits.shape[1]
    chosen = logits.argmax(dim=1).bincount(minlength=k) / len(logits)
    single, mean = dino.entropies((logits / dino.SHARP).softmax(dim=1))
    return float(torch.special.entr(chosen).sum().exp()) / k, max(0.0, mean - single) / math.log(k)


def measure(seed: int) -> dict[str, float]:
    """Prototypes in use, information in the targets and kNN accuracy of each arm, for one seed."""
    data, found = shared.images(seed), {}
    for arm, (kind, changes) in ARMS.items():
        model = dino.watched(seed, dino.SHARP, kind, data, **changes)
        found[f"{arm}, in use"], found[f"{arm}, information"] = in_use(model)
        found[f"{arm}, kNN"] = knn(model.backbone, data)
    return found


if __name__ == "__main__":
    question = "Which targets keep DINO's prototypes in use, and does its teacher need momentum?"
    metric = "prototypes in use / all; information in the targets, share of ln K; kNN accuracy (k = 20)"
    run(Finding("dino_parts", question, metric, "centering, in use", setting()), measure)
