"""Which temperature does SimCLR need? Too low looks at a few negatives, too high at all alike (SimCLR, table 5).

python -m benchmarks.findings.simclr_temperature
"""

from typing import Any

from benchmarks.findings import simclr_common as common
from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import FAST, METRIC, config, images, knn, trained

TAUS = (0.02, 0.2, 2.0)


def setting() -> dict[str, Any]:
    """What all arms share."""
    return common.setting() | FAST


def measure(seed: int) -> dict[str, float]:
    """kNN accuracy at each temperature, for one seed."""
    data = images(seed)
    return {f"tau {tau:g}": knn(trained(config(seed, tau=tau, **FAST), data[0]).backbone, data) for tau in TAUS}


if __name__ == "__main__":
    question = "Which temperature does SimCLR need on Shapes?"
    run(Finding("simclr_temperature", question, METRIC, "tau 0.2", setting()), measure)
