"""The labs: generated to the byte, free of solutions, complete, and they run from top to bottom."""

import ast
import hashlib
import json
import os
import platform
import re
import statistics
from contextlib import redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from autograder.answers import COURSE, percent_cells, solution_sources
from autograder.labs import dumps, generate, lab_names, source_notebook
from autograder.notebook import ROLES, Exercise, Lab, read_lab
from autograder.policy import preamble_imports
from autograder.rubric import Right, Wrong, answers_of, import_answers
from sslcourse.lab import hints

LABS = lab_names()


def released(name: str) -> Path:
    return COURSE / "labs" / name / f"{name}.ipynb"


def test_committed_labs_are_what_their_sources_say() -> None:
    first = generate(LABS)
    assert first == {name: released(name).read_text(encoding="utf-8") for name in LABS}, "run `make labs` and commit"


def test_sources_convert_to_the_same_bytes_twice() -> None:
    for name in LABS:
        path = COURSE / "solutions" / name / f"{name}.py"
        assert dumps(source_notebook(path)) == dumps(source_notebook(path))


@pytest.mark.parametrize("name", LABS)
def test_no_solution_leaks(name: str) -> None:
    text = released(name).read_text(encoding="utf-8")
    for word in ("SOLUTION", "HIDDEN", "autograder.checks"):
        assert word not in text
    cells = percent_cells(COURSE / "solutions" / name / f"{name}.py")
    for cell in cells:
        if cell.role == "exercise":
            answer = cell.source.split("### BEGIN SOLUTION")[1].split("### END SOLUTION")[0]
            longest = max((line.strip() for line in answer.splitlines()), key=len)
            code = "".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "code")
            assert longest not in code, cell.grade_id


@pytest.mark.parametrize("name", LABS)
def test_points_are_those_that_the_instructors_guide_states(name: str) -> None:
    lab = read_lab(released(name))
    points = {role: sum(e.points for e in lab.exercises if e.role == role) for role in ("exercise", "predict")}
    assert points == {"exercise": 70, "predict": 5}
    assert lab.by_hand["open-question"][0] == 15
    assert sum(worth for worth, _ in lab.by_hand.values()) == 25
    assert 4 <= sum(e.role == "exercise" for e in lab.exercises) <= 8


@pytest.mark.parametrize("name", LABS)
def test_every_exercise_is_complete(name: str) -> None:
    lab = read_lab(released(name))
    text = released(name).read_text(encoding="utf-8")
    for exercise in lab.exercises:
        assert exercise.points > 0
        assert exercise.checks, f"{exercise.name} has no public check"
        if exercise.role != "exercise":
            continue
        assert len(hints()[exercise.name]) == 3
        definition = next(n for n in ast.parse(exercise.stub).body if isinstance(n, ast.FunctionDef | ast.ClassDef))
        docstring = ast.get_docstring(definition) or ""
        assert "Example:" in docstring, f"{exercise.name}: a worked example with numbers"
        assert "raise NotImplementedError" in exercise.stub
        assert all(callable(f) for f in lab.offers(exercise).values())
        assert not exercise.library or callable(lab.reference(exercise.name))
        for _, check in exercise.checks:
            assert check.count("assert") >= 3
    assert text.count("*Difficulty") >= len(lab.exercises)


def says(lab: Lab, exercise: Exercise, source: str) -> str | None:
    """What the public checks say to an answer; None if they pass."""
    names: dict[str, Any] = {"__name__": "answer", **lab.offers(exercise)}
    exec(preamble_imports(lab.preamble), names)
    try:
        with redirect_stdout(StringIO()):
            for code in (source, *(check for _, check in exercise.checks)):
                exec(code, names)
    except Exception as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", LABS)
def test_public_checks_accept_what_is_right_and_explain_what_is_wrong(name: str) -> None:
    """Where a message says "0.7437: the mask ...", a known mistake really gives 0.7437."""
    lab, sources, answers = read_lab(released(name)), solution_sources(name), import_answers(name)
    for exercise in lab.exercises:
        if exercise.role != "exercise":
            continue
        solution = sources[exercise.name]
        right = [r.source for r in answers_of(answers, Right) if r.exercise == exercise.name]
        wrong = [w.source(solution) for w in answers_of(answers, Wrong) if w.exercise == exercise.name]
        for source in (solution, *right):
            assert says(lab, exercise, source) is None, exercise.name
        told = [message for source in wrong if (message := says(lab, exercise, source))]
        assert len(told) >= 0.5 * len(wrong), f"{exercise.name}: the public checks let most known mistakes pass"
        explained = re.compile(r"(?<=[.;] )-?\d+\.\d{3,4}(?=: )")
        given = {number for m in told for number in re.findall(r"-?\d+\.\d+", explained.split(m)[0])}
        assert {number for m in told for number in explained.findall(m)} <= given, exercise.name


@pytest.mark.parametrize("name", LABS)
def test_cells_have_known_roles_and_are_short(name: str) -> None:
    notebook = json.loads(released(name).read_text(encoding="utf-8"))
    roles = [c["metadata"]["sslcourse"]["role"] for c in notebook["cells"] if "sslcourse" in c["metadata"]]
    assert set(roles) <= set(ROLES)
    assert {"preamble", "exercise", "check"} <= set(roles)
    lengths = [sum(bool(line.strip()) for line in c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert statistics.median(lengths) <= 12
    assert len({c["id"] for c in notebook["cells"]}) == len(notebook["cells"])
    predictions = ["".join(c["source"]) for c in notebook["cells"] if c["id"].startswith("prediction")]
    assert predictions
    assert all("None" in p and "predict(" in p and "NotImplemented" not in p for p in predictions), "a form to fill in"


def inputs_digest(source: Path, library: Path) -> str:
    """What a run of a lab depends on: its source, the library's code and hints, Python and torch."""
    digest = hashlib.sha256(f"{platform.python_version()} {version('torch')}".encode())
    for path in [source, *sorted(p for p in library.rglob("*") if p.suffix in {".py", ".toml"})]:
        digest.update(str(path.relative_to(library.parent)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def test_a_lab_runs_again_when_something_that_it_uses_changes(tmp_path: Path) -> None:
    source, library = tmp_path / "lab.py", tmp_path / "library"
    (library / "inner").mkdir(parents=True)
    files = {source: "a", library / "x.py": "b", library / "inner/y.py": "c", library / "hints.toml": "d"}
    for path, text in files.items():
        path.write_text(text)
    before = inputs_digest(source, library)
    assert inputs_digest(source, library) == before
    (library / "notes.txt").write_text("not read by any lab")
    assert inputs_digest(source, library) == before
    for path, text in files.items():
        path.write_text(text + "!")
        assert inputs_digest(source, library) != before, path.name
        path.write_text(text)
    (library / "x.py").rename(library / "z.py")
    assert inputs_digest(source, library) != before


@pytest.mark.parametrize("name", LABS)
def test_the_solved_lab_runs_from_top_to_bottom(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In fast mode, and only when the lab or the library has changed since it last ran."""
    source = COURSE / "solutions" / name / f"{name}.py"
    stamp = COURSE / ".cache" / "labs" / f"{name}.sha256"
    digest = inputs_digest(source, COURSE / "sslcourse")
    if not os.environ.get("SSLCOURSE_ALL_LABS") and stamp.is_file() and stamp.read_text() == digest:
        pytest.skip("nothing that the lab uses has changed since it last ran; SSLCOURSE_ALL_LABS=1 runs it")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("SSLCOURSE_FAST", "1")
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = source_notebook(source)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=240, startup_timeout=240, resources=resources).execute()
    record = json.loads((tmp_path / "my_record.json").read_text())
    assert all(entry["predictions"] and entry["result"] for entry in record.values())
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(digest)
