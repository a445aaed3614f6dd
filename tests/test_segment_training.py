"""Scenes with masks, the training of a promptable segmenter on the one loop, its scores, its files, and the command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslcourse import methods
from sslcourse.cli import main
from sslcourse.data.rng import step_generator
from sslcourse.data.shapes import Shapes
from sslcourse.errors import InputError
from sslcourse.segment.build import build_tiny_sam
from sslcourse.segment.clicks import center_click
from sslcourse.segment.family import HQTraining, MobileTraining
from sslcourse.segment.fastsam import masks_by_text
from sslcourse.segment.files import load_tiny, save_tiny
from sslcourse.segment.prompts import INCLUDE, PADDING
from sslcourse.segment.scenes import N_PARTS, SceneMasks, draw_scenes, pack_scenes, part_mask
from sslcourse.segment.scoring import box_ious, click_ious, iou_of
from sslcourse.segment.training import SamTraining
from sslcourse.train import fit
from sslcourse.viz.masks import overlay
from sslcourse.zoo.weights import shipped
from sslcourse.zoo.words import WordModel


@pytest.fixture(scope="module")
def scenes() -> SceneMasks:
    return draw_scenes(8, size=64, presets=("multi",))


def config(**changes: object) -> SamTraining.Config:
    preset = SamTraining.PRESETS["cpu"]
    train = replace(preset.train, epochs=1, batch_size=4, log_every=1)
    small = {"encoder": "vit", "image_size": 64, "dim": 16, "prompts": 4, "rounds": 2, "train": train}
    return replace(preset, **(small | changes))


def test_the_map_holds_all_masks() -> None:
    drawn = Shapes("train", 64, preset="multi").batch(range(6))
    ids = pack_scenes(drawn)[:, 3]
    for k in range(drawn.parts.shape[1]):
        for part in range(N_PARTS):
            which = torch.full((6,), k * N_PARTS + part)
            assert torch.equal(part_mask(ids, which), drawn.parts[:, k, part])
    wholes, masks = SceneMasks(pack_scenes(drawn), 4).objects(0)
    assert torch.equal(torch.bincount(wholes, minlength=6), drawn.parts[:, :, 0].flatten(2).any(2).sum(1))
    assert masks.flatten(1).any(1).all()


def test_scenes_are_the_same_for_ever() -> None:
    both = draw_scenes(5, size=32, presets=("captions", "multi"))
    assert len(both) == 5
    assert both.n_objects == 4
    assert torch.equal(both.images[1], draw_scenes(1, size=32, presets=("multi",)).images[0])
    assert torch.equal(draw_scenes(1, size=32, presets=("captions",), start=2).images[0], both.images[4])


def test_first_prompts_are_points_in_and_boxes_around_their_masks(scenes: SceneMasks) -> None:
    training = methods.build(SamTraining, config())
    _, ids, numbers = training.views(scenes.images, step_generator(0, 0))
    given = training.prompts(ids, numbers)
    side = given.soft.shape[-1]
    assert given.soft.shape == (32, 32, 32)
    assert (given.soft.flatten(1).sum(1) > 0).all()
    point = given.labels[:, 0] == INCLUDE
    assert point.sum() == 16
    assert point[:16].all()
    for (x, y), soft in zip(given.points[:16, 0].tolist(), given.soft[:16], strict=True):
        assert soft[int(y * side / 64), int(x * side / 64)] > 0
    boxes = given.points[16:].flatten(1)
    for (x1, y1, x2, y2), soft in zip(boxes.tolist(), given.soft[16:], strict=True):
        rows, columns = soft.any(1).nonzero() * 2, soft.any(0).nonzero() * 2
        room = 2 + 0.1 * 64
        assert abs(x1 - int(columns[0])) < room
        assert abs(y1 - int(rows[0])) < room
        assert abs(x2 - int(columns[-1])) < room
        assert abs(y2 - int(rows[-1])) < room


@pytest.mark.parametrize("encoder", ["vit", "conv"])
def test_all_parts_learn(scenes: SceneMasks, encoder: str) -> None:
    training = methods.build(SamTraining, config(encoder=encoder))
    out = training(training.views(scenes.images[:4], step_generator(0, 0)))
    out["loss"].backward()
    silent = [name for name, p in training.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    assert out["loss"].item() == pytest.approx((out["first"] + out["last"]).item(), rel=1e-5)


def test_half_of_the_clicks_go_to_the_middle_of_the_largest_error() -> None:
    gt, pred = torch.zeros(2, 400, 32, 32, dtype=torch.bool)
    gt[:, 4:15, 4:15], pred[:, 20:24, 20:24] = True, True
    numbers = torch.rand(400, generator=step_generator(0, 0))
    for centered, share in ((0.0, 1 / 137), (0.5, 0.5), (1.0, 1.0)):
        training = methods.build(SamTraining, config(centered=centered, quiet=0.2))
        points, labels = training._click(gt, pred, numbers)
        none = numbers < 0.2
        assert torch.equal(labels[:, 0] == PADDING, none)
        points, labels = points[~none, 0].long(), labels[~none, 0]
        middle = (points == torch.tensor([9, 9])).all(dim=1)
        assert middle.double().mean() == pytest.approx(share, abs=0.07)
        there = torch.where(labels == 1, gt[0, points[:, 1], points[:, 0]], pred[0, points[:, 1], points[:, 0]])
        assert there.all()
        if centered < 1:
            assert (labels == 0).any()


def test_later_answers_follow_clicks_and_one_of_them_learns(
    scenes: SceneMasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = methods.build(SamTraining, config(rounds=4, quiet=0.5))
    answer, asked = training.answer, []

    def watched(image, points, labels, mask):  # type: ignore[no-untyped-def]
        asked.append((labels, mask, torch.is_grad_enabled()))
        return answer(image, points, labels, mask)

    monkeypatch.setattr(training, "answer", watched)
    depths = set()
    for step in range(12):
        asked.clear()
        training(training.views(scenes.images[:4], step_generator(0, step)))
        assert [graded for *_, graded in asked] == [True] + [False] * (len(asked) - 2) + [True]
        assert [labels.shape[1] for labels, *_ in asked] == [2 + r for r in range(len(asked))]
        assert all(mask is None for _, mask, _ in asked[:1])
        assert all(mask.shape[1] == 1 and not mask.requires_grad for _, mask, _ in asked[1:])
        new = torch.stack([labels[:, -1] for labels, *_ in asked[1:]])
        assert {-1, 0, 1} >= set(new.unique().tolist())
        assert 0 < (new == -1).float().mean() < 1  # half of the answers follow no click
        depths.add(len(asked))
    assert depths == {2, 3, 4}


def test_it_learns_on_the_one_loop(tmp_path: Path, scenes: SceneMasks) -> None:
    settings = config(rounds=1)
    settings = replace(settings, train=replace(settings.train, epochs=30, lr=0.2, batch_size=4))
    training = methods.build(SamTraining, settings)
    fit(training, scenes[slice(0, 4)], settings, tmp_path, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]


def test_scores_of_known_answers(scenes: SceneMasks, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_tiny_sam(64, 16).eval()
    _, masks = scenes.objects(0, 12)
    asked: list[torch.Tensor] = []

    def decode(embedding, points=None, labels=None, boxes=None, masks=None, *, multimask=True):  # type: ignore[no-untyped-def]
        n = len(points if points is not None else boxes)
        asked.append(points if points is not None else boxes)
        truth = _next(n)
        logits = torch.nn.functional.interpolate(truth.float()[:, None], scale_factor=0.5) * 20 - 10
        if not multimask:
            return logits, torch.ones(n, 1)
        wrong = -torch.ones_like(logits)
        return torch.cat([wrong, logits, wrong], dim=1), torch.tensor([0.9, 0.1, 0.2]).expand(n, 3)

    cursor = {"at": 0}

    def _next(n: int) -> torch.Tensor:
        part = masks[cursor["at"] : cursor["at"] + n]
        cursor["at"] += n
        return part

    monkeypatch.setattr(model, "decode", decode)
    oracle, chosen = click_ious(model, scenes, 0)
    assert len(oracle) == len(masks)
    assert oracle.mean() > 0.8  # the second mask is right at half the resolution
    assert chosen[:, 0].max() == 0  # the model trusts the first, which is empty
    torch.testing.assert_close(asked[0], center_click(masks, None)[0])
    cursor["at"] = 0
    assert box_ious(model, scenes, 0).mean() > 0.8


def test_iou() -> None:
    a, b = torch.zeros(2, 4, 4, dtype=torch.bool), torch.zeros(2, 4, 4, dtype=torch.bool)
    a[0, :2], b[0, 1:3] = True, True
    assert iou_of(a, b).tolist() == [pytest.approx(1 / 3), 1.0]


# Files and the command


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_tiny_sam(64, 16)
    path = tmp_path_factory.mktemp("model") / "a.safetensors"
    save_tiny(model, path, {"image_size": 64, "dim": 16}, "a command")
    return path


def test_a_file_comes_back(model_file: Path, tmp_path: Path) -> None:
    model = load_tiny(model_file)
    assert model.image_size == 64
    again = tmp_path / "b.safetensors"
    save_tiny(model, again, {"image_size": 64, "dim": 16})
    for key, value in load_tiny(again).state_dict().items():
        assert torch.equal(value, model.state_dict()[key])
    with pytest.raises(InputError, match="no model file"):
        load_tiny(tmp_path / "c.safetensors")
    (tmp_path / "d.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a model that"):
        load_tiny(tmp_path / "d.safetensors")


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)).save(path)
    return path


COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def colours() -> WordModel:
    """A model of images and words that knows the mean colour of what is not white."""

    def seen(x: torch.Tensor) -> torch.Tensor:
        inside = (x.mean(dim=1, keepdim=True) < 250).float()
        return (x * inside).sum(dim=(2, 3)) / inside.sum(dim=(2, 3)).clamp_min(1)

    def told(texts: list[str]) -> torch.Tensor:
        return torch.tensor([COLOURS[text] for text in texts]).float()

    return WordModel("colours", lambda i: torch.from_numpy(np.array(i)).permute(2, 0, 1).float(), seen, told, 100.0)


def test_words_choose_the_mask_that_they_name() -> None:
    image, masks = torch.zeros(3, 40, 60, dtype=torch.uint8), torch.zeros(4, 40, 60, dtype=torch.bool)
    for i, (mask, colour) in enumerate(zip(masks[:3], COLOURS.values(), strict=True)):
        mask[5:25, 20 * i : 20 * i + 15] = True
        image[:, mask] = torch.tensor(colour, dtype=torch.uint8)[:, None]
    masks[3, 30:35, 30:35] = True  # too small to be looked at
    for i, name in enumerate(COLOURS):
        scores = masks_by_text(image, masks, colours(), name)
        assert scores.argmax() == i
        assert scores[3] == 0
        assert scores.sum() == pytest.approx(1)
    together = masks_by_text(image, masks, colours(), list(COLOURS))
    assert torch.equal(together, torch.stack([masks_by_text(image, masks, colours(), name) for name in COLOURS]))
    assert masks_by_text(image, masks[3:], colours(), "red").tolist() == [0.0]
    assert masks_by_text(image, masks[:0], colours(), "red").shape == (0,)


def test_the_command_takes_words(
    image_file: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr("sslcourse.zoo.words.word_model", lambda *_: colours())
    every = ["--grid", "4", "--min-iou", "-1", "--min-stability", "0", "--out", str(tmp_path / "o")]
    assert main(["segment", str(image_file), "--model", str(model_file), "--text", "red", *every]) == 0
    assert len(list((tmp_path / "o").glob("mask*.png"))) == 1
    assert "'red' is one of" in capsys.readouterr().err
    none = ["--min-iou", "2", "--out", str(tmp_path / "p")]
    assert main(["segment", str(image_file), "--model", str(model_file), "--text", "red", *none]) == 2
    assert "no object that 'red' could be" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prompt", "n"),
    [
        (["--point", "10,20"], 3),
        (["--point", "10,20", "--exclude", "70,40"], 1),
        (["--box", "1,2,30,40", "--box", "0,0,80,48"], 2),
        (["--box", "1,2,30,40", "--point", "10,20"], 1),
    ],
)
def test_the_command_writes_masks(
    image_file: Path, model_file: Path, prompt: list[str], n: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["segment", str(image_file), "--model", str(model_file), *prompt]) == 0
    out = image_file.with_name("photo-masks")
    assert Image.open(out / "overlay.png").size == (80, 48)
    assert len(list(out.glob("mask*.png"))) == n
    exported = json.loads((out / "masks.json").read_text())
    assert len(exported["annotations"]) == n
    assert exported["images"][0]["file_name"] == "photo.png"
    assert capsys.readouterr().out.count("predicted IoU") == n


def test_the_command_finds_everything(image_file: Path, model_file: Path, tmp_path: Path) -> None:
    options = ["--everything", "--grid", "4", "--min-iou", "-1", "--min-stability", "0", "--out", str(tmp_path / "o")]
    assert main(["segment", str(image_file), "--model", str(model_file), *options]) == 0
    assert (tmp_path / "o" / "overlay.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "needs one kind of prompt"),
        (["--everything", "--point", "1,1"], "needs one kind of prompt"),
        (["--point", "1"], "--point takes x,y"),
        (["--point", "a,b"], "--point takes x,y"),
        (["--box", "1,2,3"], "--box takes x1,y1,x2,y2"),
        (["--point", "500,5"], "outside the image of 80 x 48"),
        (["--point", "1,1", "--box", "1,1,5,5", "--box", "2,2,5,5"], "one --box at most"),
        (["--point", "1,1", "--model", "nothing.safetensors"], "no model file"),
    ],
)
def test_the_command_on_bad_input(
    image_file: Path, model_file: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = [] if "--model" in arguments else ["--model", str(model_file)]
    assert main(["segment", str(image_file), *model, *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert not image_file.with_name("photo-masks").exists()


def test_the_command_without_an_image(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "none.png", "--point", "1,1", "--model", str(model_file)]) == 2
    assert "no image file none.png" in capsys.readouterr().err


def test_an_overlay_colours_masks_only() -> None:
    image = torch.full((3, 20, 20), 100, dtype=torch.uint8)
    masks = torch.zeros(2, 20, 20, dtype=torch.bool)
    masks[0, 2:10, 2:10] = True
    masks[1, 4:7, 4:7] = True
    painted = overlay(image, masks)
    outside = ~masks.any(dim=0)
    assert torch.equal(painted[:, outside], image[:, outside])
    assert (painted[:, masks[1]] != image[:, masks[1]]).any(dim=0).all()
    assert not torch.equal(painted[:, 5, 5], painted[:, 8, 8])  # the smaller mask is on top
    assert torch.equal(overlay(image, masks[:0]), image)


# The family


def test_distillation_keeps_the_decoder_and_learns_the_embedding(tmp_path: Path, scenes: SceneMasks) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        teacher = build_tiny_sam(64, 16)
        settings = MobileTraining.Config(64, 16, replace(config().train, epochs=40, lr=0.3))
        training = MobileTraining(settings, teacher)
    before = {key: value.clone() for key, value in training.sam.mask_decoder.state_dict().items()}
    fit(training, scenes[slice(0, 4)], settings, tmp_path, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    for key, value in training.sam.mask_decoder.state_dict().items():
        assert torch.equal(value, before[key])
        assert torch.equal(value, teacher.mask_decoder.state_dict()[key])
    assert not any("teacher" in key for key in training.state_dict())


def test_only_the_hq_token_learns(tmp_path: Path, scenes: SceneMasks) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        teacher = build_tiny_sam(64, 16)
        settings = config(rounds=1)
        settings = replace(settings, train=replace(settings.train, epochs=20, lr=0.2))
        training = HQTraining(settings, teacher)
        sharp = HQTraining(config(encoder="conv"), build_tiny_sam(64, 16, encoder="conv")).train()
    assert not sharp.sam.image_encoder.training  # its statistics are frozen, too
    plain = {key: value.clone() for key, value in teacher.state_dict().items()}
    fit(training, scenes[slice(0, 4)], settings, tmp_path, progress=False)
    after = training.sam.state_dict()
    assert all(torch.equal(after[key], value) for key, value in plain.items())
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.95 * lines[0]["loss"]
    other = build_tiny_sam(64, 16, encoder="mobile")
    with pytest.raises(InputError, match="other parts or sizes"):
        HQTraining(settings, other)


def test_the_published_command_trains_scores_and_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sslcourse.segment import train

    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    out = tmp_path / "models" / "a.safetensors"
    train.main(["sam", "--scenes", "8", "--epochs", "1", "--test", "2", "--out", str(out)])
    report = json.loads(capsys.readouterr().out)
    assert set(report["scores"]) == {"whole", "emblem", "dot"}
    assert 0 <= report["scores"]["whole"]["box"] <= 1
    model = load_tiny(out)
    assert model.image_size == 128
    assert out.stat().st_size < 3e6

    drawn: list[int] = []

    def watched(*given, start=0, **knobs):  # type: ignore[no-untyped-def]
        drawn.append(start)
        return draw_scenes(*given, start=start, **knobs)

    monkeypatch.setattr(train, "draw_scenes", watched)
    more = out.with_name("b.safetensors")
    again = ["sam", "--scenes", "8", "--epochs", "1", "--test", "1", "--out", str(more)]
    train.main([*again, "--start", str(out)])
    assert drawn[:2] == [24, 32]  # three legs came before
    assert not torch.equal(load_tiny(more).mask_decoder.mask_tokens.weight, model.mask_decoder.mask_tokens.weight)
    with pytest.raises(InputError, match="with clicks"):
        train.main([*again, "--start", str(out), "--no-clicks"])
    with pytest.raises(InputError, match="is not a tiny SAM"):
        train.main([*again, "--start", str(shipped("tiny_hqsam"))])
