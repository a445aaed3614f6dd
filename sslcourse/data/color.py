"""Colour operations on a batch of images, each image with its own parameters.

Every function takes images (B, 3, H, W) float in [0, 1] and one number an image, and gives what
`torchvision.transforms.v2.functional` gives for that image and that number. `color_jitter` chains the four operations
in an order of its own for every image; `color_jitter_fast` is its affine approximation. A compiled graph has no branch
on data, and nothing selects pixel by pixel with `torch.where`, which on a CPU costs more than thirty additions.
"""

import math

import torch
from torch import Tensor

GRAY = (0.2989, 0.587, 0.114)  # ITU-R BT.601 luma, rounded as torchvision and PIL round it
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # the numbers that stand in `order`

# RGB -> YIQ (NTSC, with the grey weights above) and back; a rotation of the I-Q plane turns the hue, keeps the luma.
TO_YIQ = ((0.2989, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
FROM_YIQ = torch.linalg.inv(torch.tensor(TO_YIQ, dtype=torch.float64)).tolist()


def luma(x: Tensor) -> Tensor:
    """Grey value of every pixel, (B, 3, H, W) -> (B, 1, H, W)."""
    return torch.matmul(x.new_tensor(GRAY), x.flatten(2)).view(len(x), 1, *x.shape[2:])


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
    +-(1 + (g + b - r - min) / C) / 6, negative where g < b. A channel of the result is
    min + C * clamp(2 - 6 d, 0, 1), with d the distance on the circle from the hue to the channel's own: 0, 1/3, 2/3.
    """
    r, g, b = x.unbind(1)
    high = torch.maximum(r, g).clamp_(min=b)
    low = torch.minimum(r, g).clamp_(max=b)
    chroma = high.sub_(low)
    six = -6 * chroma
    turn = (r + low).sub_(g).sub_(b).div_(six.clamp(max=-1e-12)).add_(1 / 6)  # grey: any hue will do, its chroma is 0
    turn = torch.copysign(turn, g - b).add_(shift.to(x.dtype).view(-1, 1, 1))
    turn = turn.sub_(turn.floor()).unsqueeze(1)  # in [0, 1), so only red, at both ends of it, sees that it is a circle
    distance = (turn - x.new_tensor([1 / 2, 1 / 3, 2 / 3]).view(3, 1, 1)).abs_()
    distance[:, 0].neg_().add_(1 / 2)
    return distance.clamp_(1 / 6, 1 / 3).mul_(six.unsqueeze(1)).add_(low.add_(chroma, alpha=2).unsqueeze(1))


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
    return jitter_by_plan(x.clone(), jitter_plan(factors, order))


def jitter_plan(factors: Tensor, order: Tensor) -> Tensor:
    """What `jitter_by_plan` does, (B, 7, 3): three blends, the hue shift (in the first place of its row), three blends.

    A blend is (factor of the pixel, of the mean grey, of the grey); (1, 0, 0) is no change.
    """
    hue_at = (order == HUE).int().argmax(1, keepdim=True)
    step = torch.arange(3, device=order.device)
    operation = order.gather(1, step + (step >= hue_at))  # the three blends in order
    f = factors.gather(1, operation)
    blends = torch.stack([f, (1 - f) * (operation == CONTRAST), (1 - f) * (operation == SATURATION)], 2)
    nothing = blends.new_tensor([1.0, 0.0, 0.0])
    early = (step < hue_at)[:, :, None]
    hue = torch.stack([factors[:, HUE]] * 3, 1)[:, None]
    return torch.cat([torch.where(early, blends, nothing), hue, torch.where(early, nothing, blends)], 1)


def jitter_by_plan(x: Tensor, plan: Tensor) -> Tensor:
    """`color_jitter` by its plan; overwrites `x`."""
    plan = plan.to(x.dtype)
    asked = plan[:, :, 0] != plan.new_tensor([1, 1, 1, 0, 1, 1, 1])
    for i, needed in enumerate(needs(asked)):
        if needed:
            x = adjust_hue(x, plan[:, i, 0]) if i == 3 else _blend_(x, *plan[:, i].unbind(1))
    return x


def color_jitter_fast(x: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """`color_jitter` as one affine map of colour an image, the hue turned in YIQ, one clamp at the end.

    Differs from `color_jitter` where a step on the way would have clamped, and in what a hue shift keeps: YIQ keeps the
    luma, HSV the maximum of the channels, which for a saturated colour is far from the same. Arguments as there.
    """
    return color_map(x, jitter_map(factors, order))


def jitter_map(factors: Tensor, order: Tensor, gray: Tensor | None = None) -> Tensor:
    """The affine map of `color_jitter_fast`, (B, 2, 3, 3): P and Q of colour -> P colour + Q (mean colour).

    `gray` (B,) bool: grayscale after the jitter.
    """
    eye = torch.eye(3, dtype=factors.dtype, device=factors.device)
    to_gray = factors.new_tensor(GRAY).expand(3, 3)  # every channel becomes the grey value
    f = factors[:, :3, None, None]
    blend = (1 - f) * to_gray
    steps = torch.stack([f[:, 0] * eye, f[:, 1] * eye, f[:, 2] * eye + blend[:, 2], hue_matrix(factors[:, HUE])], 1)
    nothing = torch.zeros_like(steps[:, 0])
    pixel, mean = nothing + eye, nothing
    for operation in order.unbind(1):
        step = steps[torch.arange(len(steps), device=steps.device), operation]
        contrast = (operation == CONTRAST)[:, None, None]
        pixel, mean = step @ pixel, step @ mean + torch.where(contrast, blend[:, 1] @ (pixel + mean), nothing)
    whole = torch.stack([pixel, mean], 1)
    return whole if gray is None else torch.where(gray[:, None, None, None], to_gray @ whole, whole)


def hue_matrix(shift: Tensor) -> Tensor:
    """Turns hue by `shift` (B,) of a full circle: (B, 3, 3), a rotation of the chroma plane of YIQ that keeps greys."""
    angle = -2 * math.pi * shift  # I-Q turns against the circle of hue
    cos, sin = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    rotation = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(-1, 3, 3)
    return shift.new_tensor(FROM_YIQ) @ rotation @ shift.new_tensor(TO_YIQ)


def color_map(x: Tensor, maps: Tensor) -> Tensor:
    """Apply `jitter_map` to x (B, 3, H, W) and clamp to [0, 1]."""
    maps = maps.to(x.dtype)
    bias = maps[:, 1] @ x.mean((2, 3)).unsqueeze(2)
    return torch.baddbmm(bias, maps[:, 0], x.flatten(2)).view(x.shape).clamp_(0, 1)


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
