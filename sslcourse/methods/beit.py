"""BEiT: images as a language whose words a tokenizer made; guess the hidden ones.

Bao, Dong, Piao, Wei 2021, "BEiT: BERT pre-training of image transformers", arXiv:2106.08254, section 2:

    before: a discrete VAE learns 8192 visual tokens; here `sslcourse pretrain dvae`
    for a batch of images:
        one weakly augmented view, and blocks of patches until 40 % are hidden (algorithm 1)     -> `views`
        the tokenizer names the visual token of every patch of the *whole* view                  -> `target`
        hidden patches become one learned token; the encoder sees all, with relative positions   -> `backbone`
        loss = cross-entropy of hidden patches' tokens                                           -> `forward`

The ablations of its table 4 are settings: `mask` (without blocks), `target` (pixels), `recover_all`, `rel_pos`.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.masks import blockwise_mask, hidden_count, random_mask
from sslcourse.errors import unknown
from sslcourse.methods.mae import VIEW
from sslcourse.nn.backbones import masked_vit
from sslcourse.nn.targets import Kind, patch_target, target_loss
from sslcourse.nn.vit import Block, ViT
from sslcourse.train.config import TrainConfig


class BEiT(nn.Module):
    """BEiT with a ViT that has relative positions and layer scale.

    Attributes:
        backbone: the encoder, what is kept.
        target: the tokenizer, frozen.
        head: a linear layer to the vocabulary, thrown away.
    """

    name: ClassVar[str] = "beit"
    stand_in: ClassVar[str] = "a dVAE, whose place a k-means codebook of patches takes"  # the paper's teacher

    @dataclass(frozen=True)
    class Config:
        """Settings of BEiT."""

        backbone: str = "vit_base_patch16"
        """The encoder, a ViT; see sslcourse.nn.backbones."""
        target: Kind = "codebook"
        """Whose tokens are predicted: teacher, those of a dVAE as in the paper; codebook, the nearest of many patches,
        which needs no other training; or the other targets of sslcourse.nn.targets."""
        teacher: str = ""
        """Run folder of the dVAE, for target teacher, or of a network trained with labels, for pseudo_label."""
        vocabulary: int = 8192
        """Tokens of a codebook; a dVAE has its own number."""
        ratio: float = 0.4
        """Part of the patches that is hidden."""
        mask: Literal["code", "paper", "exact", "random"] = "code"
        """Blocks as in the published code, in algorithm 1 of the paper or in BEiT v2, or single patches."""
        recover_all: bool = False
        """Ask for the tokens of all patches, not only of hidden ones."""
        rel_pos: Literal["none", "shared", "blocks"] = "shared"
        """Relative positions: one table for all blocks; with none, positions are absolute."""
        layer_scale: float = 0.1
        """Initial factor of the residual branches; the paper has 1e-5 for the large model."""
        augment: Augment = field(default_factory=lambda: VIEW)
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: ViT | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names; it has a mask token."""
        super().__init__()
        if config.mask not in ("code", "paper", "exact", "random"):
            raise unknown("mask", config.mask, ["code", "paper", "exact", "random"])
        hidden_count(1, config.ratio)  # refuses what is no ratio
        self.config = config
        size, pos = config.augment.size, config.rel_pos == "none"
        how: dict[str, Any] = {"rel_pos": config.rel_pos, "layer_scale": config.layer_scale}
        self.backbone = encoder or rescaled(masked_vit(config.backbone, size, pos=pos, **how))
        p = self.backbone.stride
        self.target = patch_target(config.target, p, vocabulary=config.vocabulary, teacher=config.teacher)
        self.head = nn.Linear(self.backbone.num_features, self.target.values)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> views (B, 3, size, size) and masks (B, rows, columns) bool, True = hidden."""
        x, kind = self.config.augment(images, generator=generator), self.config.mask
        h, w = self.backbone.patch_embed.grid(x)
        if kind == "random":
            return [x, random_mask(h, w, self.config.ratio, generator, batch=len(x)).to(x.device)]
        count, least = hidden_count(h * w, self.config.ratio, "hide"), max(1, h * w * 16 // 196)
        mask = blockwise_mask(h, w, count, least, None, 0.3, generator, algorithm=kind, batch=len(x))
        return [x, mask.to(x.device)]

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch; "pred" (B, N, vocabulary) and "mask" (B, rows, columns) show what it came from."""
        x, mask = views
        tokens = self.backbone.forward_features(x, mask.flatten(1))
        pred = self.head(tokens[:, self.backbone.num_prefix :])
        asked = torch.ones_like(mask) if self.config.recover_all else mask
        loss = target_loss(pred, self.target(x), asked.flatten(1))
        return {"loss": loss, "embedding": tokens[:, 0], "pred": pred, "mask": mask}


@torch.no_grad()
def rescaled(vit: ViT) -> ViT:
    """Divide what block l adds to the residual stream by sqrt(2 l) at the start (section 2.4)."""
    for i, block in enumerate(vit.blocks, start=1):
        assert isinstance(block, Block)
        for weight in (block.attn.proj.weight, block.mlp.fc2.weight):
            weight.div_((2 * i) ** 0.5)
    return vit


# Appendix, table 9: AdamW (0.9, 0.999), 1.5e-3 for a batch of 2048, weight decay 0.05, gradients clipped to 3.
_ADAMW = TrainConfig(
    epochs=800, batch_size=2048, optimizer="adamw", lr=1.5e-3 / 8, weight_decay=0.05, warmup_epochs=10, clip_grad=3.0
)
# For `Shapes` at 32 px on a CPU.
_CPU = BEiT.Config(
    "vit_mini_patch4",
    vocabulary=256,
    augment=replace(VIEW, size=32, scale=(0.6, 1.0)),
    train=replace(_ADAMW, epochs=100, steps=600, batch_size=64, lr=4e-3, warmup_epochs=1),
)
BEiT.PRESETS = {
    "cpu": _CPU,
    # For sketches ("shapes:sketch"), as MAE's.
    "cpu_sketch": replace(
        _CPU, backbone="vit_mini_patch8", train=replace(_CPU.train, steps=2000, batch_size=32, lr=8e-3)
    ),
    "imagenet_vit_base": BEiT.Config(train=_ADAMW),
}
