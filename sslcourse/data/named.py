"""The named datasets: scikit-learn's digits and scikit-image's photographs (offline), and torchvision's downloads."""

import socket
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sslcourse.data.decode import Source
from sslcourse.data.folder import open_file
from sslcourse.data.subset import stratified_test
from sslcourse.errors import InputError

_TIMEOUT = 20.0  # seconds without an answer before a download counts as "no net"


@dataclass(frozen=True)
class Named:
    """How to get a dataset by name.

    Attributes:
        read: (root, split, size) -> its images; `root` is where its files are kept, `size` the size asked for.
        splits: the splits it has.
        size: the side in pixels that `size=None` stands for, where that is not the rule of `common_size`.
        files: the archive to put into `root` where there is no net; empty for sets that work offline.
    """

    read: Callable[[Path, str, int | None], Source]
    splits: tuple[str, ...]
    size: int | None = None
    files: str = ""


def _digits(root: Path, split: str, size: int | None) -> Source:
    """1,797 handwritten digits, 8 x 8 with 17 grey levels; a fifth of each class is the test split."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = torch.from_numpy(digits.target).long()
    is_test = stratified_test(labels, 0.2, seed=0)  # the split is part of the dataset, not of the caller's seed
    keep = is_test == (split == "test") if split != "all" else torch.ones_like(is_test)
    grey = np.round(digits.images[keep.numpy()] * (255 / 16)).astype(np.uint8)
    return _of_arrays("digits", grey, labels[keep], [str(k) for k in range(10)])


# The photographs among the images that ship inside scikit-image and scikit-learn: no drawing, no download.
_PHOTOS = {
    "skimage.data": (
        "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
        "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
    ),
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
}  # fmt: skip


def _photos(root: Path, split: str, size: int | None) -> Source:
    """16 photographs, each a class of its own."""
    try:
        paths = [Path(str(package_files(package))) / name for package, names in _PHOTOS.items() for name in names]
    except ModuleNotFoundError as error:
        raise InputError("'photos' are scikit-image's; install it with: pip install scikit-image") from error
    paths = [path for path in paths if path.is_file()]  # scikit-image moves one to its download list now and then
    names = [str(path) for path in paths]
    return Source("photos", torch.arange(len(paths)), [path.stem for path in paths], partial(open_file, names), names)


def _cifar10(root: Path, split: str, size: int | None) -> Source:
    data = _download("CIFAR10", root, train=split == "train")
    return _of_arrays("cifar10", data.data, torch.tensor(data.targets), data.classes)


def _stl10(root: Path, split: str, size: int | None) -> Source:
    data = _download("STL10", root, split=split)
    return _of_arrays("stl10", data.data.transpose(0, 2, 3, 1), torch.as_tensor(data.labels), data.classes)


def _imagenette(root: Path, split: str, size: int | None) -> Source:
    stored = "160px" if (size or 0) <= 160 else "320px" if (size or 0) <= 320 else "full"
    data = _download("Imagenette", root, split="train" if split == "train" else "val", size=stored)
    paths, labels = zip(*data._samples, strict=True)
    return _of_files("imagenette", paths, labels, [names[0] for names in data.classes])


def _pets(root: Path, split: str, size: int | None) -> Source:
    data = _download("OxfordIIITPet", root, split="trainval" if split == "train" else "test")
    return _of_files("pets", data._images, data._labels, data.classes)


def _voc(root: Path, split: str, size: int | None) -> Source:
    """Pascal VOC 2012; the label of an image is the class of its largest box."""
    data = _download("VOCDetection", root, year="2012", image_set="train" if split == "train" else "val")
    labels = [_VOC_CLASSES.index(_largest_object(path)) for path in data.targets]
    return _of_files("voc", data.images, labels, list(_VOC_CLASSES))


_VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def _largest_object(annotation: str) -> str:
    def area(item: ElementTree.Element) -> float:
        left, top, right, bottom = (float(item.findtext(f"bndbox/{side}", "0")) for side in _SIDES)
        return (right - left) * (bottom - top)

    return max(ElementTree.parse(annotation).findall("object"), key=area).findtext("name", "")


_SIDES = ("xmin", "ymin", "xmax", "ymax")

NAMED = {
    "digits": Named(_digits, ("train", "test", "all"), size=32),
    "photos": Named(_photos, ("train",)),
    "cifar10": Named(_cifar10, ("train", "test"), files="cifar-10-python.tar.gz (Krizhevsky's CIFAR page, 163 MB)"),
    "stl10": Named(_stl10, ("train", "test", "unlabeled"), files="stl10_binary.tar.gz (Coates' STL-10 page, 2.5 GB)"),
    "imagenette": Named(_imagenette, ("train", "test"), files="imagenette2-160.tgz (fast.ai's imagenette, 95 MB)"),
    "pets": Named(
        _pets,
        ("train", "test"),
        files="oxford-iiit-pet/images.tar.gz and annotations.tar.gz (the Oxford-IIIT Pet page, 755 MB)",
    ),
    "voc": Named(_voc, ("train", "test"), files="VOCtrainval_11-May-2012.tar (the Pascal VOC 2012 page, 1.9 GB)"),
}


def _download(dataset: str, root: Path, **options: Any) -> Any:
    """torchvision's dataset from `root`; downloaded where it is not there yet."""
    import torchvision.datasets as datasets

    build = getattr(datasets, dataset)
    try:
        return build(root, download=False, **options)  # download=True would unpack some archives anew each time
    except (RuntimeError, OSError):  # not there yet
        root.mkdir(parents=True, exist_ok=True)
        with _time_limit():
            return build(root, download=True, **options)


@contextmanager
def _time_limit() -> Iterator[None]:
    """Let sockets give up: behind a firewall that drops packets a download would otherwise wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _of_arrays(name: str, images: np.ndarray, labels: torch.Tensor, classes: list[str]) -> Source:
    """A set that is in memory: (N, H, W) or (N, H, W, 3) uint8."""
    return Source(name, labels.long(), list(classes), partial(_open_array, images))


def _open_array(images: np.ndarray, i: int) -> Image.Image:
    return Image.fromarray(images[i])


def _of_files(name: str, paths: Any, labels: Any, classes: list[str]) -> Source:
    files = [str(path) for path in paths]
    return Source(name, torch.tensor(labels), list(classes), partial(open_file, files), files)
