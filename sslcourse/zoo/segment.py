"""Readers of the checkpoints of SAM and its family. Our modules carry the official names."""

import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.nn.patches import interpolate_pos
from sslcourse.zoo.readers import State


def sam(state: State, model: nn.Module) -> State:
    """SAM and HQ-SAM, whole or a part of it: the same names. Positions are brought to the model's grid.

    Absolute positions (1, g, g, C) are interpolated bicubically, tables of relative ones (L, d) linearly.
    """
    own = model.state_dict()

    def fitted(key: str, value: Tensor) -> Tensor:
        if key not in own or own[key].shape == value.shape or own[key].shape[-1] != value.shape[-1]:
            return value
        if key.rpartition(".")[2] == "pos_embed" and value.ndim == 4:
            (h, w), grid = own[key].shape[1:3], (int(value.shape[1]), int(value.shape[2]))
            return interpolate_pos(value.flatten(1, 2), h, w, grid=grid).view(own[key].shape)
        if key.endswith(("rel_pos_h", "rel_pos_w")):
            return F.interpolate(value.T[None], size=len(own[key]), mode="linear")[0].T
        return value

    return {key: fitted(key, value) for key, value in state.items()}


def mobile_sam(state: State, model: nn.Module) -> State:
    """MobileSAM, whole or its encoder: the same names, without the classifier that the encoder was pre-trained with."""
    unused = ("norm_head.", "head.", "image_encoder.norm_head.", "image_encoder.head.")
    return {key: value for key, value in state.items() if not key.startswith(unused)}


def m2m(state: State, model: nn.Module) -> State:
    """Matting Anything's decoder: spectral norms are called otherwise, and the skip branch."""
    names = {
        ".module.weight_bar": ".weight",
        ".module.weight_u": ".u",
        ".module.weight_v": ".v",
        ".upsample.": ".skip.",
    }

    def renamed(key: str) -> str:
        for theirs, ours in names.items():
            key = key.replace(theirs, ours)
        return key

    return {renamed(key): value for key, value in state.items()}
