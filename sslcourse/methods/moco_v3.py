"""MoCo v3: no queue; a predictor, a momentum encoder, a large batch, and a ViT that is kept stable.

Chen, Xie, He 2021, "An empirical study of training self-supervised vision transformers", arXiv:2104.02057, algorithm 1:

    for a batch of N images:
        two random views x1, x2                                            -> `views`
        q1, q2 = f_q(x1), f_q(x2)    backbone, projector, predictor        -> `forward`
        k1, k2 = f_k(x1), f_k(x2)    backbone, projector; no gradient      -> `forward`
        loss = ctr(q1, k2) + ctr(q2, k1),  ctr = 2 tau InfoNCE             -> `forward`
        after the update of f_q:  f_k <- m f_k + (1 - m) f_q, m -> 1       -> `after_step`
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.views import two_views
from sslcourse.errors import InputError
from sslcourse.losses.moco import symmetric_moco_v3
from sslcourse.methods.simclr import SimCLR
from sslcourse.nn.backbones import backbone
from sslcourse.nn.heads import projection_head
from sslcourse.nn.momentum import frozen_copy
from sslcourse.nn.positions import sincos_2d
from sslcourse.nn.vit import ViT
from sslcourse.train.config import TrainConfig
from sslcourse.train.distributed import gather
from sslcourse.train.optim import cosine_ema_schedule, ema_update

# Both views with BYOL's colours (appendix A); theirs solarise only the second view, ours either with half the chance.
_VIEW = Augment(224, jitter=(0.4, 0.4, 0.2, 0.1), blur=0.55, solarize=0.1)


class MoCoV3(nn.Module):
    """MoCo v3 with a ViT or a ResNet.

    Attributes:
        backbone, projector, predictor: f_q; the backbone is what is kept.
        key_encoder: f_k, the moving average of backbone and projector.
    """

    name: ClassVar[str] = "moco_v3"

    @dataclass(frozen=True)
    class Config:
        """Settings of MoCo v3."""

        backbone: str = "vit_small_patch16"
        """Network whose output is the representation; see sslcourse.nn.backbones."""
        hidden: int = 4096
        """Width of the hidden layers of projector and predictor."""
        dim: int = 256
        """Width of queries and keys."""
        projector_layers: int = 3
        """Linear layers of the projector: 3 for ViTs, 2 for ResNets."""
        predictor_bn: bool = True
        """Batch norm at the end of the predictor: for ViTs, not for ResNets."""
        freeze_patches: bool = True
        """Keep the patch embedding of a ViT random, which keeps the training stable (section 4.2)."""
        tau: float = 0.2
        """Temperature."""
        m: float = 0.99
        """Momentum of the key encoder at the start; it rises to 1 along a cosine."""
        augment: Augment = field(default_factory=lambda: _VIEW)
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: nn.Module | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names; it has `num_features`."""
        super().__init__()
        if not config.tau > 0 or not 0 <= config.m <= 1:
            raise InputError(f"moco_v3 needs tau above 0 and m in [0, 1]; got tau={config.tau}, m={config.m}.")
        self.config = config
        self.backbone = backbone(config.backbone, config.augment.size) if encoder is None else encoder
        if isinstance(self.backbone, ViT):
            _fix_inputs(self.backbone, config.freeze_patches)
        width: Any = self.backbone.num_features
        self.projector = projection_head(
            width, config.hidden, config.dim, layers=config.projector_layers, last_bn=True, last_affine=False
        )
        self.predictor = projection_head(
            config.dim, config.hidden, config.dim, last_bn=config.predictor_bn, last_affine=False, last_bias=False
        )
        self.key_encoder = frozen_copy(nn.ModuleDict({"backbone": self.backbone, "projector": self.projector}))

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> two (B, 3, size, size) float views."""
        return list(two_views(images, partial(self.config.augment, generator=generator)))

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch, over the embeddings of all processes. Each view has batch statistics of its own."""
        q1, q2 = (self.predictor(self.projector(self.backbone(x))) for x in views)
        with torch.no_grad():
            k1, k2 = (self.key_encoder["projector"](self.key_encoder["backbone"](x)) for x in views)
        loss = symmetric_moco_v3(gather(q1), gather(q2), gather(k1), gather(k2), self.config.tau)
        return {"loss": loss, "embedding": q1, "positive": q2}

    def after_step(self, step: int, total_steps: int) -> None:
        """Move the key encoder; its batch-norm statistics are its own."""
        m = cosine_ema_schedule(step + 1, total_steps, self.config.m)
        online = nn.ModuleDict({"backbone": self.backbone, "projector": self.projector})
        ema_update(online, self.key_encoder, m, buffers="keep")


def _fix_inputs(vit: ViT, freeze_patches: bool) -> None:
    """Positions by sine and cosine, not learned, and a random patch embedding (section 4.2 and appendix A)."""
    h, w = vit.grid_size
    positions = sincos_2d(h, w, vit.num_features, first="row")
    vit.pos_embed.data[:, -h * w :] = positions
    vit.pos_embed.data[:, : -h * w] = 0.0
    vit.pos_embed.requires_grad_(False)
    vit.patch_embed.requires_grad_(not freeze_patches)


_SKETCH = SimCLR.PRESETS["cpu_sketch"]
MoCoV3.PRESETS = {
    # For sketches ("shapes:sketch") at 32 px on a CPU; with the convnet and so the heads of the ResNet form.
    "cpu": MoCoV3.Config(
        "convnet_fast", 256, 128, 2, predictor_bn=False, augment=_SKETCH.augment, train=_SKETCH.train
    ),
    # Appendix A: AdamW, lr 1.5e-4 x batch / 256, weight decay 0.1, 300 epochs with 40 of warm-up.
    "vit_small": MoCoV3.Config(
        train=TrainConfig(
            epochs=300, batch_size=4096, optimizer="adamw", lr=1.5e-4, weight_decay=0.1, warmup_epochs=40
        ),
    ),
    # The official README's ResNet-50: LARS, lr 0.3 x batch / 256, weight decay 1.5e-6, tau 1, m 0.996, 1000 epochs.
    "imagenet_resnet50": MoCoV3.Config(
        "resnet50", projector_layers=2, predictor_bn=False, tau=1.0, m=0.996,
        train=TrainConfig(epochs=1000, batch_size=4096, optimizer="lars", lr=0.3, weight_decay=1.5e-6),
    ),
}  # fmt: skip
