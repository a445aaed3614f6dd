"""The models that can be loaded by name: how each is built, how its official file is read, where it is published."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from sslcourse.nn.patches import interpolate_pos
from sslcourse.nn.vit import SIZES, ViT
from sslcourse.zoo import readers
from sslcourse.zoo.readers import State


@dataclass(frozen=True)
class Entry:
    """One published checkpoint.

    Attributes:
        build: image_size -> the untrained model.
        read: (tensors of the file, model) -> tensors under the model's names.
        published: project page and file, for people.
        megabytes: size of the file.
        image_size: side in pixels it was trained at.
        mean, std: what its inputs are standardised with.
        wrapped_in: keys that may wrap the tensors in the file, outermost first; a key that is absent is passed over.
    """

    build: Callable[[int], nn.Module]
    read: Callable[[State, Any], State]
    published: str
    megabytes: int
    image_size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    wrapped_in: tuple[str, ...] = ()


def _timm_vit(size: str, image_size: int) -> ViT:
    dim, depth, n_heads = SIZES[size]
    resize = partial(interpolate_pos, antialias=True)  # timm's way
    return ViT(image_size, 16, dim=dim, depth=depth, n_heads=n_heads, interpolate=resize)


def _timm_entry(size: str, megabytes: int) -> Entry:
    return Entry(
        build=partial(_timm_vit, size),
        read=readers.timm_vit,
        published=f"timm's Hugging Face page, vit_{size}_patch16_224.augreg_in21k_ft_in1k, model.safetensors",
        megabytes=megabytes,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


ENTRIES: dict[str, Entry] = {
    "timm_vit_tiny_patch16": _timm_entry("tiny", 23),
    "timm_vit_small_patch16": _timm_entry("small", 88),
    "timm_vit_base_patch16": _timm_entry("base", 346),
    "timm_vit_large_patch16": _timm_entry("large", 1217),
}
