# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] id="title"
# # Lab 7: hide most of it, paint the rest
#
# An image is cut into patches, most of them are hidden, and a network has to say what was there. You write the parts of MAE,
# which paints pixels, and of BEiT, which names the hidden patches with the words of a codebook. Then you find out why MAE
# hides 75 % and not 15 %, as language models do: once without any training, once with a network that you have built.
#
# | | |
# |---|---|
# | **You need** | `gather`, `argsort`, softmax, `detach()`; patches as in lab 6; chapter 7 (its sections on masks and on MAE) |
# | **Time** | about 3 hours, after the chapter; every exercise says how many minutes |
# | **Points** | 100: functions 70, prediction and experiment 15, open question 15 |
#
# How it works: fill in a function, run the check below it, go on when it passes. A check looks at a few public examples;
# grading looks at more properties (gradients, odd sizes, many random masks) and gives points for each one.
# Every exercise is graded **on its own**. So if you are stuck, leave it and move on: the experiment at the end runs
# with the course's functions if you set `USE_REFERENCE = True` there.
#
# - Difficulty and importance go from 1 to 5.
# - Stuck? `hint("random_masking", 1)` opens a first hint; levels 2 and 3 say more. Hints cost nothing.
# - Write helper functions and imports **inside** the exercise's cell: the grader runs that cell alone.
# - Before you hand in, save the notebook and run, in a terminal in the course's folder,
#   `.venv/bin/sslcourse check labs/07_beit_mae/07_beit_mae.ipynb`.
#
# One convention everywhere: a **mask is bool, `True` = hidden**.

# %% id="preamble" sslcourse={"role": "preamble"}
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# %% id="tools"
from sslcourse.lab import Budget, hint, predict, record_result

hint()

# %% [markdown] id="text-random_masking"
# ## 1. Leave most of it out
# *Difficulty 3, importance 5, 20 minutes, 12 points.*
#
# MAE's encoder never sees a hidden patch, not even a token in its place: the sequence is simply shorter, and so 75 % hidden
# makes the encoder about four times cheaper. Each token draws a number; the tokens with the **smallest** numbers stay. Sorting
# the numbers does everything at once:
#
# - `ids_shuffle = noise.argsort(dim=1)` lists tokens from the smallest number to the largest; the first `keep` of the list stay;
# - its inverse, `ids_restore`, says for every token at which place of that list it is. The inverse of an order is its own
#   `argsort`. The decoder needs it to put things back, and the mask can be read off it.
#
# How many stay? `keep = int(N * (1 - ratio))`, rounded down.

# %% nbgrader={"grade": false, "grade_id": "random_masking", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.nn.patches:random_masking"}
def random_masking(x: Tensor, ratio: float, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Leave tokens out, each image its own.

    x: (B, N, D) tokens.   ratio: part that is hidden; int(N * (1 - ratio)) tokens stay.   noise: (B, N), smallest stay.
    returns: x_vis (B, keep, D), in the order of their noise;
             mask (B, N) bool, True = hidden, in the order of x;
             ids_restore (B, N) int64, where each token of x is in the list "kept, then hidden".

    Example: x = [[10], [20], [30], [40]], ratio = 0.5, noise = [0.6, 0.1, 0.4, 0.9]. From the smallest number on, the
    tokens are 1, 2, 0, 3, so x_vis = [[20], [30]], mask = [T, F, F, T], ids_restore = [2, 0, 1, 3].
    """
    ### BEGIN SOLUTION
    keep = int(x.shape[1] * (1 - ratio))
    ids_shuffle = noise.argsort(dim=1)
    ids_restore = ids_shuffle.argsort(dim=1)
    kept = ids_shuffle[:, :keep, None].expand(-1, -1, x.shape[2])
    return x.gather(1, kept), ids_restore >= keep, ids_restore
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-random_masking", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "random_masking"}
x = torch.tensor([[[10.0], [20.0], [30.0], [40.0]]], requires_grad=True)
noise = torch.tensor([[0.6, 0.1, 0.4, 0.9]])
x_vis, mask, ids_restore = random_masking(x, 0.5, noise)
assert isinstance(x_vis, Tensor), f"x_vis is a tensor, not a {type(x_vis).__name__}"
assert x_vis.shape == (1, 2, 1), f"half of 4 tokens stay: expected (1, 2, 1), got {tuple(x_vis.shape)}"
assert x_vis.flatten().tolist() == [20, 30], (
    f"expected [20, 30], got {x_vis.flatten().tolist()}. [40, 10]: the largest numbers stay; [30, 10]: picked with ids_restore; [10, 40]: the end "
    "of the list stays."
)
assert x_vis.requires_grad, "no gradient reaches x: is there a detach too many?"
assert mask.dtype == torch.bool, f"the mask is bool, yours is {mask.dtype}"
assert mask.tolist() == [[True, False, False, True]], (
    f"expected [T, F, F, T], got {mask.tolist()}. [F, T, T, F]: True means hidden; [F, F, T, T]: the mask is still in the order of the noise; "
    "[F, T, F, T]: read off ids_shuffle."
)
assert ids_restore.tolist() == [[2, 0, 1, 3]], f"expected [2, 0, 1, 3], got {ids_restore.tolist()}. [1, 2, 0, 3]: this is ids_shuffle, not its inverse"

x = torch.arange(28.0).view(2, 7, 2)
noise = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], [0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]])
x_vis, mask, _ = random_masking(x, 0.6, noise)
assert x_vis.shape == (2, 2, 2), f"int(7 * 0.4) = 2 of 7 tokens stay, each with its 2 numbers: expected (2, 2, 2), got {tuple(x_vis.shape)}"
assert x_vis[0].tolist() == [[0, 1], [2, 3]], f"image 0 keeps its first two tokens, yours {x_vis[0].tolist()}"
assert x_vis[1].tolist() == [[26, 27], [24, 25]], f"image 1 keeps its last two, by its own noise and in that order; yours {x_vis[1].tolist()}"
assert mask.sum(dim=1).tolist() == [5, 5], f"5 of 7 are hidden, yours {mask.sum(dim=1).tolist()}"
print("random_masking: the public checks pass")

# %% [markdown] id="text-decoder_unshuffle"
# ## 2. Everything back in its place
# *Difficulty 3, importance 4, 15 minutes, 10 points.*
#
# The decoder is to paint *all* patches, so it needs all places: the encoded token where there is one, elsewhere **one and the same learned
# vector**, the mask token. Build the list "kept, then hidden" (the visible tokens, then as many mask tokens as are missing), and
# pick from it with `ids_restore`. The first token is CLS. It has no place, so it stays in front and takes no part.

# %% nbgrader={"grade": false, "grade_id": "decoder_unshuffle", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.nn.patches:decoder_unshuffle"}
def decoder_unshuffle(x_vis: Tensor, mask_token: Tensor, ids_restore: Tensor) -> Tensor:
    """Visible tokens back in their places, a mask token everywhere else.

    x_vis: (B, 1 + V, D), CLS first, then the V visible tokens in the order of `random_masking`.
    mask_token: (1, 1, D).   ids_restore: (B, N) int64, as above.
    returns: (B, 1 + N, D).

    Example: x_vis = [[9], [20], [30]] (9 is CLS), mask_token = 0, ids_restore = [2, 0, 1, 3]: the list is 20, 30, 0, 0;
    its places 2, 0, 1, 3 are 0, 20, 30, 0; with CLS in front: [[9], [0], [20], [30], [0]].
    """
    ### BEGIN SOLUTION
    b, n = ids_restore.shape
    cls, visible = x_vis[:, :1], x_vis[:, 1:]
    hidden = mask_token.expand(b, n - visible.shape[1], -1)
    tokens = torch.cat([visible, hidden], dim=1)
    tokens = tokens.gather(1, ids_restore[..., None].expand(-1, -1, tokens.shape[2]))
    return torch.cat([cls, tokens], dim=1)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-decoder_unshuffle", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "decoder_unshuffle"}
x_vis = torch.tensor([[[9.0], [20.0], [30.0]]], requires_grad=True)
mask_token = torch.zeros(1, 1, 1, requires_grad=True)
out = decoder_unshuffle(x_vis, mask_token, torch.tensor([[2, 0, 1, 3]]))
assert isinstance(out, Tensor), f"return a tensor, not a {type(out).__name__}"
assert out.shape == (1, 5, 1), f"CLS and 4 places: expected (1, 5, 1), got {tuple(out.shape)}"
assert out.flatten().tolist() == [9, 0, 20, 30, 0], (
    f"expected [9, 0, 20, 30, 0], got {out.flatten().tolist()}. [9, 30, 0, 20, 0]: each place fetches the token whose number in the list ids_restore "
    "holds (gather); you sent the list's tokens there (scatter, or a second argsort). [9, 20, 30, 0, 0]: not put back at all. "
    "[9, 20, 0, 0, 30]: the visible tokens come first in the list. [9, 30, 9, 20, 0]: CLS is in the list."
)
grads = torch.autograd.grad(out.sum(), (x_vis, mask_token), allow_unused=True)
assert grads[0] is not None, "no gradient reaches the tokens: is there a detach too many?"
assert grads[0].all(), "the gradient has to reach every visible token and CLS"
assert grads[1] is not None, "no gradient reaches the mask token, which is learned: use it, do not copy its numbers"

two = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]).repeat(2, 1, 1)
out = decoder_unshuffle(two, torch.tensor([[[7.0, 8.0]]]), torch.tensor([[0, 1, 2], [2, 1, 0]]))
assert out.shape == (2, 4, 2), f"2 images, CLS and 3 places, 2 numbers: expected (2, 4, 2), got {tuple(out.shape)}"
assert out[0].tolist() == [[1, 2], [3, 4], [7, 8], [7, 8]], f"image 0: CLS, its token, two mask tokens; got {out[0].tolist()}"
assert out[1].tolist() == [[1, 2], [7, 8], [7, 8], [3, 4]], f"image 1 has its own order: its token comes last; got {out[1].tolist()}"
out = decoder_unshuffle(x_vis.detach(), torch.zeros(1, 1, 1), torch.tensor([[1, 3, 0, 2]])).flatten().tolist()
assert out == [9, 30, 0, 20, 0], (
    f"expected [9, 30, 0, 20, 0], got {out}. [9, 20, 0, 30, 0]: visible places filled from left to right; the visible tokens are in the order of their noise."
)
print("decoder_unshuffle: the public checks pass")

# %% [markdown] id="text-mae_loss"
# ## 3. MAE's loss
# *Difficulty 2, importance 5, 15 minutes, 10 points.*
#
# The mean squared error of a patch is the mean over its numbers; the loss is the mean over **hidden patches only**, those of the
# whole batch together: what was visible costs nothing.
#
# With `norm_pix` the target is not the patch $x$ but its contrast,
#
# $$\tilde x = \frac{x - \bar x}{\sqrt{\operatorname{var}(x) + 10^{-6}}},$$
#
# with mean and variance of **each patch by itself**, and the variance with $n - 1$ (what `var` does if nobody stops it). The paper gains half a
# percent with it: a patch's brightness is easily guessed from its neighbours, and no longer counts.

# %% nbgrader={"grade": false, "grade_id": "mae_loss", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.losses.masked:mae_loss"}
def mae_loss(pred: Tensor, patches: Tensor, mask: Tensor, norm_pix: bool = False) -> Tensor:
    """Mean squared error of the hidden patches.

    pred, patches: (B, N, p*p*C) float.   mask: (B, N) bool, at least one True.   norm_pix: compare with patches of mean 0
    and variance 1.
    returns: scalar, the mean over the hidden patches of the batch.

    Example: two patches [0, 2] and [1, 5], only the second is hidden; pred = [9, 9] and [1, 1]. The loss is
    (0 + 16) / 2 = 8. With norm_pix: mean 3 and variance 8 make [-0.707, 0.707] of [1, 5], and the loss is 1.5.
    """
    ### BEGIN SOLUTION
    if norm_pix:
        mean, var = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
        patches = (patches - mean) / (var + 1e-6).sqrt()
    error = (pred - patches).square().mean(dim=-1)
    return (error * mask).sum() / mask.sum()
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-mae_loss", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "mae_loss"}
pred = torch.tensor([[[9.0, 9.0], [1.0, 1.0]]], requires_grad=True)
patches, mask = torch.tensor([[[0.0, 2.0], [1.0, 5.0]]]), torch.tensor([[False, True]])
loss = mae_loss(pred, patches, mask)
assert isinstance(loss, Tensor), f"return a tensor, not a {type(loss).__name__}"
assert loss.shape == (), f"return one number, yours has shape {tuple(loss.shape)}"
assert abs(loss - 8) < 1e-4, (
    f"expected 8, got {loss:.3f}. 65: the visible patches, not the hidden ones. 36.5: all patches. 4: divided by the number of all patches. "
    "16: summed over the numbers of a patch. 2: the absolute error."
)
assert loss.requires_grad, "no gradient reaches the prediction: is there a detach too many?"
loss.backward()
assert pred.grad[0, 0].abs().sum() == 0, "a gradient reaches the prediction of a visible patch, which costs nothing"
normed = mae_loss(pred, patches, mask, norm_pix=True)
assert abs(normed - 1.5) < 1e-3, (
    f"norm_pix: expected 1.5, got {normed:.3f}. 2.0: the variance is divided by n; it is n - 1. 1.146: mean and variance of the whole image. "
    "1.062: divided by the variance, not by its root. 5: not divided at all. 8: not normalised. 0.5: the prediction is normalised, too. "
    "0.09: mean and variance over patches, not over the numbers of a patch. 0.54: keepdim=True is missing."
)
assert patches.tolist() == [[[0, 2], [1, 5]]], "your function has changed the patches that it was given: do not work in place"
faint = mae_loss(pred, torch.tensor([[[0.0, 2.0], [0.0, 0.002]]]), mask, norm_pix=True)
assert abs(faint - 1.3333) < 1e-3, f"[0, 0.002] becomes [-0.577, 0.577], so the loss is 1.333, not {faint:.3f}. 1.500: 1e-6 is missing, or not under the root"
batch = mae_loss(torch.zeros(2, 2, 1), torch.tensor([[[1.0], [1.0]], [[2.0], [9.0]]]), torch.tensor([[True, True], [True, False]]))
assert abs(batch - 2) < 1e-4, f"three patches are hidden, with errors 1, 1, 4: mean 2; got {batch:.3f}. 2.5: averaged over each image first; 6: the sum"
both = mae_loss(torch.zeros(1, 2, 2), torch.tensor([[[0.0, 2.0], [1.0, 5.0]]]), torch.tensor([[True, True]]), norm_pix=True)
assert abs(both - 0.5) < 1e-3, f"norm_pix, two hidden patches: both become [-0.707, 0.707], so 0 costs 0.5, not {both:.3f}. 0.750: mean and variance of all that is hidden"
print("mae_loss: the public checks pass")

# %% [markdown] id="text-MiniMAE"
# ## 4. The MAE forward pass
# *Difficulty 3, importance 5, 25 minutes, 12 points.*
#
# Now the three functions become a network. `__init__` is given; leave its names as they are (grading loads weights by these names).
# Write `forward`, eight lines or so:
#
# 1. embed all patches and add their positions, `pos[:, 1:]` (number 0 is that of CLS);
# 2. `random_masking` with `self.ratio` leaves the hidden ones out. Because the positions are in already, every token still knows where it is from;
# 3. CLS plus its position goes in front; through the encoder, then through `narrow`;
# 4. `decoder_unshuffle`, then add `decoder_pos` to everything: now the mask tokens, which are all alike, get a place, too;
# 5. through the decoder and `predict`; drop CLS; `mae_loss` of the raw patches.
#
# Call your functions from above. (The grader lends you right ones, should yours fail.)

# %% nbgrader={"grade": false, "grade_id": "MiniMAE", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.nn.mini_mae:MiniMAE", "uses": ["random_masking", "decoder_unshuffle", "mae_loss"]}
class MiniMAE(nn.Module):
    """Encode the visible patches, fill the gaps with mask tokens, paint every patch.

    Example: N = 4 patches of 3 numbers, ratio = 0.75: one patch stays. The encoder gets (B, 2, dim), CLS and that one; the
    decoder (B, 5, decoder_dim); pred is (B, 4, 3). If `predict` is all zeros, so is pred, and patches full of 2 cost 4.
    """

    def __init__(self, n: int, values: int, dim=64, depth=2, decoder_dim=48, decoder_depth=1, ratio=0.75):
        """n: patches of an image.   values: numbers in a patch."""
        super().__init__()

        def blocks(width: int, count: int):
            how = {"layer_norm_eps": 1e-6, "batch_first": True, "norm_first": True}
            layers = [nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", **how) for _ in range(count)]
            return nn.Sequential(*layers, nn.LayerNorm(width, eps=1e-6))

        self.ratio = ratio
        self.embed, self.encoder = nn.Linear(values, dim), blocks(dim, depth)
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.pos = nn.Parameter(0.02 * torch.randn(1, 1 + n, dim))
        self.narrow, self.decoder = nn.Linear(dim, decoder_dim), blocks(decoder_dim, decoder_depth)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, decoder_dim))
        self.decoder_pos = nn.Parameter(0.02 * torch.randn(1, 1 + n, decoder_dim))
        self.predict = nn.Linear(decoder_dim, values)

    def forward(self, patches: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """patches (B, N, values), noise (B, N) -> the loss, pred (B, N, values), the mask (B, N) bool."""
        ### BEGIN SOLUTION
        tokens = self.embed(patches) + self.pos[:, 1:]
        visible, mask, ids_restore = random_masking(tokens, self.ratio, noise)
        cls = (self.cls + self.pos[:, :1]).expand(len(patches), -1, -1)
        latent = self.encoder(torch.cat([cls, visible], dim=1))
        full = decoder_unshuffle(self.narrow(latent), self.mask_token, ids_restore)
        pred = self.predict(self.decoder(full + self.decoder_pos))[:, 1:]
        return mae_loss(pred, patches, mask), pred, mask
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-MiniMAE", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "MiniMAE"}
net, went_in = MiniMAE(4, 3, dim=4, decoder_dim=4), {}
net.encoder.register_forward_pre_hook(lambda _, x: went_in.update(encoder=x[0].detach()))
net.decoder.register_forward_hook(lambda _, x, out: went_in.update(decoder=x[0].detach(), out=out.detach()))
with torch.no_grad():
    for p in (net.embed.weight, net.embed.bias, net.cls, net.narrow.weight, net.narrow.bias, net.mask_token):
        p.zero_()
    for pos in (net.pos, net.decoder_pos):  # the first number of each position: 1 for CLS, 2 for patch 0, ...
        pos.normal_()[:, :, 0] = torch.arange(1.0, 6.0)
    net.narrow.bias[0] = 10.0  # marks what comes from the encoder
patches = torch.arange(24.0).view(2, 4, 3)
loss, pred, mask = net(patches, torch.tensor([[0.9, 0.8, 0.1, 0.7], [0.1, 0.7, 0.8, 0.9]]))
assert len(went_in) == 3, "forward has to call self.encoder and self.decoder"
assert went_in["encoder"].shape == (2, 2, 4), f"CLS and one visible patch enter the encoder: (2, 2, 4), yours {tuple(went_in['encoder'].shape)}"
seen = went_in["encoder"][:, :, 0].tolist()
assert seen == [[1, 4], [1, 2]], (
    f"with all else 0 the encoder sees the positions 1 and 4, 1 and 2; yours {seen}. [1, 2] twice: positions are added after masking. "
    "[1, 3], [1, 1]: shifted by one, number 0 is that of CLS. [0, 4], [0, 2]: CLS has a position, too. [1, 0] twice: no positions, or embedded after "
    "masking. [0, 0] or [10, 10] twice: narrow comes after the encoder."
)
places = went_in["decoder"][:, :, 0].tolist()
assert places == [[11, 2, 3, 14, 5], [11, 12, 3, 4, 5]], (
    f"narrow makes 10 of all that comes from the encoder, mask tokens are 0, positions 1 to 5: expected [[11, 2, 3, 14, 5], [11, 12, 3, 4, 5]], yours {places}. "
    "[10, 0, 0, 10, 0]: decoder_pos is missing. [11, 0, 0, 12, 0]: it is added before decoder_unshuffle. [10, ...]: CLS gets its number, too. "
    "[11, 2, 3, 4, 5]: CLS goes into decoder_unshuffle, too. Fractions: narrow is missing."
)
assert pred.shape == (2, 4, 3), f"a prediction for each patch, none for CLS: expected (2, 4, 3), got {tuple(pred.shape)}; return loss, pred, mask in this order"
assert torch.allclose(pred, net.predict(went_in["out"][:, 1:])), "pred is `predict` of the decoder's tokens 1 to N; number 0 is CLS"
assert mask.tolist() == [[True, True, False, True], [False, True, True, True]], f"expected [[T, T, F, T], [F, T, T, T]], yours {mask.tolist()}"
by_hand = ((pred - patches)[mask] ** 2).mean()
assert abs(loss - by_hand) < 1e-2, f"the loss of your prediction is {by_hand:.2f}, over hidden patches and raw pixels; yours {loss:.2f}"

net = MiniMAE(4, 3, dim=4, decoder_dim=4, ratio=0.5)
loss, _, mask = net(torch.randn(2, 4, 3), torch.rand(2, 4))
assert mask.sum().item() == 4, f"ratio = 0.5: 2 of 4 patches of 2 images are hidden, 4 in all, not {mask.sum().item()}: use self.ratio"
loss.backward()
without = [name for name, p in net.named_parameters() if p.grad is None]
assert not without, f"no gradient reaches {', '.join(without[:3])}{' and more' * (len(without) > 3)}: are they used, is there a detach?"
print("MiniMAE: the public checks pass")

# %% [markdown] id="text-blockwise_mask"
# ## 5. BEiT hides blocks
# *Difficulty 3, importance 3, 25 minutes, 12 points.*
#
# BEiT hides whole rectangles, so that a patch cannot be copied from the one beside it. One rectangle after the other is added
# until `n_mask` patches are hidden, and never more. With `room` the patches that may still be hidden (at most `max`, if there is one):
#
# 1. draw an area, uniform between `min` and `room` (near the end `room` is the smaller of the two: no harm);
# 2. draw `ratio`, height / width, **log-uniform** between `aspect` and 1 / `aspect`: its logarithm is uniform, so tall blocks are as
#    frequent as wide ones. Height `round(sqrt(area * ratio))`, width `round(sqrt(area / ratio))`;
# 3. it **fits** if both sides are at least 1 and *smaller* than the grid's. Then draw its place: any row 0 to `h - height`, both ends
#    included, and any column likewise. Count what it would newly hide: it still fits if that is at least 1 and at most `room`;
# 4. a block that does not fit is drawn again from 1; after **ten failures in a row** the mask is finished as it is (a block that fits sets the
#    count back to 0). Does the check below never end? Then this way out is missing: stop it with *Interrupt the kernel*.
#
# Draw everything from `rng`: `torch.rand((), generator=rng).item()` and `torch.randint(k, (), generator=rng).item()`, which is 0 to k - 1.
# The names `min` and `max` are the paper's; inside this function they are numbers, not Python's functions.

# %% nbgrader={"grade": false, "grade_id": "blockwise_mask", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.data.masks:blockwise_mask"}
def blockwise_mask(h: int, w: int, n_mask: int, min: int, max: int | None, aspect: float, rng: torch.Generator) -> Tensor:
    """Hide rectangles of patches until n_mask are hidden, or nearly.

    h, w: rows and columns of the grid.   n_mask: at most so many are hidden.   min: smallest area of a block, in patches.
    max: the largest, None for no limit.   aspect: smallest height / width, in (0, 1].   rng: where all dice come from.
    returns: (h, w) bool, True = hidden.

    Example: n_mask = min = 4, aspect = 1: the area is 4 and the ratio 1, so the mask is a square of 2 x 2, and full. In a
    grid of 3 x 6 it has 2 rows to start in and 5 columns: ten places, equally likely.
    """
    ### BEGIN SOLUTION
    mask = torch.zeros(h, w, dtype=torch.bool)
    failures = 0
    while mask.sum() < n_mask and failures < 10:
        failures += 1
        room = n_mask - int(mask.sum())
        if max is not None and room > max:
            room = max
        area = min + (room - min) * torch.rand((), generator=rng).item()
        ratio = aspect ** (2 * torch.rand((), generator=rng).item() - 1)
        rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if not (1 <= rows < h and 1 <= columns < w):
            continue
        top = torch.randint(h - rows + 1, (), generator=rng).item()
        left = torch.randint(w - columns + 1, (), generator=rng).item()
        block = mask[top : top + rows, left : left + columns]
        if 1 <= (~block).sum() <= room:
            block[:] = True
            failures = 0
    return mask
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-blockwise_mask", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "blockwise_mask"}
rng = torch.Generator().manual_seed(0)
mask = blockwise_mask(3, 6, 4, 4, None, 1.0, rng)
assert isinstance(mask, Tensor), f"return a tensor, not a {type(mask).__name__}"
assert mask.dtype == torch.bool, f"a mask is bool, yours is {mask.dtype}"
assert mask.shape == (3, 6), f"3 rows and 6 columns, yours {tuple(mask.shape)}"
squares = torch.stack([blockwise_mask(3, 6, 4, 4, None, 1.0, rng) for _ in range(200)])
assert (squares.sum(dim=(1, 2)) == 4).all(), f"the 2 x 2 square hides 4 patches, yours {squares.sum(dim=(1, 2)).unique().tolist()}"
sides = squares.any(dim=2).sum(dim=1), squares.any(dim=1).sum(dim=1)
assert torch.cat(sides).unique().tolist() == [2], "with area 4 and ratio 1 there is one block of 2 x 2"
places = len(squares.flatten(1).unique(dim=0))
assert places == 10, f"in 200 masks the square should be seen in all 10 places, yours in {places}. 4: the last row and column are never reached (off by one)"

masks = torch.stack([blockwise_mask(14, 14, 75, 16, None, 0.3, rng) for _ in range(50)])
counts = masks.sum(dim=(1, 2))
assert counts.max() <= 75, f"at most n_mask = 75 patches are hidden, yours up to {counts.max()}"
average = counts.float().mean()
assert average > 73, f"on average about 74.5 of 75 patches are hidden, yours {average:.1f}. 64: patches that were hidden already counted as new; 62: given up at the first failure; 71: areas up to n_mask, not up to `room`"
assert not blockwise_mask(3, 3, 9, 9, None, 1.0, rng).any(), "a block as high or wide as the grid does not fit, and after ten failures the mask is finished"
nine = blockwise_mask(7, 7, 9, 7, None, 1.0, rng)
nine = nine.any(dim=1).sum().item(), nine.any(dim=0).sum().item()
assert nine == (3, 3), f"areas 7 to 9, ratio 1: sides of round(sqrt(area)) = 3, one square of 3 x 3, not {nine[0]} rows and {nine[1]} columns: is int() in place of round()?"
small = torch.stack([blockwise_mask(9, 9, 8, 8, None, 0.3, rng) for _ in range(200)])
tall = (small.any(dim=2).sum(dim=1) > small.any(dim=1).sum(dim=1)).float().mean().item()
wide = (small.any(dim=2).sum(dim=1) < small.any(dim=1).sum(dim=1)).float().mean().item()
assert tall + wide > 0.6, f"with aspect 0.3 most blocks are not square; of your masks {tall + wide:.0%}: is the ratio drawn anew for each block?"
assert abs(tall - wide) < 0.25, f"of 200 masks {tall:.0%} are taller than wide, {wide:.0%} wider than tall; it should be about the same: is the ratio log-uniform?"
masks = torch.stack([blockwise_mask(30, 30, 100, 4, None, 0.5, rng) for _ in range(50)]).int()
edges = (masks.diff(dim=1).abs().sum() + masks.diff(dim=2).abs().sum()) / 50
assert 58 < edges < 79, (
    f"large blocks have few edges, small ones many: here about 68 on average, yours {edges:.0f}. 43: the area is always all that is left; 176: always `min`"
)
masks = torch.stack([blockwise_mask(9, 9, 4, 1, 1, 1.0, rng) for _ in range(50)])
assert masks.any(dim=1).sum(dim=1).float().mean() > 2.5, "max = 1 means single patches: `room` is at most max"
assert not blockwise_mask(9, 9, 12, 3, 3, 1.0, rng).any(), "min = max = 3, ratio 1: 2 x 2 patches would be hidden, more than `room`, which is at most max = 3: nothing fits"
average = sum(blockwise_mask(9, 9, 70, 1, 1, 1.0, rng).sum().item() for _ in range(40)) / 40
assert 50 < average < 69, (
    f"single patches, up to 70 of 81: about 62 before ten failures in a row; yours {average:.0f}. 33: a block that fits sets the count of failures back "
    "to 0; 70: a block that hides nothing new is a failure, too"
)
again = [blockwise_mask(9, 9, 30, 4, None, 0.3, torch.Generator().manual_seed(1)) for _ in range(2)]
assert torch.equal(*again), "the same generator gives the same mask: draw everything from rng"
print("blockwise_mask: the public checks pass")

# %% [markdown] id="text-beit_loss"
# ## 6. BEiT's loss
# *Difficulty 2, importance 4, 10 minutes, 6 points.*
#
# BEiT does not paint. A tokenizer has given every patch a word of a vocabulary, its *visual token*; the network answers with logits
# over the vocabulary, and pays the cross-entropy at the **hidden patches only**, the mean over those of the whole batch. Masks and tokens may come as grids `(B, h, w)` or as
# lists `(B, N)`, in reading order.

# %% nbgrader={"grade": false, "grade_id": "beit_loss", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.losses.masked:beit_loss"}
def beit_loss(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of the visual tokens of hidden patches.

    logits: (B, N, K) float.   tokens: (B, N) or (B, h, w) int64 in 0 ... K - 1.   mask: (B, N) or (B, h, w) bool.
    returns: scalar, the mean over the hidden patches of the batch, of which there is at least one.

    Example: two patches, K = 2, logits [0, 0] and [2, 0], tokens 0 and 1. Only the second is hidden, so the loss is
    -log(1 / (e^2 + 1)) = 2.127.
    """
    ### BEGIN SOLUTION
    hidden = mask.flatten(1)
    return F.cross_entropy(logits[hidden], tokens.flatten(1)[hidden])
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-beit_loss", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "beit_loss"}
logits = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]], requires_grad=True)
loss = beit_loss(logits, torch.tensor([[0, 1]]), torch.tensor([[False, True]]))
assert isinstance(loss, Tensor), f"return a tensor, not a {type(loss).__name__}"
assert loss.shape == (), f"return one number, yours has shape {tuple(loss.shape)}"
assert abs(loss - 2.1269) < 1e-3, (
    f"expected 2.127, got {loss:.3f}. 0.693: the visible patch; 1.410: both; 1.063: divided by the number of all patches; 0.127: the token is not used; 1.145: softmax before cross_entropy."
)
assert loss.requires_grad, "no gradient reaches the logits: is there a detach too many?"
loss.backward()
assert logits.grad[0, 0].abs().sum() == 0, "a gradient reaches the answer for a visible patch"

grid = torch.zeros(2, 2, 3, dtype=torch.bool)
grid[0, 0, 2], grid[0, 1, 0], grid[1, 1, 1] = True, True, True
answers = torch.zeros(2, 6, 2)
answers[0, 2, 0] = answers[0, 3, 0] = 2.0
value = beit_loss(answers, grid.long(), grid)
assert abs(value - 1.6490) < 1e-3, (
    f"patches 2 and 3 of image 0 and patch 4 of image 1 are hidden: (2.127 + 2.127 + 0.693) / 3 = 1.649, got {value:.3f}. "
    "1.410: averaged over each image first. 4.947: the sum. 0.693 or 0.316: the grid is read down its columns."
)
assert beit_loss(1e4 * answers, grid.long(), grid).isfinite(), "log(softmax) of large logits is log(0): use F.cross_entropy or log_softmax"
print("beit_loss: the public checks pass")

# %% [markdown] id="text-gumbel_dvae_step"
# ## 7. Where the words come from
# *Difficulty 4, importance 3, 20 minutes, 8 points.*
#
# A discrete VAE learns the vocabulary: an encoder gives each place logits over $K$ words, **one** word is drawn, and the decoder sees only that
# word's vector. Drawing has no gradient, so it is relaxed. With $g$ noise of the Gumbel distribution, $\operatorname{argmax}(l + g)$ is a draw from
# $\operatorname{softmax}(l)$, and
#
# $$y = \operatorname{softmax}\Big(\frac{l + g}{\tau}\Big), \qquad \text{code} = \sum_k y_k\, e_k$$
#
# comes close to it for small $\tau$. With `hard=True` the code is *exactly* one vector of the codebook, and the gradient is still that of the soft $y$:
# the straight-through trick, `one_hot + y - y.detach()`. A second result keeps all words in use: the divergence from uniform,
#
# $$\mathrm{KL} = \sum_k q_k \log q_k + \log K, \qquad q = \operatorname{softmax}(l) \text{ without noise and without } \tau,$$
#
# averaged over places and images: 0 if all words are equally likely, $\log K$ if one is certain.

# %% nbgrader={"grade": false, "grade_id": "gumbel_dvae_step", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.losses.dvae:gumbel_dvae_step"}
def gumbel_dvae_step(
    logits: Tensor, codebook: Tensor, tau: float, gumbel: Tensor, hard: bool = False
) -> tuple[Tensor, Tensor]:
    """A relaxed draw from the codebook at every place.

    logits, gumbel: (B, K, h, w).   codebook: (K, D).   tau: temperature.   hard: one-hot forward, soft gradient.
    returns: codes (B, D, h, w), and the scalar KL, finite for logits of 1e4.

    Example: one place, K = 2, logits [0, 0], gumbel [1, 0], tau = 0.5, codebook [[10], [20]]: y = softmax([2, 0]) =
    [0.881, 0.119], the code is 11.192, with hard=True 10. KL = 0; for logits [2, 0] it would be 0.328.
    """
    ### BEGIN SOLUTION
    y = ((logits + gumbel) / tau).softmax(dim=1)
    if hard:
        one_hot = F.one_hot(y.argmax(dim=1), y.shape[1]).movedim(-1, 1).to(y.dtype)
        y = one_hot + y - y.detach()
    codes = torch.einsum("bkhw,kd->bdhw", y, codebook)
    log_q = F.log_softmax(logits, dim=1)
    kl = (log_q.exp() * log_q).sum(dim=1).mean() + math.log(logits.shape[1])
    return codes, kl
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-gumbel_dvae_step", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "gumbel_dvae_step"}
def column(*numbers):
    return torch.tensor(numbers).view(1, -1, 1, 1)

book = torch.tensor([[10.0], [20.0]])
logits = column(0.0, 0.0).requires_grad_()
codes, kl = gumbel_dvae_step(logits, book, 0.5, column(1.0, 0.0))
assert codes.shape == (1, 1, 1, 1), f"one place, one number a code: expected (1, 1, 1, 1), got {tuple(codes.shape)}"
assert kl.shape == (), f"kl is one number, yours has shape {tuple(kl.shape)}"
assert abs(codes.item() - 11.1920) < 1e-3, f"expected 11.192, got {codes.item():.3f}. 12.689: tau is not used, or divides the logits only; 13.775: multiplied by tau; 15: no noise; 30: softmax along another axis than the words"
assert abs(kl) < 1e-5, f"both words are equally likely, so KL is 0, not {kl:.3f}. -0.693: log K is missing; 0.693: this is the entropy; 0.347: the mean over words, too; 0.328: noise in q"
hard, _ = gumbel_dvae_step(logits, book, 0.5, column(1.0, 0.0), hard=True)
assert abs(hard.item() - 10) < 1e-4, f"hard: the code is a vector of the codebook, 10, not {hard.item():.3f}"
assert hard.requires_grad, "hard: no gradient reaches the logits: one_hot + y - y.detach()"
hard.sum().backward()
assert abs(logits.grad[0, 0] + 2.0999) < 1e-3, f"hard: the gradient is that of the soft code, -2.100; yours is {logits.grad[0, 0].item():.3f}. -1.050: tau divides the noise only"

two = column(2.0, 0.0).expand(1, 2, 1, 2)  # two places in a row
book.requires_grad_()
codes, kl = gumbel_dvae_step(two, book, 0.5, column(1.0, 0.0).expand(1, 2, 1, 2))
assert codes.shape == (1, 1, 1, 2), f"h = 1 and w = 2: codes are (1, 1, 1, 2), yours {tuple(codes.shape)}"
assert codes.requires_grad, "no gradient reaches the codebook, which is learned"
assert abs(kl - 0.3278) < 1e-3, f"logits [2, 0]: KL is 0.328, yours {kl:.3f}. -0.328: the sign; 0.434: the other direction, KL(uniform || q); 0.603: tau in q; -0.038: summed over the places"
hard, _ = gumbel_dvae_step(column(1.0, 0.0), book, 0.5, column(0.0, 2.0), hard=True)
assert abs(hard.item() - 20) < 1e-4, f"hard: with the noise the second word wins, 20; yours {hard.item():.3f}. 10: argmax without the noise"
codes, kl = gumbel_dvae_step(column(1e4, 0.0, 0.0), torch.eye(3), 1.0, torch.zeros(1, 3, 1, 1))
assert codes.shape == (1, 3, 1, 1), f"three numbers a code stand second: expected (1, 3, 1, 1), got {tuple(codes.shape)}"
assert abs(kl - math.log(3)) < 1e-3, f"one word is certain: KL is log 3 = 1.099, yours {kl:.3f}; nan: 0 * log 0, use F.log_softmax"
words = torch.tensor([[0, 1, 2], [2, 2, 1]])  # h = 2, w = 3
codes, _ = gumbel_dvae_step(1e4 * F.one_hot(words, 3).float().movedim(-1, 0)[None], torch.tensor([[0.0, 5.0], [1.0, 6.0], [2.0, 7.0]]), 1.0, torch.zeros(1, 3, 2, 3))
assert codes.shape == (1, 2, 2, 3), f"two numbers a code, h = 2, w = 3: expected (1, 2, 2, 3), got {tuple(codes.shape)}"
assert torch.equal(codes[0, 0], words.float()), f"the first number of each code is its word here: {words.tolist()}, yours {codes[0, 0].tolist()}. Right shape, wrong places: reshape where permute is needed"
print("gumbel_dvae_step: the public checks pass")

# %% [markdown] id="text-codebook"
# ### Your two functions, at work
# A dVAE as small as possible: logits are one linear layer of a patch, and a code *is* a patch of pixels. Twenty seconds give 32 words.
# Their frequencies alone already say something about a hidden patch: `beit_loss` of an answer that never looks at the image is what a network has to beat.
#
# Not all of your functions are finished? Set `USE_REFERENCE = True` in the next cell, and everything from here on runs with the course's. To go back to
# yours, set it to `False` and run the cells with your functions again.

# %% id="data" sslcourse={"role": "experiment"}
import time

import matplotlib.pyplot as plt

from sslcourse.data import Shapes, load
from sslcourse.data.rng import step_generator
from sslcourse.nn.patches import patchify, unpatchify

USE_REFERENCE = False  # True: the course's functions in place of yours, from here on
if USE_REFERENCE:
    from sslcourse.data.masks import blockwise_mask
    from sslcourse.losses.dvae import gumbel_dvae_step
    from sslcourse.losses.masked import beit_loss, mae_loss
    from sslcourse.nn.mini_mae import MiniMAE
    from sslcourse.nn.patches import decoder_unshuffle, random_masking

train, test = (Shapes(split, size=32).as_images(n).images / 255 for split, n in (("train", 4000), ("test", 256)))
center, spread = train.mean(), train.std()
pictures = (test - center) / spread  # (256, 3, 32, 32)
train, test = patchify((train - center) / spread, 4), patchify(pictures, 4)  # (images, 8 * 8 patches, 48 numbers)

# %% id="dvae" sslcourse={"role": "experiment"}
torch.manual_seed(0)
K = 32
encoder, codebook = nn.Linear(48, K), nn.Parameter(train[:K, 27].clone())
optimizer, budget = torch.optim.Adam([*encoder.parameters(), codebook], lr=0.02), Budget(20)
for step in range(300):
    x = train[torch.randint(len(train), (32,), generator=step_generator(3, step))].mT.unflatten(2, (8, 8))
    logits = encoder(x.movedim(1, -1)).movedim(-1, 1)
    noise = -torch.empty_like(logits).exponential_(generator=step_generator(4, step)).log()
    codes, kl = gumbel_dvae_step(logits, codebook, max(0.1, 1 - step / 200), noise, hard=True)
    optimizer.zero_grad()
    ((codes - x).square().mean() + 0.02 * kl).backward()
    optimizer.step()
    if budget.is_over(f"step {step} of 300"):
        break

# %% id="words" sslcourse={"role": "experiment"}
tokens = encoder(test).argmax(dim=-1)  # (images, 64)
often = tokens.flatten().bincount(minlength=K) / tokens.numel()
blocks = torch.stack([blockwise_mask(8, 8, 26, 4, None, 0.3, step_generator(5, i)) for i in range(len(test))])
blind = (often + 1e-6).log().expand(len(test), 64, K)
print(f"knows nothing: {math.log(K):.2f}, knows how often: {beit_loss(blind, tokens, blocks):.2f}; {(often > 0).sum()} words in use")
book = unpatchify(codebook.detach()[often.argsort(descending=True)][None], 4, 4, 8)[0] * spread + center
plt.figure(figsize=(6, 3))
plt.imshow(book.permute(1, 2, 0).clamp(0, 1))
plt.axis("off")
plt.show()

# %% [markdown] id="text-predict"
# ## 8. Why 75 %? Predict, then run
# *Difficulty 3, importance 5, 30 minutes, 15 points: prediction 5, figure 5, explanation 5.*
#
# A hidden patch can be painted without any learning: with the mean colour of the nearest visible patches. How well that works, and how much a network gains over it,
# decides what a mask teaches. Two experiments, and one measure for both: the squared error of the hidden pixels as a share of what
# painting each image's mean colour would make. 0 is perfect, 1 no better than one colour for all.
#
# 1. **Copying**, four photographs of 14 x 14 patches: single patches (your `random_masking`) or blocks (your `blockwise_mask`), 10 to 90 % hidden.
# 2. **Your `MiniMAE`**, trained twice from scratch on images of `Shapes`, with 25 % and with 75 % hidden, the same number of steps; copying on
#    the same images and masks beside it. The *gain* is the error of copying divided by the error of the network.

# %% [markdown] id="text-prediction"
# **Write down what you expect before you run anything below.** A wrong prediction costs nothing: being surprised is what you are here for.

# %% nbgrader={"grade": false, "grade_id": "prediction", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "predict"}
prediction = {
    "copy at 75 %": None,  # error of copying on the photographs, 75 % of single patches hidden: a number from 0 to 2
    "harder to copy": None,  # "single 75 %" or "blocks 25 %"
    "larger gain": None,  # where MiniMAE gains more over copying: "25 %" or "75 %"
    "why": None,  # a sentence
}
### BEGIN SOLUTION
prediction = {
    "copy at 75 %": 0.7,
    "harder to copy": "blocks 25 %",
    "larger gain": "75 %",
    "why": "With one patch in four hidden the neighbours nearly give the answer away, so there is little to learn.",
}
### END SOLUTION
predict("why 75 %", prediction)

# %% nbgrader={"grade": true, "grade_id": "check-prediction", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "prediction"}
assert None not in prediction.values(), "write down your prediction in the cell above, and run it first"
assert 0 <= prediction["copy at 75 %"] <= 2, "copy at 75 %: a number from 0 (perfect) to 2"
assert prediction["harder to copy"] in ("single 75 %", "blocks 25 %"), 'harder to copy: "single 75 %" or "blocks 25 %"'
assert prediction["larger gain"] in ("25 %", "75 %"), 'larger gain: "25 %" or "75 %"'
assert len(prediction["why"].split()) >= 5, "why: say it in a sentence"

# %% [markdown] id="text-copy"
# ### Copying, without any training

# %% id="copy" sslcourse={"role": "experiment"}
from sslcourse.evaluate.reconstruction import copy_nearest, unexplained

def error(painted: Tensor, images: Tensor, mask: Tensor) -> float:
    return unexplained(painted, images, mask, pooled=True).mean().item()

names = ("astronaut", "chelsea", "coffee", "rocket")
photos = load("photos", size=224)
photos = photos.images[[photos.classes.index(name) for name in names]] / 255

# %% id="photos" sslcourse={"role": "experiment"}
ratios, copying = (0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9), {"single": [], "blocks": []}
for ratio in ratios:
    for seed in range(8):
        rng = step_generator(6, seed)
        single = random_masking(torch.zeros(4, 196, 1), ratio, torch.rand(4, 196, generator=rng))[1].view(4, 14, 14)
        blocks = torch.stack([blockwise_mask(14, 14, round(196 * ratio), 16, None, 0.3, rng) for _ in range(4)])
        for kind, mask in (("single", single), ("blocks", blocks)):
            copying[kind].append((ratio, error(copy_nearest(photos, mask), photos, mask)))

# %% id="copy-table" sslcourse={"role": "experiment"}
mean_error = {kind: {r: sum(e for s, e in rows if s == r) / 8 for r in ratios} for kind, rows in copying.items()}
for kind, row in mean_error.items():
    print(kind, "  ".join(f"{ratio:.0%}: {value:.2f}" for ratio, value in row.items()))
single, blocks = mean_error["single"][0.75], mean_error["blocks"][0.25]
print(f'copy at 75 %: predicted {prediction["copy at 75 %"]}, measured {single:.2f}')
print(f'harder to copy: predicted {prediction["harder to copy"]}, measured {"single 75 %" if single > blocks else "blocks 25 %"}')

# %% [markdown] id="text-train"
# ### Your network
# Positions start as MAE's sines and cosines, so that the network knows from the first step what is beside what. On a GPU set `BIG = True`: a wider and
# deeper network and ten times the steps.

# %% id="train" sslcourse={"role": "experiment"}
from sslcourse.nn.positions import sincos_positions

BIG = False
device, most_steps, width, depth = ("cuda", 8000, 192, 6) if BIG else ("cpu", 800, 64, 2)
images, watched = train.to(device), test.to(device)

def pretrain(ratio: float, steps: int, budget: Budget):
    """A MiniMAE after `steps` steps, and its losses."""
    torch.manual_seed(0)
    net, losses = MiniMAE(64, 48, width, depth, ratio=ratio).to(device), []
    for pos in (net.pos, net.decoder_pos):
        pos.data.copy_(sincos_positions(8, 8, dim=pos.shape[2]))
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, betas=(0.9, 0.95))
    for step in range(steps):
        batch = images[torch.randint(len(images), (32,), generator=step_generator(1, step))]
        loss, _, _ = net(batch, torch.rand(32, 64, generator=step_generator(2, step)).to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if budget.is_over(f"step {step} of {steps}"):
            break
    return net, losses

# %% [markdown] id="text-run"
# Twenty steps are timed first, so that a slower machine takes fewer steps, the same number in both trainings, but never fewer than 200. The budget stops a
# training that takes about a minute, and says so.

# %% id="run" sslcourse={"role": "experiment"}
pretrain(0.25, 2, Budget(20))  # the first steps load what the others find in place
start = time.perf_counter()
pretrain(0.25, 20, Budget(20))
steps = most_steps if BIG else max(200, min(most_steps, int(20 * 50 / (time.perf_counter() - start))))
print(f"{steps} steps with each ratio")
trained = {ratio: pretrain(ratio, steps, Budget(600 if BIG else 55)) for ratio in (0.25, 0.75)}

# %% id="measure" sslcourse={"role": "experiment"}
noise, result = torch.rand(len(test), 64, generator=step_generator(7, 0)).to(device), {}
for ratio, (net, losses) in trained.items():
    with torch.no_grad():
        _, pred, mask = net(watched, noise)
    mask, pred = mask.cpu().view(-1, 8, 8), unpatchify(pred.cpu(), 4, 8, 8)
    copied, painted = error(copy_nearest(pictures, mask), pictures, mask), error(pred, pictures, mask)
    result |= {f"copy {ratio:.0%}": copied, f"network {ratio:.0%}": painted, f"gain {ratio:.0%}": copied / painted}
    print(f"{ratio:.0%} hidden: copying {copied:.3f}, network {painted:.3f}, gain {copied / painted:.2f} after {len(losses)} steps")
    if len(losses) < 150:
        print("Fewer than 150 steps: the network has not got going yet. Close other programs and run the two cells again.")
print(f'larger gain: predicted {prediction["larger gain"]}, measured {"75 %" if result["gain 75%"] > result["gain 25%"] else "25 %"}')
record_result("why 75 %", result, show=False)

# %% [markdown] id="text-figure"
# ### Your figure
# Draw the error of copying over the hidden share, for single patches and for blocks, with the mean over the eight seeds and the spread around it. Add the four points of
# the second experiment (copying and network, 25 and 75 %) and say on the figure that they belong to other images. One look should tell at which
# share a random mask is as hard to copy as blocks are at 25 %.
#
# You have `copying[kind]`, a list of `(ratio, error)` with eight entries a ratio, and `result["copy 25%"]`, `result["network 25%"]`, and so on.

# %% nbgrader={"grade": true, "grade_id": "figure", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "open"}
### BEGIN SOLUTION
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for kind, rows in copying.items():
    values = torch.tensor([[e for s, e in rows if s == r] for r in ratios])
    ax.plot(ratios, values.mean(dim=1), "o-", label=f"copying, {kind}, photographs")
    ax.fill_between(ratios, values.amin(dim=1), values.amax(dim=1), alpha=0.2)
for name, marker in (("copy", "s"), ("network", "*")):
    ax.plot([0.25, 0.75], [result[f"{name} 25%"], result[f"{name} 75%"]], marker, ms=11, ls=":", label=f"{name}, single, Shapes")
ax.axhline(mean_error["blocks"][0.25], color="grey", lw=0.8)
ax.annotate("blocks at 25 %", (0.62, mean_error["blocks"][0.25]), va="bottom", color="dimgrey")
ax.set(xlabel="hidden share", ylabel="unexplained share", ylim=(0, None))
ax.legend(fontsize=8)
plt.show()
### END SOLUTION

# %% [markdown] nbgrader={"grade": true, "grade_id": "explain-gap", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "open"}
# **Explain the gap.** Where were you wrong, and why? If nothing surprised you: of which answer were you least sure, and why? Use the numbers above and one thing
# that you see in your figure to say what is special about 75 %, and why BEiT gets along with 40 % (3 to 6 sentences).
#
# ### BEGIN SOLUTION
# A full answer (5) compares each prediction with its measured value (or says what made the least sure one doubtful) and reads the figure: the error of
# copying single patches rises slowly, because some visible neighbour is nearly always close, until most patches are hidden; blocks are hard at any share, because
# the middle of a block has no visible neighbour. So 75 % of single patches come about as close to the difficulty of small shares of blocks as random masks get, and BEiT's blocks need only 40 %.
# In the training at 25 % the network first has to learn what copying gives for free and gains little over it in the same steps; at 75 % copying fails and what the
# network has learned about shapes pays. 3: right, but without the figure or without the numbers. 0: repeats the numbers only.
# ### END SOLUTION

# %% [markdown] id="text-twin"
# ### The mask painter
# Your masks, copying, and your network (the one trained with 75 %) on test images: from left to right the image, what is visible, copied, painted by the network.
# Find a mask that copying wins. Then go to 90 %: which part of a shape does the network still get right, its colour, its place or its outline? (No answer to hand in.)

# %% id="painter" sslcourse={"role": "experiment"}
from ipywidgets import Dropdown, FloatSlider, IntSlider, interact

def hide(kind: str, ratio: float, seed: int) -> Tensor:
    """A mask (1, 8, 8)."""
    rng = step_generator(8, seed)
    if kind == "blocks":
        return blockwise_mask(8, 8, round(64 * ratio), 4, None, 0.3, rng)[None]
    if kind == "grid":
        return (torch.arange(64).view(1, 8, 8) % 2 + torch.arange(8).view(1, 8, 1) % 2) > 0
    return random_masking(test[:1], ratio, torch.rand(1, 64, generator=rng))[1].view(1, 8, 8)

def strip(*images: Tensor) -> Tensor:
    """Images (1, 3, 32, 32) side by side, as matplotlib wants them."""
    return (torch.cat(images, dim=-1)[0] * spread + center).clamp(0, 1).permute(1, 2, 0)

# %% id="twin" sslcourse={"role": "experiment"}
net = trained[0.75][0]

@interact(kind=Dropdown(options=["single", "blocks", "grid"]), ratio=FloatSlider(0.75, min=0.1, max=0.9, step=0.05), seed=IntSlider(0, 0, 20), image=IntSlider(3, 0, 255))
def paint(kind, ratio, seed, image):
    x, mask = pictures[image : image + 1], hide(kind, ratio, seed)
    hidden = mask.flatten(1)[..., None]
    net.ratio = mask.float().mean().item()  # the hidden patches get the larger noise
    with torch.no_grad():
        _, pred, _ = net(patchify(x, 4).to(device), mask.flatten(1).float().to(device))
    visible, painted = (torch.where(hidden, other, patchify(x, 4)) for other in (torch.tensor(0.0), pred.cpu()))
    visible, painted, copied = unpatchify(visible, 4, 8, 8), unpatchify(painted, 4, 8, 8), copy_nearest(x, mask)
    plt.figure(figsize=(9, 2.6))
    plt.imshow(strip(x, visible, copied, painted))
    plt.title(f"copied {error(copied, x, mask):.2f}, network {error(painted, x, mask):.2f}")
    plt.axis("off")
    plt.show()

# %% [markdown] nbgrader={"grade": true, "grade_id": "open-question", "locked": false, "points": 15, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "open"}
# ## 9. Open question
# *Difficulty 4, importance 4, 15 minutes, 15 points. Graded 0 / 5 / 10 / 15.*
#
# In its paper MAE is worse than contrastive methods when a **linear probe** is trained on frozen features, and better when the network is
# **fine-tuned**. Two groups ask you for advice: one has a small camera with a fixed network and will add classes every week; the other trains one detector for years,
# with plenty of labels. Which downstream measurement would you report to each, and why? Name **one measurement** besides these two that helps to decide, what
# it would show, and one way in which it could mislead.
#
# ### BEGIN SOLUTION
# 15: (a) the measurement follows the use: frozen features and classes that come and go are a linear probe or kNN (also few-shot); a network that is trained on is fine-tuning,
# on detection, with the cost of both named; (b) a reason for the gap, such as: MAE's features are good but not linearly separable, as pixels need
# information (colour, place, texture) that classes do not, and no pressure makes views of one object alike; fine-tuning bends them; (c) a third measurement with its result and its trap: partial
# fine-tuning (one or a few blocks; MAE overtakes at once, but the number depends on how long one tunes), attentive probing, kNN, few labels, transfer to detection; traps are
# the choice of the layer or of the token (CLS is never trained by MAE's loss), a learning rate tuned on the test set, unequal training lengths.
# 10: (a) and (c) without the trap or without a reason. 5: only "probe for the one, fine-tune for the other". 0: "MAE is worse", or nothing.
# ### END SOLUTION
