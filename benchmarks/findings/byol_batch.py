"""Does BYOL need a large batch? BYOL and SimCLR on parts of one batch (Grill et al. 2020, section 5, "Batch size").

    python -m benchmarks.findings.byol_batch

As in the paper, every arm takes equally many steps on equally many images: gradients of the parts are averaged. What
a small part takes away is SimCLR's negatives and, from both methods, batch-norm statistics.
"""

from dataclasses import replace
from typing import Any

from benchmarks.findings import nonegatives_common as common
from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import METRIC, knn

METHODS = ("BYOL", "SimCLR")
PARTS, STEPS = (1, 8), 300


def setting() -> dict[str, Any]:
    """What all arms share."""
    return common.setting(parts=list(PARTS), steps=STEPS)


def measure(seed: int) -> dict[str, float]:
    """kNN accuracy of both methods at each number of images that are seen together, for one seed."""
    data, found = common.images(seed), {}
    for name in METHODS:
        method = name.lower()
        for parts in PARTS:
            settings = common.config(method, seed)
            settings = replace(settings, train=replace(settings.train, accumulate=parts, steps=STEPS))
            model, _ = common.trained(common.build(method, settings, common.small_convnet), data[0])
            found[f"{name}, 1/{parts}"] = knn(model.backbone, data)
    return found


if __name__ == "__main__":
    question = "Does BYOL lose less than SimCLR when fewer images are seen together?"
    run(Finding("byol_batch", question, METRIC, f"BYOL, 1/{PARTS[0]}", setting()), measure)
