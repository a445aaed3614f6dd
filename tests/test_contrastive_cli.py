"""`sslcourse pretrain METHOD` for every method of parts 1 to 4: on Shapes, and on a folder of photos of many shapes."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from sslcourse.catalogue import METHODS
from sslcourse.commands import pretrain
from sslcourse.train import load_model, read_log

NAMES = [row.name for row in METHODS.values() if row.part <= 4 and row.code]
SHORT = ["--train.steps", "5", "--train.batch-size", "8", "--train.log-every", "1", "--device", "cpu", "--no-knn"]


@pytest.mark.parametrize("name", NAMES)
def test_five_steps_on_shapes(name: str, tmp_path: Path) -> None:
    pretrain.run([name, "--data", "shapes", "--n-train", "40", "--out", str(tmp_path / "run"), *SHORT])
    assert [line["step"] for line in read_log(tmp_path / "run")] == [1, 2, 3, 4, 5]
    module = load_model(tmp_path / "run")
    size = module.config.augment.size
    with torch.no_grad():
        features = module.backbone.eval()(torch.zeros(2, 3, size, size))
    assert features.shape == (2, module.backbone.num_features)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of JPEG files of several sizes, some grey."""
    root, g = tmp_path_factory.mktemp("photos"), torch.Generator().manual_seed(0)
    for i in range(24):
        pixels = torch.randint(256, (40 + i, 52, 3), generator=g, dtype=torch.uint8).numpy()
        (root / f"class{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(pixels).convert("L" if i % 5 == 0 else "RGB").save(root / f"class{i % 2}" / f"{i}.jpg")
    return root


@pytest.mark.parametrize("name", ["jigsaw", "colorization", "densecl", "dilo", "supcon", "cmc", "fixmatch"])
def test_five_steps_on_a_folder(name: str, folder: Path, tmp_path: Path) -> None:
    pretrain.run([name, "--data", str(folder), "--out", str(tmp_path / "run"), *SHORT])
    assert read_log(tmp_path / "run")[-1]["step"] == 5
