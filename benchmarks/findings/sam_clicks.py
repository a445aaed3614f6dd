"""Clicks against IoU: the shipped tiny SAM on unseen scenes, with an annotator who clicks the worst error.

python -m benchmarks.findings.sam_clicks
"""

from typing import Any

from benchmarks.findings.common import Finding, run
from sslcourse.segment.files import load_tiny
from sslcourse.segment.scenes import draw_scenes
from sslcourse.segment.scoring import box_ious, click_ious

PRESET, SCENES, CLICKS = "captions", 30, 9
PARTS = ("whole", "emblem", "dot")


def measure(seed: int) -> dict[str, float]:
    """Mean IoU over the parts of a seed's own scenes: best of three for one click, after 1 .. 9 clicks, for a box."""
    model, scenes = load_tiny(), draw_scenes(SCENES, "test", presets=(PRESET,), start=SCENES * seed)
    values: dict[str, float] = {}
    for part, name in enumerate(PARTS):
        oracle, chosen = click_ious(model, scenes, part, CLICKS)
        values[f"{name}: best of three"] = float(oracle.mean())
        values |= {f"{name}: {k + 1}": float(v) for k, v in enumerate(chosen.mean(dim=0))}
        values[f"{name}: box"] = float(box_ious(model, scenes, part).mean())
    return values


def setting() -> dict[str, Any]:
    return {"preset": PRESET, "scenes": SCENES, "clicks": CLICKS}


if __name__ == "__main__":
    question = "How good are wholes, emblems and dots after one to nine clicks?"
    run(Finding("sam_clicks", question, "IoU", "whole: 1", setting()), measure)
