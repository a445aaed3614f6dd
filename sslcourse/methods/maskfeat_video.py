"""MaskFeat for video: cubes of space and time are hidden, and the HOG of one frame of each tubelet is predicted.

Wei, Fan, Xie, Wu, Yuille, Feichtenhofer 2021, "Masked feature prediction for self-supervised visual pre-training",
arXiv:2112.09133, sections 3 and 4.2:

    for a batch of clips:
        one crop and flip a clip, and cubes until 40 % of the tubelets are hidden              -> `views`
        the target, HOG of the first frame of each tubelet of the *whole* clip                 -> `target`
        hidden tubelets become one learned token; the encoder sees all, with their positions   -> `forward`
        loss = mean squared error of a linear prediction of hidden tubelets' targets           -> `forward`

Its other targets and its other masks (section 4.2) are settings. The paper's encoder is MViT, a pyramid; this one is a
ViT for clips.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.clips import clip_view
from sslcourse.data.masks import cube_mask, frame_mask, hidden_count, tube_mask
from sslcourse.errors import unknown
from sslcourse.methods.mae import VIEW
from sslcourse.nn.positions import sinusoid
from sslcourse.nn.targets import Kind, patch_target, target_loss
from sslcourse.nn.video_vit import VideoViT, video_vit
from sslcourse.train.config import TrainConfig

MASKS: dict[str, Callable[..., Tensor]] = {"cube": cube_mask, "tube": tube_mask, "frame": frame_mask}


class MaskFeatVideo(nn.Module):
    """MaskFeat with a ViT for clips.

    Attributes:
        backbone: the encoder, what is kept.
        token: takes the place of hidden tubelets.
        frame_target: frames -> what is predicted of their patches.
        head: a linear layer to that, thrown away.
    """

    name: ClassVar[str] = "maskfeat_video"

    @dataclass(frozen=True)
    class Config:
        """Settings of MaskFeat for video."""

        backbone: str = "vit_base_patch16"
        """Sizes of the encoder, those of a ViT; see sslcourse.nn.backbones."""
        frames: int = 16
        """Frames of a clip."""
        stride: int = 4
        """Frames of a video from one of a clip to the next; clips of Shapes have stride 1."""
        tubelet: int = 2
        """Frames of a tubelet."""
        target: Kind = "hog"
        """What is predicted of the first frame of a tubelet; see sslcourse.nn.targets."""
        teacher: str = ""
        """Run folder of the network, of images, that is predicted, for target teacher or pseudo_label."""
        ratio: float = 0.4
        """Part of the tubelets that is hidden."""
        mask: Literal["cube", "tube", "frame"] = "cube"
        """How: boxes in space and time, the same places in all frames, or whole frames."""
        augment: Augment = field(default_factory=lambda: replace(VIEW, scale=(0.5, 1.0)))
        """The random crop and flip; its size is the side of the frames that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: VideoViT | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names."""
        super().__init__()
        if config.mask not in MASKS:
            raise unknown("mask", config.mask, MASKS)
        hidden_count(1, config.ratio)  # refuses what is no ratio
        self.config = config
        self.backbone = encoder or video_vit(config.backbone, config.augment.size, config.frames, config.tubelet)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, self.backbone.num_features))
        self.frame_target = patch_target(config.target, self.backbone.stride, teacher=config.teacher)
        self.head = nn.Linear(self.backbone.num_features, self.frame_target.values)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Clips (B, 3, T, H, W) uint8 -> views (B, 3, T, size, size) and masks (B, N) bool, True = hidden."""
        x = clip_view(images, self.config.augment, generator, frames=self.config.frames)
        t, h, w = self.backbone.patch_embed.grid(x)
        mask = MASKS[self.config.mask](t, h, w, self.config.ratio, generator, batch=len(x))
        return [x, mask.flatten(1).to(x.device)]

    def target(self, x: Tensor) -> Tensor:
        """Of the patches of the first frame of each tubelet: (B, N, values), HOG's 108, say, or tokens (B, N)."""
        first = x[:, :, :: self.backbone.patch_embed.tubelet].transpose(1, 2)
        return self.frame_target(first.flatten(0, 1)).unflatten(0, first.shape[:2]).flatten(1, 2)

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch; "pred" (B, N, values) and "mask" (B, N) show what it came from."""
        x, mask = views
        tokens = torch.where(mask[..., None], self.token, self.backbone.patch_embed(x))
        tokens = tokens + sinusoid(tokens.shape[1], tokens.shape[2]).to(tokens)
        tokens = self.backbone.layers(tokens)[0]
        pred = self.head(tokens)
        loss = target_loss(pred, self.target(x), mask)
        return {"loss": loss, "embedding": tokens.mean(dim=1), "pred": pred, "mask": mask}


# Appendix: AdamW, lr 8e-4 for a batch of 512, weight decay 0.05, gradients clipped to 0.02, 300 epochs.
_ADAMW = TrainConfig(
    epochs=300,
    batch_size=512,
    optimizer="adamw",
    lr=4e-4,
    weight_decay=0.05,
    warmup_epochs=10,
    clip_grad=0.02,
    channels_last=False,
)
MaskFeatVideo.PRESETS = {
    # For clips of `Shapes`, 8 frames of 32 px, on a CPU. With the paper's 40 % hidden, what is near gives much away.
    "cpu": MaskFeatVideo.Config(
        "vit_mini_patch8",
        frames=8,
        stride=1,
        ratio=0.8,
        augment=replace(VIEW, size=32, scale=(0.6, 1.0), flip=0.0),
        train=replace(_ADAMW, epochs=100, steps=1000, batch_size=16, lr=3e-2, warmup_epochs=1, clip_grad=1.0),
    ),
    "kinetics_vit_base": MaskFeatVideo.Config(train=_ADAMW),
}
