"""`sslcourse zeroshot`: a table and a picture for images and labels; bad input is one sentence and exit code 2."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import shipped as script
from sslcourse.cli import main
from sslcourse.data.captioned import captioned
from sslcourse.data.preprocess import clip_preprocess
from sslcourse.errors import InputError
from sslcourse.evaluate.zeroshot import prompt_logits, zero_shot_weights
from sslcourse.methods.clip import CLIP
from sslcourse.methods.mae import MAE
from sslcourse.methods.siglip import SigLIP
from sslcourse.segment.files import load_small
from sslcourse.train import fit, load_model
from sslcourse.zoo.weights import SHIPPED, shipped, write_half
from sslcourse.zoo.words import word_model


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two steps of training: enough for a file."""
    folder, data, made = tmp_path_factory.mktemp("runs"), captioned("train", 64, 24), {}
    for cls in (CLIP, SigLIP):
        base = cls.PRESETS["cpu"]
        train = replace(base.train, steps=2, batch_size=32)
        config = replace(base, augment=replace(base.augment, size=24), train=train)
        fit(cls.name, data, config, folder / cls.name, progress=False)
        made[cls.name] = folder / cls.name
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image of each kind that comes from cameras and scanners, and a damaged one."""
    folder = tmp_path_factory.mktemp("images")
    ramp = np.linspace(0, 65535, 40 * 50).reshape(40, 50).astype(np.uint16)
    Image.fromarray(ramp).save(folder / "wide.png")
    Image.fromarray(np.full((40, 50, 4), 90, np.uint8)).save(folder / "alpha.png")
    (folder / "broken.png").write_bytes((folder / "wide.png").read_bytes()[:60])
    (folder / "text.jpg").write_text("no image")
    return folder


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_table_and_a_picture(
    name: str, runs: dict[str, Path], files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = [files / "wide.png", files / "alpha.png"], tmp_path / "scores.png"
    labels = ["red star", "blue moon", "green heart"]
    argv = ["zeroshot", *map(str, images), "--labels", ", ".join(labels), "--model", str(runs[name]), "--out", str(out)]
    assert main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    model = word_model(runs[name])
    weights = zero_shot_weights(model.text, labels, ("a {}", "a photo of a {}"))
    p = model.probabilities(prompt_logits(model.embed([Image.open(path) for path in images]), weights, 1.0))
    for line, path, row in zip(lines, images, p, strict=True):
        assert line.startswith(str(path))
        assert f"{labels[int(row.argmax())]} {row.max():.3f}" in line.removeprefix(str(path)).split(",")[0]
    assert (name == "clip") == bool((p.sum(dim=1) - 1).abs().max() < 1e-4)
    with Image.open(out) as picture:
        assert min(picture.size) > 300
        assert len(picture.convert("L").getcolors() or range(999)) > 20


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (["broken.png"], "a, b", "broken.png is not a readable image"),
        (["text.jpg"], "a, b", "text.jpg is not a readable image"),
        (["none.png"], "a, b", "no image file"),
        (["wide.png"], "", "--labels takes class names"),
        (["wide.png"], "a,, b", "none of them blank"),
        (["wide.png"], "a, b, a", "names 'a' twice"),
        (["wide.png"], "star " * 60, "takes 63 tokens, start and end included, and the model reads 32"),
        ([], "a, b", "one or more images"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    images: list[str],
    labels: str,
    words: str,
    runs: dict[str, Path],
    files: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["zeroshot", *(str(files / name) for name in images), f"--labels={labels}", f"--model={runs['clip']}"]
    assert main([*argv, "--out", str(tmp_path / "out.png")]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.startswith("sslcourse: ")
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not (tmp_path / "out.png").exists()


def test_a_label_that_is_too_long_can_be_cut(
    runs: dict[str, Path], files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["zeroshot", str(files / "wide.png"), "--labels", "star " * 60 + ", moon", "--model", str(runs["clip"])]
    assert main([*argv, "--truncate", "--out", str(tmp_path / "out.png")]) == 0
    assert "star star" in capsys.readouterr().out


def test_models_that_cannot_be_asked(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="give the checkpoint of 'clip_vit_b32'"):
        word_model("clip_vit_b32")
    with pytest.raises(InputError, match="no trained model"):
        word_model(tmp_path / "none")
    with pytest.raises(InputError, match="shipped weights"):
        shipped("clip_shape")
    lab = tmp_path / "hand-out" / "labs" / "10_clip"
    lab.mkdir(parents=True)
    monkeypatch.chdir(lab)
    monkeypatch.setattr("sslcourse.zoo.weights.__file__", str(tmp_path / "a" / "b" / "c.py"))
    with pytest.raises(InputError, match="train them in minutes with `sslcourse pretrain clip --data captions"):
        shipped("clip_shapes")
    for folder in (tmp_path / "hand-out" / "weights", lab):  # above the lab, then beside it
        folder.mkdir(exist_ok=True)
        shutil.copy(runs["clip"] / "model.safetensors", folder / "clip_shapes.safetensors")
        assert shipped("clip_shapes").parent == folder
    shutil.copy(runs["clip"] / "model.safetensors", tmp_path / "clip_shapes.safetensors")
    monkeypatch.setenv("SSLCOURSE_WEIGHTS", str(tmp_path))
    assert word_model().name == "clip"


def test_half_of_the_bytes_give_nearly_the_same_embeddings(runs: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    size = write_half(runs["clip"], path)
    assert size == path.stat().st_size < 0.55 * (runs["clip"] / "model.safetensors").stat().st_size
    full, half = word_model(runs["clip"]), word_model(path)
    texts, image = ["a red star", "a photo of a blue moon"], Image.new("RGB", (30, 40), "teal")
    with torch.no_grad():
        assert torch.cosine_similarity(full.text(texts), half.text(texts)).min() > 0.9999
    assert torch.cosine_similarity(full.embed([image]), half.embed([image])).min() > 0.9999
    view = CLIP.PRESETS["cpu"].augment
    assert full.prepare(image).equal(clip_preprocess(image, 24, view.mean, view.std))
    with pytest.raises(InputError, match="no trained model"):
        write_half(tmp_path / "none", path)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_file_is_small_and_loads(name: str) -> None:
    try:
        path = shipped(name)
    except InputError:
        pytest.skip(f"no checkout: weights/{name}.safetensors is not here")
    assert path.stat().st_size <= 3_000_000
    if name.startswith("tiny_"):
        assert sum(p.numel() for p in load_small(name=name).parameters()) > 50_000
    elif name == "mae_shapes":
        assert path.stat().st_size <= 2_000_000
        assert isinstance(load_model(path), MAE)
    else:
        assert word_model(name).text(["a red star"]).shape[0] == 1


def test_the_page_of_the_shipped_files_is_of_their_results() -> None:
    assert script.PAGE.read_text() == script.page(json.loads(script.KEPT.read_text()))
