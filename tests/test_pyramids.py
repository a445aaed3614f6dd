"""Swin, PVT and UM-MAE: windows against a loop, what stays together, what the encoder may see, that it learns."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from sslcourse import methods
from sslcourse.data.load import load
from sslcourse.data.masks import random_mask, uniform_sampling
from sslcourse.data.rng import step_generator
from sslcourse.errors import InputError
from sslcourse.methods.simmim import SimMIM
from sslcourse.methods.ummae import UMMAE
from sslcourse.nn.backbones import NAMES, backbone, masked_backbone
from sslcourse.nn.patches import compact, patchify, restore_order
from sslcourse.nn.relative import resize_relative
from sslcourse.nn.swin import Swin, coded, from_windows, shift_mask, to_windows
from sslcourse.train import fit

CPU = UMMAE.PRESETS["cpu"]
PRESETS = {"swin": CPU, "pvt": UMMAE.PRESETS["cpu_pvt"], "vit": replace(CPU, backbone="vit_mini_patch4")}
EACH = pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)


@pytest.fixture(scope="module")
def shapes():
    return load("shapes", "train", size=32, n=640)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- the networks ----------------------------------------------------------------------------------------------------


def test_windows_and_back_is_the_identity():
    x = numbers(2, 6, 8, 3)
    windows = to_windows(x, 2)
    assert windows.shape == (2, 12, 4, 3)
    assert torch.equal(windows[1, 5, 2], x[1, 3, 2])  # window (1, 1): rows 2-3, columns 2-3; its third token is (3, 2)
    assert torch.equal(from_windows(windows, 2, 6, 8), x)


def test_a_shifted_window_never_joins_opposite_ends_of_the_map():
    side, shift, n = 4, 2, 8
    number = torch.arange(n * n).view(1, n, n, 1).roll((-shift, -shift), dims=(1, 2))
    windows, mask = to_windows(number, side)[0, :, :, 0], shift_mask(n, n, side, shift)
    for window, allowed in zip(windows, mask == 0, strict=True):
        row, column = window // n, window % n
        near = ((row[:, None] - row).abs() < side) & ((column[:, None] - column).abs() < side)
        assert torch.equal(allowed, near)


def test_tokens_see_their_window_in_the_first_block_and_neighbours_in_the_second():
    swin = Swin(32, 2, 16, (2,), (2,), 4).eval()
    with torch.no_grad():
        swin.blocks[0].attn.proj.weight.mul_(20)  # at the start almost nothing is added
    x = numbers(1, 16, 16, 16).requires_grad_()
    places = swin.blocks[0](x, None, 0)[0]
    (gradient,) = torch.autograd.grad(places[0, 5, 5].sum(), x)
    seen = gradient[0].abs().sum(dim=-1) > 0
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[4:8, 4:8] = True
    assert torch.equal(seen, expected)
    (gradient,) = torch.autograd.grad((swin.run(x)[0, 5, 5] * numbers(16)).sum(), x)
    seen = gradient[0].abs().sum(dim=-1) > 0
    assert seen[4:8, 4:8].all()
    assert seen[2:4, 2:4].any()


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("swin", "pvt"))])
def test_every_pyramid_has_a_map_of_its_stride(name):
    size = 32 if "mini" in name else 224
    with torch.device("meta"):
        network = backbone(name, size)
        x = torch.empty(1, 3, size, size)
        assert network(x).shape == (1, network.num_features)
        side = size // network.stride
        assert network.forward_map(x).shape == (1, network.num_features, side, side)


def test_a_pyramid_takes_images_of_another_size_and_refuses_parts_of_windows():
    for name in ("swin_mini", "pvt_mini"):
        assert backbone(name, 32)(numbers(2, 3, 64, 32)).shape == (2, 128)
    with pytest.raises(InputError, match="windows of 4 x 4"):
        backbone("swin_mini", 32)(numbers(1, 3, 44, 44))
    with pytest.raises(InputError, match="takes masks"):
        masked_backbone("swin_mini", 32).embed(numbers(1, 3, 32, 32), torch.zeros(1, 3, dtype=torch.bool))
    with pytest.raises(InputError, match="needs a ViT"):
        masked_backbone("convnet", 32)


# --- uniform sampling, compact ---------------------------------------------------------------------------------------


def test_compact_equals_a_loop_over_blocks():
    x, mask = numbers(3, 2, 24, 16), uniform_sampling(6, 4, torch.Generator().manual_seed(0), batch=3)
    ours = compact(x, mask)
    assert ours.shape == (3, 2, 12, 8)
    for b in range(3):
        for i in range(3):
            for j in range(2):
                kept = [(r, c) for r in (2 * i, 2 * i + 1) for c in (2 * j, 2 * j + 1) if not mask[b, r, c]]
                assert len(kept) == 1
                r, c = kept[0]
                theirs = x[b, :, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4]
                assert torch.equal(ours[b, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4], theirs)


def test_compact_refuses_other_masks():
    mask = random_mask(4, 4, 0.75, torch.Generator().manual_seed(0), batch=2)
    with pytest.raises(InputError, match="one cell of each 2 x 2"):
        compact(numbers(2, 1, 8, 8), mask)


def test_kept_cells_go_back_to_where_they_were():
    mask = uniform_sampling(6, 6, torch.Generator().manual_seed(1), batch=2)
    number = torch.arange(36.0).view(1, 1, 6, 6).expand(2, 1, 6, 6)
    flat = mask.flatten(1)
    small = compact(number, mask).flatten(1)
    hidden = number.flatten(1)[flat].view(2, -1)
    back = torch.cat([small, hidden], dim=1).gather(1, restore_order(mask, by_block=True))
    assert torch.equal(back, number.flatten(1))
    in_order = torch.cat([number.flatten(1)[~flat].view(2, -1), hidden], dim=1).gather(1, restore_order(mask))
    assert torch.equal(in_order, number.flatten(1))
    assert not torch.equal(small, number.flatten(1)[~flat].view(2, -1))  # the published code takes one for the other


# --- the method ------------------------------------------------------------------------------------------------------


@EACH
def test_the_encoder_sees_kept_cells_only_and_not_those_that_were_replaced(config, shapes):
    module = methods.build(UMMAE, config)
    x, mask, noise = module.views(shapes.images[:4], step_generator(0, 0))
    x.requires_grad_()
    tokens = module.encode(x, mask, noise)
    (gradient,) = torch.autograd.grad((tokens * numbers(*tokens.shape, seed=1)).sum(), x)
    seen = patchify(gradient, module.cell).abs().amax(dim=2) > 0
    assert not seen[mask.flatten(1)].any()
    kept = (~mask).flatten(1).sum(dim=1)
    assert (kept == mask[0].numel() // 4).all()
    replaced = int(kept[0]) - int(kept[0] * (1 - config.secondary))
    assert (seen.sum(dim=1) == kept - replaced).all()


@EACH
def test_the_loss_is_over_cells_that_were_left_out(config, shapes):
    module = methods.build(UMMAE, config)
    x, mask, noise = module.views(shapes.images[:4], step_generator(0, 0))
    out = module([x, mask, noise])
    (gradient,) = torch.autograd.grad(out["loss"], out["pred"])
    asked = gradient.abs().amax(dim=2) > 0
    assert torch.equal(asked, mask.flatten(1))
    painted = module.reconstruct([x, mask, noise])
    assert torch.equal(patchify(painted, module.cell)[~out["mask"]], patchify(x, module.cell)[~out["mask"]])


def test_a_pyramid_sees_a_quarter_of_the_tokens():
    counted: list[int] = []
    for module in (methods.build(UMMAE, CPU), methods.build(SimMIM, SimMIM.PRESETS["cpu_swin"])):
        block: nn.Module = module.backbone.blocks[0]
        block.register_forward_pre_hook(lambda _, inputs: counted.append(inputs[0].shape[1] * inputs[0].shape[2]))
        images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
        module(module.views(images, step_generator(0, 0)))
    assert counted == [64, 256]


@EACH
def test_it_learns_on_shapes_in_seconds(config, shapes, tmp_path):
    train = replace(config.train, steps=40, batch_size=32, warmup_epochs=0.5, monitor_every=20)
    config = replace(config, norm_pix=False, train=train)
    module = methods.build(UMMAE, config)
    views = module.views(shapes.images[:64], step_generator(0, 0))
    before = module.eval()(views)["loss"]
    fit(module, shapes, config, tmp_path / "run", progress=False)
    assert module.eval()(views)["loss"] < 0.85 * before


def test_bad_settings_and_presets():
    with pytest.raises(InputError, match="whole blocks of 8 px"):
        UMMAE(replace(CPU, augment=replace(CPU.augment, size=28)))
    with pytest.raises(InputError, match="between 0 and 1"):
        UMMAE(replace(CPU, secondary=1.5))
    for name in ("imagenet_swin_tiny", "imagenet_pvt_small"):
        with torch.device("meta"):
            assert UMMAE(UMMAE.PRESETS[name]).cell == 16
    with pytest.raises(InputError, match="has a stem"):
        UMMAE(UMMAE.Config("vit_mini_conv8", augment=replace(UMMAE.Config().augment, size=32)))


def test_biases_are_those_of_every_distance():
    """The small network of UM-MAE on all pairs of places, in and out of order, against one pair after the other."""
    swin = Swin(32, 2, 8, (2, 1), (2, 4), 4, relative="mlp")
    places = torch.tensor([[0, 0], [5, 2], [3, 15], [14, 1]])
    for block, scale in zip(swin.blocks, (1.0, 1.0, 0.5), strict=True):
        codes, reach = coded(places)
        bias = block.attn.bias(2, codes[None, None], reach)[0, 0]
        for query in range(4):
            for key in range(4):
                distance = (places[key] - places[query]) * scale
                expected = block.attn.rel_mlp(distance.sign() * distance.abs().log1p())
                torch.testing.assert_close(bias[:, query, key], expected)


def test_what_is_kept_between_calls_is_no_shape_without_numbers() -> None:
    """A network that is only looked at (on the device "meta") leaves nothing that a real one would stumble over."""
    shift_mask.cache_clear()
    with torch.device("meta"):
        assert shift_mask(8, 8, 4, 2).device.type == "cpu"
        assert resize_relative(torch.zeros(9, 1), (2, 2), (3, 3)).shape == (25, 1)
    assert resize_relative(torch.zeros(9, 1), (2, 2), (3, 3)).abs().sum() == 0
