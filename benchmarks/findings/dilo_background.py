"""Do exchanged backgrounds teach a network to look at the object? DiLo (Zhao et al. 2021, section 4) in miniature.

    python -m benchmarks.findings.dilo_background

In training the background gives the class away in 95 % of the scenes; in the test it says nothing. The neighbours
come from the training scenes, so a network that compares backgrounds is led astray. DiLo's views are put into SimCLR
here: in so few steps DiLo's own basis, MoCo, learns hardly more than a random network knows.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.findings import simclr_common as common
from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import FAST, METRIC, config, knn, trained, untrained
from sslcourse.data import Shapes
from sslcourse.methods.dilo import DiLo
from sslcourse.methods.simclr import SimCLR

PRESET = "correlated_background"
RATIO = 0.3  # of the views get another background
STEPS = 300
ARMS = {"SimCLR": 0.0, "SimCLR with DiLo's views": RATIO}


class Pasted(SimCLR):
    """SimCLR on DiLo's views."""

    @dataclass(frozen=True)
    class Config(SimCLR.Config):
        """Settings of DiLo's views, on top of SimCLR's."""

        saliency: str = "border"  # a thirtieth of the time of "rbd" and nearly as good before an even ground
        background: str = "image"
        ratio: float = RATIO
        threshold: float = 0.2

    PRESETS: ClassVar[dict[str, Any]]

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Two views, either on a background of its own, and colours as mild as DiLo's preset has them."""
        return DiLo.views(self, images, generator)[:2]  # type: ignore[arg-type]


_SIMCLR = SimCLR.PRESETS["cpu"]
_FIELDS = {name: getattr(_SIMCLR, name) for name in SimCLR.Config.__dataclass_fields__}
Pasted.PRESETS = {"cpu": Pasted.Config(**_FIELDS | {"augment": DiLo.PRESETS["cpu"].augment})}


def setting() -> dict[str, Any]:
    """What all arms share."""
    view = asdict(Pasted.PRESETS["cpu"].augment)
    world = {"shapes": PRESET, "test background_correlation": 0.0, "train": common.TRAIN // 2, "steps": STEPS}
    return common.setting() | FAST | world | {"saliency": "border", "ratio": RATIO, "view": view}


def measure(seed: int) -> dict[str, float]:
    """kNN accuracy on scenes with any background, with and without DiLo and without training, for one seed."""
    world: dict[str, Any] = {"size": common.SIZE, "seed": seed, "preset": PRESET}
    data = Shapes("train", **world).as_images(common.TRAIN // 2)
    test = Shapes("test", **world, background_correlation=0.0).as_images(common.TEST)
    base = config(seed, Pasted, steps=STEPS, **FAST)
    arms = {arm: trained(replace(base, ratio=ratio), data, Pasted) for arm, ratio in ARMS.items()}
    arms["untrained"] = untrained(base, Pasted)
    return {arm: knn(model.backbone, (data, test)) for arm, model in arms.items()}


if __name__ == "__main__":
    question = "Do DiLo's views make a network look at the object where the background gives the class away?"
    run(Finding("dilo_background", question, METRIC, "SimCLR", setting()), measure)
