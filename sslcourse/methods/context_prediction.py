"""Context prediction: where does the second patch lie, seen from the first?

Doersch, Gupta, Efros 2015, "Unsupervised visual representation learning by context prediction", arXiv:1505.05192:

    for a batch of N images:
        a patch and one of its eight neighbours, with a gap and a jitter between them   -> `views`
        two of three colour channels of a patch replaced by noise ("colour dropping")   -> `views`
        one vector a patch by a shared network, the pair into a classifier              -> `forward`
        loss = cross-entropy over the eight places                                      -> `forward`
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.pretext import context_pair
from sslcourse.data.rng import shard_rows
from sslcourse.errors import InputError
from sslcourse.methods.simclr import SimCLR
from sslcourse.nn.backbones import backbone
from sslcourse.nn.heads import projection_head
from sslcourse.train.config import TrainConfig


class ContextPrediction(nn.Module):
    """Context prediction with any backbone that takes small patches.

    Attributes:
        backbone: (B, 3, patch, patch) -> (B, num_features), what is kept.
        head: the features of both patches -> (B, 8) logits.
    """

    name: ClassVar[str] = "context_prediction"

    @dataclass(frozen=True)
    class Config:
        """Settings of context prediction."""

        backbone: str = "resnet50"
        """Network whose output is the representation; see sslcourse.nn.backbones."""
        patch: int = 96
        """Side of a patch in pixels."""
        gap: int = 48
        """Pixels between the patches, about half a patch."""
        jitter: int = 7
        """Pixels by which each patch may lie elsewhere."""
        drop: float = 0.5
        """Probability that a patch keeps one colour channel only: lenses bend colours differently, which tells where in
        the photograph a patch lies."""
        hidden: int = 512
        """Width of the hidden layer that sees both patches."""
        augment: Augment = field(default_factory=lambda: Augment(398, (0.5, 1.0), jitter_p=0.0, gray=0.0, blur=0.0))
        """The random view that the patches are cut from; it has room for 3 patches, 2 gaps and 2 jitters on a side."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config) -> None:
        super().__init__()
        needed = 3 * config.patch + 2 * config.gap + 2 * config.jitter
        if config.augment.size < needed:
            raise InputError(f"context_prediction needs augment.size >= {needed} for its patches, gaps and jitter.")
        self.config = config
        self.backbone = backbone(config.backbone, config.patch)
        width: Any = self.backbone.num_features
        self.head = projection_head(2 * width, config.hidden, 8)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> two patches (B, 3, patch, patch), and the place 0 .. 7 of the second one (B,)."""
        c, device = self.config, images.device
        x = c.augment(images, generator=generator)
        total, mine = shard_rows(len(images), generator)
        label = torch.randint(8, (total,), generator=generator)[mine].to(device)
        shift = torch.randint(2 * c.jitter + 1, (2, 2, total), generator=generator)[:, :, mine].to(device)
        noise = torch.randn(2, total, 3, c.patch, c.patch, generator=generator)[:, mine].to(device)
        keep = torch.randint(3, (2, total), generator=generator)[:, mine].to(device)
        drop = (torch.rand(2, total, generator=generator)[:, mine] < c.drop).to(device)
        room = c.augment.size - (3 * c.patch + 2 * c.gap + 2 * c.jitter)
        middle = c.patch + c.gap + c.patch // 2 + room // 2  # leaves room for a neighbour on every side
        patches = []
        for i in range(2):
            cy, cx = middle + shift[i, 0], middle + shift[i, 1]
            p = context_pair(x, cy, cx, c.patch, c.gap, label)[i]
            lost = torch.arange(3, device=device) != keep[i][:, None]
            patches.append(torch.where((lost & drop[i][:, None])[:, :, None, None], noise[i], p))
        return [*patches, label]

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch; the embedding is that of the first patches."""
        p0, p1, label = views
        h0, h1 = self.backbone(torch.cat([p0, p1])).chunk(2)
        logits = self.head(torch.cat([h0, h1], dim=1)).float()
        accuracy = (logits.argmax(dim=1) == label).float().mean()
        return {"loss": F.cross_entropy(logits, label), "accuracy": accuracy, "embedding": h0}


ContextPrediction.PRESETS = {
    # For `Shapes` at 48 px on a CPU: patches of 14 px; not tuned.
    "cpu": ContextPrediction.Config(
        "convnet_fast", patch=14, gap=1, jitter=1, hidden=256, drop=0.5,
        augment=Augment(48, scale=(0.8, 1.0), jitter_p=0.0, gray=0.0, blur=0.0),
        train=replace(SimCLR.PRESETS["cpu"].train, batch_size=128, lr=4e-3),
    ),
    # Sections 3 and 4, with a ResNet-50 and a cosine in place of their AlexNet-like network and its step sizes.
    "imagenet_resnet50": ContextPrediction.Config(
        train=TrainConfig(epochs=70, batch_size=512, lr=0.05, weight_decay=5e-4, warmup_epochs=0)
    ),
}  # fmt: skip
