"""Which is better, MAE or a contrastive method? A linear probe and fine-tuning may answer differently.

    python -m benchmarks.findings.probe_ranking

He et al. 2021, section 4.3: MoCo v3 is ahead of MAE in linear probing and behind in fine-tuning, so that one protocol
does not stand for the other. Here the contrastive method is SimCLR with its preset for sketches, at a learning rate
that a ViT bears, with the same ViT and as many views: it takes two of each image, which makes half as many steps.
"""

from typing import Any

from benchmarks.findings import masked_common as common
from benchmarks.findings.common import Finding, run

RATE = 1e-3  # of SimCLR


def setting() -> dict[str, Any]:
    """What all arms share, for the record."""
    return common.setting(data="shapes, sketch", methods=["mae", "simclr"], rate=RATE)


def measure(seed: int) -> dict[str, float]:
    """Both accuracies of both methods, for one seed."""
    data = common.images(seed)
    half = {"steps": -(-common.STEPS // 2), "lr": RATE}
    simclr = common.config(seed, "simclr", preset="cpu_sketch", train=half)
    encoders = {
        "MAE": common.trained("mae", common.config(seed, "mae"), data[0]),
        "SimCLR": common.trained("simclr", simclr, data[0]),
    }
    found = {f"{arm}, linear": common.linear(encoder, data) for arm, encoder in encoders.items()}
    return found | {f"{arm}, fine-tuned": common.tuned(encoder, data, seed) for arm, encoder in encoders.items()}


if __name__ == "__main__":
    question = "Do a linear probe and fine-tuning put MAE and SimCLR in the same order, on Shapes?"
    run(Finding("probe_ranking", question, "accuracy", "SimCLR, linear", setting()), measure)
