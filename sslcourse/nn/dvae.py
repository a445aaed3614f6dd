"""Discrete VAEs: an image as a grid of tokens, and back."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import MEAN, STD
from sslcourse.errors import InputError


class ResBlock(nn.Module):
    """x + conv1(relu(conv3(relu(conv3(x))))), (B, width, h, w) -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


class DVAE(nn.Module):
    """A small discrete VAE, in the layout of the one in BEiT's repository.

    Args:
        vocabulary: tokens K.
        dim: width of a token's code.
        layers: times that the side is halved.
        hidden: channels.

    Attributes:
        stride: pixels of the image below a token, 2^layers.
        num_features: K; forward is the bag of tokens, (B, 3, H, W) -> (B, K), which sums to 1.
    """

    def __init__(self, vocabulary: int = 512, dim: int = 64, layers: int = 2, hidden: int = 64) -> None:
        super().__init__()
        self.vocabulary = self.num_features = vocabulary
        self.stride = 2**layers
        self.codebook = nn.Embedding(vocabulary, dim)
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for i in range(layers):
            down += [nn.Sequential(nn.Conv2d(3 if i == 0 else hidden, hidden, 4, stride=2, padding=1), nn.ReLU())]
            up += [nn.Sequential(nn.ConvTranspose2d(hidden if i else dim, hidden, 4, stride=2, padding=1), nn.ReLU())]
            down, up = [*down, ResBlock(hidden)], [*up, ResBlock(hidden)]
        self.encoder = nn.Sequential(*down, nn.Conv2d(hidden, vocabulary, 1))
        self.decoder = nn.Sequential(*up, nn.Conv2d(hidden, 3, 1))

    def logits(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, K, H / stride, W / stride)."""
        if x.shape[2] % self.stride or x.shape[3] % self.stride:
            raise InputError(f"this dVAE takes sides that are multiples of {self.stride}; got {(*x.shape[2:],)}.")
        return self.encoder(x)

    def tokenize(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> the likeliest token of every place, (B, H / stride, W / stride) int64."""
        return self.logits(x).argmax(dim=1)

    def decode(self, ids: Tensor) -> Tensor:
        """(B, h, w) tokens -> (B, 3, stride h, stride w)."""
        return self.decoder(self.codebook(ids).permute(0, 3, 1, 2))

    def forward_map(self, x: Tensor) -> Tensor:
        """The expected code of every place, (B, 3, H, W) -> (B, dim, h, w)."""
        return torch.einsum("bkhw,kd->bdhw", self.logits(x).softmax(dim=1), self.codebook.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x).softmax(dim=1).mean(dim=(2, 3))


class DalleBlock(nn.Module):
    """A bottleneck of DALL-E's dVAE: id(x) + gain * conv(relu(...)) four times, hidden width a quarter of the output.

    Args:
        kernels: sides of the four kernels.
        gain: 1 / (blocks of the network)^2.
    """

    def __init__(self, width: int, out: int, kernels: tuple[int, int, int, int], gain: float) -> None:
        super().__init__()
        self.gain = gain
        self.id_path = nn.Conv2d(width, out, 1) if width != out else nn.Identity()
        widths = [width, *[out // 4] * 3, out]
        self.res_path = nn.ModuleList(
            nn.Conv2d(a, b, k, padding=k // 2) for a, b, k in zip(widths[:-1], widths[1:], kernels, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        branch = x
        for conv in self.res_path:
            branch = conv(F.relu(branch))
        return self.id_path(x) + self.gain * branch


def _dalle_groups(widths: list[int], blocks: int, kernels: tuple[int, int, int, int]) -> nn.ModuleList:
    gain = 1 / (blocks * (len(widths) - 1)) ** 2
    return nn.ModuleList(
        nn.Sequential(*[DalleBlock(a if i == 0 else b, b, kernels, gain) for i in range(blocks)])
        for a, b in pairwise(widths)
    )


class DalleEncoder(nn.Module):
    """The tokenizer of DALL-E (Ramesh et al. 2021, appendix A.1), which BEiT takes its tokens from.

    Args:
        hidden: channels of the first group; they double with each of the four, and the side halves after the first 3.
        blocks: bottlenecks a group.
        vocabulary: tokens K.

    Shape: `logits` (B, 3, H, W) in [0, 1] -> (B, K, H / 8, W / 8); `tokenize` takes the view of the other networks.
    """

    stride = 8

    def __init__(self, hidden: int = 256, blocks: int = 2, vocabulary: int = 8192) -> None:
        super().__init__()
        self.vocabulary = self.num_features = vocabulary
        self.input = nn.Conv2d(3, hidden, 7, padding=3)
        self.groups = _dalle_groups([hidden, *(hidden * 2**i for i in range(4))], blocks, (3, 3, 3, 1))
        self.output = nn.Conv2d(8 * hidden, vocabulary, 1)

    def logits(self, x: Tensor) -> Tensor:
        """Logits of pixels in [0, 1]."""
        x = self.input(map_pixels(x))
        for i, group in enumerate(self.groups):
            x = group(x)
            x = F.max_pool2d(x, 2) if i < 3 else x
        return self.output(F.relu(x))

    def tokenize(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) standardised with ImageNet's mean and spread -> (B, H / 8, W / 8) int64."""
        mean, std = (torch.tensor(v, device=x.device).view(3, 1, 1) for v in (MEAN, STD))
        return self.logits((x * std + mean).clamp(0, 1)).argmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x).softmax(dim=1).mean(dim=(2, 3))


class DalleDecoder(nn.Module):
    """From tokens (B, h, w) to (B, 6, 8h, 8w), location and log-scale of a logit-Laplace distribution (eq. 2).

    Args:
        first: channels after the tokens; hidden: of the last group, 8 times as many in the first; blocks: a group.
    """

    def __init__(self, hidden: int = 256, blocks: int = 2, vocabulary: int = 8192, first: int = 128) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.input = nn.Conv2d(vocabulary, first, 1)
        self.groups = _dalle_groups([first, *(hidden * 2**i for i in (3, 2, 1, 0))], blocks, (1, 3, 3, 3))
        self.output = nn.Conv2d(hidden, 6, 1)

    def forward(self, ids: Tensor) -> Tensor:
        # One-hot times a 1 x 1 convolution is a look-up of its columns.
        x = F.embedding(ids, self.input.weight[:, :, 0, 0].T).permute(0, 3, 1, 2) + self.input.bias[:, None, None]  # type: ignore[index]
        for i, group in enumerate(self.groups):
            x = group(x)
            x = F.interpolate(x, scale_factor=2, mode="nearest") if i < 3 else x
        return self.output(F.relu(x))

    def decode(self, ids: Tensor) -> Tensor:
        """(B, h, w) -> pixels (B, 3, 8h, 8w) in [0, 1]."""
        return unmap_pixels(self(ids)[:, :3].sigmoid())


def map_pixels(x: Tensor, eps: float = 0.1) -> Tensor:
    """[0, 1] -> [eps, 1 - eps], away from where a logit is infinite (appendix A.3)."""
    return (1 - 2 * eps) * x + eps


def unmap_pixels(x: Tensor, eps: float = 0.1) -> Tensor:
    """The inverse of `map_pixels`, cut to [0, 1]."""
    return ((x - eps) / (1 - 2 * eps)).clamp(0, 1)
