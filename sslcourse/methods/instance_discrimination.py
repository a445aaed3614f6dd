"""Instance discrimination: every image remembers its last embedding, and what others remember is negative.

Wu, Xiong, Yu, Lin 2018, "Unsupervised feature learning via non-parametric instance discrimination", arXiv:1805.01978,
with a memory for each image before there was MoCo's queue:

    for a batch of N images, of which number i has the memory f_i:
        one random view of every image, and the numbers of m others                          -> `views`
        v = f(view)                                                                          -> `embed`
        loss = NCE: is v.f_i / tau - log Z that of the image (i) or of noise (the others)?   -> `forward`
        f_i <- the direction of (1 - t) v + t f_i                                            -> `forward`
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sslcourse.data.augment import Augment
from sslcourse.data.rng import shard_rows
from sslcourse.errors import InputError
from sslcourse.losses.nce import nce
from sslcourse.methods.simclr import SimCLR
from sslcourse.nn.backbones import backbone
from sslcourse.train.config import TrainConfig
from sslcourse.train.distributed import gather


class InstanceDiscrimination(nn.Module):
    """Instance discrimination: `memories` has one bank of (images, dim) unit vectors."""

    name: ClassVar[str] = "instance_discrimination"
    uses: ClassVar[tuple[str, ...]] = ("indices",)
    embeddings: ClassVar[int] = 1
    memories: Tensor
    log_z: Tensor
    seen: Tensor  # only images up to this number have been remembered

    @dataclass(frozen=True)
    class Config:
        """Settings of both methods."""

        backbone: str = "resnet50"
        """Network whose output is the representation, twice for CMC; see sslcourse.nn.backbones."""
        images: int = 1_281_167
        """Images that can be remembered: at least as many as are trained on."""
        dim: int = 128
        """Width of what is remembered of an image."""
        negatives: int = 4096
        """Remembered others that each image is told from."""
        tau: float = 0.07
        """Temperature."""
        m: float = 0.5
        """How much of its memory an image keeps when it is seen again."""
        proximal: float = 30.0
        """Weight of the squared distance between an embedding and its memory (Eq. 9); CMC has none."""
        augment: Augment = field(
            default_factory=lambda: Augment(224, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.4), blur=0.0)
        )
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Any]]

    def __init__(self, config: Config) -> None:
        super().__init__()
        if not config.tau > 0 or not 0 <= config.m <= 1 or config.negatives < 1 or config.images < 2:
            raise InputError(
                f"{self.name} needs tau above 0, m in [0, 1], negatives >= 1 and images >= 2; got {config.tau}, "
                f"{config.m}, {config.negatives} and {config.images}."
            )
        self.config = config
        self.backbone: Any = self.network()
        width = self.backbone.num_features // self.embeddings
        self.heads = nn.ModuleList(nn.Linear(width, config.dim) for _ in range(self.embeddings))
        memories = torch.randn(self.embeddings, config.images, config.dim)
        self.register_buffer("memories", normalize(memories, dim=2))
        self.register_buffer("log_z", torch.full((self.embeddings,), math.nan))  # estimated from the first batch
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def network(self) -> Any:
        return backbone(self.config.backbone, self.config.augment.size)

    def embed(self, x: Tensor) -> list[Tensor]:
        """The (B, dim) unit embeddings of a view."""
        return [normalize(self.heads[0](self.backbone(x)), dim=1)]

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> one (B, 3, size, size) view, and (B, negatives) numbers in [0, 1): which others."""
        view = self.config.augment(images, generator=generator)
        total, mine = shard_rows(len(images), generator)
        others = torch.rand(total, self.config.negatives, generator=generator)[mine]
        return [view, others.to(images.device)]

    def forward(self, views: list[Tensor], indices: Tensor) -> dict[str, Tensor]:
        """Loss of a batch of images number `indices` (B,); in training mode they are then remembered anew."""
        c: Any = self.config
        if int(indices.max()) >= c.images:
            raise InputError(
                f"{self.name} remembers {c.images} images; image {int(indices.max())} needs a higher --images."
            )
        self.seen.copy_(torch.maximum(self.seen, gather(indices).max() + 1))
        others = (views[1] * self.seen).long()
        embedded = self.embed(views[0])
        loss = embedded[0].sum() * 0.0
        for number, v in enumerate(embedded):  # in CMC the memory is that of the other embedding
            memory, log_z = self.memories[len(embedded) - 1 - number], self.log_z[number]
            pos, neg = (v * memory[indices]).sum(dim=1) / c.tau, (memory[others] @ v[:, :, None])[..., 0] / c.tau
            if log_z.isnan():
                every = gather(neg.detach().float())
                log_z.copy_(every.flatten().logsumexp(dim=0) - math.log(every.numel()))
            # log P(i | v) = pos - log Z - log n against noise of 1 / n: the n cancels.
            loss = loss + nce(pos - log_z, neg - log_z, 0.0, 0.0)
            loss = loss + c.proximal * (v - memory[indices]).pow(2).sum(dim=1).mean()
        if self.training:
            self.remember(embedded, indices)
        return {"loss": loss, "embedding": embedded[0]} | ({"positive": embedded[1]} if len(embedded) > 1 else {})

    @torch.no_grad()
    def remember(self, embedded: list[Tensor], indices: Tensor) -> None:
        """Move the memories of these images towards their embeddings."""
        rows = gather(indices)
        for memory, v in zip(self.memories, embedded, strict=True):
            memory[rows] = normalize(torch.lerp(gather(v.detach()).to(memory), memory[rows], self.config.m), dim=1)


_SKETCH = SimCLR.PRESETS["cpu_sketch"]
_V1 = TrainConfig(epochs=200, batch_size=256, optimizer="sgd", lr=0.03, weight_decay=1e-4, warmup_epochs=0)
# For sketches. In a minute every image is seen some 20 times: its memory holds only if the network changes slowly and
# the proximal term is strong (without it, and with SimCLR's rate, nothing is learned).
_CPU = InstanceDiscrimination.Config(
    "convnet_fast", 50_000, negatives=512, tau=0.2, m=0.8, proximal=20.0,
    augment=_SKETCH.augment, train=replace(_SKETCH.train, batch_size=128, lr=1e-3),
)  # fmt: skip
InstanceDiscrimination.PRESETS = {
    "cpu": _CPU,
    "imagenet_resnet50": InstanceDiscrimination.Config(train=_V1),  # section 4.2; their rate falls by steps
}
