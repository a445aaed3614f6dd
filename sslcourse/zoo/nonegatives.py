"""Readers of checkpoints without negatives (BYOL, SimSiam) and of self-distillation (DINO, iBOT, DINOv2).

As in `readers.py`, a reader gets the tensors of the file and the module that they are meant for, and returns the
tensors under that module's names.
"""

import re
from typing import Any

from sslcourse.zoo.readers import State, resize_pos


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

    `net.*` is the same network as online_encoder.net once more and is left out. Its variant with simplicial embeddings
    has them in front of the projector; here they end the backbone, as `sem`.
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
        key = re.sub(r"_encoder\.projector\.0\.(\d)\.", r"_encoder.net.sem.\1.", key)
        key = re.sub(r"_encoder\.projector\.2\.(\d)\.", r"_encoder.projector.\1.", key)
        found = next((old for old in parts if key.startswith(old)), None)
        if found is not None:
            renamed[parts[found] + key.removeprefix(found)] = value
        elif not key.startswith("net."):
            renamed[key] = value
    return renamed


def dino(state: State, model: Any) -> State:
    """DINO: the backbone alone, or the teacher of a training file ("backbone.*" beside "head.*", which is left out)."""
    return _vit(backbone(state), model)


def ibot(state: State, model: Any) -> State:
    """iBOT: as DINO; its mask token is `masked_embed` (1, D). A model without a mask token leaves it out."""
    state = backbone(state)
    return _vit({"mask_token" if key == "masked_embed" else key: value for key, value in state.items()}, model)


def dinov2(state: State, model: Any) -> State:
    """DINOv2: as DINO, with `register_tokens`, and blocks that may be numbered in chunks (blocks.CHUNK.NUMBER)."""
    renamed: State = {}
    for key, value in backbone(state).items():
        key = re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", key)
        renamed["reg_token" if key == "register_tokens" else key] = value
    return _vit(renamed, model)


def dino_head(state: State, model: Any) -> State:
    """The head of a training file of DINO, iBOT or DINOv2 for `DINOHead` or `IBOTHead`: "head.*", or bare names."""
    state = {key.removeprefix("module."): value for key, value in state.items()}
    inside = {key.removeprefix("head."): value for key, value in state.items() if key.startswith("head.")}
    return inside or state


def backbone(state: State) -> State:
    """The part called "backbone.", under bare names; everything but "head." where the file has no such part."""
    state = {key.removeprefix("module."): value for key, value in state.items()}
    inside = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    return inside or {key: value for key, value in state.items() if not key.startswith("head.")}


def _vit(state: State, model: Any) -> State:
    """The mask token in our shape, and positions on the model's grid."""
    mask = state.pop("mask_token", None)
    if mask is not None and model.mask_token is not None:
        state["mask_token"] = mask.reshape(1, 1, -1)
    if "pos_embed" in state:
        state["pos_embed"] = resize_pos(state["pos_embed"], model)
    return state


def _fold_bias(state: State, linear: str, norm: str) -> State:
    """Take the bias of a linear layer in front of batch norm into the norm's running mean: the same function."""
    bias, mean = state.get(f"{linear}.bias"), state.get(f"{norm}.running_mean")
    if bias is None or mean is None:
        return state
    return {k: v for k, v in state.items() if k != f"{linear}.bias"} | {f"{norm}.running_mean": mean - bias}
