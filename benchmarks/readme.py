"""Write the tables of recorded results into README.md, so that no number there is typed.

    python -m benchmarks.readme --record NAME --title TITLE -- sslcourse compare simclr --data ... --out FOLDER
    python -m benchmarks.readme            # only write the tables; --check says whether README.md is up to date

--record keeps what that command, run before, has left in FOLDER: benchmarks/recorded/NAME.json holds its results
(compare.json), the command and the minutes that one training took (the median of the runs' logs).
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT / "benchmarks" / "recorded"
README = ROOT / "README.md"
START, END = "<!-- numbers: ", "<!-- end of numbers -->"


def record(name: str, title: str, command: list[str], path: str | None) -> Path:
    """Keep the results of `sslcourse compare ... --out FOLDER`; `path` replaces the reader's --data in the command."""
    folder = Path(command[command.index("--out") + 1])
    logs = sorted(folder.glob("*/seed*/log.jsonl"))
    seconds = [json.loads(log.read_text().splitlines()[-1])["seconds"] for log in logs]
    shown = list(command)
    if path is not None:
        shown[shown.index("--data") + 1] = path
    content = {
        "title": title,
        "command": " ".join(shown),
        "minutes": round(statistics.median(seconds) / 60, 1),
        "results": json.loads((folder / "compare.json").read_text()),
    }
    out = RECORDED / f"{name}.json"
    out.write_text(json.dumps(content, indent=1) + "\n")
    return out


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
    parser.add_argument("--record", metavar="NAME", help="keep the results of COMMAND, which has been run, under NAME")
    parser.add_argument("--title", help="with --record: what was trained on")
    parser.add_argument("--path", help="with --record: write this in place of the folder after --data")
    parser.add_argument("command", nargs="*", help="with --record: the sslcourse compare command")
    options = parser.parse_args()
    if options.record:
        print("wrote", record(options.record, options.title, options.command, options.path))
    check = options.check
    old = README.read_text()
    new = filled(old)
    if check:
        sys.exit(None if new == old else "README.md is out of date: python -m benchmarks.readme")
    README.write_text(new)


if __name__ == "__main__":
    main()
