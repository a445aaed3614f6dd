"""JPEG packs: many small images as two files that copy, download and open fast (book/data-format.md).

`X_jpeg.bin` is JPEG files one after another; `X_index.npz` says where each begins (`offsets`, N + 1 numbers) and, row
by row, its `labels`, `is_test` and `filename`, and the names of the `classes`.
"""

import io
import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sslcourse.data.decode import MAX_SIZE, Source, to_rgb
from sslcourse.data.folder import read_folder
from sslcourse.data.subset import stratified_test
from sslcourse.errors import InputError

BLOB, INDEX = "_jpeg.bin", "_index.npz"
MAX_ENTRY = 1 << 30  # bytes an entry of an archive may have when unpacked: the index of ImageNet has 0.3 GB
MAX_IMAGE = 1 << 27  # bytes of one encoded image


@dataclass(frozen=True)
class JpegPack:
    """Random access to the images of one pack; nothing is decoded until it is asked for.

    Attributes:
        path: the `_jpeg.bin` file.
        offsets: (N + 1,) int64, image i is bytes offsets[i] to offsets[i + 1].
        labels: (N,) int64, -1 where unlabelled.
        is_test: (N,) bool, or None where the pack has no split.
        classes: class names.
    """

    path: Path
    offsets: np.ndarray
    labels: Tensor
    is_test: Tensor | None
    classes: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(BLOB)

    def encoded(self, i: int) -> bytes:
        """The JPEG file of image `i`. Opens the blob anew: safe from threads and worker processes."""
        start, end = int(self.offsets[i]), int(self.offsets[i + 1])
        with open(self.path, "rb") as blob:
            blob.seek(start)
            return blob.read(end - start)

    def open(self, i: int) -> Image.Image:
        """Image `i`, opened but not decoded."""
        return Image.open(io.BytesIO(self.encoded(i)))

    @property
    def source(self) -> Source:
        return Source(self.name, self.labels, self.classes, self.open)


def find_pack(path: Path) -> tuple[Path, Path] | None:
    """(blob, index) of the pack that `path` names: its folder, its .bin or its .npz; None where there is none.

    Raises:
        InputError: for a folder with several packs, or a pack with one of its two files missing.
    """
    if path.is_dir():
        stems = {file.name.removesuffix(end) for end in (BLOB, INDEX) for file in path.glob(f"*{end}")}
        if len(stems) > 1:
            raise InputError(f"{path} holds several packs ({', '.join(sorted(stems))}); name the .npz of one of them.")
        if not stems:
            return None
        folder, stem = path, stems.pop()
    else:
        end = next((end for end in (BLOB, INDEX) if path.name.endswith(end)), None)
        if end is None:
            return None
        folder, stem = path.parent, path.name.removesuffix(end)
    blob, index = folder / (stem + BLOB), folder / (stem + INDEX)
    for file in (blob, index):
        if not file.is_file():
            raise InputError(f"the pack '{stem}' in {folder} lacks its file {file.name}.")
    return blob, index


def open_pack(path: str | Path) -> JpegPack:
    """Open the pack that `path` names: its folder, its `_jpeg.bin` or its `_index.npz`.

    Raises:
        InputError: where it is missing, truncated, inconsistent or holds pickled objects.
    """
    files = find_pack(Path(path))
    if files is None:
        raise InputError(f"{path} is not a pack: looked for X{BLOB} and X{INDEX}.")
    blob, index_file = files
    index = _read_index(index_file)
    if "offsets" not in index:
        raise InputError(f"{index_file} has no 'offsets'; it is not the index of a pack.")
    offsets = index["offsets"]
    n = len(offsets) - 1 if offsets.ndim == 1 else -1
    if n < 1 or offsets.dtype.kind not in "iu" or offsets[0] < 0 or (np.diff(offsets.astype(np.int64)) < 0).any():
        raise InputError(f"{index_file}: 'offsets' must be N + 1 growing byte positions.")
    if (size := blob.stat().st_size) != int(offsets[-1]):
        raise InputError(
            f"{blob} has {size:,} bytes, its index says {int(offsets[-1]):,}: it is truncated or not of this index."
        )
    labels = index.get("labels", np.full(n, -1))
    is_test = index.get("is_test")
    classes = [str(name) for name in index.get("classes", ())]
    for key, rows in (("labels", labels), ("is_test", is_test)):
        if rows is not None and (rows.shape != (n,) or rows.dtype.kind not in "iub"):
            raise InputError(f"{index_file}: '{key}' must be {n} numbers, one an image.")
    if classes and labels.max() >= len(classes):
        raise InputError(f"{index_file}: label {labels.max()} has no name among its {len(classes)} classes.")
    return JpegPack(
        path=blob,
        offsets=offsets.astype(np.int64),
        labels=torch.from_numpy(labels.astype(np.int64)),
        is_test=None if is_test is None else torch.from_numpy(is_test.astype(bool)),
        classes=classes,
    )


def check_archive(path: Path, limit: int) -> None:
    """Refuse a zip with an entry that unpacks to more than `limit` bytes (zipfile reads no more than is declared)."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.file_size > limit:
                raise InputError(f"{path}: its entry {entry.filename} unpacks to {entry.file_size:,} bytes; refused.")


def _read_index(path: Path) -> dict[str, np.ndarray]:
    try:
        check_archive(path, MAX_ENTRY)
        with np.load(path, allow_pickle=False) as archive:  # a pickle in a data file could run code
            return {key: archive[key] for key in ("offsets", "labels", "is_test", "classes") if key in archive}
    except InputError:
        raise
    except Exception as error:  # BadZipFile, zlib.error, ValueError for pickles, OSError ...
        raise InputError(f"{path} cannot be read as the index of a pack ({error}).") from error


def pack(
    folder: str | Path,
    out: str | Path,
    *,
    size: int | None = None,
    quality: int = 90,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> JpegPack:
    """Write the images of `folder` as a pack, OUT/NAME_jpeg.bin and OUT/NAME_index.npz with NAME that of OUT.

    The split is that of the sub-folders train/ and test/ (or val/) where the folder has them, otherwise
    `test_fraction` of every class, drawn with `seed`. RGB JPEG files that need no change are copied byte for byte.
    Unreadable files are skipped with a warning.

    Args:
        folder: what `load` reads: FOLDER/CLASS/*, FOLDER/*, or either below train/ and test/.
        out: folder to create.
        size: short side in pixels; larger images are shrunk to it, smaller ones stay. None keeps all.
        quality: JPEG quality of what is encoded, 1 to 95.

    Raises:
        InputError: for a bad option, a folder without images, or an `out` that cannot be written.
    """
    if not 1 <= quality <= 95:
        raise InputError(f"quality is a JPEG quality from 1 to 95; got {quality}.")
    if not 0 <= test_fraction < 1:
        raise InputError(f"test_fraction is the share of test images, 0 <= test_fraction < 1; got {test_fraction}.")
    if size is not None and not 8 <= size <= MAX_SIZE:
        raise InputError(f"size is the short side in pixels, 8 to {MAX_SIZE}; got {size}.")
    path, out = Path(folder), Path(out)
    if not path.is_dir():
        raise InputError(f"{path} is not a folder.")
    listed = read_folder(path)
    source, is_test = listed.source, listed.is_test
    if is_test is None:
        is_test = stratified_test(source.labels, test_fraction, seed)
    name = out.resolve().name
    kept, offsets = [], [0]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _atomic(out / (name + BLOB)) as blob:
            for i in range(len(source)):
                if data := _encode(Path(source.files[i]), size, quality):
                    blob.write(data)
                    kept.append(i)
                    offsets.append(offsets[-1] + len(data))
            if not kept:
                raise InputError(f"{path}: none of its {len(source)} files is a readable image.")
        with _atomic(out / (name + INDEX)) as index:
            rows = torch.tensor(kept)
            np.savez_compressed(
                index,
                offsets=np.array(offsets, dtype=np.int64),
                labels=source.labels[rows].to(torch.int32).numpy(),
                is_test=is_test[rows].numpy(),
                classes=np.array(source.classes, dtype=np.str_),
                filename=np.array([os.path.relpath(source.files[i], path) for i in kept], dtype=np.str_),
            )
    except OSError as error:
        raise InputError(f"cannot write the pack to {out}: {error.strerror or error}.") from error
    if skipped := len(source) - len(kept):
        first = sorted(set(range(len(source))) - set(kept))[:3]
        names = ", ".join(source.files[i] for i in first)
        warnings.warn(f"skipped {skipped} files that are not readable images: {names}", stacklevel=2)
    return open_pack(out / (name + INDEX))


def _encode(file: Path, size: int | None, quality: int) -> bytes | None:
    """The JPEG bytes to store for an image file; None where it cannot be read."""
    try:
        data = file.read_bytes()
        image: Image.Image = Image.open(io.BytesIO(data))
        as_is = image.format == "JPEG" and image.mode == "RGB" and image.getexif().get(0x0112, 1) == 1
        image = to_rgb(image)
        image.load()  # a truncated file shows here, also where its bytes would be copied
    except Exception:  # whatever a broken file makes a decoder raise
        return None
    if size is not None and min(image.size) > size:
        scale = size / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    elif as_is:
        return data
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@contextmanager
def _atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that appears under its name only when all of it is there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
