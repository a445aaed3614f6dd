"""Grades for people and for programs: the terminal, CSV, JSON and JUnit."""

import csv
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from autograder.grade import EARNED, UNTRIED, Grade, Row
from autograder.pages import write_pages
from autograder.pairs import same_code


def lines(grade: Grade) -> list[str]:
    """One grade as text: a line an exercise, under it what was lost and why."""
    out = [f"{grade.student}: {grade.points:g} of {grade.out_of:g} points"]
    if grade.refused:
        return [*out, f"  {grade.refused}"]
    for name in dict.fromkeys(r.exercise for r in grade.rows):
        out += _exercise(name, grade.of(name))
    waiting = {k: v for k, v in grade.by_hand.items() if v["attempted"]}
    if waiting:
        out.append(f"  by hand, up to {sum(v['out_of'] for v in waiting.values()):g} more: {', '.join(waiting)}")
    empty = [k for k, v in grade.by_hand.items() if not v["attempted"]]
    if empty:
        out.append(f"  left empty: {', '.join(empty)}")
    return [*out, *(f"  note: {note}" for note in grade.notes), *(f"  for the instructor: {r}" for r in grade.remarks)]


def _exercise(name: str, rows: Sequence[Row]) -> list[str]:
    points, total = sum(r.points for r in rows), sum(r.out_of for r in rows)
    out = [f"  {name:26} {points:4g} / {total:g}"]
    lost = [r for r in rows if r.status != EARNED]
    if lost and len({r.message for r in lost}) == 1 and len(lost) == len(rows):
        return [*out, f"    {lost[0].hint or lost[0].message}"]
    for row in lost:
        out.append(f"    -{row.out_of:g} {row.title}: {row.message}")
    return [*out, *(f"    -> {hint}" for hint in dict.fromkeys(r.hint for r in lost if r.hint))]


class Printer:
    """Progress on the terminal: each grade when it is ready, a bar when there are many."""

    def __init__(self, total: int, lab: str) -> None:
        self.total, self.count, self.start = total, 0, time.monotonic()
        print(f"{lab}: {total} notebook{'s' if total != 1 else ''}")

    def done(self, grade: Grade) -> None:
        """One more grade is ready."""
        self.count += 1
        if self.total <= 3:
            print("\n".join(lines(grade)))
            return
        pace = (time.monotonic() - self.start) / self.count
        bar = "#" * (24 * self.count // self.total)
        left = pace * (self.total - self.count)
        end = "\r" if sys.stdout.isatty() else "\n"
        print(f"[{bar:24}] {self.count}/{self.total}  {left:4.0f} s left  {grade.student[:30]:30}", end=end, flush=True)

    def close(self, grades: Sequence[Grade]) -> None:
        """The summary."""
        if self.total > 3:
            print()
            for grade in grades:
                why = f"  {grade.refused}" if grade.refused else ""
                print(f"{grade.points:6g} / {grade.out_of:g}  {grade.student}{why}")
        if grades:
            print(f"sandbox: {grades[0].sandbox}")


def write_all(grades: Sequence[Grade], folder: Path) -> list[Path]:
    """`index.html` with a page a student, `grades.csv`, `same_code.csv`, `grades.json` and `junit.xml` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    table, full, junit = folder / "grades.csv", folder / "grades.json", folder / "junit.xml"
    alike = folder / "same_code.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        names = list(dict.fromkeys(r.exercise for g in grades for r in g.rows))
        writer = csv.writer(file)
        writer.writerow(["student", "points", "out_of", *names, "status"])
        for g in grades:
            cells = [f"{sum(r.points for r in g.of(n)):g}" for n in names]
            writer.writerow([_plain(g.student), f"{g.points:g}", f"{g.out_of:g}", *cells, _plain(status(g))])
    with alike.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["student", "other", "exercises with the same code", "weight"])
        for pair in same_code(grades):
            writer.writerow([_plain(pair.first), _plain(pair.second), " ".join(pair.exercises), f"{pair.weight:.2f}"])
    full.write_text(json.dumps([g.as_dict() for g in grades], indent=1), encoding="utf-8")
    junit.write_bytes(junit_xml(grades))
    return [write_pages(grades, folder), table, alike, full, junit]


def junit_xml(grades: Sequence[Grade]) -> bytes:
    """One test suite a student, one test case a property: what CI systems and GitHub Classroom read."""
    root = ElementTree.Element("testsuites")
    for g in grades:
        lost = [r for r in g.rows if r.status != EARNED]
        counts = {"tests": str(len(g.rows)), "failures": str(len(lost)), "time": f"{g.seconds:.3f}"}
        suite = ElementTree.SubElement(root, "testsuite", {"name": _xml(g.student), **counts})
        for r in g.rows:
            name = f"{r.title} ({r.points:g}/{r.out_of:g})"
            case = ElementTree.SubElement(suite, "testcase", {"classname": r.exercise, "name": name})
            if r.status != EARNED:
                ElementTree.SubElement(case, "failure", {"message": _xml(r.hint or r.message)})
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _xml(text: str) -> str:
    """Text without the control characters that XML cannot hold."""
    return "".join(ch for ch in text if ch in "\n\t" or ch.isprintable())


def status(grade: Grade) -> str:
    """graded, empty, or why it was refused."""
    if grade.refused:
        return grade.refused
    return "empty" if all(r.status == UNTRIED for r in grade.rows) else "graded"


def _plain(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text
