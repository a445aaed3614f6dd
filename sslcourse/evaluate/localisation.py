"""Average precision of things found in clips: segments in time, tubes in space and time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sslcourse.data.rng import step_generator
from sslcourse.errors import InputError
from sslcourse.evaluate.result import Result


@dataclass(frozen=True)
class Truth:
    """What is in a clip: `extent` is (2,) start and end for a segment, (T, 4) boxes for a tube."""

    clip: int
    label: int
    extent: Tensor


@dataclass(frozen=True)
class Found:
    """What was found in a clip, and how sure."""

    clip: int
    label: int
    score: float
    extent: Tensor


def segment_iou(a: Tensor, b: Tensor) -> float:
    """Intersection over union of two half-open segments (2,)."""
    (a0, a1), (b0, b1) = a.tolist(), b.tolist()
    shared = max(0.0, min(a1, b1) - max(a0, b0))
    union = (a1 - a0) + (b1 - b0) - shared
    return shared / union if union > 0 else 0.0


def tube_iou(a: Tensor, b: Tensor) -> float:
    """Mean box IoU over the frames in which either tube (T, 4) x1 y1 x2 y2 has a box; an empty box is none."""
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] != 4:
        raise InputError(f"Tubes are (T, 4) of equal length; got {tuple(a.shape)} and {tuple(b.shape)}.")
    area_a, area_b = ((t[:, 2] - t[:, 0]) * (t[:, 3] - t[:, 1]) for t in (a, b))
    size = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp_min(0)
    shared = size[:, 0] * size[:, 1]
    union = area_a + area_b - shared
    there = union > 0
    return (shared[there] / union[there]).mean().item() if bool(there.any()) else 0.0


def average_precision_of(
    truth: Sequence[Truth], found: Sequence[Found], iou: Callable[[Tensor, Tensor], float], threshold: float
) -> float:
    """AP of one class: detections by falling score; each takes the best truth of its clip that is still free.

    A detection is right if that truth overlaps by at least `threshold`. The area is that under the precision envelope
    (PASCAL VOC since 2010, ActivityNet).
    """
    if not truth:
        raise InputError("Average precision needs at least one thing to find.")
    free = list(truth)
    right = []
    for one in sorted(found, key=lambda f: -f.score):
        overlaps = [(iou(one.extent, t.extent), i) for i, t in enumerate(free) if t.clip == one.clip]
        best, i = max(overlaps, default=(0.0, -1), key=lambda pair: pair[0])
        right.append(best >= threshold)
        if right[-1]:
            del free[i]
    hits = torch.tensor(right, dtype=torch.float64)
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    envelope = precision.flip(0).cummax(0).values.flip(0) if len(hits) else precision
    return (envelope * hits).sum().item() / len(truth)


def mean_ap(
    truth: Sequence[Truth], found: Sequence[Found], iou: Callable[[Tensor, Tensor], float], threshold: float
) -> float:
    """Mean of `average_precision_of` over the classes that occur."""
    labels = sorted({t.label for t in truth})
    values = [
        average_precision_of([t for t in truth if t.label == c], [f for f in found if f.label == c], iou, threshold)
        for c in labels
    ]
    return sum(values) / len(values)


def localisation_result(
    name: str,
    truth: Sequence[Truth],
    found: Sequence[Found],
    iou: Callable[[Tensor, Tensor], float],
    threshold: float,
    seed: int,
    n_boot: int = 200,
) -> Result:
    """mAP at `threshold`, with a bootstrap interval over the clips."""
    clips = sorted({t.clip for t in truth})
    # The overlap of a pair does not change from one resample to the next, however often its clip is drawn.
    known: dict[tuple[int, int], float] = {}

    def kept(a: Tensor, b: Tensor) -> float:
        key = (id(a), id(b))
        if key not in known:
            known[key] = iou(a, b)
        return known[key]

    truths = {c: [t for t in truth if t.clip == c] for c in clips}
    founds = {c: [f for f in found if f.clip == c] for c in clips}
    value = mean_ap(truth, found, kept, threshold)
    generator, draws = step_generator(seed, 0), []
    for _ in range(n_boot):
        drawn = [clips[int(i)] for i in torch.randint(len(clips), (len(clips),), generator=generator)]
        again = [Truth(n, t.label, t.extent) for n, c in enumerate(drawn) for t in truths[c]]
        found_again = [Found(n, f.label, f.score, f.extent) for n, c in enumerate(drawn) for f in founds[c]]
        draws.append(mean_ap(again, found_again, kept, threshold))
    kept_draws = torch.tensor(draws, dtype=torch.float64)
    low, high = kept_draws.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    detail = {"protocol": name, "iou": threshold, "n_found": len(found), "seed": seed}
    return Result(name, value, low, high, len(clips), "clips", detail, {"draws": kept_draws})


def run_lengths(labels: Tensor) -> list[tuple[int, int, int]]:
    """(start, end, label) of every run of equal labels (T,)."""
    values, counts = labels.unique_consecutive(return_counts=True)
    ends = counts.cumsum(0).tolist()
    return [(end - n, end, v) for v, n, end in zip(values.tolist(), counts.tolist(), ends, strict=True)]
