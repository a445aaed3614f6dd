"""Many hand-ins: interrupted and taken up again, in parallel, from the zips of course platforms, and compared."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import yaml

from autograder import batch, cli, handout, report
from autograder.answers import COURSE, solution_sources
from autograder.grade import Grade
from autograder.grader import Grader
from autograder.notebook import read_lab
from autograder.pairs import same_code
from autograder.policy import code_print
from autograder.rubric import Right, Wrong, answers_of, import_answers, import_checks
from autograder.sandbox import Zygote
from autograder.selftest import only

LAB = "00_warmup"
RELEASED = COURSE / "labs" / LAB / f"{LAB}.ipynb"
FULL = 75  # what the solution earns without the cells that are graded by hand


def notebook(sources: dict[str, str]) -> str:
    """The released lab with some of its cells filled in."""
    released = json.loads(RELEASED.read_text())
    for cell in released["cells"]:
        grade_id = cell["metadata"].get("nbgrader", {}).get("grade_id")
        cell["source"] = sources.get(grade_id, cell["source"])
    return json.dumps(released)


def class_of(folder: Path, n: int, slow: float = 0.0) -> Path:
    """n folders with the solution; `slow` seconds of sleep in each keep a batch busy."""
    sources = solution_sources(LAB)
    sleep = f"    import time; time.sleep({slow})\n" if slow else ""
    sources["pairwise_dot"] = f'def pairwise_dot(a, b):\n{sleep}    return torch.einsum("bnd,bmd->bnm", a, b)\n'
    for i in range(n):
        place = folder / f"student{i:02}" / f"{LAB}.ipynb"
        place.parent.mkdir(parents=True)
        place.write_text(notebook(sources))
    return folder


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "autograder.cli", *map(str, words)]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(COURSE), "OMP_NUM_THREADS": "1"}


def graded(out: Path) -> dict[str, int]:
    """student -> when the grade was written."""
    return {p.stem: p.stat().st_mtime_ns for p in (out / "grades").glob("*.json")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "jobs"), [(signal.SIGKILL, 1), (signal.SIGKILL, 2), (signal.SIGINT, 1), (signal.SIGINT, 2)]
)
def test_a_grader_that_is_stopped_goes_on_where_it_was(how: signal.Signals, jobs: int, tmp_path: Path) -> None:
    n, out = 10, tmp_path / "out"
    words = command("grade", class_of(tmp_path / "submitted", n, slow=0.3), "--out", out, "--jobs", jobs)
    process = subprocess.Popen(
        words,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )
    while len(graded(out)) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(how)
    code = process.wait(60)
    assert code == (130 if how is signal.SIGINT else -9)
    before = graded(out)
    assert 3 <= len(before) < n
    left = [p for p in (out / "grades").iterdir() if p.suffix != ".json"]
    subprocess.run(words, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    after = graded(out)
    assert len(after) == n
    assert {k: after[k] for k in before} == before, "graded twice"
    rows = list(csv.DictReader((out / "grades.csv").open()))
    assert [(r["student"], float(r["points"])) for r in rows] == [(f"student{i:02}", FULL) for i in range(n)]
    assert len(left) <= jobs  # at most a half-written file a process, never a broken grade


@pytest.mark.slow
def test_a_grading_process_that_dies_takes_nobody_with_it(tmp_path: Path) -> None:
    """What the kernel does to a process when memory runs out."""
    out = tmp_path / "out"
    words = command("grade", class_of(tmp_path / "submitted", 8, slow=0.3), "--out", out, "--jobs", 2)
    process = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    while len(graded(out)) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]
    os.kill(workers[-1], signal.SIGKILL)
    assert process.wait(200) == 0
    assert len(graded(out)) == 8
    assert all(float(r["points"]) == FULL for r in csv.DictReader((out / "grades.csv").open()))


@pytest.fixture(scope="module")
def zygote():
    with Zygote(trains=True) as zygote:
        yield zygote


@pytest.fixture(scope="module")
def grader(zygote: Zygote) -> Grader:
    return Grader(read_lab(RELEASED), zygote, "a secret", solution_sources(LAB))


@pytest.fixture
def one_zygote(zygote: Zygote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zygote, "close", lambda: None)
    monkeypatch.setattr(batch, "Zygote", lambda *args, **kwargs: zygote)


# --------------------------------------------------------------------------------------------- where files come from


def platform_zip(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


@pytest.mark.usefixtures("one_zygote")
@pytest.mark.parametrize(
    ("files", "students"),
    [
        (
            ["lovelaceada_123_4567_00_warmup.ipynb", "hoppergrace_LATE_9_8_00_warmup-1.ipynb"],
            ["hoppergrace", "lovelaceada"],
        ),
        (
            ["Ada Lovelace_1_assignsubmission_file_/a.ipynb", "Grace Hopper_2_assignsubmission_file_/b.ipynb"],
            ["Ada Lovelace", "Grace Hopper"],
        ),
        (["warmup-ada/00_warmup.ipynb", "warmup-grace/labs/00_warmup.ipynb"], ["warmup-ada", "warmup-grace"]),
    ],
    ids=["canvas", "moodle", "classroom"],
)
def test_zips_of_course_platforms(files: list[str], students: list[str], tmp_path: Path) -> None:
    text = notebook({"split_heads": solution_sources(LAB)["split_heads"]})
    archive = platform_zip(tmp_path / "hand-ins.zip", dict.fromkeys(files, text))
    assert cli.main(["grade", str(archive), "--out", str(tmp_path / "out")]) == 0
    grades = json.loads((tmp_path / "out" / "grades.json").read_text())
    assert [(g["student"], g["points"]) for g in grades] == [(s, 12) for s in students]


@pytest.mark.usefixtures("one_zygote")
def test_a_hostile_zip_costs_only_its_author(tmp_path: Path) -> None:
    """Paths out of the folder, links, names that no disk takes, damaged members: everyone else is graded."""
    archive, good = tmp_path / "hand-ins.zip", notebook(solution_sources(LAB))
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
        files.writestr("ada/00_warmup.ipynb", good)
        files.writestr("../../escaped.ipynb", good)
        files.writestr("/tmp/escaped.ipynb", good)
        link = zipfile.ZipInfo("eve/00_warmup.ipynb")
        link.external_attr = 0o120777 << 16
        files.writestr(link, "/etc/passwd")
        files.writestr(f"{'𝒂' * 80}/{'b' * 300}.ipynb", good)
        files.writestr("mal/00_warmup.ipynb", good)
        files.writestr("bomb/00_warmup.ipynb", b" " * (65 << 20))
        files.writestr("zoe/00_warmup.ipynb", good)
    raw = bytearray(archive.read_bytes())
    at = raw.find(b"mal/00_warmup.ipynb") + 200
    raw[at : at + 40] = bytes(40)
    archive.write_bytes(raw)
    assert cli.main(["grade", str(archive), "--out", str(tmp_path / "out")]) == 0
    grades = {g["student"]: g for g in json.loads((tmp_path / "out" / "grades.json").read_text())}
    assert grades["ada"]["points"] == grades["zoe"]["points"] == FULL
    assert grades["mal"]["points"] == grades["bomb"]["points"] == 0
    assert grades["mal"]["refused"]
    assert "eve" not in grades
    assert len(grades) == 5
    assert not (tmp_path / "escaped.ipynb").exists()
    assert not Path("/tmp/escaped.ipynb").exists()


@pytest.mark.usefixtures("one_zygote")
def test_names_that_no_encoding_knows(tmp_path: Path) -> None:
    folder = tmp_path / "submitted"
    for name in (b"\xff\xfe", "\u202eada\x1b[31m".encode(), b"-" * 200):
        place = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
        place.mkdir(parents=True)
        (place / f"{LAB}.ipynb").write_text(notebook({}))
    assert cli.main(["grade", str(folder), "--lab", LAB, "--out", str(tmp_path / "out")]) == 0
    assert len(json.loads((tmp_path / "out" / "grades.json").read_text())) == 3


# ----------------------------------------------------------------------------------------------------------- hints


@pytest.mark.slow
@pytest.mark.usefixtures("one_zygote")
def test_a_hint_opened_in_jupyter_is_recorded_and_shown_to_the_instructor(tmp_path: Path) -> None:
    """A real kernel runs `hint`; what Jupyter saves is graded; the hint costs nothing."""
    import nbclient
    import nbformat

    hand_in = nbformat.reads(notebook(solution_sources(LAB)), as_version=4)
    tools = next(c for c in hand_in.cells if c.get("id") == "tools")
    tools.source += '\nhint("row_cosine", 1)\nhint("row_cosine", 2)\nhint("split_heads", 1)'
    hand_in.cells, cells = [tools], hand_in.cells
    nbclient.NotebookClient(hand_in, kernel_name="python3").execute()
    assert "Hint 2 of 3" in str(tools.outputs)
    hand_in.cells = cells
    (tmp_path / "ada.ipynb").write_text(nbformat.writes(hand_in))
    assert cli.main(["grade", str(tmp_path / "ada.ipynb"), "--out", str(tmp_path / "out")]) == 0
    grade = json.loads((tmp_path / "out" / "grades.json").read_text())[0]
    assert grade["hints_used"] == {"row_cosine": 2, "split_heads": 1}
    assert grade["points"] == FULL
    assert "hints opened: row_cosine 2, split_heads 1" in (tmp_path / "out" / "index.html").read_text()


# --------------------------------------------------------------------------------------------------- the same code

ONE = """def row_cosine(a, b):
    \"\"\"Mine.\"\"\"
    lengths = a.norm(dim=1) * b.norm(dim=1)  # both
    total = (a * b).sum(1)
    return total / lengths
"""
RENAMED = """def row_cosine(left: Tensor, right: Tensor) -> Tensor:
    n = left.norm(dim=1) * right.norm(dim=1)

    s = (left * right).sum(1)
    # done
    return s / n
"""
OTHER = "def row_cosine(a, b):\n    x = a / a.norm(dim=1)\n    y = b / b.norm(dim=1)\n    return (x * y).sum(1)\n"


def test_names_comments_and_layout_do_not_make_code_different() -> None:
    assert code_print(ONE) == code_print(RENAMED) != ""
    assert code_print(ONE) != code_print(OTHER)
    helper = "def split_heads(x, heads):\n    def {n}(y):\n        z = y + 1\n        return z\n    return {n}(x)\n"
    assert code_print(helper.format(n="cut")) == code_print(helper.format(n="slice_up")) != ""
    assert code_print("def pairwise_dot(a, b):\n    return a @ b.mT\n") == "", "one line says nothing"
    assert code_print("def f(:") == ""


def test_pairs_are_reported_and_what_the_course_shows_is_not(grader: Grader, tmp_path: Path) -> None:
    shown = solution_sources(LAB)["row_cosine"]
    hand_ins = {
        "ada": ONE,
        "bob": RENAMED,
        "cy": OTHER,
        "dan": shown,
        "eve": shown,
        "fay": grader.lab.exercise("row_cosine").stub,
    }
    grades = [only(grader, "row_cosine", source, student) for student, source in hand_ins.items()]
    pairs = same_code(grades)
    assert [(p.first, p.second, p.exercises, p.weight) for p in pairs] == [("ada", "bob", ("row_cosine",), 1.0)]
    again = [Grade.from_dict(json.loads(json.dumps(g.as_dict()))) for g in grades]
    assert same_code(again) == pairs, "a resumed run knows them too"
    report.write_all(grades, tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "not a verdict" in page
    assert "<td>ada</td><td>bob</td><td>row_cosine</td>" in page
    assert (tmp_path / "same_code.csv").read_text().splitlines()[1:] == ["ada,bob,row_cosine,1.00"]


def test_code_that_few_share_comes_first() -> None:
    grades = [Grade(s, LAB, prints={"split_heads": "common"}) for s in "abcd"]
    grades[2].prints["row_cosine"] = grades[3].prints["row_cosine"] = "rare"
    pairs = same_code(grades)
    assert (pairs[0].first, pairs[0].second) == ("c", "d")
    assert len(pairs) == 6


# ------------------------------------------------------------------------------------------------------- hand-outs


@pytest.mark.slow
def test_the_hand_out_holds_no_check_no_solution_and_no_expected_value(tmp_path: Path) -> None:
    archive = handout.build(tmp_path / "labs.zip")
    with zipfile.ZipFile(archive) as outer:
        outer.extractall(tmp_path / "zip")
    wheel = next((tmp_path / "zip").glob("*.whl"))
    with zipfile.ZipFile(wheel) as inner:
        inner.extractall(tmp_path / "wheel")
        names = inner.namelist()
    assert {"README.md", "requirements.txt", "labs", "weights", wheel.name} == {
        p.name for p in (tmp_path / "zip").iterdir()
    }
    assert wheel.name in (tmp_path / "zip" / "requirements.txt").read_text()
    assert "sslcourse/losses/infonce.py" in names
    assert "autograder/practice.py" in names
    assert not [n for n in names if "checks/" in n or "mutants" in n or "solutions" in n or n.startswith("tests")]
    texts = {p: p.read_bytes().decode("utf-8", "ignore") for p in tmp_path.rglob("*") if p.is_file() and p != archive}
    texts.pop(wheel)
    for lab in ("00_warmup", "03_simclr_moco", "10_clip"):
        secrets = [line.strip() for check in _checks(lab) for line in check.splitlines() if "student." in line]
        secrets += [w.hint for w in answers_of(import_answers(lab), Wrong)]
        secrets += [r.source for r in answers_of(import_answers(lab), Right)]
        secrets += _answer_bodies(lab)
        assert len(secrets) > 60
        held = [s for s in secrets for p, text in texts.items() if s in text and "sslcourse/" not in p.as_posix()]
        guide = (COURSE / "autograder" / "README.md").read_text()
        assert [s for s in held if s not in guide] == []


def _checks(lab: str) -> list[str]:
    import inspect

    module = import_checks(lab)
    assert module is not None
    return [inspect.getsource(module)]


def _answer_bodies(lab: str) -> list[str]:
    """What stands between the marks of a solution, where the library does not hold the same lines."""
    found = []
    for source in solution_sources(lab).values():
        if "### BEGIN SOLUTION" in source:
            body = source.split("### BEGIN SOLUTION")[1].split("### END SOLUTION")[0]
            found += [body] if body.count("\n") > 2 else []
    return found


@pytest.mark.slow
def test_students_can_check_with_the_hand_out_alone(tmp_path: Path) -> None:
    """`sslcourse check` from the wheel, in a folder without the course."""
    wheel = handout.build_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as files:
        files.extractall(tmp_path / "site")
    (tmp_path / f"{LAB}.ipynb").write_text(notebook(solution_sources(LAB)))
    code = "import sys; from sslcourse.cli import main; sys.exit(main())"
    words = [sys.executable, "-P", "-c", code, "check", f"{LAB}.ipynb"]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Every public check passes" in done.stdout
    assert str(tmp_path / "site") in subprocess.run(
        [sys.executable, "-P", "-c", "import autograder; print(autograder.__file__)"],
        env=environment, capture_output=True, text=True,
    ).stdout  # fmt: skip


def test_the_classroom_workflow_runs_check_on_every_notebook(tmp_path: Path) -> None:
    """The step's own commands, with a stand-in for `sslcourse` that records how it was called."""
    workflow = yaml.safe_load((COURSE / "autograder" / "classroom.yml").read_text())
    step = workflow["jobs"]["check"]["steps"][-1]["run"]
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "sslcourse"
    program.write_text('#!/bin/sh\necho "$@" >> calls\ncase "$2" in *bad*) exit 1;; esac\n')
    program.chmod(0o755)
    git = tmp_path / "bin" / "git"
    git.write_text("#!/bin/sh\nls *.ipynb 2>/dev/null\n")
    git.chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}

    def run() -> int:
        return subprocess.run(["bash", "-e", "-c", step], cwd=tmp_path, env=environment, capture_output=True).returncode

    assert run() == 2
    (tmp_path / "good.ipynb").touch()
    assert run() == 0
    (tmp_path / "bad.ipynb").touch()
    assert run() == 1
    assert (tmp_path / "calls").read_text().split() == [
        "check",
        "good.ipynb",
        "check",
        "bad.ipynb",
        "check",
        "good.ipynb",
    ]


@pytest.mark.slow
def test_a_process_an_exercise_instead_of_a_fork() -> None:
    """How labs that need CUDA are graded; the same grades, state of one exercise never seen by the next."""
    with Zygote(trains=True, spawn=True) as zygote:
        grader = Grader(read_lab(RELEASED), zygote, "a secret", solution_sources(LAB))
        grader.preflight()
        assert only(grader, "split_heads", "import os\ndef split_heads(x, heads):\n    os._exit(0)\n").points == 0
        assert only(grader, "split_heads", grader.solution["split_heads"]).points == 12
