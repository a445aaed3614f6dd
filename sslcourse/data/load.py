"""`load`: one call for the embedded world, public datasets, folders of images and packs (book/data-format.md)."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslcourse.data.decode import Source, checked_size, common_size, decode
from sslcourse.data.folder import is_image, read_folder
from sslcourse.data.images import Images
from sslcourse.data.named import NAMED
from sslcourse.data.packs import BLOB, INDEX, find_pack, open_pack
from sslcourse.data.stream import ImageStream
from sslcourse.data.subset import first_n
from sslcourse.data.zips import CocoPack, DavisPack, open_zip
from sslcourse.errors import InputError, unknown

NAMES = ("shapes", "captions", *NAMED)
OFFLINE = ("shapes", "captions", *(name for name, named in NAMED.items() if not named.files))
STREAM_BYTES = 2_000_000_000  # decoded sets above this are streamed
CAPTIONS_N = 12_000  # the same for its captioned scenes of the training split; 1000 for another
SHAPES_N = 5000  # scenes of the embedded world where the caller does not say how many


def load(
    name_or_path: str | Path,
    split: str = "train",
    *,
    size: int | None = None,
    n: int | None = None,
    root: str | Path | None = None,
    seed: int = 0,
    stream: bool | None = None,
) -> Images | ImageStream | CocoPack | DavisPack:
    """Load a set of images by name or from a path.

    Names: "shapes" (the embedded world; "shapes:sketch" and so on are its other presets), "captions" (its scenes of
    several objects, with captions, without some pairs of colour and shape: `data.captioned`), "digits" and "photos"
    work offline; "cifar10", "stl10", "imagenette", "pets" and "voc" are torchvision's and are downloaded once.

    Paths: a folder of images (FOLDER/CLASS/*, FOLDER/*, or either below FOLDER/train and FOLDER/test or val); a JPEG
    pack (its folder, `_jpeg.bin` or `_index.npz`); `coco.zip` -> `CocoPack` and `davis.zip` -> `DavisPack`, which keep
    masks and captions (`load_images` makes plain images of them, too).

    Args:
        name_or_path: see above. A name means the dataset; write "./digits" for a folder of that name.
        split: "train", "test", or "all" where the set has a split; "unlabeled" for STL-10.
        size: side in pixels: short side resized (antialiased), then centre-cropped. None keeps images that all have
            one size with a short side of at most 256 px (32 for digits) and makes mixed ones 64 x 64.
        n: a class-balanced sample of n images, drawn with `seed`; the sample for a smaller n is part of a larger one.
            Only these are decoded.
        root: where named datasets are kept: ROOT/NAME; default $SSLCOURSE_DATA or ~/.cache/sslcourse. A pack there is
            used in place of the download; any other folder there can be loaded by its name, too.
        seed: of the sample, and of the world for "shapes" and "captions".
        stream: True decodes during training, False holds the set in memory; None streams above 2 GB decoded.

    Raises:
        InputError: one sentence, for an unknown name or path, an absent split, damaged files, no net.
    """
    checked_size(size)
    name, folder = str(name_or_path), _root(root)
    path = _path_of(name, folder)
    if path is None and is_world(name):
        return _shapes(name, split, size, n, seed)
    if path is None:
        source, index = _read_named(name, split, size, folder / name)
        size = size or NAMED[name].size
    elif archive := zip_in(path):
        if split not in ("train", "all"):
            raise InputError(f"{archive} has no split '{split}': it is one set, split='train'.")
        return open_zip(archive)
    else:
        source, index = _read_path(path, split)
    index = index[first_n(source.labels[index], n, seed, f"{source.name} ({split})")]
    height, width = checked_size(size) or common_size(source, index)
    if stream or (stream is None and len(index) * 3 * height * width > STREAM_BYTES):
        return ImageStream(source, index, (height, width))
    return decode(source, index, (height, width))


def load_images(
    name_or_path: str | Path,
    split: str = "train",
    *,
    size: int | None = None,
    n: int | None = None,
    root: str | Path | None = None,
    seed: int = 0,
    stream: bool | None = None,
) -> Images | ImageStream:
    """As `load`, and COCO and DAVIS archives come as plain images: what pre-training and evaluation call."""
    found = load(name_or_path, split, size=size, n=n, root=root, seed=seed, stream=stream)
    if isinstance(found, CocoPack | DavisPack):
        return found.as_images(size, n=n, seed=seed)
    return found


def is_world(name: str) -> bool:
    """Whether this names the embedded world, drawn at any size: "shapes", "shapes:sketch", ..., "captions"."""
    return name == "captions" or name.partition(":")[0] == "shapes"


def _root(root: str | Path | None) -> Path:
    return Path(root or os.environ.get("SSLCOURSE_DATA") or "~/.cache/sslcourse").expanduser()


def _path_of(name: str, root: Path) -> Path | None:
    """The path that `name` means, or None for a named dataset."""
    kept = root / name
    if is_world(name):
        return None
    if name in NAMES:
        return kept if kept.is_dir() and find_pack(kept) else None
    path = Path(name).expanduser()
    if path.exists():
        return path
    if os.sep in name or path.suffix or name.startswith("."):
        raise InputError(f"no file or folder {path}; give a path that exists, or a name: {', '.join(NAMES)}.")
    if name and kept.is_dir():
        return kept
    raise unknown("dataset", name, {*NAMES, *_kept(root)})


def _kept(root: Path) -> list[str]:
    return [entry.name for entry in root.iterdir() if entry.is_dir()] if root.is_dir() else []


def _shapes(name: str, split: str, size: int | None, n: int | None, seed: int) -> Images:
    from sslcourse.data.captioned import captioned
    from sslcourse.data.shapes import Shapes

    if name == "captions":
        n = n or (CAPTIONS_N if split == "train" else CAPTIONS_N // 12)
        return captioned(split, n, size or 32, seed)
    knobs: dict[str, Any] = {"seed": seed, "preset": name.partition(":")[2] or "default"}
    world = Shapes(split, **knobs) if size is None else Shapes(split, size=size, **knobs)
    return world.as_images(SHAPES_N if n is None else n)


def _read_named(name: str, split: str, size: int | None, root: Path) -> tuple[Source, Tensor]:
    named = NAMED[name]
    if split not in named.splits:
        raise InputError(f"{name} has no split '{split}'; it has {', '.join(named.splits)}.")
    try:
        source = named.read(root, split, size)
    except InputError:
        raise
    except (OSError, RuntimeError, EOFError) as error:  # URLError is an OSError
        reason = " ".join(str(error).split())
        raise InputError(
            f"cannot download '{name}' ({reason}) and found no copy in {root}: put {named.files} there, or take a name "
            f"that works offline: {', '.join(OFFLINE)}."
        ) from error
    return source, torch.arange(len(source))


def zip_in(path: Path) -> Path | None:
    """The archive that `path` is, or the only one in a folder that holds no images and no sub-folders."""
    if path.is_file():
        return path if path.suffix.lower() == ".zip" else None
    archives = sorted(path.glob("*.zip"))
    if len(archives) != 1 or any(entry.is_dir() or is_image(entry) for entry in path.iterdir()):
        return None
    return archives[0]


def _read_path(path: Path, split: str) -> tuple[Source, Tensor]:
    """The images at `path` and the positions of those in `split`."""
    if find_pack(path):
        pack = open_pack(path)
        source, is_test = pack.source, pack.is_test
    elif path.is_file():
        raise InputError(f"{path} is not a set of images; a path is a folder, X{BLOB}, X{INDEX} or a .zip pack.")
    else:
        _refuse_folder_of_packs(path)
        listed = read_folder(path)
        source, is_test = listed.source, listed.is_test
    return source, _split(is_test, len(source), split, path)


def _split(is_test: Tensor | None, n: int, split: str, path: Path) -> Tensor:
    if split == "all" or (split == "train" and is_test is None):
        return torch.arange(n)
    if split not in ("train", "test"):
        raise InputError(f"{path} has no split '{split}'; use train, test or all.")
    found = torch.arange(0) if is_test is None else (is_test == (split == "test")).nonzero().flatten()
    if not len(found):
        raise InputError(
            f"{path} has no {split} images: make sub-folders train and test in it, or let "
            "`sslcourse pack FOLDER` draw a test split."
        )
    return found


def _refuse_folder_of_packs(path: Path) -> None:
    packs = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and any(entry.glob(f"*{INDEX}")))
    if packs:
        raise InputError(f"{path} is a folder of packs; name one of them: {', '.join(packs)}.")
