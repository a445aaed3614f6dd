"""RotNet: to tell by how many quarter turns an image was rotated, a network has to know what is in it.

Gidaris, Singh, Komodakis 2018, "Unsupervised representation learning by predicting image rotations", arXiv:1803.07728:

    for a batch of N images:
        a random crop and flip of every image                            -> `views`
        all four rotations of each, with labels 0, 90, 180, 270 degrees  -> `forward`
        loss = cross-entropy of the 4-way classifier (Eq. 1 and 2)       -> `forward`
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.pretext import rotation_batch
from sslcourse.methods.simclr import SimCLR
from sslcourse.nn.backbones import backbone
from sslcourse.train.config import TrainConfig


class Rotation(nn.Module):
    """Rotation prediction with any backbone of `sslcourse.nn.backbones`.

    Attributes:
        backbone: (B, 3, size, size) -> (B, num_features), what is kept.
        head: (B, num_features) -> (B, 4) logits.
    """

    name: ClassVar[str] = "rotation"

    @dataclass(frozen=True)
    class Config:
        """Settings of rotation prediction."""

        backbone: str = "resnet50"
        """Network whose output is the representation; see sslcourse.nn.backbones."""
        augment: Augment = field(default_factory=lambda: Augment(224, jitter_p=0.0, gray=0.0, blur=0.0))
        """The random view before the rotation; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone(config.backbone, config.augment.size)
        width: Any = self.backbone.num_features
        self.head = nn.Linear(width, 4)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> one (B, 3, size, size) float view."""
        return [self.config.augment(images, generator=generator)]

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch; the embedding is that of the upright images."""
        turned, angle = rotation_batch(views[0])
        h = self.backbone(turned)
        logits = self.head(h).float()
        accuracy = (logits.argmax(dim=1) == angle).float().mean()
        return {"loss": F.cross_entropy(logits, angle), "accuracy": accuracy, "embedding": h[: len(views[0])]}


_PLAIN: dict[str, Any] = {"jitter_p": 0.0, "gray": 0.0, "blur": 0.0}
Rotation.PRESETS = {
    # For `Shapes` at 32 px on a CPU; not tuned. Each image counts four times, so batches are smaller.
    "cpu": Rotation.Config(
        "convnet_fast",
        augment=Augment(32, scale=(0.5, 1.0), jitter=(0.8, 0.8, 0.8, 0.5), jitter_p=1.0, gray=0.4, blur=0.0),
        train=replace(SimCLR.PRESETS["cpu"].train, batch_size=32, lr=8e-3),
    ),
    # Section 4.1: SGD, batch 128 (x 4 rotations), lr 0.1, weight decay 5e-4, 100 epochs. Their rate falls by steps.
    "cifar10_resnet18": Rotation.Config(
        "resnet18",
        augment=Augment(32, scale=(0.5, 1.0), **_PLAIN),
        train=TrainConfig(epochs=100, batch_size=128, lr=0.2, weight_decay=5e-4, warmup_epochs=0),
    ),
    # Section 4.3, with a ResNet-50 in place of AlexNet: batch 192, lr 0.01, weight decay 5e-4, 30 epochs.
    "imagenet_resnet50": Rotation.Config(
        train=TrainConfig(epochs=30, batch_size=192, lr=0.0133, weight_decay=5e-4, warmup_epochs=0),
    ),
}
