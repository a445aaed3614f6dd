"""Matting Anything's mask-to-matte decoder (Li et al. 2023, "Matting Anything", section 3.1).

Three stages bring the image embedding of a frozen SAM from stride 16 to stride 2, each shown the image and the guiding
mask again; heads at stride 8, 4 and 1 predict a matte. Weights are divided by their largest singular value.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SLOPE = 0.2  # of the leaky ReLUs


class SpectralConv(nn.Module):
    """A convolution without bias whose weight is divided by its spectral norm (Miyato et al. 2018).

    The norm is that of the weight as a matrix of its first axis (the inputs, where it is transposed) by the rest. One
    step of power iteration on u and v in training; none in eval mode.
    """

    u: Tensor
    v: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, transposed: bool = False) -> None:
        super().__init__()
        self.transposed, self.padding = transposed, 1 if transposed else kernel // 2
        shape = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        self.weight = nn.Parameter(torch.empty(*shape, kernel, kernel))
        nn.init.xavier_uniform_(self.weight)
        self.register_buffer("u", F.normalize(torch.randn(shape[0]), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(shape[1] * kernel**2), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.weight.flatten(1)
        if self.training:
            with torch.no_grad():
                self.v = F.normalize(matrix.T @ self.u, dim=0)
                self.u = F.normalize(matrix @ self.v, dim=0)
        weight = self.weight / (self.u @ (matrix @ self.v))
        if self.transposed:  # kernel 4, stride 2: twice the size
            return F.conv_transpose2d(x, weight, stride=2, padding=self.padding)
        return F.conv2d(x, weight, padding=self.padding)


class UpBlock(nn.Module):
    """A residual block; the first of a stage doubles the resolution and changes the width."""

    def __init__(self, in_channels: int, out_channels: int, *, first: bool) -> None:
        super().__init__()
        inner = in_channels if first else out_channels
        kernel = 4 if first else 3
        self.conv1 = SpectralConv(in_channels, inner, kernel, transposed=first)
        self.bn1, self.bn2 = nn.BatchNorm2d(inner), nn.BatchNorm2d(out_channels)
        self.conv2 = SpectralConv(inner, out_channels, 3)
        self.skip: nn.Module = nn.Identity()
        if first:
            narrow = SpectralConv(in_channels, out_channels, 1)
            self.skip = nn.Sequential(nn.Upsample(scale_factor=2), narrow, nn.BatchNorm2d(out_channels))
        nn.init.zeros_(self.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.bn1(self.conv1(x)), _SLOPE)
        return F.leaky_relu(self.bn2(self.conv2(y)) + self.skip(x), _SLOPE)


class Mattes(NamedTuple):
    """Mattes (B, 1, S, S) in [0, 1] predicted at full, 1/4 and 1/8 resolution."""

    os1: Tensor
    os4: Tensor
    os8: Tensor


class M2MDecoder(nn.Module):
    """A mask and SAM's embedding to mattes.

    Args:
        channels: of the embedding, of the maps at stride 8 and 4, of those at stride 2 and 1, and inside the heads
            (which is the width at stride 2 and 1 in the paper).
        depths: blocks of the three stages.
    """

    def __init__(
        self, channels: tuple[int, int, int, int, int] = (256, 128, 64, 32, 32), depths: Sequence[int] = (3, 3, 2)
    ) -> None:
        super().__init__()
        embedding, wide, middle, narrow, head = channels
        self.layer2 = self._stage(embedding, wide, depths[0])
        self.layer3 = self._stage(wide, middle, depths[1])
        self.layer4 = self._stage(middle, narrow, depths[2])
        self.conv1, self.bn1 = SpectralConv(narrow, narrow, 4, transposed=True), nn.BatchNorm2d(narrow)
        self.refine_OS8, self.refine_OS4, self.refine_OS1 = (self._head(c, head) for c in (wide, middle, narrow))

    @staticmethod
    def _stage(in_channels: int, out_channels: int, depth: int) -> nn.Sequential:
        """`in_channels` and four more: the image and the mask."""
        first = UpBlock(in_channels + 4, out_channels, first=True)
        return nn.Sequential(first, *(UpBlock(out_channels, out_channels, first=False) for _ in range(depth - 1)))

    @staticmethod
    def _head(channels: int, hidden: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(hidden, 1, 3, padding=1),
        )

    def forward(self, embedding: Tensor, image: Tensor, mask: Tensor) -> Mattes:
        """Mattes of B objects.

        Args:
            embedding: (B, C, S/16, S/16).
            image: (B, 3, S, S) as the encoder saw it.
            mask: (B, 1, h, w), 0 or 1: SAM's mask of the highest predicted IoU, at any resolution.
        """

        def shown(x: Tensor) -> Tensor:
            size = x.shape[-2:]
            sources = (F.interpolate(s, size, mode="bilinear", align_corners=False) for s in (image, mask))
            return torch.cat([x, *sources], dim=1)

        x8 = self.layer2(shown(embedding))
        x4 = self.layer3(shown(x8))
        x2 = self.layer4(shown(x4))
        x1 = F.leaky_relu(self.bn1(self.conv1(x2)), _SLOPE)
        # The logits are enlarged, not the mattes.
        os4 = F.interpolate(self.refine_OS4(x4), scale_factor=4, mode="bilinear", align_corners=False)
        os8 = F.interpolate(self.refine_OS8(x8), scale_factor=8, mode="bilinear", align_corners=False)
        return Mattes(*((logits.tanh() + 1) / 2 for logits in (self.refine_OS1(x1), os4, os8)))
