"""Mask tokens in the encoder, or only in the decoder: MAE's table 1c in miniature.

python -m benchmarks.findings.mae_mask_token

Both arms hide the same three quarters of the patches, and both encoders are asked about whole images, from which no
patch is missing. Beside accuracies stands the time of training: CPU seconds without mask tokens as a share of those
with them.
"""

from typing import Any

from benchmarks.findings import mae_common as common
from benchmarks.findings import simclr_common as shared
from benchmarks.findings.common import Finding, run

ARMS = {"without": False, "with": True}


def setting() -> dict[str, Any]:
    """What all arms share, for the record."""
    return common.setting(common.COARSE)


def measure(seed: int) -> dict[str, float]:
    """Accuracies of both encoders and the share of the time, for one seed."""
    data, found = shared.images(seed), {}
    models = {
        arm: common.trained(common.config(seed, common.COARSE, encoder_mask_tokens=m), data[0])
        for arm, m in ARMS.items()
    }
    for arm, model in models.items():
        found |= {f"{arm}, {exam}": value for exam, value in common.exams(model, data).items()}
    return found | {"time without": min(1.0, models["without"].seconds / models["with"].seconds)}


if __name__ == "__main__":
    question = "Should MAE's encoder see mask tokens, on Shapes?"
    metric = "accuracy, share of the time"
    run(Finding("mae_mask_token", question, metric, "with, linear", setting()), measure)
