"""A method small enough for tests of the loop: no batch norm, so N processes compute what one computes."""

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.images import Images
from sslcourse.data.views import two_views
from sslcourse.losses.infonce import nt_xent
from sslcourse.train.config import TrainConfig
from sslcourse.train.distributed import gather


class TinyBackbone(nn.Sequential):
    num_features = 16

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 4, stride=4), nn.GELU(), nn.Flatten(), nn.Linear(8 * 4 * 4, 16), nn.LayerNorm(16)
        )


class Tiny(nn.Module):
    """Contrastive like SimCLR, with dropout before the loss to show that its noise is resumed, too."""

    name: ClassVar[str] = "tiny"

    @dataclass(frozen=True)
    class Config:
        tau: float = 0.5
        dropout: float = 0.1
        augment: Augment = field(default_factory=lambda: Augment(16, blur=0.0))
        train: TrainConfig = field(default_factory=TrainConfig)

    PRESETS: ClassVar[dict[str, Config]] = {}

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = TinyBackbone()
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("steps_seen", torch.zeros((), dtype=torch.int64))

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        return list(two_views(images, partial(self.config.augment, generator=generator)))

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        z1, z2 = self.dropout(self.backbone(torch.cat(views))).chunk(2)
        loss = nt_xent(gather(z1), gather(z2), self.config.tau)
        return {"loss": loss, "embedding": z1, "positive": z2}

    def after_step(self, step: int, total_steps: int) -> None:
        assert 0 <= step < total_steps
        self.steps_seen += 1


def images(n: int = 64, side: int = 16, seed: int = 0) -> Images:
    """Images of four classes that differ in mean colour."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    colour = torch.tensor([[200, 50, 50], [50, 200, 50], [50, 50, 200], [150, 150, 150]])[labels]
    noise = torch.randint(-50, 50, (n, 3, side, side), generator=g)
    return Images((colour[:, :, None, None] + noise).clamp(0, 255).to(torch.uint8), labels, list("rgbw"), "colours")


def tiny_config(**train: object) -> Tiny.Config:
    settings = {"epochs": 3, "batch_size": 16, "lr": 0.1, "warmup_epochs": 1.0, "log_every": 2, "monitor_every": 4}
    return Tiny.Config(train=TrainConfig(**(settings | train)))  # type: ignore[arg-type]
