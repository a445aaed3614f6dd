"""From image files to one uint8 tensor: the only place that knows about file formats.

A `Source` names the images of a set without decoding them. `decode` reads the ones that are asked for into memory;
`sslcourse.data.stream.ImageStream` reads them batch by batch when memory does not hold them.
"""

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sslcourse.data.images import Images
from sslcourse.errors import InputError

Size = tuple[int, int]  # height, width

MIXED_SIZE = 64  # twice the 32 px of the CPU presets: a crop of a quarter of the area loses no pixel
KEEP_UP_TO = 256  # images of one size are kept as they are up to this short side
MAX_SIZE = 4096
_CHUNK = 128  # images a thread decodes before it reports
_SWAPPED = (5, 6, 7, 8)  # EXIF orientations (tag 0x0112) that exchange height and width


@dataclass(frozen=True)
class Source:
    """Images of a set, not yet decoded.

    Attributes:
        name: what to call the set.
        labels: (N,) int64, -1 where unlabelled.
        classes: class names.
        open: the PIL image at a position, opened but not decoded; may raise anything on a broken file.
        files: file names for messages, empty where images have none.
    """

    name: str
    labels: Tensor
    classes: list[str]
    open: Callable[[int], Image.Image]
    files: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def describe(self, i: int) -> str:
        """The file name of image `i`, or its number."""
        return self.files[i] if self.files else f"image {i}"


def to_rgb(image: Image.Image) -> Image.Image:
    """An 8-bit RGB image, upright: EXIF rotation applied, transparency over white, 16 bits scaled to 8."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _wide_to_8_bits(np.asarray(image)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")  # dropping alpha alone would show whatever colour hides under it
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _wide_to_8_bits(values: np.ndarray) -> Image.Image:
    """Greyscale of 16 or 32 bits or floats; PIL's own conversion clips at 255 instead of scaling."""
    top = np.nan_to_num(values).max(initial=0)
    if values.dtype.itemsize > 2 and top <= 255:  # floats in [0, 1], or 8-bit values in a wider type
        full = 1.0 if values.dtype.kind == "f" and top <= 1 else 255.0
    else:
        full = 65535.0
    grey = np.nan_to_num(values).clip(0, full) * (255 / full)
    return Image.fromarray(np.round(grey).astype(np.uint8))


def pixels(image: Image.Image, size: Size) -> Tensor:
    """Decode to (3, height, width) uint8: short side resized (bilinear, antialiased), centre-cropped."""
    height, width = size
    # A JPEG can be decoded at 1/2, 1/4 or 1/8; at twice the target nothing visible is lost and large photos are fast.
    image.draft("RGB", (2 * max(size), 2 * max(size)))
    image = to_rgb(image)
    if image.size != (width, height):
        scale = min(image.width / width, image.height / height)
        left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
        box = (left, top, left + width * scale, top + height * scale)
        image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def checked_size(size: int | None) -> Size | None:
    """`size` px as (height, width), or None for the size that the images have."""
    if size is None:
        return None
    if not 1 <= size <= MAX_SIZE:
        raise InputError(f"size is the side of the images in pixels, 1 to {MAX_SIZE}; got {size}.")
    return size, size


def common_size(source: Source, index: Tensor) -> Size:
    """The size that `size=None` stands for.

    That of the images where they all have one (64 of them are looked at) and its short side is at most 256 px;
    64 x 64 px otherwise.
    """
    sample = index[torch.linspace(0, len(index) - 1, min(64, len(index))).long()]
    sizes = {size for i in sample.tolist() if (size := _size_in_header(source, i))}
    if len(sizes) == 1 and min(only := next(iter(sizes))) <= KEEP_UP_TO and max(only) <= MAX_SIZE:
        return only
    return MIXED_SIZE, MIXED_SIZE


def _size_in_header(source: Source, i: int) -> Size | None:
    try:
        image = source.open(i)
        turned = image.getexif().get(0x0112) in _SWAPPED
    except Exception:  # a broken file is reported by whoever decodes it
        return None
    return (image.width, image.height) if turned else (image.height, image.width)


def decode(source: Source, index: Tensor, size: Size) -> Images:
    """The images of `source` at `index`, in that order, in memory.

    Broken files are left out with one warning that counts them and names the first.

    Raises:
        InputError: when no file is readable.
    """
    wanted = index.tolist()
    out = torch.empty(len(wanted), 3, *size, dtype=torch.uint8)

    def decode_chunk(start: int) -> list[int]:
        bad = []
        for k in range(start, min(start + _CHUNK, len(wanted))):
            try:
                out[k] = pixels(source.open(wanted[k]), size)
            except Exception:  # whatever a broken file makes a decoder raise
                bad.append(k)
        return bad

    starts = range(0, len(wanted), _CHUNK)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoders release the interpreter lock
        chunks = _with_progress(pool.map(decode_chunk, starts), len(wanted), source.name)
        broken = [k for chunk in chunks for k in chunk]
    if broken:
        warn_broken(source, [wanted[k] for k in broken], len(wanted))
        good = torch.ones(len(wanted), dtype=torch.bool)
        good[broken] = False
        out, index = out[good], index[good]
    return Images(out, source.labels[index].long(), list(source.classes), source.name)


def warn_broken(source: Source, broken: list[int], out_of: int) -> None:
    """Warn that files were skipped; raise where nothing is left."""
    first = ", ".join(source.describe(i) for i in broken[:3]) + (", ..." if len(broken) > 3 else "")
    if len(broken) == out_of:
        raise InputError(f"{source.name}: none of its {out_of} files is a readable image ({first}).")
    warnings.warn(
        f"{source.name}: skipped {len(broken)} of {out_of} files that are not readable images: {first}", stacklevel=3
    )


def _with_progress(chunks: Iterator[list[int]], total: int, name: str) -> Iterator[list[int]]:
    """Pass `chunks` on; a line on a terminal's stderr once decoding has taken two seconds."""
    begin, shown = time.monotonic(), False
    for k, chunk in enumerate(chunks, start=1):
        yield chunk
        if sys.stderr.isatty() and time.monotonic() - begin > 2:
            shown = True
            print(f"\rdecoding {name}: {min(k * _CHUNK, total):,} of {total:,} images", end="", file=sys.stderr)
    if shown:
        print(file=sys.stderr)
