"""DeepCluster v2: DeepCluster with what was learned since: normalised heads, multi-crop, and a memory for the features.

Caron, Misra, Mairal, Goyal, Bojanowski, Joulin 2020, "Unsupervised learning of visual features by contrasting cluster
assignments", arXiv:2006.09882, appendix C:

    before every epoch, for each of several sets of prototypes:
        spherical k-means on the embeddings that the last epoch left in the memory     -> `cluster`
        the centroids are the prototypes of this epoch, the assignments its labels     -> `epoch_data`
    for a batch of N images:
        2 large and V small random crops                                               -> `views`
        z = f(crop) / |f(crop)|; the large crops' z go into the memory                 -> `forward`
        loss = cross-entropy of softmax(z^T C / tau) with the image's label            -> `forward`

A clustering of unit vectors needs no new classifier: the centroids are one.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.images import Images
from sslcourse.data.rng import mix
from sslcourse.errors import InputError
from sslcourse.losses.deepcluster import UNSEEN, spherical_kmeans
from sslcourse.methods.swav import SwAV
from sslcourse.nn.backbones import backbone
from sslcourse.nn.heads import projection_head
from sslcourse.nn.memory import Memory
from sslcourse.nn.multicrop import multicrop_forward
from sslcourse.train.config import TrainConfig
from sslcourse.train.distributed import gather

_CLUSTERS = 3  # a stream of random numbers: which embeddings k-means starts from
_LARGE = 2  # crops that are remembered


class DeepClusterV2(nn.Module):
    """DeepCluster v2 with any backbone of `sslcourse.nn.backbones`.

    Attributes:
        backbone: what is kept.
        projector: (B, num_features) -> (B, dim).
        prototypes: for each set the centroids (K, dim), moved by k-means only.
        labels: for each set the clusters (N,) of all images; epoch: when they were found.
        memory: (2, N, dim), the last embedding of the two large crops of every image.
    """

    name: ClassVar[str] = "deepcluster_v2"
    uses: ClassVar[tuple[str, ...]] = ("indices",)
    epoch: Tensor

    @dataclass(frozen=True)
    class Config:
        """Settings of DeepCluster v2."""

        backbone: str = "resnet50"
        """Network whose output is the representation; see sslcourse.nn.backbones."""
        hidden: int = 2048
        """Width of the projector's hidden layer."""
        dim: int = 128
        """Width of embeddings and prototypes."""
        prototypes: tuple[int, ...] = (3000, 3000, 3000)
        """Clusters of each clustering; several that differ in their start."""
        tau: float = 0.1
        """Temperature of the prediction."""
        iterations: int = 10
        """Iterations of k-means."""
        n_local: int = 6
        """Small crops."""
        augment: Augment = field(default_factory=lambda: SwAV.Config().augment)
        """The large crops; their size is the side of the images that the network sees."""
        local: Augment = field(default_factory=lambda: SwAV.Config().local)
        """The small crops."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: nn.Module | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names; it has `num_features`."""
        super().__init__()
        if not config.tau > 0 or not config.prototypes or min(config.prototypes) < 2:
            raise InputError(f"deepcluster_v2 needs tau above 0 and sets of 2 or more prototypes; got {config}.")
        self.config = config
        self.backbone = backbone(config.backbone, config.augment.size) if encoder is None else encoder
        width: Any = self.backbone.num_features
        self.projector = projection_head(width, config.hidden, config.dim)
        self.prototypes = nn.ModuleList(Memory() for _ in config.prototypes)
        self.labels = nn.ModuleList(Memory(torch.int64) for _ in config.prototypes)
        self.memory = Memory()
        self.register_buffer("epoch", torch.tensor(-1))

    views = SwAV.views

    def forward(self, views: list[Tensor], indices: Tensor) -> dict[str, Tensor]:
        """Loss of a batch of images number `indices` (B,); in training mode they are then remembered anew."""
        z = F.normalize(multicrop_forward(self.backbone, self.projector, views), dim=1)
        each = z.chunk(len(views))
        losses = []
        for prototypes, labels in zip(self.prototypes, self.labels, strict=True):
            scores = (z @ cast(Memory, prototypes).value.T).float() / self.config.tau
            targets = cast(Memory, labels).value[indices].repeat(len(views))
            losses.append(F.cross_entropy(scores, targets, ignore_index=UNSEEN))
        if self.training:
            large = torch.stack([gather(x.detach()) for x in each[:_LARGE]])
            self.memory.value[:, gather(indices)] = large.to(self.memory.value.dtype)
        return {"loss": torch.stack(losses).mean(), "embedding": each[0], "positive": each[1]}

    def epoch_data(self, data: Any, epoch: int) -> Any:
        """All images; before them, the clusters of the epoch are found."""
        if not isinstance(data, Images):
            raise InputError(f"{self.name} clusters all images before every epoch, so they have to fit into memory.")
        if int(self.epoch) != epoch:
            if not len(self.memory.value):
                self.memory.store(self.embed(data).expand(_LARGE, -1, -1))
            self.cluster(mix(self.config.train.seed, _CLUSTERS, epoch))
            self.epoch.fill_(epoch)
        return data

    @torch.no_grad()
    def cluster(self, seed: int) -> None:
        """k-means on the memory, for one set of prototypes after the other; they take turns with the two crops."""
        generator = torch.Generator().manual_seed(seed)
        for i, (prototypes, labels) in enumerate(zip(self.prototypes, self.labels, strict=True)):
            x = self.memory.value[i % _LARGE]
            start = torch.randperm(len(x), generator=generator)[: self.config.prototypes[i]].to(x.device)
            found, centroids = spherical_kmeans(x, x[start], self.config.iterations)
            cast(Memory, labels).store(gather(found)[: len(found)])  # every process goes by the first one's
            cast(Memory, prototypes).store(gather(centroids)[: len(centroids)])

    def embed(self, data: Images) -> Tensor:
        """(N, dim) unit vectors of the middle of every image, for the first epoch."""
        from sslcourse.evaluate.features import extract_features  # the evaluation package is more than training needs

        a, network = self.config.augment, nn.Sequential(self.backbone, self.projector)
        return F.normalize(extract_features(network, data, size=a.size, mean=a.mean, std=a.std), dim=1)


_CPU = SwAV.PRESETS["cpu"]
DeepClusterV2.PRESETS = {
    "cpu": DeepClusterV2.Config(
        "convnet_fast", 256, prototypes=(64, 64), n_local=0, augment=_CPU.augment, local=_CPU.local, train=_CPU.train
    ),
    "imagenet_resnet50": DeepClusterV2.Config(train=SwAV.PRESETS["imagenet_resnet50"].train),  # appendix C: as SwAV's
}
