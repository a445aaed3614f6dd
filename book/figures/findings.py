"""Recorded experiments (`benchmarks/findings/*.json`) as figures, tables and sentences."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .style import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.findings.common import Finding

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # pages run in book/; the scripts that record findings lie beside it
    sys.path.append(str(ROOT))


def load(path: str | Path) -> "Finding":
    """Read a finding; `path` is relative to the page, such as ``../benchmarks/findings/simclr_head.json``."""
    from benchmarks.findings.common import Finding

    return Finding.load(path)


def plot(finding: "Finding", order: list[str] | None = None, labels: dict[str, str] | None = None) -> "Figure":
    """Every seed as a dot, joined across arms within a seed; the mean and its interval in orange."""
    import matplotlib.pyplot as plt

    arms = order or list(finding.arms)
    figure, axis = plt.subplots(figsize=(6.4, 3.0))
    for k in range(len(finding.seeds)):
        values = [finding.arms[arm][k] for arm in arms]
        axis.plot(range(len(arms)), values, color=GREY, lw=0.8, alpha=0.6, zorder=1)
        axis.plot(range(len(arms)), values, "o", color=BLUE, ms=4, zorder=2)
    for x, arm in enumerate(arms):
        mean = finding.mean(arm)
        error = [[mean.value - mean.low], [mean.high - mean.value]]
        axis.errorbar(x + 0.12, mean.value, yerr=error, fmt="s", color=ORANGE, ms=6, capsize=4, lw=1.8, zorder=3)
    axis.set_xticks(range(len(arms)), [(labels or {}).get(arm, arm) for arm in arms])
    axis.set_xlim(-0.4, len(arms) - 0.6)
    axis.set_ylabel(finding.metric)
    return figure


def table(finding: "Finding", order: list[str] | None = None, labels: dict[str, str] | None = None) -> Any:
    """Arms, means with intervals, paired differences to the baseline: a Markdown table for the page."""
    from IPython.display import Markdown

    rows = [f"| arm | {finding.metric} | difference to *{(labels or {}).get(finding.baseline, finding.baseline)}* |"]
    rows.append("|---|---|---|")
    for arm in order or list(finding.arms):
        mean, gap = finding.mean(arm), finding.difference(arm)
        name = (labels or {}).get(arm, arm)
        change = "" if arm == finding.baseline else f"{gap.value:+.3f} {gap.interval}"
        rows.append(f"| {name} | {mean.value:.3f} {mean.interval} | {change} |")
    return Markdown("\n".join(rows))


def grid(finding: "Finding", rows: dict[str, str], columns: dict[str, str], corner: str = "arm") -> Any:
    """Means with intervals of arms named "row, column"; an arm that is missing leaves its cell empty.

    Bold: the interval of the paired difference to the first row, in the same column, excludes 0.
    """
    from IPython.display import Markdown

    first = next(iter(rows))

    def cell(row: str, column: str) -> str:
        arm, base = f"{row}, {column}", f"{first}, {column}"
        if arm not in finding.arms:
            return ""
        mean, gap = finding.mean(arm), finding.difference(arm, base)
        text = f"{mean.value:.3f} {mean.interval.replace(' ', chr(160))}"  # a narrow cell breaks before the interval
        return f"**{text}**" if gap.low > 0 or gap.high < 0 else text

    lines = [f"| {corner} | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(cell(row, c) for c in columns) + " |" for row, name in rows.items()]
    return Markdown("\n".join(lines))
