"""BYOL and SimSiam on the loop, and the readers of DINO's, iBOT's and DINOv2's files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sslcourse import methods, zoo
from sslcourse.data.augment import Augment
from sslcourse.data.shapes import Shapes
from sslcourse.errors import InputError
from sslcourse.train import fit
from sslcourse.zoo.entries import ENTRIES


def small(name: str, **changes: Any) -> Any:
    config = methods.get(name).PRESETS["cpu"]
    train = replace(config.train, steps=40, batch_size=32, lr=5e-3, warmup_epochs=0.5, monitor_every=40)
    return replace(config, augment=Augment(16, scale=(0.5, 1.0), blur=0.0), train=train, **changes)


@pytest.fixture(scope="module")
def images() -> Any:
    return Shapes("train", size=16).as_images(640)


@pytest.mark.parametrize("name", ["byol", "simsiam"])
def test_small_steps_lower_the_loss(name: str, images: Any, tmp_path: Path) -> None:
    config = small(name)
    last = fit(name, images, config, tmp_path, progress=False)
    torch.manual_seed(0)
    model = methods.build(name, config)
    views = model.views(images.images[:64], torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = float(model(views)["loss"])
    assert last["loss"] < before - 0.1 * abs(before)


def test_the_target_of_byol_follows_and_takes_no_gradient() -> None:
    model = methods.build("byol", small("byol", m=0.5))
    views = model.views(torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8), torch.Generator().manual_seed(0))
    model(views)["loss"].backward()
    assert all(p.grad is None for p in model.target.parameters())
    online, target = model.projector[0].weight, model.target["projector"][0].weight
    with torch.no_grad():
        online.add_(1.0)
    old = target.clone()
    model.after_step(0, 10)
    torch.testing.assert_close(target, 0.5 * old + 0.5 * online.detach())


def test_simsiam_without_the_stop_gradient_trains_both_sides() -> None:
    views = [torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(s)) for s in range(2)]
    grads = []
    for stop in (True, False):
        model = methods.build("simsiam", small("simsiam", stop_gradient=stop, predictor=False))
        model(views)["loss"].backward()
        grads.append(model.projector[0].weight.grad.clone())
    # Without a predictor the loss is symmetric: the gradient through both sides is twice that through one.
    torch.testing.assert_close(grads[1], 2 * grads[0], rtol=1e-3, atol=1e-6)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(InputError, match="m in"):
        methods.build("byol", small("byol", m=1.5))


# Readers


def official(name: str, side: int) -> dict[str, Tensor]:
    """A state dict in the published layout, by renaming that of our model with random weights."""
    state = {key: value.clone() for key, value in ENTRIES[name].build(side).state_dict().items()}
    if "mask_token" in state:
        state["mask_token"] = state["mask_token"][0]
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
    return state


def wrapped(name: str, state: dict[str, Tensor]) -> Any:
    if name.startswith("dinov2"):
        return state
    prefixed = {f"backbone.{key}": value for key, value in state.items()}
    return {"teacher": prefixed | {"head.mlp.0.weight": torch.zeros(2, 2)}, "epoch": 3}


@pytest.mark.parametrize("name", ["dino_vit_small_patch16", "dinov2_vit_small_patch14_reg4"])
def test_official_layouts_load_and_positions_follow_the_image(name: str, tmp_path: Path) -> None:
    entry, side = ENTRIES[name], ENTRIES[name].image_size
    torch.manual_seed(0)
    state = official(name, side)
    torch.save(wrapped(name, state), tmp_path / "file.pth")
    model: Any = zoo.load(name, tmp_path / "file.pth")
    for key in ("pos_embed", "blocks.3.attn.qkv.weight", "cls_token"):
        assert torch.equal(model.state_dict()[key], state[key])
    patch = model.patch_embed.patch_size
    small_model: Any = zoo.load(name, tmp_path / "file.pth", image_size=4 * patch)
    assert small_model.pos_embed.shape[1] == 1 + 16
    x = torch.randn(1, 3, 4 * patch, 4 * patch, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(small_model(x), model(x), rtol=1e-4, atol=1e-5)
    assert entry.megabytes == pytest.approx(sum(p.numel() for p in model.parameters()) * 4 / 1e6, rel=0.02)


def test_ibot_and_chunked_blocks_are_renamed() -> None:
    from sslcourse.nn.vit import ViT
    from sslcourse.zoo import nonegatives as readers

    vit = ViT(16, 4, dim=12, depth=2, n_heads=3, mask_token=True, layer_scale=0.1)
    state = {"masked_embed": torch.ones(1, 12), "head.last_layer.weight_g": torch.zeros(1)}
    assert {k: tuple(v.shape) for k, v in readers.ibot(state, vit).items()} == {"mask_token": (1, 1, 12)}
    chunked = readers.dinov2({"blocks.0.1.ls1.gamma": torch.ones(12), "mask_token": torch.ones(1, 12)}, vit)
    assert sorted(chunked) == ["blocks.1.ls1.gamma", "mask_token"]
    plain = ViT(16, 4, dim=12, depth=2, n_heads=3)
    assert readers.ibot({"masked_embed": torch.ones(1, 12)}, plain) == {}


def test_a_name_without_a_file_says_where_it_is_published() -> None:
    with pytest.raises(InputError, match=r"facebookresearch/dinov2.*89 MB"):
        zoo.load("dinov2_vit_small_patch14")
