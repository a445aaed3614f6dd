"""Which temperature does SimCLR need? Too low looks at a few negatives, too high at all alike (SimCLR, table 5).

python -m benchmarks.findings.simclr_temperature
"""

from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import METRIC, config, images, knn, setting, trained

TAUS = (0.02, 0.1, 0.2, 0.5, 2.0)


def measure(seed: int) -> dict[str, float]:
    """kNN accuracy at each temperature, for one seed."""
    data = images(seed)
    return {f"tau {tau:g}": knn(trained(config(seed, tau=tau), data[0]).backbone, data) for tau in TAUS}


if __name__ == "__main__":
    question = "Which temperature does SimCLR need on Shapes?"
    run(Finding("simclr_temperature", question, METRIC, "tau 0.2", setting()), measure)
