"""All findings on one page: what was claimed, what was measured, whether it shows.

    python -m benchmarks.findings.page            # write FINDINGS.md and its figures; --check: are they up to date?

A claim says that one arm is above another. It shows if the 95 % interval of the difference within seeds is above 0.
Claims stand in `claims`, which says how to add one; every number here comes from a record.
"""

import argparse
import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.findings.claims import CLAIMS, Arm, Claim
from benchmarks.findings.common import FOLDER, Finding
from benchmarks.findings.notes import NOTES
from sslcourse.evaluate.result import Result, seed_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE, FIGURES = FOLDER.parent / "FINDINGS.md", FOLDER / "figures"
BLUE, ORANGE, GREY = "#0b5a87", "#d1651f", "#6b7680"
MIN_SEEDS, MAX_DRAWN = 5, 14  # a record with fewer is still being made; a panel with more shows what claims name
VERDICTS = ("shows", "does not show", "the opposite shows")
INTRODUCTION = """# What the papers found, in miniature

Written by `python -m benchmarks.findings.page` from the records in `findings/`, one JSON file an experiment.

**How to read it.** A claim says that one arm of an experiment is above another, as the source that its script names
reports it. Within a seed all arms share images, initial weights and order wherever the arm itself does not change
them, so what is compared is the difference within a seed. A claim *shows* if the 95 % interval of the mean difference
(Student's t over the seeds) lies above 0, *the opposite shows* if it lies below, and otherwise it *does not show*:
these networks, minutes and seeds leave it open, and it may well hold at the paper's scale.

**How much to believe.**

- Every interval stands alone: of {number} claims without any truth, about {chance} would show by chance.
- Counts are no score. Several claims of one experiment are one idea asked in several ways, and some are of arithmetic
  (masks, shares of a softmax, random vectors), which needs no training and hardly can fail.
- With so few seeds nobody can check that differences are normal, as t wants them. An interval that nearly touches 0 is
  weak evidence.
- Unless a script says otherwise, its settings were found by trying a few on one or two seeds, which may be among those
  recorded; the notes say what else was tried.
- Where the network is a shipped one (most of parts 10 to 12), a seed draws scenes, labels and what is trained on top.
  The interval then says nothing on another training of that network.
- All of it is drawn scenes and small networks. Why an effect exists shows here; how large it is elsewhere does not.

Brackets in the tables are the 95 % interval of a mean over seeds. Seeds often differ by more than arms do, and those
differences cancel within a seed: compare arms by the claims, not by whether brackets overlap. Times are what all arms
of one seed took together, on two cores that other work often shared: *wall* time (early records) is longer for it,
*CPU* time counts all threads. They say about how long to wait and compare nothing.
"""


def values(record: Finding, arm: Arm) -> list[float]:
    """One value a seed, of an arm or of the difference of two."""
    if isinstance(arm, str):
        return record.arms[arm]
    return [a - b for a, b in zip(*(record.arms[side] for side in arm), strict=True)]


def difference(claim: Claim, record: Finding) -> Result:
    """Mean paired difference that a claim is about, with its 95 % t interval."""
    pairs = zip(values(record, claim.arm), values(record, claim.base), strict=True)
    return seed_interval([a - b for a, b in pairs], claim.says)


def verdict(claim: Claim, record: Finding) -> str:
    """What the interval of the paired difference says about a claim."""
    gap = difference(claim, record)
    return VERDICTS[0 if gap.low > 0 else 2 if gap.high < 0 else 1]


def records(folder: Path = FOLDER) -> dict[str, Finding]:
    """The records that claims are about, in their order; those without enough seeds are left out."""
    names = dict.fromkeys(claim.record for claims in CLAIMS.values() for claim in claims)
    paths = ((name, folder / f"{name}.json") for name in names)
    found = {name: Finding.load(path) for name, path in paths if path.exists()}
    return {name: record for name, record in found.items() if len(record.seeds) >= MIN_SEEDS}


def parts(found: dict[str, Finding]) -> dict[str, list[Claim]]:
    """Heading -> the claims that have a record; a part without any is left out."""
    kept = {part: [claim for claim in claims if claim.record in found] for part, claims in CLAIMS.items()}
    return {part: claims for part, claims in kept.items() if claims}


def grid(arms: Iterable[str]) -> tuple[list[str], list[str], dict[tuple[str, str], str]] | None:
    """Rows, columns and cell -> arm if names like "DINO, kNN" or "SAM: IoU" fill a table, or None."""
    names = list(arms)
    for mark in (": ", ", "):
        if all(mark in name for name in names):
            split = {tuple(name.split(mark, 1) if mark == ": " else name.rsplit(mark, 1)): name for name in names}
            rows, columns = (list(dict.fromkeys(key[i] for key in split)) for i in (0, 1))
            if min(len(rows), len(columns)) < 2 or 4 * len(names) < 3 * len(rows) * len(columns):
                return None
            if len(columns) > len(rows):
                return columns, rows, {(b, a): name for (a, b), name in split.items()}
            return rows, columns, {(a, b): name for (a, b), name in split.items()}
    return None


def table(record: Finding) -> list[str]:
    """Mean and interval of every arm as a Markdown table, two-dimensional where the names allow it."""

    def cell(arm: str | None) -> str:
        return "" if arm is None else f"{record.mean(arm).value:.3f} {record.mean(arm).interval}"

    made = grid(record.arms)
    if made is None:
        return ["| arm | mean |", "|---|---|", *(f"| {arm} | {cell(arm)} |" for arm in record.arms)]
    rows, columns, cells = made
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return lines + [f"| {row} | " + " | ".join(cell(cells.get((row, c))) for c in columns) + " |" for row in rows]


def described(name: str) -> tuple[list[str], str]:
    """The docstring of a script without its command, as Markdown lines; and the command."""
    docstring = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))) or ""
    command = re.search(rf"(\w+=\w+ )?python -m benchmarks\.findings\.{name}\b", docstring)
    words = docstring if command is None else docstring.replace(command[0], "")
    blocks = [block.strip() for block in words.split("\n\n")]
    lines = [line for block in blocks if block for line in (*block.splitlines(), "")]
    return lines, f"python -m benchmarks.findings.{name}" if command is None else command[0]


def plain(value: object) -> str:
    """A setting as text: lists and nested settings without quotes and braces."""
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {plain(each)}" for key, each in value.items()) + ")"
    return ", ".join(map(plain, value)) if isinstance(value, list) else str(value)


def section(name: str, record: Finding) -> list[str]:
    """One experiment: what was asked and done, all arms, and how to repeat it."""
    shortest, longest = min(record.seconds), max(record.seconds)
    setting = "; ".join(f"{key} {plain(value)}" for key, value in record.setting.items())
    words, command = described(name)
    lines = ["", f"### {name}", "", *words, f"Measured: {record.metric}.", "", *table(record), ""]
    lines += [NOTES[name], ""] if name in NOTES else []
    return [
        *lines,
        f"{len(record.seeds)} seeds, {shortest:.0f} to {longest:.0f} s each ({record.clock} time); `{command}`.",
        "",
        f"Shared by all arms: {setting}.",
    ]


def signed(number: float, gap: Result) -> str:
    """A difference with as many digits as its interval needs."""
    return f"{number:+.{3 if max(abs(gap.low), abs(gap.high)) >= 0.002 else 4}f}"


def named(arm: Arm) -> str:
    return f"*{arm}*" if isinstance(arm, str) else f"(*{arm[0]}* - *{arm[1]}*)"


def count(verdicts: list[str]) -> str:
    return " | ".join(str(verdicts.count(each)) for each in VERDICTS)


def picture(part: str) -> Path:
    """Where the figure of a part is kept: figures/part-3.png."""
    return FIGURES / (part.split(":")[0].lower().replace(" ", "-") + ".png")


def page(found: dict[str, Finding]) -> str:
    """The whole page as Markdown."""
    judged = {part: [(each, verdict(each, found[each.record])) for each in c] for part, c in parts(found).items()}
    said = [verdict for claims in judged.values() for _, verdict in claims]
    introduction = INTRODUCTION.format(number=len(said), chance=round(0.025 * len(said)))
    lines = [introduction, f"| part | {' | '.join(VERDICTS)} |", "|---|---|---|---|"]
    for part, claims in judged.items():
        link = part.lower().replace(":", "").replace(",", "").replace("'", "").replace(" ", "-")
        lines.append(f"| [{part}](#{link}) | {count([verdict for _, verdict in claims])} |")
    lines.append(f"| all | {count(said)} |")
    for part, claims in judged.items():
        names = list(dict.fromkeys(claim.record for claim, _ in claims))
        lines += ["", f"## {part}", "", "| experiment | claim | arms | difference | 95 % interval | verdict |"]
        lines.append("|---|---|---|---|---|---|")
        for claim, verdict_ in claims:
            gap = difference(claim, found[claim.record])
            low, value, high = (signed(number, gap) for number in (gap.low, gap.value, gap.high))
            arms = f"{named(claim.arm)} - {named(claim.base)}"
            link = f"[{claim.record}](#{claim.record})"
            lines.append(f"| {link} | {claim.says} | {arms} | {value} | {low} to {high} | {verdict_} |")
        where = picture(part).relative_to(PAGE.parent).as_posix()
        lines += ["", f"![{part}. A panel an experiment ({', '.join(names)}): every seed a blue dot,"]
        lines[-1] += f" mean and 95 % interval of each arm in orange beside it.]({where})"
        for name in names:
            lines += section(name, found[name])
    missing = list(dict.fromkeys(c.record for claims in CLAIMS.values() for c in claims if c.record not in found))
    if missing:
        lines += ["", "## Not recorded", "", f"These have a script and claims but not yet {MIN_SEEDS} seeds.", ""]
        lines += [f"- `{name}`. {NOTES.get(name, '')}".rstrip() for name in missing]
    return "\n".join(lines) + "\n"


def shown(record: Finding, claims: Iterable[Claim]) -> list[str]:
    """The arms that a panel shows: all, measure by measure, or where they are too many those that claims name."""
    if len(record.arms) <= MAX_DRAWN:
        rows, columns, cells = grid(record.arms) or (list(record.arms), [""], {(arm, ""): arm for arm in record.arms})
        return [cells[row, column] for column in columns for row in rows if (row, column) in cells]
    sides = [side for claim in claims if claim.record == record.name for side in (claim.arm, claim.base)]
    wanted = {arm for side in sides for arm in ([side] if isinstance(side, str) else side)}
    return [arm for arm in record.arms if arm in wanted]


def draw(axis: "Axes", record: Finding, arms: list[str]) -> None:
    """One experiment: arms from top to bottom, every seed a dot, the mean and its interval in orange."""
    for y, arm in enumerate(arms):
        mean = record.mean(arm)
        axis.plot(record.arms[arm], [y - 0.12] * len(record.seeds), "o", color=BLUE, ms=3, alpha=0.7)
        error = [[mean.value - mean.low], [mean.high - mean.value]]
        axis.errorbar(mean.value, y + 0.18, xerr=error, fmt="s", color=ORANGE, ms=4, capsize=3, lw=1.4)
    axis.set_yticks(range(len(arms)), arms)
    axis.set_ylim(len(arms) - 0.5, -0.5)
    axis.set_title(record.name, loc="left", fontsize=10)
    axis.set_xlabel(record.metric if len(record.metric) < 45 else "see the text", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="x", color=GREY, alpha=0.2)


def digest(part: str, found: dict[str, Finding]) -> str:
    """What a figure was drawn from, as a number that is kept in the file: of the arms and the values in it."""
    panels = {name: shown(found[name], CLAIMS[part]) for name in _names(part, found)}
    drawn = [(arms, asdict(found[name])) for name, arms in panels.items()]
    for _, record in drawn:
        for varying in ("seconds", "clock"):
            record.pop(varying)
    return hashlib.sha256(json.dumps(drawn).encode()).hexdigest()[:16]


def _names(part: str, found: dict[str, Finding]) -> list[str]:
    return list(dict.fromkeys(claim.record for claim in CLAIMS[part] if claim.record in found))


def figure(part: str, found: dict[str, Finding], path: Path) -> None:
    """The experiments of a part, two panels a row, each row as high as it has arms."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [(found[name], shown(found[name], CLAIMS[part])) for name in _names(part, found)]
    columns = min(2, len(panels))
    heights = [max(len(arms) for _, arms in panels[i : i + columns]) + 2.5 for i in range(0, len(panels), columns)]
    size = (4.8 * columns + (columns == 1), 0.26 * sum(heights))
    drawn, axes = plt.subplots(
        len(heights), columns, figsize=size, layout="constrained", squeeze=False, height_ratios=heights
    )
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (record, arms) in zip(axes.flat, panels, strict=False):
        draw(axis, record, arms)
    drawn.savefig(path, dpi=110, metadata={"Description": digest(part, found)})
    plt.close(drawn)


def stale(found: dict[str, Finding]) -> list[str]:
    """What does not say what the records say: the page, figures of other values, figures of no part."""
    from PIL import Image

    late = [] if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page(found) else [PAGE.name]
    paths = {picture(part): digest(part, found) for part in parts(found)}
    for path, wanted in paths.items():
        if not path.exists() or Image.open(path).info.get("Description") != wanted:
            late.append(path.name)
    return late + sorted(path.name for path in FIGURES.glob("*.png") if path not in paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if something is out of date")
    found = records()
    late = stale(found)
    if parser.parse_args().check:
        sys.exit(f"out of date: {', '.join(late)}; python -m benchmarks.findings.page" if late else None)
    FIGURES.mkdir(exist_ok=True)
    paths = {picture(part): part for part in parts(found)}
    for path in FIGURES.glob("*.png"):
        if path not in paths:
            path.unlink()
    for path, part in paths.items():
        if path.name in late:
            figure(part, found, path)
    PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
