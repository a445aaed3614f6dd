"""Features are computed once: the cache key is a hash of the weights, the pixels and the view."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sslcourse.evaluate.encoder import Encoder
from sslcourse.evaluate.leakage import image_hashes

VERSION = 1  # raise it when the same weights, pixels and view begin to give other features


def cached_features(encoder: Encoder, data: Any, folder: Path | None) -> Tensor:
    """`encoder(data)`, read from `folder` if the same weights have seen the same pixels in the same view before.

    A file that cannot be read is computed again; a folder that cannot be written only costs the time next time.

    Args:
        data: `Images` or an `ImageStream`.
        folder: where to keep features; None keeps none.
    """
    if folder is None:
        return encoder(data)
    path = Path(folder) / f"{content_key(encoder, data)}.safetensors"
    try:
        return load_file(path)["features"].to(encoder.where)
    except (OSError, KeyError, SafetensorError):
        features = encoder(data)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"features": features.cpu().contiguous()}, partial)
        os.replace(partial, path)  # whole or not at all
    except OSError:
        with suppress(OSError):
            partial.unlink()
    return features


def content_key(encoder: Encoder, data: Any) -> str:
    """Hash of everything that features depend on: structure, weights and buffers, view, every image in its order."""
    digest = hashlib.blake2b(digest_size=20)
    view = (encoder.size, encoder.mean, encoder.std)
    # The printed structure has what no weight shows: strides, activations, pooling.
    digest.update(f"{VERSION}|{torch.__version__}|{view}|{encoder.backbone}".encode())
    for name, value in encoder.backbone.state_dict().items():
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    for image in image_hashes(data):
        digest.update(image)
    return digest.hexdigest()
