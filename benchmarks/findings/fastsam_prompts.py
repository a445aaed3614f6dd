"""Time against the number of prompts: FastSAM finds everything once and then chooses, SAM decodes every prompt.

The same image and points for both, who take turns within every repetition; the median over repetitions counts, encoder
and everything else with it, in seconds of the processor, which other programs lengthen less than those of a clock. They
depend on the machine; that SAM pays for every prompt and FastSAM, which looks all of them up at once, does not, is the
same on any.
python -m benchmarks.findings.fastsam_prompts
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.findings.common import Finding, run
from sslcourse.data.rng import step_generator
from sslcourse.segment.fastsam import select_by_points
from sslcourse.segment.fastsam_net import FastNet, find_all
from sslcourse.segment.files import load_small, load_tiny
from sslcourse.segment.predictor import Predictor
from sslcourse.segment.scenes import draw_scenes

COUNTS, REPEATS = (1, 10, 100, 200), 3


def times(image: Tensor, points: Tensor) -> tuple[float, float]:
    """Median seconds of SAM and FastSAM for one mask a point (P, 2), in turns."""
    predictor, fast = Predictor(load_tiny()), cast(FastNet, load_small(name="tiny_fastsam"))

    def sam() -> None:
        predictor.set_image(image)
        for some in points.split(64):
            predictor.predict(some[:, None], multimask=True)

    def fastsam() -> None:
        select_by_points(find_all(fast, image).masks, points[:, None], torch.ones(len(points), 1, dtype=torch.long))

    def seconds(work: Callable[[], None]) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    sam(), fastsam()  # the first time is not counted
    taken = [(seconds(sam), seconds(fastsam)) for _ in range(REPEATS)]
    return statistics.median(a for a, _ in taken), statistics.median(b for _, b in taken)


def measure(seed: int) -> dict[str, float]:
    """Seconds of both for every number of prompts; a seed has its own scene and points."""
    image = draw_scenes(1, "test", start=seed).images[0, :3]
    values: dict[str, float] = {}
    for n in COUNTS:
        points = 128 * torch.rand(n, 2, generator=step_generator(seed, n))
        sam, fast = times(image, points)
        values |= {f"SAM, {n} prompts": min(sam, 1.0), f"FastSAM, {n} prompts": min(fast, 1.0)}
    return values


def setting() -> dict[str, Any]:
    return {"prompts": list(COUNTS), "repeats": REPEATS, "side": 128, "unit": "seconds of the processor, at most 1"}


if __name__ == "__main__":
    question = "How does the time for all masks grow with the number of prompts?"
    run(Finding("fastsam_prompts", question, "seconds", "FastSAM, 1 prompts", setting()), measure)
