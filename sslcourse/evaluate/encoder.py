"""A frozen network with the view it was trained on: what protocols take that need more than one vector an image."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import MEAN, STD, Triple
from sslcourse.errors import InputError
from sslcourse.evaluate.features import extract_features, frozen


@dataclass(frozen=True)
class Encoder:
    """Frozen features of images, as vectors or as maps.

    Attributes:
        backbone: (B, 3, H, W) float -> (B, D); for maps see `dense_features`.
        size: side of the view for vectors; None keeps the shorter side of the images.
        mean, std: standardisation the backbone was trained with.
        device: where to compute; where the backbone is by default.
        batch_size: images in one forward pass.
    """

    backbone: nn.Module
    size: int | None = None
    mean: Triple = MEAN
    std: Triple = STD
    device: torch.device | str | None = None
    batch_size: int = 256

    @cached_property
    def view(self) -> dict[str, Any]:
        """The arguments of `extract_features`."""
        return {
            "size": self.size,
            "mean": self.mean,
            "std": self.std,
            "device": self.device,
            "batch_size": self.batch_size,
        }

    @property
    def where(self) -> torch.device:
        """The device that features are computed on."""
        parameter = next(self.backbone.parameters(), None)
        return torch.device(self.device or ("cpu" if parameter is None else parameter.device))

    def __call__(self, data: Any) -> Tensor:
        """(N, D) features of `Images`, or of (N, 3, H, W) uint8."""
        return extract_features(self.backbone, data, **self.view)

    def vectors(self, views: Tensor) -> Tensor:
        """(N, D) features of (N, 3, H, W) float views that are standardised already, on the CPU."""
        self.backbone.to(self.where)
        with frozen(self.backbone), torch.inference_mode():
            parts = [self.backbone(x.to(self.where)).float().cpu() for x in views.split(self.batch_size)]
        return torch.cat(parts).clone()

    def maps(self, images: Tensor) -> Tensor:
        """(N, D, h, w) features of (N, 3, H, W) uint8 images at their own size, on the CPU.

        A ViT sees them at the nearest size that its patches fill.
        """
        return torch.cat([m.cpu() for m in self._batches(images, lambda x: dense_features(self.backbone, x))])

    def clips(self, video: Tensor) -> Tensor:
        """(B, D) features of clips (B, 3, T, H, W) uint8 by a backbone that takes whole clips (`forward_clip`)."""
        mean, std = (torch.tensor(v, device=self.where).view(3, 1, 1, 1) for v in (self.mean, self.std))
        self.backbone.to(self.where)
        with frozen(self.backbone), torch.inference_mode():
            parts = [self.backbone.forward_clip((x.to(self.where).float() / 255 - mean) / std) for x in video.split(16)]  # type: ignore[operator]
        return torch.cat(parts).float().cpu().clone()

    def attention(self, images: Tensor) -> Tensor:
        """(N, heads, h, w) attention of the class token to the patches in the last block, on the CPU."""
        return torch.cat([m.cpu() for m in self._batches(images, lambda x: class_attention(self.backbone, x))])

    def _batches(self, images: Tensor, function: Callable[[Tensor], Tensor]) -> list[Tensor]:
        if images.ndim != 4 or images.dtype != torch.uint8 or len(images) == 0:
            raise InputError(f"Feature maps need (N, 3, H, W) uint8 images; got {images.dtype} {tuple(images.shape)}.")
        device = self.where
        self.backbone.to(device)
        images = resize_to_multiple(images, patch_side(self.backbone))
        mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (self.mean, self.std))
        with frozen(self.backbone), torch.inference_mode():
            return [
                function((x.to(device).float() / 255 - mean) / std).float().clone()
                for x in images.split(self.batch_size)
            ]


def dense_features(backbone: Any, x: Tensor) -> Tensor:
    """The last feature map of a backbone, before pooling: (B, 3, H, W) -> (B, D, h, w).

    Takes a backbone with `forward_map` (the `ConvNet`), our `ViT` and timm's networks, whose tokens become a grid.

    Raises:
        InputError: a backbone that gives no map.
    """
    if hasattr(backbone, "forward_map"):
        return backbone.forward_map(x)
    out = backbone.forward_features(x) if hasattr(backbone, "forward_features") else None
    if isinstance(out, Tensor) and out.ndim == 4:
        return out
    if isinstance(out, Tensor) and out.ndim == 3 and hasattr(backbone, "patch_embed"):
        h, w = _grid(backbone, x)
        tokens = out[:, out.shape[1] - h * w :]  # CLS and registers come first
        return tokens.transpose(1, 2).unflatten(2, (h, w))
    raise InputError(f"{type(backbone).__name__} has no feature map: it lacks forward_map and forward_features.")


def class_attention(backbone: Any, x: Tensor) -> Tensor:
    """Attention of the class token to every patch in the last block: (B, 3, H, W) -> (B, heads, h, w).

    Where the mean of the patches stands for the image in its place (`pool="mean"`), the mean of theirs: a mean of
    tokens looks where they look on average.

    Raises:
        InputError: a backbone that is no ViT with a class token.
    """
    if not hasattr(backbone, "get_last_attention") or getattr(backbone, "cls_token", None) is None:
        raise InputError(f"{type(backbone).__name__} has no class token that attends to patches; take a ViT with one.")
    h, w = _grid(backbone, x)
    attention = backbone.get_last_attention(x)
    looks = attention[:, :, -h * w :].mean(dim=2) if getattr(backbone, "pool", "") == "mean" else attention[:, :, 0]
    return looks[..., -h * w :].unflatten(2, (h, w))


def patch_side(backbone: nn.Module) -> int | tuple[int, int]:
    """Side in pixels, or (height, width), of a ViT's patches; 1 for a network without."""
    return getattr(getattr(backbone, "patch_embed", None), "patch_size", 1)


def resize_to_multiple(images: Tensor, multiple: int | tuple[int, int]) -> Tensor:
    """(N, 3, H, W) uint8 whose sides are brought to the nearest multiple, as a ViT's patches need."""
    each = (multiple, multiple) if isinstance(multiple, int) else multiple
    height, width = (max(m, round(s / m) * m) for s, m in zip(images.shape[-2:], each, strict=True))
    if (height, width) == tuple(images.shape[-2:]):
        return images
    resized = F.interpolate(images.float(), (height, width), mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)


def _grid(backbone: Any, x: Tensor) -> tuple[int, int]:
    patch = patch_side(backbone)
    ph, pw = (patch, patch) if isinstance(patch, int) else patch
    return x.shape[-2] // ph, x.shape[-1] // pw
