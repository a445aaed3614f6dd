"""How slowly must MoCo's key encoder follow? Several momenta with one queue, and none (He et al. 2020, section 4.1).

    python -m benchmarks.findings.moco_momentum

The network is smaller than the preset's, so that the six trainings of a seed fit into two minutes.
"""

from dataclasses import replace
from typing import Any

from benchmarks.findings import simclr_common as common
from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import METRIC, images, knn, trained, untrained
from sslcourse.methods.moco import MoCoV2
from sslcourse.nn.convnet import ConvNet

MOMENTA = (0.0, 0.9, 0.99, 0.999, 0.9999)
CHANNELS, STRIDES = (16, 32, 64, 128), (2, 2, 2, 1)
STEPS, BATCH = 400, 32


class Small(MoCoV2):
    """MoCo v2 with half the channels and a quarter of the pixels after the first layer."""

    def __init__(self, config: Any) -> None:
        super().__init__(config, ConvNet(CHANNELS, STRIDES))


def config(seed: int, **changes: Any) -> Any:
    """The preset "cpu" with the length and batch of this finding."""
    preset = MoCoV2.PRESETS["cpu"]
    return replace(preset, train=replace(preset.train, steps=STEPS, batch_size=BATCH, seed=seed), **changes)


def setting() -> dict[str, Any]:
    """What all arms share."""
    preset = MoCoV2.PRESETS["cpu"]
    mine = {"method": "moco_v2", "channels": list(CHANNELS), "strides": list(STRIDES), "queue": preset.queue}
    return common.setting() | mine | {"tau": preset.tau, "steps": STEPS, "batch_size": BATCH}


def measure(seed: int) -> dict[str, float]:
    """kNN accuracy at each momentum, with the slow encoder but no queue, and without training, for one seed."""
    data = images(seed)
    arms = {f"m {m:g}": config(seed, m=m) for m in MOMENTA} | {"no queue": config(seed, queue=0)}
    found = {name: knn(trained(arm, data[0], Small).backbone, data) for name, arm in arms.items()}
    return found | {"untrained": knn(untrained(config(seed), Small).backbone, data)}


if __name__ == "__main__":
    question = "How slowly must MoCo's key encoder follow on Shapes?"
    run(Finding("moco_momentum", question, METRIC, "m 0.99", setting()), measure)
