"""DINOv2 in miniature: iBOT with Sinkhorn in place of the centres, prototypes of its own for patches, and KoLeo.

Oquab et al. 2023, "DINOv2: learning robust visual features without supervision", arXiv:2304.07193, section 4:

    iBOT's loss of class tokens and masked patches, each with prototypes of its own       -> `IBOT.forward`
    the teacher's targets by 3 iterations of Sinkhorn-Knopp                               -> `Targets`
    masks on half of the large crops, their ratios spread from 10 to 50 %                 -> `masks`
    + 0.1 KoLeo of the class tokens of each large crop                                    -> `regulariser`
    a short phase at high resolution at the end: `pretrain dinov2 --init RUN --positions 224 --augment.size 416`

The curation of its data is in `sslcourse.data.curate`.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.mask_batches import random_block_mask_batch
from sslcourse.losses.dino import sinkhorn_centering
from sslcourse.losses.ibot import masked_distillation_loss
from sslcourse.losses.koleo import koleo
from sslcourse.methods.dino import ADAMW, SMALL, VIEW
from sslcourse.methods.ibot import CPU_VIT, IBOT
from sslcourse.nn.backbones import backbone
from sslcourse.nn.centering import Centering
from sslcourse.train.distributed import gather


class DINOv2(IBOT):
    """DINOv2 with a ViT; its published weights load through `sslcourse.zoo`."""

    name: ClassVar[str] = "dinov2"

    @dataclass(frozen=True)
    class Config(IBOT.Config):
        """Settings of DINOv2: iBOT's, and these."""

        prototypes: int = 65536
        """Number K of prototypes, for class tokens and for patches."""
        norm_last_layer: bool = False
        """Keep the prototypes at length 1."""
        shared_head: bool = False
        """One set of prototypes for class tokens and patches."""
        centering: Centering = "sinkhorn"
        """What keeps the teacher from one prototype for all images."""
        koleo: float = 0.1
        """Weight of KoLeo."""
        mask: tuple[float, float] = (0.1, 0.5)
        """Smallest and largest share of hidden patches."""
        mask_chance: float = 0.5
        """Share of the large crops that get a mask."""
        registers: int = 0
        """Extra tokens of the ViT without a place."""
        positions: int = 0
        """Side in pixels that the position embeddings are stored for, 0 for that of the large crops; a phase of larger
        crops goes on with the positions of the smaller ones."""
        n_local: int = 8
        """Small crops; 0 for none."""
        augment: Augment = field(default_factory=lambda: replace(VIEW, scale=(0.32, 1.0)))
        """The large crops; their size is the side of the images that the network sees."""
        local: Augment = field(default_factory=lambda: replace(SMALL, scale=(0.05, 0.32)))
        """The small crops."""

    def network(self) -> nn.Module:
        """The untrained ViT."""
        super().network()
        c = self.config
        return backbone(c.backbone, c.positions or c.augment.size, mask_token=True, registers=c.registers)

    def masks(self, n: int, grid: tuple[int, int], generator: torch.Generator) -> Tensor:
        """(n, h, w) bool, True = hidden."""
        return random_block_mask_batch(n, *grid, generator, prob=self.config.mask_chance, ratio=self.config.mask)

    def patch_loss(self, student: Tensor, teacher: Tensor, mask: Tensor, progress: float) -> Tensor:
        """As iBOT's, with Sinkhorn over the masked patches only, of all processes."""
        if self.config.centering != "sinkhorn":
            return super().patch_loss(student, teacher, mask, progress)
        targets = torch.zeros_like(teacher, dtype=torch.float32)
        targets[mask] = sinkhorn_centering(teacher[mask], self.temperature(progress))
        return masked_distillation_loss(student, targets, mask, self.config.ts)

    def regulariser(self, z1: Tensor, z2: Tensor) -> Tensor | float:
        """KoLeo of the class tokens (B, D) of each large crop.

        The neighbour may be on any process, so N processes train as one does. The official code looks among the images
        of each GPU alone: there the term depends on how many GPUs share a batch.
        """
        return self.config.koleo * (koleo(gather(z1)) + koleo(gather(z2))) if self.config.koleo else 0.0


DINOv2.PRESETS = {
    "cpu": DINOv2.Config("vit_mini_hybrid8", **CPU_VIT),
    # Table 16 and the official code's small setting: AdamW, lr 0.004 at batch 1024 (0.001 here), 100 epochs.
    "vit_small": DINOv2.Config("vit_small_patch16", train=replace(ADAMW, lr=1e-3)),
}
