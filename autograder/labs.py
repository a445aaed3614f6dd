"""`make labs`: the students' notebooks, made from the instructor's by nbgrader's own `generate_assignment`.

    python -m autograder.labs            write labs/NN_name/NN_name.ipynb for every solutions/NN_name/NN_name.py
    python -m autograder.labs --check    change nothing; exit 1 when a lab on disk differs

The result is the same to the byte on every machine: cell ids come from the cells' own names, metadata are fixed, and
the notebook is written in one way.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from autograder.answers import COURSE
from sslcourse.errors import InputError

_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
_LEAK = re.compile(r"BEGIN SOLUTION|END SOLUTION|BEGIN HIDDEN|END HIDDEN")


def lab_names(course: Path = COURSE) -> list[str]:
    """Every NN_name with a source solutions/NN_name/NN_name.py."""
    return sorted(p.stem for p in (course / "solutions").glob("*/*.py") if p.parent.name == p.stem)


def source_notebook(path: Path) -> Any:
    """The instructor's notebook of a percent file, with stable cell ids."""
    import jupytext

    notebook = jupytext.read(path)
    used: set[str] = set()
    for index, cell in enumerate(notebook.cells):
        cell.metadata.pop("lines_to_next_cell", None)
        named = cell.metadata.pop("id", None) or cell.metadata.get("nbgrader", {}).get("grade_id")
        name = re.sub(r"[^A-Za-z0-9_-]", "-", named or f"cell-{index}")[:64]
        if name in used:
            raise InputError(f"{path.name}: two cells are called '{name}'; give each its own id.")
        used.add(name)
        cell.id = name
    notebook.metadata = {"kernelspec": _KERNEL, "language_info": {"name": "python"}}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def dumps(notebook: Any) -> str:
    """One way to write a notebook."""
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def generate(names: list[str], course: Path = COURSE) -> dict[str, str]:
    """The released notebooks of these labs, by nbgrader in a folder of its own."""
    import nbformat

    out: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copy(course / "nbgrader_config.py", root)
        for name in names:
            place = root / "solutions" / name
            place.mkdir(parents=True)
            notebook = source_notebook(course / "solutions" / name / f"{name}.py")
            (place / f"{name}.ipynb").write_text(nbformat.writes(notebook), encoding="utf-8")
        command = [sys.executable, "-m", "nbgrader", "generate_assignment", "--force", "--no-db"]
        path = os.pathsep.join([str(COURSE), *filter(None, [os.environ.get("PYTHONPATH")])])
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])  # alembic
        environment = {**os.environ, "PATH": programs, "JUPYTER_PLATFORM_DIRS": "1", "HOME": folder, "PYTHONPATH": path}
        for name in names:
            done = subprocess.run([*command, name], cwd=root, env=environment, capture_output=True, text=True)
            result = root / "labs" / name / f"{name}.ipynb"
            if done.returncode or not result.is_file():
                raise InputError(f"nbgrader did not generate lab {name}:\n{(done.stdout + done.stderr)[-2000:]}")
            text = dumps(_plain(json.loads(result.read_text(encoding="utf-8"))))
            if leak := _LEAK.search(text):
                raise InputError(f"lab {name} would show its solution: it holds '{leak[0]}'.")
            out[name] = text
    return out


def _plain(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook without what differs from run to run or editor to editor."""
    notebook["metadata"] = {"kernelspec": _KERNEL, "language_info": {"name": "python"}}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["execution_count"], cell["outputs"] = None, []
    return notebook


def main(argv: list[str] | None = None) -> int:
    """Command line of `make labs`."""
    parser = argparse.ArgumentParser(prog="python -m autograder.labs", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="labs to generate; all of them by default")
    parser.add_argument("--check", action="store_true", help="only compare with what is on disk")
    args = parser.parse_args(argv)
    try:
        generated = generate(args.names or lab_names())
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    stale = []
    for name, text in generated.items():
        path = COURSE / "labs" / name / f"{name}.ipynb"
        same = path.is_file() and path.read_text(encoding="utf-8") == text
        if not same:
            stale.append(name)
            if not args.check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(COURSE)}: {'unchanged' if same else 'differs' if args.check else 'written'}")
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
