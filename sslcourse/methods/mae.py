"""MAE: see a quarter of the patches, paint the rest.

He, Chen, Xie, Li, Dollar, Girshick 2021, "Masked autoencoders are scalable vision learners", arXiv:2111.06377, sec. 3:

    for a batch of images:
        one weakly augmented view, cut into patches, and random numbers, one a patch    -> `views`
        the encoder sees the quarter of the patches with the smallest numbers           -> `encode`
        the decoder gets the encoded patches and mask tokens, all with positions        -> `decoder`
        loss = mean squared error of the pixels of hidden patches                       -> `forward`

The ablations of its table 1 are settings: (a) `decoder_depth`, (b) `decoder_dim`, (c) `encoder_mask_tokens`,
(d) `target`, (e) `augment`, (f) `mask` and `ratio`.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.masks import mask_order
from sslcourse.errors import InputError
from sslcourse.nn.backbones import vit
from sslcourse.nn.patches import random_masking, take
from sslcourse.nn.positions import fix_positions
from sslcourse.nn.targets import Kind, PixelTarget, patch_target, repaint, target_loss
from sslcourse.nn.token_decoder import mae_decoder
from sslcourse.nn.vit import ViT
from sslcourse.train.config import TrainConfig

# Appendix A.1: crops of 20 to 100 % and flips, nothing else.
VIEW = Augment(224, scale=(0.2, 1.0), jitter_p=0.0, gray=0.0, blur=0.0)


class MAE(nn.Module):
    """MAE with a ViT.

    Attributes:
        backbone: the encoder, what is kept; its positions are sines and cosines and are not trained.
        decoder: thrown away.
        target: what turns an image into what the decoder has to say.
    """

    name: ClassVar[str] = "mae"

    @dataclass(frozen=True)
    class Config:
        """Settings of MAE."""

        backbone: str = "vit_base_patch16"
        """The encoder, a ViT; see sslcourse.nn.backbones."""
        ratio: float = 0.75
        """Part of the patches that is hidden."""
        mask: Literal["random", "block", "grid"] = "random"
        """How they are chosen: each by itself, in blocks as BEiT does, or all but one of each 2 x 2 (ratio 0.75)."""
        target: Kind = "normalized"
        """What is predicted: pixels of standardised patches, pixels, or others; see sslcourse.nn.targets."""
        teacher: str = ""
        """Run folder of a trained dVAE (or other network) that is predicted, for target teacher or pseudo_label."""
        encoder_mask_tokens: bool = False
        """Give the encoder all patches, hidden ones replaced by a token, in place of the visible ones alone."""
        decoder_dim: int = 512
        """Width of the decoder."""
        decoder_depth: int = 8
        """Blocks of the decoder."""
        decoder_heads: int = 16
        """Attention heads of the decoder."""
        augment: Augment = field(default_factory=lambda: VIEW)
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: ViT | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names."""
        super().__init__()
        self.config = config
        encoder = encoder or vit(config.backbone, config.augment.size, mask_token=config.encoder_mask_tokens)
        (h, w), p = encoder.grid_size, encoder.patch_embed.patch_size
        mask_order(config.mask, h, w, config.ratio, torch.Generator(), batch=1)  # refuses what cannot be hidden
        if config.ratio >= 1:
            raise InputError(f"mae has to leave some patches visible; got ratio={config.ratio}.")
        self.backbone = fix_positions(encoder)
        self.target = patch_target(config.target, p, teacher=config.teacher)
        self.decoder = mae_decoder(config, encoder.num_features, self.target.values, (h, w))

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> views (B, 3, size, size) and numbers (B, N): patches with the largest are hidden."""
        x = self.config.augment(images, generator=generator)
        h, w = self.backbone.patch_embed.grid(x)
        return [x, mask_order(self.config.mask, h, w, self.config.ratio, generator, batch=len(x)).to(x.device)]

    def encode(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens after the encoder (B, 1 + V, D), the mask (B, N), and what puts them back in order (B, N)."""
        h, w = self.backbone.patch_embed.grid(x)
        places = torch.arange(h * w, device=x.device).expand(len(x), -1)
        visible, mask, ids = random_masking(places[..., None], self.config.ratio, noise)
        if self.config.encoder_mask_tokens:
            tokens, ids = self.backbone.embed(x, mask), places
        else:
            tokens = self.backbone.embed(self.backbone.patch_embed.hide(x, mask))
            tokens = torch.cat([tokens[:, :1], take(tokens[:, 1:], visible[..., 0])], dim=1)
        return self.backbone.norm(self.backbone.run_blocks(tokens)), mask, ids

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch; "pred" (B, N, values) and "mask" (B, N) show what it came from."""
        x, noise = views
        tokens, mask, ids = self.encode(x, noise)
        pred = self.decoder(tokens, ids, self.backbone.patch_embed.grid(x))
        return {"loss": target_loss(pred, self.target(x), mask), "embedding": tokens[:, 0], "pred": pred, "mask": mask}

    @torch.no_grad()
    def reconstruct(self, views: list[Tensor]) -> Tensor:
        """Images (B, 3, H, W) like the view, hidden patches as predicted (target "pixels" or "normalized")."""
        if not isinstance(self.target, PixelTarget):
            raise InputError(f"mae can paint pixels where it predicts pixels, not for target={self.config.target!r}.")
        out = self(views)
        return repaint(views[0], out["pred"], out["mask"], self.target.p, normalized=self.target.normalized)


# Appendix A.1, table 8: AdamW (0.9, 0.95), lr 1.5e-4 x batch / 256, weight decay 0.05, 40 of 800 epochs of warm-up.
_ADAMW = TrainConfig(
    epochs=800, batch_size=4096, optimizer="adamw", lr=1.5e-4, weight_decay=0.05, betas=(0.9, 0.95), warmup_epochs=40
)
_CPU = MAE.Config(
    "vit_mini_patch4",
    decoder_dim=64,
    decoder_depth=2,
    decoder_heads=4,
    augment=replace(VIEW, size=32, scale=(0.6, 1.0)),
    train=replace(_ADAMW, epochs=100, steps=1000, batch_size=64, lr=4e-3, warmup_epochs=2),
)
MAE.PRESETS = {
    "cpu": _CPU,
    # For sketches ("shapes:sketch"): larger patches and smaller batches, so five times as many steps in the same time.
    # After some hundred, what it learns hardly helps fine-tuning; after thousands it does.
    "cpu_sketch": replace(
        _CPU, backbone="vit_mini_patch8", train=replace(_CPU.train, steps=3000, batch_size=32, lr=8e-3)
    ),
    # Patches of 8 in 64 px and plain pixels, so that what it paints can be looked at: `weights/mae_shapes`.
    "pictures": MAE.Config(
        "vit_mini_patch8",
        target="pixels",
        decoder_dim=64,
        decoder_depth=2,
        decoder_heads=4,
        augment=replace(VIEW, size=64, scale=(0.6, 1.0)),
        train=replace(_ADAMW, epochs=100, steps=1600, batch_size=64, lr=6e-3, warmup_epochs=2),
    ),
    "imagenet_vit_base": MAE.Config(train=_ADAMW),
}
