"""MSN: assign an image with missing patches to the prototypes of the whole image.

Assran, Caron, Misra, Bojanowski, Bordes, Vincent, Joulin, Rabbat, Ballas 2022, "Masked Siamese networks for
label-efficient learning", arXiv:2204.07141, section 3:

    for a batch of N images:
        a target view, and M anchors: a view that loses patches, small crops             -> `views`
        p  = softmax(s(anchors) / tau)        backbone, head, cosines with K prototypes  -> `forward`
        p+ = softmax(t(target) / tau+)        moving averages, no gradient, tau+ < tau   -> `forward`
        loss = cross-entropy of p+ and p - entropy of the mean p                         -> `msn_loss`
        after the update:  t <- m t + (1 - m) s, m -> 1                                  -> `after_step`

Hidden patches are left out, as in MAE, but nothing is painted: a ViT that sees 30 % of them costs a third.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.masks import random_mask
from sslcourse.data.views import multi_crop
from sslcourse.errors import InputError
from sslcourse.losses.msn import msn_loss
from sslcourse.methods.dino import VIEW
from sslcourse.methods.simclr import SimCLR
from sslcourse.nn.backbones import vit
from sslcourse.nn.dino_head import DINOHead
from sslcourse.nn.momentum import frozen_copy
from sslcourse.nn.vit import ViT
from sslcourse.train.config import TrainConfig
from sslcourse.train.optim import cosine_ema_schedule, ema_update


class MSN(nn.Module):
    """MSN with a ViT.

    Attributes:
        student: backbone and head, whose last layer holds the prototypes.
        teacher: their moving average; its backbone is what is kept.
    """

    name: ClassVar[str] = "msn"

    @dataclass(frozen=True)
    class Config:
        """Settings of MSN."""

        backbone: str = "vit_small_patch16"
        """The encoder, a ViT; see sslcourse.nn.backbones."""
        hidden: int = 2048
        """Width of the head's hidden layers."""
        dim: int = 256
        """Width of the unit vector that is compared with the prototypes."""
        prototypes: int = 1024
        """Number K of prototypes."""
        ratio: float = 0.15
        """Part of the patches that the masked anchor loses: 0.15 for ViT-S, 0.3 for ViT-B, 0.7 for ViT-L."""
        n_local: int = 10
        """Further anchors: small crops."""
        tau: float = 0.1
        """Temperature of the anchors."""
        sharpen: float = 0.025
        """Temperature of the targets; must be smaller, or all assignments may become uniform."""
        weight: float = 1.0
        """Weight of the entropy of the mean prediction; 0 lets all images share one prototype."""
        m: float = 0.996
        """Momentum of the teacher at the start; it rises to 1 along a cosine."""
        augment: Augment = field(default_factory=lambda: replace(VIEW, scale=(0.3, 1.0)))
        """The target and the masked anchor; its size is the side of the images that the network sees."""
        local: Augment = field(default_factory=lambda: replace(VIEW, size=96, scale=(0.05, 0.3)))
        """The small crops."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """The training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: ViT | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names; it leaves hidden patches out."""
        super().__init__()
        c = self.config = config
        if not 0 < c.sharpen < c.tau or not 0 <= c.m <= 1 or not 0 <= c.ratio < 1:
            raise InputError(
                f"msn needs 0 < sharpen < tau, m in [0, 1] and ratio in [0, 1); got sharpen={c.sharpen}, tau={c.tau}, "
                f"m={c.m}, ratio={c.ratio}."
            )
        network = encoder or vit(c.backbone, c.augment.size)
        head = DINOHead(network.num_features, c.prototypes, c.hidden, c.dim, bn=True)
        self.student = nn.ModuleDict({"backbone": network, "head": head})
        self.teacher = frozen_copy(self.student)

    @property
    def backbone(self) -> Any:
        """The teacher's."""
        return self.teacher["backbone"]

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> target, anchor, `n_local` small views, and the anchor's mask (B, N), True = hidden."""
        large, small = (partial(t, generator=generator) for t in (self.config.augment, self.config.local))
        crops = multi_crop(images, large, small, self.config.n_local)
        h, w = self.backbone.patch_embed.grid(crops[0])
        mask = random_mask(h, w, self.config.ratio, generator, batch=len(images))
        return [*crops, mask.flatten(1).to(images.device)]

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch: one pass of the masked anchor, one of all small crops, one of the target."""
        (target, anchor, *small), mask = views[:-1], views[-1]
        network: Any = self.student["backbone"]
        z = network(anchor, mask)
        features = torch.cat([z, network(torch.cat(small))]) if small else z
        logits = self.student["head"](features).unflatten(0, (1 + len(small), -1))
        with torch.no_grad():
            z_target = self.backbone(target)
            targets = (self.teacher["head"](z_target) / self.config.sharpen).softmax(dim=-1)
        loss = msn_loss(logits, targets, self.config.tau, self.config.weight)
        return {"loss": loss, "embedding": z, "positive": z_target}

    def after_step(self, step: int, total_steps: int) -> None:
        """Move the teacher; its batch-norm statistics are its own."""
        ema_update(self.student, self.teacher, cosine_ema_schedule(step, total_steps, self.config.m), buffers="keep")


# Appendix: AdamW, lr 1e-3 for a batch of 1024, decay 0.04 -> 0.4 (here 0.04), 15 epochs of warm-up, 800 for ViT-S.
_ADAMW = TrainConfig(800, batch_size=1024, optimizer="adamw", lr=1e-3 / 4, weight_decay=0.04, warmup_epochs=15)
_SIMCLR = SimCLR.PRESETS["cpu"]  # its views and length, for `Shapes` on a CPU
_CPU = MSN.Config(
    "vit_mini_patch8",
    hidden=256,
    dim=64,
    prototypes=256,
    m=0.98,
    n_local=0,
    augment=_SIMCLR.augment,
    local=replace(_SIMCLR.augment, size=16, scale=(0.3, 0.8)),
    train=replace(_SIMCLR.train, lr=2e-3),
)
MSN.PRESETS = {
    "cpu": _CPU,
    # For sketches ("shapes:sketch"): SimCLR's views of them, and a stem of convolutions.
    "cpu_sketch": replace(
        _CPU,
        backbone="vit_mini_conv8",
        augment=SimCLR.PRESETS["cpu_sketch"].augment,
        train=replace(_CPU.train, steps=300),
    ),
    "vit_small": MSN.Config(train=_ADAMW),
}
