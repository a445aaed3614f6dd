"""What protocols are run on: COCO and DAVIS archives, streams, patches of 14 pixels, and the guard against leakage."""

import io
import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslcourse.commands.data import Data
from sslcourse.data.images import Images
from sslcourse.data.zips import CocoPack, DavisPack
from sslcourse.errors import InputError
from sslcourse.evaluate.dense_data import IGNORE
from sslcourse.evaluate.encoder import Encoder
from sslcourse.evaluate.leakage import LeakageWarning, overlap
from sslcourse.evaluate.protocols import evaluate_encoder
from sslcourse.evaluate.tasks import Task
from sslcourse.nn.convnet import ConvNet
from sslcourse.nn.vit import ViT

QUICK = {
    "segmentation": {"steps": 3},
    "detection": {"epochs": 1, "batch_size": 2},
    "copy": {"n": 2},
    "depth": {"steps": 3},
}


def encoded(array: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Eight images with a cat (left) and a dog (right) before a wall, and one without a mask."""
    rng, records, entries = np.random.default_rng(0), [], {}
    for i in range(9):
        entries[f"images/{i}.jpg"] = encoded(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8), "JPEG")
        mask = np.full((40, 48), 3, dtype=np.uint8)
        mask[8:32, 4:20], mask[8:32, 28:44] = 1, 2
        segments = [
            {"idx": k, "category": c, "category_id": n, "isthing": k < 3, "iscrowd": 0, "area": 384, "bbox": box}
            for k, c, n, box in (
                (1, "cat", 17, [4, 8, 16, 24]),
                (2, "dog", 18, [28, 8, 16, 24]),
                (3, "wall", 199, [0, 0, 48, 40]),
            )
        ]
        record = {"id": i, "license": 4, "image": f"images/{i}.jpg", "captions": [], "segments": segments}
        if i < 8:
            entries[f"masks/{i}.png"] = encoded(mask, "PNG")
            record |= {"mask": f"masks/{i}.png", "kind": "panoptic"}
        else:
            record["segments"] = []
        records.append(record)
    categories = {n: {"name": c} for n, c in ((17, "cat"), (18, "dog"), (199, "wall"))}
    return zipped(tmp_path / "coco.zip", {"images": records, "categories": categories}, entries)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Four clips of four frames with a bright square that moves right."""
    rng, entries = np.random.default_rng(0), {}
    for clip in "abcd":
        for t in range(4):
            frame = rng.integers(0, 80, (32, 48, 3), dtype=np.uint8)
            mask = np.zeros((32, 48), dtype=np.uint8)
            mask[8:24, 4 + 4 * t : 20 + 4 * t] = 255
            frame[mask > 0] += 150
            entries |= {f"{clip}/{t}.jpg": encoded(frame, "JPEG"), f"{clip}/{t}.png": encoded(mask, "PNG")}
    meta = {clip: {"frames": [{"frame": str(t)} for t in range(4)]} for clip in "abcd"}
    return zipped(tmp_path / "davis.zip", meta, entries)


def zipped(path: Path, meta: object, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**entries, "meta.json": json.dumps(meta).encode()}.items():
            archive.writestr(name, content)
    return path


def on(path: Path, side: int = 32) -> Task:
    return Task(str(path), Data(str(path)).labelled_pair, side)


def vit(patch: int = 8) -> Encoder:
    torch.manual_seed(0)
    return Encoder(ViT(2 * patch, patch, dim=16, depth=2, n_heads=2))


def test_coco_has_classes_boxes_and_photos(coco: Path) -> None:
    task = on(coco)
    assert isinstance(task.pack, CocoPack)
    train, test = task.maps
    assert (len(train), len(test)) == (6, 2)
    assert train.classes == ["cat", "dog", "wall"]
    assert set(train.target.unique().tolist()) == {0, 1, 2}
    assert overlap(train.images, test.images) == []
    boxes, _ = task.boxes
    assert boxes.classes == ["cat", "dog"]  # a wall is stuff
    wanted = torch.tensor([[4.0, 8.0, 20.0, 32.0], [28.0, 8.0, 44.0, 32.0]]) * torch.tensor([32 / 48, 32 / 40] * 2)
    torch.testing.assert_close(boxes.boxes[0], wanted)
    assert task.photos().images.shape == (9, 3, 32, 32)
    assert task.others() is None
    for part in ("depths", "objects", "followed", "clips", "untrimmed", "shifted"):
        with pytest.raises(InputError, match=r"coco\.zip does not have"):
            getattr(task, part)
    with pytest.raises(InputError, match=r"no split 'test'|no labels"):
        _ = task.labelled


def test_categories_that_are_not_asked_for_are_ignored(coco: Path) -> None:
    from sslcourse.evaluate.dense_data import coco_classes

    data = coco_classes(on(coco).pack, 32, n_classes=1)
    assert data.classes == ["cat"]
    assert set(data.target.unique().tolist()) == {0, IGNORE}


@pytest.mark.parametrize("name", ["segmentation", "detection", "copy"])
def test_protocols_run_on_coco(name: str, coco: Path) -> None:
    if name == "detection":
        pytest.importorskip("pycocotools", reason="pycocotools is part of the extra 'course'")
    (result,) = evaluate_encoder(vit(), on(coco), [name], representation="vit", options=QUICK)
    assert result.low <= result.value <= result.high
    assert result.n == 2


def test_davis_holds_whole_clips_out(davis: Path) -> None:
    task = on(davis)
    assert isinstance(task.pack, DavisPack)
    train, test = task.maps
    assert (len(train), len(test)) == (12, 4)  # three clips and one
    assert train.classes == ["background", "object"]
    assert overlap(train.images, test.images) == []
    images, masks = task.objects
    assert (len(images), masks.dtype) == (16, torch.bool)
    assert 0.1 < masks.float().mean() < 0.3
    assert [clip.name for clip in task.followed] == list("abcd")
    with pytest.raises(InputError, match=r"davis\.zip does not have boxes"):
        _ = task.boxes


@pytest.mark.parametrize("name", ["segmentation", "attention", "video", "copy"])
def test_protocols_run_on_davis(name: str, davis: Path) -> None:
    (result,) = evaluate_encoder(vit(), on(davis), [name], representation="vit", options=QUICK)
    assert result.low <= result.value <= result.high
    assert result.n == {"segmentation": 4, "attention": 16, "video": 4, "copy": 2}[name]


@pytest.mark.parametrize("name", ["segmentation", "depth", "detection", "attention", "video", "action"])
def test_patches_of_14_pixels(name: str) -> None:
    """64 is no multiple of 14: maps are those of 70 pixels, and boxes still stand where the objects are."""
    if name == "detection":
        pytest.importorskip("pycocotools", reason="pycocotools is part of the extra 'course'")
    task = Task("shapes", lambda: (None, None), 64, 8, 8)  # type: ignore[arg-type, return-value]
    (result,) = evaluate_encoder(vit(14), task, [name], representation="vit", options=QUICK)
    assert result.low <= result.value <= result.high
    assert vit(14).maps(torch.zeros(1, 3, 64, 90, dtype=torch.uint8)).shape[2:] == (5, 6)
    assert vit(14).attention(torch.zeros(1, 3, 64, 90, dtype=torch.uint8)).shape[2:] == (5, 6)


def test_the_same_images_in_training_and_test_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of data is watched; the worlds of train and test differ, so they are silent."""
    task = Task("shapes", lambda: (images, images), 32, 8, 8)
    images = Images(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.zeros(4, dtype=torch.long))
    with pytest.warns(LeakageWarning, match="4 of 4 test images"):
        _ = task.labelled
    with warnings.catch_warnings():
        warnings.simplefilter("error", LeakageWarning)
        for part in ("maps", "depths", "boxes", "clips", "shifted"):
            getattr(Task("shapes", task.classes, 32, 8, 8), part)
    from sslcourse.data import shapes
    from sslcourse.data.shapes import Shapes

    def always_train(split: str, *args: object, **options: object) -> Shapes:
        return Shapes("train", *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(shapes, "Shapes", always_train)
    monkeypatch.setattr("sslcourse.evaluate.actions.Shapes", always_train)
    for part, what in (("maps", "images"), ("depths", "images"), ("boxes", "images"), ("clips", "clips")):
        with pytest.warns(LeakageWarning, match=f"8 of 8 test {what}"):
            getattr(Task("shapes", task.classes, 32, 8, 8), part)


def test_a_stream_is_too_large_for_what_changes_pixels() -> None:
    class Stream:
        labels = torch.zeros(4, dtype=torch.long)

        def __len__(self) -> int:
            return 4

        def batches(self, *args: object, **options: object) -> list[tuple[torch.Tensor, None, None]]:
            return [(torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8), None, None)]

    task = Task("large", lambda: (Stream(), Stream()))  # type: ignore[arg-type, return-value]
    with pytest.raises(InputError, match="--n-train and --n-test"):
        evaluate_encoder(Encoder(ConvNet((8,), (2,))), task, ["robustness"], representation="net")
