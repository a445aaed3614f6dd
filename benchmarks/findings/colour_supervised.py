"""Strong colour jitter and AutoAugment: good for SimCLR, for supervised training, or both? SimCLR, table 1, in mini.

    python -m benchmarks.findings.colour_supervised

In part of the scenes the colour follows from the class: labels make use of it, contrast must not stop at it.
"""

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.findings import simclr_common as common
from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import FAST, METRIC, knn, trained
from sslcourse.data import Shapes
from sslcourse.data.policies import AutoAugment
from sslcourse.data.views import two_views
from sslcourse.methods.simclr import SimCLR

CORRELATION = 0.75
POLICY = "cifar10"
STEPS, BATCH = 150, 64
CROP = {"jitter_p": 0.0, "gray": 0.0, "solarize": 0.0}
VIEWS: dict[str, tuple[dict[str, Any], bool]] = {  # what changes of the preset's view, and whether a policy comes first
    "crop": (CROP, False),
    "strong colour": ({}, False),
    "AutoAugment": (CROP, True),
}


class Plain(SimCLR):
    """SimCLR whose views may begin with AutoAugment."""

    policy: ClassVar[bool] = False

    def view(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """One random view (B, 3, size, size)."""
        chosen = AutoAugment(POLICY)(images, generator=generator) if self.policy else images  # type: ignore[arg-type]
        return self.config.augment(chosen, generator=generator)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Two of them."""
        return list(two_views(images, partial(self.view, generator=generator)))


class Supervised(Plain):
    """The same network and views with a classifier of the ten classes on h; both views count."""

    uses: ClassVar[tuple[str, ...]] = ("labels",)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.head = nn.Linear(self.backbone.num_features, 10)  # type: ignore[arg-type]

    def forward(self, views: list[Tensor], labels: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """Cross-entropy of a batch."""
        h = self.backbone(torch.cat(views))
        return {"loss": cross_entropy(self.head(h), labels.repeat(2)), "embedding": h[: len(labels)]}


def setting() -> dict[str, Any]:
    """What all arms share."""
    length = {"steps": STEPS, "batch_size": BATCH}
    return common.setting() | FAST | length | {"colour_correlation": CORRELATION, "policy": POLICY}


def measure(seed: int) -> dict[str, float]:
    """kNN accuracy of either training with each kind of view, for one seed."""
    world: dict[str, Any] = {"size": common.SIZE, "seed": seed, "colour_correlation": CORRELATION}
    data = Shapes("train", **world).as_images(common.TRAIN), Shapes("test", **world).as_images(common.TEST)
    base = common.config(seed, steps=STEPS, batch=BATCH, **FAST)
    found = {}
    for name, method in {"supervised": Supervised, "SimCLR": Plain}.items():
        for view, (change, policy) in VIEWS.items():
            made = replace(base, augment=replace(base.augment, **change))
            cls = type(method.__name__, (method,), {"policy": policy})
            found[f"{name}, {view}"] = knn(trained(made, data[0], cls).backbone, data)
    return found


if __name__ == "__main__":
    question = "Which views suit supervised training, and which SimCLR?"
    run(Finding("colour_supervised", question, METRIC, "supervised, crop", setting()), measure)
