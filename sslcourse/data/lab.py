"""Colour as lightness and two opponent axes (CIE Lab), and colour as a choice among bins (Zhang et al. 2016).

Lightness L tells what a grey photograph tells; a (green to red) and b (blue to yellow) are what colorization predicts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError

# sRGB (D65) to XYZ, IEC 61966-2-1; the white point is that of equal red, green and blue.
_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)


def rgb_to_lab(x: Tensor) -> Tensor:
    """sRGB in [0, 1] to CIE Lab, as scikit-image's `rgb2lab`: (B, 3, H, W) -> L in [0, 100], a and b about +-100."""
    linear = torch.where(x > 0.04045, ((x.clamp_min(0) + 0.055) / 1.055).pow(2.4), x / 12.92)
    xyz = torch.einsum("ij,bjhw->bihw", x.new_tensor(_TO_XYZ), linear) / x.new_tensor(_WHITE).view(3, 1, 1)
    f = torch.where(xyz > 0.008856, xyz.clamp_min(1e-8).pow(1 / 3), 7.787 * xyz + 16 / 116)
    fx, fy, fz = f.unbind(1)
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """The inverse of `rgb_to_lab`, clamped to the colours that sRGB has: (B, 3, H, W) -> [0, 1]."""
    light, a, b = lab.unbind(1)
    fy = (light + 16) / 116
    f = torch.stack([fy + a / 500, fy, fy - b / 200], dim=1)
    xyz = torch.where(f > 0.2068966, f.pow(3), (f - 16 / 116) / 7.787) * lab.new_tensor(_WHITE).view(3, 1, 1)
    linear = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(lab.new_tensor(_TO_XYZ)), xyz)
    rgb = torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(1e-8).pow(1 / 2.4) - 0.055, 12.92 * linear)
    return rgb.clamp(0, 1)


def ab_bins(step: float = 10.0) -> Tensor:
    """Centres of the squares of side `step` in the ab plane that hold a colour of sRGB: (Q, 2).

    The paper's side is 10 and its list has 313 bins; 259 of the squares hold a colour that a screen can show.
    """
    level = torch.linspace(0, 1, 33)
    cube = torch.stack(torch.meshgrid(level, level, level, indexing="ij")).flatten(1)
    ab = rgb_to_lab(cube[None, :, None])[0, 1:, 0].T
    return (ab / step).round().unique(dim=0) * step


def color_soft_encode(ab: Tensor, bins: Tensor, k: int = 5, sigma: float = 5.0) -> Tensor:
    """Colours as distributions over bins: the k nearest ones, weighted by a Gaussian (Zhang et al. 2016, Section 2.2).

    Args:
        ab: (..., 2) float.
        bins: (Q, 2) float, centres.
        k: how many bins share a colour, 1 <= k <= Q.
        sigma: standard deviation of the Gaussian, in the unit of ab, > 0.

    Returns:
        (..., Q), each row non-negative with sum 1.
    """
    if ab.shape[-1] != 2 or bins.ndim != 2 or bins.shape[1] != 2 or not 1 <= k <= len(bins) or not sigma > 0:
        raise InputError(
            f"color_soft_encode needs ab (..., 2), bins (Q, 2), 1 <= k <= Q and sigma > 0; got {tuple(ab.shape)}, "
            f"{tuple(bins.shape)}, {k} and {sigma}."
        )
    distance, nearest = torch.cdist(ab.reshape(-1, 2), bins).topk(k, dim=1, largest=False)
    weights = torch.softmax(-distance.pow(2) / (2 * sigma**2), dim=1)  # a far-off colour does not underflow to 0 / 0
    return (
        torch.zeros(len(distance), len(bins), device=ab.device, dtype=ab.dtype)
        .scatter_(1, nearest, weights)
        .reshape(*ab.shape[:-1], len(bins))
    )


def annealed_mean(logits: Tensor, bins: Tensor, T: float = 0.38) -> Tensor:
    """A colour out of a predicted distribution: its mean after sharpening by T (Zhang et al. 2016, Eq. 5).

    T = 1 is the mean, spatially smooth but dull; T -> 0 the mode, vivid but patchy.

    Args:
        logits: (..., Q) float.
        bins: (Q, 2) float, centres.
        T: temperature, > 0.

    Returns:
        (..., 2).
    """
    if logits.shape[-1] != len(bins) or not T > 0:
        raise InputError(f"annealed_mean needs logits (..., {len(bins)}) and T > 0; got {tuple(logits.shape)}, T={T}.")
    return (logits / T).softmax(dim=-1) @ bins


def rebalance(prior: Tensor, lam: float = 0.5) -> Tensor:
    """Weights that make rare colours count (Zhang et al. 2016, Eq. 4): (Q,) shares of the bins -> (Q,).

    Proportional to 1 / ((1 - lam) prior + lam / Q), with mean 1 under the shares, so that grey, which most pixels are,
    does not drown the rest.
    """
    prior = F.normalize(prior, p=1, dim=0)
    w = 1 / ((1 - lam) * prior + lam / len(prior))
    return w / (prior * w).sum()
