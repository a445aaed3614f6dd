"""The discrete VAE: learn a vocabulary of patches in which images can be written, BEiT's tokenizer.

Ramesh, Pavlov, Goh, Gray, Voss, Radford, Chen, Sutskever 2021, "Zero-shot text-to-image generation", arXiv:2102.12092,
section 2.1:

    for a batch of images:
        one weakly augmented view, and Gumbel noise, one number a place and token    -> `views`
        the encoder gives logits of K tokens at every place                          -> `backbone.logits`
        a relaxed sample of the tokens at temperature tau, as codes                  -> `gumbel_dvae_step`
        the decoder paints the view from the codes                                   -> `backbone.decoder`
        loss = squared error + weight * KL(tokens || uniform)                        -> `forward`
        after each step tau falls: samples become one-hot                            -> `after_step`
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.errors import InputError
from sslcourse.losses.dvae import gumbel_dvae_step, gumbel_noise, tau_schedule
from sslcourse.methods.mae import VIEW
from sslcourse.nn.dvae import DVAE
from sslcourse.train.config import TrainConfig


class DiscreteVAE(nn.Module):
    """A discrete VAE.

    Attributes:
        backbone: the whole dVAE; `backbone.tokenize` is what BEiT needs.
        tau: the temperature now.
    """

    name: ClassVar[str] = "dvae"
    tau: Tensor

    @dataclass(frozen=True)
    class Config:
        """Settings of the discrete VAE."""

        backbone: str = "dvae"
        """The only architecture."""
        vocabulary: int = 8192
        """Tokens."""
        dim: int = 512
        """Width of a token's code."""
        layers: int = 3
        """Times that the side is halved: a token covers 2^layers pixels."""
        hidden: int = 256
        """Channels."""
        straight_through: bool = False
        """Decode one-hot samples, with the gradient of relaxed ones."""
        kl_weight: float = 0.0
        """Weight of the KL divergence a place; more keeps more tokens in use and paints worse."""
        tau: tuple[float, float] = (1.0, 1 / 16)
        """Temperature at the start and at the end."""
        augment: Augment = field(default_factory=lambda: VIEW)
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, dvae: DVAE | None = None) -> None:
        """`dvae` takes the place of the one that `config` describes."""
        super().__init__()
        if min(config.tau) <= 0 or config.backbone != "dvae":
            raise InputError(f"dvae needs temperatures above 0 and backbone 'dvae'; got {config.tau}.")
        self.config = config
        self.backbone = dvae or DVAE(config.vocabulary, config.dim, config.layers, config.hidden)
        if config.augment.size % self.backbone.stride:
            raise InputError(f"a view of {config.augment.size} px is no multiple of a token's {self.backbone.stride}.")
        self.register_buffer("tau", torch.tensor(config.tau[0]))

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> views (B, 3, size, size) and Gumbel noise (B, K, rows, columns)."""
        x = self.config.augment(images, generator=generator)
        side = x.shape[2] // self.backbone.stride
        return [x, gumbel_noise(len(x), (self.backbone.vocabulary, side, side), generator).to(x.device)]

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch; "pred" (B, 3, H, W), and "kl", the mean divergence of a place in nats."""
        x, gumbel = views
        logits, config = self.backbone.logits(x), self.config
        codebook = self.backbone.codebook.weight
        codes, kl = gumbel_dvae_step(logits, codebook, float(self.tau), gumbel, config.straight_through)
        pred = self.backbone.decoder(codes)
        loss = (pred - x).square().mean() + config.kl_weight * kl
        return {"loss": loss, "embedding": logits.softmax(dim=1).mean(dim=(2, 3)), "pred": pred, "kl": kl}

    def after_step(self, step: int, total_steps: int) -> None:
        """Cool down."""
        self.tau.fill_(tau_schedule(step + 1, total_steps, *self.config.tau))


# Appendix A.2: Adam (0.9, 0.999), lr 1e-4 -> 1.25e-6, weight decay 1e-4, batch 512.
_ADAM = TrainConfig(epochs=100, batch_size=512, optimizer="adamw", lr=5e-5, weight_decay=1e-4, warmup_epochs=1)
DiscreteVAE.PRESETS = {
    # A minute on 2 CPU cores for `Shapes` at 32 px; tokens of 4 px, what BEiT's "cpu" preset needs.
    "cpu": DiscreteVAE.Config(
        vocabulary=128,
        dim=32,
        layers=2,
        hidden=32,
        augment=replace(VIEW, size=32, scale=(0.6, 1.0)),
        train=replace(_ADAM, steps=400, batch_size=32, lr=1.6e-2, warmup_epochs=0.5),
    ),
    "imagenet": DiscreteVAE.Config(train=_ADAM),
}
