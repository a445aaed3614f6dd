"""The real `nbgrader`: twenty hand-ins of every kind through autograde, generate_feedback and export."""

import csv
import html
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from autograder.answers import COURSE, percent_cells, solution_sources
from autograder.labs import source_notebook
from autograder.rubric import Draw, Right, Wrong, answers_of, import_answers

pytestmark = pytest.mark.slow

LAB = "03_simclr_moco"
RELEASED = COURSE / "labs" / LAB / f"{LAB}.ipynb"
SECRET = "the secret of this test"
SOLUTION = {k: re.sub(r"^ *### .* SOLUTION\n?", "", v, flags=re.M) for k, v in solution_sources(LAB).items()}
N = 20


def filled(sources: dict[str, str]) -> dict:
    """The released notebook with some of its cells filled in."""
    notebook = json.loads(RELEASED.read_text())
    for cell in notebook["cells"]:
        grade_id = cell["metadata"].get("nbgrader", {}).get("grade_id")
        cell["source"] = sources.get(grade_id, cell["source"])
    return notebook


def wrong(*names: str) -> dict[str, str]:
    """The solution with these known mistakes in it."""
    known = {w.name: w for w in answers_of(import_answers(LAB), Wrong)}
    chosen = [known[n] for n in names]
    return SOLUTION | {w.exercise: w.source(SOLUTION[w.exercise]) for w in chosen}


def cells(change: Callable[[dict], object]) -> dict:
    """The solved notebook with something done to each of its cells."""
    notebook = filled(SOLUTION)
    for cell in notebook["cells"]:
        change(cell)
    return notebook


def two_views(body: str) -> dict:
    return filled(SOLUTION | {"two_views": f"import torch\ndef two_views(x, t):\n    {body}\n"})


def hand_ins(root: Path) -> dict[str, str | dict | None]:
    """student -> notebook (text, or JSON), None for a folder without one."""
    answers = import_answers(LAB)
    mistakes = [w.name for w in answers_of(answers, Wrong)]
    once = {r.exercise: r.source for r in answers_of(answers, Right)}
    hinted = filled(SOLUTION)
    hinted["cells"][2]["outputs"] = [
        {"output_type": "display_data", "data": {}, "metadata": {"sslcourse_hint": {"exercise": "nt_xent", "level": 2}}}
    ]
    duplicated = filled(SOLUTION)
    duplicated["cells"] += [c for c in json.loads(RELEASED.read_text())["cells"] if c["metadata"].get("nbgrader")]
    deleted = filled(SOLUTION)
    deleted["cells"] = [c for c in deleted["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id") != "nt_xent"]
    gradebook = root / "gradebook.db"
    steal = f"return open({str(RELEASED.parent.parent.parent / 'solutions' / LAB)!r} + '/{LAB}.py').read(), x"
    damage = f"open({str(gradebook)!r}, 'w').write('100'); return t(x), t(x)"

    def tampered(cell: dict) -> None:
        if cell["metadata"].get("nbgrader", {}).get("grade"):
            cell["metadata"]["nbgrader"]["points"] = 1000
            cell["source"] = "1000.0"
        cell["outputs"] = [{"output_type": "execute_result", "data": {"text/plain": "1000.0"}, "metadata": {}}]

    return {
        "s01-right": hinted,
        "s02-right-otherwise": filled(SOLUTION | once),
        "s03-half": filled(dict(list(SOLUTION.items())[:2])),
        "s04-empty": json.loads(RELEASED.read_text()),
        "s05-known-mistakes": filled(wrong(mistakes[0], mistakes[-1])),
        "s06-known-mistakes": filled(wrong(*dict.fromkeys([mistakes[3], mistakes[-4]]))),
        "s07-new-mistake": filled(
            SOLUTION | {"nt_xent": "def nt_xent(z1, z2, tau=0.5):\n    return (z1 * z2).sum() / tau\n"}
        ),
        "s08-new-mistake": filled(SOLUTION | {"nt_xent_masks": "def nt_xent_masks(n):\n    return n, n\n"}),
        "s09-syntax": filled(SOLUTION | {"moco_logits": "def moco_logits(q, k, queue, tau):\n    return (\n"}),
        "s10-prints-inputs": two_views("print(x.tolist()); raise ValueError(str(x.flatten()[:9].tolist()))"),
        "s11-loop": two_views("while True: pass"),
        "s12-exit": two_views("import os; os._exit(0)"),
        "s13-steals": two_views(steal),
        "s14-writes-gradebook": two_views(damage),
        "s15-fork-and-patch": two_views("import os; torch.equal = lambda *a: True; os.fork(); return x, x"),
        "s16-tampered": cells(tampered),
        "s17-duplicated": duplicated,
        "s18-deleted": deleted,
        "s19-broken": json.dumps(filled(SOLUTION))[:5000],
        "s20-nothing": None,
    }


@dataclass
class Course:
    """A graded course folder."""

    root: Path
    nbgrader: dict[str, float]  # scores of `nbgrader export`
    autograder: dict[str, float]  # scores of `autograder grade`
    pages: dict[str, str]
    notebooks: dict[str, str]
    log: str


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    root = Path(os.environ.get("SSLCOURSE_KEEP", "") or tmp_path_factory.mktemp("course"))
    shutil.copy(COURSE / "nbgrader_config.py", root)
    place = root / "solutions" / LAB / f"{LAB}.ipynb"
    place.parent.mkdir(parents=True)
    place.write_text(nbformat.writes(source_notebook(COURSE / "solutions" / LAB / f"{LAB}.py")))
    for student, notebook in hand_ins(root).items():
        folder = root / "submitted" / student / LAB
        folder.mkdir(parents=True)
        if notebook is not None:
            text = notebook if isinstance(notebook, str) else json.dumps(notebook)
            (folder / f"{LAB}.ipynb").write_text(text)
        (folder / "torch.py").write_text("raise SystemExit")  # must never be imported, nor come back
        (folder / "timestamp.txt").write_text(
            "yesterday" if student == "s02-right-otherwise" else "2026-01-01 10:00:00 UTC"
        )
    (root / "submitted" / "s01-right" / LAB / "gradebook.db").symlink_to(root / "gradebook.db")
    bin_folder = str(Path(sys.executable).parent)
    path = os.pathsep.join([bin_folder, os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(COURSE), "SSLCOURSE_SECRET": SECRET}
    log = ""
    for command in (["generate_assignment", LAB], ["autograde", LAB], ["generate_feedback", LAB], ["export"]):
        done = subprocess.run(["nbgrader", *command], cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        log += done.stderr
    words = [sys.executable, "-m", "autograder.cli", "grade", "submitted", "--graded", "--lab", LAB, "--out", "grades"]
    subprocess.run(words, cwd=root, env=environment, check=True, capture_output=True)
    with (root / "grades.csv").open() as file:
        exported = {r["student_id"]: float(r["raw_score"]) for r in csv.DictReader(file)}
    own = {g["student"]: g["points"] for g in json.loads((root / "grades" / "grades.json").read_text())}
    pages = {p.parent.parent.name: p.read_text() for p in (root / "feedback").rglob("*.html")}
    notebooks = {p.parent.parent.name: p.read_text() for p in (root / "autograded").rglob("*.ipynb")}
    return Course(root, exported, own, pages, notebooks, log)


def test_everybody_is_graded_and_both_ways_agree(course: Course) -> None:
    assert len(course.nbgrader) == N
    assert course.nbgrader == course.autograder
    assert set(course.pages) == set(course.notebooks) == set(course.nbgrader)


def test_the_scores_are_the_deserved_ones(course: Course) -> None:
    full = 75.0
    points = {name.split("-")[0]: value for name, value in course.nbgrader.items()}
    assert {k: points[k] for k in ("s01", "s02", "s16", "s17")} == dict.fromkeys(("s01", "s02", "s16", "s17"), full)
    assert {k: points[k] for k in ("s04", "s19", "s20")} == dict.fromkeys(("s04", "s19", "s20"), 0.0)
    assert points["s07"] == points["s18"] == full - 14
    assert points["s09"] == full - 12
    assert {k: points[k] for k in ("s10", "s11", "s12", "s13", "s14", "s15")} == dict.fromkeys(
        ("s10", "s11", "s12", "s13", "s14", "s15"), full - 8
    )
    assert all(0 < points[k] < full for k in ("s03", "s05", "s06", "s08"))


def test_hints_that_were_opened_are_shown_and_cost_nothing(course: Course) -> None:
    said = "hints opened: up to level 2 of 3"
    for texts in (course.pages, course.notebooks):
        assert [student for student, text in texts.items() if said in text] == ["s01-right"]
    assert "hints opened: nt_xent 2" in (course.root / "grades" / "index.html").read_text()


def test_the_gradebook_is_unharmed(course: Course) -> None:
    with sqlite3.connect(course.root / "gradebook.db") as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        assert database.execute("select count(*) from student").fetchone() == (N,)
        highest = database.execute("select max(auto_score) from grade").fetchone()[0]
    assert highest <= 20


def test_no_page_and_no_notebook_holds_what_is_hidden(course: Course) -> None:
    """Check sources, the reference, the rubric, the secret: searched in the text of every page and notebook."""
    texts = {f"page of {k}": shown(v) for k, v in course.pages.items()}
    texts |= {k: written(v) for k, v in course.notebooks.items()}
    texts |= {p.name: shown(p.read_text()) for p in (course.root / "grades").rglob("*.html")}
    lines = [x.strip() for x in (COURSE / "autograder" / "checks" / "lab03.py").read_text().splitlines()]
    checks = [x for x in lines if "student." in x or "draw." in x]
    assert len(checks) >= 50
    cells = percent_cells(COURSE / "solutions" / LAB / f"{LAB}.py")
    rubric = [x for c in cells if c.role == "open" for x in c.source.split("### BEGIN SOLUTION")[-1].splitlines()]
    rubric = [x.strip() for x in rubric if len(x) > 40]
    assert len(rubric) >= 4
    for name, text in texts.items():
        assert not [x for x in [*checks, *rubric] if x in text], name
        assert SECRET not in text
        assert "BEGIN SOLUTION" not in text
    empty = texts["page of s04-empty"]
    released = RELEASED.read_text()
    own = [[x.strip() for x in s.splitlines() if json.dumps(x)[1:-1] not in released] for s in SOLUTION.values()]
    answers = [max(lines, key=len) for lines in own]
    assert min(map(len, answers)) > 10
    assert not [x for x in answers if x in empty or x in texts["s04-empty"]]


def test_no_page_and_no_notebook_holds_a_number_of_a_hidden_call(course: Course) -> None:
    """No number that the released lab does not hold, so no input, expected value, gradient or error of a check."""
    known = numbers(shown(course.pages["s04-empty"]) + written(course.notebooks["s04-empty"]))
    for student in course.nbgrader:
        page = next((course.root / "grades" / "students").glob(f"{student}*.html")).read_text()
        assert numbers(shown(course.pages[student] + page) + written(course.notebooks[student])) <= known, student
    x = Draw(SECRET, LAB, "s10-prints-inputs", "test_two_views_values", "source").normal(2)
    assert not numbers(f"what it would look like: {x.tolist()}") <= known


def numbers(text: str) -> set[str]:
    """Numbers with at least three decimals."""
    return set(re.findall(r"-?\d+\.\d{3,}", text))


def shown(page: str) -> str:
    """The text that a browser shows of a page, of its highlighted code too."""
    return html.unescape(re.sub(r"<[^>]+>", "", page))


def written(notebook: str) -> str:
    """The text of a notebook: sources and outputs."""
    cells = json.loads(notebook)["cells"]
    outputs = [str(o.get("data", o)) for c in cells for o in c.get("outputs", [])]
    return "\n".join([*("".join(c["source"]) for c in cells), *outputs])


def test_feedback_says_what_happened(course: Course) -> None:
    said = {
        "s09-syntax": "is not Python",
        "s10-prints-inputs": "stopped with ValueError",
        "s11-loop": "ran longer than",
        "s12-exit": "its process ended",
        "s17-duplicated": "carry the label nt_xent",
        "s18-deleted": "the cell of nt_xent is missing",
        "s19-broken": "damaged JSON",
        "s20-nothing": "no notebook in the hand-in",
        "s03-half": "not written yet. A first step",
    }
    for student, sentence in said.items():
        assert sentence in " ".join(shown(course.pages[student]).split()), student
    hints = [w.hint.split(".")[0][:40] for w in answers_of(import_answers(LAB), Wrong)]
    for student in ("s05-known-mistakes", "s06-known-mistakes"):
        assert any(h in " ".join(shown(course.pages[student]).split()) for h in hints), student
    assert "2/2" in course.pages["s01-right"], "which property earned its points"


def test_a_second_run_grades_nobody_again_and_a_half_finished_one_is_mended(course: Course) -> None:
    done = course.root / "autograded" / "s01-right" / LAB / f"{LAB}.ipynb"
    before, half = done.stat().st_mtime_ns, course.root / "autograded" / "s03-half" / LAB / f"{LAB}.ipynb"
    notebook = json.loads(half.read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = []  # what a kill between nbgrader's two passes leaves behind
    half.write_text(json.dumps(notebook))
    bin_folder = str(Path(sys.executable).parent)
    path = os.pathsep.join([bin_folder, os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(COURSE), "SSLCOURSE_SECRET": SECRET}
    subprocess.run(["nbgrader", "autograde", LAB], cwd=course.root, env=environment, check=True, capture_output=True)
    assert done.stat().st_mtime_ns == before
    assert all(
        c["outputs"]
        for c in json.loads(half.read_text())["cells"]
        if c["metadata"].get("sslcourse", {}).get("role") == "check"
    )


def test_without_a_secret_nothing_starts_and_one_sentence_says_why(course: Course) -> None:
    bin_folder = str(Path(sys.executable).parent)
    environment = {
        "PATH": os.pathsep.join([bin_folder, os.environ["PATH"]]),
        "PYTHONPATH": str(COURSE),
        "HOME": str(course.root),
    }
    done = subprocess.run(
        ["nbgrader", "autograde", LAB, "--force"], cwd=course.root, env=environment, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert done.stderr.count("grading for marks needs a course secret") == 1
    assert "Traceback" not in done.stderr
    assert len(list((course.root / "autograded").rglob("*.ipynb"))) == N
