"""HQ-SAM: one more token and fused features give a frozen SAM sharper masks (Ke et al. 2023, "Segment Anything in High
Quality", section 3).

The HQ token goes through the decoder with the others. Its MLP classifies features that sum three sources: the decoder's
own mask features, the final image embedding (late), and the output of the encoder's first global block (early, with the
edges that later blocks forget). The HQ logits correct those of SAM: both are added.
"""

import torch
from torch import Tensor, nn

from sslcourse.segment.image_encoder import LayerNorm2d
from sslcourse.segment.mask_decoder import MLP, MaskDecoder, upscaling
from sslcourse.segment.sam import Embedding, Sam

# What HQ-SAM trains; everything else is SAM's and stays frozen.
HQ_PARTS = ("hf_token", "hf_mlp", "compress_vit_feat", "embedding_encoder", "embedding_maskfeature")


def hq_fuse(
    weights: Tensor, mask_features: Tensor, late: Tensor, early: Tensor, sam_logits: Tensor | None = None
) -> Tensor:
    """The HQ mask: a linear classifier on the sum of three feature maps, added to SAM's logits.

    Args:
        weights: (N, c), what the HQ token's MLP gives.
        mask_features: (N, c, h, w) of the decoder.
        late, early: (N or 1, c, h, w), from the last and from an early layer of the image encoder.
        sam_logits: (N, 1, h, w) to correct; None for the HQ mask alone.

    Returns:
        (N, 1, h, w) logits.
    """
    fused = mask_features + late + early
    hq = torch.einsum("nc,nchw->nhw", weights, fused)[:, None]
    return hq if sam_logits is None else sam_logits + hq


def _early(channels: int, dim: int) -> nn.Sequential:
    """The early map, enlarged fourfold: (B, channels, g, g) -> (B, dim / 8, 4g, 4g)."""
    return nn.Sequential(
        nn.ConvTranspose2d(channels, dim, 2, stride=2),
        LayerNorm2d(dim),
        nn.GELU(),
        nn.ConvTranspose2d(dim, dim // 8, 2, stride=2),
    )


class HQMaskDecoder(MaskDecoder):
    """`MaskDecoder` with the HQ token. It gives one mask a prompt, with the predicted IoU of the SAM mask in it.

    Args:
        early_channels: width of the encoder's early map.
        others: as in `MaskDecoder`.
    """

    def __init__(
        self,
        early_channels: int,
        dim: int = 256,
        n_multimask: int = 3,
        n_heads: int = 8,
        hidden: int = 2048,
        depth: int = 2,
        iou_hidden: int = 256,
    ) -> None:
        super().__init__(dim, n_multimask, n_heads, hidden, depth, iou_hidden)
        self.hf_token = nn.Embedding(1, dim)
        self.hf_mlp = MLP(dim, dim, dim // 8)
        self.compress_vit_feat = _early(early_channels, dim)
        self.embedding_encoder = upscaling(dim)[:4]
        self.embedding_maskfeature = nn.Sequential(
            nn.Conv2d(dim // 8, dim // 4, 3, padding=1),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.Conv2d(dim // 4, dim // 8, 3, padding=1),
        )

    def output_tokens(self) -> Tensor:
        return torch.cat([super().output_tokens(), self.hf_token.weight])

    def late_and_early(self, image: Tensor, early: Tensor) -> tuple[Tensor, Tensor]:
        """What is fused of an image, (B, dim / 8, 4g, 4g) each; `early` is (B, g, g, early_channels)."""
        return self.embedding_encoder(image), self.compress_vit_feat(early.permute(0, 3, 1, 2))

    def predict_all_hq(
        self, image: Tensor, early: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """SAM's masks (N, M, 4g, 4g), the HQ logits alone (N, 1, 4g, 4g), and SAM's predicted IoU (N, M)."""
        tokens, upscaled = self.attend(image, image_pe, sparse, dense)
        masks = self.masks_of(tokens[:, 1:-1], upscaled)
        features = self.embedding_maskfeature(upscaled)
        hq = hq_fuse(self.hf_mlp(tokens[:, -1]), features, *self.late_and_early(image, early))
        return masks, hq, self.iou_prediction_head(tokens[:, 0])

    def predict_hq(
        self,
        image: Tensor,
        early: Tensor,
        image_pe: Tensor,
        sparse: Tensor,
        dense: Tensor,
        *,
        multimask: bool = True,
        hq_only: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """One mask a prompt, (N, 1, 4g, 4g), and its IoU (N, 1).

        The corrected SAM mask is the one of 1 .. 3 with the highest predicted IoU (`multimask`), or mask 0. With
        `hq_only` the HQ logits are not added to it.
        """
        masks, hq, iou = self.predict_all_hq(image, early, image_pe, sparse, dense)
        best = iou[:, 1:].argmax(dim=1) + 1 if multimask else iou.new_zeros(len(iou), dtype=torch.long)
        rows = torch.arange(len(iou), device=iou.device)
        return hq if hq_only else masks[rows, best][:, None] + hq, iou[rows, best][:, None]


class HQSam(Sam):
    """SAM with an `HQMaskDecoder`; `hq_only` as in `predict_hq`."""

    hq_only = False

    def decode_tokens(
        self, embedding: Embedding, sparse: Tensor, dense: Tensor, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        decoder: HQMaskDecoder = self.mask_decoder  # type: ignore[assignment]
        image_pe = self.prompt_encoder.dense_pe()
        return decoder.predict_hq(
            embedding.image, embedding.early, image_pe, sparse, dense, multimask=multimask, hq_only=self.hq_only
        )

    def train_hq_only(self) -> list[nn.Parameter]:
        """Freeze SAM; the parameters that stay trainable."""
        trained = []
        for name, parameter in self.named_parameters():
            of_hq = name.removeprefix("mask_decoder.").partition(".")[0] in HQ_PARTS
            parameter.requires_grad_(of_hq)
            if of_hq:
                trained.append(parameter)
        return trained
