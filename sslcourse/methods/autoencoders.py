"""Two autoencoders that are shown a damaged image: without noise, and without a hole.

Vincent, Larochelle, Bengio, Manzagol 2008, "Extracting and composing robust features with denoising autoencoders";
Pathak, Krahenbuhl, Donahue, Darrell, Efros 2016, "Context encoders: feature learning by inpainting", arXiv:1604.07379:

    for a batch of N images:
        a random crop and flip, and what is to be destroyed in it                    -> `views`
        encode the damaged image, decode all of it                                   -> `forward`
        loss = squared error against the intact image: everywhere (denoising),
               in the hole, its rim counted more (inpainting, Eq. 1)                 -> `reconstruction`

The paper on inpainting adds an adversarial loss, which sharpens the picture; it trains its features without it.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.rng import shard_rows
from sslcourse.errors import InputError
from sslcourse.evaluate.encoder import dense_features
from sslcourse.losses.reconstruction import denoising_loss, inpaint_l2
from sslcourse.methods.simclr import SimCLR
from sslcourse.nn.backbones import backbone
from sslcourse.nn.decoder import decoder
from sslcourse.train.config import TrainConfig


class Denoising(nn.Module):
    """A denoising autoencoder with any backbone that has a feature map.

    Attributes:
        backbone: (B, 3, size, size) -> (B, num_features), what is kept.
        decoder: feature map -> image.
    """

    name: ClassVar[str] = "denoising"

    @dataclass(frozen=True)
    class Config:
        """Settings of both autoencoders."""

        backbone: str = "resnet50"
        """Network whose output is the representation; see sslcourse.nn.backbones."""
        damage: Literal["gaussian", "masking", "hole"] = "gaussian"
        """Noise on every pixel, pixels set to the mean, or one square set to the mean."""
        amount: float = 0.5
        """Standard deviation of the noise, share of the pixels, or side of the square as a part of the image's."""
        stride: int = 32
        """How much smaller than the image the feature map is, a power of 2."""
        augment: Augment = field(default_factory=lambda: Augment(224, jitter_p=0.0, gray=0.0, blur=0.0))
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.damage not in ("gaussian", "masking", "hole") or not config.amount > 0:
            raise InputError(f"{self.name} needs damage by gaussian, masking or hole and an amount above 0.")
        self.config = config
        self.backbone = backbone(config.backbone, config.augment.size)
        width: Any = self.backbone.num_features
        self.decoder = decoder(width, 3, config.stride)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> the intact view, the damaged one, and where it is damaged (B, 1, size, size) bool."""
        x = self.config.augment(images, generator=generator)
        total, mine = shard_rows(len(x), generator)
        side, amount = self.config.augment.size, self.config.amount
        if self.config.damage == "gaussian":
            noise = torch.randn(total, 3, side, side, generator=generator)[mine].to(x.device)
            return [x, x + amount * noise, torch.ones_like(x[:, :1], dtype=torch.bool)]
        if self.config.damage == "masking":
            mask = torch.rand(total, 1, side, side, generator=generator)[mine] < amount
        else:
            hole = max(1, min(side, round(amount * side)))
            corner = torch.randint(side - hole + 1, (total, 2), generator=generator)[mine]
            along = torch.arange(side) - corner[:, :, None]
            inside = (along >= 0) & (along < hole)
            mask = (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
        mask = mask.to(x.device)
        return [x, x.masked_fill(mask, 0.0), mask]  # 0 is the mean colour of standardised images

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch, and the images that the network makes of the damaged ones."""
        intact, damaged, mask = views
        features = dense_features(self.backbone, damaged)
        made = self.decoder(features).float()
        loss = self.reconstruction(made, intact, mask)
        return {"loss": loss, "image": made, "embedding": features.mean(dim=(2, 3))}

    def reconstruction(self, made: Tensor, intact: Tensor, mask: Tensor) -> Tensor:
        """Squared error over the whole image."""
        return denoising_loss(made, intact)


class Inpainting(Denoising):
    """A context encoder: the network fills a hole."""

    name: ClassVar[str] = "inpainting"
    PRESETS: ClassVar[dict[str, Denoising.Config]]

    def reconstruction(self, made: Tensor, intact: Tensor, mask: Tensor) -> Tensor:
        """Squared error in the hole, its rim counted more."""
        return inpaint_l2(made, intact, mask)


_VIEW = Augment(32, scale=(0.5, 1.0), jitter_p=0.0, gray=0.0, blur=0.0)
# For `shapes:sketch`: on the default world what fills an image is its colours, and kNN does not gain.
_SHORT = replace(SimCLR.PRESETS["cpu"].train, steps=300, lr=4e-3)
_CPU = Denoising.Config("convnet_fast", stride=8, augment=_VIEW, train=_SHORT)
# The denoising paper trains stacks of layers on digits; this is the same idea with today's network and optimiser.
_ADAM = TrainConfig(epochs=100, batch_size=256, optimizer="adamw", lr=2e-4, betas=(0.5, 0.999), warmup_epochs=0)
Denoising.PRESETS = {"cpu": _CPU, "imagenet_resnet50": Denoising.Config(train=_ADAM)}
Inpainting.PRESETS = {
    "cpu": replace(_CPU, damage="hole"),
    # Section 5: Adam, holes in random places, images of 227 px; ours of 224.
    "imagenet_resnet50": Denoising.Config(damage="hole", train=_ADAM),
}
