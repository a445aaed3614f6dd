"""Packs: what `pack` writes `load` reads; damage is one sentence; COCO and DAVIS archives keep their labels."""

import errno
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import class_folders, message, picture, save
from PIL import Image

from sslcourse.data import load, load_images, pack
from sslcourse.data.decode import to_rgb
from sslcourse.data.packs import JpegPack, open_pack
from sslcourse.data.zips import CocoPack, DavisPack
from sslcourse.errors import InputError


def encoded(array: np.ndarray, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def packed(tmp_path) -> JpegPack:
    return pack(class_folders(tmp_path / "in", {"a": 10, "b": 5}), tmp_path / "small", quality=95)


# --- writing ---------------------------------------------------------------------------------------------------------


def test_round_trip(packed, tmp_path):
    assert sorted(os.listdir(tmp_path / "small")) == ["small_index.npz", "small_jpeg.bin"]
    whole = load(tmp_path / "small", "all")
    assert (whole.name, whole.classes, whole.labels.tolist()) == ("small", ["a", "b"], [0] * 10 + [1] * 5)
    original = load(tmp_path / "in").images
    assert (whole.images.int() - original.int()).abs().float().mean() < 8  # JPEG, quality 95, chroma halved
    train, test = load(packed.path), load(tmp_path / "small" / "small_index.npz", "test")
    assert train.labels.bincount().tolist() == [8, 4]
    assert test.labels.bincount().tolist() == [2, 1]
    index = np.load(tmp_path / "small" / "small_index.npz")
    assert index["filename"][0] == os.path.join("a", "000.png")


def test_the_split_is_seeded_or_that_of_the_folders(tmp_path):
    source = class_folders(tmp_path / "in", {"a": 40})
    splits = [pack(source, tmp_path / f"p{k}", seed=seed).is_test for k, seed in enumerate([0, 0, 1])]
    assert torch.equal(splits[0], splits[1])
    assert not torch.equal(splits[0], splits[2])
    class_folders(tmp_path / "split" / "train", {"a": 2, "b": 1})
    class_folders(tmp_path / "split" / "val", {"a": 1})
    own = pack(tmp_path / "split", tmp_path / "own", test_fraction=0.9)
    assert (own.is_test.tolist(), own.labels.tolist()) == ([False, False, False, True], [0, 0, 1, 0])


def test_jpeg_files_are_copied_unless_they_must_change(tmp_path):
    path = save(tmp_path / "in" / "a" / "0.jpg", picture(0, 40, 60), quality=70)
    turned = Image.Exif()
    turned[0x0112] = 6
    save(tmp_path / "in" / "a" / "1.jpg", picture(1, 40, 60), exif=turned)
    whole = pack(tmp_path / "in", tmp_path / "whole")
    assert whole.encoded(0) == path.read_bytes()
    assert whole.open(1).size == (40, 60)
    assert whole.open(1).getexif().get(0x0112) is None
    small = pack(tmp_path / "in", tmp_path / "small", size=20)
    assert [small.open(i).size for i in range(2)] == [(30, 20), (20, 30)]
    assert pack(tmp_path / "in", tmp_path / "large", size=80).encoded(0) == path.read_bytes()  # never enlarged


def test_broken_files_are_skipped_with_a_warning(tmp_path):
    source = class_folders(tmp_path / "in", {"a": 3})
    (source / "a" / "001.png").write_bytes(b"broken")
    with pytest.warns(UserWarning, match=r"skipped 1 files .*001\.png"):
        assert len(pack(source, tmp_path / "out")) == 2


@pytest.mark.parametrize(
    "options", [{"quality": 0}, {"quality": 100}, {"test_fraction": 1.0}, {"test_fraction": -0.1}, {"size": 2}]
)
def test_bad_options_are_refused(tmp_path, options):
    source = class_folders(tmp_path / "in", {"a": 3})
    with pytest.raises(InputError, match=f"got {next(iter(options.values()))}"):
        pack(source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_packed_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        pack(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        pack(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "a.png").write_bytes(b"broken")
    with pytest.raises(InputError, match="none of its 1 files"):
        pack(tmp_path / "in", tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []
    (tmp_path / "file").write_text("in the way")
    save(tmp_path / "in" / "b.png", picture())
    (tmp_path / "in" / "a.png").unlink()
    with pytest.raises(InputError, match="cannot write the pack"):
        pack(tmp_path / "in", tmp_path / "file")


def test_a_full_disk_leaves_the_old_pack_and_no_rubbish(packed, tmp_path, monkeypatch):
    before = packed.path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        pack(class_folders(tmp_path / "more", {"c": 3}), tmp_path / "small")
    assert packed.path.read_bytes() == before
    assert sorted(os.listdir(tmp_path / "small")) == ["small_index.npz", "small_jpeg.bin"]


# --- reading ---------------------------------------------------------------------------------------------------------


def test_only_what_is_asked_for_is_decoded(packed, monkeypatch):
    opened = []
    real = JpegPack.encoded
    monkeypatch.setattr(JpegPack, "encoded", lambda self, i: opened.append(i) or real(self, i))
    load(packed.path, "test", size=12)
    assert sorted(opened) == packed.is_test.nonzero().flatten().tolist()


def test_a_pack_streams_too(packed):
    memory, stream = load(packed.path, size=8), load(packed.path, size=8, stream=True)
    stream.workers = 2
    for one, other in zip(memory.batches(4, epoch=1), stream.batches(4, epoch=1), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_pack_in_the_data_root_stands_in_for_the_download(packed, tmp_path):
    pack(tmp_path / "in", tmp_path / "cifar10")
    assert load("cifar10", "all", root=tmp_path).classes == ["a", "b"]
    assert len(load("small", "all", root=tmp_path)) == 15


def test_an_index_with_offsets_alone_is_enough(packed):
    np.savez(index_of(packed), offsets=packed.offsets)
    found = load(packed.path)
    assert (found.labels.unique().tolist(), found.classes, len(found)) == ([-1], [], 15)
    assert "has no test images" in message(packed.path, "test")


def index_of(packed: JpegPack) -> Path:
    return packed.path.with_name("small_index.npz")


def change(packed: JpegPack, **changed) -> str:
    with np.load(index_of(packed)) as index:
        arrays = dict(index)
    np.savez(index_of(packed), **(arrays | changed))
    return message(packed.path)


def test_a_truncated_blob_is_refused(packed):
    packed.path.write_bytes(packed.path.read_bytes()[:-10])
    assert "truncated" in message(packed.path)


def test_damaged_indices_are_refused(packed):
    n = len(packed)
    assert "label 7 has no name" in change(packed, labels=np.full(n, 7))
    assert "'labels' must be 15 numbers" in change(packed, labels=np.zeros(3, dtype=int))
    assert "'offsets' must be" in change(packed, labels=np.zeros(n, int), offsets=packed.offsets[::-1].copy())
    assert "'offsets' must be" in change(packed, offsets=np.zeros((2, 2)))
    assert "cannot be read as the index" in change(packed, labels=np.array([{}] * n, dtype=object))  # a pickle
    np.savez(index_of(packed), other=np.zeros(3))
    assert "has no 'offsets'" in message(packed.path)
    whole = index_of(packed).read_bytes()
    for broken in (whole[:50], b"", b"PK\x03\x04 not a zip", b"\x93NUMPY"):
        index_of(packed).write_bytes(broken)
        assert "cannot be read as the index" in message(packed.path)


def test_one_file_of_two_or_two_packs_in_a_folder(packed, tmp_path):
    index_of(packed).rename(tmp_path / "small" / "other_index.npz")
    assert "holds several packs (other, small)" in message(packed.path.parent)
    assert "lacks its file small_index.npz" in message(packed.path)
    assert "folder of packs" in message(tmp_path)


def test_a_broken_image_in_a_pack_is_skipped(packed):
    blob = bytearray(packed.path.read_bytes())
    blob[packed.offsets[2] : packed.offsets[2] + 20] = bytes(20)
    packed.path.write_bytes(bytes(blob))
    with pytest.warns(UserWarning, match="skipped 1 of 15 files .*image 2"):
        assert len(load(packed.path, "all")) == 14


def test_the_five_lines_of_the_page_read_a_pack(packed, monkeypatch):
    page = (Path(__file__).parents[1] / "book" / "data-format.md").read_text()
    code = next(part for part in page.split("```python\n") if "X_index.npz" in part and "memmap" in part).split("```")[
        0
    ]
    monkeypatch.chdir(packed.path.parent)
    scope = {"i": 3}
    exec(code.replace("X_", "small_"), scope)
    assert torch.equal(torch.from_numpy(np.array(scope["image"])).permute(2, 0, 1), load(packed.path, "all").images[3])


# --- COCO and DAVIS --------------------------------------------------------------------------------------------------

MASK = np.array([[0, 1, 1, 2]] * 4, dtype=np.uint8)


def write_zip(path: Path, meta: object, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
        if meta is not None:
            archive.writestr("meta.json", meta if isinstance(meta, str) else json.dumps(meta))
    return path


@pytest.fixture
def coco(tmp_path) -> Path:
    segment = {"isthing": 1, "iscrowd": 0, "area": 8, "bbox": [1, 0, 2, 4], "category": "cat", "category_id": 17}
    other = segment | {"area": 4, "bbox": [3, 0, 1, 4], "category": "wall", "category_id": 199, "isthing": 0}
    image = {"license": 4, "captions": ["a cat", "one cat"], "kind": "panoptic"}
    meta = {
        "images": [
            image | {"id": 1, "image": "images/1.jpg", "mask": "masks/1.png"}
            | {"segments": [segment | {"idx": 1}, other | {"idx": 2}]},
            image | {"id": 2, "image": "images/2.jpg", "kind": None, "segments": []},
        ],
        "categories": {"17": {"name": "cat", "isthing": 1}, "199": {"name": "wall", "isthing": 0}},
        "licenses": {"4": ["Attribution", "address"]},
    }  # fmt: skip
    entries = {
        "images/1.jpg": encoded(picture(1, 4, 4)),
        "images/2.jpg": encoded(picture(2, 20, 30)),
        "masks/1.png": encoded(MASK, "PNG"),
    }
    return write_zip(tmp_path / "coco.zip", meta, entries)


def test_coco_keeps_masks_segments_and_captions(coco):
    found = load(coco.parent)  # the folder or the file
    assert isinstance(found, CocoPack)
    first, second = found
    assert (first.id, first.license, first.kind, first.captions) == (1, 4, "panoptic", ["a cat", "one cat"])
    assert torch.equal(first.mask, torch.from_numpy(MASK))
    assert np.array_equal(
        first.image.permute(1, 2, 0).numpy(), to_rgb(Image.open(io.BytesIO(encoded(picture(1, 4, 4)))))
    )
    assert [(s.category, s.is_thing, s.box) for s in first.segments] == [
        ("cat", True, (1, 0, 2, 4)),
        ("wall", False, (3, 0, 1, 4)),
    ]
    assert first.instance_masks().sum(dim=(1, 2)).tolist() == [s.area for s in first.segments]
    assert first.class_map()[0].tolist() == [0, 17, 17, 199]
    assert found.with_masks == [0]
    assert found.pairs() == [(0, "a cat"), (0, "one cat"), (1, "a cat"), (1, "one cat")]
    assert found.categories == {17: "cat", 199: "wall"}
    with pytest.raises(InputError, match="image 2 has no mask"):
        second.instance_masks()
    assert second.segments == []


def test_coco_is_a_set_of_images_too(coco):
    images = load_images(coco, size=16)
    assert images.images.shape == (2, 3, 16, 16)
    assert images.labels.tolist() == [-1, -1]
    assert len(load_images(coco, n=1)) == 1
    assert "it is one set" in message(coco, "test")


@pytest.fixture
def davis(tmp_path) -> Path:
    meta = {clip: {"frames": [{"frame": "00"}, {"frame": "02"}]} for clip in ("cow", "bear")}
    entries = {}
    for k, clip in enumerate(meta):
        for i, frame in enumerate(("00", "02")):
            entries[f"{clip}/{frame}.jpg"] = encoded(picture(10 * k + i, 6, 10))
            mask = np.zeros((6, 10), dtype=np.uint8)
            mask[: i + 1] = 255
            entries[f"{clip}/{frame}.png"] = encoded(mask, "PNG")
    return write_zip(tmp_path / "davis.zip", meta, entries)


def test_davis_clips(davis):
    found = load(davis)
    assert isinstance(found, DavisPack)
    assert found.clips == ["bear", "cow"]
    clip = found["cow"]
    assert (clip.video.shape, clip.video.dtype) == ((3, 2, 6, 10), torch.uint8)
    assert (clip.masks.sum(dim=(1, 2)).tolist(), clip.masks.dtype) == ([10, 20], torch.bool)
    assert [each.name for each in found] == ["bear", "cow"]
    with pytest.raises(InputError, match="did you mean 'bear'"):
        found["beer"]
    frames = load_images(davis)
    assert (frames.classes, frames.labels.tolist(), frames.images.shape[2:]) == (["bear", "cow"], [0, 0, 1, 1], (6, 10))


def test_damaged_archives_are_refused(tmp_path, coco):
    whole = coco.read_bytes()
    for name, content in {"short": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}.items():
        (tmp_path / f"{name}.zip").write_bytes(content)
        assert "cannot be read as an image archive" in message(tmp_path / f"{name}.zip")
    assert "has no meta.json" in message(write_zip(tmp_path / "a.zip", None, {"x.jpg": b""}))
    assert "cannot be read" in message(write_zip(tmp_path / "b.zip", "{", {}))
    for meta in ({"images": [{}], "categories": {}}, {"images": 3, "categories": {}}):
        assert "not that of a COCO pack" in message(write_zip(tmp_path / "c.zip", meta, {}))
    for meta in ({"clip": {}}, [1], "3", {"clip": 3}):
        assert "not that of a DAVIS pack" in message(write_zip(tmp_path / "d.zip", meta, {}))
    meta = {"clip": {"frames": [{"frame": "0"}]}}
    found = load(write_zip(tmp_path / "e.zip", meta, {"clip/0.jpg": b"broken"}))
    with pytest.raises(InputError, match=r"cannot read its entry clip/0\.jpg"):
        found["clip"]


def test_zip_bombs_are_refused_before_they_are_unpacked(tmp_path, packed, monkeypatch):
    monkeypatch.setattr("sslcourse.data.zips.MAX_IMAGE", 10_000)
    monkeypatch.setattr("sslcourse.data.packs.MAX_ENTRY", 10_000)
    bomb = write_zip(tmp_path / "x.zip", {}, {"zeros": bytes(20_000)}, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1000
    assert "unpacks to 20,000 bytes" in message(bomb)
    with zipfile.ZipFile(index_of(packed), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.npy", bytes(20_000))
    assert "unpacks to 20,000 bytes" in message(packed.path)


# --- real packs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def real() -> Path:
    if not (folder := os.environ.get("SSLCOURSE_PACKS")):
        pytest.skip("SSLCOURSE_PACKS is not set")
    return Path(folder)


def test_real_packs(real):
    train, test = load(real / "cifar10-small"), load(real / "cifar10-small", "test")
    assert train.images.shape == (2000, 3, 32, 32)
    assert test.labels.bincount().tolist() == [50] * 10
    clothes = open_pack(real / "clothing10")
    assert (int(clothes.is_test.sum()), len(clothes)) == (341, 1249)
    coco = load(real / "coco")
    assert (len(coco), len(coco.with_masks), len(coco.pairs())) == (132, 93, 661)
    for i in coco.with_masks:
        item = coco[i]
        assert item.instance_masks().sum(dim=(1, 2)).tolist() == [s.area for s in item.segments]
    davis = load(real / "davis")
    assert (len(davis), sum(clip.video.shape[1] for clip in davis)) == (10, 238)


def test_loading_needs_only_light_imports():
    heavy = ("sklearn", "torchvision", "skimage", "rich", "timm")
    code = f"import sys, sslcourse.data; print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
