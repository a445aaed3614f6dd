"""Write the tables of recorded results into README.md, so that no number there is typed.

    python -m benchmarks.readme            # after recording; --check only says whether README.md is up to date

A record, benchmarks/recorded/NAME.json, holds what `sslcourse compare` wrote (compare.json), the command, and the
minutes that one training took.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT / "benchmarks" / "recorded"
README = ROOT / "README.md"
START, END = "<!-- numbers: ", "<!-- end of numbers -->"


def table(record: dict[str, Any]) -> str:
    """One record as a title, a Markdown table and its command."""
    rows = [f"| {record['title']} | accuracy | 95 % interval | n |", "|---|---|---|---|"]
    for r in record["results"]:
        interval = "-" if r["low"] is None else f"{r['low']:.3f} to {r['high']:.3f}"
        rows.append(f"| {r['name']} | {r['value']:.3f} | {interval} | {r['n']} {r['over']} |")
    minutes = f"One training took {record['minutes']:.1f} minutes."
    return "\n".join([*rows, "", f"`{record['command']}`", "", minutes])


def filled(text: str) -> str:
    """`text` with everything between the two marks replaced by the tables."""
    head, rest = text.split(START, 1)
    mark, rest = rest.split("\n", 1)
    _, tail = rest.split(END, 1)
    records = [json.loads(path.read_text()) for path in sorted(RECORDED.glob("*.json"))]
    return "\n".join([f"{head}{START}{mark}", "", "\n\n".join(map(table, records)), "", f"{END}{tail}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if README.md is out of date")
    check = parser.parse_args().check
    old = README.read_text()
    new = filled(old)
    if check:
        sys.exit(None if new == old else "README.md is out of date: python -m benchmarks.readme")
    README.write_text(new)


if __name__ == "__main__":
    main()
