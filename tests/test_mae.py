"""MAE: what the encoder may see, what its loss says, that it learns on `Shapes`, and its ablation switches."""

from dataclasses import replace

import pytest
import torch

from sslcourse import methods
from sslcourse.data.load import load
from sslcourse.data.masks import grid_mask
from sslcourse.data.rng import step_generator
from sslcourse.errors import InputError
from sslcourse.losses.masked import mae_loss
from sslcourse.methods.mae import MAE
from sslcourse.nn.patches import patchify
from sslcourse.train import fit, read_log

CPU = MAE.PRESETS["cpu"]
SIDE = 24


def cpu(**changes):
    train = {"warmup_epochs": 0.5, "log_every": 5, "monitor_every": 20, "batch_size": 32, "lr": 8e-3}
    train |= changes.pop("train", {})
    small = {"augment": replace(CPU.augment, size=SIDE), "decoder_depth": 1, "train": replace(CPU.train, **train)}
    return replace(CPU, **(small | changes))


@pytest.fixture(scope="module")
def shapes():
    return load("shapes", "train", size=SIDE, n=640)


def views(module, shapes, n=4):
    return module.views(shapes.images[:n], step_generator(0, 0))


@pytest.mark.parametrize("backbone", ["vit_mini_patch4", "vit_mini_conv8"])
def test_visible_tokens_do_not_depend_on_hidden_pixels(shapes, backbone):
    module = methods.build(MAE, cpu(backbone=backbone))
    x, noise = views(module, shapes)
    x.requires_grad_()
    tokens, mask, _ = module.encode(x, noise)
    weights = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((tokens * weights).sum(), x)
    seen = patchify(gradient, module.backbone.patch_embed.patch_size).abs().amax(dim=2)
    assert (seen[mask] == 0).all()
    assert (seen[~mask] > 0).all()
    assert set(mask.sum(dim=1).tolist()) == {27 if backbone == "vit_mini_patch4" else 7}  # of 36, of 9


def test_encoder_mask_tokens_keep_the_sequence_and_still_hide_pixels(shapes):
    module = methods.build(MAE, cpu(encoder_mask_tokens=True))
    x, noise = views(module, shapes)
    x.requires_grad_()
    tokens, mask, _ = module.encode(x, noise)
    assert tokens.shape[1] == 1 + 36
    weights = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((tokens * weights).sum(), x)
    assert (patchify(gradient, 4).abs().amax(dim=2)[mask] == 0).all()


def test_ratio_0_is_an_autoencoder_with_the_mean_over_all_patches(shapes):
    module = methods.build(MAE, cpu(ratio=0.0, target="pixels"))
    x, noise = views(module, shapes)
    out = module([x, noise])
    assert not out["mask"].any()
    torch.testing.assert_close(out["loss"], (out["pred"] - patchify(x, 4)).square().mean())
    assert torch.equal(module.reconstruct([x, noise]), x)  # nothing is hidden, nothing painted


def test_the_loss_is_over_hidden_patches_only(shapes):
    module = methods.build(MAE, cpu(target="pixels"))
    x, noise = views(module, shapes)
    out = module([x, noise])
    by_hand = [
        (out["pred"][b, n] - patchify(x, 4)[b, n]).square().mean() for b in range(4) for n in range(36)
        if out["mask"][b, n]
    ]  # fmt: skip
    torch.testing.assert_close(out["loss"], torch.stack(by_hand).mean())
    changed = torch.where(out["mask"][..., None], out["pred"], out["pred"] + 100)
    torch.testing.assert_close(mae_loss(changed, patchify(x, 4), out["mask"]), out["loss"])


@pytest.mark.parametrize("mask", ["random", "block", "grid"])
def test_every_mask_hides_three_quarters(shapes, mask):
    module = methods.build(MAE, cpu(mask=mask))
    _, hidden, _ = module.encode(*views(module, shapes))
    assert (hidden.sum(dim=1) == 27).all()
    if mask == "grid":
        assert torch.equal(hidden, grid_mask(6, 6, batch=4).flatten(1))
    else:
        assert not torch.equal(hidden[0], hidden[1])


@pytest.mark.parametrize(
    "change",
    [
        {"target": "pixels"},
        {"target": "pca"},
        {"target": "hog"},
        {"target": "codebook"},
        {"encoder_mask_tokens": True},
        {"decoder_depth": 0},
    ],
)
def test_every_switch_gives_a_finite_loss_and_gradients(shapes, change):
    module = methods.build(MAE, cpu(**change)).train()
    loss = module(views(module, shapes))["loss"]
    loss.backward()
    assert loss.isfinite()
    # In the encoder all but the last norm's CLS matters; positions are fixed.
    grads = [p.grad for p in module.parameters() if p.requires_grad]
    assert all(g is not None and g.isfinite().all() for g in grads)


def test_principal_components_are_those_of_the_first_batch_and_stay(shapes):
    module = methods.build(MAE, cpu(target="pca")).train()
    x, noise = views(module, shapes, 64)
    module([x, noise])
    kept, n = module.target.table.clone(), module.target.values
    assert n == 48  # a patch has no more values
    torch.testing.assert_close(kept @ kept.T, torch.eye(n), rtol=0, atol=1e-4)
    spread = module.target(x).flatten(0, 1).var(dim=0)
    assert (spread.diff() <= 1e-5).all()  # the strongest first
    module([x.flip(0) * 2, noise])
    assert torch.equal(module.target.table, kept)
    with pytest.raises(InputError, match="paint pixels"):
        module.reconstruct([x, noise])


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="did you mean 'normalized'"):
        MAE(replace(CPU, target="normalised"))
    with pytest.raises(InputError, match="visible"):
        MAE(replace(CPU, ratio=1.0))
    with pytest.raises(InputError, match="between 0 and 1"):
        MAE(replace(CPU, ratio=1.5))
    with pytest.raises(InputError, match="grid mask"):
        MAE(replace(CPU, mask="grid", ratio=0.5))
    with pytest.raises(InputError, match="ViT"):
        MAE(replace(CPU, backbone="convnet"))


@pytest.mark.parametrize("name", MAE.PRESETS)
def test_every_preset_builds(name):
    assert MAE(MAE.PRESETS[name]).backbone.num_features > 0


def test_it_learns_on_shapes_in_seconds(shapes, tmp_path):
    config = cpu(target="pixels", train={"steps": 60})
    module = methods.build(MAE, config)
    x = views(module, shapes, 64)
    before = module.eval()(x)["loss"]
    fit(module, shapes, config, tmp_path / "run", progress=False)
    out = module.eval()(x)
    mean = patchify(x[0], 4).mean(dim=(0, 1))
    constant = (patchify(x[0], 4) - mean).square().mean(dim=-1)[out["mask"]].mean()
    assert out["loss"] < 0.75 * before
    assert out["loss"] < 0.8 * constant  # better than painting the mean patch everywhere
    losses = [line["loss"] for line in read_log(tmp_path / "run")]
    assert losses[-1] < losses[0]
