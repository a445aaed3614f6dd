"""Matting Anything in small: SAM's mask guides a decoder that says how much of every pixel is the object.

Li et al. 2023, "Matting Anything", section 3: a frozen SAM, whose embedding and mask for a prompt go into the
mask-to-matte decoder (`m2m`), whose three mattes are put together from coarse to fine (`matting.refine_alpha`).
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.segment.m2m import M2MDecoder, Mattes
from sslcourse.segment.matting import refine_alpha
from sslcourse.segment.resize import resize_boxes, resize_longest, to_pixels
from sslcourse.segment.sam import Embedding, Sam

WIDTHS = (12, 12, 8)  # of the bands that are refined, at 128 px; the paper's 10, 20, 10 are for 1024 px


class Matte(NamedTuple):
    """Of N boxes: alpha (N, H, W) in [0, 1], and the masks (N, H, W) bool that guided it."""

    alpha: Tensor
    masks: Tensor


class Matter(nn.Module):
    """A frozen SAM of stride 8 and a small mask-to-matte decoder.

    Args:
        sam: trained; it stays as it is.
        channels, depths: of `M2MDecoder`; the first is the width of SAM's embedding.
    """

    def __init__(
        self,
        sam: Sam,
        channels: tuple[int, int, int, int, int] = (64, 32, 16, 8, 8),
        depths: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.sam = sam.requires_grad_(False).eval()
        self.decoder = M2MDecoder(channels, depths)

    def train(self, mode: bool = True) -> "Matter":
        """As `nn.Module.train`, but the frozen SAM stays in eval mode."""
        super().train(mode)
        self.sam.eval()
        return self

    @torch.no_grad()
    def guide(self, pixels: Tensor, boxes: Tensor) -> tuple[Embedding, Tensor]:
        """Embeddings of B standardised images, and SAM's mask (B, 1, S, S), 0 or 1, for the box (B, 4) in each.

        The mask is that of the highest predicted IoU.
        """
        embedding = self.sam.encode(pixels)
        low, iou = self.sam.decode(embedding, boxes=boxes, multimask=False)
        best = low[torch.arange(len(low)), iou.argmax(dim=1)][:, None]
        size = (self.sam.image_size, self.sam.image_size)
        return embedding, (self.sam.postprocess(best, size, size) > self.sam.mask_threshold).float()

    def mattes(self, embedding: Embedding, pixels: Tensor, mask: Tensor) -> Mattes:
        """The decoder's three mattes (B, 1, S, S); it expects an embedding of stride 16."""
        image = F.avg_pool2d(embedding.image, 2)
        return self.decoder(image, pixels, mask)

    def forward(self, pixels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Alpha (B, S, S) and the guiding mask (B, S, S) bool of a box in each of B standardised images."""
        embedding, mask = self.guide(pixels, boxes)
        fine = self.mattes(embedding, pixels, mask)
        alpha = refine_alpha(mask[:, 0], fine.os8[:, 0], fine.os4[:, 0], fine.os1[:, 0], widths=WIDTHS)
        return alpha, mask[:, 0] > 0.5


@torch.no_grad()
def matte(model: Matter, image: Any, boxes: Tensor) -> Matte:
    """The mattes of what lies in N boxes (N, 4), x1 y1 x2 y2 in pixels of an image (what `to_pixels` takes)."""
    pixels = to_pixels(image)
    size = (int(pixels.shape[1]), int(pixels.shape[2]))
    small = resize_longest(pixels, model.sam.image_size)
    inside = (int(small.shape[1]), int(small.shape[2]))
    shown = model.sam.preprocess(small)[None].expand(len(boxes), -1, -1, -1)
    alpha, masks = model.eval()(shown, resize_boxes(boxes.float(), size, inside))
    both = torch.stack([alpha, masks.float()], dim=1)[..., : inside[0], : inside[1]]
    both = F.interpolate(both, size, mode="bilinear", align_corners=False)
    return Matte(both[:, 0], both[:, 1] > 0.5)
