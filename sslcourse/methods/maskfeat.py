"""MaskFeat: predict a feature of hidden patches that is worth predicting, histograms of oriented gradients.

Wei, Fan, Xie, Wu, Yuille, Feichtenhofer 2021, "Masked feature prediction for self-supervised visual pre-training",
arXiv:2112.09133, section 3:

    for a batch of images:
        one weakly augmented view, and blocks of patches until 40 % are hidden          -> `views`
        the target, HOG of the *whole* view: 2 x 2 cells x 9 bins x 3 colours a patch   -> `target`
        hidden patches become one learned token; the encoder sees all                   -> `backbone`
        loss = mean squared error of a linear prediction of hidden patches' targets     -> `forward`

Its other targets (table 2) are settings: pixels, tokens of a dVAE, features of another network, learned with or without
labels, and the classes that a network learned with labels gives the patches.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.masks import blockwise_mask, hidden_count
from sslcourse.methods.mae import VIEW
from sslcourse.nn.backbones import masked_vit
from sslcourse.nn.targets import Kind, patch_target, target_loss
from sslcourse.nn.vit import ViT
from sslcourse.train.config import TrainConfig


class MaskFeat(nn.Module):
    """MaskFeat with a ViT.

    Attributes:
        backbone: the encoder, what is kept.
        target: images -> what is predicted.
        head: a linear layer on every token, thrown away.
    """

    name: ClassVar[str] = "maskfeat"

    @dataclass(frozen=True)
    class Config:
        """Settings of MaskFeat."""

        backbone: str = "vit_base_patch16"
        """The encoder, a ViT; see sslcourse.nn.backbones."""
        target: Kind = "hog"
        """What is predicted; see sslcourse.nn.targets."""
        teacher: str = ""
        """Run folder of the network that is predicted, for target teacher or pseudo_label."""
        ratio: float = 0.4
        """Part of the patches that is hidden, in blocks as in BEiT."""
        augment: Augment = field(default_factory=lambda: replace(VIEW, scale=(0.5, 1.0)))
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: ViT | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names; it has a mask token."""
        super().__init__()
        self.config = config
        self.backbone = encoder or masked_vit(config.backbone, config.augment.size)
        hidden_count(1, config.ratio)  # refuses what is no ratio
        self.target = patch_target(config.target, self.backbone.stride, teacher=config.teacher)
        self.head = nn.Linear(self.backbone.num_features, self.target.values)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> views (B, 3, size, size) and masks (B, rows, columns) bool, True = hidden."""
        x = self.config.augment(images, generator=generator)
        h, w = self.backbone.patch_embed.grid(x)
        count = hidden_count(h * w, self.config.ratio, "hide")
        least = max(1, h * w * 16 // 196)  # 16 of 14 x 14 patches in the paper
        mask = blockwise_mask(h, w, count, least, None, 0.3, generator, batch=len(x))
        return [x, mask.to(x.device)]

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch; "pred" (B, N, values) and "mask" (B, rows, columns) show what it came from."""
        x, mask = views
        tokens = self.backbone.forward_features(x, mask.flatten(1).bool())
        pred = self.head(tokens[:, self.backbone.num_prefix :])
        loss = target_loss(pred, self.target(x), mask.flatten(1))
        return {"loss": loss, "embedding": tokens[:, 0], "pred": pred, "mask": mask}


# Appendix, table 12: AdamW, lr 2e-4 x batch / 256, weight decay 0.05, gradients clipped to 0.02.
_ADAMW = TrainConfig(
    epochs=1600, batch_size=2048, optimizer="adamw", lr=2e-4, weight_decay=0.05, warmup_epochs=30, clip_grad=0.02
)
# For `Shapes` at 32 px on a CPU.
_CPU = MaskFeat.Config(
    "vit_mini_patch4",
    augment=replace(VIEW, size=32, scale=(0.6, 1.0)),
    train=replace(_ADAMW, epochs=100, steps=600, batch_size=64, lr=4e-3, warmup_epochs=1, clip_grad=1.0),
)
MaskFeat.PRESETS = {
    "cpu": _CPU,
    # For sketches ("shapes:sketch"), as MAE's.
    "cpu_sketch": replace(
        _CPU, backbone="vit_mini_patch8", train=replace(_CPU.train, steps=2000, batch_size=32, lr=8e-3)
    ),
    "imagenet_vit_base": MaskFeat.Config(train=_ADAMW),
}
