"""Readers of checkpoints without negatives (BYOL, SimSiam) and of self-distillation (DINO, iBOT, DINOv2).

As in `readers.py`, a reader gets the tensors of the file and the module that they are meant for, and returns the
tensors under that module's names.
"""

from typing import Any

from torch import Tensor

State = dict[str, Tensor]


def simsiam(state: State, model: Any) -> State:
    """SimSiam: encoder.* with the projector as its `fc`, predictor.*; a training file wraps all in "module."."""
    renamed: State = {}
    for key, value in state.items():
        key = key.removeprefix("module.")
        if key.startswith("encoder.fc."):
            key = key.replace("encoder.fc.", "projector.")
        elif key.startswith("encoder."):
            key = key.replace("encoder.", "backbone.")
        renamed[key] = value
    return _fold_bias(renamed, "projector.6", "projector.7")


def byol_pytorch(state: State, model: Any) -> State:
    """lucidrains' BYOL: online_encoder.{net,projector}, online_predictor, target_encoder.{net,projector}.

    `net.*` is the same network as online_encoder.net once more and is left out.
    """
    parts = {
        "online_encoder.net.": "backbone.",
        "online_encoder.projector.": "projector.",
        "online_predictor.": "predictor.",
        "target_encoder.net.": "target.backbone.",
        "target_encoder.projector.": "target.projector.",
    }
    renamed: State = {}
    for key, value in state.items():
        found = next((old for old in parts if key.startswith(old)), None)
        if found is not None:
            renamed[parts[found] + key.removeprefix(found)] = value
        elif not key.startswith("net."):
            renamed[key] = value
    return renamed


def _fold_bias(state: State, linear: str, norm: str) -> State:
    """Take the bias of a linear layer in front of batch norm into the norm's running mean: the same function."""
    bias, mean = state.get(f"{linear}.bias"), state.get(f"{norm}.running_mean")
    if bias is None or mean is None:
        return state
    return {k: v for k, v in state.items() if k != f"{linear}.bias"} | {f"{norm}.running_mean": mean - bias}
