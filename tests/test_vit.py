"""The ViT equals timm's with timm's weights; its pure functions equal their definitions."""

import json
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.nn.backbones import vit
from sslcourse.nn.patches import interpolate_pos, keep_visible, patchify, unpatchify
from sslcourse.nn.vit import SIZES, ViT, attention

timm = pytest.importorskip("timm")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def perturb(model: torch.nn.Module) -> torch.nn.Module:
    """Move every parameter from its start, so that no term hides behind a 0 or a 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def small(**options) -> ViT:
    return perturb(ViT(**{"image_size": 32, "patch_size": 8, "dim": 24, "depth": 3, "n_heads": 3} | options))


# --- patches ---------------------------------------------------------------------------------------------------------


def test_patchify_of_a_non_square_image_pixel_by_pixel():
    x = noise(2, 3, 8, 12)
    tokens = patchify(x, 4)
    assert tokens.shape == (2, 6, 48)
    for row in range(2):
        for column in range(3):
            patch = x[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            assert torch.equal(tokens[:, 3 * row + column], patch.permute(0, 2, 3, 1).reshape(2, -1))


def test_unpatchify_undoes_patchify_also_on_non_contiguous_input():
    x = noise(2, 12, 8, 5).transpose(1, 3)  # (2, 5, 8, 12)
    assert torch.equal(unpatchify(patchify(x, 4), 4, 2, 3), x)


def test_patchify_is_the_convolution_of_the_patch_embedding():
    x, model = noise(2, 3, 16, 24), small()
    weight = model.patch_embed.proj.weight.permute(0, 2, 3, 1).flatten(1)  # channels last, as the patches
    expected = patchify(x, 8) @ weight.T + model.patch_embed.proj.bias
    torch.testing.assert_close(model.patch_embed(x), expected, rtol=1e-4, atol=1e-5)


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="8 x 10 is no multiple"):
        patchify(noise(1, 3, 8, 10), 4)
    with pytest.raises(InputError, match="6 tokens of 48 values for 3 x 3 patches"):
        unpatchify(noise(1, 6, 48), 4, 3, 3)
    with pytest.raises(InputError, match="30 x 32 px"):
        small()(noise(1, 3, 30, 32))


def test_keep_visible():
    tokens, mask = noise(2, 4, 3), torch.tensor([[True, False, False, True], [False, True, True, False]])
    assert torch.equal(keep_visible(tokens, mask), torch.stack([tokens[0, 1:3], tokens[1, [0, 3]]]))
    with pytest.raises(InputError, match="equally many"):
        keep_visible(tokens, torch.tensor([[True, False, False, True], [False, True, False, False]]))


# --- positions -------------------------------------------------------------------------------------------------------


def test_interpolate_pos_leaves_cls_and_its_own_grid_alone():
    pos = noise(1, 17, 6)
    assert interpolate_pos(pos, 4, 4) is pos
    assert torch.equal(interpolate_pos(pos, 7, 3)[:, :1], pos[:, :1])
    assert interpolate_pos(pos, 7, 3).shape == (1, 22, 6)


def test_interpolate_pos_does_not_transpose_the_grid():
    row = torch.arange(4.0)[:, None].expand(4, 4)  # channel 0 holds the row, channel 1 the column
    grid = torch.stack([row, row.T], dim=-1).reshape(1, 16, 2)
    out = interpolate_pos(torch.cat([torch.zeros(1, 1, 2), grid], dim=1), 8, 4)[0, 1:].reshape(8, 4, 2)
    assert (out[1:, :, 0] > out[:-1, :, 0]).all()
    torch.testing.assert_close(out[..., 1], torch.arange(4.0).expand(8, 4), rtol=0, atol=1e-5)
    back = interpolate_pos(noise(1, 15, 2), 6, 10, grid=(3, 5))
    assert back.shape == (1, 60, 2)


def test_interpolate_pos_keeps_the_type_and_computes_in_float32():
    pos = noise(1, 17, 6).bfloat16()
    out = interpolate_pos(pos, 8, 8)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, interpolate_pos(pos.float(), 8, 8).bfloat16())


def test_interpolate_pos_refuses_what_is_no_grid():
    with pytest.raises(InputError, match="16 embeddings"):
        interpolate_pos(noise(1, 16, 2), 8, 8)
    with pytest.raises(InputError, match="10 embeddings, not those of a 4 x 4 grid"):
        interpolate_pos(noise(1, 10, 2), 8, 8, grid=(4, 4))


# --- attention -------------------------------------------------------------------------------------------------------


def test_attention_head_by_head():
    x, w, bias = noise(2, 5, 12), noise(36, 12, seed=1), noise(36, seed=2)
    out, maps = attention(x, w, 3, return_map=True, bias=bias)
    q, k, v = (x @ w.T + bias).split(12, dim=-1)
    for head in range(3):
        own = slice(4 * head, 4 * head + 4)
        weights = (q[..., own] @ k[..., own].transpose(1, 2) / 2).softmax(-1)  # sqrt(D / heads) = 2
        torch.testing.assert_close(maps[:, head], weights)
        torch.testing.assert_close(out[..., own], weights @ v[..., own])


def test_attention_is_the_same_with_and_without_its_map():
    x, w = noise(2, 7, 12), noise(36, 12, seed=1)
    torch.testing.assert_close(attention(x, w, 4), attention(x, w, 4, return_map=True)[0])
    with pytest.raises(InputError, match="5 heads"):
        attention(x, w, 5)


# --- the model against timm ------------------------------------------------------------------------------------------

TIMM = {
    "plain": ({}, {}),
    "layer_scale": ({"init_values": 0.1}, {"layer_scale": 0.1}),
    "registers": (
        {"reg_tokens": 4, "no_embed_class": True, "init_values": 0.1},
        {"registers": 4, "pos_for_class": False, "layer_scale": 0.1},
    ),
    "registers_average_pool": (
        {"reg_tokens": 4, "no_embed_class": True, "class_token": False, "global_pool": "avg"},
        {"registers": 4, "pos_for_class": False, "class_token": False, "pool": "avg"},
    ),
    "no_qkv_bias_classifier": ({"qkv_bias": False, "num_classes": 7}, {"qkv_bias": False, "n_classes": 7}),
}


@pytest.mark.parametrize("variant", TIMM)
@pytest.mark.parametrize("size", [(32, 32), (48, 48), (24, 40)])
def test_equals_timm_with_timms_weights(variant, size):
    theirs_options, ours_options = TIMM[variant]
    theirs = timm.models.VisionTransformer(
        **{"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 0}
        | {"dynamic_img_size": True}
        | theirs_options
    )
    perturb(theirs)
    ours = small(interpolate=partial(interpolate_pos, antialias=True), **ours_options)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = noise(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(ours.forward_features(x), theirs.forward_features(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_named_sizes_have_timms_keys_and_numbers(name):
    theirs = timm.create_model(f"vit_{name}_patch16_224", num_classes=0).eval()
    dim, depth, n_heads = SIZES[name]
    ours = ViT(dim=dim, depth=depth, n_heads=n_heads).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = noise(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_intermediate_layers_and_last_attention():
    model, x = small(registers=2), noise(2, 3, 32, 32)
    with torch.no_grad():
        layers = model.get_intermediate_layers(x, n=2)
        assert [layer.shape for layer in layers] == [(2, 19, 24)] * 2
        assert torch.equal(layers[-1], model.forward_features(x))
        before_last = model.blocks[1](model.blocks[0](model.embed(x)))
        assert torch.equal(layers[0], model.norm(before_last))
        maps = model.get_last_attention(x)
        assert maps.shape == (2, 3, 19, 19)
        torch.testing.assert_close(maps.sum(-1), torch.ones(2, 3, 19))
        normed = model.blocks[2].norm1(before_last)
        expected = attention(normed, model.blocks[2].attn.qkv.weight, 3, True, bias=model.blocks[2].attn.qkv.bias)[1]
        assert torch.equal(maps, expected)


# --- masks, drop path ------------------------------------------------------------------------------------------------


def test_a_mask_without_a_mask_token_leaves_patches_out():
    model, x = small(), noise(2, 3, 32, 32)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, :12], mask[1, 4:] = True, True
    hidden = x.clone()  # what is hidden cannot be seen
    hidden[0, :, :24], hidden[1, :, 8:] = 7.0, -7.0
    with torch.no_grad():
        tokens = model.forward_features(x, mask)
        assert tokens.shape == (2, 1 + 4, 24)
        torch.testing.assert_close(model.forward_features(hidden, mask), tokens)
        nothing = torch.zeros(2, 16, dtype=torch.bool)
        torch.testing.assert_close(model.forward_features(x, nothing), model.forward_features(x))


def test_a_mask_with_a_mask_token_replaces_patches_and_keeps_their_place():
    model, x = small(mask_token=True), noise(2, 3, 32, 32)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[:, 5] = True
    with torch.no_grad():
        embedded = model.embed(x, mask)
        assert torch.equal(embedded[:, 1 + 5], (model.mask_token[:, 0] + model.pos_embed[:, 1 + 5]).expand(2, -1))
        rest = [i for i in range(17) if i != 6]
        assert torch.equal(embedded[:, rest], model.embed(x)[:, rest])
    with pytest.raises(InputError, match=r"\(2, 16\)"):
        model(x, mask[:, :9])


def test_drop_path_keeps_the_mean_and_draws_from_the_generator():
    model, x = small(drop_path=0.5), noise(2, 3, 32, 32)
    assert torch.equal(model(x), model(x))  # eval mode drops nothing
    model.train()
    before = torch.get_rng_state()
    a, b, c = (model(x, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)  # what the training loop does, for dropout and for this
        assert torch.equal(model(x), a)
    keep = model._keep(20_000, torch.Generator().manual_seed(0), torch.device("cpu"))
    for factors, rate in zip(keep, [0, 0.25, 0.5], strict=True):
        expected = torch.tensor([0.0, 1 / (1 - rate)]) if rate else torch.ones(1)
        torch.testing.assert_close(factors.unique(), expected)
        assert abs(float(factors.mean()) - 1) < 0.02


def test_every_parameter_learns():
    model = ViT(32, 8, dim=24, depth=2, n_heads=3, registers=2, mask_token=True, layer_scale=0.1, n_classes=5)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[:, :3] = True
    model(noise(2, 3, 32, 32), mask).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_a_model_without_a_class_token_cannot_pool_it():
    with pytest.raises(InputError, match="pool='avg'"):
        ViT(class_token=False)


# --- official numbers ------------------------------------------------------------------------------------------------


def test_equals_the_official_dino_vit_at_three_sizes():
    if not (folder := os.environ.get("SSLCOURSE_GOLDEN")):
        pytest.skip("SSLCOURSE_GOLDEN is not set")
    from safetensors.torch import load_file

    case = Path(folder) / "masked" / "dino_vit"
    tensors = load_file(case.with_suffix(".safetensors"))
    h = json.loads(case.with_suffix(".json").read_text())["hyperparameters"]
    model = ViT(
        h["img"], h["p"], dim=h["d"], depth=h["dep"], n_heads=h["h"], interpolate=partial(interpolate_pos, offset=0.1)
    ).eval()
    prefix = "state/backbone."
    model.load_state_dict({key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)})
    with torch.no_grad():
        for k in range(3):
            x = tensors[f"x{k}"]
            for got, want in [
                (model(x), "cls"),
                (model.get_intermediate_layers(x, n=2)[-1], "tokens"),
                (model.get_last_attention(x), "attn"),
            ]:
                torch.testing.assert_close(got, tensors[f"{want}{k}"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["vit_mini_conv8", "vit_mini_hybrid8"])
def test_with_a_stem_of_convolutions_hidden_pixels_reach_nobody(name: str) -> None:
    g = torch.Generator().manual_seed(0)
    mask = torch.rand(2, 16, generator=g).argsort(dim=1) < 10
    for mask_token in (True, False):
        model = vit(name, 32, mask_token=mask_token).eval()
        x = torch.randn(2, 3, 32, 32, generator=g, requires_grad=True)
        model.forward_features(x, mask).square().sum().backward()
        hidden = mask.view(2, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3).expand_as(x)
        assert x.grad is not None
        assert not x.grad[hidden].any()
        assert x.grad[~hidden].all()
    assert vit(name, 32)(torch.zeros(1, 3, 16, 24)).shape == (1, 128)


def test_a_stem_of_convolutions_halves_its_input() -> None:
    with pytest.raises(InputError, match="halves its input"):
        ViT(36, 12, dim=64, depth=1, n_heads=4, stem="conv")
