"""`Shapes`: the embedded world, a data set that needs no download because it is drawn."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcourse.data.images import Images
from sslcourse.data.rng import mix
from sslcourse.data.shapes.captions import describe
from sslcourse.data.shapes.render import render
from sslcourse.data.shapes.sample import Parameters, sample
from sslcourse.data.shapes.scene import Scene, Scenes, boxes_of
from sslcourse.data.shapes.settings import LABELS, SPLITS, settings
from sslcourse.errors import InputError, unknown

LENGTHS: dict[str, int] = {"train": 10_000, "val": 2_000, "test": 2_000}
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

    def parameters(self, indices: Sequence[int] | Tensor) -> Parameters:
        """What is where in these scenes, before anything is drawn."""
        index = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(index) == 0 or index.min() < 0 or index.max() >= _SPLIT_STRIDE:
            raise InputError("Shapes: give at least one scene number, none below 0.")
        return sample(self.settings, mix(self.seed), index + SPLITS.index(self.split) * _SPLIT_STRIDE)

    def batch(self, indices: Sequence[int] | Tensor) -> Scenes:
        """Many scenes at once, with all labels. `batch([i])[0]` and `self[i]` are equal; any i >= 0 exists."""
        p = self.parameters(indices)
        drawing = render(p, self.size, self.device)
        assert drawing.parts is not None
        parts = drawing.parts >= 0.5
        present = torch.from_numpy(np.arange(p.kind.shape[1]) < p.count[:, None]).to(self.device)
        own = torch.from_numpy(p.radius).to(self.device)
        return Scenes(
            image=self._finish(drawing.image, indices),
            index=torch.as_tensor(indices).reshape(-1),
            label=self._label(p).to(self.device),
            count=torch.from_numpy(p.count).to(self.device),
            kinds=torch.from_numpy(p.kind).to(self.device).masked_fill(~present, -1),
            boxes=boxes_of(parts[:, :, 0]),
            alpha=drawing.parts[:, :, 0],
            parts=parts,
            visible=present.float() * own,
            attributes={},
            caption=describe(p),
        )

    def as_images(self, n: int | None = None, start: int = 0) -> Images:
        """Scenes start to start + n (by default the whole split) as images and labels, without masks: fast."""
        p = self.parameters(np.arange(start, start + (len(self) if n is None else n)))
        images = render(p, self.size, self.device, mattes=False).image
        return Images(self._finish(images, range(start, start + len(p))), self._label(p), self.label_names, "shapes")

    def _label(self, p: Parameters) -> Tensor:
        s = self.settings
        if s.label == "class":
            return torch.from_numpy(_index_in(s.classes, LABELS["class"])[p.kind[:, 0]])
        if s.label == "orientation":
            return torch.from_numpy(np.round(p.angle[:, 0] / (np.pi / 2)).astype(np.int64) % 4)
        values = {"colour": p.colour[:, 0], "texture": p.texture[:, 0], "background": p.background, "domain": p.domain}
        return torch.from_numpy(values[s.label])

    def _finish(self, images: Tensor, indices: Any) -> Tensor:
        return images


def _index_in(chosen: tuple[str, ...], known: list[str]) -> np.ndarray:
    return np.array([chosen.index(name) if name in chosen else -1 for name in known])
