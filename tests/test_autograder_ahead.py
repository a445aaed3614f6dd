"""Grading beside nbgrader: hand-ins graded before they are asked for, and one transaction for each."""

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autograder.ahead import Ahead
from autograder.answers import COURSE, solution_sources
from autograder.batch import Job
from autograder.gradebook import one_book
from autograder.intake import Submission
from autograder.notebook import Lab, read_lab
from sslcourse.errors import InputError

LAB = "00_warmup"
SOLUTION = solution_sources(LAB)
FULL = 75
EMPTY = {"split_heads": "def split_heads(x, heads):\n    return None\n"}


@pytest.fixture(scope="module")
def lab() -> Lab:
    return read_lab(COURSE / "labs" / LAB / f"{LAB}.ipynb")


@pytest.fixture(scope="module")
def grader(lab: Lab) -> Iterator[Ahead]:
    ahead = Ahead(Job(lab, "a secret", many=True))
    ahead.preflight()
    yield ahead
    ahead.close()


def test_each_gets_the_grade_of_what_is_asked_for(grader: Ahead) -> None:
    names = ["ada", "bob", "cyd", "dan"]
    grader.expect(Submission(name, SOLUTION if name != "bob" else EMPTY, {}) for name in names)
    assert len(grader.asked) == 2, "not the whole class at once"
    grades = {name: grader.grade(Submission(name, SOLUTION if name != "bob" else EMPTY, {})) for name in names}
    assert {name: grade.points for name, grade in grades.items()} == {"ada": FULL, "bob": 0, "cyd": FULL, "dan": FULL}
    assert all(grade.student == name for name, grade in grades.items())


def test_what_was_expected_and_differs_does_not_count(grader: Ahead) -> None:
    grader.expect([Submission("ada", SOLUTION, {}), Submission("bob", SOLUTION, {})])
    assert grader.grade(Submission("ada", EMPTY, {})).points == 0
    assert grader.grade(Submission("eve", SOLUTION, {})).points == FULL, "nobody expected her"
    assert grader.grade(Submission("bob", SOLUTION, {}, refused="not a notebook.")).refused == "not a notebook."


def test_a_grading_process_that_dies_is_replaced(grader: Ahead) -> None:
    grader.expect([Submission("ada", SOLUTION, {})])
    for pid in list(grader.pool._processes):
        os.kill(pid, signal.SIGKILL)
    assert grader.grade(Submission("ada", SOLUTION, {})).points == FULL
    assert grader.crashes == 1


def test_checks_that_do_not_fit_the_lab_are_named_before_anything_is_graded(lab: Lab) -> None:
    first = dataclasses.replace(lab.exercises[0], points=99)
    ahead = Ahead(Job(dataclasses.replace(lab, exercises=[first, *lab.exercises[1:]]), "a secret"))
    try:
        with pytest.raises(InputError, match="are worth 12 points, its cell says 99"):
            ahead.preflight()
    finally:
        ahead.close()


def test_a_hand_in_is_in_the_gradebook_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbgrader.api
    from nbgrader.preprocessors import saveautogrades

    programs = [str(Path(sys.executable).parent), os.environ["PATH"]]  # nbgrader calls alembic for a new gradebook
    monkeypatch.setenv("PATH", os.pathsep.join(programs))
    file = tmp_path / "gradebook.db"
    url = f"sqlite:///{file}"

    def students() -> list[str]:
        with sqlite3.connect(file) as database:
            return sorted(row[0] for row in database.execute("select id from student"))

    with one_book(url, "course") as book:
        with saveautogrades.Gradebook(url) as used:
            assert used is book
            used.add_student("ada")
        assert students() == []
        book.save()
        assert students() == ["ada"]
        with saveautogrades.Gradebook(url) as used:
            used.add_student("bob")
        book.forget()
        with saveautogrades.Gradebook(f"sqlite:///{tmp_path / 'other.db'}", "course") as other:
            assert other is not book
        with saveautogrades.Gradebook(url) as used:
            assert [student.id for student in used.students] == ["ada"]
    assert students() == ["ada"]
    assert saveautogrades.Gradebook is nbgrader.api.Gradebook


def test_nbgrader_and_the_terminal_do_not_wait_for_torch() -> None:
    """It is imported by the grader's own processes, while their zygote starts."""
    modules = "autograder.cli, autograder.report, autograder.batch, autograder.ahead, autograder.nbgrader_plugin"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(COURSE)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
