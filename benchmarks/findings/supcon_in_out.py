"""Mean over the positives outside the logarithm (L_out) or inside (L_in)? SupCon, section 3.2.2 and table 1.

python -m benchmarks.findings.supcon_in_out
"""

from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import METRIC, config, images, knn, setting, trained, untrained
from sslcourse.methods.supcon import SupCon


def measure(seed: int) -> dict[str, float]:
    """kNN accuracy with either loss, without labels and of the untrained network, for one seed."""
    data = images(seed)
    arms = {"L_out": {}, "L_in": {"loss": "in"}, "no labels": {"labels": False}}
    found = {
        arm: knn(trained(config(seed, SupCon, **change), data[0], SupCon).backbone, data)
        for arm, change in arms.items()
    }
    return found | {"untrained": knn(untrained(config(seed, SupCon), SupCon).backbone, data)}


if __name__ == "__main__":
    question = "Is SupCon better with the mean over positives outside the logarithm?"
    run(Finding("supcon_in_out", question, METRIC, "L_out", setting()), measure)
