"""Grades one notebook: forks a worker an exercise, runs the hidden checks against it, keeps a row a property.

Rows exist from the start with zero points and are filled in as properties are earned, so whatever breaks fails closed.
"""

import inspect
import time
from collections.abc import Callable
from typing import Any

from autograder.answers import trusted_functions
from autograder.compare import Lost, diagnose
from autograder.grade import EARNED, LOST, SKIPPED, UNTRIED, Grade, Row
from autograder.intake import Submission
from autograder.notebook import Exercise, Lab, is_stub
from autograder.policy import code_print, literal, normalised, objections, preamble_imports, similarity
from autograder.rubric import Check, Draw, Right, Wrong, answers_of, collect, import_answers, import_checks, place
from autograder.sandbox import Zygote
from autograder.student import Setup, Student, Worker
from sslcourse.errors import InputError

_MAX_DEATHS = 2
_ALIKE, _LONG = 0.95, 200  # similarity of code shorter than this says nothing


class Grader:
    """The checks of one lab, ready to run. Makes sure first that they accept the course's own solution."""

    def __init__(self, lab: Lab, zygote: Zygote, secret: str, solution: dict[str, str] | None = None) -> None:
        self.lab, self.zygote, self.secret = lab, zygote, secret
        module = import_checks(lab.name)
        if module is None:
            raise InputError(f"lab {lab.name} has no checks: write autograder/checks/lab{lab.name[:2]}.py.")
        self.checks = collect(module)
        self.solution = solution or {}
        self._own: dict[str, Callable[..., Any]] = {}  # the solution's functions, where the library has none
        self.wrong = self._known_wrong()
        shown = [(r.exercise, r.source) for r in answers_of(import_answers(lab.name), Right)]
        self.shown = {(name, code_print(source)) for name, source in [*shown, *self.solution.items()]}
        self.fingerprint = inspect.getsource(module)
        self._match_points()

    def _match_points(self) -> None:
        for exercise in self.lab.exercises:
            total = sum(c.points for c in self.checks if c.exercise == exercise.name)
            if total != exercise.points:
                raise InputError(
                    f"the checks of {exercise.name} are worth {total:g} points, its cell says {exercise.points:g}."
                )
        names = {e.name for e in self.lab.exercises}
        for check in self.checks:
            if check.exercise not in names:
                raise InputError(
                    f"check {check.name} is for '{check.exercise}', which lab {self.lab.name} does not have."
                )

    def _known_wrong(self) -> dict[str, dict[str, tuple[str, Callable[..., Any]]]]:
        """exercise -> name of the mistake -> (hint, the wrong function)."""
        found: dict[str, dict[str, tuple[str, Callable[..., Any]]]] = {}
        for wrong in answers_of(import_answers(self.lab.name), Wrong):
            if wrong.exercise in self.solution:
                source = wrong.source(self.solution[wrong.exercise])
                try:
                    names = trusted_functions(self.lab, wrong.exercise, source)
                except Exception as error:
                    what = f"the known-wrong answer {wrong.exercise}/{wrong.name} does not run"
                    raise InputError(f"{what}: {error}. Nothing was graded.") from error
                found.setdefault(wrong.exercise, {})[wrong.name] = (wrong.hint, names[wrong.exercise])
        return found

    def preflight(self) -> None:
        """Grade the course's own solution; anything but full marks is a mistake of ours, named with its place."""
        grade = self.grade(Submission("preflight", self.solution, {}), strict=True)
        for row in grade.rows:
            if row.status != EARNED:
                raise InputError(
                    f"the check {row.check} in checks/lab{self.lab.name[:2]}.py does not accept the solution of "
                    f"{row.exercise}: {row.message} Nothing was graded."
                )

    def grade(self, submission: Submission, *, strict: bool = False) -> Grade:
        """All rows of one submission. `strict`: an exception inside a check is the check's own bug."""
        start = time.monotonic()
        grade = Grade(submission.student, self.lab.name, notes=list(submission.notes), hints_used=submission.hints)
        grade.sandbox = self.zygote.protection.recorded
        grade.rows = self.blank_rows()
        for exercise in self.lab.exercises:
            self.exercise(exercise, submission, grade, strict=strict)
        for grade_id, (points, released) in self.lab.by_hand.items():
            text = submission.written.get(grade_id, "")
            grade.by_hand[grade_id] = {"out_of": points, "attempted": bool(text) and not is_stub(text, released)}
        grade.seconds = round(time.monotonic() - start, 3)
        return grade

    def blank_rows(self, message: str = "") -> list[Row]:
        """A row of zero points for every property."""
        return [Row(c.exercise, c.name, c.title, c.points, message=message) for c in self.checks]

    def refuse(self, student: str, reason: str) -> Grade:
        """A recorded zero with its reason."""
        grade = Grade(student, self.lab.name, refused=reason, sandbox=self.zygote.protection.recorded)
        grade.rows = self.blank_rows(reason)
        grade.by_hand = {k: {"out_of": p, "attempted": False} for k, (p, _) in self.lab.by_hand.items()}
        return grade

    def exercise(self, exercise: Exercise, submission: Submission, grade: Grade, *, strict: bool = False) -> None:
        """Fill in the rows of one exercise."""
        rows, source = grade.of(exercise.name), submission.sources.get(exercise.name)
        reason, status = _not_gradable(exercise, source)
        if reason or source is None:
            for row in rows:
                row.status, row.message = status, reason
            return
        print_ = code_print(source)
        if print_ and (exercise.name, print_) not in self.shown:
            grade.prints[exercise.name] = print_
        setup = Setup(
            cells=[("preamble", preamble_imports(self.lab.preamble)), (exercise.name, source)],
            offers=self.lab.offers(exercise),
        )
        worker = Worker(self.zygote, setup)
        reference = self.reference(exercise)
        student = Student(worker, exercise.name, reference)
        try:
            for row, check in zip(rows, [c for c in self.checks if c.exercise == exercise.name], strict=True):
                student.check = check.name
                self._run(check, row, student, source, submission.student, strict)
            _nothing_for_nothing(student, rows)
            if worker.output.strip():
                grade.output[exercise.name] = worker.output
        finally:
            worker.close()
        self._explain(exercise, student, rows)
        if strict or not exercise.library:
            return
        alike = similarity(source, inspect.getsource(reference))
        if alike >= _ALIKE and len(normalised(source)) >= _LONG:
            grade.remarks.append(f"{exercise.name}: {alike:.0%} the same code as the library's own.")

    def reference(self, exercise: Exercise) -> Callable[..., Any]:
        """The library's function; the solution's own where the library has none (warm-up exercises, predictions)."""
        if exercise.library:
            return self.lab.reference(exercise.name)
        if exercise.role != "exercise":
            return _nothing
        if exercise.name not in self._own:
            names = trusted_functions(self.lab, exercise.name, self.solution[exercise.name])
            self._own[exercise.name] = names[exercise.name]
        return self._own[exercise.name]

    def _run(self, check: Check, row: Row, student: Student, source: str, name: str, strict: bool) -> None:
        if student.worker.deaths >= _MAX_DEATHS:
            row.status, row.message = SKIPPED, "not run: your code had already been stopped twice."
            return
        given = {
            "student": student,
            "draw": Draw(self.secret, self.lab.name, name, check.name, source),
            "answer": literal(source, "prediction") if "answer" in check.needs else None,
        }
        try:
            check.run(**{k: given[k] for k in check.needs})
            row.status, row.points = EARNED, row.out_of
        except Lost as lost:
            row.message = str(lost)
        except AssertionError as failed:
            row.message = str(failed).split("\n")[0] or "this property does not hold."
            _mark_failed(student, check)
        except Exception as error:
            if strict:
                raise InputError(f"{place(error)}: {type(error).__name__}: {error}. Nothing was graded.") from error
            row.message = "what your function returned could not be used: look at its type and shape."
            _mark_failed(student, check)

    def _explain(self, exercise: Exercise, student: Student, rows: list[Row]) -> None:
        known = self.wrong.get(exercise.name, {})
        found = diagnose(student.records, {name: function for name, (_, function) in known.items()})
        for row in rows:
            if row.check in found and row.status == LOST:
                row.diagnosis = found[row.check]
                row.hint = known[row.diagnosis][0]


def _not_gradable(exercise: Exercise, source: str | None) -> tuple[str, str]:
    if source is None:
        return "the cell of this exercise is missing: take it from a fresh copy of the lab.", LOST
    if is_stub(source, exercise.stub):
        if exercise.role == "predict":
            return "no prediction yet: write it down before you run the experiment.", UNTRIED
        return f'not written yet. A first step: hint("{exercise.name}", 1).', UNTRIED
    problems = objections(source, exercise.banned)
    return (" ".join(problems[:3]), LOST) if problems else ("", "")


def _nothing() -> None:
    """The reference of an exercise that is not a function."""


def _nothing_for_nothing(student: Student, rows: list[Row]) -> None:
    """What every function has, a useless one too (it leaves its inputs alone), counts only beside another property."""
    cheap = {r.check for r in student.records} - {r.check for r in student.records if not r.side_effects}
    if any(row.status == EARNED and row.check not in cheap for row in rows):
        return
    for row in rows:
        if row.status == EARNED and row.check in cheap:
            row.status, row.points = LOST, 0.0
            row.message = "this holds, and counts as soon as another property of the exercise does."


def _mark_failed(student: Student, check: Check) -> None:
    for record in reversed(student.records):
        if record.check == check.name:
            record.failed = True
            return
