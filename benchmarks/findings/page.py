"""The findings of contrastive learning on one page: what was claimed, what was measured, whether it shows.

    python -m benchmarks.findings.page            # write FINDINGS.md and its figure; --check: are they up to date?

A claim says that one arm is above another. It shows if the 95 % interval of the difference within seeds is above 0.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.findings.common import FOLDER, Finding

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE, FIGURE = FOLDER.parent / "FINDINGS.md", FOLDER.parent / "findings.png"
BLUE, ORANGE, GREY = "#0b5a87", "#d1651f", "#6b7680"


class Claim(NamedTuple):
    """`arm` is above `base` in the record of this name; `says` is what the paper found."""

    record: str
    says: str
    arm: str
    base: str


CLAIMS = (
    Claim("simclr_temperature", "a temperature can be too low", "tau 0.2", "tau 0.02"),
    Claim("simclr_temperature", "a temperature can be too high", "tau 0.2", "tau 2"),
    Claim("effective_negatives", "the higher the temperature, the more negatives count", "tau 1", "tau 0.02"),
    Claim("simclr_augmentation", "crops need colour jitter beside them", "crop and colour", "crop only"),
    Claim("simclr_augmentation", "colour jitter needs crops beside it", "crop and colour", "colour only"),
    Claim("simclr_head", "h is better than z", "head, h", "head, z"),
    Claim("simclr_head", "a head improves h", "head, h", "no head, h"),
    Claim("moco_momentum", "the key encoder may not be a copy", "m 0.99", "m 0"),
    Claim("moco_momentum", "nor stand nearly still", "m 0.99", "m 0.9999"),
    Claim("supcon_in_out", "the mean over positives belongs outside the logarithm", "L_out", "L_in"),
    Claim("rotation_symmetry", "a turn can be told only if the shape shows it", "asymmetric", "symmetric"),
)
NOTES: dict[str, str] = {
    "simclr_augmentation": "In `Shapes` only outlines tell the classes, and crops cut them off: whole images with "
    "jittered colours do best, which is why the preset hardly crops. The shortcut of colour shows all the more.",
}


def verdict(claim: Claim, record: Finding) -> str:
    """What the interval of the paired difference says about a claim."""
    gap = record.difference(claim.arm, claim.base)
    return "shows" if gap.low > 0 else "the opposite shows" if gap.high < 0 else "does not show"


def records(folder: Path = FOLDER) -> dict[str, Finding]:
    """The records that claims are about, in their order."""
    return {claim.record: Finding.load(folder / f"{claim.record}.json") for claim in CLAIMS}


def page(found: dict[str, Finding]) -> str:
    """The whole page as Markdown."""
    verdicts = [verdict(claim, found[claim.record]) for claim in CLAIMS]
    lines = [
        "# What the papers found, in miniature",
        "",
        "Written by `python -m benchmarks.findings.page` from the records in `findings/`; no number here is typed. A "
        "claim *shows* if the 95 % interval of the difference within seeds (paired, t) is above 0. "
        f"{verdicts.count('shows')} of {len(CLAIMS)} do.",
        "",
        f"![{len(found)} panels, one for each experiment: every seed as a dot, mean and interval of each arm beside it."
        f"]({FIGURE.name})",
        "",
        "| experiment | claim | arms | difference | 95 % interval | |",
        "|---|---|---|---|---|---|",
    ]
    for claim, said in zip(CLAIMS, verdicts, strict=True):
        gap = found[claim.record].difference(claim.arm, claim.base)
        arms = f"*{claim.arm}* - *{claim.base}*"
        interval = f"{gap.low:+.3f} to {gap.high:+.3f}"
        link = f"[{claim.record}](#{claim.record})"
        lines.append(f"| {link} | {claim.says} | {arms} | {gap.value:+.3f} | {interval} | {said} |")
    for name, record in found.items():
        lines += ["", f"## {name}", "", record.question, "", f"| arm | {record.metric} |", "|---|---|"]
        lines += [f"| {arm} | {record.mean(arm).value:.3f} {record.mean(arm).interval} |" for arm in record.arms]
        lines += ["", f"{len(record.seeds)} seeds; `python -m benchmarks.findings.{name}`."]
        lines += ["", NOTES[name]] if name in NOTES else []
    return "\n".join(lines) + "\n"


def draw(axis: "Axes", record: Finding) -> None:
    """One experiment: arms from top to bottom, every seed a dot, the mean and its interval in orange."""
    for y, arm in enumerate(record.arms):
        mean = record.mean(arm)
        axis.plot(record.arms[arm], [y - 0.12] * len(record.seeds), "o", color=BLUE, ms=3, alpha=0.7)
        error = [[mean.value - mean.low], [mean.high - mean.value]]
        axis.errorbar(mean.value, y + 0.18, xerr=error, fmt="s", color=ORANGE, ms=4, capsize=3, lw=1.4)
    axis.set_yticks(range(len(record.arms)), list(record.arms))
    axis.set_ylim(len(record.arms) - 0.5, -0.5)
    axis.set_title(record.name, loc="left", fontsize=10)
    axis.set_xlabel(record.metric, fontsize=8)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="x", color=GREY, alpha=0.2)


def figure(found: dict[str, Finding], path: Path = FIGURE) -> None:
    """All experiments, two panels a row."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = -(-len(found) // 2)
    panels, axes = plt.subplots(rows, 2, figsize=(9, 2.1 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat[len(found) :]:
        axis.remove()
    for axis, record in zip(axes.flat, found.values(), strict=False):
        draw(axis, record)
    panels.savefig(path, dpi=110)
    plt.close(panels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if FINDINGS.md is out of date")
    found = records()
    if parser.parse_args().check:
        sys.exit(None if page(found) == PAGE.read_text() else "out of date: python -m benchmarks.findings.page")
    PAGE.write_text(page(found))
    figure(found)


if __name__ == "__main__":
    main()
