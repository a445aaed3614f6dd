"""`python -m benchmarks [ROW ...]`: measure rows, print one table; results.json and SPEED.md keep what was recorded."""

import argparse
import json
import os
import pkgutil
import platform
import sys
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import benchmarks
from benchmarks import speed_page
from benchmarks.harness import Outcome, Row, run
from benchmarks.speed_page import RESULTS, SIGNS, UNITS
from sslcourse.errors import InputError, unknown

if TYPE_CHECKING:
    from rich.table import Table


def all_rows() -> list[Row]:
    """The rows of every module of this package that has some, in alphabetical order of the modules."""
    names = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.ispkg and m.name != "__main__")
    modules = [import_module(f"benchmarks.{name}") for name in names]
    return [row for module in modules for row in getattr(module, "ROWS", [])]


def select(names: list[str]) -> list[Row]:
    """The rows called `names`, all of them for an empty list."""
    rows = all_rows()
    known = {row.name for row in rows}
    for name in names:
        if name not in known:
            raise unknown("benchmark row", name, known)
    return [row for row in rows if not names or row.name in names]


def table(outcomes: list[Outcome]) -> "Table":
    """One line a row: ratio, range, target, verdict."""
    from rich.table import Table

    view = Table("row", "task", "peer", "value [min-max]", "target", "", "detail")
    colours = {"pass": "green", "short": "red", "failed": "bold red", "skipped": "yellow"}
    for outcome in outcomes:
        row, unit = outcome.row, UNITS[outcome.row.kind]
        value = "-" if outcome.value is None else f"{outcome.value:.2f}{unit} [{outcome.low:.2f}-{outcome.high:.2f}]"
        verdict = f"[{colours[outcome.status]}]{outcome.status}[/]"
        target = f"{SIGNS[row.kind]} {row.target:g}{unit}"
        view.add_row(row.name, row.what, row.peer, value.replace("[", r"\["), target, verdict, outcome.detail)
    return view


def as_json(outcomes: list[Outcome]) -> dict[str, Any]:
    """The table and what it was measured on."""
    machine = {
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    rows = [
        {
            "row": o.row.name,
            "task": o.row.what,
            "peer": o.row.peer,
            "kind": o.row.kind,
            "value": o.value,
            "min": o.low,
            "max": o.high,
            "target": o.row.target,
            "status": o.status,
            "threads": torch.get_num_threads(),
            "detail": o.detail,
        }
        for o in outcomes
    ]
    return {"machine": machine, "rows": rows}


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`old` with the rows of `new` in the places of the same rows; new ones come last."""
    key = itemgetter("row", "task", "peer")
    measured = {key(row): row for row in new["rows"]}
    rows = [measured.pop(key(row), row) for row in old["rows"]]
    return {"machine": new["machine"], "rows": [*rows, *measured.values()]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed and memory against peers.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names of rows (default: all)")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds a row (default 7)")
    parser.add_argument("--threads", type=int, help="threads of both sides; 1 on a machine that others use, too")
    parser.add_argument("--out", type=Path, help="where to write the JSON (default: results.json, if all rows are run)")
    parser.add_argument("--page", action="store_true", help="write SPEED.md from results.json and stop")
    parser.add_argument("--record", action="store_true", help="put the named rows into results.json")
    args = parser.parse_args()
    if args.page:
        speed_page.write()
        return 0
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        rows = select(args.rows)
    except InputError as error:
        print(error)
        return 2
    if args.list:
        for row in rows:
            print(f"{row.name:16} {row.peer:24} {row.what}")
        return 0
    outcomes = []
    for row in rows:
        print(f"{row.name} against {row.peer} ...", flush=True)
        outcomes.append(run(row, args.rounds))
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 180).print(table(outcomes))
    out = args.out or (RESULTS if args.record or not args.rows else None)
    if out:
        record = as_json(outcomes)
        out.write_text(
            json.dumps(merged(json.loads(out.read_text()), record) if args.record else record, indent=2) + "\n"
        )
        print(f"written to {out.name}")
        if out == RESULTS:
            speed_page.write()
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


if __name__ == "__main__":
    raise SystemExit(main())
