"""Why 75 %? What copying from the nearest visible patch explains of hidden ones, and what a trained MAE does.

python -m benchmarks.findings.mae_mask_ratio

One MAE a seed, trained with random masks of 75 %, paints test images under masks of several ratios and kinds; copying,
which takes no training, paints the same.
"""

from typing import Any

from benchmarks.findings import mae_common as common
from benchmarks.findings import simclr_common as shared
from benchmarks.findings.common import Finding, run
from sslcourse.data.masks import mask_order
from sslcourse.data.rng import step_generator
from sslcourse.evaluate.reconstruction import copy_nearest, paint, unexplained

MASKS = (
    ("random", 0.25),
    ("random", 0.5),
    ("random", 0.75),
    ("random", 0.9),
    ("block", 0.5),
    ("block", 0.75),
    ("grid", 0.75),
)


def setting() -> dict[str, Any]:
    """What all arms share, for the record."""
    return common.setting(common.FINE)


def measure(seed: int) -> dict[str, float]:
    """Explained share of hidden pixels by copying and by the MAE, for one seed; 0 where one colour would do better."""
    data = shared.images(seed)
    model = common.trained(common.config(seed, common.FINE), data[0])
    return {
        f"{who}, {name(*mask)}": explained(model, who, *mask, data[1], seed)
        for mask in MASKS
        for who in ("copied", "painted")
    }


def name(kind: str, ratio: float) -> str:
    return f"{kind} {100 * ratio:.0f} %"


def explained(model: Any, who: str, kind: Any, ratio: float, data: Any, seed: int) -> float:
    """1 - `unexplained`, pooled over all images, at least 0."""
    truth = data.images / 255
    order = mask_order(kind, *model.backbone.grid_size, ratio, step_generator(seed, 0), batch=len(truth))
    painted, mask = paint(model, data.images, order, ratio)
    result = painted if who == "painted" else copy_nearest(truth, mask)
    return max(0.0, 1 - unexplained(result, truth, mask, pooled=True).mean().item())


if __name__ == "__main__":
    question = (
        "How much of what a mask hides can be copied from nearby on Shapes, and how much more does a trained MAE know?"
    )
    run(Finding("mae_mask_ratio", question, "explained share", "copied, random 75 %", setting()), measure)
