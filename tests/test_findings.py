"""The experiments that chapters report: what is recorded, how it is summarised, and that the scripts still make it."""

import importlib
import json
import math
import os
from pathlib import Path

import pytest
import torch

from benchmarks.findings import clip_common, common, mae_common, masked_common, nonegatives_common, page, simclr_common
from benchmarks.findings.claims import CLAIMS, Claim
from benchmarks.findings.common import FOLDER, Finding, run
from benchmarks.findings.notes import NOTES

RECORDS = sorted(FOLDER.glob("*.json"))
SMALL = {  # what else makes a script short
    "attention_objects": {"SCENES": 8, "THINGS": 4},
    "batch_queue": {"STEPS": 2},
    "byol_batch": {"STEPS": 2},
    "clip_batch": {"TRAIN": 60, "SEEN": 256, "AMONG": 25},
    "curated_pool": {"CLEAN": 0.5},
    "colour_supervised": {"STEPS": 2, "BATCH": 16},
    "densecl_localisation": {"STEPS": 2, "BATCH": 16},
    "hard_negatives": {"STEPS": 2, "BATCH": 16},
    "looc_rotation": {"STEPS": 2, "BATCH": 16},
    "clip_shift": {"TRAIN": 100, "STEPS": 4, "SSL_STEPS": 2},
    "dilo_background": {"STEPS": 2},
    "data_engine": {"SCENES": 2, "STEPS": 1, "TEST": 2},
    "fastsam_prompts": {"REPEATS": 1},
    "grounded_errors": {"TEST": 3},
    "ibot_dense": {"SCENES": 20, "PROBE": 2},
    "koleo_spread": {"STEPS": 2},
    "patch_size": {"STEPS": 2},
    "hq_boundaries": {"TEST": 2},
    "mixup_labels": {"LABELLED": 40, "STEPS": 2},
    "mobile_distillation": {"STEPS": 2, "COUPLED_STEPS": 2, "SCENES": 16, "TEST": 2},
    "moco_momentum": {"STEPS": 2, "BATCH": 16},
    "sam_ambiguity": {"STEPS": 20},
    "sam_clicks": {"SCENES": 3},
    "sam_everything": {"SCENES": 1},
    "video_masks": {"CLIPS": 8},
    "clip_typographic": {"SCENES": 64, "STEPS": 2, "BATCH": 16, "PAIRED": 200},
}
PHOTOGRAPHS = ("attention_objects",)  # scripts that read the packs of the developers
by_record = pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)


def finding(**changes: object) -> Finding:
    fields = {"name": "tiny", "question": "Does b beat a?", "metric": "accuracy", "baseline": "a", "setting": {}}
    return Finding(**(fields | changes))  # type: ignore[arg-type]


def _skip_without_packs(name: str) -> None:
    if name in PHOTOGRAPHS and not os.environ.get("SSLCOURSE_PACKS"):
        pytest.skip("SSLCOURSE_PACKS is not set")


def test_differences_are_paired() -> None:
    """Seeds differ by far more than arms do; within a seed b is always 0.1 better."""
    found = finding(seeds=[0, 1, 2], arms={"a": [0.1, 0.5, 0.9], "b": [0.2, 0.6, 1.0]})
    gap = found.difference("b")
    assert gap.value == pytest.approx(0.1)
    assert gap.low == pytest.approx(0.1)
    assert gap.high == pytest.approx(0.1)
    assert found.mean("b").low < 0 < 1 < found.mean("b").high


def test_run_records_and_reads_back(tmp_path: Path) -> None:
    made = run(finding(), lambda seed: {"a": 0.5 + seed / 100, "b": 0.7}, ["--seeds", "3", "--out", str(tmp_path)])
    read = Finding.load(tmp_path / "tiny.json")
    assert read == made
    assert read.seeds == [0, 1, 2]
    assert read.arms == {"a": [0.5, 0.51, 0.52], "b": [0.7, 0.7, 0.7]}
    assert len(read.seconds) == 3


def test_run_saves_after_every_seed(tmp_path: Path) -> None:
    """What stops the third seed leaves the two before it."""

    def measure(seed: int) -> dict[str, float]:
        if seed == 2:
            raise KeyboardInterrupt
        return {"a": 0.5, "b": 0.7}

    with pytest.raises(KeyboardInterrupt):
        run(finding(), measure, ["--seeds", "3", "--out", str(tmp_path)])
    assert Finding.load(tmp_path / "tiny.json").seeds == [0, 1]


@by_record
def test_record_is_complete(path: Path) -> None:
    record = Finding.load(path)
    assert record.name == path.stem
    assert path.with_suffix(".py").exists(), "a record without the script that made it"
    assert len(record.seeds) >= 5
    assert record.baseline in record.arms
    assert all(len(values) == len(record.seeds) for values in record.arms.values())
    assert all(0 <= value <= 1 for values in record.arms.values() for value in values)


@by_record
def test_script_makes_the_arms_of_its_record(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps on a handful of images: the script runs and its arms are those of the record."""
    _skip_without_packs(path.stem)
    script = importlib.import_module(f"benchmarks.findings.{path.stem}")
    monkeypatch.setattr(simclr_common, "TRAIN", 40)
    monkeypatch.setattr(simclr_common, "TEST", 20)
    monkeypatch.setattr(simclr_common, "BATCH", 16)
    monkeypatch.setattr(simclr_common, "STEPS", 2)
    monkeypatch.setattr(clip_common, "TEST", 50)
    monkeypatch.setattr(mae_common, "STEPS", 2)
    for shorter, value in {"STEPS": 2, "BATCH": 16, "LABELLED": 20, "EPOCHS": 1}.items():
        monkeypatch.setattr(masked_common, shorter, value)
    monkeypatch.setattr(nonegatives_common, "STEPS", 2)
    monkeypatch.setattr(nonegatives_common, "VIT_STEPS", 2)
    for name, value in SMALL.get(path.stem, {}).items():
        monkeypatch.setattr(script, name, value)
    values = script.measure(0)
    assert list(values) == list(Finding.load(path).arms)
    assert all(0 <= value <= 1 for value in values.values())


@pytest.mark.slow
@by_record
def test_first_seed_again(path: Path) -> None:
    """The first seed in full. Threads and CPUs sum in different orders, which moves kNN by a few images of 1,000."""
    _skip_without_packs(path.stem)
    script = importlib.import_module(f"benchmarks.findings.{path.stem}")
    record = Finding.load(path)
    if "seconds" in record.metric:
        pytest.skip("seconds are this machine's, and no test depends on them")
    assert record.setting == json.loads(json.dumps(script.setting())), "recorded with other settings"
    for arm, value in script.measure(record.seeds[0]).items():
        assert value == pytest.approx(record.arms[arm][0], abs=0.06), arm


def test_page_of_findings_is_up_to_date() -> None:
    """FINDINGS.md is what the records say today, and its figures were drawn from them."""
    assert page.stale(page.records()) == [], "python -m benchmarks.findings.page"


def test_every_record_has_a_claim_and_every_claim_a_script() -> None:
    claimed = {claim.record for claims in CLAIMS.values() for claim in claims}
    assert {path.stem for path in RECORDS} <= claimed, "add a Claim in benchmarks/findings/claims.py"
    assert [name for name in (*claimed, *NOTES) if not (FOLDER / f"{name}.py").exists()] == []


def test_verdict_follows_the_interval() -> None:
    """b is 0.1 above a in every seed, c wavers; b gains more over a than a over itself."""
    found = finding(seeds=[0, 1, 2], arms={"a": [0.1, 0.5, 0.9], "b": [0.2, 0.61, 1.0], "c": [0.2, 0.3, 0.95]})
    says = [page.verdict(Claim("tiny", "", *arms), found) for arms in (("b", "a"), ("a", "b"), ("c", "a"))]
    assert says == ["shows", "the opposite shows", "does not show"]
    gains = Claim("tiny", "", ("b", "a"), ("a", "a"))
    assert page.difference(gains, found).value == pytest.approx(0.31 / 3)
    assert page.verdict(gains, found) == "shows"


def test_tables_are_two_dimensional_where_the_arms_are() -> None:
    rows, columns, cells = page.grid(["DINO, kNN", "DINO, in use", "none, kNN"]) or ([], [], {})
    assert (rows, columns) == (["DINO", "none"], ["kNN", "in use"])
    assert ("none", "in use") not in cells
    assert cells["none", "kNN"] == "none, kNN"
    assert page.grid(["SAM: IoU", "SAM: rim"]) is None  # one row
    assert page.grid(["with, kNN", "with, linear", "work"]) is None
    wide = page.grid(["a: 1", "a: 2", "a: 3", "b: 1", "b: 2", "b: 3"])
    assert wide is not None
    assert wide[:2] == (["1", "2", "3"], ["a", "b"])
    assert wide[2]["2", "b"] == "b: 2"


def test_page_without_records_of_a_part(tmp_path: Path) -> None:
    """A part without records has no heading, and a record that is still being made counts as none."""
    finding(name="rotation_symmetry", seeds=[0, 1]).save(tmp_path)
    assert page.records(tmp_path) == {}
    written = page.page({})
    assert "## Part" not in written
    assert "- `rotation_symmetry`." in written


def test_folder_is_where_pages_look() -> None:
    assert Path("benchmarks/findings") == common.FOLDER.relative_to(Path(__file__).resolve().parents[1])


def test_curves_of_the_explorer_are_complete() -> None:
    """`dino_curves` writes a curve for each temperature with and without centering, and what the four arms answer."""
    from benchmarks.findings import dino_centering, dino_curves

    data = json.loads((FOLDER / "curves" / "dino_centering.json").read_text())
    assert data["tts"] == list(dino_curves.TTS)
    assert set(data["answers"]) == set(dino_centering.ARMS)
    for curves in data["runs"].values():
        assert len(curves) == len(data["tts"])
        for curve in curves:
            assert len(curve["single"]) == len(curve["mean"]) == len(data["steps"])
            assert all(-1e-3 <= s <= m + 1e-3 for s, m in zip(curve["single"], curve["mean"], strict=True))
    for rows in data["answers"].values():
        assert all(abs(sum(row) - 1) < 0.05 for row in rows)


def test_curves_of_simsiam_end_where_the_record_does() -> None:
    from benchmarks.findings import simsiam_collapse as script

    seeds, record = (json.loads((FOLDER / part / "simsiam_collapse.json").read_text()) for part in ("curves", ""))
    assert len(seeds) == len(record["seeds"])
    for i, arms in enumerate(seeds):
        assert set(arms) == set(script.ARMS)
        for arm, curves in arms.items():
            assert {len(curve) for curve in curves.values()} == {nonegatives_common.STEPS // nonegatives_common.EVERY}
            assert all(-1 <= loss <= 1 for loss in curves["loss"])  # negative cosines
            assert curves["spread"][-1] == pytest.approx(record["arms"][f"{arm}, spread"][i], abs=1e-3)
            assert curves["rank"][-1] / 64 == pytest.approx(record["arms"][f"{arm}, rank"][i], abs=1e-3)


def test_entropies_of_known_answers() -> None:
    from benchmarks.findings.dino_centering import entropies

    one_hot = torch.eye(4)
    assert entropies(one_hot) == pytest.approx((0.0, math.log(4)), abs=1e-6)  # each image its own output
    assert entropies(one_hot[:1].expand(3, -1)) == pytest.approx((0.0, 0.0), abs=1e-6)  # one output
    assert entropies(torch.full((3, 4), 0.25)) == pytest.approx((math.log(4),) * 2)  # uniform


def test_shares_of_known_masks() -> None:
    """A tall block of 4 x 2 inside 6 x 6: nothing of it is enclosed; 8 of the 12 sides of its outline are upright."""
    from benchmarks.findings.beit_masks import shares

    mask = torch.zeros(1, 6, 6, dtype=torch.bool)
    mask[0, 1:5, 2:4] = True
    assert shares(mask) == pytest.approx((8 / 36, 0.0, 8 / 12))
    assert shares(mask.transpose(1, 2)) == pytest.approx((8 / 36, 0.0, 4 / 12))
    corner = torch.zeros(1, 6, 6, dtype=torch.bool)
    corner[0, :2, :2] = True
    assert shares(corner) == pytest.approx((4 / 36, 1 / 4, 0.5))  # the border has nothing to copy from


def test_codebook_of_the_chapter_is_complete() -> None:
    from benchmarks.findings import dvae_codebook

    data = json.loads((FOLDER / "curves" / "dvae_codebook.json").read_text())
    patches, images = torch.tensor(data["patches"]), torch.tensor(data["images"])
    assert len(patches) == data["vocabulary"] >= data["used"] > 1
    assert images.shape[:2] == (2, dvae_codebook.SHOWN)
    assert 0 <= min(patches.min(), images.min()) <= max(patches.max(), images.max()) <= 255
    assert 0 < data["unexplained"] < 1


def test_codebook_of_a_fresh_dvae() -> None:
    from benchmarks.findings.dvae_codebook import record
    from sslcourse import methods
    from sslcourse.data import Shapes
    from sslcourse.methods.dvae import DiscreteVAE

    model = methods.build(DiscreteVAE, DiscreteVAE.PRESETS["cpu"])
    images = Shapes("test", size=32).as_images(4).images
    found = record(model, images)
    assert torch.equal(torch.tensor(found["images"][0], dtype=torch.uint8), images.permute(0, 2, 3, 1))
    assert torch.tensor(found["patches"]).shape == (128, 4, 4, 3)
    assert 1 <= found["used"] <= 128


def test_grid_of_a_chapter_marks_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER.parents[1] / "book"))
    grid = importlib.import_module("figures.findings").grid
    arms = {"a, x": [0.1, 0.5, 0.9], "b, x": [0.2, 0.6, 1.0], "a, y": [0.1, 0.2, 0.3], "b, y": [0.3, 0.2, 0.1]}
    lines = grid(finding(seeds=[0, 1, 2], arms=arms), {"a": "A", "b": "B", "c": "C"}, {"x": "X", "y": "Y"}).data.split(
        "\n"
    )
    assert lines[0] == "| arm | X | Y |"
    assert lines[3].startswith("| B | **0.600 [")
    assert lines[3].count("**") == 2  # y wavers
    assert lines[4] == "| C |  |  |"
