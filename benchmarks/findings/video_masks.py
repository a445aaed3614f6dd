"""What a hidden patch of a clip can be copied from: frame, tube, cube and random masks against motion speed.

    python -m benchmarks.findings.video_masks

No training. A hidden patch is copied from the nearest visible patch of the same place in time (from two that are
equally near, their mean); a place that is hidden in all frames gets the colour of the nearest one that is not, frame
by frame (`copy_nearest`). VideoMAE (Tong et al. 2022, section 3.2) hides tubes because a neighbour in time gives the
answer away: the slower the motion, the more. Speed is how many of the 64 frames that an object takes for its way lie
between one frame and the next; at 0 all frames are one.
"""

from typing import Any

import torch
from torch import Tensor

from benchmarks.findings.common import Finding, run
from sslcourse.data import Shapes
from sslcourse.data.masks import cube_mask, frame_mask, hidden_count, hide_smallest, mask_order, random_mask, tube_mask
from sslcourse.data.rng import step_generator
from sslcourse.evaluate.reconstruction import copy_nearest, unexplained

CLIPS, FRAMES, SIZE, PATCH, RATIO = 100, 8, 32, 4, 0.75
SPEEDS = (0, 1, 4, 8)
KINDS = ("frame", "random", "cube", "tube")


def setting() -> dict[str, Any]:
    """What all arms share, for the record."""
    return {"clips": CLIPS, "frames": FRAMES, "size": SIZE, "patch": PATCH, "tubelet": 1, "ratio": RATIO}


def measure(seed: int) -> dict[str, float]:
    """Explained share of hidden pixels by kind of mask and speed, for one seed; 0 where one colour does better."""
    slow = Shapes("test", size=SIZE, seed=seed).clips(range(CLIPS), frames=8 * FRAMES).video / 255
    masks = {kind: draw(kind, seed) for kind in KINDS}
    return {
        f"{kind}, speed {speed}": explained(frames(slow, speed), mask)
        for kind, mask in masks.items()
        for speed in SPEEDS
    }


def frames(clips: Tensor, speed: int) -> Tensor:
    """(B, 3, 8 FRAMES, H, W) -> (B, 3, FRAMES, H, W): frames around the middle of every clip, `speed` apart."""
    place = clips.shape[2] // 2 + speed * (torch.arange(FRAMES) - FRAMES // 2)
    return clips[:, :, place]


def draw(kind: str, seed: int) -> Tensor:
    """(CLIPS, FRAMES, rows, columns) bool, True = hidden, as VideoMAE's `mask` means it."""
    side, rng = SIZE // PATCH, step_generator(seed, KINDS.index(kind))
    grid: tuple[int, int, int] = (FRAMES, side, side)
    if kind == "frame":
        return frame_mask(*grid, RATIO, rng, batch=CLIPS)
    if kind == "tube":
        return tube_mask(*grid, RATIO, rng, batch=CLIPS)
    if kind == "random":
        return random_mask(FRAMES * side, side, RATIO, rng, batch=CLIPS, rounding="hide").unflatten(1, grid[:2])
    boxes = cube_mask(*grid, RATIO, rng, batch=CLIPS)  # hide somewhat less: filled up with single patches
    order = mask_order("random", FRAMES * side, side, RATIO, rng, batch=CLIPS) - boxes.flatten(1).float()
    return hide_smallest(order, hidden_count(order.shape[1], RATIO, "hide")).view_as(boxes)


def copied(clips: Tensor, mask: Tensor) -> Tensor:
    """Clips (B, C, T, H, W) with the hidden patches of masks (B, T, h, w) copied, first in time, then in space."""
    b, _, t, height, width = clips.shape
    h, w = mask.shape[2:]
    time = torch.arange(t)
    between = (time[:, None] - time).abs()[None, :, :, None, None].expand(b, t, t, h, w)  # [.., to, from, ..]
    distance = torch.where(mask[:, None], t, between)
    nearest = ((distance == distance.amin(dim=2, keepdim=True)) & ~mask[:, None]).float()
    seen = nearest.sum(dim=2, keepdim=True)
    weight = (nearest / seen.clamp(min=1)).repeat_interleave(height // h, 3).repeat_interleave(width // w, 4)
    found = torch.einsum("btshw,bcshw->bcthw", weight, clips)
    never = mask.all(dim=1)
    if not bool(never.any()):
        return found
    pictures, holes = found.transpose(1, 2).flatten(0, 1), never.repeat_interleave(t, 0)
    return copy_nearest(pictures, holes).unflatten(0, (b, t)).transpose(1, 2)


def explained(clips: Tensor, mask: Tensor) -> float:
    """1 - `unexplained` of the copies, pooled over all frames, at least 0."""
    pictures, copies = (x.transpose(1, 2).flatten(0, 1) for x in (clips, copied(clips, mask)))
    return max(0.0, 1 - unexplained(copies, pictures, mask.flatten(0, 1), pooled=True).mean().item())


if __name__ == "__main__":
    question = "How much of what a mask hides of a clip of Shapes can be copied from another frame?"
    run(Finding("video_masks", question, "explained share", "tube, speed 1", setting()), measure)
