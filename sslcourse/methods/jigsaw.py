"""Jigsaw: a network sees nine shuffled tiles, each on its own, and names the permutation.

Noroozi, Favaro 2016, "Unsupervised learning of visual representations by solving jigsaw puzzles", arXiv:1603.09246:

    once: a set of permutations that are far apart                                      -> `jigsaw_permutations`
    for a batch of N images:
        crop, cut into 3 x 3 tiles with gaps, shuffle, standardise each tile            -> `views`
        one vector a tile by a shared network, side by side                             -> `forward`
        loss = cross-entropy over the permutations                                      -> `forward`
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.pretext import jigsaw_permutations, tile_and_shuffle
from sslcourse.data.rng import shard_rows
from sslcourse.methods.simclr import SimCLR
from sslcourse.nn.backbones import backbone
from sslcourse.train.config import TrainConfig


class Jigsaw(nn.Module):
    """Jigsaw puzzles with any backbone that takes small tiles.

    Attributes:
        backbone: (B, 3, h, w) -> (B, num_features), what is kept.
        head: the features of all tiles -> logits over the permutations.
        permutations: (n_perm, grid^2) int64.
    """

    name: ClassVar[str] = "jigsaw"
    permutations: Tensor

    @dataclass(frozen=True)
    class Config:
        """Settings of the jigsaw puzzle."""

        backbone: str = "resnet50"
        """Network whose output is the representation; see sslcourse.nn.backbones."""
        grid: int = 3
        """Tiles on a side."""
        gap: int = 21
        """Pixels between tiles, without which edges that continue give the answer away."""
        n_perm: int = 1000
        """Permutations to tell apart."""
        tile_dim: int = 512
        """Width of each tile's vector before they are put side by side."""
        hidden: int = 4096
        """Width of the hidden layer that sees all tiles."""
        augment: Augment = field(default_factory=lambda: Augment(255, (0.5, 1.0), gray=0.3, blur=0.0))
        """The random view that is cut into tiles; grey images in between, so that colour at the edges does not help."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        tiles = config.grid**2
        self.backbone = backbone(config.backbone, config.augment.size // config.grid - config.gap)
        width: Any = self.backbone.num_features
        self.register_buffer("permutations", jigsaw_permutations(config.n_perm, tiles))
        self.tile_head = nn.Sequential(nn.Linear(width, config.tile_dim), nn.ReLU(inplace=True))
        self.head = nn.Sequential(
            nn.Linear(tiles * config.tile_dim, config.hidden, bias=False),
            nn.BatchNorm1d(config.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden, config.n_perm),
        )

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> tiles (B, n, 3, h, w) in a random order, and which permutation it was (B,)."""
        x = self.config.augment(images, generator=generator)
        total, mine = shard_rows(len(images), generator)
        answer = torch.randint(self.config.n_perm, (total,), generator=generator)[mine].to(images.device)
        tiles = tile_and_shuffle(x, self.permutations[answer], self.config.grid, self.config.gap)
        # Each tile has mean 0 and deviation 1 of its own, or brightness that falls off across the image is a shortcut.
        low, spread = tiles.mean(dim=(3, 4), keepdim=True), tiles.std(dim=(3, 4), keepdim=True)
        return [(tiles - low) / (spread + 1e-2), answer]

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch; the embedding of an image is the mean of its tiles'."""
        tiles, answer = views
        h = self.backbone(tiles.flatten(0, 1))
        logits = self.head(self.tile_head(h).view(len(tiles), -1)).float()
        accuracy = (logits.argmax(dim=1) == answer).float().mean()
        embedding = h.view(*tiles.shape[:2], -1).mean(dim=1)
        return {"loss": F.cross_entropy(logits, answer), "accuracy": accuracy, "embedding": embedding}


Jigsaw.PRESETS = {
    # For `Shapes` on a CPU; not tuned: tiles of 14 px of images of 48 px.
    "cpu": Jigsaw.Config(
        "convnet_fast", gap=2, n_perm=24, tile_dim=64, hidden=256,
        augment=Augment(48, scale=(0.7, 1.0), gray=0.3, blur=0.0),
        train=replace(SimCLR.PRESETS["cpu"].train, batch_size=64, lr=8e-3),
    ),
    # Section 4.1, with a ResNet-50 in place of AlexNet: tiles of 64 px of crops of 255, batch 256, lr 0.01, 350k steps.
    "imagenet_resnet50": Jigsaw.Config(
        train=TrainConfig(epochs=70, batch_size=256, lr=0.01, weight_decay=5e-4, warmup_epochs=0)
    ),
}  # fmt: skip
