"""`load`: names, folders, streams, and one sentence for everything that can be wrong with them."""

import pickle
import sys
import warnings
from urllib.error import URLError

import numpy as np
import pytest
import torch
from image_files import class_folders, message, picture, save
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from sslcourse.data import Images, ImageStream, load, load_images
from sslcourse.data.decode import MIXED_SIZE, pixels, to_rgb
from sslcourse.data.load import NAMES, OFFLINE
from sslcourse.data.named import NAMED
from sslcourse.data.subset import balanced_order, stratified_test
from sslcourse.errors import InputError

# --- folders ---------------------------------------------------------------------------------------------------------


def test_class_folders_keep_pixels_labels_and_order(tmp_path):
    found = load(class_folders(tmp_path / "pets", {"cat": 3, "dog": 2}))
    assert isinstance(found, Images)
    assert (found.name, found.classes, found.labels.tolist()) == ("pets", ["cat", "dog"], [0, 0, 0, 1, 1])
    for i, seed in enumerate([0, 1, 2, 100, 101]):
        assert np.array_equal(found.images[i].permute(1, 2, 0).numpy(), picture(seed))


def test_a_flat_folder_has_no_labels_and_hidden_files_are_passed_over(tmp_path):
    save(tmp_path / "a.png", picture())
    save(tmp_path / "b.JPG", picture())
    (tmp_path / ".a.png").write_bytes(b"not an image")
    (tmp_path / "notes.txt").write_text("not an image")
    found = load(str(tmp_path))
    assert (found.labels.tolist(), found.classes) == ([-1, -1], [])


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_train_and_test_folders_are_the_split(tmp_path, test_name):
    class_folders(tmp_path / "train", {"a": 2, "b": 3})
    class_folders(tmp_path / test_name, {"b": 1})
    assert load(tmp_path).labels.tolist() == [0, 0, 1, 1, 1]
    assert load(tmp_path, "test").labels.tolist() == [1]
    assert len(load(tmp_path, "all")) == 6
    assert "no split 'tset'" in message(tmp_path, "tset")


def test_without_a_split_there_is_no_test_set(tmp_path):
    assert "sslcourse pack" in message(class_folders(tmp_path / "a", {"x": 2}), "test")


def test_images_below_a_class_folder_belong_to_it(tmp_path):
    save(tmp_path / "a" / "2020" / "may" / "1.png", picture())
    save(tmp_path / "b" / "1.png", picture())
    assert load(tmp_path).labels.tolist() == [0, 1]


def test_broken_files_are_skipped_counted_and_named(tmp_path):
    class_folders(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a" / "001.png").write_bytes(b"")
    whole = save(tmp_path / "b" / "big.jpg", picture(1, 64, 64)).read_bytes()
    (tmp_path / "b" / "big.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"skipped 2 of 7 files .*001\.png, .*big\.jpg"):
        found = load(tmp_path, size=12)
    assert found.labels.tolist() == [0, 0, 1, 1, 1]
    assert np.array_equal(found.images[1].permute(1, 2, 0).numpy(), picture(2))


def test_a_folder_of_broken_or_no_images_is_refused(tmp_path):
    (tmp_path / "x.png").write_bytes(b"broken")
    assert "none of its 1 files is a readable image" in message(tmp_path)
    (tmp_path / "x.png").unlink()
    assert "holds no images" in message(tmp_path)


# --- formats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    upright = picture(3, 8, 14)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what to do to the upright picture so that EXIF undoes it
    stored = Image.fromarray(upright)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    found = load(tmp_path)
    assert found.images.shape == (1, 3, 8, 14)  # the size is that of the upright image, too
    assert np.array_equal(found.images[0].permute(1, 2, 0).numpy(), upright)


def test_transparency_is_over_white_whatever_colour_hides_there():
    rgba = np.zeros((1, 2, 4), dtype=np.uint8)
    rgba[0, :, 0], rgba[0, 1, 3] = 200, 255
    assert np.asarray(to_rgb(Image.fromarray(rgba))).tolist() == [[[255, 255, 255], [200, 0, 0]]]
    grey_alpha = Image.fromarray(np.array([[[9, 0], [9, 255]]], dtype=np.uint8), "LA")
    assert np.asarray(to_rgb(grey_alpha)).tolist() == [[[255] * 3, [9] * 3]]
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    palette.putpalette([1, 2, 3, 4, 5, 6])
    palette.info["transparency"] = 0
    assert np.asarray(to_rgb(palette)).tolist() == [[[255] * 3, [4, 5, 6]]]


def test_deep_greyscale_is_scaled_not_clipped(tmp_path):
    deep = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    save(tmp_path / "a.png", deep)
    assert to_rgb(Image.open(tmp_path / "a.png")).getpixel((1, 0)) == (100, 100, 100)
    for values in (deep.astype(np.int32), (deep / 65535).astype(np.float32), (deep // 257).astype(np.float32)):
        assert np.asarray(to_rgb(Image.fromarray(values)))[0, :, 2].tolist() == [0, 100, 255]
    dark = np.array([[0, 200]], dtype=np.uint16)  # dark, but 16 bits all the same
    assert np.asarray(to_rgb(Image.fromarray(dark))).max() == 1


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "YCbCr", "P"])
def test_every_mode_becomes_rgb(mode):
    image = to_rgb(Image.fromarray(picture()).convert(mode))
    assert (image.mode, image.size) == ("RGB", (12, 12))


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(96, 64), (64, 128), (16, 24), (64, 64), (32, 32)])
def test_resize_and_crop_equals_torchvision(height, width):
    image = Image.fromarray(picture(5, height, width))
    expected = v2.Compose([v2.PILToTensor(), v2.Resize(32, antialias=True), v2.CenterCrop(32)])(image)
    got = pixels(image, (32, 32))
    assert got.shape == (3, 32, 32)
    assert (got.int() - expected.int()).abs().max() <= 1  # sizes whose crop begins at a whole pixel, as torchvision's


def test_a_large_jpeg_decoded_at_a_fraction_looks_the_same(tmp_path):
    path = save(tmp_path / "a.jpg", picture(7, 800, 1200), quality=95)
    fast, full = pixels(Image.open(path), (32, 32)), pixels(Image.open(path).convert("RGB"), (32, 32))
    assert (fast.int() - full.int()).abs().max() <= 2


def test_images_of_one_size_keep_it_and_mixed_ones_become_square(tmp_path):
    class_folders(tmp_path / "same", {"a": 2}, height=20, width=31)
    assert load(tmp_path / "same").images.shape == (2, 3, 20, 31)
    assert load(tmp_path / "same", size=16).images.shape == (2, 3, 16, 16)
    save(tmp_path / "same" / "a" / "other.png", picture(9, 21, 31))
    assert load(tmp_path / "same").images.shape == (3, 3, MIXED_SIZE, MIXED_SIZE)
    save(tmp_path / "large" / "a.png", picture(9, 300, 300))
    assert load(tmp_path / "large").images.shape == (1, 3, MIXED_SIZE, MIXED_SIZE)


@pytest.mark.parametrize("size", [0, -3, 10**6])
def test_impossible_sizes_are_refused(size):
    assert f"got {size}" in message("digits", size=size)


# --- samples ---------------------------------------------------------------------------------------------------------


def test_a_sample_is_balanced_seeded_and_contained_in_larger_ones():
    labels = torch.tensor([0] * 50 + [1] * 20 + [2] * 5)
    order = balanced_order(labels, seed=3)
    assert sorted(order.tolist()) == list(range(75))
    assert labels[order[:12]].bincount().tolist() == [4, 4, 4]
    assert labels[order[:40]].bincount().tolist()[2] == 5  # a class runs out, the others share the rest
    assert max(labels[order[:40]].bincount()[:2]) - min(labels[order[:40]].bincount()[:2]) <= 1
    assert torch.equal(order, balanced_order(labels, seed=3))
    assert not torch.equal(order, balanced_order(labels, seed=4))


def test_the_global_generator_is_left_alone(tmp_path):
    before = torch.get_rng_state()
    found = load(class_folders(tmp_path, {"a": 4, "b": 4}), n=4, stream=True)
    list(found.batches(2, epoch=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_n_is_checked_against_the_set():
    assert len(load("digits", n=30)) == 30
    assert load("digits", n=30).labels.bincount().tolist() == [3] * 10
    for n in (0, 10_000):
        assert f"got {n}" in message("digits", n=n)


def test_stratified_test_takes_its_share_of_every_class():
    labels = torch.tensor([0] * 50 + [1] * 20 + [2] * 3)
    assert labels[stratified_test(labels, 0.2, 0)].bincount().tolist() == [10, 4, 1]


# --- names that work offline -----------------------------------------------------------------------------------------


def test_digits_are_offline_and_split():
    pytest.importorskip("sklearn")
    train, test = load("digits"), load("digits", "test")
    assert train.images.shape[1:] == (3, 32, 32)
    assert len(train) + len(test) == 1797
    assert test.labels.bincount(minlength=10).min() >= 34
    assert train.images.max() == 255
    assert load("digits", size=8).images.shape[2:] == (8, 8)
    assert not {image.numpy().tobytes() for image in train.images} & {image.numpy().tobytes() for image in test.images}


def test_photos_are_offline():
    pytest.importorskip("skimage")
    photos = load("photos", size=48)
    assert len(photos) >= 12
    assert photos.labels.tolist() == list(range(len(photos)))
    assert "astronaut" in photos.classes
    assert photos.images.float().std(dim=(1, 2, 3)).min() > 5  # none is blank


def test_shapes_is_the_embedded_world():
    data = pytest.importorskip("sslcourse.data.shapes")
    found = load("shapes", size=32, n=20)
    assert isinstance(found, Images)
    assert found.images.shape == (20, 3, 32, 32)
    assert torch.equal(found.images, data.Shapes("train", size=32, seed=0).as_images(20).images)
    assert not torch.equal(found.images, load("shapes", "test", size=32, n=20).images)


# --- names that are downloaded ---------------------------------------------------------------------------------------


@pytest.fixture
def no_net(monkeypatch):
    def fail(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", fail)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OFFLINE])
def test_without_a_net_one_sentence_says_what_to_do(name, no_net, tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCOURSE_DATA", str(tmp_path))
    text = message(name)
    assert f"cannot download '{name}'" in text
    assert "no route to host" in text
    assert str(tmp_path / name) in text
    assert NAMED[name].files in text
    assert all(offline in text for offline in OFFLINE)


def test_a_download_gives_up_instead_of_waiting(monkeypatch, tmp_path):
    import socket

    seen = []

    def fail(*args, **kwargs):
        seen.append(socket.getdefaulttimeout())
        raise URLError("timed out")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    message("cifar10", root=tmp_path)
    assert seen[0] is not None
    assert socket.getdefaulttimeout() is None


def test_cifar10_reads_the_official_files(tmp_path, monkeypatch):
    import torchvision.datasets

    folder = tmp_path / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels_of = {}
    for name in [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]:
        pixels_of[name] = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels_of[name], "labels": [0, 1, 2, 0]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b", "c"]}))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_load_meta", lambda self: setattr(self, "classes", list("abc")))
    found = load("cifar10", root=tmp_path)
    assert found.images.shape == (20, 3, 32, 32)
    assert np.array_equal(found.images[0].numpy().reshape(-1), pixels_of["data_batch_1"][0])
    assert load("cifar10", "test", root=tmp_path).labels.tolist() == [0, 1, 2, 0]
    assert "no split 'val'; it has train, test" in message("cifar10", "val", root=tmp_path)


def test_stl10_reads_the_official_files(tmp_path, monkeypatch):
    import torchvision.datasets

    folder = tmp_path / "stl10" / "stl10_binary"
    folder.mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 96, 96), dtype=np.uint8)  # columns first
    image.tofile(folder / "train_X.bin")
    image.tofile(folder / "unlabeled_X.bin")
    np.array([1, 10], dtype=np.uint8).tofile(folder / "train_y.bin")
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    monkeypatch.setattr(torchvision.datasets.STL10, "_check_integrity", lambda self: True)
    found = load("stl10", root=tmp_path)
    assert found.labels.tolist() == [0, 9]
    assert np.array_equal(found.images.numpy(), image.transpose(0, 1, 3, 2))
    assert load("stl10", "unlabeled", root=tmp_path).labels.tolist() == [-1, -1]


def test_imagenette_pets_and_voc_read_the_official_layout(tmp_path):
    for part, count in (("train", 2), ("val", 1)):
        for wnid in ("n01440764", "n02102040"):
            for i in range(count):
                save(tmp_path / "imagenette" / "imagenette2-160" / part / wnid / f"{i}.JPEG", picture(i), format="JPEG")
    found = load("imagenette", root=tmp_path)
    assert (found.classes, found.labels.tolist()) == (["tench", "English springer"], [0, 0, 1, 1])
    assert len(load("imagenette", "test", root=tmp_path)) == 2

    pets = tmp_path / "pets" / "oxford-iiit-pet"
    save(pets / "images" / "Abyssinian_1.jpg", picture())
    save(pets / "images" / "beagle_3.jpg", picture())
    (pets / "annotations").mkdir()
    (pets / "annotations" / "trainval.txt").write_text("Abyssinian_1 1 1 1\nbeagle_3 2 2 1\n")
    assert load("pets", root=tmp_path).classes == ["Abyssinian", "Beagle"]

    voc = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    save(voc / "JPEGImages" / "1.jpg", picture())
    for folder in ("ImageSets/Main", "Annotations"):
        (voc / folder).mkdir(parents=True)
    (voc / "ImageSets" / "Main" / "train.txt").write_text("1\n")
    box = "<object><name>{}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>9</ymax></bndbox></object>"
    objects = box.format("person", 3) + box.format("horse", 9) + box.format("dog", 2)
    (voc / "Annotations" / "1.xml").write_text(f"<annotation>{objects}</annotation>")
    found = load("voc", root=tmp_path)
    assert found.classes[found.labels[0]] == "horse"


# --- wrong names and paths -------------------------------------------------------------------------------------------


def test_unknown_names_suggest_the_nearest(tmp_path):
    assert "did you mean 'digits'" in message("digit", root=tmp_path)
    (tmp_path / "flowers").mkdir()
    assert "did you mean 'flowers'" in message("flower", root=tmp_path)


def test_missing_paths_and_strange_files(tmp_path):
    assert "no file or folder" in message("./nowhere")
    assert "no file or folder" in message(tmp_path / "x.npz")
    (tmp_path / "x.csv").write_text("1,2")
    assert "is not a set of images" in message(tmp_path / "x.csv")


def test_a_folder_in_the_data_root_has_a_name(tmp_path):
    class_folders(tmp_path / "flowers", {"rose": 2})
    assert load("flowers", root=tmp_path).name == "flowers"


# --- streams ---------------------------------------------------------------------------------------------------------


def batches_of(data: Images | ImageStream, **options) -> list[tuple[Tensor, ...]]:
    return [tuple(t.clone() for t in batch) for batch in data.batches(3, **options)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_gives_the_batches_of_images_in_memory(tmp_path, workers):
    class_folders(tmp_path, {"a": 4, "b": 4})
    memory, stream = load_images(tmp_path, stream=False), load_images(tmp_path, stream=True)
    assert isinstance(stream, ImageStream)
    stream.workers = workers
    for options in ({}, {"seed": 1, "epoch": 2}, {"shuffle": False, "drop_last": False}, {"drop_last": False}):
        expected, got = batches_of(memory, **options), batches_of(stream, **options)
        assert len(expected) == len(got)
        for one, other in zip(expected, got, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        late = batches_of(stream, start=1, **options)
        assert all(torch.equal(one[0], other[0]) for one, other in zip(late, got[1:], strict=True))
        rows = torch.tensor([0, 1])  # of every batch, what one of several processes takes
        mine = batches_of(stream, rows=rows, **options)
        assert all(torch.equal(one[0], other[0][:2]) for one, other in zip(mine, got, strict=True))


def test_a_stream_has_labels_items_subsets_and_can_be_read(tmp_path):
    stream = load(class_folders(tmp_path, {"a": 3, "b": 3}), stream=True, size=8)
    memory = load(tmp_path, size=8)
    stream.workers = 0
    assert torch.equal(stream.labels, memory.labels)
    assert torch.equal(stream[4][0], memory[4][0])
    part = stream.subset(stream.labels == 1)
    assert (len(part), part.labels.tolist()) == (3, [1, 1, 1])
    assert torch.equal(part.read(torch.tensor([2, 0])).images, memory.images[[5, 3]])


def test_sets_above_the_limit_are_streamed(tmp_path, monkeypatch):
    class_folders(tmp_path, {"a": 3})
    monkeypatch.setattr(sys.modules[load.__module__], "STREAM_BYTES", 3 * 12 * 12 * 3 - 1)
    assert isinstance(load(tmp_path), ImageStream)
    assert isinstance(load(tmp_path, n=2), Images)
    assert isinstance(load(tmp_path, stream=False), Images)


def test_a_stream_replaces_broken_files_and_says_so_once(tmp_path):
    class_folders(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a" / "001.png").write_bytes(b"broken")
    stream = load(tmp_path, stream=True, size=8)
    stream.workers = 0
    with pytest.warns(UserWarning, match=r"1 files .* replaced by others: .*001\.png"):
        (images, labels, index), *_ = stream.batches(6, shuffle=False)
    assert index.tolist() == [0, 2, 2, 3, 4, 5]
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(images[1], images[2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(stream.batches(6, epoch=1))


def test_a_stream_of_broken_files_is_refused(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"broken")
    stream = load(tmp_path, stream=True, size=8)
    stream.workers = 0
    with pytest.raises(InputError, match="in a row are not readable"):
        list(stream.batches(2))


def test_other_settings_of_the_world_have_names() -> None:
    from sslcourse.data import Shapes

    found = load("shapes:sketch", "test", size=16, n=3)
    assert torch.equal(found.images, Shapes("test", size=16, preset="sketch").as_images(3).images)
    with pytest.raises(InputError, match="sketch"):
        load("shapes:sketsh")
