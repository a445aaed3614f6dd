"""SAM and its family in the sizes that were published, and one small enough to learn on two cores; all untrained."""

from torch import Tensor, nn

from sslcourse.errors import InputError, unknown
from sslcourse.nn.convnet import ConvNet
from sslcourse.segment.hq import HQMaskDecoder, HQSam
from sslcourse.segment.image_encoder import ImageEncoder, neck
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


class BackboneEncoder(nn.Module):
    """Any backbone with a map as SAM's encoder: (B, 3, S, S) -> (B, out_channels, S/stride, S/stride).

    Args:
        backbone: has `forward_map(x) -> (B, num_features, h, w)`, `num_features` and `stride`, as `ConvNet` does.
        image_size: side S in pixels, a multiple of the stride.
        out_channels: width of the neck's output.
    """

    def __init__(self, backbone: ConvNet, image_size: int, out_channels: int) -> None:
        super().__init__()
        if image_size % backbone.stride:
            raise InputError(
                f"the encoder needs an image_size that is a multiple of {backbone.stride}; got {image_size}."
            )
        self.image_size, self.grid = image_size, image_size // backbone.stride
        self.early_channels = backbone.num_features
        self.backbone, self.neck = backbone, neck(backbone.num_features, out_channels)

    def forward_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The embedding, and the backbone's map (B, g, g, num_features) in front of the neck."""
        x = self.backbone.forward_map(x)
        return self.neck(x), x.permute(0, 2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_features(x)[0]


def _tiny_encoder(kind: str, image_size: int, dim: int) -> ImageEncoder | TinyViT | BackboneEncoder:
    if kind == "vit":
        return ImageEncoder(image_size, 8, 96, 4, 3, window=8, global_blocks=(1, 3), out_channels=dim)
    if kind == "conv":
        return BackboneEncoder(ConvNet((16, 32, 64, 64, 64, 64, 64), (2, 2, 2, 1, 1, 1, 1)), image_size, dim)
    if kind == "mobile":
        widths = (8, 16, 24, 32), (1, 1, 1, 1), (1, 2, 3, 4), (4, 4, 4, 4)
        return TinyViT(image_size, *widths, mlp_ratio=2.0, out_channels=dim, strides=(2, 1, 1))
    raise unknown("encoder of a tiny SAM", kind, ["vit", "conv", "mobile"])


def build_tiny_sam(image_size: int = 128, dim: int = 64, *, encoder: str = "vit", hq: bool = False) -> Sam:
    """A SAM for `Shapes`, of stride 8.

    Args:
        image_size: side in pixels, a multiple of 8.
        dim: width of prompts and embeddings.
        encoder: "vit" (SAM's, small), "conv" (a ConvNet, which learns fastest from little) or "mobile" (TinyViT).
        hq: with an HQ token.
    """
    chosen = _tiny_encoder(encoder, image_size, dim)
    prompts = PromptEncoder(dim, chosen.grid, image_size)
    if hq:
        decoder: MaskDecoder = HQMaskDecoder(chosen.early_channels, dim, n_heads=4, hidden=2 * dim, iou_hidden=dim)
        return HQSam(chosen, prompts, decoder)
    return Sam(chosen, prompts, MaskDecoder(dim, n_heads=4, hidden=2 * dim, iou_hidden=dim))
