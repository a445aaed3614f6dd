"""DeepCluster: cluster the features, learn to predict the cluster, and again.

Caron, Bojanowski, Joulin, Douze 2018, "Deep clustering for unsupervised learning of visual features", arXiv:1807.05520,
section 3:

    before every epoch:
        features of all images, PCA-whitened to 256 values, unit length      -> `relabel`
        k-means; a cluster that runs empty takes half of the largest one     -> `relabel`
        images drawn so that every cluster is equally frequent               -> `epoch_data`
        a new classifier, since cluster 7 of today is not cluster 7 of yesterday
    for a batch of images and their cluster labels:
        a random view, its edges in place of its colours                     -> `views`, `Edges`
        loss = cross-entropy of the classifier on top of the features        -> `forward`
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.images import Images
from sslcourse.data.rng import mix, step_generator
from sslcourse.errors import InputError
from sslcourse.losses.deepcluster import kmeans_pseudolabels, sobel, uniform_sample, whiten
from sslcourse.methods.simclr import SimCLR
from sslcourse.nn.backbones import RESNETS, backbone
from sslcourse.nn.memory import Memory
from sslcourse.train.config import TrainConfig
from sslcourse.train.distributed import gather

_CLASSIFIER, _DRAW = 1, 2  # streams of random numbers: the new classifier, the images of the epoch


class Edges(nn.Module):
    """A network that sees the two derivatives of the grey image: (B, 3, H, W) -> (B, num_features)."""

    def __init__(self, name: str, size: int) -> None:
        super().__init__()
        self.network: Any = backbone(name, size, **{"in_chans" if name in RESNETS else "in_channels": 2})
        self.num_features = self.network.num_features

    def forward(self, x: Tensor) -> Tensor:
        return self.network(sobel(x))


class DeepCluster(nn.Module):
    """DeepCluster with any backbone of `sslcourse.nn.backbones`.

    Attributes:
        backbone: what is kept, the filter for edges included.
        classifier: (B, num_features) -> (B, clusters), new in every epoch.
        labels: the cluster of every image; epoch: when it was found, so a run that resumes uses the same.
    """

    name: ClassVar[str] = "deepcluster"
    uses: ClassVar[tuple[str, ...]] = ("labels",)
    epoch: Tensor

    @dataclass(frozen=True)
    class Config:
        """Settings of DeepCluster."""

        backbone: str = "resnet50"
        """Network whose output is clustered; see sslcourse.nn.backbones."""
        clusters: int = 10000
        """Number of clusters; more than there are classes."""
        pca: int = 256
        """Whitened values that are clustered."""
        iterations: int = 20
        """Iterations of k-means."""
        uniform: bool = True
        """Draw every cluster equally often; False lets large clusters become larger."""
        edges: bool = True
        """Show the network edges in place of colours."""
        augment: Augment = field(default_factory=lambda: Augment(224, scale=(0.08, 1.0), jitter_p=0.0, gray=0, blur=0))
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: nn.Module | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names; it has `num_features`."""
        super().__init__()
        if config.clusters < 2 or config.pca < 1:
            raise InputError(f"deepcluster needs 2 or more clusters, pca >= 1; got {config.clusters}, {config.pca}.")
        self.config = config
        make: Any = Edges if config.edges else backbone
        self.backbone: nn.Module = make(config.backbone, config.augment.size) if encoder is None else encoder
        width: Any = self.backbone.num_features
        self.classifier = nn.Linear(width, config.clusters)
        self.labels = Memory(torch.int64)
        self.register_buffer("epoch", torch.tensor(-1))

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> one (B, 3, size, size) float view."""
        return [self.config.augment(images, generator=generator)]

    def forward(self, views: list[Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Loss of a batch whose clusters are `labels` (B,)."""
        features = self.backbone(views[0])
        return {"loss": F.cross_entropy(self.classifier(features).float(), labels), "embedding": features}

    def epoch_data(self, data: Any, epoch: int) -> Any:
        """The images of an epoch with clusters for labels, found by the network as it is now."""
        if not isinstance(data, Images):
            raise InputError(f"{self.name} clusters all images before every epoch, so they have to fit into memory.")
        if int(self.epoch) != epoch:
            self.relabel(data, epoch)
            self.epoch.fill_(epoch)
        labels, seed = self.labels.value, mix(self.config.train.seed, _DRAW)
        found = replace(data, labels=labels.to(data.labels.device))
        if not self.config.uniform:
            return found
        return found.subset(uniform_sample(labels, step_generator(seed, epoch)).to(data.images.device))

    @torch.no_grad()
    def relabel(self, data: Any, epoch: int) -> None:
        """Cluster the features of all images, and start the classifier anew."""
        from sslcourse.evaluate.features import extract_features  # the evaluation package is more than training needs

        c, seed = self.config, mix(self.config.train.seed, _CLASSIFIER, epoch)
        view: dict[str, Any] = {"size": c.augment.size, "mean": c.augment.mean, "std": c.augment.std}
        features = extract_features(self.backbone, data, **view, device=self.classifier.weight.device)
        clusters = min(c.clusters, len(features))
        white = whiten(features, min(c.pca, *features.shape))
        labels = kmeans_pseudolabels(white, clusters, c.iterations, seed)
        self.labels.store(gather(labels)[: len(labels)])  # every process goes by the first one's
        start = torch.randn(self.classifier.weight.shape, generator=torch.Generator().manual_seed(seed))
        self.classifier.weight.copy_(0.01 * start)
        self.classifier.bias.zero_()


# For sketches ("shapes:sketch"). On the default world, a minute without negatives ends below pixels: perhaps in the
# colour of the ground and the light, which two views share at no effort.
_SKETCH = SimCLR.PRESETS["cpu_sketch"]
DeepCluster.PRESETS = {
    # Small batches at a high rate, since the classifier starts anew after every 125 of them; as large a share of the
    # directions as in the paper, the others being noise at first.
    "cpu": DeepCluster.Config(
        "convnet_fast",
        clusters=30,
        pca=16,
        augment=_SKETCH.augment,
        train=replace(_SKETCH.train, steps=1500, batch_size=32, lr=1.6e-2),
    ),
    # Section 3.3 and the official code: SGD, constant lr 0.05 at batch 256 (a cosine here), decay 1e-5, 200 epochs.
    "imagenet_resnet50": DeepCluster.Config(
        train=TrainConfig(epochs=200, batch_size=256, optimizer="sgd", lr=0.05, weight_decay=1e-5, warmup_epochs=0)
    ),
}
