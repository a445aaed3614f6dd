"""What a representation has to beat besides its own random initialisation: pixels, and gradients counted by hand."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.color import luma
from sslcourse.errors import InputError
from sslcourse.evaluate.encoder import Encoder
from sslcourse.evaluate.features import extract_features

RAW: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def pixel_features(train: Any, test: Any, *, size: int | None = None) -> tuple[Tensor, Tensor]:
    """Raw pixels in [0, 1] as features: flattened, minus the mean image of `train`.

    Without the centring every cosine is near 1, since all images share a large mean.

    Args:
        train, test: `Images` or `ImageStream`.
        size: side in pixels that images are brought to; None keeps their shorter side.

    Returns:
        (N, 3 size^2) and (M, 3 size^2) float32.
    """
    raw = nn.Flatten()
    bank, queries = (extract_features(raw, part, size=size, **RAW) for part in (train, test))
    mean = bank.mean(dim=0)
    return bank - mean, queries - mean


def pixel_encoder(train: Any, *, size: int | None = None, patch: int = 8) -> Encoder:
    """`pixel_features` as an encoder, with the mean image of `train`; its maps hold the pixels of square blocks."""
    mean = extract_features(nn.Flatten(), train, size=size, **RAW).mean(dim=0)
    return Encoder(Pixels(mean, patch), size, **RAW)


def hog_encoder(*, size: int | None = None, cell: int = 8) -> Encoder:
    """Histograms of oriented gradients as an encoder; sides of the view are brought to multiples of `cell`."""
    return Encoder(HOG(cell), size, **RAW)


class Pixels(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, 3HW) minus a mean image."""

    def __init__(self, mean: Tensor, patch: int = 8) -> None:
        super().__init__()
        self.patch = patch
        self.mean: Tensor
        self.register_buffer("mean", mean.clone())

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) - self.mean

    def forward_map(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3 patch^2, H / patch, W / patch)."""
        blocks = F.pixel_unshuffle(_whole_cells(x, self.patch), self.patch)
        return blocks - 0.5


class HOG(nn.Module):
    """Histograms of oriented gradients (Dalal and Triggs 2005): (B, 3, H, W) in [0, 1] -> (B, 36 (h - 1)(w - 1)).

    Gradients of the grey image vote with their strength for 9 orientations without sign, shared between the two
    nearest, in h x w cells of `cell` pixels; blocks of 2 x 2 cells are brought to unit length.
    """

    bins = 9

    def __init__(self, cell: int = 8) -> None:
        super().__init__()
        if cell < 2:
            raise InputError(f"HOG cells are 2 pixels or more; got {cell}.")
        self.cell = cell

    def cells(self, x: Tensor) -> Tensor:
        """(B, 9, h, w): strength of every orientation in every cell."""
        grey = F.pad(luma(_whole_cells(x, self.cell)), (1, 1, 1, 1), mode="replicate")[:, 0]
        dy, dx = grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1], grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]
        place = torch.atan2(dy, dx) / torch.pi % 1 * self.bins - 0.5  # bin centres stand at whole numbers
        low = place.floor()
        share = place - low
        strength = torch.hypot(dy, dx)
        votes = x.new_zeros(len(x), self.bins, *strength.shape[1:])
        for which, weight in ((low, 1 - share), (low + 1, share)):
            votes.scatter_add_(1, which.long().remainder(self.bins)[:, None], (strength * weight)[:, None])
        return F.avg_pool2d(votes, self.cell)

    def forward(self, x: Tensor) -> Tensor:
        cells = self.cells(x)
        if min(cells.shape[2:]) < 2:
            raise InputError(f"HOG needs two cells of {self.cell} px along each side; got images of {(*x.shape[2:],)}.")
        corners = (cells[:, :, :-1, :-1], cells[:, :, :-1, 1:], cells[:, :, 1:, :-1], cells[:, :, 1:, 1:])
        return F.normalize(torch.cat(corners, dim=1), dim=1, eps=1e-3).flatten(1)

    def forward_map(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 9, h, w), each cell relative to the strength of its neighbourhood."""
        cells = self.cells(x)
        around = F.avg_pool2d(cells.square().sum(dim=1, keepdim=True), 3, stride=1, padding=1)
        return cells / (around.sqrt() + 1e-3)


def _whole_cells(x: Tensor, cell: int) -> Tensor:
    """Resize so that both sides are multiples of `cell`; images that are stay as they are."""
    height, width = (max(cell, round(side / cell) * cell) for side in x.shape[2:])
    return x if (height, width) == tuple(x.shape[2:]) else F.interpolate(x, (height, width), mode="bilinear")
