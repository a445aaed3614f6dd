"""Why does SAM answer one click with several masks, and learn from the best of them only? Three nested discs.

One point, three right answers, each the target a third of the time. The masks are free parameters, so nothing but the
loss decides what they become. python -m benchmarks.findings.sam_ambiguity
"""

from typing import Any

import torch
from torch import Tensor

from benchmarks.findings.common import Finding, run
from sslcourse.data.rng import step_generator
from sslcourse.segment.losses import focal_dice, true_iou

SIDE, RADII, STEPS, LR, RELAX = 48, (20.0, 11.0, 5.0), 400, 0.3, 0.1
NAMES = ("whole", "part", "sub-part")
ARMS = {  # number of masks, loss
    "one mask": (1, "mean"),
    "three, mean": (3, "mean"),
    "three, minimum": (3, "min"),
    "three, minimum + a little mean": (3, "relaxed"),
}


def discs() -> Tensor:
    """(3, SIDE, SIDE) float, 0 or 1, nested."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    distance = torch.hypot(x - SIDE / 2, y - SIDE / 2)
    return torch.stack([(distance < radius).float() for radius in RADII])


def trained(seed: int, n_masks: int, loss: str) -> tuple[Tensor, Tensor]:
    """(n_masks, SIDE, SIDE) logits after training, and how often each of them had the lowest loss."""
    targets, generator = discs(), step_generator(seed, 0)
    masks = (0.1 * torch.randn(n_masks, SIDE, SIDE, generator=generator)).requires_grad_()
    wins = torch.zeros(n_masks, dtype=torch.long)
    optimizer = torch.optim.Adam([masks], lr=LR)
    for which in torch.randint(3, (STEPS,), generator=generator).tolist():
        each = focal_dice(masks, targets[which], reduction="none")
        wins[each.argmin()] += 1
        value = {"mean": each.mean(), "min": each.min(), "relaxed": each.min() + RELAX * each.mean()}[loss]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return masks.detach(), wins


def best_ious(masks: Tensor) -> Tensor:
    """(3,) for each disc the IoU of the best mask."""
    return true_iou(masks[:, None], discs()).amax(dim=0)


def measure(seed: int) -> dict[str, float]:
    """Mean over the discs of the best mask's IoU, and the worst disc's, arm by arm."""
    arms = {arm: best_ious(trained(seed, *how)[0]) for arm, how in ARMS.items()}
    values = {arm: float(best.mean()) for arm, best in arms.items()}
    return values | {f"{arm}: worst": float(best.min()) for arm, best in arms.items()}


def setting() -> dict[str, Any]:
    return {"side": SIDE, "radii": RADII, "steps": STEPS, "lr": LR, "relax": RELAX, "targets": NAMES}


if __name__ == "__main__":
    question = "What do one mask, three masks with the mean loss, and three with the minimum learn from nested answers?"
    run(Finding("sam_ambiguity", question, "IoU of the best mask", "one mask", setting()), measure)
