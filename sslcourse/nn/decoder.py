"""From a feature map back to pixels."""

import math

from torch import nn

from sslcourse.errors import InputError


def decoder(width: int, out: int, factor: int, *, narrowest: int = 32) -> nn.Sequential:
    """Convolve and double the side until it is `factor` times larger: (B, width, h, w) -> (B, out, factor h, factor w).

    Nearest-neighbour enlarging before a convolution leaves no checkerboard, as a transposed convolution does (Odena et
    al. 2016). The width halves at every step, down to `narrowest`.

    Args:
        width: channels of the feature map.
        out: channels of the result.
        factor: a power of 2.
    """
    steps = round(math.log2(factor)) if factor >= 1 else -1
    if 2**steps != factor or width < 1 or out < 1:
        raise InputError(f"decoder enlarges by a power of 2 from 1 or more channels; got {factor=}, {width=}, {out=}.")
    layers: list[nn.Module] = []
    for _ in range(steps):
        narrower = max(width // 2, narrowest)
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, narrower, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(narrower), nn.ReLU(inplace=True)]
        width = narrower
    return nn.Sequential(*layers, nn.Conv2d(width, out, 3, padding=1))
