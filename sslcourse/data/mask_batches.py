"""Masks for a batch in which images differ in how much is hidden: iBOT's, and DINOv2's spread ratios."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from sslcourse.data.masks import block_masks
from sslcourse.data.rng import shard_rows
from sslcourse.errors import InputError


def random_block_mask_batch(
    n: int, h: int, w: int, rng: Generator, *, prob: float = 0.5, ratio: tuple[float, float] = (0.1, 0.5)
) -> Tensor:
    """DINOv2's masks (Oquab et al. 2023, section 4; its collate function): (n, h, w) bool, True = masked.

    floor(n * prob) images, chosen at random, get a mask; their ratios are spread evenly over the interval, the j-th
    drawn from the j-th of as many equal parts of it, so that no batch has only hard or only easy images. The blocks are
    BEiT's of 4 (fewer in small grids) to h * w / 2 patches; a mask hides at most its share, often a little less.

    Args:
        n: images of this process (with several, masks are spread over the batch of all).
        rng: CPU generator.
        prob: share of the images that get a mask, in [0, 1].
        ratio: smallest and largest share of hidden patches, in [0, 1].
    """
    low, high = ratio
    if n < 1 or not 0 <= prob <= 1 or not 0 <= low <= high <= 1:
        raise InputError(
            f"random_block_mask_batch needs n >= 1, prob in [0, 1], 0 <= low <= high <= 1; got {n=}, {prob=}, {ratio=}."
        )
    total, mine = shard_rows(n, rng)
    masked = int(total * prob)
    spread = low + (high - low) * (torch.arange(masked) + torch.rand(masked, generator=rng)) / max(masked, 1)
    ratios = torch.cat([spread, torch.zeros(total - masked)])[torch.randperm(total, generator=rng)]
    smallest = min(4, max(1, h * w // 32))  # 4 in the paper's grids; less where 4 patches are a quarter of the image
    return _blocks(ratios, mine, h, w, smallest, max(h * w // 2, 1), rng)


def ibot_masks(
    n: int,
    h: int,
    w: int,
    rng: Generator,
    *,
    ratio: float | Sequence[float] = (0.0, 0.3),
    variation: float | Sequence[float] = (0.0, 0.2),
) -> Tensor:
    """iBOT's masks (Zhou et al. 2021, section 3.3 and appendix): (n, h, w) bool, True = masked.

    Each image draws one of the ratios r, with its variation v, then its share from U(r - v, r + v): the defaults leave
    half of the images whole. Blocks have at least (min(h, w) // 3)^2 patches and are log-uniform in aspect.

    Args:
        ratio, variation: one each, or as many variations as ratios; v <= r.
    """
    each = torch.tensor([ratio] if isinstance(ratio, int | float) else list(ratio))
    spread = torch.tensor([variation] if isinstance(variation, int | float) else list(variation))
    if n < 1 or len(each) != len(spread) or bool((spread > each).any()) or bool((each + spread > 1).any()):
        raise InputError(f"ibot_masks needs 0 <= r - v and r + v <= 1 of each pair; got {ratio=}, {variation=}.")
    total, mine = shard_rows(n, rng)
    which = torch.randint(len(each), (total,), generator=rng)
    ratios = each[which] + spread[which] * (2 * torch.rand(total, generator=rng) - 1)
    return _blocks(ratios, mine, h, w, max((min(h, w) // 3) ** 2, 1), None, rng)


def _blocks(ratios: Tensor, mine: slice, h: int, w: int, smallest: int, largest: int | None, rng: Generator) -> Tensor:
    """Block masks of this process's images, of all at once."""
    return block_masks((h, w), (ratios * h * w).int(), smallest, largest, 0.3, rng, mine)
