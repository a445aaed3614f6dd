"""Where pixels come from: the embedded world, real datasets, views and masks."""

from typing import Any

from sslcourse.data.images import Images
from sslcourse.data.load import load, load_images
from sslcourse.data.packs import pack
from sslcourse.data.stream import ImageStream

__all__ = ["ImageStream", "Images", "Shapes", "load", "load_images", "pack"]


def __getattr__(name: str) -> Any:
    if name == "Shapes":  # on first use: most callers want either the embedded world or real images
        from sslcourse.data.shapes import Shapes

        return Shapes
    raise AttributeError(f"module 'sslcourse.data' has no attribute {name!r}")
