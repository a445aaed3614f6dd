"""Segment Anything: image encoder, prompt encoder and mask decoder as one model (Kirillov et al. 2023).

    model = sslcourse.zoo.load("sam_vit_b", "sam_vit_b_01ec64.pth")
    Predictor(model).set_image("photo.jpg").predict(points=[[320, 240]], labels=[1])

Coordinates of prompts: x y in pixels of the model's input here, of the original image in `Predictor`.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.errors import InputError
from sslcourse.segment.mask_decoder import MaskDecoder
from sslcourse.segment.prompts import PromptEncoder

# ImageNet's, in units of 0 .. 255.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Encoder(Protocol):
    """What an image encoder has to have: sides of input and output, and the embedding with an early map beside it."""

    image_size: int
    grid: int

    def forward_features(self, x: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Embedding:
    """Encoded images: `image` (B, C, g, g), and `early` (B, g, g, D), a map from inside the encoder for HQ-SAM."""

    image: Tensor
    early: Tensor

    def __getitem__(self, index: slice | Tensor) -> "Embedding":
        return Embedding(self.image[index], self.early[index])


class Sam(nn.Module):
    """The three parts, and what brings images in and masks out.

    Args:
        image_encoder: (B, 3, S, S) -> (B, C, g, g), see `Encoder`.
        prompt_encoder, mask_decoder: of width C and grid g.
        mean, std: pixels are standardised with, in units of 0 .. 255.
        mask_threshold: a logit above it is inside the mask.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        image_encoder: nn.Module,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        mean: tuple[float, float, float] = MEAN,
        std: tuple[float, float, float] = STD,
        mask_threshold: float = 0.0,
    ) -> None:
        super().__init__()
        self.image_encoder, self.prompt_encoder, self.mask_decoder = image_encoder, prompt_encoder, mask_decoder
        self.mask_threshold = mask_threshold
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    @property
    def image_size(self) -> int:
        """Side of the square that images are resized into, in pixels."""
        return self.image_encoder.image_size  # type: ignore[return-value]

    def preprocess(self, images: Tensor) -> Tensor:
        """Standardise, then pad below and on the right with zeros: (..., 3, h, w) in 0 .. 255 -> (..., 3, S, S).

        Padding after standardising makes the padding the mean colour.
        """
        height, width = images.shape[-2:]
        if max(height, width) > self.image_size:
            raise InputError(
                f"images of {height} x {width} px do not fit into {self.image_size} px; resize them first."
            )
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        return F.pad(x, (0, self.image_size - width, 0, self.image_size - height))

    def encode(self, images: Tensor) -> Embedding:
        """(B, 3, S, S), as `preprocess` gives them."""
        return Embedding(*self.image_encoder.forward_features(images))  # type: ignore[operator]

    def decode(
        self,
        embedding: Embedding,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        *,
        multimask: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Low-resolution logits (N, M, 4g, 4g) and predicted IoU (N, M) of N prompts.

        `embedding` is of one image, which all prompts share, or of N images, one a prompt. The prompts are those of
        `PromptEncoder`. M is 3 with `multimask`, else 1.
        """
        sparse, dense = self.prompt_encoder(points, labels, boxes, masks)
        return self.decode_tokens(embedding, sparse, dense, multimask=multimask)

    def decode_tokens(
        self, embedding: Embedding, sparse: Tensor, dense: Tensor, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """`decode` of prompts that are embedded already."""
        return self.mask_decoder(embedding.image, self.prompt_encoder.dense_pe(), sparse, dense, multimask)

    def postprocess(self, low_res: Tensor, input_size: tuple[int, int], original_size: tuple[int, int]) -> Tensor:
        """Logits on the original image: enlarge to S x S, cut the padding off, resize.

        Args:
            low_res: (N, M, 4g, 4g).
            input_size: (h, w) of the image before padding.
            original_size: (H, W) of the result.

        Returns:
            (N, M, H, W).
        """
        return F.interpolate(self.uncover(low_res, input_size), original_size, mode="bilinear", align_corners=False)

    def uncover(self, low_res: Tensor, input_size: tuple[int, int]) -> Tensor:
        """The first half of `postprocess`: (N, M, 4g, 4g) to (N, M, h, w) logits in pixels of the model's input."""
        size = (self.image_size, self.image_size)
        full = F.interpolate(low_res, size, mode="bilinear", align_corners=False)
        return full[..., : input_size[0], : input_size[1]]
