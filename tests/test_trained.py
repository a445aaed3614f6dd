"""Recorded trainings of the presets "cpu": complete, of today's presets, short, and better than no training."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import methods as script
from benchmarks.findings.common import Finding
from sslcourse import methods
from sslcourse.catalogue import METHODS
from sslcourse.train.config import to_dict

RECORDS = sorted(script.FOLDER.glob("*.json"))
PRETEXT = {row.name for row in METHODS.values() if row.part == 1}  # need not beat pixels


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_is_of_the_preset_as_it_is(path: Path) -> None:
    found = Finding.load(path)
    assert found.name == path.stem
    assert len(found.seeds) >= 5
    assert list(found.arms) == [found.name, script.RANDOM, script.PIXELS]
    now = json.loads(json.dumps(to_dict(methods.get(found.name).PRESETS["cpu"])))
    assert found.setting["config"] == now, "the preset has changed: python -m benchmarks.methods " + found.name
    assert max(found.seconds) <= 240  # of one thread: two minutes on two cores


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_the_method_learns(path: Path) -> None:
    found = Finding.load(path)
    baselines = [script.RANDOM] if found.name in PRETEXT else [script.RANDOM, script.PIXELS]
    for baseline in baselines:
        assert found.difference(found.name, baseline).low > 0, baseline


def test_the_script_makes_what_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from dataclasses import replace

    cls = methods.get("rotation")
    short = replace(cls.PRESETS["cpu"], train=replace(cls.PRESETS["cpu"].train, steps=2, batch_size=8))
    monkeypatch.setitem(cls.PRESETS, "cpu", short)
    monkeypatch.setattr(script, "TRAIN", 40)
    monkeypatch.setattr(script, "TEST", 20)
    script.images.cache_clear()
    script.pixels.cache_clear()
    found = script.record("rotation", 2, tmp_path)
    script.images.cache_clear()
    script.pixels.cache_clear()
    assert Finding.load(tmp_path / "rotation.json") == found
    assert found.seeds == [0, 1]
    assert found.arms[script.PIXELS][0] == found.arms[script.PIXELS][1]
    assert "| `rotation` |" in script.table(tmp_path)


def test_the_results_page_says_what_is_recorded() -> None:
    from benchmarks import results, results_page

    written = results_page.PAGE.read_text(encoding="utf-8")
    assert results_page.page(results_page.records(), results.PLANS) == written, "python -m benchmarks.results"
    assert script.table() in written
    headings = re.findall(r"^#+ (.+)$", written, re.M)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", written)) <= anchors


def test_the_page_of_speed_says_what_is_recorded() -> None:
    from benchmarks import speed_page

    record = json.loads(speed_page.RESULTS.read_text(encoding="utf-8"))
    assert speed_page.PAGE.read_text(encoding="utf-8") == speed_page.page(record), "python -m benchmarks --page"
    row = {"row": "a", "task": "b | c", "peer": "d", "kind": "speed", "value": None, "target": 2.0, "detail": "no d"}
    lines = speed_page.page({"machine": record["machine"], "rows": [row | {"status": "skipped"}]}).splitlines()
    assert lines[-1] == "| `a` | b / c | d | - | >= 2x | **skipped** | no d |  |"
    assert any("0 of 1" in line for line in lines)
