"""Colour operations on a batch of images, each image with its own parameters.

Every function takes images (B, 3, H, W) float in [0, 1] and one number an image, and gives what
`torchvision.transforms.v2.functional` gives for that image and that number. `color_jitter` chains the four operations
in an order of its own for every image; `color_jitter_fast` is its affine approximation. Nothing branches on data, so
the whole file compiles to one graph.
"""

import math

import torch
from torch import Tensor

GRAY = (0.2989, 0.587, 0.114)  # ITU-R BT.601 luma, rounded as torchvision and PIL round it
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # the numbers that stand in `order`

# RGB -> YIQ (NTSC); a rotation of the I-Q plane turns the hue and leaves the luma Y.
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def luma(x: Tensor) -> Tensor:
    """Grey value of every pixel, (B, 3, H, W) -> (B, 1, H, W)."""
    r, g, b = x.unbind(1)
    return (r * GRAY[0]).add_(g, alpha=GRAY[1]).add_(b, alpha=GRAY[2]).unsqueeze(1)


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply by `factor` (B,), clamp to [0, 1]."""
    return (x * _column(factor)).clamp_(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean grey value of the image: factor 0 gives flat grey, 1 the image. `factor`: (B,)."""
    f = _column(factor)
    return (x * f).add_((1 - f) * luma(x).mean((2, 3), keepdim=True)).clamp_(0, 1)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image: factor 0 gives grey, 1 the image. `factor`: (B,)."""
    f = _column(factor)
    return (x * f).add_((1 - f) * luma(x)).clamp_(0, 1)


def adjust_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` (B,) of a full circle, in [-0.5, 0.5]; saturation and value (HSV) stay.

    The round trip RGB -> HSV -> RGB without its middle: with chroma C = max - min, hue h in [0, 6) and the offsets
    o = (0, 4, 2), channel c of the result is min + C * clamp(|(h + o_c) mod 6 - 3| - 1, 0, 1).
    """
    r, g, b = x.unbind(1)
    high = torch.maximum(torch.maximum(r, g), b)
    low = torch.minimum(torch.minimum(r, g), b)
    chroma = high - low
    inverse = 1 / chroma.clamp(min=1e-12)  # a grey pixel has differences of 0, so its hue is 0 and its chroma 0
    hue = torch.where(high == g, (b - r) * inverse + 2, (r - g) * inverse + 4)
    hue = torch.where(high == r, (g - b) * inverse, hue)
    hue = hue + 6 * shift.to(x.dtype).view(-1, 1, 1)
    out = torch.empty_like(x)
    for channel, offset in enumerate((0, 4, 2)):
        ramp = ((hue + offset).remainder_(6) - 3).abs_().sub_(1).clamp_(0, 1)
        out[:, channel] = low + chroma * ramp
    return out


def color_jitter(x: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, in an order of its own for every image; each step clamps to [0, 1].

    Args:
        x: (B, 3, H, W) float in [0, 1].
        factors: (B, 4), the factors of brightness, contrast, saturation, and the hue shift; (1, 1, 1, 0) is no change.
        order: (B, 4) int64, a permutation of 0..3 in every row: the operation to do first, second, ...

    The first three are one blend, clamp(f * x + (1 - f) * (mean grey | grey | 0)). So a row that reads "blend, hue,
    blend, blend" is three blends before a hue shift and three after it, with those not due at f = 1: six cheap
    operations and one dear one for the whole batch, whatever the orders, instead of four dear ones.
    """
    factors = factors.to(x.dtype)
    slot = (order == HUE).int().argmax(1, keepdim=True)  # how many blends come before the hue shift
    position = torch.arange(3, device=x.device)
    blends = order.gather(1, position + (position >= slot))  # the other three, in order
    strength = factors.gather(1, blends)
    for late in (False, True):
        for i in range(3):
            due = (i >= slot[:, 0]) if late else (i < slot[:, 0])
            x = _blend(x, torch.where(due, strength[:, i], 1.0), blends[:, i])
        if not late:
            x = adjust_hue(x, factors[:, HUE])
    return x


def color_jitter_fast(x: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """`color_jitter` as one affine map of colour an image, with one clamp at the end and the hue turned in YIQ.

    Differs from `color_jitter` where a step in the middle would have clamped, and in how a hue shift treats the
    brightness of a saturated colour (YIQ keeps luma, HSV keeps the maximum). Arguments as there.
    """
    matrix, bias = jitter_matrix(factors.to(x.dtype), order, x.mean((2, 3)))
    return torch.baddbmm(bias[:, :, None], matrix, x.flatten(2)).view_as(x).clamp_(0, 1)


def jitter_matrix(factors: Tensor, order: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """The affine map of a colour jitter that never clamps: matrix (B, 3, 3) and bias (B, 3).

    `mean` (B, 3) is the mean colour of the image, which contrast needs and which every step carries along.
    """
    gray = mean.new_tensor(GRAY).expand(3, 3)  # maps a colour to its grey
    eye = torch.eye(3, dtype=mean.dtype, device=mean.device)
    f = factors[:, :3, None, None]
    zero = torch.zeros_like(mean)
    # The four linear parts, (B, 4, 3, 3); contrast has the linear part of brightness and a bias besides.
    linear = torch.stack(
        [f[:, 0] * eye, f[:, 1] * eye, f[:, 2] * eye + (1 - f[:, 2]) * gray, hue_matrix(factors[:, HUE])], 1
    )
    matrix, bias = eye.expand(len(mean), 3, 3), zero
    for operation in order.unbind(1):
        step = linear[torch.arange(len(mean), device=mean.device), operation]
        now = (matrix @ mean[:, :, None]).squeeze(2) + bias  # mean colour before this step
        offset = (1 - factors[:, CONTRAST, None]) * (now @ gray.T)
        matrix = step @ matrix
        bias = (step @ bias[:, :, None]).squeeze(2) + torch.where((operation == CONTRAST)[:, None], offset, zero)
    return matrix, bias


def hue_matrix(shift: Tensor) -> Tensor:
    """(B,) part of a full circle -> (B, 3, 3): a rotation of the chroma plane of YIQ, which keeps luma and greys."""
    to_yiq = shift.new_tensor(_YIQ)
    angle = -2 * math.pi * shift  # the I-Q plane turns against the hue circle
    cos, sin = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    rotation = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(-1, 3, 3)
    return shift.new_tensor(_INVERSE_YIQ) @ rotation @ to_yiq


def grayscale(x: Tensor, where: Tensor) -> Tensor:
    """Replace the images at `where` (B,) bool by their grey version in three channels."""
    return torch.where(_column(where), luma(x), x)


def solarize(x: Tensor, threshold: float | Tensor, where: Tensor) -> Tensor:
    """Invert the pixels >= `threshold` of the images at `where` (B,) bool."""
    return torch.where(_column(where) & (x >= threshold), 1 - x, x)


def standardize(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(x - mean) / std, channel by channel."""
    return (x - x.new_tensor(mean).view(3, 1, 1)).div_(x.new_tensor(std).view(3, 1, 1))


def _blend(x: Tensor, factor: Tensor, operation: Tensor) -> Tensor:
    """Brightness, contrast or saturation as `operation` (B,) says, by `factor` (B,)."""
    gray = luma(x)
    other = 1 - factor
    flat = _column(other * (operation == CONTRAST)) * gray.mean((2, 3), keepdim=True)
    per_pixel = _column(other * (operation == SATURATION))
    return (x * _column(factor)).add_(gray.mul_(per_pixel).add_(flat)).clamp_(0, 1)


def _column(value: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1)."""
    return value.view(-1, 1, 1, 1)


_INVERSE_YIQ = torch.linalg.inv(torch.tensor(_YIQ, dtype=torch.float64)).tolist()
