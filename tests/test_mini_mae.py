"""MiniMAE, the network of lab 7, is MAE: with MAE's weights it has the same loss, prediction and mask."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sslcourse.data.augment import Augment
from sslcourse.errors import InputError
from sslcourse.methods.mae import MAE
from sslcourse.nn.mini_mae import MiniMAE
from sslcourse.nn.patches import patchify
from sslcourse.nn.vit import ViT

SIDE, P, DIM, WIDTH, DEPTH = 24, 4, 32, 16, 2


def weights_of(mae: MAE) -> dict[str, Tensor]:
    """The state dict of a MiniMAE with the weights of a MAE."""
    state = mae.state_dict()
    kernel = state["backbone.patch_embed.proj.weight"]
    mini = {
        "embed.weight": kernel.permute(0, 2, 3, 1).flatten(1),  # channels come last in a patch
        "embed.bias": state["backbone.patch_embed.proj.bias"],
        "cls": state["backbone.cls_token"],
        "pos": state["backbone.pos_embed"],
        "mask_token": state["decoder.mask_token"],
        "decoder_pos": state["decoder.pos_embed"],
    }
    for ours, theirs in (("narrow", "decoder.embed"), ("predict", "decoder.head")):
        mini |= {f"{ours}.{kind}": state[f"{theirs}.{kind}"] for kind in ("weight", "bias")}
    names = {
        "norm1": "norm1",
        "norm2": "norm2",
        "self_attn.out_proj": "attn.proj",
        "linear1": "mlp.fc1",
        "linear2": "mlp.fc2",
    }
    for ours, theirs, depth in (("encoder", "backbone", DEPTH), ("decoder", "decoder", 1)):
        for i in range(depth):
            block, kinds = f"{theirs}.blocks.{i}", ("weight", "bias")
            mini |= {f"{ours}.{i}.{a}.{kind}": state[f"{block}.{b}.{kind}"] for a, b in names.items() for kind in kinds}
            mini |= {f"{ours}.{i}.self_attn.in_proj_{kind}": state[f"{block}.attn.qkv.{kind}"] for kind in kinds}
        mini |= {f"{ours}.{depth}.{kind}": state[f"{theirs}.norm.{kind}"] for kind in ("weight", "bias")}
    return mini


@pytest.fixture
def mae() -> MAE:
    small = replace(MAE.PRESETS["cpu"], decoder_dim=WIDTH, decoder_depth=1, target="pixels", augment=Augment(SIDE))
    torch.manual_seed(0)
    mae = MAE(small, ViT(SIDE, P, dim=DIM, depth=DEPTH, n_heads=4))
    for p in mae.parameters():  # so that no bias and no token is 0
        p.data += 0.1 * torch.randn(p.shape)
    return mae


@pytest.mark.parametrize("ratio", [0.25, 0.75, 0.9])
def test_it_is_mae(mae: MAE, ratio: float) -> None:
    mae.config = replace(mae.config, ratio=ratio)
    mini = MiniMAE((SIDE // P) ** 2, P * P * 3, DIM, DEPTH, WIDTH, 1, ratio)
    mini.load_state_dict(weights_of(mae))
    x, noise = torch.randn(3, 3, SIDE, SIDE), torch.rand(3, (SIDE // P) ** 2)
    want = mae([x, noise])
    loss, pred, mask = mini(patchify(x, P), noise)
    torch.testing.assert_close(pred, want["pred"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, want["loss"])
    assert torch.equal(mask, want["mask"])


def test_hidden_patches_change_the_loss_but_not_the_prediction() -> None:
    mini, noise = MiniMAE(9, 12, 16, 1, 16), torch.rand(2, 9)
    patches = torch.randn(2, 9, 12)
    loss, pred, mask = mini(patches, noise)
    other = torch.where(mask[..., None], patches + 1, patches)
    assert torch.equal(mini(other, noise)[1], pred)
    assert mini(other, noise)[0] != loss


def test_noise_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="a number a token"):
        MiniMAE(9, 12, 16, 1, 16)(torch.randn(2, 9, 12), torch.rand(2, 8))
