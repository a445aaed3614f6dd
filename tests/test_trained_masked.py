"""Recorded trainings of masked methods: complete, of today's presets, short, and better than no training and pixels."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
import torch

from benchmarks import masked as script
from benchmarks.findings.common import Finding
from sslcourse import methods
from sslcourse.data.augment import center_view
from sslcourse.train.config import to_dict

RECORDS = sorted(script.FOLDER.glob("*.json"))
EACH = pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)


@EACH
def test_a_record_is_of_the_preset_as_it_is(path: Path) -> None:
    found = Finding.load(path)
    assert found.name == path.stem
    assert len(found.seeds) >= 5
    assert {len(values) for values in found.arms.values()} == {len(found.seeds)}
    cls = methods.get(found.question.split()[1])
    now = json.loads(json.dumps(to_dict(cls.PRESETS[found.setting["preset"]])))
    assert found.setting["config"] == now, "the preset has changed: python -m benchmarks.masked " + found.name
    assert median(found.seconds) <= 300  # of one thread, with all exams; training is two minutes of two cores


@EACH
def test_the_method_learns(path: Path) -> None:
    found = Finding.load(path)
    if found.name == "dvae":
        assert found.mean(f"{script.TRAINED}, {script.ERROR}").high < 1  # the mean colour of each image
        return
    probe, *others = script.gains(found)
    assert probe.low > 0
    for claim, gain in zip(script.CLAIMS[1:], others, strict=True):
        assert gain.value > 0, gain.name
        # What an interval leaves open, the page says in a sentence.
        assert (gain.low > 0) != (found.name in script.short().get(claim, []))


def shortened(monkeypatch: pytest.MonkeyPatch, name: str, preset: str) -> None:
    cls = methods.get(name)
    config = cls.PRESETS[preset]
    monkeypatch.setitem(cls.PRESETS, preset, replace(config, train=replace(config.train, steps=2, batch_size=8)))
    for size, value in {"TRAIN": 40, "TEST": 20, "LABELLED": 20, "CLIPS": 20, "TEST_CLIPS": 10}.items():
        monkeypatch.setattr(script, size, value)
    for tuning in ("TUNING", "CLIP_TUNING"):
        monkeypatch.setattr(script, tuning, getattr(script, tuning) | {"epochs": 1, "batch_size": 10})
    script.images.cache_clear()
    script.pixels.cache_clear()


@pytest.mark.parametrize("name", ["mae:cpu_sketch", "videomae:cpu", "simmim:cpu_swin"])
def test_the_script_makes_what_is_recorded_and_continues_it(name: str, tmp_path: Path, monkeypatch) -> None:
    method, _, preset = name.partition(":")
    shortened(monkeypatch, method, preset)
    script.record(name, 1, tmp_path)
    found = script.record(name, 2, tmp_path)
    script.images.cache_clear()
    script.pixels.cache_clear()
    assert Finding.load(tmp_path / f"{found.name}.json") == found
    assert found.seeds == [0, 1]
    exams = (script.LINEAR, script.KNN, script.TUNED)
    arms = {f"{arm}, {exam}" for arm in (script.TRAINED, script.RANDOM) for exam in exams}
    assert set(found.arms) == arms | {f"{script.PIXELS}, {exam}" for exam in exams[:2]}
    assert len(script.gains(found)) == 3
    assert f"| `{found.name}` |" in script.table(tmp_path)


def test_the_dvae_is_scored_by_what_it_paints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shortened(monkeypatch, "dvae", "cpu")
    found = script.record("dvae:cpu", 1, tmp_path)
    script.images.cache_clear()
    assert all(values[0] > 0 for values in found.arms.values())
    assert "The dVAE (" in "\n".join(script.section(tmp_path))
    assert "linear probe" not in "\n".join(script.section(tmp_path))


def test_places_of_clips_keep_time_and_place() -> None:
    config = replace(methods.get("videomae").PRESETS["cpu"], backbone="vit_mini_patch4")
    module = methods.build("videomae", config)
    clip = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    places = script.Places(module.backbone.eval())(clip).unflatten(1, (-1, 4, 2, 2))
    tokens = module.backbone.forward_features(clip).unflatten(1, (4, 8, 8))
    torch.testing.assert_close(places[:, :, 3, 0, 1], tokens[:, 3, :4, 4:].mean(dim=(1, 2)))
    same = script.Standardized(module.backbone).train()(clip)
    assert same.shape == (2, script.Places(module.backbone).num_features)
    torch.testing.assert_close(same.mean(dim=0), torch.zeros(same.shape[1]), rtol=0, atol=1e-3)


def test_the_centre_of_a_clip_is_that_of_its_frames() -> None:
    clip = torch.randint(256, (2, 3, 4, 24, 20), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    view = center_view(clip, 16)
    assert view.shape == (2, 3, 4, 16, 16)
    torch.testing.assert_close(view[:, :, 2], center_view(clip[:, :, 2], 16))


def test_the_results_page_shows_what_is_recorded() -> None:
    page = (script.FOLDER.parent / "RESULTS.md").read_text()
    assert not RECORDS or "\n".join(script.section()) in page, "python -m benchmarks.results"
