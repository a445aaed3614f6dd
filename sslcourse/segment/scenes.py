"""Scenes of `Shapes` with the masks of all their objects and parts, packed for training and evaluation.

No two objects overlap, and the parts of an object (whole, emblem, dot) are nested. So one map of whole numbers holds
all masks of a scene: 0 is background, 1 + 3 k + p is the innermost part p of object k.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sslcourse.data.images import Batch, batch_indices
from sslcourse.data.shapes import PARTS, Scenes, Shapes

N_PARTS = len(PARTS)
_AT_ONCE = 64  # scenes that are drawn together


def part_map(parts: Tensor) -> Tensor:
    """Masks (..., K, 3, H, W) bool to the map of the innermost part: (..., H, W) uint8."""
    inside = parts.to(torch.uint8)
    # An emblem reaches beyond its object where a nearer object hides the object's edge only by rounding.
    depth = inside[..., 0, :, :] * (1 + inside[..., 1, :, :] * (1 + inside[..., 2, :, :]))
    first = torch.arange(parts.shape[-4], dtype=torch.uint8, device=parts.device)[:, None, None] * N_PARTS
    return ((first + depth) * (depth > 0)).amax(dim=-3)


def part_mask(ids: Tensor, which: Tensor) -> Tensor:
    """The masks of parts: maps (..., H, W) uint8, parts (...) int64 as 3 k + p -> (..., H, W) bool."""
    first, last = 1 + which, 1 + which // N_PARTS * N_PARTS + N_PARTS - 1
    return (ids >= first[..., None, None]) & (ids <= last[..., None, None])


@dataclass(frozen=True)
class SceneMasks:
    """N scenes as the training loop takes them: channels red, green, blue and the map of the parts.

    Attributes:
        images: (N, 4, H, W) uint8.
        n_objects: the most objects a scene has.
    """

    images: Tensor
    n_objects: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice | Tensor) -> "SceneMasks":
        return SceneMasks(self.images[index], self.n_objects)

    @property
    def size(self) -> int:
        """Side in pixels."""
        return int(self.images.shape[-1])

    def to(self, device: torch.device | str) -> "SceneMasks":
        """The same scenes on `device`."""
        return SceneMasks(self.images.to(device), self.n_objects)

    def batches(self, batch_size: int, *, device: torch.device | str | None = None, **order: Any) -> Iterator[Batch]:
        """Yield (images, labels, indices) as `Images.batches`; scenes have no label (-1)."""
        for index in batch_indices(len(self), batch_size, **order):
            images = self.images[index.to(self.images.device)]
            yield images if device is None else images.to(device), torch.full_like(index, -1), index

    def objects(self, part: int, min_area: int = 1) -> tuple[Tensor, Tensor]:
        """All masks of a part, 0 whole, 1 emblem or 2 dot, of at least `min_area` pixels.

        Returns:
            scene (M,) int64 of each, masks (M, H, W) bool.
        """
        which = torch.arange(self.n_objects) * N_PARTS + part
        scenes, masks = [], []
        for i, ids in enumerate(self.images[:, 3]):
            found = part_mask(ids.expand(len(which), -1, -1), which.to(ids.device))
            found = found[found.flatten(1).sum(dim=1) >= min_area]
            scenes.append(torch.full((len(found),), i))
            masks.append(found)
        return torch.cat(scenes), torch.cat(masks)


def pack_scenes(scenes: Scenes) -> Tensor:
    """(B, 4, H, W) uint8: the image and the map of its parts."""
    return torch.cat([scenes.image, part_map(scenes.parts)[:, None]], dim=1)


def draw_scenes(
    n: int,
    split: str = "train",
    size: int = 128,
    presets: Sequence[str] = ("captions",),
    *,
    start: int = 0,
    **knobs: Any,
) -> SceneMasks:
    """`n` scenes of one or several presets of `Shapes`, in turn; the same ones for ever."""
    worlds = [Shapes(split, size, preset=preset, **knobs) for preset in presets]
    share = -(-n // len(worlds))
    last = start + share
    drawn = [
        torch.cat([pack_scenes(world.batch(range(i, min(i + _AT_ONCE, last)))) for i in range(start, last, _AT_ONCE)])
        for world in worlds
    ]
    mixed = torch.stack(drawn, dim=1).flatten(0, 1)[:n]
    return SceneMasks(mixed, max(world.settings.objects[1] for world in worlds))
