"""The images a command works on: which, how many, at what size; and whether they can be evaluated on."""

import sys
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from sslcourse.data.load import is_world, load_images
from sslcourse.errors import InputError


@dataclass(frozen=True)
class Data:
    """What `load_images` is asked for.

    Attributes:
        name: a dataset, a folder or a pack.
        size: side in pixels, None for the loader's choice.
        n_train, n_test: class-balanced samples of so many images; None for all.
    """

    name: str
    size: int | None = None
    n_train: int | None = None
    n_test: int | None = None

    def load(self, split: str) -> Any:
        """`Images` or `ImageStream` of "train" or "test"."""
        return _load(self.name, split, self.size, self.n_train if split == "train" else self.n_test)

    def labelled_pair(self, train: Any = None) -> tuple[Any, Any]:
        """The labelled images of the train split (of `train`, where it is loaded already) and of the test split.

        Raises:
            InputError: no test split, or no labels.
        """
        pair = (self.load("train") if train is None else train, self.load("test"))
        for images, split in zip(pair, ("train", "test"), strict=True):
            if not bool((images.labels >= 0).any()):
                raise InputError(f"{self.name} has no labels in its {split} split, and an evaluation needs them.")
        train, test = (part if bool((part.labels >= 0).all()) else part.subset(part.labels >= 0) for part in pair)
        return train, test

    def labelled_pair_or_none(self, train: Any) -> tuple[Any, Any] | None:
        """As `labelled_pair`; None, with a note on standard error, where the data cannot be evaluated on."""
        try:
            return self.labelled_pair(train)
        except InputError as error:
            print(f"sslcourse: training without kNN evaluation: {error}", file=sys.stderr)
            return None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class ClipData(Data):
    """What `load_clips` is asked for, for methods that take clips: `frames` of them, `stride` apart."""

    frames: int = 16
    stride: int = 1

    def load(self, split: str) -> Any:
        """`ClipSet` of "train" or "test"."""
        from sslcourse.data.clips import load_clips

        n = self.n_train if split == "train" else self.n_test
        return load_clips(self.name, split, size=self.size or 64, frames=self.frames, stride=self.stride, n=n)

    def labelled_pair_or_none(self, train: Any) -> tuple[Any, Any] | None:
        """None: kNN of clips is `evaluate`'s `action_recognition`."""
        return None


def data_for(config: Any, name: str, size: int | None, n_train: int | None, n_test: int | None) -> Data:
    """The data of a method with this config: images, or clips for one with `frames` and `stride`."""
    view = config.augment.size
    if hasattr(config, "frames"):
        side = size or (view if name == "shapes" else view * 8 // 7)
        return ClipData(name, side, n_train, n_test, config.frames, config.stride)
    return Data(name, size or source_size(name, view), n_train, n_test)


@lru_cache(maxsize=2)  # the two splits: `compare` asks for them once a run
def _load(name: str, split: str, size: int | None, n: int | None) -> Any:
    return load_images(name, split, size=size, n=n)


def source_size(name: str, view: int) -> int | None:
    """The side to load images at for views of `view` pixels.

    `Shapes` are drawn at the size of the view. Small views take images as they are; large ones are cut from images an
    eighth larger, as 224 from 256.
    """
    if is_world(name):
        return view
    return None if view <= 64 else view * 8 // 7
