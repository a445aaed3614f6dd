"""DenseCL: MoCo v2 for images and, at the same time, for every cell of their feature maps.

Wang, Zhang, Shen, Kong, Li 2021, "Dense contrastive learning for self-supervised visual pre-training",
arXiv:2011.09157:

    for a batch of N images:
        two random views x_q and x_k                                                     -> `views`
        F = backbone(x), one vector q = head(mean F), a map r = dense_head(F)            -> `encode`
        match every cell of r_q with the cell of x_k whose F is most similar (Eq. 3)     -> `match`
        loss = (1 - lambda) InfoNCE(q, k, queue) + lambda InfoNCE(r_q, r_k matched, dense queue)   (Eq. 1, 2, 4)
        enqueue k, and the mean of the map r_k as a dense key                            -> `forward`
        after the update of f_q:  f_k <- m f_k + (1 - m) f_q                             -> `after_step`
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.rng import shard_rows
from sslcourse.errors import InputError, unknown
from sslcourse.evaluate.encoder import dense_features
from sslcourse.losses.dense import dense_info_nce, densecl_match, match_geometric, match_random
from sslcourse.losses.moco import moco_logits
from sslcourse.methods.moco import MoCoV2
from sslcourse.nn.backbones import backbone
from sslcourse.nn.heads import projection_head
from sslcourse.nn.momentum import KeyQueue, frozen_copy
from sslcourse.train.config import TrainConfig
from sslcourse.train.distributed import gather
from sslcourse.train.optim import ema_update

MATCHES = ("backbone", "projected", "random", "geometric")  # F, Theta and the two others of the paper's table 5


class DenseCL(nn.Module):
    """DenseCL with any backbone that has a feature map: `backbone` is what is kept."""

    name: ClassVar[str] = "densecl"

    @dataclass(frozen=True)
    class Config:
        """Settings of DenseCL."""

        backbone: str = "resnet50"
        """Network whose output is the representation; see sslcourse.nn.backbones."""
        hidden: int = 2048
        """Width of the hidden layer of both heads."""
        bn: bool = False
        """Batch norm in the heads; the paper has none, but a small network on small images collapses without."""
        dim: int = 128
        """Width of global and dense keys."""
        queue: int = 65536
        """Keys in each queue."""
        tau: float = 0.2
        """Temperature."""
        m: float = 0.999
        """Momentum of the key encoder."""
        dense: float = 0.5
        """Weight lambda of the dense loss; the global one has 1 - lambda."""
        grid: int = 7
        """Cells on a side of the dense maps; larger feature maps are averaged to it."""
        match: Literal["backbone", "projected", "random", "geometric"] = "backbone"
        """Where a cell finds its positive: the most similar one of the backbone's maps (the paper) or of the projected
        maps, any one, or the one that the two crops say shows the same place."""
        augment: Augment = field(default_factory=lambda: MoCoV2.PRESETS["imagenet_resnet50"].augment)
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: nn.Module | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names; it has `num_features` and a feature map."""
        super().__init__()
        if not config.tau > 0 or not 0 <= config.m <= 1 or not 0 <= config.dense <= 1 or config.queue < 1:
            raise InputError(
                "densecl needs tau above 0, m and dense in [0, 1] and a queue; "
                f"got {config.tau}, {config.m}, {config.dense} and {config.queue}."
            )
        if config.match not in MATCHES:
            raise unknown("matching", config.match, MATCHES)
        self.config = config
        self.backbone = backbone(config.backbone, config.augment.size) if encoder is None else encoder
        width: Any = self.backbone.num_features
        self.head = projection_head(width, config.hidden, config.dim, bn=config.bn, last_bn=config.bn)
        self.dense_head = nn.Sequential(
            nn.Conv2d(width, config.hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(config.hidden, config.dim, 1)
        )
        if config.bn:
            self.dense_head.append(nn.BatchNorm2d(config.dim))
        self.key_encoder = frozen_copy(self._online())
        self.queue, self.dense_queue = (KeyQueue(config.queue, config.dim) for _ in range(2))

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> two (B, 3, size, size) views; matches (B, grid^2) too where they are not learned."""
        view, grid = self.config.augment, self.config.grid
        total, mine = shard_rows(len(images), generator)
        a, b = (view.draw(total, *images.shape[2:], generator=generator).rows(mine) for _ in range(2))
        views = [view.apply(images, draws.to(images.device)) for draws in (a, b)]
        if self.config.match == "random":
            views.append(match_random(total, grid**2, generator)[mine])
        elif self.config.match == "geometric":
            views += match_geometric(a.boxes, b.boxes, (grid, grid), a.flip, b.flip)
        return [v.to(images.device) for v in views]

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch; in training mode its keys then enter the queues."""
        q, map_q, r_q = self.encode(self._online(), views[0])
        with torch.no_grad():
            k, map_k, r_k = self.encode(self.key_encoder, views[1])
        logits, labels = moco_logits(q, k, self.queue.keys, self.config.tau)
        if self.config.match in ("backbone", "projected"):
            maps = (map_q, map_k) if self.config.match == "backbone" else (r_q, r_k)
            idx, valid = densecl_match(*maps), None
        else:
            idx, valid = views[2], views[3] if len(views) > 3 else None
        dense = dense_info_nce(r_q, r_k, idx, self.dense_queue.keys, self.config.tau, valid=valid)
        single, dense = (1 - self.config.dense) * F.cross_entropy(logits, labels), self.config.dense * dense
        if self.training:
            self.queue.push(gather(k))
            self.dense_queue.push(gather(r_k.mean(dim=1)))
        return {"loss": single + dense, "global": single, "dense": dense, "embedding": q, "positive": k}

    def encode(self, network: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, dim) global embedding; (B, S, width) cells of the backbone; (B, S, dim) the same, projected."""
        features = dense_features(network["backbone"], x)
        cells = F.adaptive_avg_pool2d(features, self.config.grid)
        projected = network["dense_head"](cells)
        return network["head"](features.mean(dim=(2, 3))), cells.flatten(2).mT, projected.flatten(2).mT

    def after_step(self, step: int, total_steps: int) -> None:
        """Move the key encoder; its batch-norm statistics are its own."""
        ema_update(self._online(), self.key_encoder, self.config.m, buffers="keep")

    def _online(self) -> nn.ModuleDict:
        return nn.ModuleDict({"backbone": self.backbone, "head": self.head, "dense_head": self.dense_head})


_PAPER = MoCoV2.PRESETS["imagenet_resnet50"]
_CPU: dict[str, Any] = {f: getattr(MoCoV2.PRESETS["cpu"], f) for f in ("queue", "tau", "m", "augment", "train")}
DenseCL.PRESETS = {
    "cpu": DenseCL.Config("convnet_fast", 256, bn=True, grid=4, **_CPU),
    "imagenet_resnet50": DenseCL.Config(train=_PAPER.train),  # section 4.1: as MoCo v2, 200 epochs of ImageNet
}
