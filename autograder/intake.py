"""Reads what a student handed in, before any tool does: refuse or repair, and say which.

A refusal is an `InputError` with a sentence for the student; the batch records it as a zero and goes on.
"""

import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autograder.notebook import Cell, Lab, defined_names, is_stub, parse, without_magics
from sslcourse.errors import InputError

MAX_NOTEBOOK = 64 << 20


@dataclass
class Submission:
    """The cells of one student that the grader reads, with what had to be repaired."""

    student: str
    sources: dict[str, str]  # exercise -> code
    written: dict[str, str]  # manually graded cell -> text
    notes: list[str] = field(default_factory=list)
    hints: dict[str, int] = field(default_factory=dict)  # exercise -> highest hint level that was opened
    refused: str = ""  # why nothing could be taken


def read_bytes(path: Path) -> bytes:
    """The bytes of a regular file of bounded size; symbolic links, devices and pipes are refused."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        link = path.is_symlink()
        reason = "it is a symbolic link" if link else (error.strerror or "it cannot be opened").lower()
        raise InputError(f"{path.name} was not read: {reason}. Hand in the notebook file itself.") from None
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise InputError(f"{path.name} was not read: it is not a regular file. Hand in the notebook file itself.")
        if info.st_size > MAX_NOTEBOOK:
            raise InputError(
                f"{path.name} has {info.st_size >> 20} MB; at most {MAX_NOTEBOOK >> 20} MB are read. "
                "Clear the outputs (Kernel > Restart and clear output), save and hand in again."
            )
        return file.read(MAX_NOTEBOOK + 1)


def decode(raw: bytes, name: str) -> Any:
    """The JSON of a notebook file; a byte order mark and text after the end are forgiven."""
    if not raw.strip():
        raise InputError(f"{name} is empty. Save the notebook and hand in again.")
    try:
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{name} is not a text file, so not a notebook. Hand in the .ipynb file.") from None
    if "\n<<<<<<< " in text or text.startswith("<<<<<<< "):
        raise InputError(f"{name} holds git merge markers (<<<<<<<). Resolve the conflict, save and hand in again.")
    try:
        data, _ = json.JSONDecoder().raw_decode(text.lstrip())
    except RecursionError:
        raise InputError(f"{name} is nested too deeply to be a notebook.") from None
    except ValueError as error:
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "a number"
        raise InputError(
            f"{name} is damaged JSON (at {where}): open it in Jupyter, save it there and hand in again."
        ) from None
    return data


def read_cells(path: Path) -> list[Cell]:
    """The cells of a notebook file."""
    try:
        return parse(decode(read_bytes(path), path.name))
    except InputError:
        raise
    except (RecursionError, MemoryError):
        raise InputError(f"{path.name} cannot be read as a notebook.") from None


def read_submission(path: Path, lab: Lab, student: str) -> Submission:
    """What `student` handed in for `lab`.

    Raises:
        InputError: the file is no notebook, or not this lab's.
    """
    return take(read_cells(path), lab, student, path.name)


def take(cells: list[Cell], lab: Lab, student: str, name: str = "the notebook") -> Submission:
    """Match cells with what the lab asks for: by grade id, else by cell id, else by what they define."""
    submission = Submission(student, {}, {}, hints=_hints(cells))
    for exercise in lab.exercises:
        source = _find(cells, exercise.name, exercise.stub, exercise.role == "exercise", submission.notes)
        if source is not None:
            submission.sources[exercise.name] = without_magics(source)
    for grade_id, (_, released) in lab.by_hand.items():
        found = _find(cells, grade_id, released, False, submission.notes)
        if found is not None:
            submission.written[grade_id] = found
    if not submission.sources:
        wanted = ", ".join(e.name for e in lab.exercises[:3])
        raise InputError(f"{name} is not lab {lab.name}: it has none of its exercises ({wanted}, ...).")
    return submission


def _find(cells: list[Cell], grade_id: str, released: str, is_code: bool, notes: list[str]) -> str | None:
    """The text of one graded cell; of several, the last one that was worked on."""
    named = [c for c in cells if c.grade_id == grade_id]
    if not named:
        named = [c for c in cells if c.cell_id == grade_id]
    if not named and is_code:
        named = [c for c in cells if c.kind == "code" and grade_id in defined_names(c.source)]
        if named:
            notes.append(f"the cell of {grade_id} had lost its label; found by its definition.")
    if not named:
        notes.append(f"the cell of {grade_id} is missing.")
        return None
    worked = [c for c in named if not is_stub(c.source, released)] or named
    if len(named) > 1:
        notes.append(f"{len(named)} cells carry the label {grade_id}; the last one that was worked on counts.")
    return worked[-1].source


def _hints(cells: list[Cell]) -> dict[str, int]:
    """Hints that were opened: `hint()` leaves a mark in the metadata of its output."""
    used: dict[str, int] = {}
    for cell in cells:
        for output in cell.outputs:
            metadata = output.get("metadata") if isinstance(output, dict) else None
            mark = metadata.get("sslcourse_hint") if isinstance(metadata, dict) else None
            if isinstance(mark, dict) and isinstance(mark.get("exercise"), str) and mark.get("level") in (1, 2, 3):
                key = mark["exercise"][:64]
                used[key] = max(used.get(key, 0), mark["level"])
    return used
