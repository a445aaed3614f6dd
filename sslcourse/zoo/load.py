"""The one way from an official checkpoint file to a model: read without running code, rename, check, load."""

import argparse
import os
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslcourse.errors import InputError, unknown
from sslcourse.zoo.entries import ENTRIES, Entry
from sslcourse.zoo.readers import State
from sslcourse.zoo.torchscript import is_torchscript, read_torchscript

_NAMED = 3  # keys that a report names before it only counts


def load(
    name: str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    strict: bool = True,
    image_size: int | None = None,
) -> nn.Module:
    """A model with trained weights, on the CPU in eval mode.

    Args:
        name: a name in `ENTRIES`; or a run folder of `sslcourse pretrain` (or the `model.safetensors` in it), whose
            pre-trained backbone is returned.
        path: the official checkpoint of that name, as downloaded: safetensors, or a PyTorch file that holds tensors
            and plain values only.
        strict: raise when a key or shape does not fit; False loads what fits and warns about the rest.
        image_size: side in pixels to prepare the model for, by interpolating its positions; None for the published.

    Raises:
        InputError: an unknown name, no path (the message says where the file is published), a damaged file, a file
            that would have to run code, or one of another model.
    """
    if str(name) not in ENTRIES and _is_path(str(name)):
        if path is not None or image_size is not None:
            raise InputError(f"{name} is a run, which says itself what to build; give neither path nor image_size.")
        from sslcourse.train.checkpoint import load_model

        return load_model(name).backbone  # type: ignore[return-value]
    if str(name) not in ENTRIES:
        raise unknown("model", str(name), ENTRIES)
    entry = ENTRIES[str(name)]
    if path is None:
        raise InputError(
            f"give the checkpoint of '{name}' as the second argument (on the command line --weights): it is "
            f"published on {entry.published} ({entry.megabytes:,} MB)."
        )
    state = unwrap(read_checkpoint(Path(path)), entry, Path(path))
    model = entry.build(image_size or entry.image_size)
    state = entry.read(state, model)
    if problems := misfits(state, model):
        text = f"{path} does not fit {name}: {problems}."
        fitting = _fitting(state, model)
        if strict or not fitting:
            raise InputError(text)
        warnings.warn(text, stacklevel=2)
        state = fitting
    model.load_state_dict(state, strict=False)  # what could go wrong has been checked, with clearer words
    return model.eval()


def read_checkpoint(path: Path) -> Any:
    """What a safetensors or PyTorch file holds, tensors on the CPU; no code in the file is run.

    Raises:
        InputError: no such file, a damaged one, one that is no checkpoint, or one whose pickle names code.
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint file {path}.")
    with open(path, "rb") as file:
        head = file.read(64)
    if head.lstrip()[:1] == b"<":
        raise InputError(f"{path} is a web page, not a checkpoint; download the file itself.")
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is a Git LFS pointer, not the checkpoint; fetch the file it points to.")
    return _read_safetensors(path) if head[8:9] == b"{" else _read_torch(path)


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is a truncated or damaged safetensors file ({error}).") from error


def _read_torch(path: Path) -> Any:
    try:
        if is_torchscript(path):
            return read_torchscript(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # the options many papers save beside the weights
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            raise InputError(f"{path} needs code to be read (its pickle names {named[1]}); refused.") from error
        raise InputError(f"{path} is damaged, or not a PyTorch checkpoint.") from error
    except Exception as error:  # RuntimeError, EOFError, OSError ...: what a damaged zip or pickle makes torch raise
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is truncated, damaged, or not a PyTorch checkpoint ({first}).") from error


def unwrap(content: Any, entry: Entry, path: Path) -> State:
    """The tensors of a file, out of the containers that `entry` declares."""
    for key in entry.wrapped_in:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    named = isinstance(content, dict) and all(isinstance(key, str) for key in content)
    if named and content and all(isinstance(value, Tensor) for value in content.values()):
        return dict(content)
    keys = f"a dict of {_some([str(key) for key in content])}" if isinstance(content, dict) else type(content).__name__
    inside = f" or one inside {' or '.join(entry.wrapped_in)}" if entry.wrapped_in else ""
    raise InputError(f"{path} holds {keys}, where a dict of tensors{inside} was expected.")


def misfits(state: State, model: nn.Module) -> str:
    """What of `state` does not fit `model`, in words; empty where all does."""
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} is {_shape(state[key])}, not {_shape(own[key])}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    found = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
    return "; ".join(f"{len(keys)} {_keys(keys)} {kind} ({_some(keys)})" for kind, keys in found if keys)


def _fitting(state: State, model: nn.Module) -> State:
    own = model.state_dict()
    return {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}


def _is_path(name: str) -> bool:
    return os.path.exists(name) or os.sep in name or name.endswith(".safetensors")


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"


def _keys(keys: list[str]) -> str:
    return "key is" if len(keys) == 1 else "keys are"


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:_NAMED]) + (", ..." if len(keys) > _NAMED else "")
