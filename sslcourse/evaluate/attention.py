"""Attention masks: does the class token of a ViT look at the object? (DINO, Caron et al. 2021, section 4.2.2)"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.evaluate.encoder import Encoder
from sslcourse.evaluate.result import Result, mean_result
from sslcourse.evaluate.segmentation import mask_iou


def attention_masks(attention: Tensor, mass: float = 0.6) -> Tensor:
    """The fewest patches that together hold `mass` of a head's attention.

    Args:
        attention: (B, heads, h, w), 0 or more; brought to sum 1 over the patches.
        mass: in (0, 1]; DINO keeps 60 %.

    Returns:
        (B, heads, h, w) bool.
    """
    if attention.ndim != 4 or not 0 < mass <= 1 or not bool((attention >= 0).all()):
        raise InputError(f"attention_masks takes (B, heads, h, w) >= 0 and a mass in (0, 1]; got {mass=}.")
    flat = attention.flatten(2)
    share, order = (flat / flat.sum(dim=2, keepdim=True).clamp_min(1e-12)).sort(dim=2, descending=True, stable=True)
    kept = share.cumsum(dim=2) - share < mass  # the patch that reaches the mass is still in
    return torch.zeros_like(kept).scatter(2, order, kept).view(attention.shape)


def attention_jaccard(encoder: Encoder, images: Tensor, masks: Tensor, *, mass: float = 0.6, seed: int = 0) -> Result:
    """Mean Jaccard index of the best head's mask with the object, with a bootstrap interval over the images.

    The best head is chosen for every image, as in DINO: an upper bound that asks whether *some* head has found it.
    `detail` has the Jaccard of the one head that is best on average, which needs no ground truth per image.

    Args:
        images: (N, 3, H, W) uint8; masks: (N, H, W) bool, the object.
    """
    if masks.dtype != torch.bool or masks.shape != (len(images), *images.shape[2:]):
        raise InputError(f"Attention masks need one bool mask an image; got {masks.dtype} {tuple(masks.shape)}.")
    heads = attention_masks(encoder.attention(images), mass)
    big = F.interpolate(heads.float(), masks.shape[1:], mode="nearest-exact") > 0.5
    jaccard = mask_iou(big, masks[:, None].expand_as(big))  # (N, heads)
    best = jaccard.amax(dim=1)
    detail = {
        "protocol": "attention",
        "mass": mass,
        "one_head": jaccard.mean(dim=0).max().item(),
        "heads": jaccard.mean(dim=0).tolist(),
    }
    return mean_result("attention", best, "images", detail, seed=seed)


def attn_to_mask(attention: Tensor, grid: tuple[int, int], mass: float = 0.6) -> Tensor:
    """The class token's attention as masks, one a head: `attention_masks` of its row of a whole attention map.

    Args:
        attention: (B, heads, T, T), the map of a block (`ViT.get_last_attention`); the class token is the first of the
            tokens, the h * w patches are the last, whatever stands between.
        grid: (h, w) of the patches.
        mass: share of the attention to the patches that is kept, in (0, 1].

    Returns:
        (B, heads, h, w) bool.
    """
    h, w = grid
    if attention.ndim != 4 or attention.shape[2] != attention.shape[3] or not 0 < h * w < attention.shape[3]:
        raise InputError(
            f"attn_to_mask takes (B, heads, T, T) with more tokens than the {h} x {w} patches; got "
            f"{tuple(attention.shape)}."
        )
    return attention_masks(attention[:, :, 0, -h * w :].unflatten(2, (h, w)), mass)
