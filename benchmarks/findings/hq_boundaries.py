"""Does the HQ token sharpen outlines? The shipped tiny SAM beside the shipped HQ-SAM, which is the same SAM, frozen.

Both answer the same tight boxes. IoU hardly sees a rim of one pixel; boundary IoU sees nothing else. A seed is a set of
unseen scenes of its own: the interval is over scenes, not over training runs.
python -m benchmarks.findings.hq_boundaries
"""

from typing import Any

import torch

from benchmarks.findings.common import Finding, run
from sslcourse.segment.family_scoring import boundary_ious
from sslcourse.segment.files import load_tiny
from sslcourse.segment.scenes import draw_scenes

TEST, WIDTH = 40, 1


def measure(seed: int) -> dict[str, float]:
    """IoU and boundary IoU of wholes and emblems for their boxes."""
    test = draw_scenes(TEST, "test", start=TEST * seed)
    values: dict[str, float] = {}
    for name in ("SAM", "HQ-SAM"):
        model = load_tiny(name="tiny_sam" if name == "SAM" else "tiny_hqsam")
        both = [boundary_ious(model, test, part, WIDTH) for part in (0, 1)]
        values[f"{name}: IoU"] = float(torch.cat([iou for iou, _ in both]).mean())
        values[f"{name}: boundary IoU"] = float(torch.cat([rim for _, rim in both]).mean())
    return values


def setting() -> dict[str, Any]:
    return {"test": TEST, "width": WIDTH}


if __name__ == "__main__":
    question = "Does an HQ token on a frozen SAM improve outlines more than areas?"
    run(Finding("hq_boundaries", question, "IoU for a box", "SAM: boundary IoU", setting()), measure)
