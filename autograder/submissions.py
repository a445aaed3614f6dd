"""Finds what was handed in: notebooks, folders as nbgrader, Canvas, Moodle and GitHub Classroom lay them out, zips."""

import re
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from autograder.answers import COURSE, percent_cells
from autograder.intake import MAX_NOTEBOOK, read_cells
from autograder.notebook import Cell, Lab, clean, read_lab, whole
from sslcourse.errors import InputError, unknown

_CANVAS = re.compile(r"^([a-z0-9-]+)(?:_LATE)?_\d+_\d+_", flags=re.I)  # lovelaceada_123_456_lab.ipynb
_MOODLE = re.compile(r"^(.+?)_\d+_assignsubmission_file_?$")  # Ada Lovelace_123_assignsubmission_file_
_MAX_UNZIPPED = 2 << 30
_MAX_FILES = 20_000


@dataclass(frozen=True)
class HandIn:
    """One student's file."""

    student: str
    path: Path


def find(paths: list[Path], unpack_to: Path) -> list[HandIn]:
    """Every notebook under the paths with the student that it belongs to; zips are unpacked into `unpack_to`.

    Raises:
        InputError: a path that does not exist, or nothing to grade.
    """
    found: list[HandIn] = []
    for number, path in enumerate(paths):
        if not path.exists() and not path.is_symlink():
            raise InputError(f"{path} does not exist.")
        if path.suffix == ".zip":
            path = _unzip(path, unpack_to / str(number))
        found += _in_folder(path) if path.is_dir() else [HandIn(path.stem, path)]
    if not found:
        raise InputError(f"there is no notebook (.ipynb) in {', '.join(map(str, paths))}.")
    return _one_name_each([HandIn(clean(h.student, 200), h.path) for h in found])


def _in_folder(folder: Path) -> list[HandIn]:
    notebooks = [p for p in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts]
    found = [HandIn(_student(p.relative_to(folder)), p) for p in notebooks]
    if found and any(
        len(p.relative_to(folder).parts) > 1 for p in notebooks
    ):  # a folder a student: who handed in none?
        names = {h.student for h in found}
        empty = [d for d in sorted(folder.iterdir()) if d.is_dir() and d.name[0] not in "._"]
        found += [
            HandIn(_student(Path(d.name, "x")), d / "no notebook")
            for d in empty
            if _student(Path(d.name, "x")) not in names
        ]
    return found


def _student(path: Path) -> str:
    """Whose file it is: the first folder, else what the file's name says."""
    if len(path.parts) > 1:
        folder = path.parts[0]
        moodle = _MOODLE.match(folder)
        return moodle[1] if moodle else folder
    canvas = _CANVAS.match(path.name)
    return canvas[1] if canvas else path.stem


def _one_name_each(found: list[HandIn]) -> list[HandIn]:
    """Two files never share a student: the second one is called `ada (2)`, for the instructor to look at."""
    seen: dict[str, int] = {}
    out = []
    for hand_in in found:
        seen[hand_in.student] = seen.get(hand_in.student, 0) + 1
        count = seen[hand_in.student]
        out.append(hand_in if count == 1 else HandIn(f"{hand_in.student} ({count})", hand_in.path))
    return out


def _unzip(path: Path, target: Path) -> Path:
    """Notebooks of a zip: regular files only, inside the target only, bounded in number and size.

    A member that cannot be unpacked (damaged, encrypted, its name too long) becomes an empty file, so that its student
    is graded with a reason and nobody else is held up.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            wanted = [m for m in archive.infolist() if m.filename.endswith(".ipynb") and _is_plain(m)]
            if len(wanted) > _MAX_FILES or sum(m.file_size for m in wanted) > _MAX_UNZIPPED:
                raise InputError(
                    f"{path.name} unpacks to more than {_MAX_UNZIPPED >> 30} GB or {_MAX_FILES} notebooks."
                )
            for member in wanted:
                _unpack(archive, member, target)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path.name} is not a zip file, or a damaged one ({error}).") from None
    target.mkdir(parents=True, exist_ok=True)
    return target


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    parts = [part.encode()[:200].decode(errors="ignore") for part in Path(whole(member.filename)).parts]
    place = target.joinpath(*parts)
    if len(place.name.encode()) > 190 or place.suffix != ".ipynb":
        place = place.with_name(f"{place.name.encode()[:180].decode(errors='ignore')}.ipynb")
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with archive.open(member) as file:
            content = file.read(MAX_NOTEBOOK + 1)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, zlib.error, EOFError):
        content = b""  # RuntimeError: encrypted; NotImplementedError: a compression that Python does not know
    place.write_bytes(content)


def _is_plain(member: zipfile.ZipInfo) -> bool:
    mode = member.external_attr >> 16
    escapes = member.filename.startswith(("/", "\\")) or ".." in Path(member.filename).parts
    return not escapes and (mode == 0 or stat.S_ISREG(mode) or stat.S_IFMT(mode) == 0)


# ---------------------------------------------------------------------------------------------------- which lab


def released_labs(course: Path = COURSE) -> dict[str, Lab]:
    """Every lab of the course by name."""
    found = {p.stem: p for p in sorted((course / "labs").glob("*/*.ipynb")) if p.parent.name == p.stem}
    if not found:
        raise InputError(f"{course / 'labs'} holds no lab: run `make labs`.")
    return {name: read_lab(path) for name, path in found.items()}


def cells_of(path: Path) -> list[Cell]:
    """The cells of a handed-in notebook, or of one of the course's own .py sources."""
    return percent_cells(path) if path.suffix == ".py" else read_cells(path)


def which_lab(hand_ins: list[HandIn], labs: dict[str, Lab], wanted: str | None = None) -> Lab:
    """The lab that most of the files belong to, unless one is named."""
    if wanted is not None:
        if wanted not in labs:
            raise unknown("lab", wanted, labs)
        return labs[wanted]
    votes = dict.fromkeys(labs, 0)
    for hand_in in hand_ins[:20]:
        try:
            names = {c.grade_id or c.cell_id for c in cells_of(hand_in.path)}
        except (InputError, OSError):
            continue
        for name, lab in labs.items():
            votes[name] += sum(e.name in names for e in lab.exercises)
    best = max(votes, key=lambda name: votes[name])
    if votes[best] == 0:
        raise InputError(f"these notebooks belong to no lab of the course ({', '.join(labs)}); name one with --lab.")
    return labs[best]
