r"""How a small matting decoder learns: objects of `Shapes` with soft and furry edges, laid over other scenes.

    I = a F + (1 - a) B        F the object's scene, its mean colour outside of the object; B another scene
    a = clamp(1/2 + gain (blur(mask) - 1/2 + fur noise))        so that the outline of the mask is where a is about 1/2

The loss is that of Matting Anything (Li et al. 2023, section 3.3): L1 and Laplacian, for all three resolutions.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from sslcourse.data.resample import gaussian_blur
from sslcourse.data.rng import shard_rows
from sslcourse.segment.mask_prompts import box_of
from sslcourse.segment.matter import Matter
from sslcourse.segment.matting import alpha_composite, laplacian_loss, weighted_l1
from sslcourse.segment.sam import Sam
from sslcourse.segment.scenes import N_PARTS, part_mask
from sslcourse.train.config import TrainConfig

LEVELS = 4  # of the Laplacian pyramid, at 128 px


def soft_objects(images: Tensor, numbers: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Composites with known mattes: the largest object of every scene over the next scene.

    Args:
        images: (B, 4, H, W) uint8 of `SceneMasks`.
        numbers: (B, 3) uniform: blur, gain, fur.
        noise: (B, 1, H, W) standard normal.

    Returns:
        composites (B, 3, H, W) in 0 .. 255; mattes (B, 1, H, W) in [0, 1]; the objects' masks (B, H, W) bool.
    """
    colours, ids = images[:, :3].float(), images[:, 3]
    which = torch.arange(6, device=images.device) * N_PARTS  # Shapes has at most six objects
    masks = part_mask(ids[:, None].expand(-1, len(which), -1, -1), which.expand(len(ids), -1))
    mask = masks[torch.arange(len(masks)), masks.flatten(2).sum(dim=2).argmax(dim=1)]
    hard = mask[:, None].float()
    sigma = (1.0 + 2.5 * numbers[:, 0]).clamp_min(0.1)
    grain = gaussian_blur(noise, torch.full_like(sigma, 0.8), 7)
    grain = grain / grain.flatten(1).std(dim=1).view(-1, 1, 1, 1).clamp_min(1e-6)
    gain, fur = (1.0 + 1.5 * numbers[:, 1]).view(-1, 1, 1, 1), (0.2 * numbers[:, 2]).view(-1, 1, 1, 1)
    smooth = gaussian_blur(hard, sigma, 21)
    edge = 4 * smooth * (1 - smooth)  # fur grows at the edge only
    alpha = (0.5 + gain * (smooth - 0.5 + fur * edge * grain)).clamp(0, 1)
    alpha = torch.where((smooth > 0.98) | (smooth < 0.02), hard, alpha)
    mean = (colours * hard).sum(dim=(2, 3), keepdim=True) / hard.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    foreground = torch.where(mask[:, None], colours, mean)
    return alpha_composite(alpha, foreground, colours.roll(1, dims=0)), alpha, mask


class MattingTraining(nn.Module):
    """The training of a `Matter` on composites; `net` is the model."""

    @dataclass(frozen=True)
    class Config:
        """The training."""

        train: TrainConfig = field(default_factory=TrainConfig)
        """The training loop's settings."""

    name = "matting"
    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, teacher: Sam) -> None:
        super().__init__()
        self.config = config
        self.net = Matter(teacher)

    def views(self, images: Tensor, generator: Generator) -> list[Tensor]:
        """(B, 4, H, W) uint8 -> standardised composites, mattes, boxes of the objects."""
        total, mine = shard_rows(len(images), generator)
        numbers = torch.rand(total, 3, generator=generator)[mine].to(images.device)
        noise = torch.randn(total, 1, *images.shape[-2:], generator=generator)[mine].to(images.device)
        composite, alpha, mask = soft_objects(images, numbers, noise)
        return [self.net.sam.preprocess(composite), alpha, box_of(mask)]

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """L1 and Laplacian loss of the three mattes; the finest counts most where the truth is soft."""
        pixels, alpha, boxes = views
        embedding, mask = self.net.guide(pixels, boxes)
        found = self.net.mattes(embedding, pixels, mask)
        soft = 1 + 4 * ((alpha > 0) & (alpha < 1)).float()
        fine = weighted_l1(found.os1, alpha, soft) + laplacian_loss(found.os1, alpha, soft, LEVELS)
        coarse = [weighted_l1(a, alpha) + laplacian_loss(a, alpha, None, LEVELS) for a in (found.os4, found.os8)]
        return {"loss": 2 * fine + coarse[0] + coarse[1], "fine": fine}


MattingTraining.PRESETS = {
    "cpu": MattingTraining.Config(
        train=TrainConfig(
            epochs=2, batch_size=16, optimizer="adamw", lr=0.048, weight_decay=0.001, warmup_epochs=0.2, clip_grad=5.0,
            channels_last=False, accelerator="cpu", monitor_every=10**9, checkpoint_every=250,
        )
    )
}  # fmt: skip
