"""BEiT's blocks as the paper's algorithm 1, the published code and BEiT v2 make them, beside single patches.

python -m benchmarks.findings.beit_masks

No training. Three shares of each kind of mask: how much is hidden; how much of that is enclosed (all neighbours hidden,
too, so that nothing can be copied from next door); and how upright it is: the share of the outline that runs from top
to bottom. Half is neither upright nor lying.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.findings.common import Finding, run
from sslcourse.data.masks import blockwise_mask, random_mask
from sslcourse.data.rng import step_generator

GRID, RATIO, SMALLEST, ASPECT = 14, 0.4, 16, 0.3
MASKS = 1000
KINDS = ("code", "paper", "exact", "random")


def setting() -> dict[str, Any]:
    """What all kinds share."""
    return {"grid": GRID, "ratio": RATIO, "smallest block": SMALLEST, "aspect": ASPECT, "masks": MASKS}


def draw(kind: str, seed: int, n: int) -> Tensor:
    """(n, GRID, GRID) bool, True = hidden."""
    rng = step_generator(seed, KINDS.index(kind))
    if kind == "random":
        return random_mask(GRID, GRID, RATIO, rng, batch=n, rounding="hide")
    count = int(RATIO * GRID**2)
    return blockwise_mask(GRID, GRID, count, SMALLEST, None, ASPECT, rng, algorithm=kind, batch=n)  # type: ignore[arg-type]


def shares(mask: Tensor) -> tuple[float, float, float]:
    """Hidden, enclosed among hidden, upright of the outline, of masks (n, h, w); the image's border encloses."""
    hidden = mask.float()
    wide = F.pad(hidden, (1, 1, 1, 1), value=1.0)
    around = torch.stack([wide[:, :-2, 1:-1], wide[:, 2:, 1:-1], wide[:, 1:-1, :-2], wide[:, 1:-1, 2:]])
    enclosed = (hidden * around.amin(dim=0)).sum() / hidden.sum()
    upright, lying = hidden.diff(dim=2).abs().sum(), hidden.diff(dim=1).abs().sum()
    return hidden.mean().item(), enclosed.item(), (upright / (upright + lying)).item()


def measure(seed: int) -> dict[str, float]:
    """The three shares of every kind, for one seed."""
    found = {}
    for kind in KINDS:
        for name, value in zip(("hidden", "enclosed", "upright"), shares(draw(kind, seed, MASKS)), strict=True):
            found[f"{kind}, {name}"] = value
    return found


if __name__ == "__main__":
    question = (
        "How do the masks of BEiT's paper, of its code and of BEiT v2 differ from each other and from single patches?"
    )
    run(Finding("beit_masks", question, "share", "code, hidden", setting()), measure)
