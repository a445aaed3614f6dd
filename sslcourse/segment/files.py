"""Files of the small models: half-precision weights, and what to build for them, in one safetensors file."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sslcourse.errors import InputError, unknown
from sslcourse.segment.build import build_tiny_sam
from sslcourse.segment.sam import Sam
from sslcourse.zoo.weights import shipped

KINDS = ("sam", "fastsam", "grounded", "matting")  # what is built; MobileSAM and HQ-SAM are SAMs of other settings


def build_small(kind: str = "sam", **settings: Any) -> nn.Module:
    """A small untrained model of SAM's family for a kind and its settings; "grounded" reads with a trained CLIP."""
    if kind == "sam":
        return build_tiny_sam(**settings)
    if kind == "fastsam":
        from sslcourse.segment.fastsam_net import FastNet

        return FastNet(**settings)
    if kind == "matting":
        from sslcourse.segment.matter import Matter

        return Matter(build_tiny_sam(**settings))
    if kind == "grounded":
        from sslcourse.segment.text_to_box import TextToBox
        from sslcourse.train.checkpoint import load_model

        clip: Any = load_model(shipped(settings.pop("clip", "clip_shapes")))
        return TextToBox(clip, **settings)
    raise unknown("kind of small model", kind, KINDS)


def save_tiny(model: nn.Module, path: str | os.PathLike[str], settings: dict[str, Any], made_by: str = "") -> None:
    """Write a model of `build_small(**settings)` in half precision, with the command that made it."""
    from safetensors.torch import save_file

    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    half = {key: (value.half() if value.is_floating_point() else value).contiguous() for key, value in state.items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(half, path, metadata={"settings": json.dumps(settings), "made_by": made_by})


def load_small(path: str | os.PathLike[str] | None = None, name: str = "tiny_sam") -> nn.Module:
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
        model = build_small(**settings)
        model.load_state_dict(
            {key: value.float() if value.dtype == torch.half else value for key, value in state.items()}
        )
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{file} is not a model that sslcourse.segment.train wrote ({type(error).__name__})."
        ) from error
    return model.eval()


def load_tiny(path: str | os.PathLike[str] | None = None, name: str = "tiny_sam") -> Sam:
    """`load_small` of a SAM (MobileSAM and HQ-SAM are some), which a `Predictor` takes.

    Raises:
        InputError: as `load_small`, or a model that takes no prompts.
    """
    model = load_small(path, name)
    if not isinstance(model, Sam):
        raise InputError(f"{path or name} is a {type(model).__name__}, which takes no prompts as a SAM does.")
    return model
