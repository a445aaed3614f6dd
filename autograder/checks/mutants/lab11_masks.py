"""Known-wrong and other right answers of lab 11: stability, automatic masks, run lengths."""

from autograder.checks.mutants import edits
from autograder.rubric import Right

STABILITY_SCORE = edits(
    "stability_score",
    """
upside_down: the ratio is upside down: the smaller mask is the intersection, the larger one the union.
- smaller / larger.clamp_min(1)
+ larger / smaller.clamp_min(1)

on_probabilities: delta moves probabilities; it moves logits.
- smaller = (logits > threshold + delta).sum(dim=(-2, -1))
-     larger = (logits > threshold - delta).sum(dim=(-2, -1))
+ smaller = (logits.sigmoid() > 0.5 + threshold + delta / 4).sum(dim=(-2, -1))
+     larger = (logits.sigmoid() > 0.5 + threshold - delta / 4).sum(dim=(-2, -1))

against_the_threshold: the mask at the threshold itself is compared; it is neither of the two.
- (logits > threshold + delta)
+ (logits > threshold)

smaller_against_threshold: the smaller mask is compared with the mask at the threshold; take the larger one.
- (logits > threshold - delta)
+ (logits > threshold)

half_delta: the cuts are delta apart; they are delta above and delta below the threshold.
- smaller = (logits > threshold + delta).sum(dim=(-2, -1))
-     larger = (logits > threshold - delta).sum(dim=(-2, -1))
+ smaller = (logits > threshold + delta / 2).sum(dim=(-2, -1))
+     larger = (logits > threshold - delta / 2).sum(dim=(-2, -1))

threshold_ignored: the threshold is not used.
- smaller = (logits > threshold + delta).sum(dim=(-2, -1))
-     larger = (logits > threshold - delta).sum(dim=(-2, -1))
+ smaller = (logits > delta).sum(dim=(-2, -1))
+     larger = (logits > -delta).sum(dim=(-2, -1))

delta_ignored: delta is not used: it is 1 only when nothing is said.
- smaller = (logits > threshold + delta).sum(dim=(-2, -1))
-     larger = (logits > threshold - delta).sum(dim=(-2, -1))
+ smaller = (logits > threshold + 1).sum(dim=(-2, -1))
+     larger = (logits > threshold - 1).sum(dim=(-2, -1))

one_for_all: one score for the whole batch; every mask has its own.
- smaller = (logits > threshold + delta).sum(dim=(-2, -1))
-     larger = (logits > threshold - delta).sum(dim=(-2, -1))
+ smaller = (logits > threshold + delta).sum()
+     larger = (logits > threshold - delta).sum()

mean_over_masks: the mean of the scores; every mask has its own.
- smaller / larger.clamp_min(1)
+ (smaller / larger.clamp_min(1)).mean()

empty_is_nan: 0 / 0 where both masks are empty: the score is 0 there.
- larger.clamp_min(1)
+ larger

empty_is_one: where both masks are empty the score is 0 here.
- smaller / larger.clamp_min(1)
+ torch.where(larger > 0, smaller / larger.clamp_min(1), 1.0)

not_above: a logit that equals a cut is not above it.
- smaller = (logits > threshold + delta).sum(dim=(-2, -1))
-     larger = (logits > threshold - delta).sum(dim=(-2, -1))
+ smaller = (logits >= threshold + delta).sum(dim=(-2, -1))
+     larger = (logits >= threshold - delta).sum(dim=(-2, -1))

rows_only: the sum is over one axis only; a mask has two.
- smaller = (logits > threshold + delta).sum(dim=(-2, -1))
-     larger = (logits > threshold - delta).sum(dim=(-2, -1))
+ smaller = (logits > threshold + delta).sum(dim=-1)
+     larger = (logits > threshold - delta).sum(dim=-1)
""",
)

AMG_POSTPROCESS = edits(
    "amg_postprocess",
    """
not_sorted: masks are visited in their own order; go from the highest predicted IoU to the lowest.
- iou.argsort(descending=True).tolist()
+ range(len(iou))

worst_first: masks are visited from the lowest predicted IoU on; the highest comes first.
- argsort(descending=True)
+ argsort()

sorted_by_stability: masks are visited by their stability; the predicted IoU decides.
- iou.argsort(descending=True)
+ stability.argsort(descending=True, stable=True)

in_order_of_index: the indices come back in order of size; the highest predicted IoU comes first.
- return torch.tensor(kept
+ return torch.tensor(sorted(kept)

iou_not_filtered: masks of low predicted IoU stay.
- (iou > min_iou) & (stability >= min_stability)
+ (stability >= min_stability)

stability_not_filtered: unstable masks stay.
- (iou > min_iou) & (stability >= min_stability)
+ (iou > min_iou)

either_is_enough: predicted IoU or stability: a mask needs both.
- (iou > min_iou) & (stability >= min_stability)
+ ((iou > min_iou) | (stability >= min_stability))

limits_swapped: the limits of predicted IoU and stability are swapped.
- (iou > min_iou) & (stability >= min_stability)
+ (iou > min_stability) & (stability >= min_iou)

stability_above: a stability that equals the limit is enough.
- stability >= min_stability
+ stability > min_stability

iou_from: a predicted IoU that equals the limit is not enough.
- iou > min_iou
+ iou >= min_iou

nothing_suppressed: no mask is suppressed: the same thing comes several times.
-                 break
+                 pass

overlap_from: an overlap that equals the limit is allowed.
- > max_overlap
+ >= max_overlap

also_suppressed_by_suppressed: a mask that went suppresses others, too; only those that were kept do.
-         for j in kept:
+         for j in [j for j in range(len(iou)) if stays[j] and iou[j] > iou[i]]:

suppressed_by_filtered: a mask that is not good or not whole suppresses others: filter first, then suppress.
-         if not stays[i]:
-             continue
-         for j in kept:
-             first, last = torch.maximum(boxes[i, :2], boxes[j, :2]), torch.minimum(boxes[i, 2:], boxes[j, 2:])
-             width, height = (last - first).clamp_min(0)
-             area_i, area_j = ((boxes[k, 2:] - boxes[k, :2]).prod() for k in (i, j))
-             if width * height / (area_i + area_j - width * height) > max_overlap:
-                 break
-         else:
-             kept.append(i)
-     return torch.tensor(kept, dtype=torch.long)
+         for j in kept:
+             first, last = torch.maximum(boxes[i, :2], boxes[j, :2]), torch.minimum(boxes[i, 2:], boxes[j, 2:])
+             width, height = (last - first).clamp_min(0)
+             area_i, area_j = ((boxes[k, 2:] - boxes[k, :2]).prod() for k in (i, j))
+             if width * height / (area_i + area_j - width * height) > max_overlap:
+                 break
+         else:
+             kept.append(i)
+     return torch.tensor([k for k in kept if stays[k]], dtype=torch.long)

inclusive_boxes: areas of (x2 - x1 + 1)(y2 - y1 + 1) count the last pixel; here they do not.
-             width, height = (last - first).clamp_min(0)
-             area_i, area_j = ((boxes[k, 2:] - boxes[k, :2]).prod() for k in (i, j))
+             width, height = (last - first + 1).clamp_min(0)
+             area_i, area_j = ((boxes[k, 2:] - boxes[k, :2] + 1).prod() for k in (i, j))

not_the_union: the intersection is divided by the sum of both areas; IoU divides by the union.
- (area_i + area_j - width * height)
+ (area_i + area_j)

smaller_area: the intersection is divided by the smaller area; IoU divides by the union.
- (area_i + area_j - width * height)
+ torch.minimum(area_i, area_j)

negative_sides: boxes that do not meet have an intersection of 0: sides of at least 0.
- .clamp_min(0)
+ .clamp_min(-1e9)

edges_kept: masks that the crop's edge cuts stay.
- stays = (iou > min_iou) & (stability >= min_stability) & ~cut.any(dim=1)
+ stays = (iou > min_iou) & (stability >= min_stability)

image_edges_cut: at the picture's own edge nothing is cut: such masks stay.
- ((moved - crop).abs() <= 20) & ((moved - image).abs() > 20)
+ (moved - crop).abs() <= 20

boxes_not_moved: the boxes are in the crop's pixels: add its x1, y1 to both corners.
- moved = boxes + crop[:2].repeat(2)
+ moved = boxes

only_first_corner_moved: both corners move by the crop's x1, y1.
- moved = boxes + crop[:2].repeat(2)
+ moved = torch.cat([boxes[:, :2] + crop[:2], boxes[:, 2:]], dim=1)

any_side_of_the_image: a side may be near the same side of the picture, not near any side of it.
- ((moved - crop).abs() <= 20) & ((moved - image).abs() > 20)
+ ((moved - crop).abs() <= 20) & ~((moved - image).abs() <= 20).any(dim=1, keepdim=True)

near_without_20: 20 pixels away is still near.
- ((moved - crop).abs() <= 20) & ((moved - image).abs() > 20)
+ ((moved - crop).abs() < 20) & ((moved - image).abs() >= 20)

exactly_at_the_edge: within 20 pixels of the edge is near, not only at it.
- ((moved - crop).abs() <= 20) & ((moved - image).abs() > 20)
+ ((moved - crop).abs() <= 1) & ((moved - image).abs() > 1)
""",
)

MASK_TO_RLE = edits(
    "mask_to_rle",
    """
row_by_row: the mask is read row by row; COCO reads down the columns.
- mask.T.flatten()
+ mask.flatten()

no_leading_zero: a mask whose first pixel is set starts with a count of 0 zeros.
- [0] * bool(pixels[0]) + counts
+ counts

always_a_zero: the 0 in front is only for masks whose first pixel is set.
- [0] * bool(pixels[0]) + counts
+ [0] + counts

zero_when_first_is_zero: the 0 stands in front when the first pixel IS set, not when it is not.
- [0] * bool(pixels[0]) + counts
+ [0] * (not bool(pixels[0])) + counts

last_run_dropped: the last run is missing: the counts sum to H * W.
- [0, *new.tolist(), len(pixels)]
+ [0, *new.tolist()]

off_by_one: every run starts one pixel too early: the first new pixel is the one behind the change.
- .nonzero().flatten() + 1
+ .nonzero().flatten()

positions: these are the places where runs start; counts are their lengths.
- "counts": [0] * bool(pixels[0]) + counts
+ "counts": edges

size_swapped: size is [W, H]; it is [H, W].
- "size": list(mask.shape)
+ "size": list(mask.T.shape)

ends_with_zeros_dropped: the zeros at the end are a run, too.
-     return {
+     if not pixels[-1]:
+         counts = counts[:-1]
+     return {

tensors_inside: the counts are tensors; Python ints were asked for.
- counts = torch.tensor(edges).diff().tolist()
+ counts = list(torch.tensor(edges).diff())

columns_from_the_right: the columns are read from the right.
- mask.T.flatten()
+ mask.T.flip(0).flatten()
""",
)

RIGHT = [
    Right(
        "stability_score",
        "and_or",
        """
def stability_score(logits, threshold=0.0, delta=1.0):
    a, b = logits > threshold + delta, logits > threshold - delta
    inter, union = (a & b).flatten(-2).sum(-1).float(), (a | b).flatten(-2).sum(-1).float()
    return torch.where(union == 0, torch.zeros_like(union), inter / union.clamp(min=1))
""",
    ),
    Right(
        "stability_score",
        "loop",
        """
def stability_score(logits, threshold=0.0, delta=1.0):
    scores = []
    for mask in logits.reshape(-1, *logits.shape[-2:]):
        n, m = int((mask > threshold + delta).sum()), int((mask > threshold - delta).sum())
        scores.append(n / m if m else 0.0)
    return torch.tensor(scores).reshape(logits.shape[:-2])
""",
    ),
    Right(
        "amg_postprocess",
        "matrix",
        """
def amg_postprocess(boxes, iou, stability, crop, image, min_iou, min_stability, max_overlap):
    shift = torch.stack([crop[0], crop[1], crop[0], crop[1]])
    there = boxes + shift
    near = lambda edges: (there - edges).abs() <= 20
    good = (iou > min_iou) & (stability >= min_stability) & ~(near(crop) & ~near(image)).any(1)
    index = good.nonzero().flatten()
    index = index[iou[index].argsort(descending=True)]
    b = boxes[index].float()
    corner = torch.maximum(b[:, None, :2], b[None, :, :2]), torch.minimum(b[:, None, 2:], b[None, :, 2:])
    inter = (corner[1] - corner[0]).clamp(min=0).prod(-1)
    area = (b[:, 2:] - b[:, :2]).prod(-1)
    much = inter / (area[:, None] + area[None] - inter) > max_overlap
    alive = torch.ones(len(index), dtype=torch.bool)
    for i in range(len(index)):
        if alive[i]:
            alive[i + 1 :] &= ~much[i, i + 1 :]
    return index[alive]
""",
    ),
    Right(
        "amg_postprocess",
        "plain_python",
        """
def amg_postprocess(boxes, iou, stability, crop, image, min_iou, min_stability, max_overlap):
    def overlap(a, b):
        w = max(0, min(a[2], b[2]) - max(a[0], b[0]))
        h = max(0, min(a[3], b[3]) - max(a[1], b[1]))
        area = lambda c: (c[2] - c[0]) * (c[3] - c[1])
        return w * h / (area(a) + area(b) - w * h)

    crop, image, listed = crop.tolist(), image.tolist(), boxes.tolist()
    kept = []
    for i in sorted(range(len(listed)), key=lambda i: -iou[i]):
        if not (iou[i] > min_iou and stability[i] >= min_stability):
            continue
        moved = [side + crop[k % 2] for k, side in enumerate(listed[i])]
        if any(abs(s - c) <= 20 and abs(s - e) > 20 for s, c, e in zip(moved, crop, image)):
            continue
        if all(overlap(listed[i], listed[j]) <= max_overlap for j in kept):
            kept.append(i)
    return torch.LongTensor(kept)
""",
    ),
    Right(
        "mask_to_rle",
        "loop",
        """
def mask_to_rle(mask):
    counts, value = [0], False
    for pixel in mask.t().reshape(-1).tolist():
        if pixel == value:
            counts[-1] += 1
        else:
            counts.append(1)
            value = pixel
    return {"size": [mask.shape[0], mask.shape[1]], "counts": counts}
""",
    ),
    Right(
        "mask_to_rle",
        "groupby",
        """
def mask_to_rle(mask):
    from itertools import groupby

    runs = [(value, len(list(run))) for value, run in groupby(mask.permute(1, 0).flatten().tolist())]
    counts = [length for _, length in runs]
    if runs[0][0]:
        counts.insert(0, 0)
    return {"counts": counts, "size": list(mask.size())}
""",
    ),
]
