"""Seven kinds of hand-ins of every lab, as an instructor gets them, through `autograder grade`: marks and pages."""

import json
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from autograder import batch, cli
from autograder.answers import COURSE, solution_sources
from autograder.labs import lab_names
from autograder.notebook import Lab, read_lab
from autograder.rubric import Right, Wrong, answers_of, import_answers
from autograder.sandbox import Zygote

LABS = lab_names()
KINDS = ("broken", "hostile", "known", "new", "other", "partly", "right")
HOSTILE = "import os\nprint(os.listdir('..'))\nos._exit(0)\n"


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote(trains=True) as zygote:
        yield zygote


def filled(name: str, sources: dict[str, str]) -> str:
    """The released lab with some of its cells filled in."""
    notebook = json.loads((COURSE / "labs" / name / f"{name}.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        grade_id = cell["metadata"].get("nbgrader", {}).get("grade_id")
        cell["source"] = sources.get(grade_id, cell["source"])
    return json.dumps(notebook)


def answers(lab: Lab) -> dict[str, dict[str, str]]:
    """Kind of hand-in -> the cells that this student filled in."""
    right, known = solution_sources(lab.name), import_answers(lab.name)
    names = [e.name for e in lab.exercises if e.role == "exercise"]

    def first(kind: Any, exercise: str) -> Any:
        return next(a for a in answers_of(known, kind) if a.exercise == exercise)

    def new(exercise: str) -> str:  # a mistake that nobody foresaw: whatever is asked for, the number 7
        return f"def {exercise}(*args, **kwargs):\n    return 7\n"

    return {
        "right": right,
        "other": right | {n: first(Right, n).source for n in names},
        "partly": {n: right[n] for n in names[::2]},
        "known": right | {n: first(Wrong, n).source(right[n]) for n in names},
        "new": right | {n: new(n) for n in names},
        "hostile": right | {names[0]: HOSTILE},
    }


@pytest.mark.parametrize("name", LABS)
def test_seven_kinds_of_hand_ins(
    name: str, zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(zygote, "close", lambda: None)
    monkeypatch.setattr(batch, "Zygote", lambda *args, **kwargs: zygote)
    lab, folder, out = read_lab(COURSE / "labs" / name / f"{name}.ipynb"), tmp_path / "handed_in", tmp_path / "grades"
    texts = {kind: filled(name, sources) for kind, sources in answers(lab).items()}
    texts["broken"] = texts["right"][: len(texts["right"]) // 2]
    for kind, text in texts.items():
        (folder / kind).mkdir(parents=True)
        (folder / kind / f"{name}.ipynb").write_text(text, encoding="utf-8")
    assert cli.main(["grade", str(folder), "--out", str(out)]) == 0
    capsys.readouterr()
    grades = {g["student"]: g for g in json.loads((out / "grades.json").read_text())}
    assert sorted(grades) == sorted(KINDS)

    worth = {e.name: e.points for e in lab.exercises}
    functions = [e.name for e in lab.exercises if e.role == "exercise"]
    full, prediction = sum(worth.values()), sum(worth.values()) - sum(worth[n] for n in functions)
    points = {kind: grade["points"] for kind, grade in grades.items()}
    exact = {"right": full, "other": full, "partly": sum(worth[n] for n in functions[::2]), "new": prediction,
             "hostile": full - worth[functions[0]], "broken": 0}  # fmt: skip
    assert {kind: points[kind] for kind in exact} == pytest.approx(exact)
    assert prediction <= points["known"] < full
    named = {row["exercise"] for row in grades["known"]["rows"] if row["diagnosis"]}
    assert named == set(functions), "each known mistake is named"
    for row in (row for grade in grades.values() for row in grade["rows"]):
        assert row["points"] == row["out_of"] or row["message"], "points are lost with a reason"

    overview = (out / "index.html").read_text()
    for kind, grade in grades.items():
        page = unescape((out / "students" / f"{kind}.html").read_text())
        assert f"{kind}.html" in overview
        assert "Traceback" not in page
        assert str(COURSE) not in page
        assert (grade["refused"] or "points") in page
        assert all(row["title"] in page and row["hint"] in page for row in grade["rows"] if not grade["refused"])
    assert "damaged JSON" in grades["broken"]["refused"]
