"""SimMIM: hide large squares, give the encoder all tokens, read the raw pixels off with one linear layer.

Xie, Zhang, Cao, Lin, Bao, Yao, Dai, Hu 2021, "SimMIM: a simple framework for masked image modeling", arXiv:2111.09886:

    for a batch of images:
        one weakly augmented view, and squares of 32 px until 60 % are hidden           -> `views`
        tokens of hidden places become one learned token, before the first block        -> `backbone`
        a 1 x 1 convolution to the pixels below each place of the last map              -> `head`
        loss = mean absolute error of hidden pixels                                     -> `forward`
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.masks import simmim_mask
from sslcourse.errors import InputError
from sslcourse.losses.masked import simmim_l1
from sslcourse.methods.mae import VIEW
from sslcourse.nn.backbones import masked_backbone
from sslcourse.train.config import TrainConfig


class SimMIM(nn.Module):
    """SimMIM with a ViT (relative positions, layer scale, as in BEiT) or a Swin.

    Attributes:
        backbone: the encoder, what is kept.
        head: (D, rows, columns) -> (3 stride^2, rows, columns), thrown away.
        stride: pixels of the image below one place of the encoder's last map.
    """

    name: ClassVar[str] = "simmim"

    @dataclass(frozen=True)
    class Config:
        """Settings of SimMIM."""

        backbone: str = "vit_base_patch16"
        """The encoder, a ViT or a Swin; see sslcourse.nn.backbones."""
        ratio: float = 0.6
        """Part of the squares that is hidden."""
        mask_patch: int = 32
        """Side of the squares in pixels, a multiple of the encoder's patches."""
        augment: Augment = field(default_factory=lambda: replace(VIEW, size=224, scale=(0.67, 1.0)))
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: Any = None) -> None:
        """`encoder` takes the place of the backbone that `config` names; it has `forward_map(x, mask)`."""
        super().__init__()
        self.config = config
        size = config.augment.size
        self.backbone = encoder or masked_backbone(config.backbone, size, pos=False, rel_pos="shared")
        if self.backbone.mask_token is None:
            raise InputError("simmim replaces hidden patches, so its encoder has to have a mask token.")
        self._mask(torch.Generator(), 1)  # refuses sizes that do not fit
        self.stride: int = self.backbone.stride
        self.head = nn.Conv2d(self.backbone.num_features, 3 * self.stride**2, 1)

    def _mask(self, generator: torch.Generator, batch: int) -> Tensor:
        """(B, rows, columns) bool on the encoder's tokens."""
        config, p = self.config, self.backbone.patch_embed.patch_size
        return simmim_mask(config.augment.size, config.mask_patch, p, config.ratio, generator, batch=batch)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> views (B, 3, size, size) and masks (B, rows, columns) bool, True = hidden."""
        x = self.config.augment(images, generator=generator)
        return [x, self._mask(generator, len(x)).to(x.device)]

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch; "pred" (B, 3, H, W) is the whole painted image."""
        x, mask = views
        z = self.backbone.forward_map(x, mask.flatten(1))
        pred = F.pixel_shuffle(self.head(z), self.stride)
        return {"loss": simmim_l1(pred, x, mask), "embedding": z.mean(dim=(2, 3)), "pred": pred, "mask": mask}

    @torch.no_grad()
    def reconstruct(self, views: list[Tensor]) -> Tensor:
        """Images (B, 3, H, W) like the view, hidden squares as predicted."""
        out, p = self(views), self.backbone.patch_embed.patch_size
        hidden = out["mask"].repeat_interleave(p, 1).repeat_interleave(p, 2)[:, None]
        return torch.where(hidden, out["pred"], views[0])


# The official configuration of ViT-B and Swin-B: AdamW, 2e-4 for a batch of 512 (1e-4 x batch / 256), weight decay
# 0.05, gradients clipped to 5, 20 of 800 epochs of warm-up.
_ADAMW = TrainConfig(
    epochs=800, batch_size=2048, optimizer="adamw", lr=1e-4, weight_decay=0.05, warmup_epochs=20, clip_grad=5.0
)
# For `Shapes` at 32 px on a CPU; not tuned.
_CPU = SimMIM.Config(
    "vit_mini_patch4",
    mask_patch=8,
    augment=replace(VIEW, size=32, scale=(0.67, 1.0)),
    train=replace(_ADAMW, epochs=100, steps=600, batch_size=64, lr=4e-3, warmup_epochs=1),
)
SimMIM.PRESETS = {
    "cpu": _CPU,
    # For sketches ("shapes:sketch"), as MAE's, but from near by: of a patch that is mostly blank, the median, which is
    # what an absolute error asks for, is blank.
    "cpu_sketch": replace(
        _CPU,
        backbone="vit_mini_patch8",
        augment=replace(_CPU.augment, scale=(0.15, 0.5)),
        train=replace(_CPU.train, steps=2800, batch_size=32, lr=8e-3),
    ),
    "cpu_swin": replace(_CPU, backbone="swin_mini"),
    "imagenet_vit_base": SimMIM.Config(train=_ADAMW),
    "imagenet_swin_base": SimMIM.Config("swin_base", augment=replace(VIEW, size=192, scale=(0.67, 1.0)), train=_ADAMW),
}
