"""SimSiam: BYOL without the second network. A stop-gradient and a predictor are what keeps it from collapse.

Chen and He 2020, "Exploring simple Siamese representation learning", arXiv:2011.10566, algorithm 1:

    for a batch of N images:
        two random views x1, x2                                    -> `views`
        z1, z2 = f(x1), f(x2)      backbone and projector          -> `forward`
        p1, p2 = h(z1), h(z2)      predictor                       -> `forward`
        loss = D(p1, sg(z2)) / 2 + D(p2, sg(z1)) / 2               -> `forward`
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.views import two_views
from sslcourse.losses.simsiam import simsiam_loss
from sslcourse.methods.simclr import SimCLR
from sslcourse.nn.backbones import backbone
from sslcourse.nn.heads import projection_head
from sslcourse.train.config import TrainConfig

_VIEW = Augment(224, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), blur=0.5)  # section 3: MoCo v2's


class SimSiam(nn.Module):
    """SimSiam with any backbone of `sslcourse.nn.backbones`.

    Attributes:
        backbone, projector: the encoder f; the backbone is what is kept.
        predictor: the head h, narrow in the middle.
    """

    name: ClassVar[str] = "simsiam"

    @dataclass(frozen=True)
    class Config:
        """Settings of SimSiam."""

        backbone: str = "resnet50"
        """Network whose output is the representation; see sslcourse.nn.backbones."""
        hidden: int = 0
        """Width of the projector's hidden layers; 0: that of the backbone's output, as in the official code."""
        dim: int = 2048
        """Width of projections and predictions."""
        bottleneck: int = 512
        """Width of the predictor's hidden layer, a quarter of `dim` in the paper."""
        predictor: bool = True
        """False leaves the predictor out (the paper's table 1)."""
        stop_gradient: bool = True
        """False lets gradients flow into both sides: collapse (the paper's figure 2)."""
        augment: Augment = field(default_factory=lambda: _VIEW)
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: nn.Module | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names; it has `num_features`."""
        super().__init__()
        self.config = config
        self.backbone = backbone(config.backbone, config.augment.size) if encoder is None else encoder
        width: Any = self.backbone.num_features
        hidden = config.hidden or width
        self.projector = projection_head(width, hidden, config.dim, layers=3, last_bn=True, last_affine=False)
        predictor = projection_head(config.dim, config.bottleneck, config.dim) if config.predictor else nn.Identity()
        self.predictor: nn.Module = predictor

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> two (B, 3, size, size) float views."""
        return list(two_views(images, partial(self.config.augment, generator=generator)))

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch. Each view has batch statistics of its own."""
        z1, z2 = (self.projector(self.backbone(x)) for x in views)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        loss = simsiam_loss(p1, p2, z1, z2, stop_gradient=self.config.stop_gradient)
        return {"loss": loss, "embedding": z1, "positive": z2, "p1": p1, "p2": p2}


# For sketches ("shapes:sketch"). On the default world, a minute without negatives ends below pixels: perhaps in the
# colour of the ground and the light, which two views share at no effort.
_SKETCH = SimCLR.PRESETS["cpu_sketch"]
SimSiam.PRESETS = {
    "cpu": SimSiam.Config(
        "convnet_fast", hidden=256, dim=256, bottleneck=64, augment=_SKETCH.augment, train=_SKETCH.train
    ),
    # Section 3, "Baseline settings": SGD, lr 0.05 x batch / 256, batch 512, decay 1e-4, no warm-up, 100 epochs.
    "imagenet_resnet50": SimSiam.Config(
        train=TrainConfig(epochs=100, batch_size=512, optimizer="sgd", lr=0.05, weight_decay=1e-4, warmup_epochs=0)
    ),
    # Appendix D: ResNet-18, batch 512, lr 0.03, decay 5e-4, 800 epochs, projector of 2 layers there, 3 here.
    "cifar10_resnet18": SimSiam.Config(
        "resnet18",
        augment=Augment(32, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), blur=0.0),
        train=TrainConfig(epochs=800, batch_size=512, optimizer="sgd", lr=0.03, weight_decay=5e-4, warmup_epochs=0),
    ),
}
