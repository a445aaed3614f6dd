"""Masks and HOG for a whole batch, against a loop over images as the papers' codes have it, and against scikit-image.

Random masks cannot be compared one by one. The check before each timing compares how many patches are hidden, and how
often each one is.
"""

import math
import random
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Pair, Row
from sslcourse.data.hog import hog_features
from sslcourse.data.masks import blockwise_mask, simmim_mask

MASKS, GRID = 1024, 14
HIDDEN, SMALLEST, ASPECT = 75, 16, 0.3  # BEiT's
PIXELS, SQUARE, PATCH, RATIO = 224, 32, 16, 0.6  # SimMIM's, with a ViT
PICTURES = 16


def same_masks(ours: Tensor, theirs: Tensor) -> None:
    """Raise AssertionError unless two batches of random masks have the same distribution, to five standard errors."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    counts = [mask.flatten(1).sum(1).double() for mask in (ours, theirs)]
    gap = (counts[0].mean() - counts[1].mean()).abs()
    assert gap <= 5 * ((counts[0].var() + counts[1].var()) / len(ours)).sqrt(), "hide different numbers of patches"
    often = [mask.double().mean(0) for mask in (ours, theirs)]
    assert (often[0] - often[1]).abs().max() < 5 * math.sqrt(0.5 / len(ours)), "hide different patches"


def cover(part: np.ndarray) -> None:
    """Hide a block one patch after the other, as BEiT's code does."""
    for i in range(part.shape[0]):
        for j in range(part.shape[1]):
            if not part[i, j]:
                part[i, j] = True


def beit(whole: bool) -> Pair:
    """BEiT's code, told again: blocks one after the other, ten tries each, for one image after the other.

    `whole`: a block is hidden at once, which the published loop could do, too.
    """
    generator, rng = torch.Generator().manual_seed(0), random.Random(0)

    def block(mask: np.ndarray, remaining: int) -> int:
        for _ in range(10):
            area, ratio = rng.uniform(SMALLEST, remaining), math.exp(rng.uniform(math.log(ASPECT), -math.log(ASPECT)))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if h < GRID and w < GRID:
                top, left = rng.randint(0, GRID - h), rng.randint(0, GRID - w)
                part = mask[top : top + h, left : left + w]
                new = h * w - int(part.sum())
                if 0 < new <= remaining:
                    if whole:
                        part[:] = True
                    else:
                        cover(part)
                    return new
        return 0

    def one() -> np.ndarray:
        mask, hidden = np.zeros((GRID, GRID), dtype=bool), 0
        while hidden < HIDDEN and (new := block(mask, HIDDEN - hidden)):
            hidden += new
        return mask

    def ours() -> Tensor:
        return blockwise_mask(GRID, GRID, HIDDEN, SMALLEST, None, ASPECT, generator, batch=MASKS)

    return ours, lambda: torch.from_numpy(np.stack([one() for _ in range(MASKS)]))


def simmim() -> Pair:
    """SimMIM's code, told again: a permutation of the squares, the first of which are hidden, an image."""
    generator, rng = torch.Generator().manual_seed(0), np.random.RandomState(0)
    side, scale = PIXELS // SQUARE, SQUARE // PATCH
    count = math.ceil(RATIO * side**2)

    def one() -> np.ndarray:
        mask = np.zeros(side**2, dtype=bool)
        mask[rng.permutation(side**2)[:count]] = True
        return mask.reshape(side, side).repeat(scale, axis=0).repeat(scale, axis=1)

    def ours() -> Tensor:
        return simmim_mask(PIXELS, SQUARE, PATCH, RATIO, generator, batch=MASKS)

    return ours, lambda: torch.from_numpy(np.stack([one() for _ in range(MASKS)]))


def hog() -> Pair:
    """Cells of 8 px in 9 bins, each of unit length; the outermost cells left out, where the borders differ."""
    from skimage.feature import hog as one

    pictures = torch.rand(PICTURES, PIXELS, PIXELS, generator=torch.Generator().manual_seed(0))

    def theirs() -> Tensor:
        cells = [one(x, 9, (8, 8), (1, 1), "L2", feature_vector=False)[:, :, 0, 0] for x in pictures.numpy()]
        return torch.from_numpy(np.stack(cells))[:, 1:-1, 1:-1]

    return lambda: hog_features(pictures)[:, 1:-1, 1:-1], theirs


def same_cells(ours: Tensor, theirs: Tensor) -> None:
    """Raise AssertionError unless the inner cells agree to 1e-6."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


BLOCKS = "1,024 masks of BEiT's blocks, 14 x 14"
SQUARES = "1,024 masks of SimMIM's squares, 14 x 14"
ROWS = [
    Row("masks", BLOCKS, "the loop as published", partial(beit, False), target=4.0, check=same_masks),
    Row("masks", BLOCKS, "a loop, whole blocks", partial(beit, True), target=4.0, check=same_masks),
    Row("masks", SQUARES, "a loop over images", simmim, target=4.0, check=same_masks),
    Row("hog", "HOG of 16 images of 224 px", "scikit-image", hog, target=10.0, check=same_cells, requires=("skimage",)),
]
