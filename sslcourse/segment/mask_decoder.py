r"""SAM's mask decoder: two layers of attention in two directions, then masks as dot products.

Kirillov et al. 2023, "Segment Anything", section 3 and appendix A. Tokens for the outputs (one for the predicted IoU,
four for masks) and for the prompts attend to each other and to the image, the image attends to them, twice. Every mask
token then becomes, through an MLP of its own, the weights of a linear classifier on the upscaled image embedding. Mask
0 is for prompts that leave no doubt, masks 1 to 3 for ambiguous ones (whole, part, sub-part).
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.errors import InputError
from sslcourse.segment.image_encoder import LayerNorm2d, MLPBlock
from sslcourse.segment.masks import stability_score


class Attention(nn.Module):
    """Multi-head attention inside `dim / downsample` channels: (N, T, dim), (N or 1, S, dim) twice -> (N, T, dim)."""

    def __init__(self, dim: int, n_heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner = dim // downsample
        if inner % n_heads:
            raise InputError(f"attention cannot split {inner} channels into {n_heads} heads.")
        self.n_heads = n_heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, dim)

    def _heads(self, x: Tensor, n: int) -> Tensor:
        x = x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        return x.expand(n, -1, -1, -1)  # what all prompts share was projected once

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n = max(len(q), len(k), len(v))
        q, k, v = self._heads(self.q_proj(q), n), self._heads(self.k_proj(k), n), self._heads(self.v_proj(v), n)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class TwoWayBlock(nn.Module):
    """Self-attention of the tokens, tokens to image, MLP of the tokens, image to tokens; a norm behind each.

    Queries and keys carry places, values do not. In the first block the tokens are places and nothing else yet: their
    self-attention replaces them, without a residual.
    """

    def __init__(self, dim: int, n_heads: int, hidden: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(dim, n_heads)
        self.cross_attn_token_to_image = Attention(dim, n_heads, downsample=2)
        self.cross_attn_image_to_token = Attention(dim, n_heads, downsample=2)
        self.mlp = MLPBlock(dim, hidden, nn.ReLU())
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(dim) for _ in range(4))

    def forward(self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        q = tokens if self.first else tokens + token_pe
        attended = self.self_attn(q, q, tokens)
        tokens = self.norm1(attended if self.first else tokens + attended)
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, image + image_pe, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(image + image_pe, tokens + token_pe, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """The decoder's attention: tokens (N, T, dim) and an image (N or 1, dim, g, g) look at each other.

    Returns:
        tokens (N, T, dim) and image (N, g * g, dim).
    """

    def __init__(self, dim: int = 256, n_heads: int = 8, hidden: int = 2048, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dim, n_heads, hidden, first=i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(dim, n_heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        image, image_pe = image.flatten(2).transpose(1, 2), image_pe.flatten(2).transpose(1, 2)
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe)
        attended = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + attended), image


class MLP(nn.Module):
    """`depth` linear layers with ReLU between them."""

    def __init__(self, dim: int, hidden: int, out: int, depth: int = 3) -> None:
        super().__init__()
        widths = [dim, *[hidden] * (depth - 1), out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


def upscaling(dim: int) -> nn.Sequential:
    """Transposed convolutions that enlarge the image embedding fourfold: (N, dim, g, g) -> (N, dim / 8, 4g, 4g)."""
    return nn.Sequential(
        nn.ConvTranspose2d(dim, dim // 4, 2, stride=2),
        LayerNorm2d(dim // 4),
        nn.GELU(),
        nn.ConvTranspose2d(dim // 4, dim // 8, 2, stride=2),
        nn.GELU(),
    )


class MaskDecoder(nn.Module):
    """Masks and their predicted IoU from an image embedding and embedded prompts.

    Args:
        dim: width of tokens and image embedding, a multiple of 8.
        n_multimask: masks for an ambiguous prompt; one more is for the others.
        n_heads, hidden, depth: of the two-way transformer.
        iou_hidden: width inside the head that predicts the IoU (no sigmoid: it may leave [0, 1]).
    """

    def __init__(
        self,
        dim: int = 256,
        n_multimask: int = 3,
        n_heads: int = 8,
        hidden: int = 2048,
        depth: int = 2,
        iou_hidden: int = 256,
    ) -> None:
        super().__init__()
        n_masks = n_multimask + 1
        self.transformer = TwoWayTransformer(dim, n_heads, hidden, depth)
        self.iou_token, self.mask_tokens = nn.Embedding(1, dim), nn.Embedding(n_masks, dim)
        self.output_upscaling = upscaling(dim)
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8) for _ in range(n_masks))
        self.iou_prediction_head = MLP(dim, iou_hidden, n_masks)

    def output_tokens(self) -> Tensor:
        """(1 + M, dim): the token of the IoU, then those of the masks."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight])

    def attend(self, image: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """Output tokens (N, 1 + M, dim) and upscaled embedding (N, dim / 8, 4g, 4g) behind the transformer."""
        n = max(len(image), len(sparse), len(dense))
        if {len(image), len(sparse), len(dense)} - {1, n}:
            raise InputError(
                f"the decoder got {len(image)} image embeddings, {len(sparse)} sets of tokens and {len(dense)} dense "
                "maps; each is one for all, or one a prompt."
            )
        outputs = self.output_tokens()
        tokens = torch.cat([outputs.expand(n, -1, -1), sparse.expand(n, -1, -1)], dim=1)
        side = image.shape[-2:]
        tokens, image = self.transformer(image + dense, image_pe, tokens)
        upscaled = self.output_upscaling(image.transpose(1, 2).unflatten(2, side))
        return tokens[:, : len(outputs)], upscaled

    def predict_all(self, image: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """All masks, (N, M, 4g, 4g) logits with the unambiguous one first, and their predicted IoU (N, M).

        Args:
            image: (N or 1, dim, g, g), one image a prompt or one for all.
            image_pe: (1, dim, g, g).
            sparse: (N, T, dim) tokens, dense: (N or 1, dim, g, g) map of the prompts.
        """
        tokens, upscaled = self.attend(image, image_pe, sparse, dense)
        masks = self.masks_of(tokens[:, 1:], upscaled)
        return masks, self.iou_prediction_head(tokens[:, 0])

    def masks_of(self, mask_tokens: Tensor, upscaled: Tensor) -> Tensor:
        """(N, M, dim) tokens and (N, dim / 8, 4g, 4g) embedding -> (N, M, 4g, 4g) logits."""
        weights = [mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)]
        return torch.einsum("nmc,nchw->nmhw", torch.stack(weights, dim=1), upscaled)

    def forward(
        self, image: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor, multimask: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Masks 1 .. M-1 with `multimask`, else mask 0 alone; arguments as in `predict_all`."""
        masks, iou = self.predict_all(image, image_pe, sparse, dense)
        chosen = slice(1, None) if multimask else slice(0, 1)
        return masks[:, chosen], iou[:, chosen]


def select_single(masks: Tensor, iou: Tensor, n_points: int) -> tuple[Tensor, Tensor]:
    """The one mask that SAM's export gives: mask 0 for three points or more (padding counts), else the best other one.

    Args:
        masks: (N, M, h, w), iou: (N, M), as `MaskDecoder.predict_all` gives them.
        n_points: number of prompt tokens.

    Returns:
        (N, 1, h, w) and (N, 1).
    """
    best = torch.zeros_like(iou[:, 0], dtype=torch.long) if n_points >= 3 else iou[:, 1:].argmax(dim=1) + 1
    rows = torch.arange(len(masks), device=masks.device)
    return masks[rows, best][:, None], iou[rows, best][:, None]


def dynamic_multimask(
    masks: Tensor, iou: Tensor, delta: float = 0.05, threshold: float = 0.98
) -> tuple[Tensor, Tensor]:
    """Mask 0 where it is stable, else the best of the rest (SAM 2, Ravi et al. 2024, appendix): (N, 1, h, w), (N, 1).

    An empty mask counts as stable here.
    """
    stable = stability_score(masks[:, 0], delta=delta, empty=1.0) >= threshold
    best = torch.where(stable, 0, iou[:, 1:].argmax(dim=1) + 1)
    rows = torch.arange(len(masks), device=masks.device)
    return masks[rows, best][:, None], iou[rows, best][:, None]
