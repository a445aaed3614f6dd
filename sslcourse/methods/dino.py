"""DINO: a student learns to say, of any crop, what the moving average of itself says of the large crops.

Caron, Touvron, Misra, Jegou, Mairal, Bojanowski, Joulin 2021, "Emerging properties in self-supervised vision
transformers", arXiv:2104.14294, algorithm 1:

    for a batch of N images:
        2 large and V small random crops                                              -> `views`
        t = g_t(large crops), s = g_s(all crops)          teacher without gradient    -> `forward`
        P_t = softmax((t - c) / tt), and then c moves towards the mean of t           -> `Targets`
        loss = cross-entropy of P_t and softmax(s / ts), of *different* crops         -> `forward`
        the prototypes stand still at first                                           -> `after_backward`
        after the update:  g_t <- m g_t + (1 - m) g_s, m -> 1                         -> `after_step`

The component ablation (table 7) is settings: `m`, `centering`, `n_local`, `loss`, `predictor`.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.views import multi_crop
from sslcourse.errors import InputError
from sslcourse.losses.dino import distillation_loss, unit_distillation_loss
from sslcourse.methods.simclr import SimCLR
from sslcourse.nn.backbones import backbone
from sslcourse.nn.centering import Centering, Targets
from sslcourse.nn.dino_head import DINOHead
from sslcourse.nn.heads import projection_head
from sslcourse.nn.momentum import frozen_copy
from sslcourse.nn.multicrop import multicrop_forward
from sslcourse.train.config import TrainConfig
from sslcourse.train.optim import cosine_ema_schedule, ema_update
from sslcourse.train.schedules import drop_gradients

# BYOL's colours for both large crops; theirs blur one always, the other rarely, and solarise the other only.
VIEW = Augment(224, scale=(0.4, 1.0), jitter=(0.4, 0.4, 0.2, 0.1), blur=0.55, solarize=0.1)
SMALL = replace(VIEW, size=96, scale=(0.05, 0.4), blur=0.5, solarize=0.0)


class DINO(nn.Module):
    """DINO with a ViT or any other backbone of `sslcourse.nn.backbones`.

    Attributes:
        student: backbone and head that gradients train.
        teacher: their moving average. Its backbone is what is kept: the better one all along (section 5.1).
    """

    name: ClassVar[str] = "dino"
    uses: ClassVar[tuple[str, ...]] = ("progress",)

    @dataclass(frozen=True)
    class Config:
        """Settings of DINO."""

        backbone: str = "vit_small_patch16"
        """Network whose output is the representation; see sslcourse.nn.backbones."""
        hidden: int = 2048
        """Width of the head's hidden layers."""
        bottleneck: int = 256
        """Width of the unit vector that is compared with the prototypes."""
        prototypes: int = 65536
        """Number K of prototypes."""
        norm_last_layer: bool = True
        """Keep the prototypes at length 1."""
        predictor: bool = False
        """A further MLP on the student's side, as in BYOL (table 7)."""
        ts: float = 0.1
        """Temperature of the student."""
        tt: float = 0.07
        """Temperature of the teacher; above the student's nothing sharpens, and all outputs become uniform."""
        tt_start: float = 0.04
        """Temperature of the teacher at first."""
        warm: float = 0.1
        """Share of the training in which it rises to `tt` (30 of 300 epochs)."""
        centering: Centering = "mean"
        """What keeps the teacher from one prototype for all images; "none" lets it collapse."""
        loss: Literal["ce", "mse"] = "ce"
        """Cross-entropy, or the squared distance of unit logits (table 7)."""
        m: float = 0.996
        """Momentum of the teacher at the start; it rises to 1. 0: the teacher is the student without gradient."""
        center_m: float = 0.9
        """Momentum of the centre."""
        freeze: float = 0.01
        """Share of the training in which the prototypes stand still (1 epoch of 100)."""
        n_local: int = 8
        """Small crops; 0 for none."""
        augment: Augment = field(default_factory=lambda: VIEW)
        """The large crops; their size is the side of the images that the network sees."""
        local: Augment = field(default_factory=lambda: SMALL)
        """The small crops."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Any]]

    def __init__(self, config: Any, encoder: nn.Module | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names; it has `num_features`."""
        super().__init__()
        c = self.config = config
        if not min(c.ts, c.tt, c.tt_start) > 0 or not 0 <= c.m <= 1 or c.loss not in ("ce", "mse"):
            raise InputError(f"{self.name} needs temperatures above 0, m in [0, 1] and the loss ce or mse; got {c}.")
        network: Any = self.network() if encoder is None else encoder
        self.student = nn.ModuleDict({"backbone": network, "head": self.new_head(network.num_features)})
        self.teacher = frozen_copy(self.student)
        self.predictor = projection_head(c.bottleneck, c.hidden, c.bottleneck) if c.predictor else nn.Identity()
        self.targets = Targets(c.prototypes, c.centering, c.center_m)

    @property
    def backbone(self) -> Any:
        """The teacher's."""
        return self.teacher["backbone"]

    def network(self) -> nn.Module:
        """The untrained backbone."""
        return backbone(self.config.backbone, self.config.augment.size)

    def new_head(self, width: int) -> nn.Module:
        """The untrained head."""
        c = self.config
        return DINOHead(width, c.prototypes, c.hidden, c.bottleneck, norm_last_layer=c.norm_last_layer)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> two large and `n_local` small float views."""
        large, small = (partial(t, generator=generator) for t in (self.config.augment, self.config.local))
        return multi_crop(images, large, small, self.config.n_local)

    def forward(self, views: list[Tensor], progress: float = 1.0) -> dict[str, Tensor]:
        """Loss of a batch, one pass for each size of crop; in training mode the centre then moves."""
        head: Any = self.student["head"]
        z = multicrop_forward(self.student["backbone"], head.bottleneck, views)
        student = head.last_layer(F.normalize(self.predictor(z), dim=1)).chunk(len(views))
        with torch.no_grad():
            teacher = self.teacher["head"](self.backbone(torch.cat(views[:2])))
        z1, z2 = z.chunk(len(views))[:2]
        return {"loss": self.class_loss(student, teacher, progress), "embedding": z1, "positive": z2}

    def class_loss(self, student: Any, teacher: Tensor, progress: float) -> Tensor:
        """The loss of V tensors (B, K) of the student's logits and (2B, K) of the teacher's."""
        targets = self.targets(teacher, self.temperature(progress)).chunk(2)
        if self.config.loss == "ce":
            return distillation_loss(student, targets, self.config.ts)
        return unit_distillation_loss(student, teacher.chunk(2))

    def temperature(self, progress: float) -> float:
        """The teacher's temperature: a line from `tt_start` to `tt`, then `tt`."""
        c = self.config
        return c.tt_start + (c.tt - c.tt_start) * min(progress / c.warm if c.warm else 1.0, 1.0)

    def after_backward(self, progress: float) -> None:
        """Let the prototypes stand still at first."""
        if progress < self.config.freeze:
            drop_gradients(self.student["head"], "last_layer")

    def after_step(self, step: int, total_steps: int) -> None:
        """Move the teacher; its batch-norm statistics are its own."""
        ema_update(self.student, self.teacher, cosine_ema_schedule(step, total_steps, self.config.m), buffers="keep")


# For sketches ("shapes:sketch"). On the default world, a minute without negatives ends below pixels: perhaps in the
# colour of the ground and the light, which two views share at no effort.
_SKETCH = SimCLR.PRESETS["cpu_sketch"]
# Sinkhorn in place of the moving centre (table 7): some hundred steps are too few for the centre to tell images apart.
CPU: dict[str, Any] = {
    "hidden": 256, "bottleneck": 64, "prototypes": 64, "tt": 0.04, "centering": "sinkhorn", "m": 0.9,
    "n_local": 0, "augment": _SKETCH.augment, "local": replace(_SKETCH.augment, size=16, scale=(0.3, 0.8)),
    "train": _SKETCH.train,
}  # fmt: skip
# Section 3.2: AdamW, lr 5e-4 x batch / 256, batch 1024, decay 0.04 (to 0.4 there), 10 epochs of warm-up, clipped at 3.
ADAMW = TrainConfig(100, batch_size=1024, optimizer="adamw", lr=5e-4, final_lr=1e-6, weight_decay=0.04, clip_grad=3.0)
DINO.PRESETS = {
    "cpu": DINO.Config("convnet_fast", **CPU),
    "cpu_vit": DINO.Config("vit_mini_hybrid8", **CPU),
    "vit_small": DINO.Config(train=ADAMW),
}
