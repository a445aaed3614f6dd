"""Readers of CLIP's and SigLIP's files: OpenAI's, open_clip's, and the model that such a file describes.

OpenAI's and open_clip's files of CLIP keep the text tower at the root; open_clip's other models have it under `text.`,
and SigLIP's image tower is timm's, under `visual.trunk.`. Ours is one layout: `visual.` and `text.`, projections as
linear layers. Weights may be float16 (OpenAI's are, but for norms, embeddings and positions); loading widens them, as
the official code does on a CPU, and `nn.clip.to_half` narrows them again.
"""

import re
from typing import Any, cast

import torch.nn.functional as F
from torch import nn

from sslcourse.errors import InputError
from sslcourse.nn.clip import CLIP, CLIPViT
from sslcourse.nn.clip_resnet import CLIPResNet
from sslcourse.nn.patches import interpolate_pos
from sslcourse.nn.text import TextTransformer, interpolate_text_pos, quick_gelu
from sslcourse.zoo.readers import State, resize_pos

# Numbers that OpenAI's files carry beside the weights, and a mask that old files of open_clip do.
_NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "text.attn_mask")
_HEAD_WIDTH = 64  # files do not say how many heads there are; OpenAI's all have this width


def clip(state: State, model: CLIP) -> State:
    """CLIP's and SigLIP's files under the names of `nn.clip.CLIP`; positions on the model's grid and length."""
    out: State = {}
    for key, value in state.items():
        if key in _NO_WEIGHTS:
            continue
        key = key.replace("visual.trunk.", "visual.")
        if not key.startswith(("visual.", "text.", "logit_")):
            key = f"text.{key}"
        if key in ("visual.proj", "text.text_projection"):  # matrices that stand right of the features
            out[key.replace("text_projection", "proj") + ".weight"] = value.T
        else:
            out[key.replace("text.text_projection.", "text.proj.")] = value
    return _fitted(out, model)


def _fitted(state: State, model: CLIP) -> State:
    """Positions brought to the model's sizes; what has another width is left for `load` to report."""
    name, visual = "visual.positional_embedding", model.visual
    pooled = "visual.attnpool.positional_embedding"
    for key, module in ((name, visual), (pooled, getattr(visual, "attnpool", None))):
        if key in state and module is not None:
            grid = cast(Any, module).grid_size
            side = round(max(len(state[key]) - 1, 0) ** 0.5)
            if side and side**2 + 1 == len(state[key]):
                state[key] = interpolate_pos(state[key][None], *grid, grid=(side, side), antialias=True)[0]
    if "visual.pos_embed" in state:
        state["visual.pos_embed"] = resize_pos(state["visual.pos_embed"], cast(Any, visual))
    if (key := "text.positional_embedding") in state:
        state[key] = interpolate_text_pos(state[key], cast(Any, model.text).context_length)
    for key in ("logit_scale", "logit_bias"):
        if key in state:
            state[key] = state[key].reshape(())
    return state


def model_of(state: State, *, quick: bool = True) -> CLIP:
    """The CLIP that a file of OpenAI's layout describes, untrained: everything but the activation is in the shapes.

    Args:
        state: the tensors of the file.
        quick: whether it was trained with `quick_gelu`: OpenAI's were, most of open_clip's were not.

    Raises:
        InputError: tensors that are no CLIP.
    """
    try:
        out, dim = state["text_projection"].shape[1], state["text_projection"].shape[0]
        act = quick_gelu if quick else F.gelu
        text = TextTransformer(
            len(state["token_embedding.weight"]),
            len(state["positional_embedding"]),
            dim,
            _count(state, r"transformer\.resblocks\.(\d+)\."),
            max(dim // _HEAD_WIDTH, 1),
            out,
            act=act,
        )
        return CLIP(_visual_of(state, out, act), text)
    except (KeyError, IndexError) as error:
        raise InputError(f"these tensors are no CLIP of OpenAI's layout: {error} is missing.") from error


def _visual_of(state: State, out: int, act: Any) -> nn.Module:
    if "visual.proj" not in state:
        width = len(state["visual.layer1.0.conv1.weight"])
        side = round((len(state["visual.attnpool.positional_embedding"]) - 1) ** 0.5)
        layers = [_count(state, rf"visual\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)]
        return CLIPResNet(32 * side, cast(Any, tuple(layers)), width, width * 32 // _HEAD_WIDTH, out)
    dim, _, patch, _ = state["visual.conv1.weight"].shape
    side = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
    depth = _count(state, r"visual\.transformer\.resblocks\.(\d+)\.")
    return CLIPViT(side * patch, patch, dim, depth, max(dim // _HEAD_WIDTH, 1), out, act=act)


def _count(state: State, pattern: str) -> int:
    found = [int(match[1]) for key in state if (match := re.match(pattern, key))]
    return max(found, default=-1) + 1
