r"""Losses of promptable segmentation.

SAM (Kirillov et al. 2023, section 3 and appendix A): focal loss and dice loss 20 : 1, plus the squared error of the
predicted IoU; of three masks for an ambiguous prompt, the best one learns (minimum over masks). With p the sigmoid of
the logit, p_t = p where the pixel is in the mask and 1 - p elsewhere, and a_t = alpha or 1 - alpha likewise,

    focal = mean over pixels of -a_t (1 - p_t)^gamma log p_t          (Lin et al. 2017, eq. 5)
    dice  = 1 - (2 sum p t + 1) / (sum p + sum t + 1)                 (Milletari et al. 2016, smoothed by 1)

HQ-SAM (Ke et al. 2023) takes cross entropy and dice 1 : 1, on points instead of pixels, most of them where the mask is
uncertain (PointRend, Kirillov et al. 2020, section 3.2).

A loss "of each mask" maps logits (..., H, W) and a target that broadcasts to them to (...).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sslcourse.errors import InputError
from sslcourse.losses.precision import full_precision

FOCAL, DICE = 20.0, 1.0


@full_precision
def sigmoid_focal(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """The focal loss of every element, of the shape of `logits`; a negative `alpha` weighs both classes 1."""
    target = target.to(logits.dtype).expand_as(logits)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    p = logits.sigmoid()
    p_true = p * target + (1 - p) * (1 - target)
    loss = cross_entropy * (1 - p_true) ** gamma
    return loss if alpha < 0 else loss * (alpha * target + (1 - alpha) * (1 - target))


@full_precision
def focal_loss(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """The focal loss of each mask, its mean over pixels."""
    return sigmoid_focal(logits, target, alpha, gamma).mean(dim=(-2, -1))


@full_precision
def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """The dice loss of each mask, on probabilities."""
    p, target = logits.sigmoid(), target.to(logits.dtype)
    overlap = (p * target).sum(dim=(-2, -1))
    return 1 - (2 * overlap + 1) / (p.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1)) + 1)


@full_precision
def focal_dice(
    logits: Tensor, gt: Tensor, *, focal: float = FOCAL, dice: float = DICE, reduction: Literal["mean", "none"] = "mean"
) -> Tensor:
    """20 focal + 1 dice (SAM, appendix A).

    Args:
        logits: (..., H, W).
        gt: 0 or 1, broadcast to `logits`.
        focal, dice: weights.
        reduction: "mean" over all masks, or "none": the loss of each.
    """
    each = focal * focal_loss(logits, gt) + dice * dice_loss(logits, gt)
    return each.mean() if reduction == "mean" else each


@torch.no_grad()
def true_iou(logits: Tensor, gt: Tensor) -> Tensor:
    """IoU of the masks logits > 0 with the target, (...); 0 where both are empty (the union counts as 1 pixel)."""
    pred, gt = logits > 0, gt > 0.5
    hit, union = (pred & gt).sum(dim=(-2, -1)), (pred | gt).sum(dim=(-2, -1))
    return hit / union.clamp_min(1)


@full_precision
def iou_regression(
    logits: Tensor, gt: Tensor, iou_pred: Tensor, error: Literal["squared", "absolute"] = "squared"
) -> Tensor:
    """Error of the predicted IoU of each mask, (...). No gradient reaches the masks: their IoU is a target."""
    difference = iou_pred - true_iou(logits, gt)
    return difference**2 if error == "squared" else difference.abs()


class MaskLosses(NamedTuple):
    """The losses of B prompts, each (B,): those of the mask that was chosen, and of the predicted IoU."""

    focal: Tensor
    dice: Tensor
    iou: Tensor

    def total(self, focal: float = FOCAL, dice: float = DICE, iou: float = 1.0) -> Tensor:
        """(B,) weighted sum."""
        return focal * self.focal + dice * self.dice + iou * self.iou


@full_precision
def best_mask_losses(
    logits: Tensor,
    gt: Tensor,
    iou_pred: Tensor,
    *,
    focal: float = FOCAL,
    dice: float = DICE,
    iou_of: Literal["all", "best"] = "all",
    error: Literal["squared", "absolute"] = "squared",
) -> MaskLosses:
    """The parts of `min_over_masks`, prompt by prompt; arguments as there."""
    if logits.ndim != 4 or gt.shape != (len(logits), *logits.shape[2:]) or iou_pred.shape != logits.shape[:2]:
        raise InputError(
            "the minimum over masks takes logits (B, M, H, W), gt (B, H, W) and iou_pred (B, M); got "
            f"{(*logits.shape,)}, {(*gt.shape,)} and {(*iou_pred.shape,)}."
        )
    target = gt[:, None]
    focals, dices = focal_loss(logits, target), dice_loss(logits, target)
    best = (focal * focals + dice * dices).detach().argmin(dim=1, keepdim=True)
    errors = iou_regression(logits, target, iou_pred, error)
    chosen = errors.mean(dim=1) if iou_of == "all" else errors.gather(1, best)[:, 0]
    return MaskLosses(focals.gather(1, best)[:, 0], dices.gather(1, best)[:, 0], chosen)


@full_precision
def min_over_masks(
    logits: Tensor,
    gt: Tensor,
    iou_pred: Tensor,
    *,
    focal: float = FOCAL,
    dice: float = DICE,
    iou: float = 1.0,
    iou_of: Literal["all", "best"] = "all",
    error: Literal["squared", "absolute"] = "squared",
) -> Tensor:
    """SAM's loss for ambiguous prompts: of every prompt's masks only the one with the lowest loss learns.

    Args:
        logits: (B, M, H, W).
        gt: (B, H, W), 0 or 1.
        iou_pred: (B, M), which does not take part in the choice.
        focal, dice, iou: weights.
        iou_of: whether the predicted IoU is regressed for "all" masks (their mean; SAM 2) or the "best" one.
        error: of that regression, "squared" (SAM) or "absolute" (SAM 2).

    Returns:
        scalar, mean over B prompts.
    """
    parts = best_mask_losses(logits, gt, iou_pred, focal=focal, dice=dice, iou_of=iou_of, error=error)
    return parts.total(focal, dice, iou).mean()


class ClickStep(NamedTuple):
    """What the model gave after one click: logits (B, M, H, W), predicted IoU (B, M), and (SAM 2) presence (B, 1)."""

    logits: Tensor
    iou: Tensor
    presence: Tensor | None = None


class StepLosses(NamedTuple):
    """Sums over the steps of means over objects; `presence` is 0 where no presence was predicted."""

    focal: Tensor
    dice: Tensor
    iou: Tensor
    presence: Tensor

    def total(self, focal: float = FOCAL, dice: float = DICE, iou: float = 1.0, presence: float = 1.0) -> Tensor:
        return focal * self.focal + dice * self.dice + iou * self.iou + presence * self.presence


def multi_step(
    steps: Sequence[ClickStep],
    gt: Tensor,
    *,
    focal: float = FOCAL,
    dice: float = DICE,
    iou_of: Literal["all", "best"] = "best",
    error: Literal["squared", "absolute"] = "squared",
) -> StepLosses:
    """The losses of an object over several clicks: their sum over the steps, not their mean.

    With presence logits (SAM 2) an object whose target is empty contributes to the presence loss (cross entropy) only.

    Args:
        steps: the outputs after each click.
        gt: (B, H, W), 0 or 1.
        focal, dice, iou_of, error: as in `min_over_masks`; the weights choose the mask.
    """
    there = (gt > 0.5).flatten(1).any(dim=1).to(steps[0].logits.dtype)
    zero = steps[0].logits.new_zeros(())
    sums = StepLosses(zero, zero, zero, zero)
    for step in steps:
        parts = best_mask_losses(step.logits, gt, step.iou, focal=focal, dice=dice, iou_of=iou_of, error=error)
        counted = torch.ones_like(there) if step.presence is None else there
        presence = zero
        if step.presence is not None:
            presence = F.binary_cross_entropy_with_logits(step.presence[:, 0].to(there.dtype), there)
        means = [(part * counted).mean() for part in parts]
        sums = StepLosses(*(a + b for a, b in zip(sums, (*means, presence), strict=True)))
    return sums


def sample_at(maps: Tensor, points: Tensor) -> Tensor:
    """Values of maps (N, 1, H, W) at points (N, P, 2), x y in [0, 1]: (N, P), bilinear, zero beyond the border."""
    grid = (2 * points - 1)[:, None]
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[:, 0, 0]


def n_fresh(n: int, importance: float = 0.75) -> int:
    """How many of `n` points are drawn anywhere; the others, floor(importance n), where the mask is uncertain."""
    return n - int(importance * n)


@torch.no_grad()
def uncertain_points(logits: Tensor, candidates: Tensor, fresh: Tensor, n: int) -> Tensor:
    """Points for a mask loss: the candidates whose sampled logit is nearest to 0, then the fresh ones (PointRend).

    Args:
        logits: (N, 1, H, W).
        candidates: (N, K, 2) uniform in [0, 1], more than are wanted.
        fresh: (N, R, 2) uniform in [0, 1], taken as they are.
        n: number of points in all.

    Returns:
        (N, n, 2), the most uncertain first.
    """
    certainty = sample_at(logits, candidates).abs()
    nearest = certainty.topk(n - fresh.shape[1], dim=1, largest=False).indices
    return torch.cat([candidates.gather(1, nearest[..., None].expand(-1, -1, 2)), fresh], dim=1)


class PointLosses(NamedTuple):
    """Scalars: cross entropy and dice, means over the masks."""

    cross_entropy: Tensor
    dice: Tensor


@full_precision
def point_losses(logits: Tensor, target: Tensor, points: Tensor) -> PointLosses:
    """Cross entropy and dice at points: maps (N, 1, h, w), (N, 1, H, W) and (N, P, 2) in [0, 1]."""
    at = sample_at(logits, points)
    with torch.no_grad():
        wanted = sample_at(target.to(at.dtype), points)
    cross_entropy = F.binary_cross_entropy_with_logits(at, wanted, reduction="none").mean(dim=1)
    return PointLosses(cross_entropy.mean(), dice_loss(at[:, None], wanted[:, None]).mean())


def point_sampled_loss(
    logits: Tensor,
    target: Tensor,
    generator: Generator | None = None,
    *,
    n: int = 12544,
    oversample: float = 3.0,
    importance: float = 0.75,
) -> PointLosses:
    """HQ-SAM's mask loss on `n` points a mask: `oversample` n candidates and the fresh ones are drawn on the CPU."""
    first = torch.rand(len(logits), int(n * oversample), 2, generator=generator).to(logits.device)
    fresh = torch.rand(len(logits), n_fresh(n, importance), 2, generator=generator).to(logits.device)
    return point_losses(logits, target, uncertain_points(logits, first, fresh, n))
