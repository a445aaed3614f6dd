"""A guard against the oldest mistake: test images that were in the training set."""

import hashlib
import warnings
from typing import Any

import numpy as np
from torch import Tensor


class LeakageWarning(UserWarning):
    """Training and test images overlap: the result says too much."""


def image_hashes(data: Any) -> list[bytes]:
    """A 16-byte hash of the pixels of every image of `Images`, an `ImageStream` or (N, 3, H, W) uint8, of every clip of
    (N, 3, T, H, W) uint8.
    """
    if isinstance(data, Tensor):
        return [_hash(image) for image in data.cpu().numpy()]
    batches = data.batches(256, shuffle=False, drop_last=False)
    return [_hash(image) for images, _, _ in batches for image in images.cpu().numpy()]


def overlap(train: Any, test: Any) -> list[int]:
    """Positions of the test images that are, pixel by pixel, in the training set."""
    seen = set(image_hashes(train))
    return [i for i, h in enumerate(image_hashes(test)) if h in seen]


def warn_of_leakage(train: Any, test: Any) -> int:
    """Number of test images that are training images too; a `LeakageWarning` if there are any.

    Only equal pixels are found: a copy that was resized or compressed again needs copy detection.
    """
    found = overlap(train, test)
    if found:
        things = "clips" if isinstance(test, Tensor) and test.ndim == 5 else "images"
        some = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
        warnings.warn(
            f"LEAKAGE: {len(found)} of {len(test)} test {things} are also in the training set (test {things} {some}); "
            "remove them before you believe the result.",
            LeakageWarning,
            stacklevel=2,
        )
    return len(found)


def _hash(image: "np.ndarray[Any, Any]") -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
