"""SAM and its family in the sizes that were published, and one small enough to learn on two cores; all untrained."""

from torch import nn

from sslcourse.errors import unknown
from sslcourse.segment.hq import HQMaskDecoder, HQSam
from sslcourse.segment.image_encoder import ImageEncoder
from sslcourse.segment.mask_decoder import MaskDecoder
from sslcourse.segment.prompts import PromptEncoder
from sslcourse.segment.sam import Sam
from sslcourse.segment.tiny_vit import TinyViT

# Kirillov et al. 2023, appendix A: width, depth, heads and global blocks of the encoders.
SIZES: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "vit_b": (768, 12, 12, (2, 5, 8, 11)),
    "vit_l": (1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": (1280, 32, 16, (7, 15, 23, 31)),
}


def build_encoder(size: str, image_size: int = 1024) -> ImageEncoder:
    """The encoder of a published size ("vit_b", "vit_l", "vit_h")."""
    if size not in SIZES:
        raise unknown("size of SAM", size, SIZES)
    dim, depth, n_heads, global_blocks = SIZES[size]
    return ImageEncoder(image_size, 16, dim, depth, n_heads, window=14, global_blocks=global_blocks)


def build_sam(size: str, image_size: int = 1024) -> Sam:
    """SAM of a published size."""
    encoder = build_encoder(size, image_size)
    return Sam(encoder, PromptEncoder(256, encoder.grid, image_size), MaskDecoder())


def build_hq_sam(size: str, image_size: int = 1024) -> HQSam:
    """HQ-SAM of a published size."""
    encoder = build_encoder(size, image_size)
    return HQSam(encoder, PromptEncoder(256, encoder.grid, image_size), HQMaskDecoder(encoder.early_channels))


def build_mobile_sam(image_size: int = 1024) -> Sam:
    """MobileSAM: TinyViT in place of the ViT."""
    encoder = TinyViT(image_size)
    return Sam(encoder, PromptEncoder(256, encoder.grid, image_size), MaskDecoder())


def build_tiny_sam(image_size: int = 128, dim: int = 64, *, hq: bool = False, mobile: bool = False) -> Sam:
    """A SAM for `Shapes`, of stride 8 and width `dim`: with a ViT or (`mobile`) a small TinyViT; with an HQ token."""
    encoder: nn.Module
    if mobile:
        widths = (8, 16, 24, 32), (1, 1, 1, 1), (1, 2, 3, 4), (4, 4, 4, 4)
        encoder = TinyViT(image_size, *widths, mlp_ratio=2.0, out_channels=dim, strides=(2, 1, 1))
        grid, early = encoder.grid, encoder.early_channels
    else:
        encoder = ImageEncoder(image_size, 8, 96, 4, 3, window=8, global_blocks=(1, 3), out_channels=dim)
        grid, early = encoder.grid, encoder.early_channels
    prompts = PromptEncoder(dim, grid, image_size)
    if hq:
        return HQSam(encoder, prompts, HQMaskDecoder(early, dim, n_heads=4, hidden=2 * dim, iou_hidden=dim))
    return Sam(encoder, prompts, MaskDecoder(dim, n_heads=4, hidden=2 * dim, iou_hidden=dim))
