"""Official checkpoint files: read without running code, loaded strictly, every misfit named."""

import argparse
import pickle
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sslcourse import zoo
from sslcourse.errors import InputError
from sslcourse.nn.patches import interpolate_pos
from sslcourse.zoo.entries import ENTRIES, Entry

timm = pytest.importorskip("timm")
TINY = "timm_vit_tiny_patch16"


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """timm's ViT with a classifier, as published, and random weights."""
    return timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True).eval()


@pytest.fixture
def file(theirs, tmp_path) -> Path:
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def refused(*args, **kwargs) -> str:
    with pytest.raises(InputError) as error:
        zoo.load(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def images(size: int) -> Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


# --- what fits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [224, 96])
def test_timms_file_gives_timms_features(theirs, file, size):
    ours = zoo.load(TINY, file)
    assert not ours.training
    with torch.no_grad():
        expected = theirs.forward_head(theirs.forward_features(images(size)), pre_logits=True)
        torch.testing.assert_close(ours(images(size)), expected, rtol=1e-5, atol=1e-5)


def test_positions_are_interpolated_once_for_another_image_size(theirs, file):
    ours = zoo.load(TINY, file, image_size=96)
    assert ours.pos_embed.shape == (1, 1 + 36, 192)
    assert torch.equal(ours.pos_embed, interpolate_pos(theirs.pos_embed, 6, 6, antialias=True))
    with torch.no_grad():
        torch.testing.assert_close(ours(images(96)), zoo.load(TINY, file)(images(96)))


def test_a_torch_file_with_plain_options_beside_the_weights(theirs, tmp_path, monkeypatch):
    entry = replace(ENTRIES[TINY], wrapped_in=("model",))
    monkeypatch.setitem(ENTRIES, TINY, entry)
    content = {"model": theirs.state_dict(), "epoch": 3, "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "a.pth")
    assert torch.equal(zoo.load(TINY, tmp_path / "a.pth").cls_token, theirs.cls_token)
    torch.save(theirs.state_dict(), tmp_path / "bare.pth", _use_new_zipfile_serialization=False)  # the old format
    assert torch.equal(zoo.load(TINY, tmp_path / "bare.pth").cls_token, theirs.cls_token)


def test_every_entry_builds_a_model_that_its_reader_fills():
    for name, entry in ENTRIES.items():
        with torch.device("meta"):
            model = entry.build(entry.image_size)
        state = entry.read(dict(model.state_dict()), model)
        assert state.keys() == model.state_dict().keys(), name
        half = 0.5 if "OpenAI" in entry.published else 1  # most of its CLIP is in float16
        published = sum(tensor.numel() for tensor in state.values()) * 4 / 1e6 * half
        assert published <= entry.megabytes < published * 1.25 + 5  # the file also holds the classifier


def test_a_reader_is_a_function_and_an_entry(tmp_path, monkeypatch):
    def read(state, model):
        return {key.removeprefix("module.encoder."): value for key, value in state.items()}

    entry = Entry(lambda size: nn.Linear(2, 3), read, "nowhere", 1, wrapped_in=("state_dict", "teacher"))
    monkeypatch.setitem(ENTRIES, "toy", entry)
    weights = {"module.encoder.weight": torch.ones(3, 2), "module.encoder.bias": torch.zeros(3)}
    torch.save({"state_dict": {"teacher": weights, "student": {}}}, tmp_path / "a.pth")
    assert torch.equal(zoo.load("toy", tmp_path / "a.pth").weight, torch.ones(3, 2))


def test_a_run_of_ours_gives_its_backbone(tmp_path):
    methods = pytest.importorskip("sslcourse.methods")
    checkpoint = pytest.importorskip("sslcourse.train.checkpoint")
    cls = methods.get("simclr")
    method = methods.build(cls, cls.PRESETS["cpu"])
    run = checkpoint.Run(tmp_path, "simclr", asdict(cls.PRESETS["cpu"]))
    run.finish(method)
    for place in (tmp_path, tmp_path / "model.safetensors"):
        backbone = zoo.load(place)
        assert not backbone.training
        for key, value in method.backbone.state_dict().items():
            assert torch.equal(backbone.state_dict()[key], value)
    assert "neither path nor image_size" in refused(tmp_path, image_size=64)
    assert "no trained model" in refused(tmp_path / "nowhere")


# --- what does not ---------------------------------------------------------------------------------------------------


def test_without_a_path_the_place_is_named():
    text = refused(TINY)
    assert ENTRIES[TINY].published in text
    assert "23 MB" in text


def test_unknown_names_suggest_the_nearest(file):
    assert f"did you mean '{TINY}'" in refused("timm_vit_tiny", file)


def test_another_model_is_reported_key_by_key(file):
    text = refused("timm_vit_small_patch16", file)
    assert "model.safetensors does not fit timm_vit_small_patch16" in text
    assert "150 keys are of another shape" in text
    assert "cls_token is 1 x 1 x 192, not 1 x 1 x 384" in text


def test_missing_and_unexpected_keys_are_counted_and_named(theirs, tmp_path):
    state = {k.replace("blocks.0.", "block.zero."): v for k, v in theirs.state_dict().items()}
    state["more"] = torch.zeros(1)
    save_file(state, tmp_path / "a.safetensors")
    text = refused(TINY, tmp_path / "a.safetensors")
    assert "12 keys are missing (blocks.0.norm1.weight, blocks.0.norm1.bias, blocks.0.attn.qkv.weight, ...)" in text
    assert "13 keys are unexpected" in text
    with pytest.warns(UserWarning, match="12 keys are missing"):
        model = zoo.load(TINY, tmp_path / "a.safetensors", strict=False)
    assert torch.equal(model.blocks[1].attn.qkv.weight, theirs.blocks[1].attn.qkv.weight)
    save_file({"more": torch.zeros(1)}, tmp_path / "b.safetensors")
    assert "1 key is unexpected (more)" in refused(TINY, tmp_path / "b.safetensors", strict=False)


def test_positions_that_are_no_square_are_reported(theirs, tmp_path):
    save_file(theirs.state_dict() | {"pos_embed": torch.zeros(1, 150, 192)}, tmp_path / "a.safetensors")
    assert "pos_embed is 1 x 150 x 192, not 1 x 197 x 192" in refused(TINY, tmp_path / "a.safetensors")


class Evil:
    def __reduce__(self):
        return print, ("this ran",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_names_code_is_refused_and_not_run(tmp_path, capsys):
    for name, new in (("zip.pth", True), ("old.pth", False)):
        torch.save({"weight": Evil()}, tmp_path / name, _use_new_zipfile_serialization=new)
        assert "needs code to be read" in refused(TINY, tmp_path / name)
    (tmp_path / "raw.pkl").write_bytes(pickle.dumps(Evil()))
    assert str(tmp_path / "raw.pkl") in refused(TINY, tmp_path / "raw.pkl")
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["safetensors", "zip", "old"])
@pytest.mark.parametrize("keep", [0.001, 0.5, 0.999])
def test_truncated_files_are_refused(theirs, tmp_path, kind, keep):
    path = tmp_path / "a.bin"
    if kind == "safetensors":
        save_file(theirs.state_dict(), path)
    else:
        torch.save(theirs.state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    text = refused(TINY, path)
    assert "truncated" in text or "damaged" in text


def test_files_that_are_no_checkpoint_are_named_for_what_they_are(tmp_path):
    content = {
        "page.pth": (b"<!DOCTYPE html><html>", "web page"),
        "lfs.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        "empty.pth": (b"", "truncated"),
        "text.pth": (b"hello world, this is no checkpoint", "not a PyTorch checkpoint"),
    }
    for name, (data, expected) in content.items():
        (tmp_path / name).write_bytes(data)
        assert expected in refused(TINY, tmp_path / name)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a", "b")
    assert "not a PyTorch checkpoint" in refused(TINY, tmp_path / "x.zip")
    assert "there is no checkpoint file" in refused(TINY, tmp_path / "nowhere.pth")
    assert "there is no checkpoint file" in refused(TINY, tmp_path)


def test_a_file_without_tensors_is_described(tmp_path):
    torch.save({"epoch": 3, "optimizer": {}}, tmp_path / "a.pth")
    assert "holds a dict of epoch, optimizer, where a dict of tensors was expected" in refused(TINY, tmp_path / "a.pth")
    torch.save(torch.zeros(3), tmp_path / "b.pth")
    assert "holds Tensor" in refused(TINY, tmp_path / "b.pth")
