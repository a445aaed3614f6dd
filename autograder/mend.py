"""A clean notebook from a handed-in one: the released notebook with the student's answers and figures put in.

Whatever a student did to labels, points, locked cells or metadata is gone, because nothing of it is copied.
"""

import copy
from typing import Any

from autograder.intake import Submission
from autograder.notebook import Cell, whole

_FIGURES = ("image/png", "text/plain")
_MAX_OUTPUT = 2 << 20  # characters of saved outputs of one notebook that the instructor sees


def mend(released: dict[str, Any], submission: Submission, cells: list[Cell]) -> dict[str, Any]:
    """The released notebook as `submission` answers it; experiment cells keep their saved text and figures.

    Args:
        released: the released notebook as JSON.
        submission: the answers.
        cells: all cells that were handed in, for their outputs.
    """
    notebook = copy.deepcopy(released)
    room = _MAX_OUTPUT
    outputs = {key: c.outputs for c in cells for key in (c.cell_id, c.grade_id) if key}
    for cell in notebook["cells"]:
        grade_id = cell["metadata"].get("nbgrader", {}).get("grade_id", "")
        if grade_id in submission.sources:
            cell["source"] = submission.sources[grade_id]
        elif grade_id in submission.written:
            cell["source"] = submission.written[grade_id]
        role = cell["metadata"].get("sslcourse", {}).get("role")
        if cell["cell_type"] == "code" and role in ("experiment", "open", "predict"):
            cell["outputs"], room = _safe(outputs.get(grade_id) or outputs.get(cell.get("id", "")) or [], room)
    notebook["metadata"]["sslcourse_intake"] = {"notes": submission.notes, "hints": submission.hints}
    return notebook


def refused(released: dict[str, Any], reason: str) -> dict[str, Any]:
    """The released notebook, empty, with the reason why nothing could be taken from the hand-in."""
    notebook = copy.deepcopy(released)
    notebook["metadata"]["sslcourse_intake"] = {"refused": reason}
    return notebook


def _safe(outputs: list[Any], room: int) -> tuple[list[dict[str, Any]], int]:
    """Text and PNG figures only, within the room that is left; HTML and scripts could attack who reads them."""
    kept: list[dict[str, Any]] = []
    for output in outputs[:50]:
        data = output.get("data") if isinstance(output, dict) else None
        if isinstance(data, dict):
            plain = {k: _text(data[k]) for k in _FIGURES if k in data}
        elif isinstance(output, dict) and output.get("output_type") == "stream":
            plain = {"text/plain": _text(output.get("text", ""))}
        else:
            continue
        size = sum(map(len, plain.values()))
        if plain and size <= room:
            room -= size
            kept.append({"output_type": "display_data", "data": plain, "metadata": {}})
    return kept, room


def _text(value: Any) -> str:
    return whole("".join(v for v in value if isinstance(v, str)) if isinstance(value, list) else str(value))
