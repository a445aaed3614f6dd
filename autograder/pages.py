"""Grades as web pages: one a student, one overview. Plain HTML, readable offline and on a phone."""

from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

from autograder.batch import safe_name
from autograder.grade import EARNED, UNTRIED, Grade, Row
from autograder.pairs import same_code

_PAIRS = 30  # as many are shown; all are in same_code.csv

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #2a7d46; --bad: #b3412f; --soft: #8881; }
@media (prefers-color-scheme: dark) { :root { --good: #6cc48a; --bad: #f08c78; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; display: flex; justify-content: space-between; }
ul { list-style: none; padding: 0; margin: 0; } li { border-top: 1px solid var(--line); padding: .4rem 0 .4rem 1.6rem; }
li::before { content: "\\2713"; color: var(--good); margin-left: -1.6rem; width: 1.6rem; display: inline-block; }
li.lost::before { content: "\\2717"; color: var(--bad); } .points { float: right; opacity: .7; margin-left: .6rem; }
p { margin: .3rem 0; } .hint { border-left: 3px solid var(--good); background: var(--soft); padding: .4rem .8rem; }
pre { background: var(--soft); padding: .6rem; overflow: auto; max-height: 20rem; font-size: .85rem; }
table { border-collapse: collapse; width: 100%; } td, th { border-top: 1px solid var(--line); padding: .3rem; }
td, th { text-align: left; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
.bars { display: flex; align-items: end; gap: 2px; height: 2rem; width: 11rem; }
.bars i { background: var(--good); flex: 1; min-height: 1px; } small { opacity: .7; }
@media (max-width: 40rem) { table { font-size: .85rem; } td, th { overflow-wrap: anywhere; } .bars { width: 4.5rem; } }
"""


def student_page(grade: Grade) -> str:
    """The feedback of one student: what each property earned, why one did not, and which mistake it looks like."""
    body = [f"<h1>{escape(grade.lab)}: {grade.points:g} of {grade.out_of:g} points</h1>"]
    body.append(f"<p>{escape(grade.student)}</p>")
    if grade.refused:
        body.append(f"<p class='hint'>{escape(grade.refused)}</p>")
    body += [f"<p><small>{escape(note)}</small></p>" for note in grade.notes]
    if not grade.refused:
        for name in dict.fromkeys(r.exercise for r in grade.rows):
            body.append(_exercise(name, grade.of(name), grade.output.get(name, "")))
    if grade.by_hand:
        items = "".join(
            f"<li class='{'' if v['attempted'] else 'lost'}'>{escape(k)} <small>"
            f"{'up to' if v['attempted'] else 'left empty;'} {v['out_of']:g}</small></li>"
            for k, v in grade.by_hand.items()
        )
        body.append(f"<h2>Graded by hand</h2><ul>{items}</ul>")
    return _page(f"{grade.lab}, {grade.student}", "\n".join(body))


def _exercise(name: str, rows: Sequence[Row], output: str) -> str:
    points, total = sum(r.points for r in rows), sum(r.out_of for r in rows)
    items = []
    for row in rows:
        text = f"<span class='points'>{row.points:g} / {row.out_of:g}</span>{escape(row.title)}"
        if row.status != EARNED:
            text += f"<p>{escape(row.message)}</p>"
        items.append(f"<li class='{'' if row.status == EARNED else 'lost'}'>{text}</li>")
    hints = "".join(f"<p class='hint'>{escape(h)}</p>" for h in dict.fromkeys(r.hint for r in rows if r.hint))
    shown = f"<details><summary>Output of your code</summary><pre>{escape(output)}</pre></details>" if output else ""
    head = f"<h2><span>{escape(name)}</span><span>{points:g} / {total:g}</span></h2>"
    return f"{head}{hints}<ul>{''.join(items)}</ul>{shown}"


def overview_page(grades: Sequence[Grade]) -> str:
    """The instructor's page: the spread of each exercise, the most frequent diagnoses, every student, every remark."""
    lab = grades[0].lab if grades else ""
    body = [f"<h1>{escape(lab)}: {len(grades)} hand-ins</h1>", "<h2>Exercises</h2>", _exercises_table(grades)]
    found = Counter((r.exercise, r.hint) for g in grades for r in _first_diagnoses(g))
    if found:
        cells = "".join(
            f"<tr><td class='n'>{n}</td><td>{escape(e)}</td><td>{escape(h)}</td></tr>"
            for (e, h), n in found.most_common(15)
        )
        body.append(f"<h2>Most frequent mistakes</h2><table>{cells}</table>")
    rows = "".join(
        f"<tr><td><a href='students/{escape(safe_name(g.student))}.html'>{escape(g.student)}</a></td>"
        f"<td class='n'>{g.points:g}</td><td>{escape(_summary(g))}</td></tr>"
        for g in grades
    )
    body.append(f"<h2>Students</h2><table><tr><th>student</th><th>points</th><th></th></tr>{rows}</table>")
    body += _same_code(grades)
    if grades:
        body.append(f"<p><small>Sandbox: {escape(grades[0].sandbox)}</small></p>")
    return _page(f"{lab}, overview", "\n".join(body))


def _same_code(grades: Sequence[Grade]) -> list[str]:
    pairs = same_code(grades)
    if not pairs:
        return []
    rows = "".join(
        f"<tr><td>{escape(p.first)}</td><td>{escape(p.second)}</td><td>{escape(', '.join(p.exercises))}</td></tr>"
        for p in pairs[:_PAIRS]
    )
    more = f" The other {len(pairs) - _PAIRS} pairs are in same_code.csv." if len(pairs) > _PAIRS else ""
    note = (
        "A place to look, not a verdict: the same code apart from names, comments and layout. What the course itself "
        f"shows, and answers of one or two statements, are not counted; code that few share comes first.{more}"
    )
    return [f"<h2>Same code</h2><p><small>{note}</small></p><table>{rows}</table>"]


def _exercises_table(grades: Sequence[Grade]) -> str:
    rows = []
    counted = [g for g in grades if not g.refused]
    for name in dict.fromkeys(r.exercise for g in counted for r in g.rows):
        scores = [sum(r.points for r in g.of(name)) for g in counted]
        total = sum(r.out_of for r in counted[0].of(name))
        mean = sum(scores) / len(scores)
        full = sum(s == total for s in scores)
        empty = sum(all(r.status == UNTRIED for r in g.of(name)) for g in counted)
        rows.append(
            f"<tr><td>{escape(name)}</td><td>{_spread(scores, total)}</td><td class='n'>{mean:.1f} / {total:g}</td>"
            f"<td class='n'>{full}</td><td class='n'>{empty}</td></tr>"
        )
    head = "<tr><th>exercise</th><th>0 to all points</th><th>mean</th><th>full marks</th><th>not tried</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _spread(scores: Sequence[float], total: float) -> str:
    """How many students have which share of the points, as ten small bars."""
    counts = [0] * 10
    for score in scores:
        counts[min(9, int(10 * score / total)) if total else 0] += 1
    bars = [
        f"<i style='height:{100 * n / max(counts):.0f}%' title='{10 * i} to {10 * i + 10} %: {n}'></i>"
        for i, n in enumerate(counts)
    ]
    return f"<span class='bars'>{''.join(bars)}</span>"


def _first_diagnoses(grade: Grade) -> list[Row]:
    """One row for each different diagnosis of a student."""
    return list({(r.exercise, r.diagnosis): r for r in grade.rows if r.diagnosis}.values())


def _summary(grade: Grade) -> str:
    opened = ", ".join(f"{e} {level}" for e, level in sorted(grade.hints_used.items()))
    parts = [grade.refused, *grade.remarks, f"hints opened: {opened}" if opened else ""]
    return " ".join(p for p in parts if p)


def _page(title: str, body: str) -> str:
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def write_pages(grades: Sequence[Grade], folder: Path) -> Path:
    """`index.html` and `students/<name>.html`."""
    pages = folder / "students"
    pages.mkdir(parents=True, exist_ok=True)
    for grade in grades:
        (pages / f"{safe_name(grade.student)}.html").write_text(student_page(grade), encoding="utf-8")
    index = folder / "index.html"
    index.write_text(overview_page(grades), encoding="utf-8")
    return index
