"""Where pixels come from: the embedded world, real datasets, views, masks and corruptions."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sslcourse.data.images import Images
from sslcourse.data.load import load, load_images  # at once: a lazy `load` would be hidden by its own module
from sslcourse.data.packs import pack
from sslcourse.data.stream import ImageStream

if TYPE_CHECKING:
    from sslcourse.data.augment import Augment
    from sslcourse.data.corruptions import corrupt
    from sslcourse.data.shapes import Shapes
    from sslcourse.data.views import multi_crop, two_views

__all__ = [
    "Augment", "ImageStream", "Images", "Shapes", "corrupt", "load", "load_images", "multi_crop", "pack", "two_views",
]  # fmt: skip

# Imported on first use: most callers want either the embedded world or real images.
_LAZY = {
    "Augment": "augment",
    "Shapes": "shapes",
    "corrupt": "corruptions",
    "multi_crop": "views",
    "two_views": "views",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"sslcourse.data.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'sslcourse.data' has no attribute {name!r}")
