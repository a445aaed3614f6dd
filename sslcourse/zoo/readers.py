"""Readers: from the names of an official checkpoint to those of our model.

A reader gets the tensors of the file and the model they are meant for, and returns the tensors under the model's
names. What it leaves out, it leaves out by name: anything else that does not fit is reported by `load`.
"""

from typing import cast

from torch import Tensor

from sslcourse.nn.patches import interpolate_pos
from sslcourse.nn.pvt import PVT
from sslcourse.nn.vit import ViT

State = dict[str, Tensor]


def timm_vit(state: State, model: ViT) -> State:
    """timm's ViT: the same names. Positions are brought to the model's grid; without a classifier, its is left out."""
    if not hasattr(model.head, "weight"):
        state = {key: value for key, value in state.items() if not key.startswith("head.")}
    if "pos_embed" in state:
        state = state | {"pos_embed": resize_pos(state["pos_embed"], model)}
    return state


def resize_pos(pos: Tensor, model: ViT | PVT) -> Tensor:
    """Position embeddings of a square grid, with or without one for CLS, on the model's grid; others as they are."""
    prefix = 0 if isinstance(model, PVT) else int(model.pos_for_class)
    resize = interpolate_pos if isinstance(model, PVT) else model.interpolate
    side = int((pos.shape[1] - prefix) ** 0.5) if pos.ndim == 3 else 0
    if side**2 + prefix != pos.shape[1] or not side:
        return pos  # no square: `load` reports its shape
    return cast(Tensor, resize(pos, *model.grid_size, grid=(side, side)))
