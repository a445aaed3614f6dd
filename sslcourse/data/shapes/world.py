"""`Shapes`: the embedded world, a data set that needs no download because it is drawn."""

from collections.abc import Iterator, Sequence
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sslcourse.data.corruptions import corrupt
from sslcourse.data.images import Images
from sslcourse.data.rng import mix, step_generator
from sslcourse.data.shapes.captions import PHRASINGS, describe
from sslcourse.data.shapes.clips import Clips, draw_clips
from sslcourse.data.shapes.render import render
from sslcourse.data.shapes.sample import Ints, Parameters, sample
from sslcourse.data.shapes.scene import Scene, Scenes, boxes_of
from sslcourse.data.shapes.sdf import CLASSES
from sslcourse.data.shapes.settings import LABELS, SPLITS, settings
from sslcourse.errors import InputError, unknown

LENGTHS: dict[str, int] = {"train": 10_000, "val": 2_000, "test": 2_000}
Indices = Sequence[int] | Tensor
_CORRUPTION = crc32(b"corruption")
_SPLIT_STRIDE = 1 << 40  # scene numbers of the splits lie apart, so no split can reach another's scenes


class Shapes:
    """Scenes drawn from signed distance functions; `Shapes(split)[i]` is the same scene everywhere and for ever.

    Args:
        split: train, val or test: disjoint ranges of one endless sequence of scenes.
        size: side of the image in pixels.
        seed: another seed is another world.
        preset: a named setting, see `PRESETS`.
        device: where scenes are drawn. Their parameters come from the CPU, so the pixels are the same.
        knobs: fields of `Settings` that replace those of the preset.

    Raises:
        InputError: for an unknown split, preset or knob, or a value that a knob cannot take.

    >>> world = Shapes("train", size=32)
    >>> world.batch([3, 1]).image.shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        split: str = "train",
        size: int = 64,
        seed: int = 0,
        *,
        preset: str = "default",
        device: torch.device | str = "cpu",
        **knobs: Any,
    ) -> None:
        if split not in SPLITS:
            raise unknown("split of Shapes", split, SPLITS)
        if size < 8:
            raise InputError(f"Shapes: an image has at least 8 pixels a side; got size={size}.")
        self.settings = settings(preset, **knobs)
        self.split, self.size, self.seed, self.preset, self.device = split, size, seed, preset, device

    def __len__(self) -> int:
        """How many scenes the split customarily has; the sequence itself has no end, see `batch`."""
        return LENGTHS[self.split]

    @property
    def label_names(self) -> list[str]:
        """The names of the labels."""
        if self.settings.label == "class":
            return list(self.settings.classes)
        return LABELS[self.settings.label]

    def __getitem__(self, i: int) -> Scene:
        if not -len(self) <= i < len(self):
            raise IndexError(f"scene {i} of {len(self)}")
        return self.batch([i % len(self)])[0]

    def __iter__(self) -> Iterator[Scene]:
        return (self[i] for i in range(len(self)))

    def parameters(self, indices: Indices) -> Parameters:
        """What is where in these scenes, before anything is drawn."""
        return sample(self.settings, mix(self.seed), self._scenes(indices))

    def batch(self, indices: Indices) -> Scenes:
        """Many scenes at once, with all labels. `batch([i])[0]` and `self[i]` are equal; any i >= 0 exists."""
        p = self.parameters(indices)
        drawing = render(p, self.size, self.device)
        masks = drawing.masks()
        there = np.arange(p.kind.shape[1]) < p.count[:, None]
        return Scenes(
            image=self._corrupted(drawing.image[:, None], indices)[:, 0],
            index=self._tensor(_numbers(indices)),
            label=self._label(p).to(self.device),
            count=self._tensor(p.count),
            kinds=self._tensor(np.where(there, p.kind, -1)),
            boxes=boxes_of(masks[:, :, 0]),
            alpha=drawing.parts[:, :, 0],
            parts=masks,
            visible=masks[:, :, 0].sum((2, 3)) / drawing.area.clamp(min=1),
            attributes=self._attributes(p, there),
            caption=describe(p),
        )

    def as_images(self, n: int | None = None, start: int = 0) -> Images:
        """Scenes start to start + n (by default the whole split) as images and labels, without masks: fast."""
        return self.images_of(range(start, start + (len(self) if n is None else n)))

    def images_of(self, indices: Indices) -> Images:
        """These scenes as images and labels, without masks."""
        p = self.parameters(indices)
        images = render(p, self.size, self.device, mattes=False).image
        images = self._corrupted(images[:, None], indices)[:, 0]
        return Images(images, self._label(p).to(self.device), self.label_names, "shapes")

    def clips(self, indices: Indices, frames: int = 16) -> Clips:
        """Short videos of these scenes, `frames` frames each, with a motion class and masks for every frame."""
        if frames < 1:
            raise InputError(f"Shapes: a clip has at least one frame; got frames={frames}.")
        p, scenes = self.parameters(indices), self._scenes(indices)
        video, masks, motions = draw_clips(p, mix(self.seed), scenes, frames, self.size, self.device)
        video = self._corrupted(video.transpose(1, 2), indices).transpose(1, 2)
        return Clips(
            video=video,
            index=self._tensor(_numbers(indices)),
            motion=self._tensor(motions[:, 0]),
            label=self._label(p).to(self.device),
            kinds=self._tensor(np.where(motions >= 0, p.kind, -1)),
            motions=self._tensor(motions),
            masks=masks,
            boxes=boxes_of(masks),
        )

    def captions(self, indices: Indices) -> list[list[str]]:
        """Five sentences a scene, as COCO has them; the caption of a `Scene` is one of the five."""
        p = self.parameters(indices)
        return [list(five) for five in zip(*(describe(p, way) for way in range(PHRASINGS)), strict=True)]

    def _scenes(self, indices: Indices) -> Ints:
        """Numbers of the scenes in the one sequence that all splits share."""
        index = _numbers(indices)
        if len(index) == 0 or index.min() < 0 or index.max() >= _SPLIT_STRIDE:
            raise InputError("Shapes: give at least one scene number, and none below 0.")
        return index + SPLITS.index(self.split) * _SPLIT_STRIDE

    def _label(self, p: Parameters) -> Tensor:
        s = self.settings
        values = {
            "class": np.array([s.classes.index(c) if c in s.classes else -1 for c in CLASSES])[p.kind[:, 0]],
            "orientation": np.round(p.angle[:, 0] / (np.pi / 2)).astype(np.int64) % 4,
            "colour": p.colour[:, 0],
            "texture": p.texture[:, 0],
            "background": p.background,
            "domain": p.domain,
        }
        return torch.from_numpy(np.ascontiguousarray(values[s.label]))

    def _attributes(self, p: Parameters, there: NDArray[np.bool_]) -> dict[str, Tensor]:
        """What was drawn, by name; objects that are not there have -1 (whole numbers) or 0."""
        objects = {"colour": p.colour, "texture": p.texture, "x": p.x, "y": p.y, "radius": p.radius, "angle": p.angle}
        values: dict[str, NDArray[Any]] = {
            name: np.where(there, a, -1 if a.dtype == np.int64 else 0.0) for name, a in objects.items()
        }
        values |= {"background": p.background, "ground_colour": p.ground_colour, "domain": p.domain, "word": p.word}
        values |= {"light": np.hypot(p.light[:, 0], p.light[:, 1])}
        values |= {"light_from": np.arctan2(p.light[:, 1], p.light[:, 0])}
        return {name: self._tensor(a.astype(np.float32) if a.dtype == np.float64 else a) for name, a in values.items()}

    def _corrupted(self, images: Tensor, indices: Indices) -> Tensor:
        """Images (B, T, 3, H, W) behind the corruption, with random numbers of their own for every scene."""
        s = self.settings
        if s.corruption is None:
            return images
        out = [
            corrupt(frames, s.corruption, s.severity, step_generator(mix(self.seed, _CORRUPTION), int(scene)))
            for frames, scene in zip(images, self._scenes(indices), strict=True)
        ]
        return torch.stack(out)

    def _tensor(self, a: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(a)).to(self.device)


def _numbers(indices: Indices) -> Ints:
    numbers = indices.cpu().numpy() if isinstance(indices, Tensor) else indices
    return np.asarray(numbers, dtype=np.int64).reshape(-1)
