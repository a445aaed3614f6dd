"""Official files of CLIP and SigLIP: their key layouts fit the entries, archives are read without their program."""

import json
import os
import pickle
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from sslcourse import zoo
from sslcourse.errors import InputError
from sslcourse.nn.clip import CLIP, CLIPViT, to_half
from sslcourse.nn.text import TextTransformer, quick_gelu
from sslcourse.zoo.entries import ENTRIES
from sslcourse.zoo.load import misfits, read_checkpoint
from sslcourse.zoo.torchscript import is_torchscript

GOLDEN = os.environ.get("SSLCOURSE_GOLDEN")
LAYOUTS = {
    "clip_vit_b32": "openai_ViT-B-32",
    "clip_vit_b16": "openai_ViT-B-16",
    "clip_vit_l14": "openai_ViT-L-14",
    "clip_resnet50": "openai_RN50",
    "openclip_vit_b32": "openclip_ViT-B-32",
    "siglip_vit_b16": "openclip_ViT-B-16-SigLIP",
}


@pytest.mark.skipif(not GOLDEN, reason="SSLCOURSE_GOLDEN does not name a folder with the layouts of official files")
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_official_layout_fits(name: str) -> None:
    layout = json.loads((Path(str(GOLDEN)) / "layouts" / f"{LAYOUTS[name]}.json").read_text())
    with torch.device("meta"):
        model = ENTRIES[name].build(ENTRIES[name].image_size)
        state = {key: torch.empty(shape) for key, (shape, _) in layout.items()}
        assert misfits(ENTRIES[name].read(state, model), model) == ""
        assert len(state) == len(layout) == len(model.state_dict())
        del state["ln_final.weight" if "ln_final.weight" in state else "text.ln_final.weight"]
        assert "1 key is missing (text.ln_final.weight)" in misfits(ENTRIES[name].read(state, model), model)


class Archived(nn.Module):
    """Modules in modules, a buffer, a list and a matrix that is not contiguous, as an official archive has them."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.text_projection = nn.Parameter(torch.randn(4, 2).half().t())
        self.sizes = [1, 2]
        self.register_buffer("vocab_size", torch.tensor(7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tower(x) * self.logit_scale


def archive(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and what OpenAI published
        torch.jit.script(module.eval()).save(str(path))
    return path


def test_an_archive_is_read_without_its_program(tmp_path: Path) -> None:
    module = Archived()
    path = archive(module, tmp_path / "model.pt")
    assert is_torchscript(path)
    state = read_checkpoint(path)
    assert state.keys() == module.state_dict().keys()
    for key, value in module.state_dict().items():
        assert state[key].dtype == value.dtype
        assert state[key].equal(value)


def test_an_archive_that_names_other_code_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as file:
        file.writestr("evil/code/__torch__.py", "")
        file.writestr("evil/data.pkl", pickle.dumps(os.system))
    with pytest.raises(InputError, match="needs code to be read"):
        read_checkpoint(tmp_path / "evil.pt")
    path = archive(Archived(), tmp_path / "model.pt")
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(InputError, match="damaged"):
        read_checkpoint(path)


def tiny(size: int) -> CLIP:
    return CLIP(CLIPViT(size, 16, 64, 1, 1, 8), TextTransformer(30, 6, 64, 1, 1, 8, act=quick_gelu))


@pytest.mark.parametrize("scripted", [False, True])
def test_load_reads_the_state_dict_and_the_archive_and_widens_float16(
    scripted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENTRIES, "clip_tiny", replace(ENTRIES["clip_vit_b32"], build=tiny, image_size=32))
    source = to_half(tiny(32))
    official = {key.removeprefix("text."): value for key, value in source.state_dict().items()}
    official["text_projection"] = official.pop("proj.weight").T
    official["visual.proj"] = official.pop("visual.proj.weight").T
    official["context_length"] = torch.tensor(6)
    path = tmp_path / "model.pt"
    archive(_tree(official), path) if scripted else torch.save(official, path)
    model = zoo.load("clip_tiny", path)
    assert isinstance(model, CLIP)
    for key, value in source.state_dict().items():
        loaded = model.state_dict()[key]
        assert loaded.dtype == torch.float32
        assert loaded.equal(value.float())
    assert zoo.load("clip_tiny", path, image_size=48).visual.positional_embedding.shape == (10, 64)


def _tree(state: dict[str, torch.Tensor]) -> nn.Module:
    """Modules whose state dict is `state`."""
    root = nn.Module()
    for key, value in state.items():
        *parents, name = key.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, nn.Module())
            module = module.get_submodule(parent)
        module.register_buffer(name, value)
    return root
