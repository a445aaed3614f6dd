"""What CLIP does to an image file before its tower sees it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sslcourse.data.augment import Triple
from sslcourse.data.decode import to_rgb
from sslcourse.errors import InputError

CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Triple = (0.26862954, 0.26130258, 0.27577711)


def clip_preprocess(
    image: Image.Image,
    size: int = 224,
    mean: Triple = CLIP_MEAN,
    std: Triple = CLIP_STD,
) -> Tensor:
    """Short side to `size` (bicubic, antialiased), centre crop, standardised: (3, size, size) float32.

    Alpha is laid over white and 16 bits are scaled to 8 first (`decode.to_rgb`); the official code drops alpha.
    """
    image = to_rgb(image)
    short = min(image.size)
    # The long side and the corner are rounded as torchvision rounds them.
    width, height = (size if side == short else int(size * side / short) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    pixels = np.array(image.crop((left, top, left + size, top + size)))
    x = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    return (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def open_image(path: str | Path) -> Image.Image:
    """An image file, decoded to upright 8-bit RGB.

    Raises:
        InputError: no such file, one that is no image or damaged, or one of too many pixels to be opened safely.
    """
    try:
        return to_rgb(Image.open(path))
    except FileNotFoundError:
        raise InputError(f"there is no image file {path}.") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path} has too many pixels to be opened safely; make it smaller first.") from None
    except Exception as error:  # whatever a broken file makes a decoder raise
        reason = getattr(error, "strerror", None) or error  # the system's words without its number
        raise InputError(f"{path} is not a readable image ({type(error).__name__}: {reason}).") from error
