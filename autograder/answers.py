"""The course's own answers: the solution's cells, and functions made from them in this (trusted) process."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autograder.notebook import Cell, Lab
from autograder.policy import preamble_imports
from sslcourse.errors import InputError

COURSE = Path(__file__).resolve().parent.parent
_CELL = re.compile(r"^# %%(?P<head>.*)$", flags=re.M)
_KEY = re.compile(r"(\w+)=")


def percent_cells(path: Path) -> list[Cell]:
    """The cells of a jupytext percent file, with the metadata in their headers."""
    text = path.read_text(encoding="utf-8")
    marks = list(_CELL.finditer(text))
    cells = []
    for mark, after in zip(marks, [*marks[1:], None], strict=True):
        body = text[mark.end() : after.start() if after else len(text)].strip("\n")
        head = mark["head"]
        markdown = "[markdown]" in head
        if markdown:
            body = re.sub(r"^# ?", "", body, flags=re.M)
        metadata = _metadata(head)
        cells.append(Cell("markdown" if markdown else "code", body, metadata, metadata.get("id", "")))
    return cells


def _metadata(head: str) -> dict[str, Any]:
    """``key=<JSON>`` pairs of a cell header."""
    found: dict[str, Any] = {}
    at = 0
    while match := _KEY.search(head, at):
        try:
            found[match[1]], length = json.JSONDecoder().raw_decode(head[match.end() :])
        except ValueError:
            raise InputError(f"a cell header that is not key=JSON: {head.strip()[:80]}") from None
        at = match.end() + length
    return found


def solution_file(lab: str, course: Path = COURSE) -> Path:
    return course / "solutions" / lab / f"{lab}.py"


def solution_sources(lab: str, course: Path = COURSE) -> dict[str, str]:
    """grade id -> source of the solution's exercise cells; {} where the course's solutions are not installed."""
    path = solution_file(lab, course)
    cells = percent_cells(path) if path.is_file() else []
    return {c.grade_id: c.source for c in cells if c.role in ("exercise", "predict") and c.grade_id}


def trusted_functions(lab: Lab, exercise: str, source: str) -> dict[str, Callable[..., Any]]:
    """What a cell of our own defines, with the functions it builds on taken from the library."""
    names: dict[str, Any] = {"__name__": f"answer_{exercise}", **lab.offers(lab.exercise(exercise))}
    exec(compile(preamble_imports(lab.preamble), "<preamble>", "exec"), names)
    exec(compile(source, f"<answer {exercise}>", "exec", dont_inherit=True), names)
    return names
