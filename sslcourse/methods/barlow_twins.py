"""Barlow Twins: two views agree on every feature, and no feature repeats another; no negatives, no second network.

Zbontar, Jing, Misra, LeCun, Deny 2021, "Barlow Twins: self-supervised learning via redundancy reduction",
arXiv:2103.03230, algorithm 1:

    for a batch of N images:
        two random views                                                       -> `views`
        z_a, z_b = f(view)               backbone and projector                -> `forward`
        C = z_a^T z_b / N                of features standardised over the batch
        loss = sum of (1 - C_ii)^2 + lambda * sum of C_ij^2, i != j            -> `forward`
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.views import two_views
from sslcourse.errors import InputError
from sslcourse.losses.barlow import barlow_twins_loss
from sslcourse.methods.simclr import SimCLR
from sslcourse.nn.backbones import backbone
from sslcourse.nn.heads import projection_head
from sslcourse.train.config import TrainConfig
from sslcourse.train.distributed import gather

# Section 2.2: BYOL's views; theirs differ in blur (1 and 0.1) and solarisation (0 and 0.2), ours have half the chance.
_VIEW = Augment(224, jitter=(0.4, 0.4, 0.2, 0.1), blur=0.55, solarize=0.1)


class BarlowTwins(nn.Module):
    """Barlow Twins with any backbone of `sslcourse.nn.backbones`.

    Attributes:
        backbone: what is kept.
        projector: (B, num_features) -> (B, dim); wider than the backbone's output pays here.
    """

    name: ClassVar[str] = "barlow_twins"

    @dataclass(frozen=True)
    class Config:
        """Settings of Barlow Twins."""

        backbone: str = "resnet50"
        """Network whose output is the representation; see sslcourse.nn.backbones."""
        hidden: int = 8192
        """Width of the projector's two hidden layers."""
        dim: int = 8192
        """Width of the embedding, whose correlations are compared with the identity."""
        lambd: float = 0.0051
        """Weight of the redundancy term; 0 lets all features say the same."""
        scale: float = 0.024
        """Factor of the loss, which grows with `dim` (the official code's value for LARS)."""
        augment: Augment = field(default_factory=lambda: _VIEW)
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: nn.Module | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names; it has `num_features`."""
        super().__init__()
        if not config.scale > 0 or config.lambd < 0:
            raise InputError(f"barlow_twins needs scale > 0 and lambd >= 0; got {config.scale=}, {config.lambd=}.")
        self.config = config
        self.backbone = backbone(config.backbone, config.augment.size) if encoder is None else encoder
        width: Any = self.backbone.num_features
        self.projector = projection_head(width, config.hidden, config.dim, layers=3, last_bias=False)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> two (B, 3, size, size) float views."""
        return list(two_views(images, partial(self.config.augment, generator=generator)))

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch, over the embeddings of all processes. Each view has batch statistics of its own."""
        z1, z2 = (self.projector(self.backbone(x)) for x in views)
        loss = self.config.scale * barlow_twins_loss(gather(z1), gather(z2), self.config.lambd)
        return {"loss": loss, "embedding": z1, "positive": z2}


# For sketches ("shapes:sketch"). On the default world, a minute without negatives ends below pixels: perhaps in the
# colour of the ground and the light, which two views share at no effort.
_SKETCH = SimCLR.PRESETS["cpu_sketch"]
BarlowTwins.PRESETS = {
    "cpu": BarlowTwins.Config(
        "convnet_fast", hidden=256, dim=256, lambd=0.02, augment=_SKETCH.augment, train=_SKETCH.train
    ),
    # Section 2.2: LARS, lr 0.2 x batch / 256, batch 2048, 1000 epochs with 10 of warm-up, weight decay 1.5e-6.
    "imagenet_resnet50": BarlowTwins.Config(
        train=TrainConfig(epochs=1000, batch_size=2048, optimizer="lars", lr=0.2, weight_decay=1.5e-6, warmup_epochs=10)
    ),
}
