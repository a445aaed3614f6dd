"""Common corruptions at five severities, for any batch of images: how much does a model lose when pixels go bad?

The list follows ImageNet-C (Hendrycks & Dietterich 2019, "Benchmarking neural network robustness to common corruptions
and perturbations"). Lengths (blur, motion, blocks) are shares of the image side, so a severity means the same at 32 and
at 224 pixels; strengths of noise, contrast and brightness are those of the paper or near them.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, pad

from sslcourse.data.color import adjust_saturation
from sslcourse.data.resample import gaussian_blur as blur
from sslcourse.errors import InputError, unknown

Levels = tuple[float, float, float, float, float]


def corrupt(x: Tensor, kind: str, severity: int, generator: torch.Generator | None = None) -> Tensor:
    """Corrupt every image of a batch.

    Args:
        x: (B, C, H, W) uint8, or float in [0, 1]; 3 channels for saturate and jpeg.
        kind: a key of `CORRUPTIONS`.
        severity: 1 (mild) to 5 (severe).
        generator: a CPU generator, for the kinds in `RANDOM`; the others need none.

    Returns:
        The corrupted batch: shape, type and device of `x`.

    Raises:
        InputError: for an unknown kind, another severity, pixels out of range or a missing generator.
    """
    if kind not in CORRUPTIONS:
        raise unknown("corruption", kind, CORRUPTIONS)
    if severity not in (1, 2, 3, 4, 5):
        raise InputError(f"corrupt: severity is one of 1, 2, 3, 4, 5; got {severity}.")
    if x.ndim != 4 or (x.dtype != torch.uint8 and not x.is_floating_point()):
        raise InputError(f"corrupt takes (B, C, H, W) uint8, or float in [0, 1]; got {x.dtype} {tuple(x.shape)}.")
    if x.is_floating_point() and len(x) and not (x.min() >= 0 and x.max() <= 1):
        raise InputError("corrupt: float images lie in [0, 1]; corrupt them before they are standardised.")
    if kind in RANDOM and generator is None:
        raise InputError(f"corrupt: '{kind}' is random; pass generator=torch.Generator().manual_seed(0).")
    function, levels = CORRUPTIONS[kind]
    pixels = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    out = function(pixels, levels[severity - 1], generator or torch.Generator()).clamp(0, 1)
    return (out * 255).round().to(torch.uint8) if x.dtype == torch.uint8 else out.to(x.dtype)


def gaussian_noise(x: Tensor, sigma: float, g: torch.Generator) -> Tensor:
    """Sensor noise: a normal number with standard deviation `sigma` on every value."""
    return x + sigma * torch.randn(x.shape, generator=g).to(x.device)


def shot_noise(x: Tensor, photons: float, g: torch.Generator) -> Tensor:
    """Few photons: each value is a Poisson count, with `photons` expected where the image is white."""
    return (torch.poisson(x.cpu() * photons, generator=g) / photons).to(x.device)


def impulse_noise(x: Tensor, share: float, g: torch.Generator) -> Tensor:
    """Salt and pepper: a share of the values turns 0 or 1."""
    u = torch.rand(x.shape, generator=g).to(x.device)
    return torch.where(u < share / 2, 0.0, torch.where(u < share, 1.0, x))


def gaussian_blur(x: Tensor, sigma: float, _: torch.Generator) -> Tensor:
    """Out of focus: a Gaussian with a standard deviation of `sigma` image sides."""
    side = min(x.shape[-2:])
    width = 2 * min(max(1, round(3 * sigma * side)), side - 1) + 1
    return blur(x, torch.full((len(x),), sigma * side, device=x.device), width)


def motion_blur(x: Tensor, length: float, g: torch.Generator) -> Tensor:
    """The camera moved: the mean along a line of `length` image sides, in a random direction for every image."""
    turn = torch.rand(len(x), generator=g) * torch.pi
    taps = max(3, 2 * round(length * max(x.shape[-2:]) / 2) + 1)
    theta = torch.eye(2, 3).repeat(len(x), 1, 1)
    out = torch.zeros_like(x)
    for t in torch.linspace(-length, length, taps).tolist():
        theta[:, 0, 2], theta[:, 1, 2] = t * turn.cos(), t * turn.sin()
        grid = torch.nn.functional.affine_grid(theta, list(x.shape), align_corners=False).to(x.device)
        out += grid_sample(x, grid, padding_mode="border", align_corners=False)
    return out / taps


def pixelate(x: Tensor, share: float, _: torch.Generator) -> Tensor:
    """Too few pixels: shrunk to `share` of the side by block means, then blown up without smoothing."""
    h, w = x.shape[-2:]
    small = interpolate(x, (max(1, round(h * share)), max(1, round(w * share))), mode="area")
    return interpolate(small, (h, w), mode="nearest-exact")


def contrast(x: Tensor, factor: float, _: torch.Generator) -> Tensor:
    """Washed out: every value moves towards the image's mean colour."""
    mean = x.mean((-2, -1), keepdim=True)
    return mean + (x - mean) * factor


def brightness(x: Tensor, shift: float, _: torch.Generator) -> Tensor:
    """Overexposed: `shift` is added to every value."""
    return x + shift


def haze(x: Tensor, strength: float, g: torch.Generator) -> Tensor:
    """Fog: white light in soft clouds, denser in some places than in others."""
    density = torch.zeros(len(x), 1, *x.shape[-2:], device=x.device)
    for n, weight in ((3, 0.6), (6, 0.4)):
        knots = torch.rand(len(x), 1, n, n, generator=g).to(x.device)
        density += weight * interpolate(knots, x.shape[-2:], mode="bicubic", align_corners=True)
    fog = strength * (0.5 + density).clamp(0, 1.4)
    return x + (1 - x) * fog.clamp(0, 1)


def saturate(x: Tensor, factor: float, _: torch.Generator) -> Tensor:
    """Garish: colours move away from grey."""
    return adjust_saturation(x, torch.full((len(x),), factor, device=x.device))


def jpeg(x: Tensor, quality: float, _: torch.Generator) -> Tensor:
    """Compressed: the loss of JPEG (ITU-T T.81), rounded 8 x 8 cosine coefficients, without colour subsampling."""
    h, w = x.shape[-2:]
    rgb = pad(x * 255, (0, -w % 8, 0, -h % 8), mode="replicate")
    to_ycc = torch.tensor(_YCC, device=x.device)
    middle = torch.tensor([128.0, 0, 0], device=x.device)[
        :, None, None
    ]  # chroma is stored with 128 added, luma without
    ycc = torch.einsum("rc,bchw->brhw", to_ycc, rgb).round() - middle
    blocks = ycc.unfold(2, 8, 8).unfold(3, 8, 8)  # (B, 3, h/8, w/8, 8, 8)
    k = torch.arange(8, dtype=torch.float32, device=x.device)
    cosine = torch.cos((2 * k + 1) * k[:, None] * torch.pi / 16) * 0.5
    cosine[0] *= 0.5**0.5
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    table = torch.tensor([_LUMA, _CHROMA, _CHROMA], device=x.device).view(3, 1, 1, 8, 8)
    step = ((table * scale + 50) / 100).floor().clamp(1, 255)
    blocks = cosine.T @ ((cosine @ blocks @ cosine.T / step).round() * step) @ cosine
    ycc = (blocks.transpose(3, 4).flatten(4).flatten(2, 3) + middle).round()
    return (torch.einsum("rc,bchw->brhw", torch.linalg.inv(to_ycc), ycc) / 255)[..., :h, :w]


# RGB to luma and two chroma differences (JFIF, from ITU-R BT.601), and T.81's example tables of quantisation steps.
_YCC = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
_LUMA: list[float] = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
]  # fmt: skip
_CHROMA: list[float] = [
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99, *[99] * 32,
]  # fmt: skip

# kind -> (function, what it is given at severity 1 to 5)
CORRUPTIONS: dict[str, tuple[Callable[[Tensor, float, torch.Generator], Tensor], Levels]] = {
    "gaussian_noise": (gaussian_noise, (0.04, 0.08, 0.13, 0.20, 0.30)),
    "shot_noise": (shot_noise, (60, 25, 12, 5, 3)),
    "impulse_noise": (impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "gaussian_blur": (gaussian_blur, (0.012, 0.02, 0.03, 0.045, 0.065)),
    "motion_blur": (motion_blur, (0.06, 0.10, 0.15, 0.21, 0.28)),
    "pixelate": (pixelate, (0.8, 0.5, 0.4, 0.3, 0.2)),
    "contrast": (contrast, (0.6, 0.45, 0.3, 0.2, 0.1)),
    "brightness": (brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "haze": (haze, (0.25, 0.4, 0.55, 0.7, 0.8)),
    "saturate": (saturate, (1.6, 2.5, 4.0, 8.0, 16.0)),
    "jpeg": (jpeg, (25, 18, 15, 10, 7)),
}
RANDOM: frozenset[str] = frozenset({"gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "haze"})
