"""Image descriptors for retrieval and copy detection: pooling, several scales, whitening."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.errors import InputError, unknown

SCALES = (1.0, 2**-0.5, 0.5)


def gem(x: Tensor, p: float = 3.0, eps: float = 1e-6) -> Tensor:
    """Generalised mean over places, (mean_i x_i^p)^(1/p): p = 1 is average, p -> inf max pooling.

    Source: Radenovic et al. 2018, "Fine-tuning CNN image retrieval with no human annotation", eq. 3.

    Args:
        x: (B, N, D) features of N places; values below `eps` are raised to it.
        p: the exponent, above 0.

    Returns:
        (B, D).
    """
    if x.ndim != 3 or p <= 0:
        raise InputError(f"gem pools (B, N, D) with p > 0; got {tuple(x.shape)} and p={p}.")
    x = x.clamp_min(eps)
    top = x.amax(dim=1, keepdim=True)  # x / top lies in [0, 1], so no exponent overflows
    return (x / top).pow(p).mean(dim=1).pow(1 / p) * top[:, 0]


def multi_scale(x: Tensor, model: Callable[[Tensor], Tensor], scales: Sequence[float] = SCALES) -> Tensor:
    """Mean of the features at several image scales, L2-normalised (DINO, Caron et al. 2021, copy detection).

    Args:
        x: (B, C, H, W) float.
        model: (B, C, h, w) -> (B, D).
        scales: factors on both sides of the image; bilinear, without antialiasing.

    Returns:
        (B, D), each row of unit length.
    """
    if not scales:
        raise InputError("multi_scale needs at least one scale.")
    features = [
        model(x if s == 1 else F.interpolate(x, scale_factor=s, mode="bilinear", align_corners=False)) for s in scales
    ]
    return F.normalize(torch.stack(features).mean(dim=0), dim=1)


def pca_projection(covariance: Tensor, dim: int, power: float = 0.5) -> Tensor:
    """Rows lambda_i^-power v_i of the `dim` largest eigenvalues, largest first: PCA whitening for power 0.5.

    Eigenvalues below 1e-5 of the largest are raised to that, so noise in empty directions is not blown up.

    Args:
        covariance: (D, D) symmetric.
        dim: rows to keep, 1 .. D.

    Returns:
        (dim, D); the largest entry of each row is positive, which fixes its sign.
    """
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1] or not 1 <= dim <= len(covariance):
        raise InputError(f"PCA keeps 1 .. D of (D, D); got dim={dim} of {tuple(covariance.shape)}.")
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp_min(1e-5 * values.max()).flip(0)[:dim]
    rows = vectors.T.flip(0)[:dim]
    sign = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True)).sign()
    return sign * rows * values.pow(-power)[:, None]


@dataclass(frozen=True)
class Whitening:
    """PCA whitening learned on one set of features and applied to others: `whiten(x)` is (N, D) -> (N, dim)."""

    mean: Tensor
    projection: Tensor

    @classmethod
    def fit(cls, x: Tensor, dim: int | None = None, power: float = 0.5) -> "Whitening":
        """Learn from x (N, D); keeps `dim` directions, all of them by default. Never fit it on queries."""
        if x.ndim != 2 or len(x) < 2 or not bool(x.isfinite().all()):
            raise InputError(f"Whitening needs two or more finite features (N, D); got {tuple(x.shape)}.")
        mean = x.mean(dim=0)
        covariance = (x - mean).T @ (x - mean) / len(x)
        return cls(mean, pca_projection(covariance, dim or x.shape[1], power))

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean) @ self.projection.T


def image_descriptor(
    backbone: nn.Module, x: Tensor, kind: Literal["cls", "mean", "gem", "cls_gem"] = "cls", *, p: float = 4.0
) -> Tensor:
    """One vector an image of a frozen network: (B, 3, H, W) float -> (B, D).

    Args:
        backbone: a network with a feature map (`encoder.dense_features`); "cls" needs our ViT with a class token.
        x: standardised images.
        kind: "cls", the class token; "mean" or "gem", the mean or generalised mean of the patches; "cls_gem", both of
            them side by side (2D values), DINO's descriptor for copy detection (Caron et al. 2021, section 4.1).
        p: exponent of the generalised mean; 4 in DINO's code.
    """
    from sslcourse.evaluate.encoder import dense_features

    if kind not in ("cls", "mean", "gem", "cls_gem"):
        raise unknown("kind of descriptor", kind, ("cls", "mean", "gem", "cls_gem"))
    parts = []
    if kind.startswith("cls"):
        if getattr(backbone, "cls_token", None) is None:
            raise InputError(f"{type(backbone).__name__} has no class token; use kind='mean' or 'gem'.")
        parts.append(backbone.forward_features(x)[:, 0])  # type: ignore[operator]
    if kind != "cls":
        places = dense_features(backbone, x).flatten(2).mT  # (B, N, D)
        parts.append(places.mean(dim=1) if kind == "mean" else gem(places, p))
    return torch.cat(parts, dim=1)
