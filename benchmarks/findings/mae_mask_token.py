"""Mask tokens in the encoder, or only in the decoder: MAE's table 1c in miniature.

python -m benchmarks.findings.mae_mask_token

Both arms hide the same three quarters of the patches, and both encoders are asked about whole images, from which no
patch is missing. Beside accuracies stands the work: operations of a forward pass of the preset "cpu", which has 64
patches, without mask tokens as a share of those with them.
"""

from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.findings import mae_common as common
from benchmarks.findings import simclr_common as shared
from benchmarks.findings.common import Finding, run
from sslcourse import methods
from sslcourse.data.rng import step_generator
from sslcourse.methods.mae import MAE

ARMS = {"without": False, "with": True}


def setting() -> dict[str, Any]:
    """What all arms share, for the record."""
    return common.setting(common.COARSE)


def measure(seed: int) -> dict[str, float]:
    """Accuracies of both encoders and the share of the work, for one seed."""
    data, found = shared.images(seed), {}
    models = {
        arm: common.trained(common.config(seed, common.COARSE, encoder_mask_tokens=m), data[0])
        for arm, m in ARMS.items()
    }
    for arm, model in models.items():
        found |= {f"{arm}, {exam}": value for exam, value in common.exams(model, data).items()}
    return found | {"work without": work(seed, False) / work(seed, True)}


def work(seed: int, tokens: bool) -> float:
    """Operations of a forward pass of the preset "cpu" on one image."""
    preset = MAE.PRESETS["cpu"]
    model = methods.build(MAE, replace(preset, encoder_mask_tokens=tokens))
    size = preset.augment.size
    views = model.views(torch.zeros(1, 3, size, size, dtype=torch.uint8), step_generator(seed, 0))
    with FlopCounterMode(display=False) as counter:
        model(views)
    return float(counter.get_total_flops())


if __name__ == "__main__":
    question = "Should MAE's encoder see mask tokens, on Shapes?"
    metric = "accuracy, share of the work"
    run(Finding("mae_mask_token", question, metric, "with, linear", setting()), measure)
