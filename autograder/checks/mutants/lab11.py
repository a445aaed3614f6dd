"""Known-wrong and other right answers of lab 11 (SAM)."""

from autograder.checks.mutants import lab11_losses as losses
from autograder.checks.mutants import lab11_masks as masks
from autograder.checks.mutants import lab11_model as model

WRONG = [
    *model.FOURIER_POINT_EMBED,
    *model.TWO_WAY_BLOCK,
    *losses.FOCAL_DICE,
    *losses.MIN_OVER_MASKS,
    *masks.STABILITY_SCORE,
    *masks.AMG_POSTPROCESS,
    *masks.MASK_TO_RLE,
]
RIGHT = [*model.RIGHT, *losses.RIGHT, *masks.RIGHT]

# Automatic mutations that no check can kill, because they change nothing that the exercise asks for.
EQUIVALENT: dict[str, str] = {}
