"""SAM's relatives as small models: what they answer, how they learn, their files, scores, parameters and commands."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from sslcourse import methods
from sslcourse.cli import main
from sslcourse.data.rng import step_generator
from sslcourse.data.shapes import CLASSES, COLOURS
from sslcourse.errors import InputError
from sslcourse.methods.clip import CLIP
from sslcourse.segment import fastsam_net, grounded_training
from sslcourse.segment.build import build_tiny_sam
from sslcourse.segment.family_scoring import box_overlap, everything_ious, matte_errors, text_ious
from sslcourse.segment.fastsam_net import Answers, FastNet, find_all
from sslcourse.segment.fastsam_training import FastTraining, assign
from sslcourse.segment.files import load_small, load_tiny, save_tiny
from sslcourse.segment.grounded_training import NAMES, GroundedTraining, draw_named, matches, owners
from sslcourse.segment.mask_prompts import box_of
from sslcourse.segment.matter import Matter, matte
from sslcourse.segment.matting_training import MattingTraining, soft_objects
from sslcourse.segment.parameters import count, published, row, table
from sslcourse.segment.sam import Sam
from sslcourse.segment.scenes import SceneMasks, draw_scenes
from sslcourse.segment.text_to_box import TextToBox, find_text
from sslcourse.train import fit
from sslcourse.train.config import TrainConfig

QUICK = TrainConfig(
    epochs=30, batch_size=4, optimizer="adamw", lr=0.3, warmup_epochs=0.1, accelerator="cpu", channels_last=False,
    log_every=1, monitor_every=10**9,
)  # fmt: skip


@pytest.fixture(scope="module")
def scenes() -> SceneMasks:
    return draw_scenes(8, size=64)


@pytest.fixture(scope="module")
def clip() -> CLIP:
    config = CLIP.PRESETS["cpu"]
    model = methods.build(CLIP, replace(config, dim=16, text_dim=16, text_depth=1, text_heads=2, vocab_size=600))
    model.vocabulary.learn([f"a {name}" for name in NAMES])
    return model.eval()


def losses(folder: Path) -> list[float]:
    import json

    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


# FastSAM


def test_cells_around_the_middle_of_a_box_answer_for_its_object(scenes: SceneMasks) -> None:
    ids, grid = scenes.images[:, 3], 8
    wanted = assign(ids, grid)
    assert (wanted.boxes[:, 2:] > wanted.boxes[:, :2]).all()
    for image, cell, box, mask in zip(*wanted, strict=True):
        y, x = divmod(int(cell) % grid**2, grid)
        middle = (box[:2] + box[2:]) / 2
        assert abs(8 * x + 4 - float(middle[0])) < 8
        assert abs(8 * y + 4 - float(middle[1])) < 8
        assert mask.any()
        part = int(cell) // grid**2
        small = ids[image, 1::2, 1::2]
        owner = (int(small[mask].min()) - 1) // 3
        assert bool(((small[mask] - 1) // 3 == owner).all())
        assert bool(((small[mask].int() - 1) % 3 >= part).all())
    wholes = {
        (int(i), tuple(b.tolist())) for i, c, b in zip(wanted.image, wanted.cell, wanted.boxes, strict=True) if c < 64
    }
    assert len(wholes) == len(scenes.objects(0, 16)[0])  # every whole has a cell


def test_one_pass_learns_to_find_everything(tmp_path: Path, scenes: SceneMasks) -> None:
    config = FastTraining.Config(64, 8, 8, QUICK)
    training = methods.build(FastTraining, config)
    fit(training, scenes[slice(0, 4)], config, tmp_path, progress=False)
    course = losses(tmp_path)
    assert course[-1] < 0.6 * course[0]
    path = tmp_path / "fast.safetensors"
    save_tiny(training.net, path, {"kind": "fastsam", "image_size": 64, "width": 8, "n_proto": 8})
    again = load_small(path)
    assert isinstance(again, FastNet)
    with pytest.raises(InputError, match="takes no prompts as a SAM does"):
        load_tiny(path)
    found = find_all(again, scenes.images[0, :3], score=0.05)
    assert found.masks.shape[1:] == (64, 64)
    assert (found.scores[:-1] >= found.scores[1:]).all()
    ious = everything_ious(again, scenes[slice(0, 2)])
    assert ((ious >= 0) & (ious <= 1)).all()


def test_what_is_found_comes_back_in_pixels_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FastNet(64, 4, 1)
    grid = 8
    scores = torch.full((1, 3 * grid**2), -20.0)
    scores[0, [5, 6, 100]] = torch.tensor([3.0, 2.0, 1.0])
    boxes = torch.zeros(1, 3 * grid**2, 4)
    boxes[0, 5], boxes[0, 6] = torch.tensor([8.0, 4, 24, 20]), torch.tensor([8.0, 4, 24, 21])  # one of two stays
    boxes[0, 100] = torch.tensor([40.0, 8, 60, 28])
    answers = Answers(scores, boxes, torch.ones(1, 3 * grid**2, 1), torch.ones(1, 1, 32, 32))
    monkeypatch.setattr(model, "forward", lambda x: answers)
    found = find_all(model, torch.zeros(3, 60, 128, dtype=torch.uint8))  # half the size, 30 x 64
    assert found.masks.shape == (2, 60, 128)
    torch.testing.assert_close(found.boxes, torch.tensor([[16.0, 8, 48, 40], [80, 16, 120, 56]]))
    for mask, box in zip(found.masks, found.boxes, strict=True):
        assert (box_of(mask) - box).abs().max() <= 2
    nothing = find_all(model, torch.zeros(3, 60, 128, dtype=torch.uint8), score=0.99)
    assert nothing.masks.shape == (0, 60, 128)
    with pytest.raises(InputError, match="multiple of 16"):
        FastNet(72)
    with pytest.raises(InputError, match="do not fit"):
        model.preprocess(torch.zeros(3, 70, 64))


# Words to boxes


def test_scenes_have_the_names_of_their_objects() -> None:
    drawn = draw_named(6, size=64)
    assert len(drawn) == 6
    assert torch.equal(drawn.images, draw_scenes(6, size=64).images)
    assert torch.equal(drawn.names[4:], draw_named(2, size=64, start=4).names)
    assert int(drawn.names.max()) < len(COLOURS) * len(CLASSES)
    assert (drawn.names[:, 0] >= 0).all()


def test_a_name_fits_its_object_and_its_kind_any() -> None:
    red_star, blue_star = NAMES.index("red star"), NAMES.index("blue star")
    phrase = torch.tensor([red_star, red_star, blue_star, NAMES.index("star"), NAMES.index("disc")])
    assert matches(torch.tensor([red_star]), phrase).tolist() == [[True, True, False, True, False]]
    assert matches(torch.tensor(blue_star), phrase).tolist() == [False, False, True, True, False]


def test_a_query_answers_for_the_object_under_its_middle() -> None:
    ids = torch.zeros(1, 32, 32, dtype=torch.uint8)
    ids[0, 2:14, 2:14], ids[0, 6:10, 6:10], ids[0, 20:30, 18:30] = 1, 2, 4
    owner, boxes = owners(ids, 2, 4)
    assert boxes[0].tolist() == [[2, 2, 14, 14], [18, 20, 30, 30]]
    expected = [[0, 0, -1, -1], [0, 0, -1, -1], [-1, -1, 1, 1], [-1, -1, 1, 1]]
    assert owner.view(4, 4).tolist() == expected


def test_phrases_are_read_one_by_one(clip: CLIP) -> None:
    model = TextToBox(clip, 64, 8, 8)
    both = model.read(["red star", "blue disc"])
    alone = model.read(["blue disc"])
    torch.testing.assert_close(both.features[both.phrase == 1], alone.features)
    assert "".join(both.words).replace(" ", "") == "redstarbluedisc"
    assert not any(key.startswith("clip") for key in model.state_dict())
    with pytest.raises(InputError, match="a text to look for"):
        find_text(model, torch.zeros(3, 64, 64, dtype=torch.uint8), " . ")
    with pytest.raises(InputError, match="multiple of 8"):
        TextToBox(clip, 60)


def test_words_find_boxes(tmp_path: Path, clip: CLIP) -> None:
    data = draw_named(4, size=64)
    config = GroundedTraining.Config(64, 16, replace(QUICK, epochs=60))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        training = GroundedTraining(config, clip)
    fit(training, data, config, tmp_path, progress=False)
    course = losses(tmp_path)
    assert course[-1] < 0.5 * course[0]
    found = find_text(training.net, data.images[0, :3], NAMES[int(data.names[0, 0])], box_threshold=0.0)
    assert len(found.boxes)
    boxes, masks = text_ious(training.net, build_tiny_sam(64, 16), data)
    assert len(boxes) == len(masks) > 0
    assert boxes.mean() > 0.3  # it has seen these four scenes sixty times
    with pytest.raises(InputError, match="draw_named"):
        training.prepare(draw_scenes(2, size=64))  # type: ignore[arg-type]


def test_overlap_of_boxes() -> None:
    a = torch.tensor([[0.0, 0, 4, 4], [0, 0, 2, 2], [0, 0, 0, 0]])
    b = torch.tensor([[2.0, 0, 6, 4], [4, 4, 5, 5], [0, 0, 0, 0]])
    torch.testing.assert_close(box_overlap(a, b), torch.tensor([1 / 3, 0.0, 0.0]))


# Matting


def test_composites_have_soft_edges_where_the_mask_ends(scenes: SceneMasks) -> None:
    generator = step_generator(0, 0)
    numbers, noise = torch.rand(8, 3, generator=generator), torch.randn(8, 1, 64, 64, generator=generator)
    composite, alpha, mask = soft_objects(scenes.images, numbers, noise)
    assert composite.shape == (8, 3, 64, 64)
    assert 0 <= float(composite.min()) <= float(composite.max()) <= 255
    soft = (alpha > 0) & (alpha < 1)
    assert soft.flatten(1).any(dim=1).all()
    background = scenes.images[:, :3].roll(1, dims=0).float()
    torch.testing.assert_close(
        composite[(alpha == 0).expand(-1, 3, -1, -1)], background[(alpha == 0).expand(-1, 3, -1, -1)]
    )
    front = (alpha == 1) & mask[:, None]
    own = scenes.images[:, :3].float()
    torch.testing.assert_close(composite[front.expand(-1, 3, -1, -1)], own[front.expand(-1, 3, -1, -1)])
    agree = ((alpha[:, 0] > 0.5) == mask).float().mean()
    assert agree > 0.97


def test_a_matte_learns_and_the_sam_below_it_does_not(tmp_path: Path, scenes: SceneMasks) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sam = build_tiny_sam(64, 64, encoder="conv")
        config = MattingTraining.Config(replace(QUICK, epochs=20, lr=0.5))
        training = MattingTraining(config, sam)
    before = {key: value.clone() for key, value in sam.state_dict().items()}
    fit(training, scenes[slice(0, 4)], config, tmp_path, progress=False)
    course = losses(tmp_path)
    assert course[-1] < 0.8 * course[0]
    assert all(torch.equal(value, before[key]) for key, value in training.net.sam.state_dict().items())
    found = matte(
        training.net, torch.zeros(3, 40, 80, dtype=torch.uint8), torch.tensor([[10, 10, 60, 30], [0, 0, 5, 5]])
    )
    assert found.alpha.shape == found.masks.shape == (2, 40, 80)
    assert 0 <= float(found.alpha.min()) <= float(found.alpha.max()) <= 1
    errors = matte_errors(training.net, scenes[slice(0, 4)])
    assert set(errors) == {"matte", "mask"}
    assert all(len(x) == 4 for x in errors["matte"].values())
    path = tmp_path / "matting.safetensors"
    save_tiny(training.net, path, {"kind": "matting", "image_size": 64, "dim": 64, "encoder": "conv"})
    assert isinstance(load_small(path), Matter)


# They differ in architecture, not in name


def test_parameters_of_the_published_models() -> None:
    rows = {r.model: r for r in published()}
    assert rows["SAM, ViT-H"].image + rows["SAM, ViT-H"].prompts + rows["SAM, ViT-H"].decoder == 641_090_608
    assert rows["MobileSAM"].image < rows["SAM, ViT-H"].image / 100
    assert rows["MobileSAM"].decoder == rows["SAM, ViT-H"].decoder
    assert rows["HQ-SAM, ViT-B"].trained == rows["HQ-SAM, ViT-B"].decoder - rows["SAM, ViT-B"].decoder
    assert table(rows.values()).count("\n") == len(rows) + 1


def test_parameters_of_small_models(clip: CLIP) -> None:
    sam, mobile = build_tiny_sam(64, 16, encoder="conv"), build_tiny_sam(64, 16, encoder="mobile")
    assert row("sam", sam).trained == count(sam.parameters())
    assert row("mobile", mobile).trained == count(mobile.image_encoder.parameters())
    assert row("fast", FastNet(64)).prompts == 0
    assert row("text", TextToBox(clip)).trained == row("text", TextToBox(clip)).decoder
    matter = Matter(build_tiny_sam(64, 64, encoder="conv"))
    assert row("matte", matter).trained == count(matter.decoder.parameters())
    with pytest.raises(TypeError, match="no model of SAM's family"):
        row("clip", clip)


# The command


@pytest.fixture
def image_file(tmp_path: Path, scenes: SceneMasks) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(scenes.images[0, :3].permute(1, 2, 0).numpy()).save(path)
    return path


def test_the_command_takes_a_fastsam(
    tmp_path: Path, image_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fast.safetensors"
    save_tiny(FastNet(64, 4, 2), path, {"kind": "fastsam", "image_size": 64, "width": 4, "n_proto": 2})
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 5:30, 5:30], masks[1, 40:60, 40:60] = True, True
    found = fastsam_net.Everything(masks, box_of(masks), torch.tensor([0.9, 0.8]))
    monkeypatch.setattr(fastsam_net, "find_all", lambda *_: found)
    for prompt, n, area in (
        (["--everything"], 2, 625),
        (["--point", "50,50"], 1, 400),
        (["--box", "4,4,31,31"], 1, 625),
    ):
        out = tmp_path / "-".join(prompt)
        assert main(["segment", str(image_file), "--model", str(path), *prompt, "--out", str(out)]) == 0
        files = sorted(out.glob("mask*.png"))
        assert len(files) == n
        assert sum(v > 0 for v in Image.open(files[0]).convert("L").get_flattened_data()) == area
    nothing = fastsam_net.Everything(masks[:0], torch.zeros(0, 4), torch.zeros(0))
    monkeypatch.setattr(fastsam_net, "find_all", lambda *_: nothing)
    assert main(["segment", str(image_file), "--model", str(path), "--point", "5,5"]) == 2
    assert "FastSAM found no object" in capsys.readouterr().err


def test_the_command_reads_and_mattes(
    tmp_path: Path, image_file: Path, clip: CLIP, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sslcourse.segment import files

    small: dict[str, torch.nn.Module] = {
        "tiny_sam": build_tiny_sam(64, 16),
        "tiny_grounded": TextToBox(clip, 64),
        "tiny_matting": Matter(build_tiny_sam(64, 64, encoder="conv")),
    }
    monkeypatch.setattr(files, "load_small", lambda path=None, name="tiny_sam": small[name].eval())
    out = tmp_path / "o"
    box = ["--box", "5,5,40,40", "--matte", "--out", str(out)]
    assert main(["segment", str(image_file), *box]) == 0
    assert Image.open(next(iter(out.glob("alpha*.png")))).size == (64, 64)
    assert main(["segment", str(image_file), "--box", "1,1,5,5", "--grounded"]) == 2
    assert "--grounded reads words" in capsys.readouterr().err
    assert main(["segment", str(image_file), "--text", "red star", "--grounded"]) == 2
    assert "found nothing that 'red star'" in capsys.readouterr().err
    small["tiny_grounded"].bias.data.fill_(4.0)  # type: ignore[union-attr]
    words = ["--text", "red star. blue disc", "--grounded", "--out", str(tmp_path / "p")]
    assert main(["segment", str(image_file), *words]) == 0
    assert len(list((tmp_path / "p").glob("mask*.png"))) >= 1
    assert isinstance(small["tiny_sam"], Sam)
    assert grounded_training.NAMES[0] == "red disc"
