"""TinyViT, the image encoder of MobileSAM: convolutions first, then attention in windows.

Wu et al. 2022, "TinyViT: Fast Pretraining Distillation for Small Vision Transformers"; Zhang et al. 2023, "Faster
Segment Anything: Towards Lightweight SAM for Mobile Applications", which changes it so that four stages end at stride
16. Maps are (B, C, H, W) between the blocks. Parameters carry the official names.
"""

from collections.abc import Sequence
from math import prod
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.errors import InputError
from sslcourse.segment.image_encoder import neck, window_partition, window_unpartition


class ConvNorm(nn.Module):
    """A convolution without bias, and batch norm. In eval mode the norm is a part of the convolution's weights.

    That saves a pass over the map. And it is right: on a CPU, torch's batch norm in eval mode gives wrong gradients for
    a batch of 1 where map and incoming gradient differ in memory format (seen in torch 2.15).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.bn(self.c(x))
        mean, variance = cast(Tensor, self.bn.running_mean), cast(Tensor, self.bn.running_var)
        scale = self.bn.weight * (variance + self.bn.eps).rsqrt()
        weight, bias = self.c.weight * scale[:, None, None, None], self.bn.bias - mean * scale
        return F.conv2d(x, weight, bias, self.c.stride, self.c.padding, groups=self.c.groups)


class PatchEmbed(nn.Module):
    """Two convolutions of stride 2: (B, 3, H, W) -> (B, dim, H/4, W/4)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, dim // 2, 3, 2), nn.GELU(), ConvNorm(dim // 2, dim, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.seq(x)


class MBConv(nn.Module):
    """Widen, filter every channel, narrow, add (Sandler et al. 2018); the last GELU comes behind the sum."""

    def __init__(self, dim: int, expand: float = 4.0) -> None:
        super().__init__()
        hidden = int(dim * expand)
        self.conv1, self.conv2 = ConvNorm(dim, hidden), ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, dim)
        nn.init.zeros_(self.conv3.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class PatchMerging(nn.Module):
    """To another width, at half the resolution or (stride 1) the same."""

    def __init__(self, dim: int, out: int, stride: int = 2) -> None:
        super().__init__()
        self.conv1, self.conv2 = ConvNorm(dim, out), ConvNorm(out, out, 3, stride, groups=out)
        self.conv3 = ConvNorm(out, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


def offset_ids(h: int, w: int) -> Tensor:
    """(h * w, h * w) int64: an id for the offset (|dy|, |dx|) of every pair of places, numbered as first seen."""
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    y, x = y.flatten(), x.flatten()
    # Seen from the first place, all offsets occur in reading order.
    return (y[:, None] - y).abs() * w + (x[:, None] - x).abs()


class Attention(nn.Module):
    """Self-attention with a learned bias for every head and offset, and a norm in front: (B, h * w, dim) -> the same.

    Queries, keys and values of a head are next to each other in the output of `qkv`.
    """

    ids: Tensor

    def __init__(self, dim: int, key_dim: int, n_heads: int, resolution: tuple[int, int], ratio: float = 1.0) -> None:
        super().__init__()
        self.n_heads, self.key_dim, self.value_dim = n_heads, key_dim, int(ratio * key_dim)
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, n_heads * (2 * key_dim + self.value_dim))
        self.proj = nn.Linear(n_heads * self.value_dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(n_heads, resolution[0] * resolution[1]))
        self.register_buffer("ids", offset_ids(*resolution), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        q, k, v = qkv.split([self.key_dim, self.key_dim, self.value_dim], dim=-1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.attention_biases[:, self.ids].to(q.dtype))
        return self.proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Norm, and two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class TinyViTBlock(nn.Module):
    """x + attention in windows, a depthwise convolution in place of x, x + mlp: (B, dim, H, W) -> the same.

    Padding of windows comes before the norm here, so padded tokens are the norm's bias.
    """

    def __init__(self, dim: int, n_heads: int, window: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.window = window
        self.attn = Attention(dim, dim // n_heads, n_heads, (window, window))
        self.local_conv = ConvNorm(dim, dim, 3, groups=dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.permute(0, 2, 3, 1)
        windows, padded = window_partition(tokens, self.window)
        attended = self.attn(windows.flatten(1, 2)).unflatten(1, (self.window, self.window))
        tokens = tokens + window_unpartition(attended, padded, (x.shape[2], x.shape[3]))
        tokens = self.local_conv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (tokens + self.mlp(tokens)).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks, and what leads to the width of the next stage."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks, self.downsample = nn.ModuleList(blocks), downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class TinyViT(nn.Module):
    """MobileSAM's encoder: (B, 3, S, S) standardised and padded -> (B, out_channels, S/16, S/16).

    Args:
        image_size: side S in pixels, a multiple of 16; others go in as well, since no positions are absolute.
        dims, depths, n_heads, windows: of the four stages; the first is of convolutions.
        mlp_ratio: of the attention blocks.
        out_channels: width of the neck's output.
        strides: of the merges behind the first three stages; 4 times their product is the stride of all, SAM's 16.

    `forward_features` also gives the output of the second stage, (B, S/16, S/16, dims[2]), for HQ-SAM.
    """

    def __init__(
        self,
        image_size: int = 1024,
        dims: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        n_heads: Sequence[int] = (2, 4, 5, 10),
        windows: Sequence[int] = (7, 7, 14, 7),
        mlp_ratio: float = 4.0,
        out_channels: int = 256,
        strides: Sequence[int] = (2, 2, 1),
    ) -> None:
        super().__init__()
        stride = 4 * prod(strides)
        if image_size % stride:
            raise InputError(f"TinyViT needs an image_size that is a multiple of {stride}; got {image_size}.")
        self.image_size, self.grid, self.early_channels = image_size, image_size // stride, dims[2]
        self.patch_embed = PatchEmbed(dims[0])
        stages: list[nn.Module] = []
        for i, dim in enumerate(dims):
            blocks: list[nn.Module] = [
                TinyViTBlock(dim, n_heads[i], windows[i], mlp_ratio) if i else MBConv(dim) for _ in range(depths[i])
            ]
            merge = PatchMerging(dim, dims[i + 1], strides[i]) if i + 1 < len(dims) else None
            stages.append(Stage(blocks, merge))
        self.layers = nn.ModuleList(stages)
        self.neck = neck(dims[-1], out_channels)

    def forward_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The embedding (B, out_channels, g, g) and the early map (B, g, g, dims[2])."""
        x = self.patch_embed(x)
        early = x
        for i, stage in enumerate(self.layers):
            x = stage(x)
            early = x if i == 1 else early
        return self.neck(x), early.permute(0, 2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_features(x)[0]


def decoupled_distill(student: nn.Module, teacher: nn.Module, images: Tensor) -> Tensor:
    """MobileSAM's loss: mean squared error between two encoders' embeddings (section 3.2, "decoupled").

    The decoder takes no part: it stays as it is, and fits the student because the student's embedding is the teacher's.

    Args:
        student, teacher: (B, 3, S, S) -> (B, C, g, g), behind the neck; the teacher in eval mode, without gradient.
        images: standardised and padded.

    Returns:
        scalar, mean over all values of the embeddings.
    """
    mode = teacher.training
    with torch.no_grad():
        wanted = cast(Tensor, teacher.eval()(images))
    teacher.train(mode)
    found = cast(Tensor, student(images))
    if found.shape != wanted.shape:
        raise InputError(
            f"the student gives {(*found.shape,)}, the teacher {(*wanted.shape,)}: use one grid and width."
        )
    return F.mse_loss(found.float(), wanted.float())
