"""`sslcourse attention` and `sslcourse curate` on real files, and the functions behind them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sslcourse import methods
from sslcourse.cli import main
from sslcourse.data.augment import Augment
from sslcourse.data.curate import near_copies
from sslcourse.data.shapes import Shapes
from sslcourse.errors import InputError
from sslcourse.evaluate.descriptors import image_descriptor
from sslcourse.nn.convnet import ConvNet
from sslcourse.nn.vit import ViT
from sslcourse.train import fit
from sslcourse.viz.attention import pca_colours


def a_run(folder: Path, name: str) -> Path:
    config = methods.get(name).PRESETS["cpu"]
    changes = {"n_local": 0} if hasattr(config, "n_local") else {}
    train = replace(config.train, steps=2, batch_size=16)
    data = Shapes("train", size=16).as_images(32)
    fit(name, data, replace(config, augment=Augment(16), train=train, **changes), folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: a_run(folder / name, name) for name in ("ibot", "simclr")}


def save(path: Path, pixels: torch.Tensor) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    return path


def test_attention_writes_a_picture_and_numbers(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = save(tmp_path / "scene.png", Shapes("test", size=48).as_images(1).images[0][:, :, :40])
    out = tmp_path / "look.png"
    assert main(["attention", str(image), "--weights", str(runs["ibot"]), "--out", str(out), "--size", "40"]) == 0
    numbers = json.loads(out.with_suffix(".json").read_text())
    assert numbers["grid"] == [6, 5]  # 48 x 40 px in patches of 8
    assert len(numbers["covered"]) == 4
    assert all(0 < share < 1 for share in numbers["covered"])
    picture = np.asarray(Image.open(out).convert("RGB"))
    assert picture.std() > 10
    assert "of the attention of each head" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png", "--weights", "{ibot}"], "no image file"),
        (["{broken}", "--weights", "{ibot}"], "cannot be read as an image"),
        (["{image}", "--weights", "{simclr}"], "class token"),
        (["{image}", "--weights", "{ibot}", "--mass", "1.5"], "mass"),
        (["{image}", "--weights", "{ibot}", "--size", "2"], "--size"),
        (["{image}", "--weights", "nowhere"], "no trained model"),
        (["{image}", "--weights", "{ibot}", "--model", "dino_vit_smal_patch16"], "did you mean"),
        (["{image}"], "--weights"),
    ],
)
def test_attention_names_what_is_wrong(
    arguments: list[str], message: str, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = save(tmp_path / "scene.png", torch.zeros(3, 16, 16, dtype=torch.uint8))
    broken = tmp_path / "broken.png"
    broken.write_bytes(image.read_bytes()[:30])
    names = {"image": image, "broken": broken, **runs}
    assert main(["attention", *(text.format(**names) for text in arguments)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """A pool of bright and dark noise with copies, a curated folder of bright noise, one dark held-out image."""
    g = torch.Generator().manual_seed(0)

    def noise(n: int, top: int) -> torch.Tensor:
        blocks = torch.randint(top - 100, top, (n, 3, 4, 4), generator=g).to(torch.uint8)
        return blocks.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)

    bright, dark = noise(6, 255), noise(6, 100)
    for i in range(6):
        save(tmp_path / "pool" / "bright" / f"{i}.png", bright[i])
        save(tmp_path / "pool" / "dark" / f"{i}.png", dark[i])
    save(tmp_path / "pool" / "bright" / "copy.png", bright[0])
    save(tmp_path / "curated" / "a.png", noise(1, 255)[0])
    save(tmp_path / "held_out" / "b.png", bright[3])
    (tmp_path / "pool" / "dark" / "broken.png").write_bytes(b"no image")
    return {name: tmp_path / name for name in ("pool", "curated", "held_out")}


def curate(folders: dict[str, Path], run: Path, out: Path, *more: str) -> int:
    given = ["--pool", str(folders["pool"]), "--curated", str(folders["curated"]), "--weights", str(run)]
    return main(["curate", *given, "--out", str(out), *more])


def test_curate_keeps_what_is_like_the_curated_set_once(
    folders: dict[str, Path], runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert curate(folders, runs["simclr"], out, "--copies", "0.999999", "--k", "6") == 0
    kept = [Path(line) for line in (out / "kept.txt").read_text().splitlines()]
    assert len(kept) == 6
    assert {file.parent.name for file in kept} == {"bright"}
    assert len({file.read_bytes() for file in kept}) == 6
    assert sorted(p.name for p in (out / "images" / "bright").iterdir()) == sorted(p.name for p in kept)
    assert "6 of 13 images kept; left out 1 copies" in capsys.readouterr().out
    again = tmp_path / "again"
    more = ["--copies", "0.999999", "--k", "6", "--held-out", str(folders["held_out"]), "--held-out-copies", "0.999999"]
    assert curate(folders, runs["simclr"], again, *more) == 0
    assert "3.png" not in {
        Path(line).name for line in (again / "kept.txt").read_text().splitlines() if "bright" in line
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--pool", "nowhere"], "no folder"),
        (["--curated", "{empty}"], "no images"),
        (["--k", "0"], "--k"),
        (["--per-cluster", "2", "--k", "50"], "no cluster"),
        (["--out", "{pool}"], "there already"),
        (["--copies", "3"], "cosine"),
    ],
)
def test_curate_names_what_is_wrong(
    change: list[str],
    message: str,
    folders: dict[str, Path],
    runs: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    given = [text.format(empty=tmp_path / "empty", **folders) for text in change]
    assert curate(folders, runs["simclr"], tmp_path / "out", *given) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_near_copies_are_those_of_the_held_out_set() -> None:
    emb = torch.eye(3)
    assert near_copies(emb, torch.tensor([[2.0, 0.1, 0.0]]), 0.9).tolist() == [True, False, False]
    with pytest.raises(InputError, match="one width"):
        near_copies(emb, torch.eye(2))


def test_descriptors_pool_the_tokens() -> None:
    torch.manual_seed(0)
    vit: Any = ViT(16, 4, dim=12, depth=1, n_heads=3, registers=2).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        tokens = vit.forward_features(x)
        torch.testing.assert_close(image_descriptor(vit, x), tokens[:, 0])
        torch.testing.assert_close(image_descriptor(vit, x, "mean"), tokens[:, 3:].mean(1))
        places = tokens[:, 3:].clamp_min(1e-6)
        torch.testing.assert_close(image_descriptor(vit, x, "gem", p=3.0), (places**3).mean(1) ** (1 / 3))
        both = image_descriptor(vit, x, "cls_gem")
        assert both.shape == (2, 24)
        net = ConvNet((8, 8), (2, 2)).eval()
        torch.testing.assert_close(image_descriptor(net, x, "mean"), net(x))
    with pytest.raises(InputError, match="class token"):
        image_descriptor(net, x)
    with pytest.raises(InputError, match="gem"):
        image_descriptor(vit, x, "gm")  # type: ignore[arg-type]


def test_pca_colours_separate_two_kinds_of_patches() -> None:
    maps = 0.01 * torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    maps[:, 2, :, 2:] += 1.0
    colours = pca_colours(maps)
    assert colours.shape == (2, 3, 4, 4)
    left, right = colours[:, 0, :, :2], colours[:, 0, :, 2:]
    assert (left.mean() - right.mean()).abs() > 0.8
    with pytest.raises(InputError, match="D >= 3"):
        pca_colours(torch.zeros(1, 2, 4, 4))
