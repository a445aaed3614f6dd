"""Folders of images: class sub-folders or flat, with or without train/ and test/ above them."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sslcourse.data.decode import Source
from sslcourse.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "val", "valid", "validation")  # the first that exists is the test split


@dataclass(frozen=True)
class Folder:
    """The images under a folder, listed in a fixed order.

    Attributes:
        source: the images, not decoded.
        is_test: (N,) bool, or None where the folder has no train/ and test/ sub-folders.
    """

    source: Source
    is_test: Tensor | None


def read_folder(path: Path) -> Folder:
    """List the images of a folder: FOLDER/CLASS/*, FOLDER/* or either below FOLDER/train and FOLDER/test (or val).

    An image that lies in no class folder has label -1. Hidden files are passed over.

    Raises:
        InputError: where there is no image.
    """
    train, test = _first(path, TRAIN_NAMES), _first(path, TEST_NAMES)
    parts = [(train, False), (test, True)] if train and test else [(train or path, False)]
    found = [(file, name, is_test) for part, is_test in parts if part for file, name in _images_by_class(part)]
    if not found:
        raise InputError(f"{path} holds no images; looked for {', '.join(SUFFIXES[:4])} ... in it and its sub-folders.")
    classes = sorted({name for _, name, _ in found if name is not None})
    number = {name: k for k, name in enumerate(classes)}
    labels = torch.tensor([-1 if name is None else number[name] for _, name, _ in found])
    files = [str(file) for file, _, _ in found]
    source = Source(path.resolve().name, labels, classes, partial(open_file, files), files)
    return Folder(source, torch.tensor([is_test for *_, is_test in found]) if len(parts) == 2 else None)


def open_file(files: list[str], i: int) -> Image.Image:
    """Open image file `i` (a module-level function, so that DataLoader workers can be sent it)."""
    return Image.open(files[i])


def _first(path: Path, names: tuple[str, ...]) -> Path | None:
    return next((path / name for name in names if (path / name).is_dir()), None)


def _images_by_class(path: Path) -> list[tuple[Path, str | None]]:
    """(file, class) for images in `path` (class None) and anywhere below each of its sub-folders, sorted."""
    try:
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"cannot read the folder {path}: {error.strerror}.") from error
    found: list[tuple[Path, str | None]] = [(entry, None) for entry in entries if is_image(entry)]
    for folder in (entry for entry in entries if entry.is_dir()):
        found += [(file, folder.name) for file in _walk(folder)]
    return found


def _walk(folder: Path) -> list[Path]:
    files = [Path(top) / name for top, _, names in os.walk(folder) for name in names]
    return sorted(file for file in files if is_image(file))


def is_image(file: Path) -> bool:
    """Whether a file is an image by its suffix, and not hidden."""
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
