"""Images made of two images: mixup, CutMix, and a foreground pasted onto another background (DiLo)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError, unknown


def beta_share(alpha: float, *shape: int, generator: torch.Generator) -> Tensor:
    """Draws (`shape`) of Beta(alpha, alpha), the share of one of two Gamma draws: the lam of mixup and CutMix."""
    gamma = torch._standard_gamma(torch.full((2, *shape), alpha), generator=generator)
    return gamma[0] / gamma.sum(dim=0).clamp_min(1e-12)


def mixup_cutmix(
    x: Tensor,
    y: Tensor,
    lam: Tensor | float,
    perm: Tensor,
    mode: Literal["mixup", "cutmix"] = "mixup",
    *,
    center: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mix every image, and its label, with another image of the batch.

    "mixup" (Zhang et al. 2018, Eq. 1): lam * x + (1 - lam) * x[perm]. "cutmix" (Yun et al. 2019, Eq. 1 and 2): a box of
    sides sqrt(1 - lam) of the image's is replaced by that of x[perm]; what sticks out of the image is cut off, and lam
    becomes the share of pixels that stayed.

    Args:
        x: (B, C, H, W) float.
        y: (B, K) float class probabilities.
        lam: (B,) or a number in [0, 1], the share of the image itself; drawn from Beta(alpha, alpha) in the papers.
        perm: (B,) int64, the partner of every image.
        mode: which of the two.
        center: (B, 2) float in [0, 1], where the box of cutmix lies (y, x); None for the middle.

    Returns:
        the mixed images and labels, with the shapes of `x` and `y`.
    """
    if x.ndim != 4 or y.ndim != 2 or len(y) != len(x) or perm.shape != x.shape[:1] or not y.is_floating_point():
        raise InputError(
            f"mixup_cutmix needs x (B, C, H, W), float labels (B, K) and perm (B,); got {tuple(x.shape)}, {y.dtype} "
            f"{tuple(y.shape)} and {tuple(perm.shape)}."
        )
    if mode not in ("mixup", "cutmix"):
        raise unknown("mode", mode, ["mixup", "cutmix"])
    lam = torch.as_tensor(lam, dtype=x.dtype, device=x.device).expand(len(x))
    if bool(((lam < 0) | (lam > 1)).any()):
        raise InputError("mixup_cutmix needs lam in [0, 1].")
    if mode == "mixup":
        keep = lam[:, None, None, None]
    else:
        keep = ~_box(x, (1 - lam).sqrt(), center)
        lam = keep.to(x.dtype).mean(dim=(1, 2, 3))
        keep = keep.to(x.dtype)
    share = lam[:, None].to(y.dtype)
    return keep * x + (1 - keep) * x[perm], share * y + (1 - share) * y[perm]


def dilo_paste(fg: Tensor, sal: Tensor, bg: Tensor, thr: float = 0.2) -> tuple[Tensor, Tensor]:
    """Cut the salient object out of an image and paste it onto a background (DiLo, Zhao et al. 2021, Section 3.3).

    Args:
        fg: (B, C, H, W) float images with the object.
        sal: (B, 1, h, w) float saliency in any range and at any size; brought to [0, 1] in every image, and to H x W.
        bg: (B, C, H, W) float backgrounds.
        thr: saliency below it is background; above it stays soft, so that the object's edge blends in. In [0, 1).

    Returns:
        img: (B, C, H, W), alpha * fg + (1 - alpha) * bg.
        mask: (B, 1, H, W), alpha in [0, 1]; 0 everywhere for an image whose saliency is the same everywhere.
    """
    if fg.shape != bg.shape or fg.ndim != 4 or sal.ndim != 4 or sal.shape[:2] != (len(fg), 1) or not 0 <= thr < 1:
        raise InputError(
            f"dilo_paste needs fg and bg (B, C, H, W), sal (B, 1, h, w) and thr in [0, 1); got {tuple(fg.shape)}, "
            f"{tuple(bg.shape)}, {tuple(sal.shape)} and {thr}."
        )
    low, high = sal.amin(dim=(2, 3), keepdim=True), sal.amax(dim=(2, 3), keepdim=True)
    alpha = (sal - low) / (high - low).clamp_min(1e-8)
    if alpha.shape[2:] != fg.shape[2:]:
        alpha = F.interpolate(alpha, fg.shape[2:], mode="bilinear", align_corners=False)
    alpha = (alpha * (alpha >= thr)).to(fg.dtype)
    return alpha * fg + (1 - alpha) * bg, alpha


def _box(x: Tensor, side: Tensor, center: Tensor | None) -> Tensor:
    """(B, 1, H, W) bool, True in a box of `side` (B,) of the image's sides around `center`, cut off at the edges."""
    center = torch.full((len(x), 2), 0.5) if center is None else center
    inside = torch.ones(len(x), 1, 1, 1, dtype=torch.bool, device=x.device)
    for axis in (0, 1):
        length = x.shape[2 + axis]
        half = (side * length).floor() / 2
        middle = center[:, axis].to(x.device, x.dtype) * length
        pixel = torch.arange(length, device=x.device) + 0.5
        along = ((pixel - middle[:, None]).abs() < half[:, None])[:, None]
        inside = inside & (along[:, :, :, None] if axis == 0 else along[:, :, None, :])
    return inside
