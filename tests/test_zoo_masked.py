"""Official files of masked methods: every key and shape of the published models finds its place."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

from sslcourse import methods, zoo
from sslcourse.cli import main
from sslcourse.data.load import load
from sslcourse.errors import InputError
from sslcourse.nn.video_vit import VideoViT
from sslcourse.nn.vit import ViT
from sslcourse.train import fit
from sslcourse.zoo import masked
from sslcourse.zoo.entries import ENTRIES
from sslcourse.zoo.load import misfits

GOLDEN = os.environ.get("SSLCOURSE_GOLDEN")
LAYOUTS = {
    "mae_vit_base_patch16": "mae_vit_base_patch16",
    "mae_vit_base_patch16_ft": "mae_finetune_vit_base_patch16",
    "beit_vit_base_patch16": "beit_base_patch16_224_8k_vocab",
    "beit_vit_base_patch16_ft": "beit_base_patch16_224_ft",
    "simmim_vit_base_patch16": "simmim_vit_base_img224",
    "simmim_swin_base": "simmim_swin_base_img192_window6",
    "videomae_vit_base_patch16": "pretrain_videomae_base_patch16_224",
    "videomae_vit_base_patch16_ft": "videomae_ft_vit_base_patch16_224",
    "umt_vit_base_patch16": "pretrain_umt_base_patch16_224",
}


def layout(name: str) -> dict[str, Tensor]:
    """The tensors of a published file: shapes, no storage."""
    keys = json.loads((Path(str(GOLDEN)) / "layouts" / f"{name}.json").read_text())["keys"]
    return {
        key: torch.zeros((), dtype=getattr(torch, value["dtype"])).expand(value["shape"]) for key, value in keys.items()
    }


@pytest.mark.skipif(GOLDEN is None, reason="SSLCOURSE_GOLDEN does not name a folder with the published layouts")
@pytest.mark.parametrize(("name", "file"), LAYOUTS.items())
def test_the_published_layout_fits_strictly(name: str, file: str) -> None:
    entry = ENTRIES[name]
    with torch.device("meta"):
        model = entry.build(entry.image_size)
    assert misfits(entry.read(layout(file), model), model) == ""


@pytest.mark.skipif(GOLDEN is None, reason="SSLCOURSE_GOLDEN does not name a folder with the published layouts")
@pytest.mark.parametrize("size", [160, 384])
@pytest.mark.parametrize(("name", "file"), LAYOUTS.items())
def test_it_is_prepared_for_another_image_size(name: str, file: str, size: int) -> None:
    with torch.device("meta"):
        model = ENTRIES[name].build(size)
        shape = (3, model.frames, size, size) if isinstance(model, VideoViT) else (3, size, size)
        out = model(torch.empty(1, *shape))  # shapes only: it runs at that size
    n_classes = {"mae_vit_base_patch16_ft": 1000, "beit_vit_base_patch16_ft": 1000, "videomae_vit_base_patch16_ft": 400}
    assert out.shape == (1, n_classes.get(name, model.num_features))
    assert misfits(ENTRIES[name].read(layout(file), model), model) == ""


def ummae_file(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A UM-MAE encoder with random weights at the published size, and its file under the official names."""
    torch.manual_seed(0)
    model = ENTRIES[name].build(256).eval()
    state = {"mask_token": torch.zeros(1, 1, 512), "vis_mask_token": torch.zeros(1, 1, 96)}
    for key, value in model.state_dict().items():
        key = re.sub(r"blocks\.(\d+)\.merge", lambda m: f"blocks.{int(m[1]) + 1}.downsample", key)
        if ".rel_mlp." in key and value.ndim == 2:
            value = value[:, :, None, None]
        state[key.replace("patch_norm", "patch_embed.norm").replace(".rel_mlp.", ".posmlp.")] = value
    return model, state


@pytest.mark.parametrize("name", ["ummae_swin_tiny", "ummae_pvt_small"])
def test_ummae_is_prepared_for_another_image_size(name: str, tmp_path: Path) -> None:
    trained, state = ummae_file(name)
    torch.save({"model": state}, tmp_path / "a.pth")
    for size in (96, 224):  # `load` is strict
        model = zoo.load(name, tmp_path / "a.pth", image_size=size)
        x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            out = model(x)
            assert out.shape == (1, model.num_features)
            if name == "ummae_pvt_small":  # positions are interpolated, whether by the reader or by the network
                torch.testing.assert_close(out, trained(x))
    model = zoo.load(name, tmp_path / "a.pth")
    own = trained.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in model.state_dict().items())


def test_windows_of_a_swin_cut_its_maps_whole_and_are_the_published_ones() -> None:
    with torch.device("meta"):
        for name, window in (("simmim_swin_base", 6), ("ummae_swin_tiny", 8)):
            entry = ENTRIES[name]
            assert {block.window for block in entry.build(entry.image_size).blocks} == {window}
            for size in (224, 256, 288, 320, 384, 448, 512):
                model = entry.build(size)
                assert all(size // 4 // 2**stage % model.blocks[0].window == 0 for stage in range(4))
            for size in (0, 16, 112, 240):
                with pytest.raises(InputError, match=f"multiple of 32 px; got {size}"):
                    entry.build(size)


def small(**how) -> ViT:
    model = ViT(32, 8, dim=16, depth=2, n_heads=2, **how)
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=generator)
    return model


def test_one_shared_table_becomes_one_for_each_block():
    source = small(pos=False, rel_pos="shared", layer_scale=0.1)
    target = small(pos=False, rel_pos="blocks", layer_scale=0.1)
    target.load_state_dict(masked.beit(source.state_dict(), target))
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(target(x), source(x))


def test_biases_of_queries_and_values_leave_that_of_keys_at_0():
    source = small()
    state = {}
    for key, value in source.state_dict().items():
        if key.endswith("qkv.bias"):
            q, _, v = value.chunk(3)
            state[key.replace("qkv.bias", "q_bias")], state[key.replace("qkv.bias", "v_bias")] = q, v
        else:
            state[key] = value
    target = small()
    target.load_state_dict(masked.beit(state, target))
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(target(x), source(x))  # the softmax does not see a bias of keys


def test_a_file_of_another_method_is_refused(tmp_path):
    torch.save({"model": {f"encoder.{k}": v for k, v in small().state_dict().items()}}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="does not fit mae_vit_base_patch16"):
        zoo.load("mae_vit_base_patch16", tmp_path / "a.pth")


# --- sslcourse reconstruct -------------------------------------------------------------------------------------------


def test_reconstruct_writes_masked_predicted_and_original(tmp_path, capsys):
    run = tmp_path / "run"
    cls = methods.get("mae")
    config = cls.PRESETS["cpu"]
    config = replace(config, train=replace(config.train, steps=2, batch_size=8))
    fit("mae", load("shapes", "train", size=32, n=16), config, run, progress=False)
    Image.effect_noise((60, 40), 90).convert("RGB").save(tmp_path / "a.png")
    command = ["reconstruct", str(tmp_path / "a.png"), "--weights", str(run), "--ratio", "0.5"]
    assert main([*command, "--out", str(tmp_path / "b.png")]) == 0
    assert "masked, predicted, original" in capsys.readouterr().out
    strip = pil_to_tensor(Image.open(tmp_path / "b.png"))
    assert strip.shape == (3, 224, 3 * 224)
    masked_, painted, original = strip.float().split(224, dim=2)
    gray = ((masked_ - 127.5).abs() < 1.5).all(dim=0).float().mean()
    assert 0.49 < gray < 0.56  # half of 64 patches, and what is grey by chance
    seen = (masked_ == original).all(dim=0) & ((original - 127.5).abs() > 1.5).all(dim=0)
    assert seen.float().mean() > 0.4
    assert torch.equal(painted[:, seen], original[:, seen])
    assert main([*command[:-1], "1.5"]) == 2
    assert "[0, 1)" in capsys.readouterr().err
    assert main(["reconstruct", str(run / "config.json"), "--weights", str(run)]) == 2
    assert "not a readable image" in capsys.readouterr().err
