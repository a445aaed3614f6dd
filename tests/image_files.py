"""Small image files for the tests of loading."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslcourse.data import load
from sslcourse.errors import InputError


def picture(seed: int = 0, height: int = 12, width: int = 12) -> np.ndarray:
    """A smooth random (H, W, 3) uint8 picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))


def save(path: Path, array: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def class_folders(root: Path, counts: dict[str, int], **shape: int) -> Path:
    for k, (name, count) in enumerate(counts.items()):
        for i in range(count):
            save(root / name / f"{i:03}.png", picture(100 * k + i, **shape))
    return root


def message(*args, **kwargs) -> str:
    """The sentence of the InputError that `load` raises: one line."""
    with pytest.raises(InputError) as error:
        load(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)
