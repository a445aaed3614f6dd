"""Do hard negatives help? MoCHi on MoCo v2 (Kalantidis et al. 2020), HCL on SimCLR (Robinson et al. 2021), mini.

python -m benchmarks.findings.hard_negatives
"""

from typing import Any

from benchmarks.findings import simclr_common as common
from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import FAST, METRIC, config, images, knn, trained
from sslcourse.methods.hard_negatives import HCL, MoCHi
from sslcourse.methods.moco import MoCoV2
from sslcourse.methods.simclr import SimCLR

STEPS, BATCH = 200, 64
METHODS = {"SimCLR": SimCLR, "HCL": HCL, "MoCo v2": MoCoV2, "MoCHi": MoCHi}


def setting() -> dict[str, Any]:
    """What all arms share."""
    return common.setting() | FAST | {"steps": STEPS, "batch_size": BATCH}


def measure(seed: int) -> dict[str, float]:
    """kNN accuracy of both methods and of what they build on, for one seed."""
    data = images(seed)
    length: dict[str, Any] = {"steps": STEPS, "batch": BATCH, **FAST}
    return {
        arm: knn(trained(config(seed, method, **length), data[0], method).backbone, data)
        for arm, method in METHODS.items()
    }


if __name__ == "__main__":
    run(Finding("hard_negatives", "Do hard negatives help on Shapes?", METRIC, "SimCLR", setting()), measure)
