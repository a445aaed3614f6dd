"""Readers of the checkpoints of MoCo, MoCo v3 and DenseCL: from their names to those of `sslcourse.methods`.

As in `readers.py`, a reader gets the tensors of the file and the method that they are meant for. Official training
checkpoints wrap all names in "module.", which is taken off.
"""

from typing import Any

from torch import Tensor

State = dict[str, Tensor]


def moco(state: State, model: Any) -> State:
    """MoCo v1 and v2: encoder_q and encoder_k, whose head is `fc`; the queue lies there with one key a column."""
    return _queues(_encoders(state, "encoder_q", "encoder_k", {"fc": "head"}), {"queue": "queue"})


def moco_v3(state: State, model: Any) -> State:
    """MoCo v3: base_encoder and momentum_encoder, whose projector is `fc` (ResNet) or `head` (ViT)."""
    projectors = {"fc": "projector", "head": "projector"}
    return _encoders(state, "base_encoder", "momentum_encoder", projectors)


def densecl(state: State, model: Any) -> State:
    """DenseCL: encoders of a backbone (0) and a neck (1) with two heads; `backbone` is the same tensors once more."""
    parts = {"0": "backbone", "1.mlp": "head", "1.mlp2": "dense_head"}
    state = {key: value for key, value in state.items() if not key.startswith("backbone.")}
    renamed: State = {}
    for key, value in state.items():
        for side, prefix in (("encoder_q.", ""), ("encoder_k.", "key_encoder.")):
            part = next((p for p in parts if key.startswith(f"{side}{p}.")), None)
            if part is not None:
                renamed[prefix + parts[part] + key.removeprefix(side + part)] = value
                break
        else:
            renamed[key] = value
    return _queues(renamed, {"queue": "queue", "queue2": "dense_queue"})


def _encoders(state: State, online: str, target: str, heads: dict[str, str]) -> State:
    """`online.X` becomes backbone.X or, for a head, its name of ours; `target.X` the same below key_encoder."""
    renamed: State = {}
    for key, value in state.items():
        side, _, rest = key.removeprefix("module.").partition(".")
        if side not in (online, target):
            renamed[key.removeprefix("module.")] = value
            continue
        part, _, name = rest.partition(".")
        where = f"{heads[part]}.{_from_zero(part, name)}" if part in heads else f"backbone.{rest}"
        renamed[where if side == online else f"key_encoder.{where}"] = value
    return renamed


def _from_zero(part: str, name: str) -> str:
    """A head of a single linear layer has no number in its name there; ours is a sequence of one."""
    return name if name[:1].isdigit() else f"0.{name}"


def _queues(state: State, names: dict[str, str]) -> State:
    """Official queues are (D, K) with a pointer (1,); ours (K, D) with a pointer ()."""
    renamed: State = {}
    for key, value in state.items():
        base = key.removesuffix("_ptr")
        if base in names:
            pointer = key.endswith("_ptr")
            renamed[f"{names[base]}.ptr" if pointer else f"{names[base]}.keys"] = value[0] if pointer else value.T
        else:
            renamed[key] = value
    return renamed
