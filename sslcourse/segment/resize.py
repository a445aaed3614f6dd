"""Fitting an image of any size into SAM's square: the longest side becomes S, the rest is padded."""

import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sslcourse.data.decode import to_rgb
from sslcourse.errors import InputError

Size = tuple[int, int]  # height, width


def fit_longest(height: int, width: int, longest: int) -> Size:
    """(height, width) with the longest side brought to `longest` px, the other rounded (halves up), at least 1 px."""
    if min(height, width) < 1:
        raise InputError(f"an image has at least one pixel; got {height} x {width}.")
    scale = longest / max(height, width)
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def resize_longest(image: Tensor, longest: int) -> Tensor:
    """(3, H, W) uint8 -> (3, h, w) uint8 with PIL's antialiased bilinear filter, which SAM was trained with."""
    height, width = fit_longest(image.shape[-2], image.shape[-1], longest)
    if (height, width) == tuple(image.shape[-2:]):
        return image
    pixels = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
    resized = pixels.resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).to(image.device)


def resize_points(points: Tensor, old: Size, new: Size) -> Tensor:
    """Points (..., 2) x y of an image of size `old` on the same image at size `new`.

    Each axis has its own ratio, that of the rounded sizes.
    """
    return points * points.new_tensor([new[1] / old[1], new[0] / old[0]])


def resize_boxes(boxes: Tensor, old: Size, new: Size) -> Tensor:
    """Boxes (..., 4) x1 y1 x2 y2 of an image of size `old` on the same image at size `new`."""
    return resize_points(boxes.unflatten(-1, (2, 2)), old, new).flatten(-2)


def to_pixels(image: Any) -> Tensor:
    """Any image as (3, H, W) uint8 RGB.

    Args:
        image: a path; a PIL image; an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); or a tensor (3, H, W) uint8.
            Arrays are uint8, uint16 (scaled to 8 bits) or floats in [0, 1]. Transparency is laid over white.

    Raises:
        InputError: anything else.
    """
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8 or 0 in image.shape:
            raise InputError(f"an image as a tensor is (3, H, W) uint8; got {image.dtype} {(*image.shape,)}.")
        return image
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    elif not isinstance(image, Image.Image):
        image = _open(image)
    return torch.from_numpy(np.array(to_rgb(image))).permute(2, 0, 1)


def _open(path: Any) -> Image.Image:
    try:
        with warnings.catch_warnings():  # what PIL only warns of, up to 179 million pixels, is fine here
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path)
        opened.load()
        return opened
    except FileNotFoundError:
        raise InputError(f"there is no image file {path}.") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path} has too many pixels to be opened safely; make it smaller first.") from None
    except Exception as error:  # what a broken or foreign file makes PIL raise
        raise InputError(f"{path} is not a readable image ({type(error).__name__}).") from error


def _from_array(array: np.ndarray) -> Image.Image:
    channels = 1 if array.ndim == 2 else array.shape[-1]
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        raise InputError(f"an image as an array is (H, W) or (H, W, 1, 3 or 4); got {array.shape}.")
    if array.dtype == np.uint16:
        array = np.round(array / 257.0).astype(np.uint8)
    elif array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0.0 and high <= 1.0):
            raise InputError(f"an image as a float array lies in [0, 1]; got values from {low:g} to {high:g}.")
        array = np.round(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InputError(f"an image as an array is uint8, uint16 or float in [0, 1]; got {array.dtype}.")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and channels == 1 else array)
