"""Known-wrong and other right answers of lab 11: the losses of masks."""

from autograder.checks.mutants import edits
from autograder.rubric import Right

FOCAL_DICE = edits(
    "focal_dice",
    """
dice_on_logits: dice is made of probabilities, not of logits.
- overlap = (p * gt).sum(dim=(-2, -1))
-     dice = 1 - (2 * overlap + 1) / (p.sum(dim=(-2, -1)) + gt.sum(dim=(-2, -1)) + 1)
+ overlap = (logits * gt).sum(dim=(-2, -1))
+     dice = 1 - (2 * overlap + 1) / (logits.sum(dim=(-2, -1)) + gt.sum(dim=(-2, -1)) + 1)

dice_of_hard_masks: dice of the thresholded masks has no gradient; it is made of probabilities.
- overlap = (p * gt).sum(dim=(-2, -1))
-     dice = 1 - (2 * overlap + 1) / (p.sum(dim=(-2, -1)) + gt.sum(dim=(-2, -1)) + 1)
+ overlap = ((p > 0.5) * gt).sum(dim=(-2, -1))
+     dice = 1 - (2 * overlap + 1) / ((p > 0.5).sum(dim=(-2, -1)) + gt.sum(dim=(-2, -1)) + 1)

one_only_below: the 1 of dice is only in the denominator; it is above and below.
- (2 * overlap + 1)
+ (2 * overlap)

no_ones: the 1s of dice are missing: an empty target would give 0 / 0.
- (2 * overlap + 1) / (p.sum(dim=(-2, -1)) + gt.sum(dim=(-2, -1)) + 1)
+ 2 * overlap / (p.sum(dim=(-2, -1)) + gt.sum(dim=(-2, -1)))

no_two: the 2 of dice is missing: 2 times the overlap.
- (2 * overlap + 1)
+ (overlap + 1)

not_one_minus: this is the dice score; the loss is 1 minus it.
- dice = 1 - (2
+ dice = (2

dice_of_means: dice of means over pixels: its 1s then weigh far too much; sum.
- overlap = (p * gt).sum(dim=(-2, -1))
-     dice = 1 - (2 * overlap + 1) / (p.sum(dim=(-2, -1)) + gt.sum(dim=(-2, -1)) + 1)
+ overlap = (p * gt).mean(dim=(-2, -1))
+     dice = 1 - (2 * overlap + 1) / (p.mean(dim=(-2, -1)) + gt.mean(dim=(-2, -1)) + 1)

dice_squared: squares in the denominator are another dice; here the sums are plain.
- (p.sum(dim=(-2, -1)) +
+ ((p * p).sum(dim=(-2, -1)) +

dice_over_all: dice mixes the pixels of all masks: each mask has its own sums.
- overlap = (p * gt).sum(dim=(-2, -1))
-     dice = 1 - (2 * overlap + 1) / (p.sum(dim=(-2, -1)) + gt.sum(dim=(-2, -1)) + 1)
+ overlap = (p * gt).sum()
+     dice = 1 - (2 * overlap + 1) / (p.sum() + gt.sum() + 1)

focal_over_all: focal is averaged over the pixels of all masks; each mask has its own mean.
- log_loss).mean(dim=(-2, -1))
+ log_loss).mean()

alpha_swapped: alpha is on the wrong class: 0.25 where the target is 1, 0.75 where it is 0.
- 0.25 * gt + 0.75 * (1 - gt)
+ 0.75 * gt + 0.25 * (1 - gt)

no_alpha: alpha is missing: 0.25 where the target is 1, 0.75 where it is 0.
- (alpha * (1 - p_true) ** 2 * log_loss)
+ ((1 - p_true) ** 2 * log_loss)

alpha_everywhere: alpha is 0.25 everywhere; where the target is 0 it is 0.75.
- 0.25 * gt + 0.75 * (1 - gt)
+ 0.25

not_squared: 1 - p_y is not squared.
- (1 - p_true) ** 2
+ (1 - p_true)

no_focus: without (1 - p_y)^2 this is the plain cross-entropy, with alpha.
- alpha * (1 - p_true) ** 2
+ alpha

focus_on_easy: p_y squared counts what is right already; 1 - p_y counts what is wrong.
- (1 - p_true) ** 2
+ p_true ** 2

p_not_of_the_truth: (1 - p)^2 for every pixel; where the target is 0, p_y is 1 - p.
- (1 - p_true) ** 2
+ (1 - p) ** 2

focal_summed: focal is summed over the pixels; it is their mean.
- log_loss).mean(dim=(-2, -1))
+ log_loss).sum(dim=(-2, -1))

weights_swapped: the weights are swapped: 20 focal + 1 dice.
- 20 * focal + dice
+ focal + 20 * dice

no_weight: the factor 20 of the focal loss is missing.
- 20 * focal + dice
+ focal + dice

summed_over_masks: the sum over the masks; it is their mean.
- each.mean() if
+ each.sum() if

reduction_ignored: reduction="none" gives the loss of each mask.
- each.mean() if reduction == "mean" else each
+ each.mean()

log_of_sigmoid: log(sigmoid) of a large logit is log(0): use binary_cross_entropy_with_logits.
- F.binary_cross_entropy_with_logits(logits, gt, reduction="none")
+ -p_true.log()

detached: no gradient reaches the logits through the focal weight: p must not be detached.
- p = logits.sigmoid()
+ p = logits.sigmoid().detach()
""",
)

MIN_OVER_MASKS = edits(
    "min_over_masks",
    """
mean_over_masks: all masks learn: this is the mean over masks, where the minimum is meant.
- each.amin(dim=1)
+ each.mean(dim=1)

max_over_masks: the worst mask learns; the best one does.
- each.amin(dim=1)
+ each.amax(dim=1)

min_over_prompts: the minimum is over the prompts; it is over the masks of each prompt (dim=1).
- (each.amin(dim=1) + regression).mean()
+ (each.amin(dim=0).mean() + regression.mean())

one_minimum: one minimum for the whole batch; every prompt has its own.
- (each.amin(dim=1) + regression).mean()
+ (each.amin() + regression.mean())

chosen_by_predicted_iou: the mask is chosen by its predicted IoU; the lowest loss decides.
- each.amin(dim=1)
+ each.gather(1, iou_pred.argmax(dim=1, keepdim=True))[:, 0]

chosen_by_true_iou: the mask is chosen by its true IoU; the lowest loss decides.
- each.amin(dim=1)
+ each.gather(1, iou.argmax(dim=1, keepdim=True))[:, 0]

soft_minimum: a soft minimum gives every mask a gradient: only the best one learns.
- each.amin(dim=1)
+ (each * (-each).softmax(dim=1)).sum(dim=1)

regression_of_best: the IoU is learned for the best mask only; it is learned for all.
- ((iou_pred - iou) ** 2).mean(dim=1)
+ ((iou_pred - iou) ** 2).gather(1, each.argmin(dim=1, keepdim=True))[:, 0]

minimum_of_total: the regression takes part in the minimum: first the minimum of the losses, then the regression of all.
- (each.amin(dim=1) + regression).mean()
+ (each + (iou_pred - iou) ** 2).amin(dim=1).mean()

regression_summed: the squared errors are summed over the masks; take their mean.
- ** 2).mean(dim=1)
+ ** 2).sum(dim=1)

regression_absolute: the absolute error of the IoU; it is squared.
- ((iou_pred - iou) ** 2)
+ (iou_pred - iou).abs()

regression_missing: the regression of the predicted IoU is missing.
- (each.amin(dim=1) + regression)
+ each.amin(dim=1)

iou_pred_detached: no gradient reaches the predicted IoU.
- (iou_pred - iou)
+ (iou_pred.detach() - iou)

soft_iou: the IoU of probabilities carries a gradient into the masks: count pixels above 0.
-     mask, inside = logits > 0, target > 0.5
-     overlap = (mask & inside).sum(dim=(-2, -1))
-     union = (mask | inside).sum(dim=(-2, -1))
+     p = logits.sigmoid()
+     overlap = (p * target).sum(dim=(-2, -1))
+     union = (p + target - p * target).sum(dim=(-2, -1))

dice_for_iou: this is the dice score, 2 overlap / (sum of both areas); IoU divides by the union.
- iou = overlap / union.clamp_min(1)
+ iou = 2 * overlap / (overlap + union).clamp_min(1)

iou_of_probability: pixels count from probability 0 on: a pixel is inside where its logit is above 0.
- logits > 0
+ logits.sigmoid() > 0

threshold_half: pixels count from logit 0.5 on; a logit above 0 is inside.
- logits > 0
+ logits > 0.5

empty_is_nan: 0 / 0 where mask and target are both empty: divide by at least 1.
- union.clamp_min(1)
+ union

empty_is_one: where mask and target are both empty the IoU is 0 here.
- iou = overlap / union.clamp_min(1)
+ iou = torch.where(union > 0, overlap / union.clamp_min(1), 1.0)

summed_over_prompts: the sum over the prompts; it is their mean.
- (each.amin(dim=1) + regression).mean()
+ (each.amin(dim=1) + regression).sum()
""",
)

RIGHT = [
    Right(
        "focal_dice",
        "log_sigmoid",
        """
def focal_dice(logits, gt, *, reduction="mean"):
    gt = gt.expand_as(logits) > 0.5
    sign = torch.where(gt, 1.0, -1.0).to(logits.dtype)
    focal = torch.where(gt, 0.25, 0.75) * torch.sigmoid(-sign * logits) ** 2 * -F.logsigmoid(sign * logits)
    p, y = torch.sigmoid(logits).flatten(-2), gt.to(logits.dtype).flatten(-2)
    dice = 1 - (2 * torch.einsum("...n,...n->...", p, y) + 1) / ((p + y).sum(-1) + 1)
    loss = 20 * focal.flatten(-2).mean(-1) + dice
    return loss if reduction == "none" else loss.mean()
""",
    ),
    Right(
        "focal_dice",
        "mask_by_mask",
        """
def focal_dice(logits, gt, *, reduction="mean"):
    shape = logits.shape[:-2]
    gt = gt.expand_as(logits)
    losses = []
    for x, y in zip(logits.flatten(0, -3) if shape else [logits], gt.flatten(0, -3) if shape else [gt]):
        p = torch.sigmoid(x)
        ce = F.binary_cross_entropy_with_logits(x, y, reduction="none")
        wrong = p * (1 - y) + (1 - p) * y
        focal = (ce * wrong.square() * (0.75 - 0.5 * y)).mean()
        losses.append(20 * focal + 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))
    each = torch.stack(losses).reshape(shape)
    return each.mean() if reduction == "mean" else each
""",
    ),
    Right(
        "min_over_masks",
        "loop",
        """
def min_over_masks(logits, gt, iou_pred):
    total = 0
    for masks, target, told in zip(logits, gt, iou_pred):
        losses = [focal_dice(mask, target, reduction="none") for mask in masks]
        iou = []
        for mask in masks:
            a, b = mask > 0, target > 0.5
            union = (a | b).sum()
            iou.append((a & b).sum() / union if union > 0 else torch.tensor(0.0))
        total = total + min(losses) + F.mse_loss(told, torch.stack(iou).to(told.dtype))
    return total / len(gt)
""",
    ),
    Right(
        "min_over_masks",
        "gather",
        """
def min_over_masks(logits, gt, iou_pred):
    gt = gt.unsqueeze(1).expand_as(logits)
    each = focal_dice(logits, gt, reduction="none")
    best = each.detach().argmin(dim=1, keepdim=True)
    with torch.no_grad():
        inside, truth = (logits > 0).float().flatten(2), gt.float().flatten(2)
        overlap = (inside * truth).sum(2)
        iou = overlap / (inside.sum(2) + truth.sum(2) - overlap).clamp(min=1)
    return each.gather(1, best).mean() + (iou_pred - iou).square().mean()
""",
    ),
]
