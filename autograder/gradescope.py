"""Gradescope's side: the zip that it installs, and what its `run_autograder` runs.

`autograder zip gradescope --lab NAME` writes the zip. In Gradescope's container the folder is /autograder: the hand-in
lies in submission/, our files in source/, and the result goes to results/results.json.
"""

import json
import os
import stat
import sys
import zipfile
from pathlib import Path
from typing import Any

from autograder.answers import COURSE
from autograder.grade import EARNED, Grade
from sslcourse.errors import InputError

_SETUP = """#!/usr/bin/env bash
set -e
apt-get update && apt-get install -y python3 python3-venv libseccomp2 bubblewrap
python3 -m venv /autograder/venv
/autograder/venv/bin/pip install --extra-index-url https://download.pytorch.org/whl/cpu "/autograder/source[grader]"
"""
_RUN = """#!/usr/bin/env bash
cd "${AUTOGRADER_ROOT:-/autograder}/source"
exec "${AUTOGRADER_PYTHON:-/autograder/venv/bin/python}" -m autograder.gradescope "$(cat lab.txt)"
"""
_INCLUDED = ("sslcourse/**/*", "autograder/**/*", "pyproject.toml", "README.md", "LICENSE", "LICENSE-TEXT")


def build(lab: str, target: Path, secret: str, course: Path = COURSE) -> Path:
    """Write Gradescope's autograder zip of one lab. It holds the checks and the secret: for instructors only."""
    files = [p for pattern in _INCLUDED for p in sorted(course.glob(pattern)) if p.is_file() and _wanted(p)]
    files += [course / "labs" / lab / f"{lab}.ipynb", course / "solutions" / lab / f"{lab}.py"]
    missing = [p for p in files if not p.is_file()]
    if missing:
        raise InputError(f"cannot build the Gradescope zip: {missing[0]} is missing (run `make labs`).")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, path.relative_to(course))
        for name, text in (("setup.sh", _SETUP), ("run_autograder", _RUN)):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (stat.S_IFREG | 0o755) << 16
            archive.writestr(entry, text)
        archive.writestr("lab.txt", lab)
        archive.writestr("secret.txt", secret)
    return target


def _wanted(path: Path) -> bool:
    return "__pycache__" not in path.parts and path.suffix != ".pyc"


def results(grade: Grade) -> dict[str, Any]:
    """One grade as Gradescope's results.json: a test a property."""
    tests = []
    for row in grade.rows:
        text = "" if row.status == EARNED else "\n".join(t for t in (row.message, row.hint) if t)
        points = {"score": min(max(row.points, 0.0), row.out_of), "max_score": row.out_of}
        tests.append({**points, "name": f"{row.exercise}: {row.title}", "output": text, "output_format": "text"})
    text = grade.refused or "\n".join(grade.notes)
    return {"score": grade.points, "output": text, "tests": tests, "visibility": "visible"}


def main(argv: list[str] | None = None) -> int:
    """Grade the one hand-in under $AUTOGRADER_ROOT and write its results.json."""
    from autograder import batch
    from autograder.submissions import HandIn, find, released_labs

    lab = (argv or sys.argv[1:])[0]
    root = Path(os.environ.get("AUTOGRADER_ROOT", "/autograder"))
    secret = (root / "source" / "secret.txt").read_text().strip()
    student = _student(root / "submission_metadata.json")
    try:
        path = find([root / "submission"], root / "unpacked")[0].path
    except InputError:
        path = root / "submission" / f"{lab}.ipynb"  # missing: graded as such
    grader = batch.open_grader(batch.Job(released_labs()[lab], secret))
    try:
        grade = batch.grade_file(grader, HandIn(student, path))
    finally:
        grader.zygote.close()
    out = root / "results" / "results.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results(grade), indent=1), encoding="utf-8")
    return 0


def _student(metadata: Path) -> str:
    """Who handed in, by Gradescope's id, so that hidden inputs differ between students."""
    try:
        return "-".join(str(user["id"]) for user in json.loads(metadata.read_text())["users"])
    except (OSError, ValueError, KeyError, TypeError):
        return "student"


if __name__ == "__main__":
    sys.exit(main())
