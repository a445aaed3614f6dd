"""Archives that carry more than one label an image: COCO with masks and captions, DAVIS clips with masks.

Both are zip files with a `meta.json` (book/data-format.md). `as_images` makes plain `Images` of either.
"""

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sslcourse.data.decode import Source, checked_size, common_size, decode, to_rgb
from sslcourse.data.images import Images
from sslcourse.data.packs import MAX_IMAGE, check_archive
from sslcourse.data.subset import first_n
from sslcourse.errors import InputError, unknown


class Archive:
    """An open zip with a `meta.json`; an entry is read when asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            check_archive(path, MAX_IMAGE)
            self._zip = zipfile.ZipFile(path)
            self.meta = json.loads(self._zip.read("meta.json"))
        except InputError:
            raise
        except KeyError as error:
            raise InputError(f"{path} has no meta.json; unpack it if it holds a folder of images.") from error
        except Exception as error:  # BadZipFile, zlib.error, JSONDecodeError, OSError ...
            raise InputError(f"{path} cannot be read as an image archive ({error}).") from error

    def open(self, entry: str) -> Image.Image:
        """The image in `entry`, opened but not decoded."""
        return Image.open(io.BytesIO(self._zip.read(entry)))

    def rgb(self, entry: str) -> Tensor:
        """The image in `entry`, (3, H, W) uint8."""
        return torch.from_numpy(np.array(to_rgb(self._image(entry)))).permute(2, 0, 1)

    def grey(self, entry: str) -> Tensor:
        """The one-channel image in `entry` with its values untouched, (H, W) uint8."""
        return torch.from_numpy(np.array(self._image(entry), dtype=np.uint8))

    def _image(self, entry: str) -> Image.Image:
        try:
            image = self.open(entry)
            image.load()
        except Exception as error:  # a missing entry, or whatever a broken file makes a decoder raise
            raise InputError(f"{self.path}: cannot read its entry {entry} ({error}).") from error
        return image


@dataclass(frozen=True)
class Segment:
    """One segment of a COCO mask. `idx` is its value in the mask; `box` is (x, y, width, height) in pixels."""

    idx: int
    category: str
    category_id: int
    is_thing: bool
    is_crowd: bool
    area: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class CocoImage:
    """One COCO image at its own size.

    Attributes:
        image: (3, H, W) uint8.
        mask: (H, W) uint8, 0 = unlabelled, v = the segment with `idx` v; None where the image has no mask.
        segments: what the values of the mask mean.
        captions: five sentences or none.
        id, license: COCO's image id and licence number (the names are in `CocoPack.licenses`).
        kind: "panoptic" (things and stuff), "instances" (things only) or None.
    """

    image: Tensor
    mask: Tensor | None
    segments: list[Segment]
    captions: list[str]
    id: int
    license: int
    kind: str | None

    def instance_masks(self) -> Tensor:
        """(S, H, W) bool, one mask a segment in the order of `segments`."""
        values = torch.tensor([segment.idx for segment in self.segments], dtype=torch.uint8)
        return self._checked_mask() == values[:, None, None]

    def class_map(self) -> Tensor:
        """(H, W) uint8: COCO's category id of every pixel, 0 = unlabelled."""
        category = torch.zeros(256, dtype=torch.uint8)
        for segment in self.segments:
            category[segment.idx] = segment.category_id
        return category[self._checked_mask().long()]

    def _checked_mask(self) -> Tensor:
        if self.mask is None:
            raise InputError(f"COCO image {self.id} has no mask; take one of CocoPack.with_masks.")
        return self.mask


class CocoPack:
    """COCO images with masks, segments and captions: `pack[i]` is a `CocoImage`.

    Attributes:
        name: the archive's name.
        categories: COCO category id -> name.
        licenses: licence number -> [name, address].
        with_masks: positions of the images that have a mask.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive, self.name = archive, archive.path.stem
        try:
            self._records = [_coco_record(record) for record in archive.meta["images"]]
            self.categories = {int(k): str(v["name"]) for k, v in archive.meta["categories"].items()}
            self.licenses: dict[int, list[str]] = {int(k): v for k, v in archive.meta.get("licenses", {}).items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{archive.path}: its meta.json is not that of a COCO pack ({error!r}).") from error
        self.with_masks = [i for i, record in enumerate(self._records) if record["mask"]]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> CocoImage:
        record = dict(self._records[i])
        image, mask = self._archive.rgb(record.pop("image")), record.pop("mask")
        return CocoImage(image=image, mask=self._archive.grey(mask) if mask else None, **record)

    def __iter__(self) -> Iterator[CocoImage]:
        return (self[i] for i in range(len(self)))

    def pairs(self) -> list[tuple[int, str]]:
        """(position, caption) for every caption of every image."""
        return [(i, caption) for i, record in enumerate(self._records) for caption in record["captions"]]

    def as_images(self, size: int | None = None, *, n: int | None = None, seed: int = 0) -> Images:
        """All images at one size with their captions, without labels, for pre-training; `size` and `n` as in `load`.

        Where one of the images has no caption, none of them keeps its own.
        """
        entries = [record["image"] for record in self._records]
        images = _as_images(self._archive, self.name, entries, torch.full((len(self),), -1), [], size, n, seed)
        index = first_n(torch.full((len(self),), -1), n, seed, self.name)
        captions = [self._records[i]["captions"] for i in index.tolist()]
        return replace(images, captions=captions if all(captions) else [])


def _coco_record(record: dict[str, Any]) -> dict[str, Any]:
    """The fields of `CocoImage`, with entry names for image and mask."""
    segments = [
        Segment(
            idx=int(s["idx"]),
            category=str(s["category"]),
            category_id=int(s["category_id"]),
            is_thing=bool(s["isthing"]),
            is_crowd=bool(s["iscrowd"]),
            area=int(s["area"]),
            box=tuple(int(v) for v in s["bbox"]),  # type: ignore[arg-type]
        )
        for s in record.get("segments", [])
    ]
    return {
        "image": str(record["image"]),
        "mask": record.get("mask"),
        "segments": segments,
        "captions": [str(caption) for caption in record.get("captions", [])],
        "id": int(record["id"]),
        "license": int(record["license"]),
        "kind": record.get("kind"),
    }


@dataclass(frozen=True)
class Clip:
    """A video with a mask a frame: video (3, T, H, W) uint8, masks (T, H, W) bool, as the clips of `Shapes`."""

    name: str
    video: Tensor
    masks: Tensor


class DavisPack:
    """DAVIS clips with one foreground mask a frame: `pack[i]` or `pack["blackswan"]` is a `Clip`.

    Attributes:
        name: the archive's name.
        clips: clip names, sorted.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive, self.name = archive, archive.path.stem
        try:
            self._frames = {
                clip: [f"{clip}/{frame['frame']}" for frame in meta["frames"]]
                for clip, meta in sorted(archive.meta.items())
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{archive.path}: its meta.json is not that of a DAVIS pack ({error!r}).") from error
        self.clips = list(self._frames)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, clip: int | str) -> Clip:
        name = self.clips[clip] if isinstance(clip, int) else clip
        if name not in self._frames:
            raise unknown("clip", name, self.clips)
        frames = [self._archive.rgb(f"{frame}.jpg") for frame in self._frames[name]]
        masks = [self._archive.grey(f"{frame}.png") > 127 for frame in self._frames[name]]
        if len({(*frame.shape[1:],) for frame in frames} | {(*mask.shape,) for mask in masks}) != 1:
            raise InputError(f"{self._archive.path}: frames and masks of the clip {name} differ in size.")
        return Clip(name, torch.stack(frames, dim=1), torch.stack(masks))

    def __iter__(self) -> Iterator[Clip]:
        return (self[i] for i in range(len(self)))

    def as_images(self, size: int | None = None, *, n: int | None = None, seed: int = 0) -> Images:
        """All frames at one size, labelled with their clip; `size` and `n` as in `load`."""
        entries = [f"{frame}.jpg" for frames in self._frames.values() for frame in frames]
        labels = torch.repeat_interleave(torch.tensor([len(frames) for frames in self._frames.values()]))
        return _as_images(self._archive, self.name, entries, labels, self.clips, size, n, seed)


def _as_images(
    archive: Archive,
    name: str,
    entries: list[str],
    labels: Tensor,
    classes: list[str],
    size: int | None,
    n: int | None,
    seed: int,
) -> Images:
    source = Source(name, labels, classes, lambda i: archive.open(entries[i]), entries)
    index = first_n(labels, n, seed, name)
    return decode(source, index, checked_size(size) or common_size(source, index))


def open_zip(path: str | Path) -> CocoPack | DavisPack:
    """Open `coco.zip` or `davis.zip`, told apart by their meta.json.

    Raises:
        InputError: where it is no such archive, is damaged, or has an entry of implausible size.
    """
    archive = Archive(Path(path))
    if isinstance(archive.meta, dict) and {"images", "categories"} <= archive.meta.keys():
        return CocoPack(archive)
    return DavisPack(archive)
