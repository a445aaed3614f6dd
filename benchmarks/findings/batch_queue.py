"""Can a queue replace a large batch? MoCo (He et al. 2020, section 4.1, figure 3) in miniature.

    python -m benchmarks.findings.batch_queue

All arms take the same number of steps, so a larger batch also sees more images; the queue costs next to nothing.
"""

from typing import Any

from benchmarks.findings import simclr_common as common
from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import FAST, METRIC, images, knn, trained, untrained
from sslcourse.methods.moco import MoCoV2

SMALL, LARGE, QUEUE = 16, 64, 256
STEPS = 150


def config(seed: int, batch: int, queue: int) -> Any:
    """The preset "cpu" with this batch and queue."""
    batch = min(batch, common.TRAIN)  # which a test makes small
    return common.config(seed, MoCoV2, steps=STEPS, batch=batch, queue=queue, **FAST)


def setting() -> dict[str, Any]:
    """What all arms share."""
    shared = common.setting() | FAST | {"method": "moco_v2", "steps": STEPS}
    del shared["batch_size"]
    return shared


def measure(seed: int) -> dict[str, float]:
    """kNN accuracy with a small and a large batch, each without and with a queue, for one seed."""
    data = images(seed)
    arms = {
        f"batch {batch}, " + (f"queue {queue}" if queue else "no queue"): config(seed, batch, queue)
        for batch in (SMALL, LARGE)
        for queue in (0, QUEUE)
    }
    found = {arm: knn(trained(made, data[0], MoCoV2).backbone, data) for arm, made in arms.items()}
    return found | {"untrained": knn(untrained(config(seed, SMALL, 0), MoCoV2).backbone, data)}


if __name__ == "__main__":
    question = "Can a queue replace a large batch?"
    run(Finding("batch_queue", question, METRIC, f"batch {SMALL}, no queue", setting()), measure)
