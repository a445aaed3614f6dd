"""What does mask IoU not see? Four wrong masks of a wavy star, by mask IoU and by boundary IoU.

python -m benchmarks.findings.sam_boundaries
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.findings.common import Finding, run
from sslcourse.data.rng import step_generator
from sslcourse.segment.masks import boundary_iou
from sslcourse.segment.matting import ellipse, erode
from sslcourse.segment.scoring import iou_of

SIDE, WIDTH = 256, 2


def star(turn: float, waves: int = 12) -> Tensor:
    """(SIDE, SIDE) bool: a disc with a wavy rim."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    dx, dy = x - SIDE / 2, y - SIDE / 2
    return torch.hypot(dx, dy) < 70 * (1 + 0.25 * torch.sin(waves * torch.atan2(dy, dx) + turn))


def measure(seed: int) -> dict[str, float]:
    """IoU and boundary IoU of every wrong mask with the star, which is turned by the seed."""
    true = star(6.28 * float(torch.rand(1, generator=step_generator(seed, 0))))
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    small = F.interpolate(true[None, None].float(), (64, 64), mode="area")
    wrong = {
        "shift 2 px": true.roll(2, dims=1),
        "erode 2 px": erode(true, ellipse(5)),
        "smooth circle": torch.hypot(x - SIDE / 2, y - SIDE / 2) < 71,
        "64 px, enlarged": F.interpolate(small, (SIDE, SIDE), mode="bilinear")[0, 0] > 0.5,
    }
    values = {f"{name}: IoU": float(iou_of(mask, true)) for name, mask in wrong.items()}
    return values | {f"{name}: boundary": float(boundary_iou(mask, true, WIDTH)) for name, mask in wrong.items()}


if __name__ == "__main__":
    question = "How do mask IoU and boundary IoU rank four wrong masks of a wavy star?"
    shared = {"side": SIDE, "width": WIDTH}
    run(Finding("sam_boundaries", question, "IoU", "shift 2 px: IoU", shared), measure)
