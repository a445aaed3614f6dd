"""Colorization: see the lightness of a photograph, choose its colours.

Zhang, Isola, Efros 2016, "Colorful image colorization", arXiv:1603.08511:

    for a batch of N images:
        a random crop and flip of every image                                                -> `views`
        its lightness L goes in; the colours ab, soft-encoded over bins, are the target      -> `forward`
        loss = cross-entropy at every place, rare colours counted more (Eq. 2 to 4)          -> `forward`
    to look at: the annealed mean of the predicted distribution (Eq. 5)                      -> `colorize`
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import MEAN, STD, Augment, Triple
from sslcourse.data.lab import ab_bins, annealed_mean, color_soft_encode, lab_to_rgb, rebalance, rgb_to_lab
from sslcourse.evaluate.encoder import dense_features
from sslcourse.methods.simclr import SimCLR
from sslcourse.nn.backbones import backbone
from sslcourse.nn.decoder import decoder
from sslcourse.train.config import TrainConfig


class Lightness(nn.Module):
    """A backbone that sees only L of a standardised colour image, in all three channels."""

    def __init__(self, inner: Any, mean: Triple = MEAN, std: Triple = STD) -> None:
        super().__init__()
        self.inner, self.num_features = inner, inner.num_features
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def lab(self, x: Tensor) -> Tensor:
        """Standardised colours (B, 3, H, W) -> Lab."""
        return rgb_to_lab((x.float() * self.std + self.mean).clamp(0, 1))

    def grey(self, x: Tensor) -> Tensor:
        """(B, 3, H, W): L in about [-1, 1], three times."""
        return (self.lab(x)[:, :1] / 50 - 1).expand(-1, 3, -1, -1)

    def forward_map(self, x: Tensor) -> Tensor:
        return dense_features(self.inner, self.grey(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.grey(x))


class Colorization(nn.Module):
    """Colorization as classification with any backbone that has a feature map.

    Attributes:
        backbone: (B, 3, size, size) -> (B, num_features), what is kept; it looks at the lightness only.
        head: feature map -> logits over the bins, at a quarter of the image's side.
        bins: (Q, 2), the colours.
        prior: (Q,), how frequent each has been so far.
    """

    name: ClassVar[str] = "colorization"
    bins: Tensor
    prior: Tensor

    @dataclass(frozen=True)
    class Config:
        """Settings of colorization."""

        backbone: str = "resnet50"
        """Network whose output is the representation; see sslcourse.nn.backbones."""
        step: float = 10.0
        """Side of a colour bin in the ab plane."""
        enlarge: int = 8
        """How much larger than the feature map the predicted colour map is, a power of 2."""
        rebalance: float = 0.5
        """Share of the uniform distribution in the colour weights; 1 counts all colours the same."""
        augment: Augment = field(default_factory=lambda: Augment(224, jitter_p=0.0, gray=0.0, blur=0.0))
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        view = config.augment
        self.backbone = Lightness(backbone(config.backbone, view.size), view.mean, view.std)
        self.register_buffer("bins", ab_bins(config.step))
        self.register_buffer("prior", torch.full((len(self.bins),), 1 / len(self.bins)))
        self.head = decoder(self.backbone.num_features, len(self.bins), config.enlarge, narrowest=64)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> one (B, 3, size, size) float view."""
        return [self.config.augment(images, generator=generator)]

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch, a weighted mean over all places."""
        features = self.backbone.forward_map(views[0])
        logits = self.head(features).float()
        ab = F.adaptive_avg_pool2d(self.backbone.lab(views[0])[:, 1:], logits.shape[2:])
        target = color_soft_encode(ab.permute(0, 2, 3, 1), self.bins).permute(0, 3, 1, 2)
        if self.training:
            self.prior.lerp_(target.mean(dim=(0, 2, 3)), 0.01)
        weight = rebalance(self.prior, self.config.rebalance)[target.argmax(dim=1)]
        loss = (weight * F.cross_entropy(logits, target, reduction="none")).sum() / weight.sum()
        return {"loss": loss, "embedding": features.mean(dim=(2, 3))}

    @torch.no_grad()
    def colorize(self, x: Tensor, T: float = 0.38) -> Tensor:
        """The image as the network colours it: standardised (B, 3, H, W) -> RGB in [0, 1]."""
        logits = self.head(self.backbone.forward_map(x)).permute(0, 2, 3, 1)
        ab = annealed_mean(logits, self.bins, T).permute(0, 3, 1, 2)
        ab = F.interpolate(ab, x.shape[2:], mode="bilinear")
        return lab_to_rgb(torch.cat([self.backbone.lab(x)[:, :1], ab], dim=1))


Colorization.PRESETS = {
    # For `shapes:correlated_colour` on a CPU: where a colour belongs to a class, who can colour knows the class. In
    # the default world any shape has any colour, and there is nothing to learn.
    "cpu": Colorization.Config(
        "convnet_fast", step=20.0, enlarge=2,
        augment=Augment(32, scale=(0.5, 1.0), jitter_p=0.0, gray=0.0, blur=0.0),
        train=replace(SimCLR.PRESETS["cpu"].train, steps=300, batch_size=128, lr=4e-3),
    ),
    # Section 3.1, with a ResNet-50 in place of their network: Adam, lr 3e-5 for a batch of 40, weight decay 1e-3.
    "imagenet_resnet50": Colorization.Config(
        train=TrainConfig(epochs=14, batch_size=40, optimizer="adamw", lr=1.9e-4, betas=(0.9, 0.99),
                          weight_decay=1e-3, warmup_epochs=0)
    ),
}  # fmt: skip
