"""UM-MAE: MAE for pyramids. Keep one patch of each 2 x 2, so that what is kept is a smaller image without holes.

Li, Wang, Yang, Yang 2022, "Uniform masking: enabling MAE pre-training for pyramid-based vision transformers with
locality", arXiv:2205.10063, section 3:

    for a batch of images:
        one weakly augmented view; one cell of each 2 x 2 stays (uniform sampling)      -> `views`
        the cells that stay are moved together: an image of half the side               -> `compact`
        a quarter of them become one token (secondary masking); a pyramid encodes all   -> `encode`
        the decoder paints the cells that were left out, as in MAE                      -> `forward`

A ViT gets the kept patches as a sequence, as in MAE.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.masks import hidden_count, hide_smallest, mask_order, uniform_sampling, upsample_mask
from sslcourse.errors import InputError
from sslcourse.losses.masked import mae_loss
from sslcourse.methods.mae import VIEW
from sslcourse.nn.backbones import masked_backbone
from sslcourse.nn.patches import compact, decoder_unshuffle, keep_visible, patchify, restore_order, secondary_mask
from sslcourse.nn.positions import fix_positions
from sslcourse.nn.targets import repaint
from sslcourse.nn.token_decoder import mae_decoder
from sslcourse.nn.vit import ViT
from sslcourse.train.config import TrainConfig


class UMMAE(nn.Module):
    """UM-MAE with a Swin, a PVT or a ViT, the `backbone`; a cell is `cell` px wide, half a place of its last map."""

    name: ClassVar[str] = "ummae"

    @dataclass(frozen=True)
    class Config:
        """Settings of UM-MAE."""

        backbone: str = "swin_tiny"
        """The encoder; see sslcourse.nn.backbones."""
        secondary: float = 0.25
        """Part of the kept cells that is replaced."""
        norm_pix: bool = True
        """Predict the pixels of standardised cells, as MAE does."""
        reading_order: bool = False
        """Tell the decoder kept cells' places in reading order, as the published code does. The small image lists them
        by blocks, so cells in a row of blocks get one another's places."""
        decoder_dim: int = 512
        """Width of the decoder."""
        decoder_depth: int = 2
        """Blocks of the decoder."""
        decoder_heads: int = 16
        """Attention heads of the decoder."""
        augment: Augment = field(default_factory=lambda: replace(VIEW, size=256))
        """The random view."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """The training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: Any = None) -> None:
        """`encoder` takes the place of the backbone that `config` names: a ViT, or with `embed`, `places` and `run`."""
        super().__init__()
        hidden_count(1, config.secondary)  # refuses what is no ratio
        self.config, size = config, config.augment.size
        self.backbone = encoder or masked_backbone(config.backbone, size, mask_token=False, relative="mlp")
        self.flat = isinstance(self.backbone, ViT)
        self.cell: int = self.backbone.stride if self.flat else self.backbone.stride // 2
        if size % (2 * self.cell):
            raise InputError(f"ummae needs views of whole blocks of {2 * self.cell} px with this encoder; got {size}.")
        if self.flat:
            if self.backbone.patch_embed.overlaps:
                raise InputError(f"ummae needs patches that do not see their neighbours; {config.backbone} has a stem.")
            fix_positions(self.backbone)
        width, side = self.backbone.num_features, size // self.cell
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, self.backbone.patch_embed.proj.out_channels))
        self.decoder = mae_decoder(config, width, 3 * self.cell**2, (side, side), prefix=int(self.flat))
        if not self.flat:  # a place of the last map becomes the tokens of its 2 x 2 cells
            self.decoder.embed = nn.Linear(width, 4 * config.decoder_dim)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> views, masks of cells (B, rows, columns), numbers (B, V): the largest are replaced."""
        x = self.config.augment(images, generator=generator)
        h, w = x.shape[2] // self.cell, x.shape[3] // self.cell
        mask = uniform_sampling(h, w, generator, batch=len(x))
        noise = mask_order("random", 1, h * w // 4, self.config.secondary, generator, batch=len(x))
        return [x, mask.to(x.device), noise.to(x.device)]

    def encode(self, x: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        """The decoder's tokens of kept cells (B, V, decoder_dim), for a ViT after one of CLS.

        `noise` ranks the kept cells: of a ViT in reading order, of a pyramid in that of the small image.
        """
        if self.flat:
            vit = self.backbone
            tokens = keep_visible(vit.patch_embed(x), mask.flatten(1))
            pos = keep_visible(vit.pos_embed[:, 1:].expand(len(x), -1, -1), mask.flatten(1))
            tokens = secondary_mask(tokens, self.token, self.config.secondary, noise)[0] + pos
            cls = (vit.cls_token + vit.pos_embed[:, :1]).expand(len(x), -1, -1)
            return self.decoder.embed(vit.norm(vit.run_blocks(torch.cat([cls, tokens], dim=1))))
        tokens = self.backbone.embed(compact(x, mask))
        _, h, w, _ = tokens.shape
        k = self.cell // self.backbone.patch_embed.patch_size  # tokens along a cell
        replaced = ~hide_smallest(noise, noise.shape[1] - hidden_count(noise.shape[1], self.config.secondary))
        replaced = upsample_mask(replaced.view(-1, h // k, w // k), k)[..., None]
        tokens = torch.where(replaced, self.backbone.patch_norm(self.token), tokens)
        places = self.backbone.places(2 * h, 2 * w).permute(0, 3, 1, 2).expand(len(x), -1, -1, -1)
        z = self.backbone.run(tokens, compact(places, mask).permute(0, 2, 3, 1))
        return F.pixel_shuffle(self.decoder.embed(z).permute(0, 3, 1, 2), 2).flatten(2).transpose(1, 2)

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch over cells that were left out; "pred" (B, N, values) in reading order."""
        x, mask, noise = views
        tokens = self.encode(x, mask, noise)
        ids = restore_order(mask, by_block=not (self.flat or self.config.reading_order))
        tokens = decoder_unshuffle(tokens, self.decoder.mask_token, ids, prefix=int(self.flat))
        pred, hidden = self.decoder.predict(tokens), mask.flatten(1)
        loss = mae_loss(pred, patchify(x, self.cell), hidden, self.config.norm_pix)
        return {"loss": loss, "embedding": tokens.mean(dim=1), "pred": pred, "mask": hidden}

    @torch.no_grad()
    def reconstruct(self, views: list[Tensor]) -> Tensor:
        """Images (B, 3, H, W) like the view, cells that were left out as predicted."""
        out = self(views)
        return repaint(views[0], out["pred"], out["mask"], self.cell, normalized=self.config.norm_pix)


# Section 4.1 and the published code: AdamW (0.9, 0.95), lr 1.5e-4 x batch / 256, weight decay 0.05, 10 of 200 epochs.
_ADAMW = TrainConfig(
    epochs=200, batch_size=1024, optimizer="adamw", lr=1.5e-4, weight_decay=0.05, betas=(0.9, 0.95), warmup_epochs=10
)
# For `Shapes` at 32 px on a CPU: small batches, so that there are some thousand steps in two minutes.
_CPU = UMMAE.Config(
    "swin_mini",
    decoder_dim=64,
    decoder_depth=1,
    decoder_heads=4,
    augment=replace(VIEW, size=32, scale=(0.6, 1.0)),
    train=replace(_ADAMW, epochs=100, steps=3000, batch_size=32, lr=8e-3, warmup_epochs=1),
)
UMMAE.PRESETS = {
    "cpu": _CPU,
    "cpu_pvt": replace(_CPU, backbone="pvt_mini"),
    "imagenet_swin_tiny": UMMAE.Config(train=_ADAMW),
    "imagenet_pvt_small": UMMAE.Config("pvt_small", train=_ADAMW),
}
