"""The intake never raises anything but one clear sentence, whatever a file holds."""

import json
import os
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autograder.answers import COURSE
from autograder.intake import decode, read_bytes, take
from autograder.notebook import Cell, Lab, is_stub, parse, read_lab, without_magics
from autograder.policy import literal, objections, preamble_imports, similarity
from autograder.submissions import find
from sslcourse.errors import InputError

LAB = "03_simclr_moco"
LABS = read_lab(COURSE / "labs" / LAB / f"{LAB}.ipynb")


@pytest.fixture
def lab() -> Lab:
    return LABS


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
metadata = st.fixed_dictionaries(
    {},
    optional={
        "nbgrader": values
        | st.fixed_dictionaries({"grade_id": st.sampled_from(["two_views", "nt_xent", ""]) | values}),
        "sslcourse": values | st.fixed_dictionaries({"role": st.sampled_from(["exercise", "check"]) | values}),
    },
)
cells = st.fixed_dictionaries(
    {},
    optional={
        "cell_type": st.sampled_from(["code", "markdown", "raw"]) | values,
        "source": st.text(max_size=40) | st.lists(st.text(max_size=9), max_size=3) | values,
        "metadata": metadata | values,
        "outputs": values,
        "id": st.sampled_from(["two_views", "nt_xent"]) | values,
    },
)
notebooks = st.fixed_dictionaries({"cells": st.lists(cells, max_size=5)}) | values


def take_in(raw: bytes) -> None:
    try:
        submission = take(parse(decode(raw, "ada.ipynb")), LABS, "ada")
    except InputError:
        return
    for name, source in submission.sources.items():
        exercise = LABS.exercise(name)
        is_stub(source, exercise.stub)
        objections(source, exercise.banned)
        literal(source, "prediction")


def test_a_class_that_only_calls_super_is_empty() -> None:
    init, forward = "    def __init__(self):\n        super().__init__()\n", "    def forward(self, x):\n        "
    assert is_stub(f"class A:\n{init}        raise NotImplementedError\n{forward}raise NotImplementedError\n", "")
    assert not is_stub(f"class A:\n{init}        raise NotImplementedError\n{forward}return x\n", "")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(notebooks)
def test_any_notebook(notebook: object) -> None:
    take_in(json.dumps(notebook).encode())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(raw: bytes) -> None:
    take_in(raw)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=timedelta(seconds=20), suppress_health_check=[HealthCheck.too_slow])
@given(notebooks)
def test_ten_thousand_notebooks(notebook: object) -> None:
    take_in(json.dumps(notebook).encode())


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_any_source(source: str) -> None:
    plain = without_magics(source)
    assert isinstance(objections(plain, ("x",)), list)
    assert isinstance(preamble_imports(source), str)
    assert 0 <= similarity(source, "a = 1") <= 1


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("{}")
    link, pipe = tmp_path / "link.ipynb", tmp_path / "pipe.ipynb"
    link.symlink_to(target)
    os.mkfifo(pipe)
    for path, reason in ((link, "symbolic link"), (pipe, "regular file"), (tmp_path / "none.ipynb", "no such file")):
        with pytest.raises(InputError, match=reason):
            read_bytes(path)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.ipynb"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(InputError, match="Clear the outputs"):
        read_bytes(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(encoding: str) -> None:
    assert decode(json.dumps({"cells": []}).encode(encoding), "ada.ipynb") == {"cells": []}


def test_the_last_cell_that_was_worked_on_counts(lab: Lab) -> None:
    stub = lab.exercise("two_views").stub

    def cell(source: str) -> Cell:
        return Cell("code", source, {"nbgrader": {"grade_id": "two_views"}})

    first, second = "def two_views(x, t):\n    return 1", "def two_views(x, t):\n    return 2"
    assert take([cell(first), cell(second), cell(stub)], lab, "ada").sources["two_views"] == second


def test_predictions_are_read_without_running_them() -> None:
    source = "prediction = {'tau': None}\nprediction = {'tau': 0.1}\nprint(1 / 0)"
    assert literal(source, "prediction") == {"tau": 0.1}
    assert literal("prediction = {'tau': open('x')}", "prediction") is None


def test_a_renamed_copy_is_alike_and_other_code_is_not() -> None:
    a = "def f(x, y):\n    '''doc'''\n    z = x @ y.T\n    return z.softmax(1)"
    b = "def f(p: int, q) -> int:\n    w = p @ q.T\n    return w.softmax(1)"
    c = "def f(x, y):\n    return sum(i * j for i, j in zip(x, y))"
    assert similarity(a, b) == 1
    assert similarity(a, c) < 0.6


@pytest.mark.parametrize(
    ("file", "student"),
    [
        ("lovelaceada_123_4567_03_simclr_moco.ipynb", "lovelaceada"),
        ("Ada Lovelace_99_assignsubmission_file_/lab.ipynb", "Ada Lovelace"),
        ("03-lab-ada/labs/03.ipynb", "03-lab-ada"),
        ("ada.ipynb", "ada"),
    ],
)
def test_whose_file_it_is(file: str, student: str, tmp_path: Path) -> None:
    archive = tmp_path / "hand-ins.zip"
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr(file, "{}")
        files.writestr("../escaped.ipynb", "{}")
    found = find([archive], tmp_path / "unpacked")
    assert [h.student for h in found] == [student]
    assert not (tmp_path / "escaped.ipynb").exists()


def test_an_empty_folder_is_a_hand_in_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "lab.ipynb").write_text("{}")
    (tmp_path / "bob").mkdir()
    assert {h.student for h in find([tmp_path], tmp_path)} == {"ada", "bob"}


def test_one_student_never_has_two_files_of_one_name(tmp_path: Path) -> None:
    for name in ("ada.ipynb", "sub/ada.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    found = find([tmp_path / "ada.ipynb", tmp_path / "sub" / "ada.ipynb"], tmp_path)
    assert [h.student for h in found] == ["ada", "ada (2)"]
