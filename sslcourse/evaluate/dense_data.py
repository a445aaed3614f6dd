"""Images with one number a pixel: class maps, depth, from the embedded world and from packs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.data.images import Images
from sslcourse.data.rng import step_generator
from sslcourse.data.zips import CocoPack, DavisPack
from sslcourse.errors import InputError

IGNORE = 255


@dataclass(frozen=True)
class DenseData:
    """Images with a target for every pixel.

    Attributes:
        images: (N, 3, H, W) uint8.
        target: (N, H, W) int64 classes, `IGNORE` where there is none; or float values, NaN where there is none.
        classes: names of the classes; empty for values.
        name: what to call the set in tables.
    """

    images: Tensor
    target: Tensor
    classes: list[str]
    name: str

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or len(self.images) == 0:
            raise InputError(f"DenseData needs (N, 3, H, W) uint8 images; got {tuple(self.images.shape)}.")
        if self.target.shape != (len(self.images), *self.images.shape[2:]):
            raise InputError(
                f"DenseData needs a target of the images' size; got {tuple(self.images.shape)} and "
                f"{tuple(self.target.shape)}."
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def as_images(self) -> Images:
        """The images alone."""
        return Images(self.images, torch.full((len(self),), -1), [], self.name)


def shapes_classes(split: str, n: int, size: int = 64, *, preset: str = "multi", seed: int = 0) -> DenseData:
    """Scenes of `Shapes` with the class of every pixel: 0 is the background, 1 + k the class k."""
    from sslcourse.data.shapes import CLASSES, Shapes

    scenes = Shapes(split, size, seed, preset=preset).batch(range(n))
    target = torch.zeros(n, size, size, dtype=torch.long)
    for k in range(scenes.kinds.shape[1]):
        target = torch.where(scenes.masks[:, k], scenes.kinds[:, k, None, None] + 1, target)
    return DenseData(scenes.image, target, ["background", *CLASSES], "shapes")


def shapes_depth(split: str, n: int, size: int = 64, *, preset: str = "multi", seed: int = 0) -> DenseData:
    """Scenes of several objects with their occlusion depth: 0 on the nearest object, 1 on the farthest.

    Pixels of the background have no depth, nor have scenes of one object: telling objects from ground is no depth.
    """
    from sslcourse.data.shapes import Shapes

    scenes = Shapes(split, size, seed, preset=preset).batch(range(n))
    target = torch.full((n, size, size), torch.nan)
    steps = (scenes.count - 1).float()[:, None, None]
    for k in range(scenes.kinds.shape[1]):
        depth = torch.where(steps > 0, k / steps.clamp_min(1), torch.nan)
        target = torch.where(scenes.masks[:, k], depth, target)
    return DenseData(scenes.image, target, [], "shapes depth")


def coco_classes(pack: CocoPack, size: int = 96, *, n_classes: int = 8) -> DenseData:
    """COCO images that have a mask, squashed to one size, with the `n_classes` categories found in most images.

    All other categories and unlabelled pixels are ignored.
    """
    images, maps = [], []
    for i in pack.with_masks:
        item = pack[i]
        images.append(squash(item.image, size))
        maps.append(_nearest(item.class_map(), size))
    found = torch.stack(maps)
    present = torch.stack([torch.bincount(m.flatten(), minlength=256) > 0 for m in found]).sum(dim=0)
    present[0] = 0  # unlabelled
    chosen = present.sort(descending=True, stable=True).indices[: min(n_classes, int((present > 0).sum()))]
    lookup = torch.full((256,), IGNORE)
    lookup[chosen] = torch.arange(len(chosen))
    return DenseData(torch.stack(images), lookup[found], [pack.categories[int(c)] for c in chosen], "coco")


def davis_foreground(pack: DavisPack, clips: Sequence[str], size: int = 96) -> DenseData:
    """Frames of DAVIS clips, squashed to one size: 0 is the background, 1 the object."""
    images, maps = [], []
    for name in clips:
        clip = pack[name]
        images += [squash(frame, size) for frame in clip.video.unbind(1)]
        maps += [_nearest(mask.to(torch.uint8), size) for mask in clip.masks]
    return DenseData(torch.stack(images), torch.stack(maps), ["background", "object"], "davis")


def split_rows(n: int, share: float = 0.3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Positions for training and for testing, drawn with `seed`; at least one each."""
    if n < 2:
        raise InputError(f"Two parts need two images or more; got {n}.")
    order = torch.randperm(n, generator=step_generator(seed, 0))
    n_test = min(max(1, round(share * n)), n - 1)
    return order[n_test:].sort().values, order[:n_test].sort().values


def rows(data: DenseData, index: Tensor) -> DenseData:
    """The images at `index`."""
    return DenseData(data.images[index], data.target[index], data.classes, data.name)


def squash(image: Tensor, size: int) -> Tensor:
    """(3, H, W) uint8 -> (3, size, size) uint8, both sides resized."""
    small = F.interpolate(image[None].float(), (size, size), mode="bilinear", antialias=True)[0]
    return small.round().clamp(0, 255).to(torch.uint8)


def _nearest(values: Tensor, size: int) -> Tensor:
    return F.interpolate(values[None, None].float(), (size, size), mode="nearest-exact")[0, 0].long()
