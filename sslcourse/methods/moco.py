"""MoCo v1 and v2: find the other view of an image among thousands of older keys that wait in a queue.

He, Fan, Wu, Xie, Girshick 2020, "Momentum contrast for unsupervised visual representation learning", arXiv:1911.05722,
algorithm 1; Chen, Fan, Girshick, He 2020, "Improved baselines with momentum contrastive learning", arXiv:2003.04297,
adds an MLP head, SimCLR's blur and a cosine schedule:

    for a batch of N images:
        two random views, x_q and x_k                            -> `views`
        q = f_q(x_q), k = f_k(x_k) without gradient              -> `forward`, `keys`
        loss = cross-entropy of [q.k, q.queue] / tau, label 0    -> `forward`
        enqueue k, dequeue the oldest                            -> `forward`
        after the update of f_q:  f_k <- m f_k + (1 - m) f_q     -> `after_step`
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.rng import shard_rows
from sslcourse.data.views import two_views
from sslcourse.errors import InputError
from sslcourse.losses.infonce import info_nce
from sslcourse.losses.moco import moco_logits, shuffle_bn
from sslcourse.methods.simclr import SimCLR
from sslcourse.nn.backbones import backbone
from sslcourse.nn.heads import projection_head
from sslcourse.nn.momentum import KeyQueue, frozen_copy
from sslcourse.train.config import TrainConfig
from sslcourse.train.distributed import gather, rank, world_size
from sslcourse.train.optim import ema_update


class MoCo(nn.Module):
    """MoCo v1; v2 has other settings.

    Attributes: `backbone` (what is kept) and `head` are f_q, `key_encoder` is f_k, `queue` holds earlier keys.
    """

    name: ClassVar[str] = "moco_v1"

    @dataclass(frozen=True)
    class Config:
        """Settings of MoCo."""

        backbone: str = "resnet50"
        """Network whose output is the representation; see sslcourse.nn.backbones."""
        head: Literal["linear", "mlp"] = "linear"
        """Last layer of the encoder: linear (v1), or with one hidden layer as wide as the backbone's output (v2)."""
        bn: bool = False
        """Batch norm in the head; the paper has none, but a small network on small images collapses without."""
        dim: int = 128
        """Width of queries and keys."""
        queue: int = 65536
        """Keys in the queue; 0: no queue, the other keys of the batch are the negatives."""
        tau: float = 0.07
        """Temperature."""
        m: float = 0.999
        """Momentum of the key encoder; 0 makes it a copy of the query encoder."""
        bn_groups: int = 1
        """Parts of a batch that batch norm sees one at a time, as several GPUs would; with more than one (or several
        processes) the keys' images are shuffled, so that the parts cannot tell which key belongs to which query."""
        shuffle: bool = True
        """Whether they are; False shows what happens otherwise (section 3.3)."""
        augment: Augment = field(default_factory=lambda: Augment(224))
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: nn.Module | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names; it has `num_features`."""
        super().__init__()
        if not config.tau > 0 or not 0 <= config.m <= 1:
            raise InputError(f"{self.name} needs tau above 0 and m in [0, 1]; got tau={config.tau}, m={config.m}.")
        self.config = config
        self.backbone = backbone(config.backbone, config.augment.size) if encoder is None else encoder
        width: Any = self.backbone.num_features
        layers = 1 if config.head == "linear" else 2
        self.head = projection_head(width, width, config.dim, layers=layers, bn=config.bn, last_bn=config.bn)
        self.key_encoder = frozen_copy(nn.ModuleDict({"backbone": self.backbone, "head": self.head}))
        self.queue = KeyQueue(config.queue, config.dim)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> x_q and x_k (B, 3, size, size), and the order in which the keys are computed."""
        x_q, x_k = two_views(images, partial(self.config.augment, generator=generator))
        total, _ = shard_rows(len(images), generator)
        order, _ = shuffle_bn(torch.arange(total), generator)
        return [x_q, x_k, order.to(images.device)]

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch; in training mode its keys then enter the queue."""
        x_q, x_k, order = views[:3]
        q = self.head(self._in_groups(self.backbone, x_q))
        k = self.keys(x_k, order)
        if self.config.queue:
            logits, labels = moco_logits(q, k, self.queue.keys, self.config.tau, own=self.own_negatives(q, views[3:]))
            loss = F.cross_entropy(logits, labels)
        else:
            loss = info_nce(gather(q), gather(k), tau=self.config.tau)
        if self.training:
            self.queue.push(gather(k))
        return {"loss": loss, "embedding": q, "positive": k}

    @torch.no_grad()
    def keys(self, x: Tensor, order: Tensor) -> Tensor:
        """f_k of this process's images, computed in groups that `order` has mixed over all processes."""
        shuffled = self.config.shuffle and (self.config.bn_groups > 1 or world_size() > 1)
        mine = slice(rank() * len(x), (rank() + 1) * len(x))
        x = gather(x)[order][mine] if shuffled else x
        k = self.key_encoder["head"](self._in_groups(self.key_encoder["backbone"], x))
        return gather(k)[order.argsort()][mine] if shuffled else k

    def own_negatives(self, q: Tensor, draws: list[Tensor]) -> Tensor | None:
        """Negatives of each query beside the queue: none in MoCo."""
        return None

    def after_step(self, step: int, total_steps: int) -> None:
        """Move the key encoder; its batch-norm statistics are its own."""
        online = nn.ModuleDict({"backbone": self.backbone, "head": self.head})
        ema_update(online, self.key_encoder, self.config.m, buffers="keep")

    def _in_groups(self, network: nn.Module, x: Tensor) -> Tensor:
        return torch.cat([network(part) for part in x.chunk(self.config.bn_groups)])


class MoCoV2(MoCo):
    """MoCo with an MLP head, stronger views and a higher temperature."""

    name: ClassVar[str] = "moco_v2"
    PRESETS: ClassVar[dict[str, MoCo.Config]]


_SIMCLR = SimCLR.PRESETS["cpu"]  # with milder colours: a random network's keys hold little else that can be foreseen
_VIEW = replace(_SIMCLR.augment, jitter=(0.4, 0.4, 0.4, 0.3), gray=0.2, solarize=0.0)
_CPU = MoCo.Config("convnet_fast", bn=True, queue=256, tau=0.2, m=0.99, augment=_VIEW, train=_SIMCLR.train)
# Section 3.3: SGD, lr 0.03 for 256 images; the rate falls by steps, here along a cosine. Views as in Wu et al. 2018.
_V1_VIEW = Augment(224, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1.0, blur=0.0)
_V2_VIEW = Augment(224, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0.8, blur=0.5)
_SGD = TrainConfig(epochs=200, batch_size=256, optimizer="sgd", lr=0.03, weight_decay=1e-4, warmup_epochs=0)
MoCo.PRESETS = {"cpu": _CPU, "imagenet_resnet50": MoCo.Config(augment=_V1_VIEW, train=_SGD)}
MoCoV2.PRESETS = {
    "cpu": replace(_CPU, head="mlp"),
    "imagenet_resnet50": MoCo.Config(head="mlp", tau=0.2, augment=_V2_VIEW, train=_SGD),  # table 1, (e): 800 epochs
}
