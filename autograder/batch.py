"""Grades many hand-ins: several at a time, one result file each, so an interrupted run goes on where it stopped."""

import contextlib
import hashlib
import importlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autograder import confine
from autograder.answers import solution_sources
from autograder.grade import Grade
from autograder.intake import Submission, take
from autograder.notebook import Lab, clean
from autograder.sandbox import Limits, Zygote
from autograder.submissions import HandIn, cells_of
from sslcourse.errors import InputError

if TYPE_CHECKING:
    from autograder.grader import Grader

MANY = 10


@dataclass(frozen=True)
class Job:
    """What a grading process needs to know."""

    lab: Lab
    secret: str
    level: str = "best"
    at_least: str = "limits"
    limits: Limits = field(default_factory=Limits)
    many: bool = False  # more than `MANY` hand-ins: a slower start with faster forks pays


def open_grader(job: Job) -> "Grader":
    """A grader with its own sandbox; the caller closes `grader.zygote`. Both import torch, at the same time."""
    confine.undumpable()
    threading.Thread(target=importlib.import_module, args=("torch",)).start()
    lab = job.lab
    zygote = Zygote(job.level, job.limits, at_least=job.at_least, trains=lab.trains, many=job.many, device=lab.device)
    try:
        from autograder.grader import Grader

        return Grader(lab, zygote, job.secret, solution_sources(lab.name))
    except BaseException:
        zygote.close()
        raise


def grade_file(grader: "Grader", hand_in: HandIn) -> Grade:
    """The grade of one file. Nothing that a file holds raises: what cannot be graded is a recorded zero."""
    try:
        if not os.path.lexists(hand_in.path):
            raise InputError("there is no notebook in the hand-in: hand in the .ipynb file.")
        submission = take(cells_of(hand_in.path), grader.lab, hand_in.student, clean(hand_in.path.name, 200))
    except InputError as error:
        return grader.refuse(hand_in.student, clean(str(error), 1000))
    except Exception as error:
        return _our_bug(grader, hand_in.student, error)
    return grade_submission(grader, submission)


def grade_submission(grader: "Grader", submission: Submission) -> Grade:
    """The grade of what was taken from one hand-in; it never raises."""
    if submission.refused:
        return grader.refuse(submission.student, submission.refused)
    try:
        return grader.grade(submission)
    except Exception as error:
        return _our_bug(grader, submission.student, error)


def _our_bug(grader: "Grader", student: str, error: Exception) -> Grade:
    grade = grader.refuse(student, "the grader could not handle this file; your instructor has been told.")
    grade.remarks.append(clean(f"bug in the grader: {type(error).__name__}: {error}", 500))
    return grade


_grader: "Grader | InputError | None" = None
_MAX_CRASHES = 3


def _start(job: Job) -> None:
    global _grader
    confine.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    try:
        _grader = open_grader(job)
        Finalize(None, _end, (_grader,), exitpriority=0)
    except InputError as error:  # raised here it would be lost, and the pool broken
        _grader = error


def _end(grader: "Grader") -> None:
    grader.zygote.close()
    os._exit(0)  # torch would tidy up for half a second, and whoever waits for this process with it


def _ours() -> "Grader":
    if isinstance(_grader, InputError):
        raise _grader
    assert _grader is not None
    return _grader


def _preflight() -> None:
    _ours().preflight()


def _work(hand_in: HandIn) -> Grade:
    return grade_file(_ours(), hand_in)


def grade_here(submission: Submission) -> Grade:
    """In a process of `processes`: the grade of what was taken from one hand-in."""
    return grade_submission(_ours(), submission)


@contextlib.contextmanager
def opened(job: Job) -> Iterator["Grader"]:
    """`open_grader` as a context manager."""
    grader = open_grader(job)
    try:
        yield grader
    finally:
        grader.zygote.close()


def grade_all(job: Job, hand_ins: list[HandIn], jobs: int = 1) -> Iterator[Grade]:
    """Grades in the order in which they are ready; the solution is graded first, as a test of the checks."""
    if jobs <= 1 or len(hand_ins) < 2 * jobs:
        with opened(job) as grader:
            grader.preflight()
            yield from (grade_file(grader, h) for h in hand_ins)
        return
    left = {h.student: h for h in hand_ins}
    for _ in range(_MAX_CRASHES):
        with contextlib.suppress(BrokenProcessPool):  # a grading process died, say for want of memory: start again
            for grade in _in_processes(job, list(left.values()), jobs):
                del left[grade.student]
                yield grade
        if not left:
            return
    with opened(job) as grader:
        yield from (grade_file(grader, h) for h in left.values())


def processes(job: Job, jobs: int) -> tuple[ProcessPoolExecutor, list[Future[None]]]:
    """Grading processes, and for each whether its checks accept the solution; one that does has to be awaited."""
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _start, (job,))
    return pool, [pool.submit(_preflight) for _ in range(jobs)]


def _in_processes(job: Job, hand_ins: list[HandIn], jobs: int) -> Iterator[Grade]:
    pool, accepts = processes(job, jobs)
    try:
        next(as_completed(accepts)).result()
        for done in as_completed([pool.submit(_work, h) for h in hand_ins]):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)


# ---------------------------------------------------------------------------------------------------- resuming


def fingerprint(job: Job, hand_in: HandIn, checks: str) -> str:
    """What a grade depends on: the file, the student, the checks and the secret."""
    digest = hashlib.sha256()
    for part in (job.secret, job.lab.name, hand_in.student, checks):
        digest.update(part.encode() + b"\0")
    try:
        if hand_in.path.is_file() and not hand_in.path.is_symlink():
            digest.update(hand_in.path.read_bytes())
    except OSError:
        digest.update(b"unreadable")
    return digest.hexdigest()


def stored(folder: Path, student: str, print_: str) -> Grade | None:
    """The grade of an earlier run, if nothing that it depends on has changed."""
    try:
        data = json.loads(_file(folder, student).read_text(encoding="utf-8"))
        return Grade.from_dict(data["grade"]) if data["fingerprint"] == print_ else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def store(folder: Path, grade: Grade, print_: str) -> None:
    """Write one grade so that it is there whole or not at all."""
    path = _file(folder, grade.student)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({"fingerprint": print_, "grade": grade.as_dict()}, indent=1), encoding="utf-8")
    part.replace(path)


def _file(folder: Path, student: str) -> Path:
    return folder / "grades" / f"{safe_name(student)}.json"


def safe_name(student: str) -> str:
    """A file name for a student; different students never get the same."""
    plain = "".join(ch if ch.isalnum() or ch in "-_" else "_" for ch in student)[:60]
    return plain if plain == student else f"{plain}-{hashlib.sha256(student.encode()).hexdigest()[:8]}"


def run(job: Job, hand_ins: list[HandIn], folder: Path | None, jobs: int, done: Callable[[Grade], Any]) -> list[Grade]:
    """Grade what is not graded yet; `done` is called for each grade, old ones first. Sorted by student."""
    checks = _checks_text(job)
    prints = {h.student: fingerprint(job, h, checks) for h in hand_ins}
    old = {h.student: stored(folder, h.student, prints[h.student]) if folder else None for h in hand_ins}
    grades = [g for g in old.values() if g is not None]
    for grade in grades:
        done(grade)
    todo = [h for h in hand_ins if old[h.student] is None]
    fresh: Iterable[Grade] = grade_all(job, todo, jobs) if todo else []
    for grade in fresh:
        if folder:
            store(folder, grade, prints[grade.student])
        grades.append(grade)
        done(grade)
    return sorted(grades, key=lambda g: g.student)


def _checks_text(job: Job) -> str:
    file = Path(__file__).with_name("checks") / f"lab{job.lab.name[:2]}.py"
    return file.read_text(encoding="utf-8") if file.is_file() else ""
