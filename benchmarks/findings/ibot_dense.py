"""Does hiding patches teach what is where? iBOT against DINO: a linear layer on every patch, and kNN (tables 1 and 7).

    python -m benchmarks.findings.ibot_dense

Both see the same crops for equally many steps, with the same network and with Sinkhorn; iBOT's loss of hidden patches
comes on top.
"""

from typing import Any

from benchmarks.findings import nonegatives_common as common
from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import knn
from sslcourse.evaluate.dense import segmentation_probe
from sslcourse.evaluate.dense_data import DenseData, shapes_classes
from sslcourse.evaluate.encoder import Encoder

# Images with class maps, as many again for the test, and their side; steps of the linear layer.
SCENES, SIDE, PROBE = 400, 64, 200
PROTOTYPES = 256  # iBOT's preset's


def setting() -> dict[str, Any]:
    """What all arms share, for the record."""
    return common.vit_setting(prototypes=PROTOTYPES, scenes=SCENES, side=SIDE, probe=PROBE)


def maps(seed: int) -> tuple[DenseData, DenseData]:
    """Sketches with the class of every pixel."""
    train, test = (shapes_classes(part, SCENES, SIDE, preset="sketch", seed=seed) for part in ("train", "test"))
    return train, test


def measure(seed: int) -> dict[str, float]:
    """mIoU of a linear layer on the patches and kNN accuracy of their mean, for one seed."""
    data, dense, values = common.images(seed), maps(seed), {}
    for arm, name in {"iBOT": "ibot", "DINO": "dino", "untrained": ""}.items():
        method = name or "dino"
        model = common.build(method, common.vit_config(method, seed, prototypes=PROTOTYPES), common.hybrid)
        backbone = (common.trained(model, data[0])[0] if name else model).backbone
        values[f"{arm}, mIoU"] = segmentation_probe(Encoder(backbone), *dense, steps=PROBE, seed=seed).value
        values[f"{arm}, kNN"] = knn(backbone, data)
    return values


if __name__ == "__main__":
    question = "Do iBOT's patches say more about classes of pixels than DINO's?"
    metric = "mIoU of a linear layer on the patches; kNN accuracy (k = 20) of their mean"
    run(Finding("ibot_dense", question, metric, "DINO, mIoU", setting()), measure)
