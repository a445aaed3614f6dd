"""Files of the small models: half-precision weights, and what to build for them, in one safetensors file."""

import json
import os
from pathlib import Path
from typing import Any

import torch

from sslcourse.errors import InputError
from sslcourse.segment.build import build_tiny_sam
from sslcourse.segment.sam import Sam
from sslcourse.zoo.weights import shipped


def save_tiny(model: Sam, path: str | os.PathLike[str], settings: dict[str, Any], made_by: str = "") -> None:
    """Write a model of `build_tiny_sam(**settings)` in half precision, with the command that made it."""
    from safetensors.torch import save_file

    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    half = {key: (value.half() if value.is_floating_point() else value).contiguous() for key, value in state.items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(half, path, metadata={"settings": json.dumps(settings), "made_by": made_by})


def load_tiny(path: str | os.PathLike[str] | None = None, name: str = "tiny_sam") -> Sam:
    """A model that `save_tiny` wrote, in single precision and eval mode.

    Args:
        path: the file; None for the one called `name` that comes with the repository.

    Raises:
        InputError: no such file, or one that was not written by `save_tiny`.
    """
    from safetensors import SafetensorError, safe_open

    file = shipped(name) if path is None else Path(path)
    if not file.is_file():
        raise InputError(
            f"there is no model file {file}; train one with python -m sslcourse.segment.train, or name another file."
        )
    try:
        with safe_open(file, framework="pt") as opened:
            settings = json.loads((opened.metadata() or {})["settings"])
            state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118, no mapping
        model = build_tiny_sam(**settings)
        model.load_state_dict(
            {key: value.float() if value.dtype == torch.half else value for key, value in state.items()}
        )
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{file} is not a model that sslcourse.segment.train wrote ({type(error).__name__})."
        ) from error
    return model.eval()
