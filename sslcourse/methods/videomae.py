"""VideoMAE: hide nine tenths of a clip in tubes, so that no neighbour in time gives the answer away.

Tong, Song, Wang, Wang 2022, "VideoMAE: masked autoencoders are data-efficient learners for self-supervised video
pre-training", arXiv:2203.12602, section 3:

    for a batch of clips:
        one crop and flip a clip; the same 90 % of places hidden in all frames (tubes)      -> `views`
        the encoder attends over all visible tubelets of space and time                     -> `backbone`
        the decoder gets them and mask tokens, all with positions                           -> `decoder`
        loss = mean squared error of the pixels of hidden tubelets, each tubelet and        -> `forward`
               colour standardised by itself
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.clips import clip_view
from sslcourse.data.masks import cube_mask, frame_mask, hidden_count, hide_smallest, mask_order, random_mask, tube_mask
from sslcourse.errors import InputError, unknown
from sslcourse.losses.masked import mae_loss, normalize_tubelets
from sslcourse.methods.mae import VIEW
from sslcourse.nn.patches import restore_order, tubelet_embed
from sslcourse.nn.positions import sinusoid
from sslcourse.nn.token_decoder import TokenDecoder
from sslcourse.nn.video_vit import VideoViT, unstandardized, video_vit
from sslcourse.train.config import TrainConfig


class VideoMAE(nn.Module):
    """VideoMAE with a ViT for clips, the `backbone`; the decoder is thrown away."""

    name: ClassVar[str] = "videomae"

    @dataclass(frozen=True)
    class Config:
        """Settings of VideoMAE."""

        backbone: str = "vit_base_patch16"
        """Sizes of the encoder, those of a ViT; see sslcourse.nn.backbones."""
        frames: int = 16
        """Frames of a clip."""
        stride: int = 4
        """Frames of a video from one of a clip to the next; clips of Shapes have stride 1."""
        tubelet: int = 2
        """Frames of a tubelet."""
        ratio: float = 0.9
        """Part of the tubelets that is hidden."""
        mask: Literal["tube", "frame", "random", "cube"] = "tube"
        """How: the same places in all frames, whole frames, each tubelet by itself, or boxes in space and time."""
        norm_pix: bool = True
        """Predict pixels of standardised tubelets."""
        decoder_dim: int = 384
        """Width of the decoder."""
        decoder_depth: int = 4
        """Blocks of the decoder."""
        decoder_heads: int = 6
        """Attention heads of the decoder."""
        augment: Augment = field(default_factory=lambda: replace(VIEW, scale=(0.5, 1.0)))
        """The random crop and flip; its size is the side of the frames that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: VideoViT | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names."""
        super().__init__()
        if config.mask not in ("tube", "frame", "random", "cube"):
            raise unknown("mask", config.mask, ["tube", "frame", "random", "cube"])
        if hidden_count(1, config.ratio) and config.ratio >= 1:
            raise InputError(f"videomae has to leave some tubelets visible; got ratio={config.ratio}.")
        self.config = config
        self.backbone = encoder or video_vit(config.backbone, config.augment.size, config.frames, config.tubelet)
        t, h, w = self.backbone.grid_size
        embed = self.backbone.patch_embed
        values, pos = 3 * embed.tubelet * embed.patch_size**2, sinusoid(t * h * w, config.decoder_dim)[None]
        depth, heads, width = config.decoder_depth, config.decoder_heads, self.backbone.num_features
        self.decoder = TokenDecoder(width, values, pos, None, depth=depth, n_heads=heads, prefix=0, embed_bias=False)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Clips (B, 3, T, H, W) uint8 -> views (B, 3, T, size, size) and masks (B, N) bool, True = hidden."""
        x = clip_view(images, self.config.augment, generator, frames=self.config.frames)
        (t, h, w), ratio, kind, b = self.backbone.patch_embed.grid(x), self.config.ratio, self.config.mask, len(x)
        if kind == "tube":
            mask = tube_mask(t, h, w, ratio, generator, batch=b)
        elif kind == "frame":
            mask = frame_mask(t, h, w, ratio, generator, batch=b)
        elif kind == "random":
            mask = random_mask(t * h, w, ratio, generator, batch=b, rounding="hide")
        else:  # boxes hide a little less than they should, each clip another number: fill up at random
            mask = cube_mask(t, h, w, ratio, generator, batch=b)
            noise = mask_order("random", t * h, w, ratio, generator, batch=b) - mask.flatten(1).float()
            mask = hide_smallest(noise, hidden_count(t * h * w, ratio, "hide"))
        return [x, mask.flatten(1).to(x.device)]

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch; "pred" (B, N, values) and "mask" (B, N) show what it came from."""
        x, mask = views
        tokens = self.backbone.forward_features(x, mask)
        pred = self.decoder(tokens, restore_order(mask[:, None]))
        loss = mae_loss(pred, self.target(x), mask)
        return {"loss": loss, "embedding": tokens.mean(dim=1), "pred": pred, "mask": mask}

    def target(self, x: Tensor) -> Tensor:
        """Pixels in [0, 1] of every tubelet, (B, N, t*p*p*3), standardised where the config says so."""
        pixels = unstandardized(x, self.config.augment.mean, self.config.augment.std)
        tubelets = tubelet_embed(pixels, self.backbone.patch_embed.tubelet, self.backbone.patch_embed.patch_size)
        return normalize_tubelets(tubelets) if self.config.norm_pix else tubelets


# Appendix, table 8: AdamW (0.9, 0.95), lr 1.5e-4 x batch / 256, weight decay 0.05, 40 of 800 epochs of warm-up.
ADAMW = TrainConfig(
    epochs=800,
    batch_size=1024,
    optimizer="adamw",
    lr=1.5e-4,
    weight_decay=0.05,
    betas=(0.9, 0.95),
    warmup_epochs=40,
    channels_last=False,
)
VideoMAE.PRESETS = {
    # For clips of `Shapes`, 8 frames of 32 px, on a CPU.
    "cpu": VideoMAE.Config(
        "vit_mini_patch8",
        frames=8,
        stride=1,
        ratio=0.7,
        decoder_dim=64,
        decoder_depth=1,
        decoder_heads=4,
        augment=replace(VIEW, size=32, scale=(0.6, 1.0), flip=0.0),
        train=replace(ADAMW, epochs=100, steps=1700, batch_size=32, lr=1.6e-2, warmup_epochs=1),
    ),
    "kinetics_vit_base": VideoMAE.Config(train=ADAMW),
}
