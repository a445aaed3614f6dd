"""Readers of the checkpoints of masked methods: from their names to those of `sslcourse.nn` and `sslcourse.methods`.

As in `readers.py`, a reader gets the tensors of the file and the model that they are meant for: the whole method, or
the encoder alone, for which it leaves out by name what pre-training needed besides.
"""

import re
from typing import Any

import torch

from sslcourse.nn.pvt import PVT
from sslcourse.nn.relative import resize_relative
from sslcourse.nn.swin import Swin
from sslcourse.nn.video_vit import VideoViT
from sslcourse.nn.vit import ViT
from sslcourse.zoo.readers import State, resize_pos

# Official name of a decoder's part: ours.
_MAE_DECODER = {
    "decoder_embed.": "embed.",
    "decoder_pos_embed": "pos_embed",
    "decoder_blocks.": "blocks.",
    "decoder_norm.": "norm.",
    "decoder_pred.": "head.",
    "mask_token": "mask_token",
}
_VIDEO_DECODER = ("decoder.", "encoder_to_decoder.", "mask_token", "clip_decoder.")


def mae(state: State, model: Any) -> State:
    """MAE: pre-training and fine-tuning files. decoder_X becomes decoder.X; the encoder has timm's names."""
    encoder, decoder = split_decoder(state)
    if isinstance(model, ViT):
        return _for_vit(encoder, model)
    own = {key: value for key, value in model.state_dict().items() if key.startswith("target.")}
    return own | decoder | {f"backbone.{key}": value for key, value in encoder.items()}


def split_decoder(state: State) -> tuple[State, State]:
    """MAE's names: (encoder, decoder under our names)."""
    decoder: State = {}
    encoder: State = {}
    for key, value in state.items():
        part = next((p for p in _MAE_DECODER if key.startswith(p)), None)
        if part is None:
            encoder[key] = value
        else:
            decoder["decoder." + _MAE_DECODER[part] + key.removeprefix(part)] = value
    return encoder, decoder


def beit(state: State, model: Any) -> State:
    """BEiT: pre-training (lm_head) and fine-tuning files; tables of relative positions fit the model's grid."""
    head = {key.replace("lm_head.", "head."): value for key, value in state.items() if key.startswith("lm_head.")}
    encoder = {key: value for key, value in state.items() if not key.startswith("lm_head.")}
    if isinstance(model, ViT):
        return _for_vit(beit_names(encoder), model)
    encoder = _for_vit(beit_names(encoder), model.backbone)
    return _own(model, "target.") | head | {f"backbone.{key}": value for key, value in encoder.items()}


def simmim(state: State, model: Any) -> State:
    """SimMIM with a ViT: encoder.X and decoder.0, or the encoder alone."""
    encoder = {key.removeprefix("encoder."): v for key, v in state.items() if not key.startswith("decoder.")}
    if isinstance(model, ViT):
        return _for_vit(beit_names(encoder), model)
    head = {key.replace("decoder.0.", "head."): v for key, v in state.items() if key.startswith("decoder.")}
    encoder = _for_vit(beit_names(encoder), model.backbone)
    return head | {f"backbone.{key}": value for key, value in encoder.items()}


def maskfeat(state: State, model: Any) -> State:
    """MaskFeat with a ViT: the norm before its linear head is the encoder's last norm."""
    names = {"pred_head.transforms.0.0.": "backbone.norm.", "pred_head.projections.0.": "head."}
    renamed: State = {}
    for key, value in state.items():
        part = next((p for p in names if key.startswith(p)), None)
        if part is not None:
            renamed[names[part] + key.removeprefix(part)] = value
        elif not key.startswith("hogs."):  # the fixed filters of the target
            renamed[f"backbone.{key}"] = value
    if isinstance(model, ViT):
        encoder = {k.removeprefix("backbone."): v for k, v in renamed.items() if k.startswith("backbone.")}
        return _for_vit(encoder, model)
    return _own(model, "target.") | renamed


def swin(state: State, model: Any) -> State:
    """SimMIM with a Swin, or a Swin alone: blocks are one list, and merging is the end of a stage's last block."""
    whole = not isinstance(model, Swin)
    encoder: Swin = model.backbone if whole else model
    stages = sorted({int(m[1]) for key in state if (m := re.search(r"layers\.(\d+)\.blocks", key))})
    depth = {
        s: 1 + max(int(m[1]) for k in state if (m := re.search(rf"layers\.{s}\.blocks\.(\d+)", k))) for s in stages
    }
    first = {s: sum(depth[r] for r in stages if r < s) for s in stages}
    renamed: State = {}
    for key, value in state.items():
        if key.endswith(("relative_position_index", "attn_mask")) or (key.startswith("decoder.") and not whole):
            continue
        key = key.removeprefix("encoder.").replace("decoder.0.", "head.").replace("patch_embed.norm", "patch_norm")
        key = re.sub(r"layers\.(\d+)\.blocks\.(\d+)", lambda m: f"blocks.{first[int(m[1])] + int(m[2])}", key)
        key = re.sub(
            r"layers\.(\d+)\.downsample", lambda m: f"blocks.{first[int(m[1])] + depth[int(m[1])] - 1}.merge", key
        )
        renamed[key.replace("attn.relative_position_bias_table", "attn.rel_pos.table")] = value
    own = encoder.state_dict()
    for key, value in renamed.items():  # windows of another side than the file's
        if key.endswith("rel_pos.table") and key in own and len(value) != len(own[key]):
            old, new = ((round(len(table) ** 0.5) + 1) // 2 for table in (value, own[key]))
            renamed[key] = resize_relative(value, (old, old), (new, new))
    if whole:
        return {key if key.startswith("head.") else f"backbone.{key}": value for key, value in renamed.items()}
    return {key: value for key, value in renamed.items() if key in own or key != "mask_token"}


def ummae(state: State, model: Any) -> State:
    """UM-MAE with a Swin, a PVT or a ViT; positions of the last two fit the model's grid."""
    encoder, renamed = split_decoder(state)
    network = model if isinstance(model, (Swin, PVT, ViT)) else model.backbone
    if "pos_embed" in encoder and isinstance(network, (PVT, ViT)):  # interpolated, as the fine-tuning code does
        encoder["pos_embed"] = resize_pos(encoder["pos_embed"], network)
    token = encoder.pop("vis_mask_token", getattr(model, "token", None))
    if token is not None:
        renamed["token"] = token
    for key, value in encoder.items():
        key = key.replace("patch_embed.norm", "patch_norm")
        # Merging stands before the first block of a stage there, after the last block of the stage before here.
        key = re.sub(r"blocks\.(\d+)\.downsample", lambda m: f"blocks.{int(m[1]) - 1}.merge", key)
        if ".posmlp." in key:  # 1 x 1 convolutions there, linear layers here
            key, value = key.replace(".posmlp.", ".rel_mlp."), value.flatten(1) if value.ndim > 1 else value
        renamed[f"backbone.{key}"] = value
    if network is model:
        return {key.removeprefix("backbone."): v for key, v in renamed.items() if key.startswith("backbone.")}
    return renamed


def videomae(state: State, model: Any) -> State:
    """VideoMAE: pre-training (encoder.*, decoder.*) and fine-tuning files."""
    state = beit_names(state)
    if isinstance(model, VideoViT):
        encoder = {key.removeprefix("encoder."): v for key, v in state.items() if not key.startswith(_VIDEO_DECODER)}
        own = model.state_dict()
        spare = ("head.", "norm.", "fc_norm.")
        return {key: value for key, value in encoder.items() if key in own or not key.startswith(spare)}
    names = {"encoder_to_decoder.": "decoder.embed.", "encoder.": "backbone.", "mask_token": "decoder.mask_token"}
    renamed = _own(model, "decoder.pos_embed")  # computed, so in no file
    for key, value in state.items():
        part = next((p for p in names if key.startswith(p)), "")
        renamed[names.get(part, "") + key.removeprefix(part)] = value
    return renamed


def umt(state: State, model: Any) -> State:
    """Unmasked Teacher: encoder.* and clip_decoder.*, what maps each layer to the teacher's width."""
    state = beit_names(state)
    encoder = {key.removeprefix("encoder."): v for key, v in state.items() if not key.startswith("clip_decoder.")}
    if isinstance(model, VideoViT):
        return encoder
    heads = {key.replace("clip_decoder.", "heads."): v for key, v in state.items() if key.startswith("clip_decoder.")}
    heads = {key.replace(".head.", ".0.").replace(".norm.", ".1."): value for key, value in heads.items()}
    return _own(model, "teacher.") | heads | {f"backbone.{key}": value for key, value in encoder.items()}


def ijepa(state: State, model: Any) -> State:
    """I-JEPA: encoder, target_encoder and predictor of a training file; a ViT gets the target encoder."""
    state = {key.replace("module.", ""): value for key, value in state.items()}
    if isinstance(model, ViT):
        target = {k.removeprefix("target_encoder."): v for k, v in state.items() if k.startswith("target_encoder.")}
        return _for_vit(target or state, model)
    parts = {"encoder.": "backbone.", "target_encoder.": "target.", "predictor.predictor_proj.": "predictor.head.",
             "predictor.mask_token": "predictor.mask_token", "predictor.predictor_": "predictor."}  # fmt: skip
    renamed: State = {}
    for key, value in state.items():
        part = next(p for p in parts if key.startswith(p))
        renamed[parts[part] + key.removeprefix(part)] = value
    return renamed


def dvae(state: State, model: Any) -> State:
    """The DiscreteVAE of BEiT's repository: the names are ours."""
    return state


def dalle(state: State, model: Any) -> State:
    """OpenAI's encoder or decoder, as a state dict: parameters are called w and b there."""
    renamed: State = {}
    for key, value in state.items():
        key = re.sub(r"\.w$", ".weight", re.sub(r"\.b$", ".bias", key.removeprefix("blocks.")))
        key = key.replace("output.conv.", "output.")
        key = re.sub(r"^group_(\d+)\.block_(\d+)", lambda m: f"groups.{int(m[1]) - 1}.{int(m[2]) - 1}", key)
        renamed[re.sub(r"res_path\.conv_(\d+)", lambda m: f"res_path.{int(m[1]) - 1}", key)] = value
    return renamed


def beit_names(state: State) -> State:
    """A ViT of BEiT, SimMIM, VideoMAE or Unmasked Teacher under our names.

    Their layers of queries, keys and values have biases for queries and values only. Ours has a third for keys, which
    is 0: it would add the same to all logits of a query, so the softmax would not see it.
    """
    renamed: State = {}
    for key, value in state.items():
        if key.endswith(("relative_position_index", ".v_bias")):
            continue
        if key.endswith(".q_bias"):
            v_bias = state[key.removesuffix("q_bias") + "v_bias"]
            renamed[key.removesuffix("q_bias") + "qkv.bias"] = torch.cat([value, torch.zeros_like(value), v_bias])
            continue
        key = re.sub(r"\.gamma_([12])$", r".ls\1.gamma", key)
        key = key.replace("rel_pos_bias.relative_position_bias_table", "rel_pos.table")
        renamed[key.replace("attn.relative_position_bias_table", "attn.rel_pos.table")] = value
    return renamed


def _own(model: Any, prefix: str) -> State:
    """Tensors of the model that no official file has."""
    return {key: value for key, value in model.state_dict().items() if key.startswith(prefix)}


def _for_vit(state: State, model: ViT) -> State:
    """A ViT's own tensors: positions and bias tables on its grid, the head, norm and mask token that it has."""
    own = model.state_dict()
    spare = ("head.", "norm.", "fc_norm.", "mask_token")
    state = {key: value for key, value in state.items() if key in own or not key.startswith(spare)}
    if "pos_embed" in state and model.pos_embed is not None:
        state = state | {"pos_embed": resize_pos(state["pos_embed"], model)}
    shared = state.get("rel_pos.table")
    if shared is not None and "blocks.0.attn.rel_pos.table" in own:  # one table of pre-training, one for each block
        state = {key: value for key, value in state.items() if key != "rel_pos.table"}
        state |= {f"blocks.{i}.attn.rel_pos.table": shared.clone() for i in range(len(model.blocks))}
    return {key: _resized(value, model) if key.endswith("rel_pos.table") else value for key, value in state.items()}


def _resized(table: torch.Tensor, model: ViT) -> torch.Tensor:
    """A table of a square grid on the model's grid."""
    side = (round((len(table) - 3 * bool(model.num_prefix)) ** 0.5) + 1) // 2
    return resize_relative(table, (side, side), model.grid_size)
