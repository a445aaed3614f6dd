"""Mean over the positives outside the logarithm (L_out) or inside (L_in)? SupCon, section 3.2.2 and table 1.

python -m benchmarks.findings.supcon_in_out
"""

from typing import Any

from benchmarks.findings import simclr_common as common
from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import FAST, METRIC, config, images, knn, trained, untrained
from sslcourse.methods.supcon import SupCon


def setting() -> dict[str, Any]:
    """What all arms share."""
    return common.setting() | FAST | {"method": "supcon", "tau": SupCon.PRESETS["cpu"].tau}


def measure(seed: int) -> dict[str, float]:
    """kNN accuracy with either loss and of the untrained network, for one seed."""
    data = images(seed)
    arms: dict[str, dict[str, Any]] = {"L_out": {}, "L_in": {"loss": "in"}}
    found = {
        arm: knn(trained(config(seed, SupCon, **FAST, **change), data[0], SupCon).backbone, data)
        for arm, change in arms.items()
    }
    return found | {"untrained": knn(untrained(config(seed, SupCon, **FAST), SupCon).backbone, data)}


if __name__ == "__main__":
    question = "Is SupCon better with the mean over positives outside the logarithm?"
    run(Finding("supcon_in_out", question, METRIC, "L_out", setting()), measure)
