"""The grader against stock nbgrader, and against its own budgets. Minutes, and the machine should be quiet.

    python -m benchmarks.grade --record           # everything; kept in grade.json, shown in autograder/README.md
    python -m benchmarks.grade nbgrader --n 4     # a rehearsal

`nbgrader`: the same hand-ins of lab 00_warmup through `nbgrader autograde` twice: with this project's configuration,
and as it comes, with the same checks run in the notebook's kernel (experiment cells are left out of that notebook,
because ours never runs them). `many`: hundreds of hand-ins through `autograder grade`. `memory`: what a worker has of
its own. Every time is read off the files that the commands write, so nothing is measured inside them.
"""

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from autograder.answers import COURSE, solution_sources
from autograder.labs import source_notebook
from autograder.rubric import Right, Wrong, answers_of, import_answers

LAB = "00_warmup"
RECORD = Path(__file__).with_name("grade.json")
PAGE = COURSE / "autograder" / "README.md"
START, END = (
    "<!-- numbers: written by `python -m benchmarks.grade --record`; do not edit by hand -->\n",
    "<!-- end of numbers -->",
)
TARGETS = {
    "throughput": (">=", 10.0),
    "marginal": (">=", 40.0),
    "first_autograder_s": ("<=", 20.0),
    "first_nbgrader_s": ("<=", 30.0),
    "many_s": ("<=", 300.0),
    "worker_mb": ("<=", 300.0),
}
SHOWN = {  # key of TARGETS -> part of the record, what it says, its unit
    "throughput": ("nbgrader", "`nbgrader autograde`, {n} hand-ins: throughput against stock nbgrader", "x"),
    "marginal": ("nbgrader", "one more hand-in: cost of stock against ours", "x"),
    "first_nbgrader_s": ("nbgrader", "first result of `nbgrader autograde`", " s"),
    "first_autograder_s": ("many", "first result of `autograder grade`", " s"),
    "many_s": ("many", "{n} hand-ins, `autograder grade --jobs {jobs}`", " s"),
    "worker_mb": ("memory", "memory of a worker's own, the largest of {n}", " MB"),
}


# ------------------------------------------------------------------------------------------------- hand-ins


def answers(number: int) -> dict[str, str]:
    """The answers of hand-in `number`: right, right in another way, wrong in a known way, or partly empty, in turn."""
    sources, module = dict(solution_sources(LAB)), import_answers(LAB)
    kind = number % 4
    if kind == 1:
        sources |= {r.exercise: r.source for r in answers_of(module, Right)[number // 4 % 3 :: 3]}
    elif kind == 2:
        wrong = answers_of(module, Wrong)
        for w in (wrong[number % len(wrong)], wrong[(7 * number + 3) % len(wrong)]):
            sources[w.exercise] = w.source(solution_sources(LAB)[w.exercise])
    elif kind == 3:
        sources = dict(list(sources.items())[: 1 + number // 4 % 3])
    return sources


def notebook(number: int) -> str:
    """The released lab as hand-in `number` fills it in."""
    lab, sources = json.loads((COURSE / "labs" / LAB / f"{LAB}.ipynb").read_text()), answers(number)
    for cell in lab["cells"]:
        grade_id = cell["metadata"].get("nbgrader", {}).get("grade_id")
        if grade_id in sources:
            cell["source"] = f"# hand-in {number}\n{sources[grade_id]}"
    return json.dumps(lab)


def hand_in(folder: Path, n: int) -> Path:
    """n hand-ins as nbgrader lays them out."""
    for number in range(n):
        place = folder / f"student{number:03}" / LAB
        place.mkdir(parents=True)
        (place / f"{LAB}.ipynb").write_text(notebook(number))
    return folder


# ------------------------------------------------------------------------------------------------- stock nbgrader


def in_notebook(exercise: str, answer: Callable[..., Any]) -> float:
    """The hidden checks of an exercise, run in the process of the student's code: what a stock hidden test does."""
    from autograder.compare import Lost, Record, run_here, sentence
    from autograder.notebook import read_lab
    from autograder.rubric import Draw, collect, import_checks
    from autograder.student import Student

    lab = read_lab(COURSE / "labs" / LAB / f"{LAB}.ipynb")
    names: dict[str, Any] = {}
    if exercise != "prediction":
        exec(lab.preamble + "\n" + solution_sources(LAB)[exercise], names)

    class Local(Student):
        def outcome(
            self, *args: Any, grad: bool = False, after: bool = False, seed: int | None = None, **kwargs: Any
        ) -> Any:
            outcome = run_here(answer, args, kwargs, grad)
            failed = outcome.error is not None
            self.records.append(Record(self.check, args, kwargs, grad, outcome, failed, after=after))
            if outcome.error is not None:
                raise Lost(sentence(outcome.error))
            return outcome

    student, points = Local(None, exercise, names.get(exercise, answer)), 0.0  # type: ignore[arg-type]
    for check in collect(import_checks(LAB)):  # type: ignore[arg-type]
        if check.exercise != exercise:
            continue
        given = {"student": student, "draw": Draw("stock", check.name), "answer": answer}
        try:
            check.run(**{k: given[k] for k in check.needs})
            points += check.points
        except (Lost, AssertionError):
            continue
    return points


def stock_cells(notebook: Any) -> Any:
    """The lab with the hidden checks in its check cells and without its experiment cells."""
    cells = []
    for cell in notebook["cells"]:
        course = cell["metadata"].get("sslcourse", {})
        if course.get("role") == "check":
            cell["source"] = (
                f'from benchmarks.grade import in_notebook\n\nin_notebook("{course["of"]}", {course["of"]})'
            )
        if course.get("role") != "experiment":
            cells.append(cell)
    notebook["cells"] = cells
    return notebook


def course_folder(root: Path, n: int, *, stock: bool) -> None:
    """A folder in which `nbgrader generate_assignment` and `nbgrader autograde` work."""
    import nbformat

    source = source_notebook(COURSE / "solutions" / LAB / f"{LAB}.py")
    place = root / "solutions" / LAB / f"{LAB}.ipynb"
    place.parent.mkdir(parents=True)
    place.write_text(nbformat.writes(stock_cells(source) if stock else source))
    config = (COURSE / "nbgrader_config.py").read_text()
    if stock:
        config = config.replace("from autograder.nbgrader_plugin import install", "").replace("install(c)", "")
        config = config.replace("autograder.nbgrader_plugin.ClearAnswers", "nbgrader.preprocessors.ClearSolutions")
        config += "\nc.Execute.timeout = 120\n"
    (root / "nbgrader_config.py").write_text(config)
    hand_in(root / "submitted", n)
    if stock:
        for path in (root / "submitted").rglob("*.ipynb"):
            path.write_text(json.dumps(stock_cells(json.loads(path.read_text()))))


def environment(home: Path) -> dict[str, str]:
    """For a command that knows the course, its programs and a secret."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    python = os.pathsep.join([str(COURSE), *filter(None, [os.environ.get("PYTHONPATH")])])
    threads = {"OMP_NUM_THREADS": "1", "JUPYTER_PLATFORM_DIRS": "1", "HOME": str(home)}
    return {**os.environ, **threads, "PATH": path, "PYTHONPATH": python, "SSLCOURSE_SECRET": "benchmark"}


def nbgrader(folder: Path, *command: str) -> None:
    done = subprocess.run(["nbgrader", *command], cwd=folder, env=environment(folder), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"nbgrader {' '.join(command)} failed:\n{done.stderr[-2000:]}")


def autograde(n: int, *, stock: bool) -> dict[str, Any]:
    """Seconds from the start of `nbgrader autograde` to each finished hand-in, and the scores."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        course_folder(root, n, stock=stock)
        nbgrader(root, "generate_assignment", LAB)
        start = time.time()
        nbgrader(root, "autograde", LAB)
        total = time.time() - start
        ready = sorted(p.stat().st_mtime - start for p in (root / "autograded").rglob("*.ipynb"))
        nbgrader(root, "export")
        with (root / "grades.csv").open() as file:
            scores = {row["student_id"]: float(row["raw_score"] or 0) for row in csv.DictReader(file)}
    if len(ready) != n:
        raise SystemExit(f"{len(ready)} of {n} hand-ins were graded ({'stock' if stock else 'ours'})")
    return {"total": total, "ready": ready, "scores": scores}


def compare(n: int) -> dict[str, Any]:
    """n hand-ins through stock nbgrader and through ours."""
    ours, stock = autograde(n, stock=False), autograde(n, stock=True)
    steps = {name: _steps(run["ready"]) for name, run in (("ours", ours), ("stock", stock))}
    same = sum(ours["scores"][k] == stock["scores"][k] for k in ours["scores"])
    if same != n:
        raise SystemExit(
            f"both ways gave only {same} of {n} hand-ins the same score: what was timed is not the same work"
        )
    return {
        "n": n,
        "command": f"nbgrader autograde {LAB}",
        "throughput": stock["total"] / ours["total"],
        "marginal": steps["stock"]["mean"] / steps["ours"]["mean"],
        "first_nbgrader_s": ours["ready"][0],
        "ours_s": ours["total"],
        "stock_s": stock["total"],
        "ours_each_s": steps["ours"],
        "stock_each_s": steps["stock"],
        "same_scores": f"{same} of {n}",
    }


def _steps(ready: list[float]) -> dict[str, float]:
    """Mean seconds from one finished hand-in to the next, with a 95 % interval (normal, over hand-ins)."""
    steps = [b - a for a, b in pairwise(ready)]
    half = 1.96 * statistics.stdev(steps) / len(steps) ** 0.5 if len(steps) > 1 else 0.0
    mean = statistics.mean(steps)
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": len(steps)}


# ------------------------------------------------------------------------------------------------- autograder grade


def many(n: int, jobs: int, watch: Callable[[subprocess.Popen[bytes]], None] | None = None) -> dict[str, Any]:
    """n hand-ins through `autograder grade --jobs`; `watch` looks on while it runs."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        hand_in(root / "submitted", n)
        command = [sys.executable, "-m", "autograder.cli", "grade", "submitted", "--out", "out", "--jobs", str(jobs)]
        start = time.time()
        with (root / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=root, env=environment(root), stdout=log, stderr=log)
            if watch:
                watch(process)
            code = process.wait()
        total = time.time() - start
        ready = sorted(p.stat().st_mtime - start for p in (root / "out" / "grades").glob("*.json"))
        if code or len(ready) != n:
            raise SystemExit(f"{len(ready)} of {n} graded, exit code {code}:\n{(root / 'log').read_text()[-2000:]}")
    shown = f"autograder grade submitted --out out --jobs {jobs}"
    return {**_steps(ready), "n": n, "command": shown, "jobs": jobs, "many_s": total, "first_autograder_s": ready[0]}


def memory(n: int, jobs: int) -> dict[str, Any]:
    """Peak memory of its own (shared with no other process) of each kind of process, while n hand-ins are graded."""
    peaks: dict[str, dict[int, int]] = {"worker": {}, "zygote": {}, "grader": {}}

    def watch(process: subprocess.Popen[bytes]) -> None:
        def look() -> None:
            while process.poll() is None:
                for pid, kind in _family(process.pid).items():
                    peaks[kind][pid] = max(peaks[kind].get(pid, 0), _own_kb(pid))
                time.sleep(0.05)

        threading.Thread(target=look).start()

    many(n, jobs, watch)
    found = {f"{kind}_mb": max(each.values(), default=0) / 1024 for kind, each in peaks.items()}
    return {"n": len(peaks["worker"]), **found}


def _family(root: int) -> dict[int, str]:
    """The processes below `root`: a zygote is what runs `autograder.worker`, a worker is a fork of one."""
    found, front = {root: "grader"}, [root]
    while front:
        pid = front.pop()
        try:
            children = [
                int(c) for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()
            ]
        except OSError:
            continue
        for child in children:
            try:
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            inside = b"autograder.worker" in b" ".join(words) and b"bwrap" not in words[0]
            found[child] = "grader" if not inside else "worker" if found[pid] == "zygote" else "zygote"
            front.append(child)
    return found


def _own_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


# ------------------------------------------------------------------------------------------------- the record


def table(record: dict[str, Any]) -> str:
    """The record as a Markdown table."""
    lines = ["| lab 00_warmup | measured | target |", "|---|---|---|"]
    for key, (part, text, unit) in SHOWN.items():
        (sign, target), found = TARGETS[key], record[part]
        lines.append(f"| {text.format(**found)} | {found[key]:.3g}{unit} | {sign} {target:g}{unit} |")
    ours, stock, cpus = record["nbgrader"]["ours_each_s"], record["nbgrader"]["stock_each_s"], record["machine"]["cpus"]
    each = "; ".join(
        f"{name} {s['mean']:.2f} s [{s['low']:.2f}, {s['high']:.2f}]" for name, s in (("ours", ours), ("stock", stock))
    )
    note = f"One more hand-in through nbgrader takes {each} (95 % interval over hand-ins); {cpus} CPUs, one run each."
    same = f"Both ways gave {record['nbgrader']['same_scores']} hand-ins the same score."
    return "\n".join([*lines, "", f"{note} {same}", ""])


def filled(text: str, record: dict[str, Any]) -> str:
    """The page `text` with the table of `record` between its two marks."""
    head, rest = text.split(START)
    return f"{head}{START}{table(record)}{END}{rest.split(END, 1)[1]}"


# ------------------------------------------------------------------------------------------------- the command


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grade", description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=["nbgrader", "many", "memory", []], help="all of them by default")
    parser.add_argument("--n", type=int, default=20, help="hand-ins for nbgrader")
    parser.add_argument("--many", type=int, default=300, help="hand-ins for autograder grade")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--record", action="store_true", help=f"keep the result in {RECORD.name}")
    args = parser.parse_args()
    what = args.what or ["nbgrader", "many", "memory"]
    found: dict[str, Any] = {}
    for name in what:
        run = {
            "nbgrader": lambda: compare(args.n),
            "many": lambda: many(args.many, args.jobs),
            "memory": lambda: memory(min(args.many, 40), args.jobs),
        }[name]
        print(f"{name} ...", flush=True)
        found[name] = run()
        for key, value in found[name].items():
            sign, target = TARGETS.get(key, ("", None))
            reached = "" if target is None else "  reached" if (value >= target) == (sign == ">=") else "  MISSED"
            print(
                f"  {key:20} {value if not isinstance(value, float) else round(value, 2)}"
                f"{f'   (target {sign} {target:g})' if target is not None else ''}{reached}",
                flush=True,
            )
    if args.record:
        machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
        old = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        record = {**old, "machine": machine, **found}
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
        if all(part in record for part in ("nbgrader", "many", "memory")):
            PAGE.write_text(filled(PAGE.read_text(), record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
