"""The grader on the first lab: fair points, named mistakes, and nothing that a student's code does hurts anybody."""

import copy
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from autograder import batch, check_notebook, cli, gradescope, practice, report
from autograder.answers import COURSE, solution_sources
from autograder.grade import EARNED, SKIPPED, Grade
from autograder.grader import Grader
from autograder.intake import Submission, read_submission, take
from autograder.labs import lab_names
from autograder.mend import mend
from autograder.notebook import Lab, parse, read_lab
from autograder.rubric import Draw, Right, Wrong, answers_of, import_answers
from autograder.sandbox import Limits, Zygote
from autograder.selftest import only, selftest
from autograder.submissions import HandIn
from sslcourse.errors import InputError

LAB = "03_simclr_moco"
RELEASED = COURSE / "labs" / LAB / f"{LAB}.ipynb"


@pytest.fixture(scope="module")
def lab() -> Lab:
    return read_lab(RELEASED)


@pytest.fixture(scope="module")
def zygote():
    with Zygote(trains=True) as zygote:
        yield zygote


@pytest.fixture(scope="module")
def grader(lab: Lab, zygote: Zygote) -> Grader:
    return Grader(lab, zygote, "a secret of the tests", solution_sources(LAB))


@pytest.fixture
def one_zygote(zygote: Zygote, monkeypatch: pytest.MonkeyPatch) -> None:
    """Front ends share the tests' sandbox instead of starting their own, which takes seconds."""
    monkeypatch.setattr(zygote, "close", lambda: None)
    for module in (batch, practice):
        monkeypatch.setattr(module, "Zygote", lambda *args, **kwargs: zygote)


@pytest.fixture(scope="module")
def solution() -> dict[str, str]:
    return solution_sources(LAB)


def released_with(sources: dict[str, str]) -> dict:
    """The released notebook with some of its cells filled in."""
    notebook = json.loads(RELEASED.read_text())
    for cell in notebook["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") in sources:
            cell["source"] = sources[cell["metadata"]["nbgrader"]["grade_id"]]
    return notebook


def answer(grader: Grader, exercise: str, source: str) -> Grade:
    return only(grader, exercise, source)


def text_of(grade: Grade) -> str:
    return json.dumps(grade.as_dict())


# ------------------------------------------------------------------------------------------------- fair points


LABS = lab_names()


@pytest.mark.parametrize("name", LABS)
def test_every_known_answer(name: str, zygote: Zygote) -> None:
    lab = read_lab(COURSE / "labs" / name / f"{name}.ipynb")
    found = selftest(Grader(lab, zygote, "a secret of the tests", solution_sources(name)))
    assert found.problems == []
    assert found.named == found.wrong
    assert found.accepted == found.right


@pytest.mark.slow
@pytest.mark.parametrize("name", LABS)
def test_automatic_mutations(name: str, zygote: Zygote) -> None:
    lab = read_lab(COURSE / "labs" / name / f"{name}.ipynb")
    found = selftest(Grader(lab, zygote, "a secret of the tests", solution_sources(name)), mutations=20)
    assert found.problems == []
    assert found.killed >= 0.8 * found.mutated > 0


@pytest.mark.parametrize("name", LABS)
def test_enough_known_answers_for_every_function(name: str) -> None:
    answers = import_answers(name)
    for exercise in read_lab(COURSE / "labs" / name / f"{name}.ipynb").exercises:
        if exercise.role == "exercise":
            assert sum(w.exercise == exercise.name for w in answers_of(answers, Wrong)) >= 4
            assert sum(r.exercise == exercise.name for r in answers_of(answers, Right)) >= 2


def test_partial_credit_and_earlier_exercises_do_not_cascade(grader: Grader, solution: dict[str, str]) -> None:
    sources = dict(solution)
    sources["cosine_similarity_matrix"] = "def cosine_similarity_matrix(a, b=None):\n    return a @ a.T\n"
    sources["nt_xent"] = solution["nt_xent"].replace("tau: float = 0.5", "tau: float = 1.0")
    grade = grader.grade(Submission("ada", sources, {}))
    earned = {e: sum(r.points for r in grade.of(e)) for e in ("cosine_similarity_matrix", "nt_xent_masks", "nt_xent")}
    assert earned == {"cosine_similarity_matrix": 0, "nt_xent_masks": 4, "nt_xent": 13}


def test_inputs_depend_on_secret_student_check_and_answer() -> None:
    base = ("secret", "lab", "ada", "check", "answer")
    first = Draw(*base).normal(8)
    assert torch.equal(first, Draw(*base).normal(8))
    for i in range(len(base)):
        other = [*base]
        other[i] += "x"
        assert not torch.equal(first, Draw(*other).normal(8))


def test_no_message_holds_a_number_of_the_hidden_inputs(grader: Grader) -> None:
    tell = "def nt_xent(z1, z2, tau=0.5):\n    print(z1)\n    raise ValueError(f'{z1.flatten()[:4].tolist()} {tau}')\n"
    grade = answer(grader, "nt_xent", tell)
    hidden = Draw(grader.secret, LAB, "selftest", "test_nt_xent_values", tell).normal(6, 8)
    for number in hidden.flatten()[:4].tolist():
        assert f"{number:.3f}"[:-1] not in text_of(grade)
    assert not re.search(r"\d\.\d{3}", "".join(r.message for r in grade.rows))


# ------------------------------------------------------------- code that misbehaves (attacks: test_autograder_attacks)


def test_the_next_student_is_graded_as_if_nothing_had_happened(grader: Grader, solution: dict[str, str]) -> None:
    answer(grader, "two_views", "import os\ndef two_views(x, t):\n    os._exit(1)\n")
    assert grader.grade(Submission("bob", solution, {})).points == 75


def test_two_timeouts_are_enough(grader: Grader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grader.zygote, "limits", Limits(call_s=1))
    grade = answer(grader, "nt_xent", "def nt_xent(z1, z2, tau=0.5):\n    while True: pass\n")
    assert [r.status for r in grade.rows].count(SKIPPED) == len(grade.rows) - 2
    assert "ran longer" in grade.rows[0].message


def test_output_is_capped_and_harmless(grader: Grader) -> None:
    source = (
        "import sys\nprint('y' * 10**7)\nsys.stderr.write('a warning')\n"
        "def two_views(x, t):\n    print('x' * 10**7)\n    return t(x), t(x)\n"
    )
    grade = Grade("ada", LAB, rows=[r for r in grader.blank_rows() if r.exercise == "two_views"])
    grader.exercise(grader.lab.exercise("two_views"), Submission("ada", {"two_views": source}, {}), grade)
    assert all(r.status == EARNED for r in grade.rows)
    assert len(grade.output["two_views"]) <= 17_000


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("def two_views(x, t)\n    return t(x), t(x)", "line 1 of your cell is not Python"),
        ("from sslcourse.data.views import two_views", "imports sslcourse"),
        ("def two_views(x, t):\n    return helper(x), 1", "put imports and helper functions into it"),
        ("two_views = 3", "stopped with TypeError"),
        ("1 / 0\ndef two_views(x, t):\n    return t(x), t(x)", "stopped with ZeroDivisionError"),
        ("def two_views(x):\n    return x, x", "stopped with TypeError"),
        ("def two_views(x, t):\n    return 1 - torch.ones(2, dtype=torch.bool)", "stopped with"),
        ("def two_views(x, t):\n    '''later'''\n    raise NotImplementedError", 'hint("two_views", 1)'),
    ],
)
def test_sentences(grader: Grader, source: str, sentence: str) -> None:
    grade = answer(grader, "two_views", source)
    assert grade.points == 0
    assert all(sentence in r.message for r in grade.rows), grade.rows


def test_banned_one_liner(grader: Grader) -> None:
    source = (
        "def cosine_similarity_matrix(a, b=None):\n    b = a if b is None else b\n"
        "    return F.cosine_similarity(a[:, None], b[None], dim=-1)\n"
    )
    grade = answer(grader, "cosine_similarity_matrix", source)
    assert grade.points == 0
    assert "answers the question by itself" in grade.rows[0].message


def test_magics_and_shell_lines_are_ignored(grader: Grader, lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "ada.ipynb"
    path.write_text(
        json.dumps(released_with({"two_views": "%time\n!ls\ndef two_views(x, t):\n    return t(x), t(x)\n"}))
    )
    grade = grader.grade(read_submission(path, lab, "ada"))
    assert sum(r.points for r in grade.of("two_views")) == 8


# ------------------------------------------------------------------------------------- files that were handed in


def broken_files(folder: Path, good: dict) -> dict[str, Path]:
    """One file for everything that can be wrong with one."""
    text = json.dumps(good)
    contents: dict[str, bytes] = {
        "empty": b"",
        "truncated": text[: len(text) // 2].encode(),
        "merge": text.replace("{", "{\n<<<<<<< HEAD\n", 1).encode(),
        "list": b"[1, 2, 3]",
        "other": json.dumps({"cells": [], "metadata": {}, "nbformat": 4}).encode(),
        "nested": b"[" * 100_000,
        "binary": bytes(range(256)) * 40,
    }
    files = {}
    for name, content in contents.items():
        files[name] = folder / f"{name}.ipynb"
        files[name].write_bytes(content)
    files["link"] = folder / "link.ipynb"
    files["link"].symlink_to(RELEASED)
    return files


@pytest.mark.usefixtures("one_zygote")
def test_broken_files_are_recorded_zeros_and_stop_nobody(
    lab: Lab, solution: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = released_with(solution)
    files = broken_files(tmp_path, good)
    for name in ("aaa_good", "zzz_good"):
        (tmp_path / f"{name}.ipynb").write_text(json.dumps(good))
    out = tmp_path / "out"
    assert cli.main(["grade", *map(str, sorted(tmp_path.glob("*.ipynb"))), "--out", str(out)]) == 0
    grades = {g["student"]: g for g in json.loads((out / "grades.json").read_text())}
    assert grades["aaa_good"]["points"] == grades["zzz_good"]["points"] == 75
    for name in files:
        assert grades[name]["points"] == 0
        assert len(grades[name]["refused"]) > 20, name
    assert "symbolic link" in grades["link"]["refused"]
    assert "merge markers" in grades["merge"]["refused"]
    capsys.readouterr()


@pytest.mark.usefixtures("one_zygote")
def test_a_second_run_grades_nothing_twice(lab: Lab, solution: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "ada.ipynb"
    path.write_text(json.dumps(released_with(solution)))
    job, hand_ins, seen = batch.Job(lab, "s"), [HandIn("ada", path)], []
    batch.run(job, hand_ins, tmp_path, 1, seen.append)
    stamp = (tmp_path / "grades" / "ada.json").stat().st_mtime_ns
    assert batch.run(job, hand_ins, tmp_path, 1, seen.append)[0].points == seen[0].points == 75
    assert (tmp_path / "grades" / "ada.json").stat().st_mtime_ns == stamp


def test_mended_notebooks(grader: Grader, lab: Lab, solution: dict[str, str], tmp_path: Path) -> None:
    good = released_with(solution)

    def points(notebook: dict) -> Grade:
        path = tmp_path / "ada.ipynb"
        path.write_text(json.dumps(notebook))
        return grader.grade(read_submission(path, lab, "ada"))

    no_metadata = copy.deepcopy(good)
    for cell in no_metadata["cells"]:
        cell["metadata"] = {}
        cell.pop("id")
    assert points(no_metadata).points == 70  # functions are found by name; the prediction has none

    copied = copy.deepcopy(good)
    stub = next(c for c in json.loads(RELEASED.read_text())["cells"] if c["id"] == "nt_xent")
    copied["cells"] += [stub, stub]
    grade = points(copied)
    assert grade.points == 75
    assert any("3 cells carry the label nt_xent" in note for note in grade.notes)

    tampered = copy.deepcopy(good)
    for cell in tampered["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade"):
            cell["metadata"]["nbgrader"]["points"] = 10_000
            cell["source"] = "print('passed')"
    assert points(tampered).points == 75
    assert points(tampered).out_of == 75

    old_format = {"nbformat": 3, "worksheets": [{"cells": [{**c, "input": c["source"]} for c in good["cells"]]}]}
    for cell in old_format["worksheets"][0]["cells"]:
        cell.pop("source")
    assert points(old_format).points == 75


def test_a_missing_exercise_costs_only_itself(
    grader: Grader, lab: Lab, solution: dict[str, str], tmp_path: Path
) -> None:
    notebook = released_with(solution)
    notebook["cells"] = [c for c in notebook["cells"] if c["id"] != "two_views"]
    path = tmp_path / "ada.ipynb"
    path.write_text(json.dumps(notebook))
    grade = grader.grade(read_submission(path, lab, "ada"))
    assert grade.points == 67
    assert "missing" in grade.of("two_views")[0].message


# ---------------------------------------------------------------------------------------------- bad input of ours


def test_checks_that_refuse_the_solution_stop_the_batch(grader: Grader, solution: dict[str, str]) -> None:
    wrong = solution["two_views"].replace("    v1 = t(x)\n", "    x = x + 1\n    v1 = t(x)\n")
    broken = Grader(grader.lab, grader.zygote, "s", {**solution, "two_views": wrong})
    with pytest.raises(InputError, match="does not accept the solution of two_views"):
        broken.preflight()


@pytest.mark.usefixtures("one_zygote")
def test_practice_tells_the_truth(solution: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / f"{LAB}.ipynb"
    wrong = solution["nt_xent"].replace("masked_fill(~candidates, -math.inf)", "masked_fill(~candidates, 0)")
    path.write_text(json.dumps(released_with({"two_views": solution["two_views"], "nt_xent": wrong})))
    found = {f.exercise: f for f in check_notebook(path).findings}
    assert found["two_views"].state == "passes"
    assert found["nt_xent_masks"].state == "not written yet"
    assert found["nt_xent"].state == "needs work"
    assert "the diagonal is still in the denominator" in found["nt_xent"].message
    path.write_text(json.dumps(released_with(solution)))
    result = check_notebook(path)
    assert result.ok
    names = ", ".join(result.by_hand)
    assert names
    assert f"{names}: {sum(result.by_hand.values()):g} points, read by a person" in str(result)
    assert f"still empty: {names}" in str(result)
    path.write_text(json.dumps(released_with(solution | dict.fromkeys(result.by_hand, "an answer"))))
    assert "still empty" not in str(check_notebook(path))


# ------------------------------------------------------------------------------------------------- front ends


def test_gradescope_runs_in_its_own_folder(solution: dict[str, str], tmp_path: Path) -> None:
    """The zip, unpacked as Gradescope does, grades one hand-in with nothing but its own files."""
    archive = gradescope.build(LAB, tmp_path / "gradescope.zip", "a secret")
    source = tmp_path / "autograder" / "source"
    with zipfile.ZipFile(archive) as files:
        files.extractall(source)
    hand_in = tmp_path / "autograder" / "submission" / f"{LAB}.ipynb"
    hand_in.parent.mkdir()
    hand_in.write_text(
        json.dumps(released_with({**solution, "nt_xent": "def nt_xent(z1, z2, tau=0.5):\n    return 0\n"}))
    )
    environment = {
        "PATH": os.environ["PATH"],
        "AUTOGRADER_ROOT": str(tmp_path / "autograder"),
        "AUTOGRADER_PYTHON": sys.executable,
        "PYTHONPATH": str(source),
    }
    subprocess.run(["bash", str(source / "run_autograder")], check=True, env=environment)
    results = json.loads((tmp_path / "autograder" / "results" / "results.json").read_text())
    assert results["score"] == sum(t["score"] for t in results["tests"]) == 75 - 14
    assert any("expected a torch.Tensor" in t["output"] for t in results["tests"])


def test_reports_hold_every_property_and_escape_what_students_write(grader: Grader, tmp_path: Path) -> None:
    evil = "def two_views(x, t):\n    raise ValueError('<script>alert(1)</script>')\n"
    grade = answer(grader, "two_views", evil)
    grade.student = '=cmd("<b>")'
    paths = {p.name: p.read_text() for p in report.write_all([grade], tmp_path)}
    page = next((tmp_path / "students").iterdir()).read_text()
    assert all(r.title in page for r in grade.rows)
    assert "<script>alert" not in page + paths["index.html"]
    assert paths["grades.csv"].splitlines()[1].startswith("\"'=cmd")
    suite = ElementTree.fromstring(paths["junit.xml"])
    assert len(suite.findall(".//testcase")) == len(grade.rows)
    assert Grade.from_dict(json.loads(paths["grades.json"])[0]).as_dict() == grade.as_dict()


def test_a_clean_copy_keeps_answers_and_figures_and_nothing_else(lab: Lab, solution: dict[str, str]) -> None:
    handed_in = released_with(solution)
    figure = {"data": {"image/png": "aGk=", "text/html": "<script>"}, "output_type": "display_data", "metadata": {}}
    for cell in handed_in["cells"]:
        cell["metadata"]["evil"] = True
        if cell["cell_type"] == "code":
            cell["outputs"] = [figure]
    cells = parse(handed_in)
    clean = mend(json.loads(RELEASED.read_text()), take(cells, lab, "ada"), cells)
    text = json.dumps(clean)
    assert "evil" not in text
    assert "<script>" not in text
    assert "aGk=" in text
    assert take(parse(clean), lab, "ada").sources == take(cells, lab, "ada").sources
