"""DiLo: contrastive views whose background is another one, so that only the object can be what they share.

Zhao, Wu, Lau, Lin 2021, "Distilling localization for self-supervised representation learning", arXiv:2004.06638:

    for a batch of N images:
        where is the object? a saliency map without labels                          -> `views`, `data.saliency`
        of a share of the images paste the object onto a background: another image,
        a texture or a flat grey                                                    -> `views`, `backgrounds`
        then two random views, and the rest of MoCo                                 -> `MoCo`
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.mixing import dilo_paste
from sslcourse.data.rng import shard_rows
from sslcourse.data.saliency import METHODS
from sslcourse.errors import unknown
from sslcourse.losses.moco import shuffle_bn
from sslcourse.methods.moco import MoCo, MoCoV2

BACKGROUNDS = ("image", "texture", "gray")


class DiLo(MoCo):
    """MoCo v2 on images with exchanged backgrounds."""

    name: ClassVar[str] = "dilo"

    @dataclass(frozen=True)
    class Config(MoCo.Config):
        """Settings of DiLo, on top of MoCo's."""

        saliency: Literal["rbd", "border"] = "rbd"
        """How the object is found: robust background detection, or the contrast to the image's border."""
        background: Literal["image", "texture", "gray"] = "image"
        """What it is pasted onto: the border colours of another image blurred out, a texture of noise, a flat grey."""
        ratio: float = 0.5
        """Share of the views that get another background."""
        threshold: float = 0.2
        """Saliency below it is background; above it the edge stays soft."""

    PRESETS: ClassVar[dict[str, Any]]

    def __init__(self, config: "DiLo.Config", encoder: nn.Module | None = None) -> None:
        super().__init__(config, encoder)
        if config.saliency not in METHODS:
            raise unknown("saliency method", config.saliency, METHODS)
        if config.background not in BACKGROUNDS:
            raise unknown("background", config.background, BACKGROUNDS)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> x_q and x_k (B, 3, size, size), either on a background of its own, and MoCo's order."""
        config: Any = self.config
        total, mine = shard_rows(len(images), generator)
        x = images.float() / 255
        method: Any = METHODS[config.saliency]
        saliency = method(x)
        views = []
        for _ in range(2):
            scene = backgrounds(x, saliency, config.background, generator)
            pasted, _ = dilo_paste(x, saliency, scene, config.threshold)
            changed = (torch.rand(total, generator=generator)[mine] < config.ratio).to(x.device)
            views.append(torch.where(changed[:, None, None, None], pasted, x).clamp(0, 1))
        augment = partial(config.augment, generator=generator)
        order, _ = shuffle_bn(torch.arange(total), generator)
        return [augment(views[0]), augment(views[1]), order.to(images.device)]


def backgrounds(x: Tensor, saliency: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """A background for every image: (B, 3, H, W) float in [0, 1].

    Args:
        x: (B, 3, H, W) float in [0, 1].
        saliency: (B, 1, H, W) in [0, 1].
        kind: "image": another image of the batch, its own object painted over by the colours around it; "texture":
            noise of several scales around a random colour; "gray": one random grey.
        generator: CPU generator.
    """
    total, mine = shard_rows(len(x), generator)
    if kind == "gray":
        return torch.rand(total, 1, 1, 1, generator=generator)[mine].to(x).expand_as(x)
    if kind == "texture":
        color = torch.rand(total, 3, 1, 1, generator=generator)[mine].to(x)
        sides = [max(2, min(x.shape[2:]) // 2**k) for k in range(4)]
        noise = [torch.randn(total, 3, side, side, generator=generator)[mine].to(x) for side in sides]
        layers = [F.interpolate(n, x.shape[2:], mode="bilinear") for n in noise]
        return (color + 0.15 * torch.stack(layers).sum(dim=0)).clamp(0, 1)
    empty = (1 - saliency).pow(2) + 1e-3
    window = 2 * (min(x.shape[2:]) // 4) + 1
    blur = partial(F.avg_pool2d, kernel_size=window, stride=1, padding=window // 2, count_include_pad=False)
    around = blur(x * empty) / blur(empty)
    scene = saliency * around + (1 - saliency) * x
    partner = (torch.arange(len(x)) + torch.randint(1, max(2, len(x)), (1,), generator=generator)) % len(x)
    return scene[partner.to(x.device)]


def _settings(config: MoCo.Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in MoCo.Config.__dataclass_fields__}


DiLo.PRESETS = {
    # A fifth of the views: half of the scenes show a dark object on light ground, which many a new ground hides.
    "cpu": DiLo.Config(**_settings(MoCoV2.PRESETS["cpu"]), saliency="border", ratio=0.2),
    # Section 4: MoCo v2's settings; the best saliency networks of its table need masks, robust background needs none.
    "imagenet_resnet50": DiLo.Config(**_settings(MoCoV2.PRESETS["imagenet_resnet50"])),
}
