"""Known-wrong and other right answers of lab 7, MAE."""

from autograder.checks.mutants import edits
from autograder.rubric import Right

RANDOM_MASKING = edits(
    "random_masking",
    """
restore_is_shuffle: ids_restore is ids_shuffle itself; what is needed is its inverse, another argsort.
-     ids_restore = ids_shuffle.argsort(dim=1)
-     kept
+     ids_restore = ids_shuffle
+     kept

mask_of_shuffle: the mask is read off ids_shuffle; ids_restore says at which place of the list a token is.
- ids_restore >= keep, ids_restore
+ ids_shuffle >= keep, ids_restore

mask_not_restored: the mask is still in the order of the noise: the first places are visible, whichever tokens they are.
- ids_restore >= keep, ids_restore
+ (torch.arange(x.shape[1]) >= keep).expand_as(ids_restore), ids_restore

mask_flipped: the mask is inverted: True means hidden.
- ids_restore >= keep, ids_restore
+ ids_restore < keep, ids_restore

mask_off_by_one: one token too few is marked: `keep` or later are hidden.
- ids_restore >= keep, ids_restore
+ ids_restore > keep, ids_restore

mask_as_numbers: the mask holds numbers; its type is bool.
- ids_restore >= keep, ids_restore
+ (ids_restore >= keep).to(x.dtype), ids_restore

largest_stay: the largest numbers stay; it is the smallest.
- noise.argsort(dim=1)
+ noise.argsort(dim=1, descending=True)

last_stay: the end of the list stays; it is its beginning.
- ids_shuffle[:, :keep, None]
+ ids_shuffle[:, x.shape[1] - keep :, None]

picked_with_restore: tokens are picked with ids_restore; the first places of ids_shuffle name them.
- ids_shuffle[:, :keep, None]
+ ids_restore[:, :keep, None]

visible_in_reading_order: the visible tokens are sorted again; ids_restore relies on the order of their noise.
- ids_shuffle[:, :keep, None]
+ ids_shuffle[:, :keep].sort(dim=1).values[..., None]

same_for_all: every image follows the noise of the first one.
- noise.argsort(dim=1)
+ noise[:1].expand_as(noise).argsort(dim=1)

argsort_over_batch: the noise is sorted over the images; each image sorts its own: dim=1.
- noise.argsort(dim=1)
+ noise.argsort(dim=0).clamp_max(x.shape[1] - 1)

rounded_up: too many stay where N * (1 - ratio) is no whole number: it is rounded down.
- int(x.shape[1] * (1 - ratio))
+ x.shape[1] - int(x.shape[1] * ratio)

rounded: N * (1 - ratio) is rounded to the nearest; it is rounded down.
- int(x.shape[1] * (1 - ratio))
+ round(x.shape[1] * (1 - ratio))

keeps_ratio: you keep what should be hidden: `ratio` is the hidden part.
- int(x.shape[1] * (1 - ratio))
+ int(x.shape[1] * ratio)

own_noise: you roll your own dice; use the noise that you are given.
- noise.argsort(dim=1)
+ torch.rand_like(noise).argsort(dim=1)

zeros_in_place: the hidden tokens are still there, as zeros: the encoder gets a shorter sequence.
- return x.gather(1, kept), ids
+ return x * (ids_restore < keep)[..., None], ids

detached: no gradient comes back through the visible tokens: no detach().
- return x.gather(1, kept)
+ return x.detach().gather(1, kept)

in_place: the caller's tokens are changed in place.
- return x.gather(1, kept), ids
+ return x.data.mul_(1 + 1e-3).gather(1, kept), ids
""",
)

DECODER_UNSHUFFLE = edits(
    "decoder_unshuffle",
    """
class_token_too: CLS is shuffled with the others: it has no place and stays in front.
-     tokens = torch.cat([visible, hidden], dim=1)
+     tokens = torch.cat([cls, visible, hidden], dim=1)[:, :n]

class_token_dropped: CLS is lost: put it in front again.
-     return torch.cat([cls, tokens], dim=1)
+     return tokens

class_token_last: CLS comes first, you put it last.
- torch.cat([cls, tokens], dim=1)
+ torch.cat([tokens, cls], dim=1)

class_token_replaced: a mask token stands where CLS was.
- torch.cat([cls, tokens], dim=1)
+ torch.cat([mask_token.expand(b, 1, -1), tokens], dim=1)

inverse_order: tokens go where ids_restore says; instead each place fetches the token whose number ids_restore holds.
- tokens.gather(1, ids_restore[..., None].expand(-1, -1, tokens.shape[2]))
+ tokens.gather(1, ids_restore.argsort(dim=1)[..., None].expand(-1, -1, tokens.shape[2]))

not_shuffled: the tokens are never put back: gather with ids_restore.
-     tokens = tokens.gather(1, ids_restore[..., None].expand(-1, -1, tokens.shape[2]))

hidden_first: the list is "kept, then hidden": mask tokens come last.
- torch.cat([visible, hidden], dim=1)
+ torch.cat([hidden, visible], dim=1)

same_for_all: every image is put back in the order of the first one.
- ids_restore[..., None].expand(-1, -1, tokens.shape[2])
+ ids_restore[:1, :, None].expand(b, -1, tokens.shape[2])

index_without_d: only the first number of every token is fetched: expand the index to D before gather.
- ids_restore[..., None].expand(-1, -1, tokens.shape[2]))
+ ids_restore[..., None]).expand(-1, -1, tokens.shape[2])

zeros: the gaps are filled with zeros; the mask token is learned.
- mask_token.expand(b, n - visible.shape[1], -1)
+ torch.zeros_like(mask_token).expand(b, n - visible.shape[1], -1)

mask_token_detached: no gradient reaches the mask token: do not copy its numbers, no detach().
- mask_token.expand(
+ mask_token.detach().expand(

tokens_detached: no gradient reaches the visible tokens.
- x_vis[:, :1], x_vis[:, 1:]
+ x_vis[:, :1], x_vis[:, 1:].detach()

one_mask_token: the gaps are filled with the mean of the visible tokens; it is the mask token.
- mask_token.expand(b, n - visible.shape[1], -1)
+ x_vis.mean(dim=1, keepdim=True).expand(b, n - visible.shape[1], -1)

in_place: the caller's tokens are changed in place.
-     return torch.cat([cls, tokens], dim=1)
+     result = torch.cat([cls, tokens], dim=1)
+     x_vis.data.add_(1.0)
+     return result
""",
)

MAE_LOSS = edits(
    "mae_loss",
    """
all_patches: visible patches are in the loss, too: only hidden ones count.
-     return (error * mask).sum() / mask.sum()
+     return error.mean()

visible_patches: this is the loss of the visible patches; True means hidden.
-     return (error * mask).sum() / mask.sum()
+     return (error * ~mask).sum() / (~mask).sum().clamp_min(1)

divided_by_all: you divide by the number of all patches; it is a mean over the hidden ones.
- / mask.sum()
+ / mask.numel()

per_image: you average over each image first; it is one mean over all hidden patches of the batch.
-     return (error * mask).sum() / mask.sum()
+     return ((error * mask).sum(dim=1) / mask.sum(dim=1)).mean()

summed_patch: the squares of a patch are summed; take their mean.
- .square().mean(dim=-1)
+ .square().sum(dim=-1)

summed: the loss is summed over the patches; take the mean.
- / mask.sum()
+

absolute: this is the absolute error; square it.
- .square()
+ .abs()

rooted: the root is not part of it: the mean squared error.
-     return (error * mask).sum() / mask.sum()
+     return ((error * mask).sum() / mask.sum()).sqrt()

biased_variance: the variance is divided by n; it is n - 1.
- patches.var(dim=-1, keepdim=True)
+ patches.var(dim=-1, keepdim=True, correction=0)

no_eps: a patch without contrast is divided by 0: add 1e-6 to the variance.
- (var + 1e-6).sqrt()
+ var.sqrt()

eps_outside: 1e-6 is added to the standard deviation; it belongs under the root.
- (var + 1e-6).sqrt()
+ (var.sqrt() + 1e-6)

divided_by_variance: you divide by the variance; it is its root.
- (var + 1e-6).sqrt()
+ (var + 1e-6)

whole_image: mean and variance are those of the whole image; each patch has its own.
- patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
+ patches.mean(dim=(1, 2), keepdim=True), patches.var(dim=(1, 2), keepdim=True)

mean_only: the mean is taken out, but the patch is not divided by its standard deviation.
-  / (var + 1e-6).sqrt()
+

never_normalised: norm_pix changes nothing: compare with normalised patches.
-     if norm_pix:
+     if False:

always_normalised: the patches are normalised even without norm_pix.
-     if norm_pix:
+     if True:

prediction_normalised: the prediction is normalised, too; only the target is.
-         patches = (patches - mean) / (var + 1e-6).sqrt()
+         patches = (patches - mean) / (var + 1e-6).sqrt()
+         pred = (pred - pred.mean(-1, keepdim=True)) / (pred.var(-1, keepdim=True) + 1e-6).sqrt()

detached: the prediction is detached: nothing is learned.
- (pred - patches)
+ (pred.detach() - patches)

in_place: the caller's patches are changed in place.
-         patches = (patches - mean) / (var + 1e-6).sqrt()
+         patches.sub_(mean).div_((var + 1e-6).sqrt())
""",
)

RIGHT = [
    Right(
        "random_masking",
        "topk_and_scatter",
        """
def random_masking(x, ratio, noise):
    b, n, d = x.shape
    keep = math.floor(n * (1 - ratio))
    order = torch.argsort(noise, 1)
    restore = torch.empty_like(order).scatter_(1, order, torch.arange(n).expand(b, n))
    mask = torch.ones(b, n, dtype=torch.bool)
    mask.scatter_(1, order[:, :keep], False)
    return x[torch.arange(b)[:, None], order[:, :keep]], mask, restore
""",
    ),
    Right(
        "random_masking",
        "loop",
        """
def random_masking(x, ratio, noise):
    n = x.shape[1]
    keep = int(n * (1 - ratio))
    kept, masks, restores = [], [], []
    for tokens, numbers in zip(x, noise):
        order = sorted(range(n), key=lambda i: numbers[i].item())
        kept.append(tokens[order[:keep]])
        masks.append(torch.tensor([i not in order[:keep] for i in range(n)]))
        restores.append(torch.tensor([order.index(i) for i in range(n)]))
    return torch.stack(kept), torch.stack(masks), torch.stack(restores)
""",
    ),
    Right(
        "decoder_unshuffle",
        "indexing",
        """
def decoder_unshuffle(x_vis, mask_token, ids_restore):
    b, n = ids_restore.shape
    missing = n + 1 - x_vis.shape[1]
    everything = torch.cat((x_vis, mask_token.repeat(b, missing, 1)), 1)
    index = torch.cat((torch.zeros(b, 1, dtype=torch.long), ids_restore + 1), 1)
    return everything[torch.arange(b)[:, None], index]
""",
    ),
    Right(
        "decoder_unshuffle",
        "where",
        """
def decoder_unshuffle(x_vis, mask_token, ids_restore):
    visible = x_vis.shape[1] - 1
    index = (1 + ids_restore).clamp(max=visible)
    fetched = torch.stack([row[i] for row, i in zip(x_vis, index)])
    tokens = torch.where((ids_restore < visible).unsqueeze(-1), fetched, mask_token)
    return torch.cat([x_vis[:, :1], tokens], 1)
""",
    ),
    Right(
        "mae_loss",
        "pick_then_mean",
        """
def mae_loss(pred, patches, mask, norm_pix=False):
    target = patches
    if norm_pix:
        centred = patches - patches.mean(-1, keepdim=True)
        variance = centred.pow(2).sum(-1, keepdim=True) / (patches.shape[-1] - 1)
        target = centred * (variance + 1e-6).rsqrt()
    return F.mse_loss(pred[mask], target[mask])
""",
    ),
    Right(
        "mae_loss",
        "loop",
        """
def mae_loss(pred, patches, mask, norm_pix=False):
    errors = []
    for b in range(len(mask)):
        for n in range(mask.shape[1]):
            if mask[b, n]:
                x = patches[b, n]
                if norm_pix:
                    x = (x - x.mean()) / torch.sqrt(x.var() + 1e-6)
                errors.append(((pred[b, n] - x) ** 2).mean())
    return sum(errors) / len(errors)
""",
    ),
]
