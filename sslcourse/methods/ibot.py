"""iBOT: DINO, and the student also says of hidden patches what the teacher, who sees them, says: an online tokenizer.

Zhou, Wei, Wang, Shen, Xie, Yuille, Kong 2021, "iBOT: image BERT pre-training with online tokenizer", arXiv:2111.07832,
algorithm 1 (appendix A):

    for a batch of N images:
        2 large and V small random crops, masks of the large ones           -> `views`
        student: large crops with masked patches, small crops whole         -> `forward`
        teacher: large crops whole, no gradient                             -> `forward`
        L_CLS   = DINO's loss of the class tokens                           -> `DINO.class_loss`
        L_MIM   = cross-entropy at the masked patches, of the *same* crop   -> `forward`
        loss    = L_CLS + L_MIM;  then DINO's steps
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sslcourse.data.mask_batches import ibot_masks
from sslcourse.errors import InputError
from sslcourse.losses.ibot import masked_distillation_loss
from sslcourse.methods.dino import ADAMW, CPU, DINO
from sslcourse.nn.backbones import backbone
from sslcourse.nn.centering import Targets
from sslcourse.nn.dino_head import IBOTHead
from sslcourse.nn.multicrop import multicrop_forward
from sslcourse.nn.vit import ViT


class IBOT(DINO):
    """iBOT with a ViT whose masked patches become a learned token.

    Attributes:
        patch_targets: the centre of the patches, beside that of the class tokens.
    """

    name: ClassVar[str] = "ibot"

    @dataclass(frozen=True)
    class Config(DINO.Config):
        """Settings of iBOT: DINO's, and these."""

        prototypes: int = 8192
        """Number K of prototypes."""
        shared_head: bool = True
        """One set of prototypes for class tokens and patches."""
        mim: float = 1.0
        """Weight of the loss of masked patches."""
        mask: tuple[float, float] = (0.3, 0.2)
        """Half of the large crops stay whole; the share of hidden patches of the others, and how far it varies."""

    def __init__(self, config: Any, encoder: nn.Module | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names: a `ViT` with a mask token."""
        super().__init__(config, encoder)
        if not isinstance(self.backbone, ViT) or self.backbone.mask_token is None:
            raise InputError(f"{self.name} masks patches, so it needs a ViT; got the backbone {config.backbone}.")
        if config.predictor or config.loss != "ce":
            raise InputError(f"{self.name} is DINO with cross-entropy and without a predictor.")
        self.patch_targets = Targets(config.prototypes, config.centering, config.center_m)

    def network(self) -> nn.Module:
        """The untrained ViT."""
        name = self.config.backbone
        if not name.startswith("vit_"):
            raise InputError(f"{self.name} masks patches, so it needs a ViT; got the backbone {name}.")
        return backbone(name, self.config.augment.size, mask_token=True)

    def new_head(self, width: int) -> nn.Module:
        """The untrained head."""
        c = self.config
        args = (width, c.prototypes, c.hidden, c.bottleneck)
        own = None if c.shared_head else c.prototypes
        return IBOTHead(*args, patch_out_dim=own, norm_last_layer=c.norm_last_layer)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> two large and `n_local` small views, then the masks (B, N) of the large ones."""
        crops = super().views(images, generator)
        grid = self.backbone.patch_embed.grid(crops[0])
        return crops + [self.masks(len(images), grid, generator).flatten(1).to(images.device) for _ in range(2)]

    def masks(self, n: int, grid: tuple[int, int], generator: torch.Generator) -> Tensor:
        """(n, h, w) bool, True = hidden."""
        share, spread = self.config.mask
        return ibot_masks(n, *grid, generator, ratio=(0.0, share), variation=(0.0, spread))

    def forward(self, views: list[Tensor], progress: float = 1.0) -> dict[str, Tensor]:
        """Loss of a batch; in training mode the centres then move."""
        crops, mask = views[:-2], torch.cat(views[-2:])
        large, small = torch.cat(crops[:2]), crops[2:]
        network: Any = self.student["backbone"]
        s_head: Any = self.student["head"]
        t_head: Any = self.teacher["head"]
        s_tokens = network.forward_features(large, mask)
        s_tokens = _image_and_patches(network, s_tokens)
        student, s_patch = s_head.forward_tokens(s_tokens)
        parts = list(student.chunk(2))
        if small:
            parts += multicrop_forward(network, s_head, small).chunk(len(small))
        with torch.no_grad():
            t_tokens = _image_and_patches(self.backbone, self.backbone.forward_features(large))
            teacher, t_patch = t_head.forward_tokens(t_tokens)
        loss = self.class_loss(parts, teacher, progress)
        loss = loss + self.config.mim * self.patch_loss(s_patch, t_patch, mask, progress)
        z1, z2 = s_tokens[:, 0].chunk(2)
        return {"loss": loss + self.regulariser(z1, z2), "embedding": z1, "positive": z2}

    def patch_loss(self, student: Tensor, teacher: Tensor, mask: Tensor, progress: float) -> Tensor:
        """L_MIM of logits (2B, N, K) where `mask` (2B, N) is True; the centre moves by all patches."""
        targets = self.patch_targets(teacher, self.temperature(progress))
        return masked_distillation_loss(student, targets, mask, self.config.ts)

    def regulariser(self, z1: Tensor, z2: Tensor) -> Tensor | float:
        """What is added to the loss for the class tokens (B, D) of the two large crops: nothing in iBOT."""
        return 0.0


def _image_and_patches(vit: Any, tokens: Tensor) -> Tensor:
    """What stands for the image, the class token or the mean of the patches (as the paper has it for Swin), and the
    patches."""
    return torch.cat([vit.pooled(tokens)[:, None], tokens[:, vit.num_prefix :]], dim=1)


# For sketches, as DINO's. In two minutes, a ViT on the map of a small convolutional network gets past pixels where one
# on patches does not.
CPU_VIT: dict[str, Any] = CPU | {"train": replace(CPU["train"], steps=700, lr=6e-3)}
# Of 4 x 4 tokens, hiding a third leaves too little of a shape; and without KoLeo, more prototypes keep images apart.
_CPU = CPU_VIT | {"shared_head": False, "prototypes": 256, "mask": (0.1, 0.1)}
IBOT.PRESETS = {
    "cpu": IBOT.Config("vit_mini_hybrid8", **_CPU),
    # Section 4: DINO's settings, batch 1024, 2 + 10 crops, 800 epochs.
    "vit_small": IBOT.Config(n_local=10, train=replace(ADAMW, epochs=800)),
}
