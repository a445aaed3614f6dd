"""Known-wrong and other right answers of lab 6, DINO."""

from autograder.checks.mutants import edits
from autograder.rubric import Right

DINO_LOSS = edits(
    "dino_loss",
    """
same_view_pairs: you pair each crop with itself; the pairs are those of different crops.
-             if v != i:
+             if v == i:

all_pairs: the teacher's own crop is among the pairs: leave v = i out.
-             if v != i:
+             if True:

no_minus: the minus sign of the cross-entropy is missing: this loss falls when student and teacher disagree.
-                losses.append(-(target * answer).sum(dim=-1).mean())
+                losses.append((target * answer).sum(dim=-1).mean())

divided_by_all: the pairs that are left out are still counted: divide by the number of pairs that remain.
-     return torch.stack(losses).mean()
+     return torch.stack(losses).sum() / (len(teacher) * len(student))

summed: this is the sum over the pairs; the loss is their mean.
-     return torch.stack(losses).mean()
+     return torch.stack(losses).sum()

only_large_student: the small crops are missing: the student answers for all crops.
-     log_p = [F.log_softmax(s / ts, dim=-1) for s in student]
+     log_p = [F.log_softmax(s / ts, dim=-1) for s in student[: max(len(teacher), 2)]]

only_small_student: large crops are left out on the student's side; only v = i is.
-             if v != i:
+             if v != i and v >= len(teacher) * (len(student) > len(teacher)):

center_added: the centre is added; it is subtracted.
- t - center
+ t + center

center_missing: the centre is not used: subtract it from the teacher's logits.
- ((t - center) / tt)
+ (t / tt)

center_after_temperature: the centre is subtracted after the temperature; it belongs to the raw logits.
- ((t - center) / tt)
+ (t / tt - center)

student_centred: the student is centred, too; the centre belongs to the teacher only.
- F.log_softmax(s / ts, dim=-1)
+ F.log_softmax((s - center) / ts, dim=-1)

temperatures_swapped: the temperatures are swapped: tt is the teacher's, ts the student's.
- ((t - center) / tt).softmax(dim=-1).detach() for t in teacher]
-     log_p = [F.log_softmax(s / ts
+ ((t - center) / ts).softmax(dim=-1).detach() for t in teacher]
+     log_p = [F.log_softmax(s / tt

student_temperature_for_both: the teacher is divided by the student's temperature; its own, tt, sharpens.
- ((t - center) / tt)
+ ((t - center) / ts)

temperature_multiplied: the student's logits are multiplied by the temperature; divide.
- s / ts
+ s * ts

teacher_not_detached: a gradient reaches the teacher: detach its answers.
- .softmax(dim=-1).detach() for t
+ .softmax(dim=-1) for t

student_detached: the student is detached, so nothing is learned; it is the teacher that has no gradient.
- F.log_softmax(s / ts, dim=-1)
+ F.log_softmax(s.detach() / ts, dim=-1)

roles_swapped: this is the cross-entropy the other way round: the teacher gives the probabilities, the student the logs.
- -(target * answer)
+ -(answer.exp() * target.clamp_min(1e-38).log())

log_of_softmax: log(softmax) of a large logit is log(0): use F.log_softmax.
- F.log_softmax(s / ts, dim=-1)
+ (s / ts).softmax(dim=-1).log()

log_with_eps: a small number inside the log changes every value: use F.log_softmax instead.
- F.log_softmax(s / ts, dim=-1)
+ ((s / ts).softmax(dim=-1) + 1e-6).log()

mean_over_k: you average over the K outputs; a cross-entropy sums over them.
- .sum(dim=-1).mean())
+ .mean())

summed_over_batch: the loss is summed over the images; average over them.
- .sum(dim=-1).mean())
+ .sum())

kl: this is the KL divergence: the entropy of the teacher is not subtracted.
- -(target * answer).sum(dim=-1)
+ (target * (target.clamp_min(1e-38).log() - answer)).sum(dim=-1)

softmax_over_batch: the teacher's softmax runs over the images; it runs over the K outputs.
- tt).softmax(dim=-1)
+ tt).softmax(dim=0)
""",
)

UPDATE_CENTER = edits(
    "update_center",
    """
momentum_swapped: m and 1 - m are swapped: the old centre keeps m.
-     return m * center + (1 - m) * mean
+     return (1 - m) * center + m * mean

mean_over_k: you average over the K outputs, too; the centre has one number for each of them.
- t.detach().flatten(0, -2).mean(dim=0)
+ t.detach().flatten(0, -2).mean(dim=1).mean().expand_as(center)

probabilities: these are means of probabilities; the centre is one of raw logits.
- t.detach().flatten(0, -2).mean(dim=0)
+ t.detach().flatten(0, -2).softmax(dim=-1).mean(dim=0)

summed: you add the logits up; the centre moves towards their mean.
- mean(dim=0)
+ sum(dim=0)

subtracted: the mean is subtracted; the centre moves towards it.
-     return m * center + (1 - m) * mean
+     return m * center - (1 - m) * mean

replaced: the old centre is forgotten: m of it stays.
-     return m * center + (1 - m) * mean
+     return mean

already_centred: the mean is of centred logits; it is of the raw ones.
- t.detach().flatten(0, -2)
+ (t.detach() - center).flatten(0, -2)

gradient_kept: the centre carries a gradient: every step's graph is kept.
- t.detach()
+ t

first_crop_only: only the first crop counts: average over all axes but the last.
- t.detach().flatten(0, -2).mean(dim=0)
+ (t.detach()[0] if t.ndim == 3 else t.detach()).mean(dim=0)

axis_zero_only: with (G, B, K) only the first axis is averaged: all but the last.
- t.detach().flatten(0, -2).mean(dim=0)
+ t.detach().mean(dim=0)

in_place: the old centre is changed in place: return a new tensor.
-     return m * center + (1 - m) * mean
+     return center.mul_(m).add_((1 - m) * mean)
""",
)

MULTICROP_FORWARD = edits(
    "multicrop_forward",
    """
large_first: the rows come out with the large crops first; they belong in the order of the crops.
-     for _, group in groupby(crops, key=lambda crop: crop.shape):
+     for _, group in groupby(sorted(crops, key=lambda crop: -crop.shape[-1]), key=lambda crop: crop.shape):

small_first: the rows come out with the small crops first; they belong in the order of the crops.
-     for _, group in groupby(crops, key=lambda crop: crop.shape):
+     for _, group in groupby(sorted(crops, key=lambda crop: crop.shape[-1]), key=lambda crop: crop.shape):

one_by_one: each crop makes its own pass: stack the crops of one size first.
-     for _, group in groupby(crops, key=lambda crop: crop.shape):
+     for group in [[crop] for crop in crops]:

head_for_each_size: the head is called once a size; it takes the features of all crops together.
-         features.append(backbone(torch.cat(list(group))))
-     return head(torch.cat(features))
+         features.append(head(backbone(torch.cat(list(group)))))
+     return torch.cat(features)

head_for_each_crop: the head is called once a crop; it takes the features of all crops together.
-     return head(torch.cat(features))
+     return torch.cat([head(f) for f in torch.cat(features).chunk(len(crops))])

no_head: the features come back without the head.
-     return head(torch.cat(features))
+     return torch.cat(features)

interleaved: the rows are sorted by image; all rows of crop 0 come first, then those of crop 1.
-     return head(torch.cat(features))
+     z = torch.cat(features)
+     return head(z.unflatten(0, (len(crops), -1)).transpose(0, 1).flatten(0, 1))

stacked: the crops are an axis of their own: return (V * B, K).
-     return head(torch.cat(features))
+     return head(torch.cat(features)).unflatten(0, (len(crops), -1))
""",
)

ATTN_TO_MASK = edits(
    "attn_to_mask",
    """
threshold: you keep patches above a share of the strongest one; the mask is the fewest that hold the mass together.
- before < mass)
+ top > mass * top.amax(dim=-1, keepdim=True))

above_mean: you keep patches above the mean; the mask is the fewest that hold the mass together.
- before < mass)
+ top > 1 / (h * w))

share_of_patches: you keep a share of the patches; it is a share of the attention.
- before < mass)
+ torch.arange(h * w).expand_as(top) < mass * h * w)

without_the_last: the patch that reaches the mass is missing; without it the mask holds less than asked.
- before < mass)
+ top.cumsum(dim=-1) <= mass)

one_too_many: a patch too many where the stronger ones hold exactly the mass: the fewest patches, so that is enough.
- before < mass)
+ before <= mass)

not_unsorted: the sorting is not undone: the mask marks the first places, not the strongest patches.
- torch.zeros_like(share, dtype=torch.bool).scatter(-1, order, before < mass)
+ before < mass

unsorted_wrongly: order sorts; to put things back you need its inverse (scatter, or order.argsort()).
- torch.zeros_like(share, dtype=torch.bool).scatter(-1, order, before < mass)
+ (before < mass).gather(-1, order)

ascending: you start from the weakest patches.
- descending=True
+ descending=False

class_token_in: the attention that CLS pays to itself is part of the whole: let the patches alone sum to 1.
-     share = share / share.sum(dim=-1, keepdim=True)
+     share = share / attention[:, :, 0].sum(dim=-1, keepdim=True)

column_of_cls: this is the column of CLS, who looks at it; its row says where it looks.
- attention[:, :, 0, -h * w :]
+ attention[:, :, -h * w :, 0]

mean_over_queries: this is the mean over all queries; only the row of CLS is asked for.
- attention[:, :, 0, -h * w :]
+ attention[:, :, :, -h * w :].mean(dim=2)

heads_averaged: the heads are averaged first; each head has a mask of its own.
- attention[:, :, 0, -h * w :]
+ attention[:, :, 0, -h * w :].mean(dim=1, keepdim=True).expand(-1, attention.shape[1], -1)

heads_sorted_together: all heads share one sum; each head's patches sum to 1.
-     share = share / share.sum(dim=-1, keepdim=True)
+     share = share / share.sum(dim=(1, 2), keepdim=True) * share.shape[1]

shifted_by_registers: the patches are the last h * w tokens; between CLS and them there may be others.
- attention[:, :, 0, -h * w :]
+ attention[:, :, 0, 1 : h * w + 1]

grid_swapped: rows and columns are swapped: the grid is (h, w).
- unflatten(-1, (h, w))
+ unflatten(-1, (w, h))

transposed: the mask is transposed: patches come in reading order.
- kept.unflatten(-1, (h, w))
+ kept.unflatten(-1, (w, h)).transpose(-2, -1)

not_bool: the mask holds numbers; return type bool.
-     return kept
+     return kept.float()

inverted: the mask is inverted: True is where CLS looks.
-     return kept
+     return ~kept

fixed_mass: the mass is always 60 %: use the argument.
- before < mass)
+ before < 0.6)
""",
)

RIGHT = [
    Right(
        "dino_loss",
        "cross_entropy",
        """
def dino_loss(student, teacher, center, ts=0.1, tt=0.04):
    total, pairs = 0.0, 0
    for i in range(len(teacher)):
        with torch.no_grad():
            target = F.softmax((teacher[i] - center) / tt, dim=1)
        for v in range(len(student)):
            if v == i:
                continue
            total = total + F.cross_entropy(student[v] / ts, target)
            pairs += 1
    return total / pairs
""",
    ),
    Right(
        "dino_loss",
        "matrix",
        """
def dino_loss(student, teacher, center, ts=0.1, tt=0.04):
    logits = torch.stack(student) / ts
    log_p = logits - logits.logsumexp(-1, keepdim=True)
    target = ((torch.stack(teacher).detach() - center.detach()) / tt).softmax(-1)
    table = -torch.einsum("gbk,vbk->gv", target, log_p) / log_p.shape[1]
    different = ~torch.eye(len(teacher), len(student), dtype=torch.bool)
    return table[different].mean()
""",
    ),
    Right(
        "update_center",
        "lerp",
        """
@torch.no_grad()
def update_center(center, t, m=0.9):
    mean = t.reshape(-1, t.shape[-1]).mean(0)
    return torch.lerp(mean, center, m)
""",
    ),
    Right(
        "update_center",
        "step_towards",
        """
def update_center(center, t, m=0.9):
    t = t.detach()
    mean = t.sum(dim=tuple(range(t.ndim - 1))) / (t.numel() / t.shape[-1])
    return center.detach() + (1 - m) * (mean - center.detach())
""",
    ),
    Right(
        "multicrop_forward",
        "loop",
        """
def multicrop_forward(backbone, head, crops):
    features, run = [], [crops[0]]
    for crop in crops[1:]:
        if crop.shape != run[-1].shape:
            features.append(backbone(torch.cat(run)))
            run = []
        run.append(crop)
    features.append(backbone(torch.cat(run)))
    return head(torch.cat(features, dim=0))
""",
    ),
    Right(
        "multicrop_forward",
        "dictionary_of_sizes",
        """
def multicrop_forward(backbone, head, crops):
    by_size = {}
    for i, crop in enumerate(crops):
        by_size.setdefault(tuple(crop.shape[2:]), []).append(i)
    rows = [None] * len(crops)
    for members in by_size.values():
        out = backbone(torch.cat([crops[i] for i in members]))
        for i, part in zip(members, out.chunk(len(members))):
            rows[i] = part
    return head(torch.cat(rows))
""",
    ),
    Right(
        "attn_to_mask",
        "loop",
        """
def attn_to_mask(attention, grid, mass=0.6):
    h, w = grid
    b, heads = attention.shape[:2]
    mask = torch.zeros(b, heads, h * w, dtype=torch.bool)
    for i in range(b):
        for j in range(heads):
            share = attention[i, j, 0][-h * w :]
            held, total = 0.0, share.sum()
            for k in share.argsort(descending=True):
                if held >= mass * total:
                    break
                mask[i, j, k] = True
                held = held + share[k]
    return mask.reshape(b, heads, h, w)
""",
    ),
    Right(
        "attn_to_mask",
        "inverse_order",
        """
def attn_to_mask(attention, grid, mass=0.6):
    h, w = grid
    share = attention[:, :, 0, attention.shape[-1] - h * w :]
    order = torch.argsort(share, dim=-1, descending=True)
    held = torch.cumsum(share.gather(-1, order), -1) / share.sum(-1, keepdim=True)
    kept = torch.cat([torch.ones_like(held[..., :1], dtype=torch.bool), held[..., :-1] < mass], -1)
    return kept.gather(-1, order.argsort(-1)).view(*share.shape[:2], h, w)
""",
    ),
]
