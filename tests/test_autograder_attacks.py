"""What hostile hand-ins try, at every sandbox level of this machine: no undeserved point, no leak, nobody else harmed.

Each attack is an answer to `two_views` (8 points). An attack that tries to get at something says how often it
succeeded ("got 3"), so a test sees success even where nothing was broken.
"""

import hashlib
import json
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from autograder_attacks import CLASSES, FRAME, REACHES, SCALES, VALUES, WIRE

from autograder import report
from autograder.answers import COURSE, solution_sources
from autograder.grade import EARNED, Grade
from autograder.grader import Grader
from autograder.intake import Submission
from autograder.notebook import Lab, clean, read_lab
from autograder.sandbox import LEVELS, Limits, Zygote
from autograder.selftest import only
from sslcourse.errors import InputError

LAB = "03_simclr_moco"
SECRET = "the-secret-of-this-course"
MARK = "canary-of-bob"  # in bob's hand-in and in the gradebook; whoever shows it has read them


@dataclass
class House:
    """A course folder with everything that a student must not touch, and a grader beside it."""

    grader: Grader
    folder: Path
    port: int
    visits: list[object] = field(default_factory=list)
    digests: dict[Path, str] = field(default_factory=dict)

    def paths(self) -> list[str]:
        course = (COURSE / "autograder" / "checks" / "lab03.py", COURSE / "solutions" / LAB / f"{LAB}.py")
        library = COURSE / "sslcourse" / "data" / "views.py"
        return [str(p) for p in (*self.digests, *course, library, self.folder, course[0].parent, Path.home())]

    def now(self) -> dict[Path, str]:
        files = [p for p in sorted(self.folder.rglob("*")) if p.is_file()]
        return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module", params=LEVELS)
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    os.environ["SSLCOURSE_SECRET"] = SECRET
    try:
        zygote = Zygote(request.param, trains=True)
    except InputError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("course")
    bob = folder / "submitted" / "bob" / LAB / f"{LAB}.ipynb"
    bob.parent.mkdir(parents=True)
    bob.write_text(json.dumps({"cells": [], "note": MARK}))
    with sqlite3.connect(folder / "gradebook.db") as gradebook:
        gradebook.execute("create table grade (student text, points real)")
        gradebook.execute("insert into grade values (?, 3)", (MARK,))
    gradebook.close()
    with zygote, socket.create_server(("127.0.0.1", 0)) as server:
        grader = Grader(read_lab(COURSE / "labs" / LAB / f"{LAB}.ipynb"), zygote, SECRET, solution_sources(LAB))
        place = House(grader, folder, server.getsockname()[1])
        place.digests = place.now()
        threading.Thread(target=_greet, args=(server, place.visits), daemon=True).start()
        yield place
    os.environ.pop("SSLCOURSE_SECRET")


def _greet(server: socket.socket, visits: list[object]) -> None:
    try:
        while True:
            visits.append(server.accept())
    except OSError:
        return


def two_views(body: str, house: House) -> str:
    body = (
        body.strip()
        .replace("PATHS", repr(house.paths()))
        .replace("PORT", str(house.port))
        .replace("COURSE", repr(str(COURSE)))
    )
    return f"import torch\ndef two_views(x, t):\n    {body}\n"


HURRY = Limits(call_s=1.0, exercise_s=4.0)


def unharmed(house: House, grade: Grade) -> None:
    """Nothing leaked, nothing changed, and the next student gets what is due."""
    text = json.dumps(grade.as_dict())
    assert MARK not in text
    assert SECRET not in text
    assert "student.same" not in text
    assert house.now() == house.digests
    assert house.visits == []
    assert all(r.message and len(r.message) < 700 for r in grade.rows if r.status != EARNED)
    house.grader.zygote.limits = Limits()
    honest = only(house.grader, "two_views", house.grader.solution["two_views"], "bob")
    assert honest.points == 8, honest


def test_an_honest_hand_in_gets_full_marks(house: House) -> None:
    grade = house.grader.grade(Submission("ada", house.grader.solution, {}))
    assert grade.points == 75, [r for r in grade.rows if r.status != EARNED]
    unharmed(house, grade)


@pytest.mark.parametrize("name", SCALES)
def test_too_much_of_something(house: House, name: str) -> None:
    body, deserved = SCALES[name]
    house.grader.zygote.limits = Limits() if deserved else HURRY
    grade = only(house.grader, "two_views", two_views(body, house))
    assert grade.points == deserved, grade.rows
    unharmed(house, grade)


@pytest.mark.parametrize("name", VALUES)
def test_answers_that_are_none(house: House, name: str) -> None:
    grade = only(house.grader, "two_views", two_views(VALUES[name], house))
    assert grade.points == 0, grade.rows
    unharmed(house, grade)


@pytest.mark.parametrize("name", REACHES)
def test_reaching_for_what_is_not_theirs(house: House, name: str) -> None:
    grade = only(house.grader, "two_views", two_views(REACHES[name].replace("PID", str(os.getpid())), house))
    assert grade.points == 0
    assert "got 0" in grade.rows[0].message, grade.rows[0].message
    unharmed(house, grade)


# ----------------------------------------------------------------------------------------- ten more of our own


@pytest.mark.parametrize("name", WIRE)
def test_frames_written_past_the_worker(house: House, name: str) -> None:
    """The student's code finds the socket and speaks the protocol itself."""
    size = "4 * 10**12" if name == "4 TB header" else "None"
    body = f"""{FRAME}
    for fd in range(3, 64):
        try:
            os.write(fd, S({WIRE[name].encode()!r}, size={size}))
        except OSError:
            pass
    return x, x"""
    grade = only(house.grader, "two_views", two_views(body, house))
    assert grade.points == 0
    unharmed(house, grade)


def test_nothing_is_left_for_the_next_one(house: House) -> None:
    """Own attack 1: hidden inputs stashed in every place that can be written, for a later exercise to find."""
    places = ["stash", "/tmp/stash", "/dev/shm/stash", "/var/tmp/stash", "/dev/mqueue/stash"]
    write = (
        f"for p in {places}:\n        try: open(p, 'w').write('found')\n        except OSError: pass\n    return x, x"
    )
    read = f"""got = 0
    for p in {places}:
        try: got += len(open(p).read()) > 0
        except OSError: pass
    raise ValueError(f"got {{got}}")"""
    assert only(house.grader, "two_views", two_views(write, house)).points == 0
    grade = only(house.grader, "two_views", two_views(read, house))
    assert "got 0" in grade.rows[0].message
    assert not any(Path(p).exists() for p in places)
    unharmed(house, grade)


def test_memory_that_is_shared_is_counted_too(house: House) -> None:
    """Own attack 2: 20 GB of shared anonymous memory, which a limit on private memory does not see."""
    body = """
    room = __import__("mmap").mmap(-1, 20 << 30)
    for at in range(0, 20 << 30, 4096):
        room[at] = 1
    return t(x), t(x)"""
    grade = only(house.grader, "two_views", two_views(body, house))
    assert grade.points == 0
    assert "ran longer" not in grade.rows[0].message, "it was allowed to allocate"
    unharmed(house, grade)


def test_sleeping_just_below_the_limit(house: House) -> None:
    """Own attack 3: every call takes nearly all the time that one call has."""
    house.grader.zygote.limits = HURRY
    source = "import time\ndef nt_xent(z1, z2, tau=0.5):\n    time.sleep(0.9)\n    return z1.sum()\n"
    grade = only(house.grader, "nt_xent", source)
    assert grade.points == 0
    assert any("all calls together" in r.message or "ran longer" in r.message for r in grade.rows)
    assert any("already been stopped twice" in r.message for r in grade.rows)
    unharmed(house, grade)


def test_text_that_breaks_terminals_pages_and_files(house: House, tmp_path: Path) -> None:
    """Own attack 4: halves of characters, escape sequences and markup in everything that a report shows."""
    evil = "\\ud800\\x1b]0;owned\\x07<script>alert(1)</script>\\u202e&"
    source = (
        f"print('{evil}')\nclass E(Exception): pass\nE.__name__ = '{evil}'\n"
        f"def two_views(x, t):\n    raise E('{evil}')\n"
    )
    grade = only(house.grader, "two_views", source, clean("=cmd|\ud800\x1b[31m<b>/../../x", 200))
    files = report.write_all([grade], tmp_path)
    pages = [*files, *(tmp_path / "students").iterdir()]
    text = "".join(p.read_text(encoding="utf-8") for p in pages) + "\n".join(report.lines(grade))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "<script>" not in (tmp_path / "index.html").read_text() + pages[-1].read_text()
    unharmed(house, grade)


def test_call_backs_without_end(house: House) -> None:
    """Own attack 5: the grader is asked to remember the gradients of ever more large calls."""
    house.grader.zygote.limits = HURRY
    body = """
    big = torch.ones(512, 512, requires_grad=True)
    kept = []
    while True:
        kept.append(t(big))"""
    before = _resident_mb()
    grade = only(house.grader, "two_views", two_views(body, house))
    assert grade.points == 0
    assert _resident_mb() - before < 900
    unharmed(house, grade)


def test_call_backs_of_gigabytes(house: House) -> None:
    grade = only(house.grader, "two_views", two_views("return t(torch.zeros(1).expand(2**20, 2**20)), x", house))
    assert grade.points == 0
    unharmed(house, grade)


def _resident_mb() -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) >> 10


def test_a_poisoned_process_is_thrown_away(house: House) -> None:
    """Own attack 6: global settings of torch and Python, changed while the cell is loaded."""
    poison = (
        "import torch, random, sys\ntorch.set_default_dtype(torch.float64)\ntorch.set_grad_enabled(False)\n"
        "torch.nn.functional.normalize = torch.Tensor.backward = None\nsys.setrecursionlimit(50)\n"
        "def two_views(x, t):\n    return x, x\n"
    )
    assert only(house.grader, "two_views", poison).points == 0
    grade = only(house.grader, "nt_xent", house.grader.solution["nt_xent"])
    assert grade.points == 14
    unharmed(house, grade)


def test_errors_that_fight_back(house: House) -> None:
    """Own attack 7: exceptions that loop, fail or grow while they are being described."""
    house.grader.zygote.limits = HURRY
    for text in ("while True: pass", "raise SystemExit", "return 'x' * 10**9", "return self", "os._exit(3)"):
        body = f"import os\n    class E(BaseException):\n        def __str__(self):\n            {text}\n    raise E"
        grade = only(house.grader, "two_views", two_views(body, house))
        assert grade.points == 0
    unharmed(house, grade)


def test_a_thread_that_answers_for_the_worker(house: House) -> None:
    """Own attack 8: a thread keeps writing frames after the call has returned."""
    house.grader.zygote.limits = HURRY
    body = f"""{FRAME}
    import _thread
    def spam():
        while True:
            for fd in range(3, 16):
                try: os.write(fd, S({WIRE["forged value"].encode()!r}))
                except OSError: pass
    _thread.start_new_thread(spam, ())
    return x, x"""
    grade = only(house.grader, "two_views", two_views(body, house))
    assert grade.points == 0
    unharmed(house, grade)


def test_claims_about_its_own_innocence(house: House) -> None:
    """Own attack 9: the code finds the worker that watches it and makes it report a clean call. A wrong answer that
    leaves its inputs alone earns nothing for that, so there is nothing to win."""
    body = """
    import gc
    for thing in getattr(gc, "get_" + "objects")():
        if type(thing).__name__ == "Server":
            answer = type(thing).answer
            type(thing).answer = lambda self, request: {**answer(self, request), "changed": False, "drew": False}
    x.mul_(0)
    return x, x"""
    grade = only(house.grader, "two_views", two_views(body, house))
    assert grade.points == 0
    unharmed(house, grade)


def test_the_plain_way_to_look_around_is_refused_unrun(house: House) -> None:
    source = "import sys\ndef two_views(x, t):\n    return sys._getframe(1).f_locals['value'], x\n"
    grade = only(house.grader, "two_views", source)
    assert grade.points == 0
    assert "looks at nothing else" in grade.rows[0].message
    unharmed(house, grade)


@pytest.fixture(scope="module")
def warmup(house: House) -> Grader:
    lab: Lab = read_lab(COURSE / "labs" / "00_warmup" / "00_warmup.ipynb")
    return Grader(lab, house.grader.zygote, SECRET, solution_sources("00_warmup"))


@pytest.mark.parametrize("name", CLASSES)
def test_modules_that_lie(house: House, warmup: Grader, name: str) -> None:
    house.grader.zygote.limits = HURRY
    source = (
        "import torch\nclass LinearProbe(torch.nn.Module):\n    def __init__(self, dim, classes):\n"
        "        super().__init__()\n    def forward(self, x): return x\n"
        f"    def training_step(self, x, y, lr): return torch.zeros(())\n    {CLASSES[name]}\n"
    )
    grade = only(warmup, "LinearProbe", source)
    assert grade.points == 0, grade.rows
    unharmed(house, grade)
