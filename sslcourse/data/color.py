"""Colour operations on a batch of images, each image with its own parameters.

Every function takes images (B, 3, H, W) float in [0, 1] and one number an image, and gives what
`torchvision.transforms.v2.functional` gives for that image and that number. `color_jitter` chains the four operations
in an order of its own for every image. Nothing branches on data, so the whole file compiles to one graph; and nothing
selects pixel by pixel with `torch.where`, which on a CPU costs more than thirty additions.
"""

import torch
from torch import Tensor

GRAY = (0.2989, 0.587, 0.114)  # ITU-R BT.601 luma, rounded as torchvision and PIL round it
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # the numbers that stand in `order`


def luma(x: Tensor) -> Tensor:
    """Grey value of every pixel, (B, 3, H, W) -> (B, 1, H, W)."""
    r, g, b = x.split(1, 1)
    return (r * GRAY[0]).add_(g, alpha=GRAY[1]).add_(b, alpha=GRAY[2])


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
    return (x * f).add_(luma(x).mul_(1 - f)).clamp_(0, 1)


def adjust_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` (B,) of a full circle, in [-0.5, 0.5]; saturation and value (HSV) stay.

    The round trip RGB -> HSV -> RGB with its middle left out. With C = max - min, the hue in turns is
    +-(1 + (g + b - r - min) / C) / 6, negative where g < b; and with a hue t in [0, 1), green is
    min + C * clamp(2 - 6 |t - 1/3|, 0, 1), blue the same around 2/3, red the opposite around 1/2.
    """
    r, g, b = x.unbind(1)
    high = torch.maximum(torch.maximum(r, g), b)
    low = torch.minimum(torch.minimum(r, g), b)
    chroma = high.sub_(low)
    six = 6 * chroma
    turn = (g + b).sub_(r).sub_(low).div_(six.clamp(min=1e-12)).add_(1 / 6)  # grey: any hue will do, its chroma is 0
    turn = torch.copysign(turn, g - b).add_(shift.to(x.dtype).view(-1, 1, 1))
    turn = turn.sub_(turn.floor())

    def near(center: float) -> Tensor:
        return (turn - center).abs_().clamp_(1 / 6, 1 / 3)

    red = torch.addcmul(low - chroma, six, near(1 / 2))
    top = low.add_(chroma, alpha=2)
    return torch.stack([red, top.addcmul(six, near(1 / 3), value=-1), top.addcmul(six, near(2 / 3), value=-1)], 1)


def color_jitter(x: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, in an order of its own for every image; each step clamps to [0, 1].

    Args:
        x: (B, 3, H, W) float in [0, 1].
        factors: (B, 4), the factors of brightness, contrast, saturation, and the hue shift; (1, 1, 1, 0) is no change.
        order: (B, 4) int64, a permutation of 0..3 in every row: the operation to do first, second, ...

    The first three are one blend, clamp(f * x + (1 - f) * (0 | mean grey | grey)). So a row that reads "blend, hue,
    blend, blend" is three blends before a hue shift and three after it, with those not due at f = 1: six cheap
    operations and one dear one for the whole batch, whatever the orders, instead of four dear ones.
    """
    factors = factors.to(x.dtype)
    hue_at = (order == HUE).int().argmax(1, keepdim=True)
    step = torch.arange(3, device=x.device)
    operation = order.gather(1, step + (step >= hue_at)).repeat(1, 2)  # the blends in order; before hue, after hue
    due = torch.cat([step < hue_at, step >= hue_at], 1)
    f = torch.where(due, factors.gather(1, operation), 1.0)
    flat, gray = (1 - f) * (operation == CONTRAST), (1 - f) * (operation == SATURATION)
    x = x.clone()
    for i, needed in enumerate(needs(f != 1)):
        if i == 3 and needs(factors[:, HUE:] != 0)[0]:
            x = adjust_hue(x, factors[:, HUE])
        if needed:
            _blend_(x, f[:, i], flat[:, i], gray[:, i])
    return x


def needs(mask: Tensor) -> list[bool]:
    """For each column of `mask` (B, K) whether an image asks for it, so that what nobody needs can be left out.

    Only an eager CPU can look without waiting; a GPU and a compiled graph are told True and run everything.
    """
    if mask.device.type != "cpu" or torch.compiler.is_compiling():
        return [True] * mask.shape[1]
    return mask.any(0).tolist()


def grayscale(x: Tensor, where: Tensor) -> Tensor:
    """Replace the images at `where` (B,) bool by their grey version in three channels."""
    gray = _column(where).to(x.dtype)
    return (x * (1 - gray)).add_(luma(x).mul_(gray))


def solarize(x: Tensor, threshold: float, where: Tensor) -> Tensor:
    """Invert the pixels >= `threshold` of the images at `where` (B,) bool."""
    invert = x.clone().ge_(threshold).mul_(_column(where))  # 1 or 0
    return torch.addcmul(x, invert, 1 - 2 * x)


def standardize(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(x - mean) / std, channel by channel."""
    return (x - x.new_tensor(mean).view(3, 1, 1)).div_(x.new_tensor(std).view(3, 1, 1))


def _blend_(x: Tensor, factor: Tensor, flat: Tensor, gray: Tensor) -> Tensor:
    """In place: clamp(factor * x + flat * (mean grey) + gray * grey), every coefficient (B,)."""
    other = luma(x)
    mean = other.mean((2, 3), keepdim=True)
    other.mul_(_column(gray)).add_(mean.mul_(_column(flat)))
    return x.mul_(_column(factor)).add_(other).clamp_(0, 1)


def _column(value: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1)."""
    return value.view(-1, 1, 1, 1)
