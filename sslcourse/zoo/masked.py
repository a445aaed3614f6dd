"""Readers of the checkpoints of masked methods: from their names to those of `sslcourse.nn` and `sslcourse.methods`.

As in `readers.py`, a reader gets the tensors of the file and the model that they are meant for: the whole method, or
the encoder alone, for which it leaves out by name what pre-training needed besides.
"""

from typing import Any

from sslcourse.nn.vit import ViT
from sslcourse.zoo.readers import State, resize_pos


def mae(state: State, model: Any) -> State:
    """MAE: pre-training and fine-tuning files. decoder_X becomes decoder.X; the encoder has timm's names."""
    parts = {"decoder_embed.": "embed.", "decoder_pos_embed": "pos_embed", "decoder_blocks.": "blocks.",
             "decoder_norm.": "norm.", "decoder_pred.": "head.", "mask_token": "mask_token"}  # fmt: skip
    decoder: State = {}
    encoder: State = {}
    for key, value in state.items():
        part = next((p for p in parts if key.startswith(p)), None)
        if part is None:
            encoder[key] = value
        else:
            decoder["decoder." + parts[part] + key.removeprefix(part)] = value
    if isinstance(model, ViT):
        return _for_vit(encoder, model)
    own = {key: value for key, value in model.state_dict().items() if key.startswith("components.")}
    return own | decoder | {f"backbone.{key}": value for key, value in encoder.items()}


def _for_vit(state: State, model: ViT) -> State:
    """A ViT's own tensors: positions and bias tables on its grid, the head and norm that it has."""
    if not hasattr(model.head, "weight"):
        state = {key: value for key, value in state.items() if not key.startswith("head.")}
    if "pos_embed" in state and model.pos_embed is not None:
        state = state | {"pos_embed": resize_pos(state["pos_embed"], model)}
    return state
