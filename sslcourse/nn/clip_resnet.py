"""CLIP's ResNet (Radford et al. 2021, section 2.4): three-layer stem, antialiased strides, attention pooling."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.errors import InputError
from sslcourse.nn.patches import interpolate_pos


class Bottleneck(nn.Module):
    """A ResNet bottleneck that averages over 2 x 2 before the convolution where others stride (Zhang 2019)."""

    def __init__(self, in_dim: int, dim: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(in_dim, dim, 1, bias=False), nn.BatchNorm2d(dim)
        self.conv2, self.bn2 = nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.BatchNorm2d(dim)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3, self.bn3 = nn.Conv2d(dim, 4 * dim, 1, bias=False), nn.BatchNorm2d(4 * dim)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or in_dim != 4 * dim:
            shortcut = {"-1": nn.AvgPool2d(stride), "0": nn.Conv2d(in_dim, 4 * dim, 1, bias=False)}
            self.downsample = nn.Sequential(OrderedDict(shortcut | {"1": nn.BatchNorm2d(4 * dim)}))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(self.avgpool(out)))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class AttentionPool(nn.Module):
    """The mean over places asks all places: multi-head attention with that one query, (B, C, H, W) -> (B, out)."""

    def __init__(self, side: int, dim: int, n_heads: int, out: int) -> None:
        super().__init__()
        self.grid_size, self.n_heads = (side, side), n_heads
        self.positional_embedding = nn.Parameter(dim**-0.5 * torch.randn(side**2 + 1, dim))
        self.k_proj, self.q_proj, self.v_proj = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.c_proj = nn.Linear(dim, out)
        for layer in (self.k_proj, self.q_proj, self.v_proj, self.c_proj):
            nn.init.normal_(layer.weight, std=dim**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        pos = interpolate_pos(self.positional_embedding[None], h, w, grid=self.grid_size, antialias=True)
        places = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([places.mean(dim=1, keepdim=True), places], dim=1) + pos.to(x.dtype)
        q, k, v = (
            layer(t).unflatten(2, (self.n_heads, -1)).transpose(1, 2)
            for layer, t in ((self.q_proj, tokens[:, :1]), (self.k_proj, tokens), (self.v_proj, tokens))
        )
        return self.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(1))


class CLIPResNet(nn.Module):
    """CLIP's modified ResNet.

    Args:
        image_size: side in pixels, a multiple of 32, that the positions of the pooling are stored for.
        layers: number of bottlenecks of the four stages; (3, 4, 6, 3) is ResNet-50.
        width: channels of the stem; the last stage has 32 times as many.
        n_heads: of the attention pooling; half as many as `width` by default.
        out: width of the embedding, `num_features`.

    Shape: (B, 3, H, W) standardised float -> (B, out), not normalised.
    """

    def __init__(
        self,
        image_size: int = 224,
        layers: tuple[int, int, int, int] = (3, 4, 6, 3),
        width: int = 64,
        n_heads: int | None = None,
        out: int = 1024,
    ) -> None:
        super().__init__()
        if image_size % 32 or not image_size:
            raise InputError(f"CLIP's ResNet takes images whose side is a multiple of 32 px; got {image_size}.")
        self.num_features = out
        self.conv1, self.bn1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width // 2)
        self.conv2, self.bn2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False), nn.BatchNorm2d(width // 2)
        self.conv3, self.bn3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        in_dim = width
        for stage, blocks in enumerate(layers):
            dim, made = width * 2**stage, []
            for i in range(blocks):
                made.append(Bottleneck(in_dim, dim, stride=2 if stage and not i else 1))
                in_dim = 4 * dim
            self.add_module(f"layer{stage + 1}", nn.Sequential(*made))
        self.attnpool = AttentionPool(image_size // 32, in_dim, n_heads or width // 2, out)
        for name, parameter in self.named_parameters():
            if name.endswith("bn3.weight") and name.startswith("layer"):
                nn.init.zeros_(parameter)  # every bottleneck starts as its shortcut

    def stem(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, width, H/4, W/4)."""
        for conv, bn in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = F.relu(bn(conv(x)))
        return F.avg_pool2d(x, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.to(self.conv1.weight.dtype))
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.attnpool(x)
