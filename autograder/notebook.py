"""A notebook as the grader sees it: plain cells with a role, and what a lab asks for.

Nothing here runs code. `Lab` is read from the released notebook (trusted); `sslcourse check` reads it from the
student's own copy, because students do not hold anything else.
"""

import ast
import functools
import importlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslcourse.errors import InputError

ROLES = ("preamble", "exercise", "check", "experiment", "predict", "open")
_MAGIC = re.compile(r"^(\s*)([%!?].*|.*\?{1,2}\s*)$")


@dataclass
class Cell:
    """One cell; `grade_id` is nbgrader's name for it, "" where it has none."""

    kind: str  # "code", "markdown" or "raw"
    source: str
    metadata: dict[str, Any] = field(default_factory=dict)
    cell_id: str = ""
    outputs: list[Any] = field(default_factory=list)

    @property
    def nbgrader(self) -> dict[str, Any]:
        """nbgrader's metadata of the cell, {} where it has none or they are broken."""
        found = self.metadata.get("nbgrader")
        return found if isinstance(found, dict) else {}

    @property
    def grade_id(self) -> str:
        return str(self.nbgrader.get("grade_id", ""))

    @property
    def course(self) -> dict[str, Any]:
        """The course's metadata: role, uses, banned, library."""
        found = self.metadata.get("sslcourse")
        return found if isinstance(found, dict) else {}

    @property
    def role(self) -> str:
        return str(self.course.get("role", ""))


@dataclass(frozen=True)
class Exercise:
    """One graded function or class."""

    name: str
    stub: str
    points: float
    uses: tuple[str, ...] = ()
    banned: tuple[str, ...] = ()
    library: str = ""
    checks: tuple[tuple[str, str], ...] = ()  # public checks: (grade id, source)
    role: str = "exercise"


@dataclass
class Lab:
    """What a lab asks for, in the order of the notebook."""

    name: str
    preamble: str
    exercises: list[Exercise]
    by_hand: dict[str, tuple[float, str]]  # grade id of a manually graded cell -> (points, released text)
    trains: bool = False  # whether any exercise makes an optimiser, so the worker has one ready
    device: str = "cpu"  # where the student's code gets its tensors; "cuda" starts a process an exercise

    def exercise(self, name: str) -> Exercise:
        return next(e for e in self.exercises if e.name == name)

    def reference(self, name: str) -> Callable[..., Any]:
        """The library's own version of an exercise."""
        return library_function(self.exercise(name).library)

    def offers(self, exercise: Exercise) -> dict[str, Callable[..., Any]]:
        """The earlier functions that an exercise builds on, as the library has them."""
        return {name: self.reference(name) for name in exercise.uses}


def library_function(path: str) -> Callable[..., Any]:
    """The object that "sslcourse.losses.infonce:nt_xent" names; only the library may be named."""
    module, _, name = path.partition(":")
    if not re.fullmatch(r"sslcourse(\.[a-z_0-9]+)+", module) or not name.isidentifier():
        raise InputError(f"'{path}' does not name a function of the library, such as sslcourse.losses.infonce:nt_xent.")
    return getattr(importlib.import_module(module), name)


def parse(data: Any) -> list[Cell]:
    """The cells of a decoded notebook; formats 3 and 4, sources as a string or as lines.

    Raises:
        InputError: it is JSON, but not a notebook.
    """
    cells = data.get("cells") if isinstance(data, dict) else None
    if cells is None and isinstance(data, dict) and isinstance(data.get("worksheets"), list):  # format 3
        cells = [c for sheet in data["worksheets"] if isinstance(sheet, dict) for c in sheet.get("cells") or []]
    if not isinstance(cells, list):
        raise InputError("the file is JSON, but not a notebook: it has no cells.")
    return [_cell(c) for c in cells if isinstance(c, dict)]


def _cell(raw: dict[str, Any]) -> Cell:
    source = raw.get("source", raw.get("input", ""))
    if isinstance(source, list):
        source = "".join(s for s in source if isinstance(s, str))
    metadata, outputs = raw.get("metadata"), raw.get("outputs")
    return Cell(
        kind=str(raw.get("cell_type", "")),
        source=whole(source) if isinstance(source, str) else "",
        metadata=metadata if isinstance(metadata, dict) else {},
        cell_id=str(raw.get("id", ""))[:64],
        outputs=outputs if isinstance(outputs, list) else [],
    )


def whole(text: str) -> str:
    """Text that UTF-8 can hold; JSON and file names may carry halves of characters."""
    return text.encode("utf-8", "replace").decode()


def clean(text: Any, limit: int) -> str:
    """Text of a student's process, fit to be stored and shown: capped, valid UTF-8, nothing that steers a terminal."""
    plain = text[:limit].replace("\r", "\n") if isinstance(text, str) else ""
    return "".join(ch if ch in "\n\t" or ch.isprintable() else "?" for ch in plain)


def read_lab(path: Path) -> Lab:
    """The lab that a released notebook defines."""
    try:
        cells = parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the lab {path}: {error}") from None
    return lab_from_cells(path.stem, cells)


def lab_from_cells(name: str, cells: list[Cell]) -> Lab:
    """The lab that these cells define: roles, points, what each exercise may use."""
    checks: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.role == "check":
            checks.setdefault(str(cell.course.get("of", "")), []).append(cell)
    exercises, by_hand = [], {}
    for cell in cells:
        points = _points(cell)
        if cell.role in ("exercise", "predict") and cell.grade_id:
            mine = checks.get(cell.grade_id, [])
            exercises.append(
                Exercise(
                    name=cell.grade_id,
                    stub=cell.source,
                    points=sum(_points(c) for c in mine),
                    uses=_names(cell.course.get("uses")),
                    banned=_names(cell.course.get("banned")),
                    library=str(cell.course.get("library", "")),
                    checks=tuple((c.grade_id, c.source) for c in mine),
                    role=cell.role,
                )
            )
        elif cell.nbgrader.get("grade") is True and cell.nbgrader.get("solution") is True:
            by_hand[cell.grade_id] = (points, cell.source)
    preamble = "\n".join(c.source for c in cells if c.role == "preamble")
    trains = any(c.course.get("trains") is True for c in cells)
    device = "cuda" if any(c.course.get("device") == "cuda" for c in cells) else "cpu"
    return Lab(name, preamble, exercises, by_hand, trains, device)


def _points(cell: Cell) -> float:
    points = cell.nbgrader.get("points", 0)
    return float(points) if isinstance(points, int | float) and not isinstance(points, bool) else 0.0


def _names(value: Any) -> tuple[str, ...]:
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()


# ---------------------------------------------------------------------------------------------------- source text


def without_magics(source: str) -> str:
    """Plain Python with the same line numbers: IPython's magics, shell lines and `?` become `pass`."""
    plain = whole(source.replace("\0", ""))
    try:
        ast.parse(plain)
        return plain
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        lines = [_MAGIC.sub(r"\1pass", line) if _MAGIC.match(line) else line for line in plain.split("\n")]
        return "\n".join(lines)


@functools.lru_cache(maxsize=1024)
def is_stub(source: str, stub: str) -> bool:
    """Whether the cell is still the released one, or does nothing but raise NotImplementedError."""
    if "".join(source.split()) == "".join(stub.split()):
        return True
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    return bool(functions) and all(_is_empty(f) for f in functions)


def _is_empty(function: ast.FunctionDef) -> bool:
    """Whether a function does nothing; the `super().__init__()` that a stub comes with is nothing."""
    body = [s for s in function.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    body = [s for s in body if ast.unparse(s) != "super().__init__()"]
    return all(isinstance(s, ast.Pass) or (isinstance(s, ast.Raise) and "NotImplemented" in ast.dump(s)) for s in body)


def defined_names(source: str) -> set[str]:
    """The functions, classes and variables that a cell defines at its top level."""
    try:
        tree = ast.parse(without_magics(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(re.findall(r"^(?:def|class)\s+(\w+)", source, flags=re.M))
    names = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)}
    targets = [t for n in tree.body if isinstance(n, ast.Assign) for t in n.targets]
    return names | {t.id for t in targets if isinstance(t, ast.Name)}
