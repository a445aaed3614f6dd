"""data2vec: say of hidden patches what a slower copy of the network, which sees the whole image, makes of them.

Baevski, Hsu, Xu, Babu, Gu, Auli 2022, "data2vec: a general framework for self-supervised learning in speech, vision and
language", arXiv:2202.03555, section 3:

    for a batch of images:
        one weakly augmented view, and blocks of hidden patches                          -> `views`
        the teacher sees the whole view; targets are the mean of its top K blocks        -> `contextual_targets`
        the student sees mask tokens in place of hidden patches, a linear layer answers  -> `forward`
        loss = smooth L1 distance at the hidden patches (equation 2)                     -> `forward`
        after each step the teacher moves towards the student                            -> `after_step`

Targets of MAE and BEiT are local: pixels or a token of one patch. These have been through attention, so the target of
a patch says something about the whole image; the same recipe learns from speech and text.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.masks import blockwise_mask, hidden_count
from sslcourse.errors import InputError
from sslcourse.losses.masked import masked_mean
from sslcourse.methods.mae import VIEW
from sslcourse.nn.backbones import masked_vit
from sslcourse.nn.momentum import frozen_copy
from sslcourse.nn.vit import ViT
from sslcourse.train.config import TrainConfig
from sslcourse.train.optim import ema_update


class Data2Vec(nn.Module):
    """data2vec for images.

    Attributes:
        backbone: the student, a ViT with a mask token, what is kept.
        target: its moving average, the teacher.
        head: a linear layer to the targets, thrown away.
    """

    name: ClassVar[str] = "data2vec"

    @dataclass(frozen=True)
    class Config:
        """Settings of data2vec."""

        backbone: str = "vit_base_patch16"
        """The encoder, a ViT; see sslcourse.nn.backbones."""
        ratio: float = 0.6
        """Part of the patches that is hidden."""
        top: int = 6
        """Blocks K of the teacher, from the last one down, whose mean is the target."""
        beta: float = 2.0
        """Where smooth L1 turns from a square into a line."""
        m: float = 0.9998
        """Momentum of the teacher; constant for images."""
        augment: Augment = field(default_factory=lambda: replace(VIEW, jitter=(0.4, 0.4, 0.4, 0.0), jitter_p=1.0))
        """The random view."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """The training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: ViT | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names; it has a mask token."""
        super().__init__()
        if not 0 <= config.m <= 1 or config.beta <= 0:
            raise InputError(f"data2vec needs m in [0, 1] and beta > 0; got m={config.m}, beta={config.beta}.")
        hidden_count(1, config.ratio)  # refuses what is no ratio
        self.config = config
        self.backbone = encoder or masked_vit(config.backbone, config.augment.size)
        if not 1 <= config.top <= len(self.backbone.blocks):
            raise InputError(f"data2vec averages 1 to {len(self.backbone.blocks)} blocks here; got top={config.top}.")
        self.target = frozen_copy(self.backbone)
        self.head = nn.Linear(self.backbone.num_features, self.backbone.num_features)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> views (B, 3, size, size) and masks (B, N) bool, True = hidden: BEiT's blocks."""
        x = self.config.augment(images, generator=generator)
        h, w = self.backbone.patch_embed.grid(x)
        count, least = hidden_count(h * w, self.config.ratio, "hide"), max(1, h * w * 16 // 196)
        mask = blockwise_mask(h, w, count, least, None, 0.3, generator, algorithm="exact", batch=len(x))
        return [x, mask.flatten(1).to(x.device)]

    @torch.no_grad()
    def contextual_targets(self, x: Tensor) -> Tensor:
        """The mean of the teacher's top K blocks, each standardised without learned factors: (B, N, D)."""
        blocks = self.target.get_intermediate_layers(x, self.config.top, norm=False)
        tokens = torch.stack(blocks)[:, :, self.target.num_prefix :]
        return F.layer_norm(tokens, tokens.shape[-1:]).mean(dim=0)

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch; "pred" and "target" (B, N, D)."""
        x, mask = views
        tokens = self.backbone.forward_features(x, mask)
        pred, target = self.head(tokens[:, self.backbone.num_prefix :]), self.contextual_targets(x)
        error = F.smooth_l1_loss(pred, target, beta=self.config.beta, reduction="none").mean(dim=-1)
        embedding = tokens[:, self.backbone.num_prefix :].mean(dim=1)
        return {"loss": masked_mean(error, mask), "embedding": embedding, "pred": pred, "target": target}

    def after_step(self, step: int, total_steps: int) -> None:
        """Move the teacher."""
        ema_update(self.backbone, self.target, self.config.m)


# Section 4.1: Adam, 2e-3 for a batch of 2048, 800 epochs, 40 of warm-up, for ViT-B; weight decay as in BEiT.
_ADAMW = TrainConfig(epochs=800, batch_size=2048, optimizer="adamw", lr=2e-3 / 8, weight_decay=0.05, warmup_epochs=40)
# For `Shapes` at 32 px on a CPU.
_CPU = Data2Vec.Config(
    "vit_mini_patch4",
    top=2,
    m=0.99,
    augment=replace(VIEW, size=32, scale=(0.6, 1.0)),
    train=replace(_ADAMW, epochs=100, steps=600, batch_size=64, lr=4e-3, warmup_epochs=1),
)
Data2Vec.PRESETS = {
    "cpu": _CPU,
    # For sketches ("shapes:sketch"), as MAE's; the more steps, the slower the teacher.
    "cpu_sketch": replace(
        _CPU, backbone="vit_mini_patch8", m=0.998, train=replace(_CPU.train, steps=2000, batch_size=32, lr=8e-3)
    ),
    "imagenet_vit_base": Data2Vec.Config(train=_ADAMW),
}
