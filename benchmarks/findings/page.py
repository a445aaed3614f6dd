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
    Claim("batch_queue", "a larger batch is better", "batch 64, no queue", "batch 16, no queue"),
    Claim("batch_queue", "a queue can replace it", "batch 16, queue 256", "batch 16, no queue"),
    Claim("batch_queue", "a queue helps a larger batch, too", "batch 64, queue 256", "batch 64, no queue"),
    Claim("rotation_symmetry", "a turn can be told only if the shape shows it", "asymmetric", "symmetric"),
    Claim("densecl_localisation", "a loss on cells helps where places matter", "global and dense", "global"),
    Claim("dilo_background", "other backgrounds make it look at the object", "SimCLR with DiLo's views", "SimCLR"),
    Claim("looc_rotation", "whoever is to ignore turns does not know them", "no turns: h", "turns: h"),
    Claim("looc_rotation", "LooC's h knows them", "LooC: h", "turns: h"),
    Claim("looc_rotation", "more than the space indifferent to all", "LooC: h", "LooC: z_all"),
    Claim("looc_rotation", "and so does the space that leaves them out", "LooC: z_rotation", "LooC: z_all"),
    Claim("hard_negatives", "HCL improves on SimCLR", "HCL", "SimCLR"),
    Claim("hard_negatives", "MoCHi improves on MoCo v2", "MoCHi", "MoCo v2"),
    Claim(
        "colour_supervised", "strong colour hurts supervised training", "supervised, crop", "supervised, strong colour"
    ),
    Claim("colour_supervised", "and helps SimCLR", "SimCLR, strong colour", "SimCLR, crop"),
    Claim("colour_supervised", "AutoAugment suits labels", "supervised, AutoAugment", "supervised, strong colour"),
    Claim("colour_supervised", "and SimCLR less", "SimCLR, strong colour", "SimCLR, AutoAugment"),
)
NOTES: dict[str, str] = {
    "batch_queue": "One setting was tried. All arms take the same number of steps, so the larger batch has also seen "
    "four times as many images: its gain is not one of negatives alone. "
    "With 16 images nothing is learned, queue or not.",
    "dilo_background": "Tried on one seed: MoCo v2, on which the paper builds, 150 steps of 32 images, with DiLo and "
    "without. Both arms stayed where the untrained network is, hence SimCLR and more steps here.",
    "looc_rotation": "Tried on two seeds: 150 steps of 32 images leave all probes where the random network is.",
    "densecl_localisation": "Tried on two seeds: 150 steps of 32 images leave both arms where the random network is.",
    "supcon_in_out": "After so few steps L_in knows no more than the untrained network.",
    "simclr_augmentation": "In `Shapes` only outlines tell the classes, and crops cut them off: whole images with "
    "jittered colours do best, which is why the preset hardly crops. The shortcut of colour shows all the more.",
}


def verdict(claim: Claim, record: Finding) -> str:
    """What the interval of the paired difference says about a claim."""
    gap = record.difference(claim.arm, claim.base)
    return "shows" if gap.low > 0 else "the opposite shows" if gap.high < 0 else "does not show"


def records(folder: Path = FOLDER) -> dict[str, Finding]:
    """The records that claims are about, in their order; those that have not been made are left out."""
    paths = {claim.record: folder / f"{claim.record}.json" for claim in CLAIMS}
    return {name: Finding.load(path) for name, path in paths.items() if path.exists()}


def page(found: dict[str, Finding]) -> str:
    """The whole page as Markdown."""
    claims = [claim for claim in CLAIMS if claim.record in found]
    verdicts = [verdict(claim, found[claim.record]) for claim in claims]
    lines = [
        "# What the papers found, in miniature",
        "",
        "Written by `python -m benchmarks.findings.page` from the records in `findings/`. A claim *shows* if the 95 % "
        "interval of the difference within seeds (paired, t) is above 0. "
        f"{verdicts.count('shows')} of {len(claims)} do.",
        "",
        f"![{len(found)} panels, one for each experiment: every seed as a dot, mean and interval of each arm beside it."
        f"]({FIGURE.name})",
        "",
        "| experiment | claim | arms | difference | 95 % interval | |",
        "|---|---|---|---|---|---|",
    ]
    for claim, said in zip(claims, verdicts, strict=True):
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
    missing = list(dict.fromkeys(claim.record for claim in CLAIMS if claim.record not in found))
    if missing:
        lines += ["", "## Not recorded", "", "These have a script and claims but no five seeds yet.", ""]
        lines += [f"- `{name}`. {NOTES.get(name, '')}".rstrip() for name in missing]
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
