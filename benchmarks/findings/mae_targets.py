"""What an MAE predicts: pixels, standardised pixels, HOG, or the nearest of a codebook. MAE's table 1d in miniature.

python -m benchmarks.findings.mae_targets

The codebook is made by k-means of patches, which takes no training; a dVAE's tokens and a teacher's features would take
one, and do not fit into the two minutes of a seed.
"""

from typing import Any

from benchmarks.findings import mae_common as common
from benchmarks.findings import simclr_common as shared
from benchmarks.findings.common import Finding, run
from sslcourse import methods

TARGETS = ("pixels", "normalized", "hog", "codebook")


def setting() -> dict[str, Any]:
    """What all arms share, for the record."""
    return common.setting(common.COARSE)


def measure(seed: int) -> dict[str, float]:
    """Accuracies of the encoder of every target and of the untrained one, for one seed."""
    data = shared.images(seed)
    models = {target: common.trained(common.config(seed, common.COARSE, target=target), data[0]) for target in TARGETS}
    models["untrained"] = methods.build(common.Small, common.config(seed, common.COARSE))
    found = {arm: common.exams(model, data) for arm, model in models.items()}
    return {f"{arm}, {exam}": values[exam] for exam in ("linear", "kNN") for arm, values in found.items()}


if __name__ == "__main__":
    question = "Which target of an MAE makes classes of Shapes linearly separable?"
    run(Finding("mae_targets", question, "accuracy", "pixels, linear", setting()), measure)
