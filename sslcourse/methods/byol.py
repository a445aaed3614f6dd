"""BYOL: predict what a slowly moving copy of the network says about the other view; no image is a negative.

Grill et al. 2020, "Bootstrap your own latent: a new approach to self-supervised learning", arXiv:2006.07733,
algorithm 1 (appendix A):

    for a batch of N images:
        two random views v, v'                                              -> `views`
        z = g(f(v)), p = q(z)              online: encoder, projector, predictor
        z' = g'(f'(v'))                    target: no predictor, no gradient
        loss = |p/|p| - z'/|z'||^2, and the same with the views swapped     -> `forward`
        after the update:  target <- tau target + (1 - tau) online, tau -> 1 along a cosine  -> `after_step`
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.views import two_views
from sslcourse.errors import InputError
from sslcourse.losses.byol import byol_loss
from sslcourse.methods.simclr import SimCLR
from sslcourse.nn.backbones import backbone
from sslcourse.nn.heads import projection_head
from sslcourse.nn.momentum import frozen_copy
from sslcourse.train.config import TrainConfig
from sslcourse.train.optim import cosine_ema_schedule, ema_update

_VIEW = Augment(224, jitter=(0.4, 0.4, 0.2, 0.1), blur=0.55, solarize=0.1)


class BYOL(nn.Module):
    """BYOL with any backbone of `sslcourse.nn.backbones`.

    Attributes:
        backbone, projector, predictor: the online network; the backbone is what is kept.
        target: the moving average of backbone and projector.
    """

    name: ClassVar[str] = "byol"

    @dataclass(frozen=True)
    class Config:
        """Settings of BYOL."""

        backbone: str = "resnet50"
        """Network f whose output is the representation; see sslcourse.nn.backbones."""
        hidden: int = 4096
        """Width of the hidden layers of projector and predictor."""
        dim: int = 256
        """Width of projections and predictions."""
        predictor: bool = True
        """False leaves the predictor out, which lets the network collapse (the paper's table 5b)."""
        m: float = 0.996
        """Momentum of the target at the start; it rises to 1 along a cosine. 0 makes the target the online network."""
        augment: Augment = field(default_factory=lambda: _VIEW)
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: nn.Module | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names; it has `num_features`."""
        super().__init__()
        if not 0 <= config.m <= 1:
            raise InputError(f"byol needs m in [0, 1]; got m={config.m}.")
        self.config = config
        self.backbone = backbone(config.backbone, config.augment.size) if encoder is None else encoder
        width: Any = self.backbone.num_features
        self.projector = projection_head(width, config.hidden, config.dim, hidden_bias=True)
        self.predictor: nn.Module = nn.Identity()
        if config.predictor:
            self.predictor = projection_head(config.dim, config.hidden, config.dim, hidden_bias=True)
        self.target = frozen_copy(nn.ModuleDict({"backbone": self.backbone, "projector": self.projector}))

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> two (B, 3, size, size) float views."""
        return list(two_views(images, partial(self.config.augment, generator=generator)))

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch. Both views go through a network as one batch, so batch-norm statistics span both.

        The target, too, normalises by the statistics of the batch. (The official JAX code runs one view at a time.)
        """
        both = torch.cat(views)
        z1, z2 = self.projector(self.backbone(both)).chunk(2)
        p1, p2 = self.predictor(torch.cat([z1, z2])).chunk(2)
        with torch.no_grad():
            t1, t2 = self.target["projector"](self.target["backbone"](both)).chunk(2)
        return {"loss": byol_loss(p1, p2, t1, t2), "embedding": z1, "positive": z2}

    def after_step(self, step: int, total_steps: int) -> None:
        """Move the target; its batch-norm statistics are its own."""
        online = nn.ModuleDict({"backbone": self.backbone, "projector": self.projector})
        ema_update(online, self.target, cosine_ema_schedule(step, total_steps, self.config.m), buffers="keep")


# Appendix B: the two views differ in blur (1 and 0.1) and solarisation (0 and 0.2); ours have either with half the
# chance.
# For sketches ("shapes:sketch"). On the default world, a minute without negatives ends below pixels: perhaps in the
# colour of the ground and the light, which two views share at no effort.
_SKETCH = SimCLR.PRESETS["cpu_sketch"]
BYOL.PRESETS = {
    "cpu": BYOL.Config("convnet_fast", hidden=256, dim=128, m=0.9, augment=_SKETCH.augment, train=_SKETCH.train),
    # Section 3.2: LARS, lr 0.2 x batch / 256, batch 4096, 1000 epochs, decay 1.5e-6, tau 0.996.
    "imagenet_resnet50": BYOL.Config(
        train=TrainConfig(epochs=1000, batch_size=4096, optimizer="lars", lr=0.2, weight_decay=1.5e-6, warmup_epochs=10)
    ),
}
