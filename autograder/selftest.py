"""The grader's test of itself: right answers get full marks, empty ones none, each known mistake falls and is named."""

import ast
from dataclasses import dataclass, field

from autograder.grade import EARNED, Grade
from autograder.grader import Grader
from autograder.intake import Submission
from autograder.mutate import mutations as mutants_of
from autograder.rubric import Right, Wrong, answers_of, import_answers


@dataclass
class Report:
    """What the self-test of one lab found."""

    lab: str
    named: int = 0
    wrong: int = 0
    accepted: int = 0
    right: int = 0
    killed: int = 0
    mutated: int = 0
    problems: list[str] = field(default_factory=list)
    survivors: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.lab}: wrong answers rejected and named: {self.named}/{self.wrong}, "
            f"right answers accepted: {self.accepted}/{self.right}"
        ]
        if self.mutated:
            lines[0] += f", automatic mutations killed: {self.killed} of {self.mutated}"
            lines += [f"  survivor: {text}" for text in self.survivors]
        return "\n".join(lines)


def only(grader: Grader, exercise: str, source: str, student: str = "selftest") -> Grade:
    """Grade one answer to one exercise; everything else of the lab is left out."""
    grade = Grade(student, grader.lab.name)
    grade.rows = [row for row in grader.blank_rows() if row.exercise == exercise]
    grader.exercise(grader.lab.exercise(exercise), Submission(student, {exercise: source}, {}), grade)
    return grade


def selftest(grader: Grader, *, mutations: int = 0) -> Report:
    """Run the solution, the empty lab, every known wrong and right answer, and automatic mutations of each function."""
    report = Report(grader.lab.name)
    grader.preflight()
    _empty(grader, report)
    answers = import_answers(grader.lab.name)
    for right in answers_of(answers, Right):
        report.right += 1
        lost = [r for r in only(grader, right.exercise, right.source).rows if r.status != EARNED]
        report.accepted += not lost
        report.problems += [f"right answer {right.exercise}/{right.name} lost '{r.title}': {r.message}" for r in lost]
    for wrong in answers_of(answers, Wrong):
        report.wrong += 1
        source = wrong.source(grader.solution[wrong.exercise])
        rows = only(grader, wrong.exercise, source).rows
        lost = [r for r in rows if r.status != EARNED]
        named = {r.diagnosis for r in lost if r.diagnosis}
        if not lost:
            report.problems.append(f"wrong answer {wrong.exercise}/{wrong.name} earned full marks")
        elif wrong.name not in named:
            messages = "; ".join(f"{r.title}: {r.message}" for r in lost)
            report.problems.append(
                f"wrong answer {wrong.exercise}/{wrong.name} was named {named or 'nothing'}: {messages}"
            )
        else:
            report.named += 1
    if mutations:
        _mutations(grader, report, mutations)
    return report


def _empty(grader: Grader, report: Report) -> None:
    stubs = {e.name: e.stub for e in grader.lab.exercises}
    grade = grader.grade(Submission("selftest", stubs, {}))
    if grade.points != 0:
        report.problems.append(f"the empty lab earned {grade.points:g} points")


def _mutations(grader: Grader, report: Report, limit: int) -> None:
    equivalent = getattr(import_answers(grader.lab.name), "EQUIVALENT", {})
    for exercise in grader.lab.exercises:
        if exercise.role != "exercise":
            continue
        original = grader.solution[exercise.name]
        for source in mutants_of(original, limit):
            report.mutated += 1
            rows = only(grader, exercise.name, source).rows
            if any(r.status != EARNED for r in rows):
                report.killed += 1
                continue
            survivor = f"{exercise.name}: {_changed_line(original, source)}"
            if survivor in equivalent:
                report.survivors.append(f"{survivor}  (changes nothing: {equivalent[survivor]})")
            else:
                report.survivors.append(survivor)
                report.problems.append(f"automatic mutation earned full marks: {survivor}")


def _changed_line(original: str, source: str) -> str:
    before = set(ast.unparse(ast.parse(original)).splitlines())
    return " | ".join(line.strip() for line in source.splitlines() if line not in before)
