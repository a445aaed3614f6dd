"""LooC: one embedding space indifferent to every augmentation, and one for each that is indifferent to all but it.

Xiao, Wang, Efros, Darrell 2021, "What should not be contrastive in contrastive learning", arXiv:2008.05659:

    for a batch of N images and n augmentations (here colour, and rotation by quarter turns):
        a query; a key k_0; for each augmentation i a key k_i that shares i with the query     -> `views`
        every view through one backbone, then through n + 1 heads                             -> `forward`
        loss = mean over the n + 1 spaces, with a queue for each (`losses.looc`)              -> `forward`
        enqueue k_0, space by space                                                           -> `forward`
        after the update of f_q:  f_k <- m f_k + (1 - m) f_q                                  -> `after_step`

LooC keeps the backbone's output; LooC++ puts the hidden layers of all heads beside it (`LooCFeatures`).
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.rng import shard_rows
from sslcourse.errors import InputError
from sslcourse.losses.looc import looc_draws, looc_loss
from sslcourse.methods.moco import MoCoV2
from sslcourse.nn.backbones import backbone
from sslcourse.nn.heads import WithHidden, projection_head
from sslcourse.nn.momentum import KeyQueue, frozen_copy
from sslcourse.train.config import TrainConfig
from sslcourse.train.distributed import gather
from sslcourse.train.optim import ema_update

AUGMENTATIONS = ("color", "rotation")


class LooC(nn.Module):
    """LooC with any backbone of `sslcourse.nn.backbones`.

    `heads` and `queues` are one for each space, the first indifferent to all; `backbone` is what is kept.
    """

    name: ClassVar[str] = "looc"

    @dataclass(frozen=True)
    class Config:
        """Settings of LooC."""

        backbone: str = "resnet50"
        """Network whose output is the representation; see sslcourse.nn.backbones."""
        augmentations: tuple[str, ...] = AUGMENTATIONS
        """What is left out, one at a time: "color" (jitter, grey, solarisation) and "rotation" (quarter turns)."""
        concatenate: bool = False
        """LooC++: keep the hidden layers of the heads, too."""
        hidden: int = 2048
        """Width of the hidden layer of every head."""
        bn: bool = False
        """Batch norm in the heads; the paper has none, but a small network on small images collapses without."""
        dim: int = 128
        """Width of queries and keys."""
        queue: int = 16384
        """Keys in each queue."""
        tau: float = 0.2
        """Temperature."""
        m: float = 0.999
        """Momentum of the key encoder."""
        augment: Augment = field(default_factory=lambda: MoCoV2.PRESETS["imagenet_resnet50"].augment)
        """The random view, before the rotation; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config) -> None:
        super().__init__()
        chosen = config.augmentations
        if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(AUGMENTATIONS):
            raise InputError(f"looc leaves out some of {', '.join(AUGMENTATIONS)}, each once; got {chosen}.")
        self.config = config
        inner = backbone(config.backbone, config.augment.size)
        width: Any = inner.num_features
        spaces = len(chosen) + 1
        norm = {"bn": config.bn, "last_bn": config.bn}
        self.heads = nn.ModuleList(projection_head(width, config.hidden, config.dim, **norm) for _ in range(spaces))
        self.backbone: Any = WithHidden(inner, self.heads) if config.concatenate else inner
        self.key_encoder = frozen_copy(nn.ModuleDict({"encoder": inner, "heads": self.heads}))
        self.queues = nn.ModuleList(KeyQueue(config.queue, config.dim) for _ in range(spaces))

    @property
    def encoder(self) -> Any:  # the network below the heads
        return self.backbone.inner if self.config.concatenate else self.backbone

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> query, k_0, k_1, ... k_n, each (B, 3, size, size) float."""
        total, mine = shard_rows(len(images), generator)
        size = images.shape[2:]
        plan = looc_draws(len(self.config.augmentations))
        drawn = [self.config.augment.draw(total, *size, generator=generator).rows(mine) for _ in plan]
        turns = torch.randint(4, (len(plan), total), generator=generator)[:, mine]
        colors = {name: getattr(drawn[0], name) for name in ("factors", "order", "gray", "solarize")}
        views = []
        for view, sources in enumerate(plan.tolist()):
            own, turn = drawn[view], turns[view]
            for name, source in zip(self.config.augmentations, sources, strict=True):
                if source == 0:  # shared with the query
                    turn = turns[0] if name == "rotation" else turn
                    own = own._replace(**colors) if name == "color" else own
            x = self.config.augment.apply(images, own.to(images.device))
            views.append(_turned(x, turn.to(x.device)) if "rotation" in self.config.augmentations else x)
        return views

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch; in training mode its keys k_0 then enter the queues."""
        h = self.encoder(views[0])
        q = torch.stack([head(h) for head in self.heads])
        with torch.no_grad():
            keys = [self.key_encoder["encoder"](x) for x in views[1:]]
            heads: Any = self.key_encoder["heads"]
            k = torch.stack([torch.stack([head(key) for key in keys]) for head in heads])
        loss = looc_loss(q, k, torch.stack([queue.keys for queue in self.queues]), self.config.tau)  # type: ignore[misc]
        if self.training:
            for queue, own in zip(self.queues, k, strict=True):
                queue.push(gather(own[0]))  # type: ignore[operator]
        return {"loss": loss, "embedding": q[0], "positive": k[0, 0]}

    def after_step(self, step: int, total_steps: int) -> None:
        """Move the key encoder; its batch-norm statistics are its own."""
        online = nn.ModuleDict({"encoder": self.encoder, "heads": self.heads})
        ema_update(online, self.key_encoder, self.config.m, buffers="keep")


def _turned(x: Tensor, turns: Tensor) -> Tensor:
    """Every image turned by its own number of quarter turns (B,)."""
    return torch.stack([x.rot90(k, dims=(2, 3)) for k in range(4)])[turns, torch.arange(len(x), device=x.device)]


_CPU, _PAPER = MoCoV2.PRESETS["cpu"], MoCoV2.PRESETS["imagenet_resnet50"]
LooC.PRESETS = {
    # Turns alone are left out: with the colours left out, too, the small network tells images apart by these.
    "cpu": LooC.Config(
        "convnet_fast",
        augmentations=("rotation",),
        bn=True,
        hidden=256,
        queue=_CPU.queue,
        tau=_CPU.tau,
        m=_CPU.m,
        augment=_CPU.augment,
        train=_CPU.train,
    ),
    "imagenet100_resnet50": LooC.Config(train=_PAPER.train),  # 100 classes of ImageNet, otherwise as MoCo v2
}
