"""sslcourse: self-supervised learning and vision foundation models, built from scratch.

Every idea of the course is one small function with the same name, signature and meaning in the chapter that
explains it, the lab that asks for it, this library, and the check that grades it.

    from sslcourse.losses import nt_xent
    from sslcourse.data import Shapes, load

Sub-packages are imported on first use, so ``import sslcourse`` costs almost nothing.
"""

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

_SUBPACKAGES = ("data", "evaluate", "losses", "methods", "nn", "segment", "train", "viz", "zoo")


def __getattr__(name: str) -> ModuleType:
    if name in _SUBPACKAGES:
        return import_module(f"sslcourse.{name}")
    raise AttributeError(f"module 'sslcourse' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBPACKAGES])
