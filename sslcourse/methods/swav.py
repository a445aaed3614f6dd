"""SwAV: cluster online, and predict from one view which cluster another view of the image belongs to.

Caron, Misra, Mairal, Goyal, Bojanowski, Joulin 2020, "Unsupervised learning of visual features by contrasting cluster
assignments", arXiv:2006.09882, algorithm 1 (appendix A):

    for a batch of N images:
        2 large and V small random crops                                     -> `views`
        z = f(crop) / |f(crop)|,  scores = z^T C     C: K unit prototypes    -> `forward`
        q = sinkhorn(scores) of the large crops, no gradient; a queue of earlier z balances small batches
        loss = cross-entropy of q and softmax(scores / tau) of the *other* crops    -> `forward`
        the prototypes stand still at first                                  -> `after_backward`
        after the update:  C <- C / |C|                                      -> `after_step`
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.views import multi_crop
from sslcourse.errors import InputError
from sslcourse.losses.swav import normalize_prototypes, swav_codes, swav_loss
from sslcourse.methods.simclr import SimCLR
from sslcourse.nn.backbones import backbone
from sslcourse.nn.heads import projection_head
from sslcourse.nn.momentum import KeyQueue
from sslcourse.nn.multicrop import multicrop_forward
from sslcourse.train.config import TrainConfig
from sslcourse.train.distributed import gather, rank, world_size
from sslcourse.train.schedules import drop_gradients

_GLOBAL = Augment(224, scale=(0.14, 1.0))  # section 3.4 and appendix: SimCLR's colours
_LOCAL = Augment(96, scale=(0.05, 0.14))


class SwAV(nn.Module):
    """SwAV with any backbone of `sslcourse.nn.backbones`.

    Attributes:
        backbone: what is kept.
        projector: (B, num_features) -> (B, dim).
        prototypes: a linear layer without bias, (K, dim) unit vectors.
        queues: earlier embeddings, one queue for each large crop.
    """

    name: ClassVar[str] = "swav"
    uses: ClassVar[tuple[str, ...]] = ("progress",)

    @dataclass(frozen=True)
    class Config:
        """Settings of SwAV."""

        backbone: str = "resnet50"
        """Network whose output is the representation; see sslcourse.nn.backbones."""
        hidden: int = 2048
        """Width of the projector's hidden layer."""
        dim: int = 128
        """Width of embeddings and prototypes."""
        prototypes: int = 3000
        """Number K of prototypes."""
        tau: float = 0.1
        """Temperature of the prediction."""
        eps: float = 0.05
        """Strength of the entropy term of the codes: small makes them hard."""
        iterations: int = 3
        """Iterations of Sinkhorn-Knopp."""
        sinkhorn: bool = True
        """False takes softmax(scores / eps) for codes: nothing keeps all images from one prototype."""
        queue: int = 0
        """Embeddings kept for each large crop; for batches smaller than the number of prototypes (3840 at 256)."""
        queue_from: float = 0.04
        """Share of the training after which the queue is used (epoch 15 of 400 in the official code)."""
        freeze: float = 0.001
        """Share of the training in which the prototypes stand still (313 steps at 800 epochs)."""
        n_local: int = 6
        """Small crops."""
        augment: Augment = field(default_factory=lambda: _GLOBAL)
        """The large crops; their size is the side of the images that the network sees."""
        local: Augment = field(default_factory=lambda: _LOCAL)
        """The small crops."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: nn.Module | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names; it has `num_features`."""
        super().__init__()
        if not min(config.tau, config.eps) > 0 or config.prototypes < 2:
            raise InputError(f"swav needs tau and eps above 0 and 2 or more prototypes; got {config}.")
        self.config = config
        self.backbone = backbone(config.backbone, config.augment.size) if encoder is None else encoder
        width: Any = self.backbone.num_features
        self.projector = projection_head(width, config.hidden, config.dim)
        self.prototypes = nn.Linear(config.dim, config.prototypes, bias=False)
        normalize_prototypes(self.prototypes.weight)
        self.queues = nn.ModuleList(KeyQueue(config.queue, config.dim) for _ in range(2))

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> two large and `n_local` small float views."""
        large, small = (partial(t, generator=generator) for t in (self.config.augment, self.config.local))
        return multi_crop(images, large, small, self.config.n_local)

    def forward(self, views: list[Tensor], progress: float = 1.0) -> dict[str, Tensor]:
        """Loss of a batch; in training mode the embeddings of its large crops then enter the queues."""
        z = F.normalize(multicrop_forward(self.backbone, self.projector, views), dim=1)
        scores, each = self.prototypes(z).chunk(len(views)), z.chunk(len(views))
        queues: Any = self.queues
        codes = [self.codes(s, queue, progress) for s, queue in zip(scores, queues, strict=False)]
        if self.training and self.config.queue:
            for queue, embedded in zip(queues, each, strict=False):
                queue.push(gather(embedded.detach()).to(queue.keys.dtype))
        return {"loss": swav_loss(scores, codes, self.config.tau), "embedding": each[0], "positive": each[1]}

    @torch.no_grad()
    def codes(self, scores: Tensor, queue: Any, progress: float) -> Tensor:
        """(B, K) soft assignments of one large crop, balanced over the images of all processes and the queue."""
        c = self.config
        if not c.sinkhorn:
            return (scores.float() / c.eps).softmax(dim=1)
        queued = None
        if c.queue and progress >= c.queue_from:  # every process holds the whole queue and brings its share of it
            queued = self.prototypes(queue.keys.tensor_split(world_size())[rank()])
        return swav_codes(scores, queued, c.eps, c.iterations)

    def after_backward(self, progress: float) -> None:
        """Let the prototypes stand still at first."""
        if progress < self.config.freeze:
            drop_gradients(self.prototypes, "weight")

    def after_step(self, step: int, total_steps: int) -> None:
        """Bring the prototypes back to unit length."""
        normalize_prototypes(self.prototypes.weight)


# For sketches ("shapes:sketch"). On the default world, a minute without negatives ends below pixels: perhaps in the
# colour of the ground and the light, which two views share at no effort.
_SKETCH = SimCLR.PRESETS["cpu_sketch"]
SwAV.PRESETS = {
    "cpu": SwAV.Config(
        "convnet_fast", hidden=256, prototypes=64, queue=256, n_local=0, augment=_SKETCH.augment,
        local=replace(_SKETCH.augment, size=16, scale=(0.3, 0.8)), train=_SKETCH.train,
    ),
    # Appendix B: LARS, lr 0.3 x batch / 256 = 4.8 at batch 4096, weight decay 1e-6, 800 epochs, 10 of warm-up.
    "imagenet_resnet50": SwAV.Config(
        train=TrainConfig(epochs=800, batch_size=4096, optimizer="lars", lr=0.3, final_lr=3e-4, weight_decay=1e-6)
    ),
}  # fmt: skip
