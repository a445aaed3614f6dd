"""`sslcourse check LAB.ipynb`: what would stop or lower a grade, told before the hand-in, on the student's machine.

The public checks of the notebook run in the same sandboxed worker that grades, so what passes here runs there. The
hidden checks are not part of what students hold; passing here is not yet full marks.
"""

from dataclasses import dataclass, field
from pathlib import Path

from autograder.compare import sentence
from autograder.intake import Submission, read_cells, take
from autograder.notebook import Exercise, Lab, is_stub, lab_from_cells
from autograder.policy import literal, objections, preamble_imports
from autograder.sandbox import Zygote
from autograder.student import Setup, Worker
from sslcourse.errors import InputError

READY, EMPTY, BROKEN = "passes", "not written yet", "needs work"
# How released cells end, as nbgrader_config.py says.
STUBS = ('raise NotImplementedError("not written yet: put your code in place of this line")', "*Your answer here.*")


@dataclass
class Finding:
    """What a hand-in of one exercise would meet."""

    exercise: str
    points: float
    state: str
    message: str = ""


@dataclass
class Practice:
    """The result of `check_notebook`."""

    lab: str
    findings: list[Finding] = field(default_factory=list)
    by_hand: dict[str, float] = field(default_factory=dict)  # cell that a person reads -> points
    empty: list[str] = field(default_factory=list)  # those of them that are as they were released
    notes: list[str] = field(default_factory=list)
    sandbox: str = ""
    missing: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every exercise is written and passes its public checks."""
        return all(f.state == READY for f in self.findings)

    def __str__(self) -> str:
        lines = [f"{self.lab}: what the grader will be able to run"]
        for f in self.findings:
            lines.append(f"  {f.exercise:26} {f.points:4g} points  {f.state}")
            lines += [f"      {f.message}"] if f.message else []
        if self.by_hand:
            lines.append(f"  {', '.join(self.by_hand)}: {sum(self.by_hand.values()):g} points, read by a person")
        if self.empty:
            lines.append(f"      still empty: {', '.join(self.empty)}")
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(f"  ran in: {self.sandbox}")
        lines += [f"  not closed on this machine: {what}" for what in self.missing]
        if self.ok:
            lines.append("Every public check passes. Grading looks at more properties: read each text once more.")
        else:
            lines.append(
                "Not everything is ready. What is missing costs its own points only; you can hand in any time."
            )
        return "\n".join(lines)


def check_notebook(path: str | Path) -> Practice:
    """Run the public checks of a lab notebook, each exercise alone, as the grader will.

    Raises:
        InputError: the file cannot be read, or is no lab of this course.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    cells = read_cells(path)
    lab = lab_from_cells(path.stem, cells)
    if not lab.exercises:
        raise InputError(f"{path.name} is no lab of this course: none of its cells is marked as an exercise.")
    submission = take(cells, lab, "you", path.name)
    by_hand = {name: points for name, (points, _) in lab.by_hand.items()}
    empty = [name for name in by_hand if _is_blank(submission.written.get(name, ""))]
    with Zygote(trains=lab.trains, device=lab.device) as zygote:
        result = Practice(lab.name, [], by_hand, empty, submission.notes, str(zygote.protection))
        result.missing = zygote.protection.missing
        for exercise in lab.exercises:
            result.findings.append(_check(exercise, lab, submission, zygote))
    return result


def _is_blank(text: str) -> bool:
    """Whether a cell that a person grades still ends as it was released: nothing stands in place of the stub."""
    return not text.strip() or text.rstrip().endswith(STUBS)


def _check(exercise: Exercise, lab: Lab, submission: Submission, zygote: Zygote) -> Finding:
    source = submission.sources.get(exercise.name, "")
    finding = Finding(exercise.name, exercise.points, BROKEN)
    if exercise.role == "predict":
        answer = literal(source, "prediction")
        complete = isinstance(answer, dict) and all(v is not None and v != "" for v in answer.values())
        finding.state = READY if complete else EMPTY
        return finding
    if is_stub(source, ""):
        finding.state = EMPTY
        return finding
    problems = objections(source, exercise.banned)
    if problems:
        finding.message = " ".join(problems[:3])
        return finding
    cells = [("preamble", preamble_imports(lab.preamble)), (exercise.name, source)]
    worker = Worker(zygote, Setup(cells, lab.offers(exercise)))
    try:
        for name, check in exercise.checks:
            outcome = worker.run_cell(name, check)
            if outcome.error:
                finding.message = _message(outcome.error)
                return finding
    finally:
        worker.close()
    finding.state = READY
    return finding


def _message(error: dict[str, object]) -> str:
    if error.get("type") == "AssertionError":
        return str(error.get("message", "")).split("\n")[0] or "a public check does not pass."
    return sentence(error)


def print_check(path: str | Path) -> bool:
    """Print `check_notebook`; True when everything passes."""
    result = check_notebook(path)
    print(result)
    return result.ok
