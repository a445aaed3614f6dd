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
EQUIVALENT = {
    "TwoWayBlock: return self.out_proj((look @ v).transpose(2, 1).flatten(2))": "swapping 2 and 1 is swapping 1 and 2",
    "min_over_masks: regression = ((iou_pred - iou) ** 2).mean()": "the mean over prompts comes anyway",
    "min_over_masks: overlap = (mask & inside).sum(dim=(+2, -1))": "of four axes, 2 is -2",
    "min_over_masks: union = (mask | inside).sum(dim=(+2, -1))": "of four axes, 2 is -2",
    "amg_postprocess: first, last = (torch.maximum(boxes[i, :2], boxes[j, :2]), "
    "torch.minimum(boxes[j, 2:], boxes[i, 2:]))": "a minimum does not ask for an order",
    "mask_to_rle: edges = [0, *new.tolist(), len(pixels.detach())]": "whole numbers have no gradient",
}
