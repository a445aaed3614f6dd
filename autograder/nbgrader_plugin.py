"""Our parts of nbgrader's pipelines; `install(c)` in `nbgrader_config.py` puts them in place.

`nbgrader autograde` stays the real command with the real gradebook. Two things change: every hand-in goes through the
intake first (a clean copy in `.accepted/`; what the student handed in is not touched), and instead of running the
notebook in the grading process, `SandboxGrade` asks the grader and writes what each check cell earned into its output.
"""

import json
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbgrader.converters import Autograde
from nbgrader.converters.base import NbGraderException
from nbgrader.preprocessors import ClearSolutions, NbGraderPreprocessor
from nbgrader.utils import parse_utc
from traitlets import Integer, Unicode

from autograder.grade import UNTRIED, Grade, Row
from autograder.gradebook import enter, one_book
from autograder.intake import Submission, read_bytes, read_cells, take
from autograder.mend import mend, refused
from autograder.notebook import Cell, Lab, clean, lab_from_cells, parse, read_lab
from sslcourse.errors import InputError, unknown

if TYPE_CHECKING:
    from autograder.ahead import Ahead

ACCEPTED = ".accepted"
_graders: dict[str, "Ahead"] = {}


class ClearAnswers(ClearSolutions):
    """nbgrader's ClearSolutions, but a prediction keeps its template instead of `raise NotImplementedError`."""

    def preprocess_cell(self, cell: Any, resources: dict[str, Any], cell_index: int) -> tuple[Any, dict[str, Any]]:
        """Remove the solution from one cell."""
        name = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        if cell.metadata.get("sslcourse", {}).get("role") != "predict" and not name.startswith("prediction"):
            return super().preprocess_cell(cell, resources, cell_index)
        kept, inside = [], False
        for line in cell.source.split("\n"):
            inside = inside or self.begin_solution_delimeter in line
            if not inside:
                kept.append(line)
            inside = inside and self.end_solution_delimeter not in line
        cell.source = "\n".join(kept)
        return cell, resources


class FairAutograde(Autograde):
    """nbgrader's Autograde on clean copies of the hand-ins."""

    def start(self) -> None:
        """Take in every hand-in of the assignment, then autograde the copies. What cannot be right stops it at once."""
        root, name = Path(self.coursedir.root), self.coursedir.assignment_id
        release = root / self.coursedir.release_directory / name / f"{name}.ipynb"
        try:
            if not release.is_file():
                raise InputError(f"{release} is missing: run `make labs` first.")
            grader = SandboxGrade(parent=self).open(read_lab(release))
            taken = self._take_in(root, release)
            grader.preflight()
            with one_book(self.coursedir.db_url, self.coursedir.course_id) as self.book:
                enter(self.book, release)
                grader.expect(taken)
                self._autograde_copies()
        except InputError as error:
            self.log.error("%s", error)
            raise NbGraderException(str(error)) from None

    def _take_in(self, root: Path, release: Path) -> list[Submission]:
        """Make the clean copies; what will be graded, in nbgrader's order."""
        shutil.rmtree(root / ACCEPTED, ignore_errors=True)
        taken, lab = [], read_lab(release)
        folders = (root / self.coursedir.submitted_directory).glob(f"{self.coursedir.student_id}/{release.stem}")
        for folder in sorted(folders, key=str):
            student = folder.parent.name
            copy = accept(folder, root / ACCEPTED / student / release.stem, release)
            done = root / self.coursedir.autograded_directory / student / release.stem
            if not _is_graded(done / release.name):
                shutil.rmtree(done, ignore_errors=True)  # an interrupted run left it, and nbgrader would skip it
            if self.force or not done.exists():
                taken.append(submission(student, lab, parse(copy), copy["metadata"]))
        return taken

    def _autograde_copies(self) -> None:
        before, self.coursedir.submitted_directory = self.coursedir.submitted_directory, ACCEPTED
        try:
            super().start()
        finally:
            self.coursedir.submitted_directory = before

    def init_assignment(self, assignment_id: str, student_id: str) -> None:
        """One student's turn; what a failed one before left half written in the gradebook goes."""
        self.book.forget()
        super().init_assignment(assignment_id, student_id)

    def write_single_notebook(self, output: str, resources: Any) -> None:
        """The gradebook first: a notebook that shows points means that they are in it."""
        self.book.save()
        super().write_single_notebook(output, resources)


def _is_graded(notebook: Path) -> bool:
    """Whether every check cell of an autograded notebook holds its points: nbgrader writes the file twice."""
    try:
        cells = parse(json.loads(notebook.read_text(encoding="utf-8")))
    except (OSError, ValueError, InputError):
        return False
    return all(cell.outputs for cell in cells if cell.role == "check")


def accept(folder: Path, target: Path, release: Path) -> dict[str, Any]:
    """Write the clean copy of one student's folder; the notebook in it."""
    released, lab = json.loads(release.read_text(encoding="utf-8")), read_lab(release)
    target.mkdir(parents=True, exist_ok=True)
    try:
        path = _the_notebook(folder, release.name)
        cells = read_cells(path)
        submission = take(cells, lab, folder.parent.name, path.name)
        if path.name != release.name:
            submission.notes.append(f"the file was called {clean(path.name, 200)}; expected {release.name}.")
        copy = mend(released, submission, cells)
    except InputError as error:
        copy = refused(released, clean(str(error), 1000))
    except Exception as error:
        copy = refused(released, f"the grader could not handle this file ({type(error).__name__}).")
    (target / release.name).write_text(json.dumps(copy), encoding="utf-8")
    if stamp := _timestamp(folder / "timestamp.txt"):
        (target / "timestamp.txt").write_text(stamp, encoding="utf-8")
    return copy


def submission(student: str, lab: Lab, cells: list[Cell], metadata: dict[str, Any]) -> Submission:
    """What the grader reads of a clean copy."""
    intake = metadata.get("sslcourse_intake", {})
    known = {c.grade_id: c.source for c in cells if c.grade_id}
    sources = {e.name: known[e.name] for e in lab.exercises if e.name in known}
    written = {k: known[k] for k in lab.by_hand if k in known}
    notes, hints = list(intake.get("notes", [])), dict(intake.get("hints", {}))
    return Submission(student, sources, written, notes, hints, intake.get("refused", ""))


def _timestamp(file: Path) -> str:
    """When it was handed in; "" for a file that nbgrader could not read, which would end its whole run."""
    try:
        stamp = read_bytes(file)[:100].decode().strip()
        parse_utc(stamp)
        return stamp
    except (InputError, ValueError, OverflowError, TypeError):
        return ""


def _the_notebook(folder: Path, expected: str) -> Path:
    found = sorted(folder.glob("*.ipynb"))
    if not found:
        raise InputError(f"there is no notebook in the hand-in; expected {expected}.")
    right = [p for p in found if p.name == expected]
    if not right and len(found) > 1:
        raise InputError(f"none of the {len(found)} notebooks in the hand-in is called {expected}.")
    return (right or found)[0]


class SandboxGrade(NbGraderPreprocessor):
    """Takes the place of nbgrader's Execute: the black box grades, and check cells show what they earned."""

    mode = Unicode("graded", help="graded: a course secret is required; practice: it is not").tag(config=True)
    at_least = Unicode("landlock", help="refuse to grade below this sandbox level").tag(config=True)
    jobs = Integer(1, help="grading processes beside nbgrader's own").tag(config=True)

    def preprocess(self, nb: Any, resources: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Grade one notebook."""
        student, name = resources["nbgrader"]["student"], resources["nbgrader"]["notebook"]
        cells = parse(json.loads(json.dumps(nb)))
        grader = self.open(lab_from_cells(name, cells))
        grade = grader.grade(submission(student, grader.job.lab, cells, nb.metadata))
        for remark in grade.remarks:
            self.log.warning("%s: %s", student, remark)
        for cell in nb.cells:
            if cell.cell_type == "code" and cell.metadata.get("sslcourse", {}).get("role") == "check":
                cell.outputs = _outputs(grade, cell.metadata["sslcourse"]["of"])
        return nb, resources

    def open(self, lab: Lab) -> "Ahead":
        """The grader of a lab, started once a process. The course's lab counts, not the notebook at hand.

        Raises:
            InputError: no secret, no such lab.
        """
        from autograder import ahead, batch
        from autograder.secret import course_secret
        from autograder.submissions import released_labs

        if lab.name not in _graders:
            if lab.name not in released_labs():
                raise unknown("lab", lab.name, released_labs())
            job = batch.Job(released_labs()[lab.name], course_secret(self.mode), at_least=self.at_least, many=True)
            _graders[lab.name] = ahead.Ahead(job, self.jobs)
        return _graders[lab.name]


def _outputs(grade: Grade, exercise: str) -> list[Any]:
    """What a check cell shows: the feedback as text, and the points as the value that nbgrader reads."""
    from nbformat.v4 import new_output

    rows = grade.of(exercise)
    points = sum(min(max(r.points, 0.0), r.out_of) for r in rows)
    text = "\n".join(_line(r) for r in rows)
    if grade.refused or all(r.status == UNTRIED for r in rows):  # one reason for all of it
        text = f"  0/{sum(r.out_of for r in rows):g}\n{_wrapped(rows[0].message)}"
    hints = "".join(f"\n{_wrapped('-> ' + hint)}" for hint in dict.fromkeys(r.hint for r in rows if r.hint))
    notes = "".join(f"\n{_wrapped('note: ' + note)}" for note in grade.notes)
    level = grade.hints_used.get(exercise, 0)
    notes += f"\nhints opened: up to level {level} of 3; they cost nothing" if level else ""
    return [
        new_output("display_data", data={"text/plain": f"{text}{hints}{notes}"}),
        new_output("execute_result", data={"text/plain": repr(float(points))}, execution_count=1),
    ]


def _line(row: Row) -> str:
    mark = f"{row.points:g}/{row.out_of:g}"
    return f"{mark:>5}  {row.title}" + (f"\n{_wrapped(row.message)}" if row.message else "")


def _wrapped(text: str) -> str:
    """Lines that a feedback page shows without scrolling sideways, under their property."""
    return textwrap.fill(text, 100, initial_indent=" " * 7, subsequent_indent=" " * 7)


def install(c: Any) -> None:
    """Configure nbgrader for black-box grading; called by `nbgrader_config.py`."""
    import nbgrader.apps.api
    import nbgrader.apps.autogradeapp

    nbgrader.apps.autogradeapp.Autograde = FairAutograde
    nbgrader.apps.api.Autograde = FairAutograde
    c.Autograde.sanitize_preprocessors = [
        "nbgrader.preprocessors.DeduplicateIds",
        "nbgrader.preprocessors.OverwriteKernelspec",
        "nbgrader.preprocessors.OverwriteCells",
        "nbgrader.preprocessors.CheckCellMetadata",
    ]
    c.Autograde.autograde_preprocessors = [
        "autograder.nbgrader_plugin.SandboxGrade",
        "nbconvert.preprocessors.ClearMetadataPreprocessor",
        "nbgrader.preprocessors.LimitOutput",
        "nbgrader.preprocessors.SaveAutoGrades",
        "nbgrader.preprocessors.AssignLatePenalties",
        "nbgrader.preprocessors.CheckCellMetadata",
    ]
    c.OverwriteCells.add_missing_cells = True
    c.Exporter.optimistic_validation = True  # the notebook is ours; nbconvert checks it after the last step only
