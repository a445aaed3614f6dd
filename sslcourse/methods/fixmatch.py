"""FixMatch and its family: a few labels, and what is said of an image has to be said of its other views, too.

A classifier is trained on the labelled images by cross-entropy and on all by a term that needs no label, whose target
is the network's own prediction (`sslcourse.losses.consistency`); MixMatch has a file of its own:

    Pseudo-label  Lee 2013: the arg max of the same view, with a weight that rises from 0
    UDA           Xie et al. 2019, arXiv:1904.12848: KL to the sharpened prediction for the plain view
    FixMatch      Sohn et al. 2020, arXiv:2001.07685: the arg max of a weak view where it is certain, of a strong view

    for a batch of N images, of which every `one_in`-th has a label:
        a weak and a strong (or second weak) view of every image   -> `views`
        loss = cross-entropy of the labelled + weight x consistency  -> `forward`
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.policies import RandAugment
from sslcourse.data.views import two_views
from sslcourse.errors import InputError
from sslcourse.losses.consistency import (
    fixmatch_consistency,
    pseudo_label_loss,
    uda_consistency,
)
from sslcourse.methods.simclr import SimCLR
from sslcourse.nn.backbones import backbone
from sslcourse.train.config import TrainConfig

_WEAK = Augment(224, scale=(0.5, 1.0), jitter_p=0.0, gray=0.0, blur=0.0)


class FixMatch(nn.Module):
    """FixMatch; `backbone` is what is kept, `head` the classifier. The others change `consistency` or the views."""

    name: ClassVar[str] = "fixmatch"
    uses: ClassVar[tuple[str, ...]] = ("labels", "indices")
    strong: ClassVar[bool] = True  # whether the second view is strongly augmented

    @dataclass(frozen=True)
    class Config:
        """Settings of the family."""

        backbone: str = "resnet50"
        """Network whose output is the representation; see sslcourse.nn.backbones."""
        classes: int = 1000
        """Number of classes."""
        one_in: int = 10
        """Every so many-th image has a label; the labels of the others are not looked at."""
        weight: float = 1.0
        """Of the consistency term; it rises along a line in the first `ramp` of the training."""
        ramp: float = 0.4
        """Part of the training in which the weight rises."""
        threshold: float = 0.95
        """Predictions that are less certain count as 0 (not in MixMatch)."""
        temperature: float = 0.5
        """Sharpens the target of MixMatch and UDA."""
        alpha: float = 0.75
        """Of the Beta distribution of MixMatch's mixing shares."""
        augment: Augment = field(default_factory=lambda: _WEAK)
        """The weak random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Any]]

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.classes < 2 or config.one_in < 1 or not config.temperature > 0 or not config.alpha > 0:
            raise InputError(
                f"{self.name} needs 2 or more classes, one_in >= 1, temperature and alpha above 0; got "
                f"{config.classes}, {config.one_in}, {config.temperature} and {config.alpha}."
            )
        self.config = config
        self.backbone = backbone(config.backbone, config.augment.size)
        width: Any = self.backbone.num_features
        self.head = nn.Linear(width, config.classes)
        self.register_buffer("risen", torch.tensor(float(config.ramp == 0)))
        self.risen: Tensor

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> a weak and a strong (or second weak) (B, 3, size, size) view."""
        weak = partial(self.config.augment, generator=generator)
        first, second = two_views(images, weak)
        if self.strong:
            second = weak(RandAugment()(images, generator=generator))
        return [first, second]

    def forward(self, views: list[Tensor], labels: Tensor, indices: Tensor) -> dict[str, Tensor]:
        """Loss of a batch; an image has a label if its number `indices` is a multiple of `one_in`."""
        known = self.known(labels, indices)
        h = self.backbone(torch.cat(views[:2]))
        first, second = self.head(h).float().chunk(2)
        supervised = F.cross_entropy(first[known], labels[known]) if bool(known.any()) else first.sum() * 0.0
        unlabelled = self.consistency(first, second)
        loss = supervised + self.config.weight * self.risen * unlabelled
        return {"loss": loss, "supervised": supervised, "consistency": unlabelled, "embedding": h[: len(first)]}

    def known(self, labels: Tensor, indices: Tensor) -> Tensor:
        """(B,) bool, whose label may be looked at."""
        if int(labels.max()) >= self.config.classes:
            raise InputError(f"{self.name} got label {int(labels.max())}; it needs a higher --classes.")
        return (indices % self.config.one_in == 0) & (labels >= 0)

    def consistency(self, first: Tensor, second: Tensor) -> Tensor:
        """The term that needs no label, from the (B, classes) logits of both views."""
        return fixmatch_consistency(first, second, self.config.threshold)

    def after_step(self, step: int, total_steps: int) -> None:
        """The weight of the consistency term rises."""
        self.risen.fill_(min(1.0, (step + 1) / max(1.0, self.config.ramp * total_steps)))


class UDA(FixMatch):
    """UDA: the whole sharpened prediction is the target."""

    name: ClassVar[str] = "uda"

    def consistency(self, first: Tensor, second: Tensor) -> Tensor:
        return uda_consistency(first, second, self.config.temperature, self.config.threshold)


class PseudoLabel(FixMatch):
    """Pseudo-label: the network's own arg max, of the same view."""

    name: ClassVar[str] = "pseudo_label"
    strong: ClassVar[bool] = False

    def consistency(self, first: Tensor, second: Tensor) -> Tensor:
        return pseudo_label_loss(first, self.config.threshold)


_SIMCLR = SimCLR.PRESETS["cpu"]
_PAPER = TrainConfig(epochs=300, batch_size=512, optimizer="sgd", lr=0.015, weight_decay=5e-4, warmup_epochs=0)
_CPU = FixMatch.Config("convnet_fast", 10, augment=replace(_WEAK, size=32), train=_SIMCLR.train)
_RESNET = replace(_CPU, backbone="wide_resnet50_2", one_in=12, train=_PAPER)  # CIFAR-10 with 4,000 labels
FixMatch.PRESETS = {"cpu": _CPU, "cifar10": _RESNET}
UDA.PRESETS = {k: replace(c, threshold=0.8, temperature=0.4) for k, c in FixMatch.PRESETS.items()}
PseudoLabel.PRESETS = {k: replace(c, threshold=0.0, ramp=0.4) for k, c in FixMatch.PRESETS.items()}
