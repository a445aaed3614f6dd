"""How deep should MAE's decoder be? MAE's table 1a in miniature: the linear probe against fine-tuning.

    python -m benchmarks.findings.mae_decoder_depth

With a shallow decoder the last blocks of the encoder have to do a part of the painting, which a linear probe suffers
from and fine-tuning can undo (He et al. 2021, section 4.1). Arms are named by the number of blocks. Without any block a
mask token sees nothing, so that nothing at all would reach the encoder.
"""

from typing import Any

from benchmarks.findings import masked_common as common
from benchmarks.findings.common import Finding, run

DEPTHS = (1, 4)


def setting() -> dict[str, Any]:
    """What all arms share, for the record."""
    return common.setting(data="shapes, sketch", method="mae")


def measure(seed: int) -> dict[str, float]:
    """Both accuracies for every depth and without training, for one seed."""
    data = common.images(seed)
    encoders = {"untrained": common.untrained("mae", common.config(seed, "mae"))}
    for depth in DEPTHS:
        settings = common.config(seed, "mae", decoder_depth=depth)
        encoders[f"depth {depth}"] = common.trained("mae", settings, data[0])
    found = {f"{arm}, linear": common.linear(encoder, data) for arm, encoder in encoders.items()}
    return found | {f"{arm}, fine-tuned": common.tuned(encoder, data, seed) for arm, encoder in encoders.items()}


if __name__ == "__main__":
    question = "Does a deeper decoder help MAE's encoder more in a linear probe than in fine-tuning, on Shapes?"
    run(Finding("mae_decoder_depth", question, "accuracy", "depth 1, linear", setting()), measure)
