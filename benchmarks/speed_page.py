"""SPEED.md: the recorded rows of `python -m benchmarks` as a table. Recording writes it again.

python -m benchmarks --page          # write it from results.json as it is
"""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results.json", HERE / "SPEED.md"
HEADINGS = {
    "speed": "Speed: seconds of the peer / ours",
    "memory": "Memory: our peak bytes / the peer's",
    "seconds": "Budgets: our seconds minus the peer's",
}
SIGNS = {"speed": ">=", "memory": "<=", "seconds": "<="}
UNITS = {"speed": "x", "memory": "x", "seconds": " s"}
INTRODUCTION = """# Speed and memory against other libraries

Written by `python -m benchmarks` from `results.json`; no number here is typed. `python -m benchmarks ROW --record`
measures a row again, `--list` names them.

Before a row is timed, the results of both sides are compared: a fast wrong answer is no speed-up. Then they run in
turn, A B A B, each round gives one ratio, and a row says the median ratio and the range of the rounds; so what else the
machine did falls on both. The times beside it are each side's own median and belong to that machine alone; where other
work came between, they need not divide to the ratio. What is *asked* was fixed by the library's plan. The verdict goes
by the median: {met} of {number} rows meet what is asked, {wavering} of all with a range that crosses it, which says
that another recording could turn out the other way.
"""


def page(record: dict[str, Any]) -> str:
    """All recorded rows as Markdown, a table for each kind."""
    rows = record["rows"]
    met = sum(row["status"] == "pass" for row in rows)
    wavering = sum(_crosses(row) for row in rows)
    lines = [
        INTRODUCTION.format(met=met, number=len(rows), wavering=wavering),
        f"The last recording ran on {_machine(record)}.",
        "",
    ]
    for kind, heading in HEADINGS.items():
        some = [row for row in rows if row["kind"] == kind]
        if not some:
            continue
        lines += [
            f"## {heading}",
            "",
            "| row | task | peer | measured [range] | asked | verdict | ours against theirs | threads |",
        ]
        lines += ["|---|---|---|---|---|---|---|---|"]
        lines += [_line(row) for row in some]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def write(results: Path = RESULTS) -> None:
    """The page of what is recorded."""
    PAGE.write_text(page(json.loads(results.read_text(encoding="utf-8"))), encoding="utf-8")


def _line(row: dict[str, Any]) -> str:
    unit = UNITS[row["kind"]]
    value = "-" if row["value"] is None else f"{row['value']:.2f}{unit} [{row['min']:.2f}, {row['max']:.2f}]"
    asked = f"{SIGNS[row['kind']]} {row['target']:.3g}{unit}"
    verdict = ("met" if row["status"] == "pass" else f"**{row['status']}**") + ", crosses" * _crosses(row)
    threads = row.get("threads") or ""  # early rows do not say
    cells = (f"`{row['row']}`", row["task"], row["peer"], value, asked, verdict, row["detail"], threads)
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def _crosses(row: dict[str, Any]) -> bool:
    """Whether what is asked lies within the range of the rounds."""
    return row["value"] is not None and bool(row["min"] < row["target"] < row["max"])


def _machine(record: dict[str, Any]) -> str:
    machine = record["machine"]
    gpu = machine["gpu"] or "no GPU"
    return f"{machine['platform']}, {machine['cpus']} CPUs, {gpu}, Python {machine['python']}, torch {machine['torch']}"
