"""What a protocol is run on: one source of data, and the labels of every kind that it has.

The embedded world has all of them. A set of labelled images has classes; COCO and DAVIS archives have masks and boxes.
Whatever a source lacks is said in one sentence, and whoever tests on what they train on is warned.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from sslcourse.data.images import Images
from sslcourse.data.load import zip_in
from sslcourse.data.zips import Clip, CocoPack, DavisPack, open_zip
from sslcourse.errors import InputError
from sslcourse.evaluate import dense_data
from sslcourse.evaluate.dense_data import DenseData
from sslcourse.evaluate.leakage import LeakageWarning, warn_of_leakage

SCENES = (400, 200)  # scenes of the embedded world for training and testing dense protocols
CLIPS = (400, 200)  # clips of it for training and testing recognition
FOLLOWED = 20  # clips whose objects are followed
EDITED = 100  # originals of copy detection


@dataclass(frozen=True)
class Task:
    """Where images come from, and how many.

    Attributes:
        source: name or path of the data; "shapes" is the embedded world.
        classes: () -> (train, test) `Images` with labels.
        side: side in pixels of images with dense labels, see `whole_side`.
        n_train, n_test: so many images; None is all of them, or what the protocol takes of an endless world.
        seed: of every choice.
    """

    source: str
    classes: Callable[[], tuple[Images, Images]]
    side: int = 64
    n_train: int | None = None
    n_test: int | None = None
    seed: int = 0

    @cached_property
    def labelled(self) -> tuple[Images, Images]:
        """Training and test images with one label each."""
        train, test = self.classes()
        _guard(train, test)
        return train, test

    @cached_property
    def resident(self) -> tuple[Images, Images]:
        """The labelled images, for protocols that change their pixels: held in memory, not streamed."""
        train, test = self.labelled
        if not isinstance(train, Images) or not isinstance(test, Images):
            raise InputError(f"{self.source} is too large to be held in memory; take --n-train and --n-test of it.")
        return train, test

    @property
    def is_world(self) -> bool:
        """Whether this is the embedded world."""
        return self.source == "shapes"

    @cached_property
    def pack(self) -> CocoPack | DavisPack | None:
        """The opened archive; None where the source is none."""
        path = Path(self.source).expanduser()
        archive = zip_in(path) if not self.is_world and path.exists() else None
        return open_zip(archive) if archive else None

    def scenes(self) -> tuple[int, int]:
        """How many scenes of the embedded world to train and to test on."""
        return self.n_train or SCENES[0], self.n_test or SCENES[1]

    def photos(self) -> Images:
        """Images without labels: the test split, or all of an archive."""
        if self.pack is not None:
            return self.pack.as_images(self.side, n=self.n_test, seed=self.seed)
        return self.resident[1]

    def others(self) -> Images | None:
        """Images to learn a whitening from, other than `photos`; None where there are none."""
        return None if self.pack is not None else self.labelled[0]

    @cached_property
    def maps(self) -> tuple[DenseData, DenseData]:
        """Class maps for training and for testing."""
        train, test = self._maps()
        _guard(train.images, test.images)
        return train, test

    def _maps(self) -> tuple[DenseData, DenseData]:
        if self.is_world:
            n, m = self.scenes()
            options: dict[str, Any] = {"size": self.side, "seed": self.seed}
            return dense_data.shapes_classes("train", n, **options), dense_data.shapes_classes("test", m, **options)
        if isinstance(self.pack, CocoPack):
            data = dense_data.coco_classes(self.pack, self.side)
            train, test = dense_data.split_rows(len(data), seed=self.seed)
            return dense_data.rows(data, train), dense_data.rows(data, test)
        if isinstance(self.pack, DavisPack):
            # Whole clips are held out: frames of one clip are nearly the same image.
            train, test = dense_data.split_rows(len(self.pack), seed=self.seed)
            parts = ([self.pack.clips[int(i)] for i in index] for index in (train, test))
            a, b = (dense_data.davis_foreground(self.pack, part, self.side) for part in parts)
            return a, b
        raise self._lacks("a class for every pixel", "shapes, coco.zip or davis.zip")

    @cached_property
    def depths(self) -> tuple[DenseData, DenseData]:
        """Occlusion depth for training and for testing."""
        if not self.is_world:
            raise self._lacks("depth", "shapes")
        n, m = self.scenes()
        options: dict[str, Any] = {"size": self.side, "seed": self.seed}
        train, test = (dense_data.shapes_depth(s, k, **options) for s, k in (("train", n), ("test", m)))
        _guard(train.images, test.images)
        return train, test

    @cached_property
    def objects(self) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) uint8 images and the (N, H, W) bool mask of the object in each."""
        if self.is_world:
            from sslcourse.data.shapes import Shapes

            scenes = Shapes("test", self.side, self.seed).batch(range(self.scenes()[1]))
            return scenes.image, scenes.masks.any(dim=1)
        if isinstance(self.pack, DavisPack):
            data = dense_data.davis_foreground(self.pack, self.pack.clips, self.side)
            return data.images, data.target == 1
        raise self._lacks("a mask of the object", "shapes or davis.zip")

    @cached_property
    def followed(self) -> list[Clip]:
        """Clips whose objects have a mask in every frame."""
        if self.is_world:
            from sslcourse.data.shapes import Shapes

            world = Shapes("test", self.side, self.seed, preset="multi")
            clips = world.clips(range(self.n_test or FOLLOWED), frames=8)
            return [Clip(f"scene {i}", clips.video[i], clips.masks[i]) for i in range(len(clips))]
        if isinstance(self.pack, DavisPack):
            return list(self.pack)
        raise self._lacks("clips with masks", "shapes or davis.zip")

    @cached_property
    def boxes(self) -> tuple[Any, Any]:
        """Images with boxes for training and for testing."""
        from sslcourse.evaluate.detection import coco_boxes, shapes_boxes

        if self.is_world:
            sizes = zip(("train", "test"), self.scenes(), strict=True)
            train, test = (shapes_boxes(split, n, self.side, seed=self.seed) for split, n in sizes)
        elif isinstance(self.pack, CocoPack):
            data = coco_boxes(self.pack, self.side)
            train, test = (data.rows(index) for index in dense_data.split_rows(len(data), seed=self.seed))
        else:
            raise self._lacks("boxes", "shapes or coco.zip")
        _guard(train.images, test.images)
        return train, test

    @cached_property
    def clips(self) -> tuple[Any, Any]:
        """Clips of one moving object for training and for testing."""
        if not self.is_world:
            raise self._lacks("clips whose motion is labelled", "shapes")
        from sslcourse.evaluate.actions import shapes_clips

        sizes = (("train", self.n_train or CLIPS[0]), ("test", self.n_test or CLIPS[1]))
        train, test = (shapes_clips(split, n, self.side, seed=self.seed) for split, n in sizes)
        _guard(train.video, test.video)
        return train, test

    @cached_property
    def untrimmed(self) -> tuple[Any, Any]:
        """The clips, each somewhere in a longer still one."""
        from sslcourse.evaluate.actions import untrimmed

        train, test = self.clips
        return untrimmed(train, seed=self.seed), untrimmed(test, seed=self.seed + 1)

    @cached_property
    def shifted(self) -> tuple[Images, Images, Images]:
        """Photo-like scenes for training and testing, and the same test scenes as sketches."""
        if not self.is_world:
            raise self._lacks("another domain", "shapes")
        from sslcourse.data.shapes import Shapes

        n, m = self.n_train or 2000, self.n_test or 1000
        made = [("train", "default", n), ("test", "default", m), ("test", "sketch", m)]
        train, test, sketch = (Shapes(s, self.side, self.seed, preset=p).as_images(k) for s, p, k in made)
        _guard(train, test)
        _guard(train, sketch)
        return train, test, Images(sketch.images, sketch.labels, sketch.classes, "sketch")

    def _lacks(self, what: str, which: str) -> InputError:
        return InputError(f"{self.source} does not have {what}; name data that does with --data: {which}.")


def _guard(train: Any, test: Any) -> None:
    """Warn, every time, of test images (or clips) that are in the training set."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", LeakageWarning)
        warn_of_leakage(train, test)


def whole_side(view: int, least: int, patch: int = 16) -> int:
    """A side for dense protocols: at least `least` and the view, a multiple of 16, or of a patch that 16 is none of."""
    step = 16 if 16 % patch == 0 else patch
    return -(-max(view, least) // step) * step
