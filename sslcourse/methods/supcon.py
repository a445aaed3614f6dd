"""SupCon: SimCLR with labels, where all views of all images of a class are positives of each other.

Khosla et al. 2020, "Supervised contrastive learning", arXiv:2004.11362:

    for a batch of N labelled images:
        two random views of every image                          -> `views`
        z = Proj(Enc(view))                                      -> `backbone`, `head`
        loss = L_out (Eq. 2) or L_in (Eq. 3) over all 2N views   -> `forward`
    then a linear classifier on the frozen Enc: `sslcourse eval`
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.views import two_views
from sslcourse.errors import InputError, unknown
from sslcourse.losses.supcon import supcon_in, supcon_out
from sslcourse.methods.simclr import SimCLR
from sslcourse.nn.backbones import backbone
from sslcourse.nn.heads import projection_head
from sslcourse.train.config import TrainConfig
from sslcourse.train.distributed import gather


class SupCon(nn.Module):
    """SupCon with any backbone of `sslcourse.nn.backbones`.

    Attributes:
        backbone: (B, 3, size, size) -> (B, num_features), what is kept.
        head: (B, num_features) -> (B, dim).
    """

    name: ClassVar[str] = "supcon"
    uses: ClassVar[tuple[str, ...]] = ("labels",)

    @dataclass(frozen=True)
    class Config:
        """Settings of SupCon."""

        backbone: str = "resnet50"
        """Network Enc whose output is the representation; see sslcourse.nn.backbones."""
        hidden: int = 2048
        """Width of the hidden layer of the head."""
        bn: bool = False
        """Batch norm in the head; the paper has none, but a small network on small images collapses without."""
        dim: int = 128
        """Width of the embedding that the loss compares."""
        tau: float = 0.1
        """Temperature."""
        loss: Literal["out", "in"] = "out"
        """Mean over the positives outside the logarithm (L_out) or inside (L_in)."""
        labels: bool = True
        """False ignores the labels; with the loss L_out that is SimCLR."""
        tile: int = 0
        """Rows of similarities computed at a time (L_out only); 0 computes all at once."""
        augment: Augment = field(default_factory=lambda: Augment(224))
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config) -> None:
        super().__init__()
        if not config.tau > 0:
            raise InputError(f"supcon needs a temperature above 0; got tau={config.tau}.")
        if config.loss not in ("out", "in"):
            raise unknown("loss", config.loss, ["out", "in"])
        if config.tile and config.loss == "in":
            raise InputError("supcon computes tiles of L_out only; use tile=0 with loss='in'.")
        self.config = config
        self.backbone = backbone(config.backbone, config.augment.size)
        width: Any = self.backbone.num_features
        self.head = projection_head(width, config.hidden, config.dim, bn=config.bn, last_bn=config.bn)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> two (B, 3, size, size) float views."""
        return list(two_views(images, partial(self.config.augment, generator=generator)))

    def forward(self, views: list[Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Loss of a batch, over the embeddings and labels (B,) of all processes."""
        if self.config.labels and bool((labels < 0).any()):
            raise InputError("supcon needs a label for every image; these have none (labels=False trains without).")
        z1, z2 = self.head(self.backbone(torch.cat(views))).chunk(2)
        z = torch.stack([gather(z1), gather(z2)], dim=1)
        y = gather(labels) if self.config.labels else None
        if self.config.loss == "in":
            loss = supcon_in(z, y, self.config.tau)
        else:
            loss = supcon_out(z, y, self.config.tau, tile=self.config.tile or None)
        return {"loss": loss, "embedding": z1, "positive": z2}


_SIMCLR = SimCLR.PRESETS["cpu"]
SupCon.PRESETS = {
    "cpu": SupCon.Config(
        "convnet_fast", 256, bn=True, tau=0.2, augment=_SIMCLR.augment, train=replace(_SIMCLR.train, lr=4e-3)
    ),
    # Section 4.2 and appendix: batch 6144, 700 epochs, tau 0.1; AutoAugment there, SimCLR's view here.
    "imagenet_resnet50": SupCon.Config(
        tile=1024,
        train=TrainConfig(epochs=700, batch_size=6144, optimizer="lars", lr=0.5, weight_decay=1e-4, warmup_epochs=10),
    ),
    # The official code on CIFAR-10: lr 0.5 for a batch of 1024, 1000 epochs, jitter at half strength, no blur.
    "cifar10_resnet50": SupCon.Config(
        augment=Augment(32, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), blur=0.0),
        train=TrainConfig(epochs=1000, batch_size=1024, lr=0.125, weight_decay=1e-4, warmup_epochs=10),
    ),
}
