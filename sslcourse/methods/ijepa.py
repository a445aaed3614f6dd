"""I-JEPA: predict what a slower copy of the network says of hidden blocks, not how they look.

Assran, Duval, Misra, Bojanowski, Vincent, Rabbat, LeCun, Ballas 2023, "Self-supervised learning from images with a
joint-embedding predictive architecture", arXiv:2301.08243, section 3:

    for a batch of images:
        one weakly augmented view, four target blocks, a context block without them            -> `views`
        the target encoder sees the whole view; its standardised tokens are the targets        -> `forward`
        the context encoder sees the context's patches alone                                   -> `encode`
        the predictor gets these and, for each block, mask tokens with the block's positions   -> `predict`
        loss = smooth L1 distance of predicted and target tokens                               -> `forward`
        after each step the target encoder moves towards the context encoder                   -> `after_step`
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.multiblock import multiblock_masks
from sslcourse.errors import InputError
from sslcourse.methods.mae import VIEW
from sslcourse.nn.backbones import vit
from sslcourse.nn.momentum import frozen_copy
from sslcourse.nn.patches import take
from sslcourse.nn.positions import fix_positions
from sslcourse.nn.token_decoder import mae_decoder
from sslcourse.nn.vit import ViT
from sslcourse.train.config import TrainConfig
from sslcourse.train.optim import ema_update


class IJEPA(nn.Module):
    """I-JEPA with a ViT without class token.

    `backbone` is the context encoder, `target` its moving average, `predictor` a narrow ViT that is thrown away.
    """

    name: ClassVar[str] = "ijepa"

    @dataclass(frozen=True)
    class Config:
        """Settings of I-JEPA."""

        backbone: str = "vit_base_patch16"
        """The encoder, a ViT; see sslcourse.nn.backbones."""
        targets: int = 4
        """Blocks that are predicted."""
        target_scale: tuple[float, float] = (0.15, 0.2)
        """Range of their area, as a part of the patches."""
        context_scale: tuple[float, float] = (0.85, 1.0)
        """Range of the context's area, before the targets are taken out."""
        aspect: tuple[float, float] = (0.75, 1.5)
        """Range of the targets' height / width."""
        min_keep: int = 10
        """The context should have more patches than this."""
        m: float = 0.996
        """Momentum of the target encoder at the start; it rises linearly to 1."""
        decoder_dim: int = 384
        """Width of the predictor."""
        decoder_depth: int = 6
        """Blocks of the predictor."""
        decoder_heads: int = 12
        """Attention heads of the predictor."""
        augment: Augment = field(default_factory=lambda: replace(VIEW, scale=(0.3, 1.0), flip=0.0))
        """The random view."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """The training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: ViT | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names; it has no class token."""
        super().__init__()
        if not 0 <= config.m <= 1:
            raise InputError(f"ijepa needs a momentum in [0, 1]; got m={config.m}.")
        self.config = config
        encoder = encoder or vit(config.backbone, config.augment.size, class_token=False, pool="mean")
        self.backbone: ViT = fix_positions(encoder)
        width, (h, w) = encoder.num_features, encoder.grid_size
        self._masks(h, w, torch.Generator(), 1)  # refuses blocks that do not fit
        self.predictor = mae_decoder(config, width, width, (h, w), prefix=0)
        self.target = frozen_copy(self.backbone)

    def _masks(self, h: int, w: int, generator: torch.Generator, batch: int) -> tuple[Tensor, Tensor]:
        c = self.config
        scales = {name: getattr(c, name) for name in ("target_scale", "context_scale", "aspect")}
        return multiblock_masks(h, w, generator, batch=batch, n_targets=c.targets, min_keep=c.min_keep, **scales)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> views, the context's places (B, K) and the targets' (B, targets, M) int64."""
        x = self.config.augment(images, generator=generator)
        h, w = self.backbone.patch_embed.grid(x)
        context, targets = self._masks(h, w, generator, len(x))
        return [x, context.to(x.device), targets.to(x.device)]

    def encode(self, x: Tensor, context: Tensor) -> Tensor:
        """The context encoder's tokens of the context, (B, K, D)."""
        hidden = x.new_ones(len(x), self.predictor.pos_embed.shape[1], dtype=torch.bool).scatter_(1, context, False)
        tokens = take(self.backbone.embed(self.backbone.patch_embed.hide(x, hidden)), context)
        return self.backbone.norm(self.backbone.run_blocks(tokens))

    def predict(self, tokens: Tensor, context: Tensor, target: Tensor) -> Tensor:
        """What the predictor says of the places `target` (B, M), from the context's tokens: (B, M, D)."""
        p = self.predictor
        pos = p.pos_embed.expand(len(tokens), -1, -1)
        seen, asked = p.embed(tokens) + take(pos, context), p.mask_token + take(pos, target)
        x = torch.cat([seen, asked], dim=1)
        for block in p.blocks:
            x = block(x)
        return p.head(p.norm(x[:, context.shape[1] :]))

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch; "pred" and "target" (targets * B, M, D), block after block."""
        x, context, targets = views
        with torch.no_grad():
            whole = self.target.forward_features(x)
            whole = F.layer_norm(whole, whole.shape[-1:])
        tokens = self.encode(x, context)
        blocks = targets.unbind(dim=1)
        pred = torch.cat([self.predict(tokens, context, block) for block in blocks])
        told = torch.cat([take(whole, block) for block in blocks])
        return {"loss": F.smooth_l1_loss(pred, told), "embedding": tokens.mean(dim=1), "pred": pred, "target": told}

    def after_step(self, step: int, total_steps: int) -> None:
        """Move the target encoder."""
        m = self.config.m + (1 - self.config.m) * (step + 1) / total_steps
        ema_update(self.backbone, self.target, m)


# Appendix A.1: AdamW, lr 1e-3 for a batch of 2048, weight decay 0.04 -> 0.4 (here 0.05), 15 of 600 epochs of warm-up.
_ADAMW = TrainConfig(epochs=600, batch_size=2048, optimizer="adamw", lr=1e-3 / 8, weight_decay=0.05, warmup_epochs=15)
# For `Shapes` at 32 px on a CPU; not tuned.
_CPU = IJEPA.Config(
    "vit_mini_patch4",
    min_keep=4,
    m=0.98,
    decoder_dim=64,
    decoder_depth=2,
    decoder_heads=4,
    augment=replace(VIEW, size=32, scale=(0.6, 1.0)),
    train=replace(_ADAMW, epochs=100, steps=500, batch_size=64, lr=4e-3, warmup_epochs=1),
)
IJEPA.PRESETS = {
    "cpu": _CPU,
    # For sketches ("shapes:sketch"), as MAE's. Of 4 x 4 patches one target, 2 x 2; more would leave hardly a context.
    "cpu_sketch": replace(
        _CPU,
        backbone="vit_mini_patch8",
        targets=1,
        target_scale=(0.25, 0.26),
        context_scale=(1.0, 1.0),
        train=replace(_CPU.train, steps=3000, batch_size=32, lr=6e-3),
    ),
    "imagenet_vit_base": IJEPA.Config(train=_ADAMW),
}
