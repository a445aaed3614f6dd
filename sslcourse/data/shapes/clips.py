"""Short videos: a scene whose objects move, each in its own way."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sslcourse.data.shapes.counter import Counter
from sslcourse.data.shapes.render import render
from sslcourse.data.shapes.sample import Floats, Ints, Parameters

MOTIONS: list[str] = ["left", "right", "up", "down", "clockwise", "anticlockwise", "grow", "shrink"]
TRAVEL = 0.9  # half image sides that the fastest object moves in a clip
TURN = np.pi  # radians that it turns
GROWTH = 0.7  # share of its middle radius that it gains or loses

# Per motion: signs of the movement along x and y, of the turn, and of the growth.
_SIGNS = np.array([
    [-1, 0, 0, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 1, 0, 0],
    [0, 0, 1, 0], [0, 0, -1, 0], [0, 0, 0, 1], [0, 0, 0, -1],
])  # fmt: skip


@dataclass(frozen=True)
class Clips:
    """B clips of T frames; K is the most objects a scene can have.

    Attributes:
        video: (B, 3, T, H, W) uint8.
        index: (B,) numbers of the scenes in their split.
        motion: (B,) int64, what the nearest object does: index into `MOTIONS`.
        label: (B,) int64, the scene's label, as in `Scenes`.
        kinds: (B, K) int64 classes of the objects, -1 where there is none.
        motions: (B, K) int64 motion of every object, -1 where there is none.
        masks: (B, K, T, H, W) bool, what shows of each object in each frame.
        boxes: (B, K, T, 4) float x1 y1 x2 y2 around the masks; zeros where an object is hidden.
    """

    video: Tensor
    index: Tensor
    motion: Tensor
    label: Tensor
    kinds: Tensor
    motions: Tensor
    masks: Tensor
    boxes: Tensor

    def __len__(self) -> int:
        return len(self.video)


def draw_motions(seed: int, scenes: Ints, k: int) -> tuple[Ints, Floats]:
    """Motions (B, k), balanced for the nearest object in each run of eight scenes, and speeds (B, k) in [0.6, 1)."""
    n = len(MOTIONS)
    draw = Counter(seed, scenes)
    motions = draw.choice("motion", n, k)
    order = Counter(seed, scenes // n).uniform("motion order", n).argsort(1)
    motions[:, 0] = order[np.arange(len(scenes)), scenes % n]
    return motions, draw.between("speed", 0.6, 1.0, k)


def moving(p: Parameters, motions: Ints, speeds: Floats, frames: int) -> Parameters:
    """The parameters of every frame, (B * frames) scenes; half way through, an object stands where its scene has it."""
    time = (np.arange(frames) + 0.5) / frames - 0.5
    step = (_SIGNS[motions] * speeds[..., None])[:, None] * time[None, :, None, None]
    dx, dy, turn, growth = np.moveaxis(step.reshape(-1, *step.shape[2:]), -1, 0)
    still = p.at(np.repeat(np.arange(len(p)), frames))
    return replace(
        still,
        x=still.x + TRAVEL * dx,
        y=still.y + TRAVEL * dy,
        angle=still.angle + TURN * turn,
        # Smaller than in the still scene, so that there is room to move.
        radius=still.radius * 0.7 * (1 + GROWTH * growth),
    )


def draw_clips(
    p: Parameters, seed: int, scenes: Ints, frames: int, size: int, device: torch.device | str
) -> tuple[Tensor, Tensor, Ints]:
    """Video (B, 3, T, H, W) uint8, masks (B, K, T, H, W) bool and motions (B, K)."""
    motions, speeds = draw_motions(seed, scenes, p.kind.shape[1])
    drawing = render(moving(p, motions, speeds, frames), size, device)
    video = drawing.image.unflatten(0, (len(p), frames)).transpose(1, 2).contiguous()
    masks = drawing.masks().unflatten(0, (len(p), frames))[:, :, :, 0].transpose(1, 2).contiguous()
    motions = np.where(np.arange(motions.shape[1]) < p.count[:, None], motions, -1)
    return video, masks, motions
