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
# # Lab 11: one click, several answers
#
# You click on the sleeve of a coat. The sleeve, the coat, or the person in it? Segment Anything answers with three masks and says
# how good it thinks each one is. You write the parts that make this work, find out why one mask would not do, and at the end
# a small SAM runs on your own functions: click, and watch it answer.
#
# | | |
# |---|---|
# | **You need** | broadcasting, boolean masks, attention as in lab 6; chapter 11 |
# | **Time** | about 3 hours, after the chapter; every exercise says how many minutes |
# | **Points** | 100: functions 70, prediction and experiment 15, open question 15 |
#
# How it works: fill in a function, run the check below it, go on when it passes. A check looks at a few public examples;
# grading looks at more properties (gradients, images that are not square, empty masks) and gives points for each one.
# Every exercise is graded **on its own**. So if you are stuck, leave it and move on: the experiment and the small SAM run
# with the course's functions if you set `USE_REFERENCE = True` there.
#
# - Difficulty and importance go from 1 to 5.
# - Stuck? `hint("focal_dice", 1)` opens a first hint; levels 2 and 3 say more. Hints cost nothing.
# - Write helper functions and imports **inside** the exercise's cell: the grader runs that cell alone.
# - Before you hand in, save the notebook and run, in a terminal in the course's folder,
#   `.venv/bin/sslcourse check labs/11_sam/11_sam.ipynb`.

# %% id="preamble" sslcourse={"role": "preamble"}
import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# %% id="tools"
from sslcourse.lab import Budget, hint, predict, record_result

hint()

# %% [markdown] id="text-fourier_point_embed"
# ## 1. Where did you click?
# *Difficulty 2, importance 4, 10 minutes, 9 points.*
#
# A click is two numbers, and a transformer wants a vector. With a fixed random matrix $G$ (2 rows, $F$ columns) the place
# $c = (c_x, c_y) \in [0, 1]^2$ becomes $F$ sines and $F$ cosines of as many waves across the image (Tancik et al. 2020):
#
# $$e(c) = \big[\, \sin(2\pi\, (2c - 1)\, G),\; \cos(2\pi\, (2c - 1)\, G) \,\big].$$
#
# Near places get similar vectors, far ones do not. The pixel $(x, y)$ is a little square whose **centre** is half a pixel further:
# $c_x = (x + \frac12) / W$ and $c_y = (y + \frac12) / H$. Mind the order: points are $(x, y)$, sizes are $(H, W)$.

# %% nbgrader={"grade": false, "grade_id": "fourier_point_embed", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.segment.prompts:fourier_point_embed"}
def fourier_point_embed(xy: Tensor, size: tuple[int, int], G: Tensor) -> Tensor:
    """Fourier features of pixels.

    xy: (..., 2) float, column and row of a pixel.   size: (H, W) of the image.   G: (2, F), its first row is for x.
    returns: (..., 2F), the F sines first, then the F cosines: `torch.cat([sines, cosines], dim=-1)`.

    Example: size (1, 4), pixel (0, 0), G = [[1], [0]]: c_x = 0.5 / 4 = 0.125, 2 c_x - 1 = -0.75, the angle is -1.5 pi,
    so the answer is [sin, cos] = [1, 0]. Pixel (1, 0): c_x = 0.375, the angle -0.5 pi, [-1, 0].
    """
    ### BEGIN SOLUTION
    height, width = size
    c = (xy + 0.5) / xy.new_tensor([width, height])
    angle = 2 * math.pi * (2 * c - 1) @ G
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-fourier_point_embed", "locked": true, "points": 9, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "fourier_point_embed"}
across = torch.tensor([[1.0], [0.0]])  # one wave from left to right
e = fourier_point_embed(torch.tensor([1.0, 0.0]), (1, 4), across)
assert isinstance(e, Tensor), f"return a tensor, not a {type(e).__name__}"
assert e.shape == (2,), f"one sine and one cosine: expected the shape (2,), got {tuple(e.shape)}"
assert torch.allclose(e, torch.tensor([-1.0, 0.0]), atol=1e-4), (
    f"expected [-1, 0], got {[round(v, 2) for v in e.tolist()]}. [0, -1]: the half pixel is missing, or the cosines come first. [0, 1]: (H, W) is "
    "taken for (W, H). [0.71, -0.71]: 2c - 1 is missing. [-0.71, 0.71]: pi where 2 pi is meant. [-0.25, 0.97]: 2 pi is missing."
)
size, waves = (4, 2), torch.tensor([[0.25], [-0.125]])
e = fourier_point_embed(torch.tensor([[0.0, 3.0], [1.0, 0.0]]), size, waves)
assert e.shape == (2, 2), f"two points, one frequency: expected (2, 2), got {tuple(e.shape)}"
assert torch.allclose(e[0], torch.tensor([-0.9808, 0.1951]), atol=1e-3), (
    f"4 rows, 2 columns, pixel x = 0, y = 3: expected [-0.98, 0.20], got {[round(v, 2) for v in e[0].tolist()]}. "
    "[-0.98, -0.20]: x and y are swapped. [-0.38, -0.92]: y is divided by the width, too. [-0.56, 0.83]: 2c instead of 2c - 1."
)
two = fourier_point_embed(torch.zeros(3, 5, 2), (8, 8), torch.tensor([[0.5, 0.25], [0.0, 0.0]]))
assert two.shape == (3, 5, 4), f"points may have any shape in front: expected (3, 5, 4), got {tuple(two.shape)}"
assert torch.allclose(two[0, 0], torch.tensor([-0.3827, -0.9808, -0.9239, 0.1951]), atol=1e-3), "both sines come first, then both cosines"
print("fourier_point_embed: the public checks pass")

# %% [markdown] id="text-TwoWayBlock"
# ## 2. Tokens and image look at each other
# *Difficulty 4, importance 5, 25 minutes, 13 points.*
#
# SAM's mask decoder holds a handful of **tokens** (one for the predicted IoU, four for masks, some for your clicks) and the
# **image** as a list of $S$ vectors. One block lets them talk, in this order. Each step is *new = norm(old + what was added)*:
#
# 1. **self-attention** of the tokens (`self_attn`, `norm1`),
# 2. tokens look at the **image** (`cross_attn_token_to_image`, `norm2`),
# 3. an **MLP** of the tokens (`mlp`, `norm3`),
# 4. the image looks at the **new tokens** (`cross_attn_image_to_token`, `norm4`).
#
# Attention takes `(queries, keys, values)`: who asks, where it looks, what it takes home. Places would be forgotten on the way, so
# `token_pe` is added to tokens and `image_pe` to the image wherever they are **queries or keys**, never where they are values.
#
# One exception: in the **first** block the tokens are nothing but places yet. Its step 1 adds no `token_pe` and has no residual:
# the attention's answer *replaces* the tokens, `norm1(answer)`.

# %% nbgrader={"grade": false, "grade_id": "TwoWayBlock", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.segment.mask_decoder:TwoWayBlock"}
class TwoWayBlock(nn.Module):
    """One block of the mask decoder. `__init__` and `Attention` are given; write `forward`.

    Example: with all weights of the attentions and the MLP 0, only norms are left. In a later block the token [3, 1]
    becomes [1, -1] and stays that; in the first block, where nothing is added to the attention's answer [0, 0], [0, 0].
    """

    def __init__(self, dim: int, n_heads: int, hidden: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(dim, n_heads)
        self.cross_attn_token_to_image = Attention(dim, n_heads, downsample=2)
        self.cross_attn_image_to_token = Attention(dim, n_heads, downsample=2)
        self.mlp = nn.Sequential(OrderedDict(lin1=nn.Linear(dim, hidden), relu=nn.ReLU(), lin2=nn.Linear(hidden, dim)))
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(dim) for _ in range(4))

    def forward(self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        """tokens, token_pe: (N, T, dim).   image: (N or 1, S, dim).   image_pe: (1, S, dim).   returns: tokens, image."""
        ### BEGIN SOLUTION
        q = tokens if self.first else tokens + token_pe
        attended = self.self_attn(q, q, tokens)
        tokens = self.norm1(attended if self.first else tokens + attended)
        q, k = tokens + token_pe, image + image_pe
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(q, k, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        q, k = image + image_pe, tokens + token_pe
        image = self.norm4(image + self.cross_attn_image_to_token(q, k, tokens))
        return tokens, image
        ### END SOLUTION


class Attention(nn.Module):  # given
    """Multi-head attention inside dim / downsample channels; one image serves all N sets of tokens."""

    def __init__(self, dim: int, n_heads: int, downsample: int = 1) -> None:
        super().__init__()
        self.n_heads, inner = n_heads, dim // downsample
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for x in (self.q_proj(q), self.k_proj(k), self.v_proj(v)))
        look = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1)
        return self.out_proj((look @ v).transpose(1, 2).flatten(2))

# %% nbgrader={"grade": true, "grade_id": "check-TwoWayBlock", "locked": true, "points": 13, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "TwoWayBlock"}
def run_block(first, zero=False, places=True, own=False):
    """The first number of the first token, and of the first vector of the image. own: every weight has numbers of its own, norms too."""
    block = TwoWayBlock(4, 2, 4, first)
    for i, (name, p) in enumerate(sorted(block.named_parameters())):
        if own or "norm" not in name:
            p.data = 0 * p if zero else (torch.arange(1.0, p.numel() + 1) + own * i).mul(1.7).cos().view_as(p)
    wave = torch.arange(20.0).sin().view(1, 5, 4)
    out = block(wave[:, :2], wave[:, 2:], places * 3 * wave[:, 1:3].cos(), places * wave[:, 1:4].exp())
    assert isinstance(out, tuple), f"return the pair tokens, image; not a {type(out).__name__}"
    assert out[0].shape == (1, 2, 4), f"tokens keep their shape: expected (1, 2, 4), got {tuple(out[0].shape)}"
    assert out[1].shape == (1, 3, 4), f"the image keeps its shape: expected (1, 3, 4), got {tuple(out[1].shape)}"
    return [x[0, 0, 0].item() for x in out]

token = run_block(first=False, zero=True)[0]
assert abs(token + 1.164) < 2e-3, (
    f"all weights 0, a later block: the token starts with -1.164, yours with {token:.3f}. 0.000: tokens + answer is missing in a step, or stands outside of "
    "its norm. Any other number: are places added to the tokens themselves? Only queries and keys carry them."
)
token = run_block(first=True, zero=True)[0]
assert abs(token) < 2e-3, f"all weights 0, the first block: expected 0, got {token:.3f}. -1.164: its step 1 has no residual"
token, image = run_block(first=False, places=False)
assert abs(token - 0.980) < 2e-3, (
    f"a later block, places 0: expected 0.980, got {token:.3f}. 0.938: the MLP before the image. 2.170: a norm before the MLP. "
    "Else: does each norm stand around old + answer, and does step 2 ask with the tokens that step 1 made?"
)
assert abs(image - 1.402) < 2e-3, (
    f"places 0: the image starts with 1.402, yours with {image:.3f}. 1.540: it looks at the old tokens. 0.989: nothing is done to it. "
    "-0.239: image + answer is missing. Else: does norm4 stand around that sum?"
)
token, image = run_block(first=False)
assert abs(token - 0.929) < 2e-3, (
    f"a later block: expected 0.929, got {token:.3f}. 0.965: no places in step 1; 0.788: they are in its values, too. 0.810: places in step 2's values; "
    "0.954: none in its queries; 0.907: none in its keys; 0.987: in neither."
)
assert abs(image - 0.121) < 2e-3, (
    f"the image: expected 0.121, got {image:.3f}. 0.032: no places in step 4's queries; 0.467: none in its keys; -0.129: in its values. "
    "Else: are they added to the image itself?"
)
token, image = run_block(first=True)
assert abs(token - 1.044) < 2e-3, f"the first block: expected 1.044, got {token:.3f}. 1.068: its step 1 adds no places. 0.965: it has no residual there"
token, image = run_block(first=False, own=True)
assert abs(token - 0.436) < 2e-3, f"weights of its own for each part: expected 0.436, got {token:.3f}. Does each step use its own attention and its own norm?"
assert abs(image + 1.289) < 2e-3, f"the same, the image: expected -1.289, got {image:.3f}. Does step 4 use cross_attn_image_to_token and norm4?"
print("TwoWayBlock: the public checks pass")

# %% [markdown] id="text-focal_dice"
# ## 3. How wrong is a mask?
# *Difficulty 3, importance 4, 20 minutes, 10 points.*
#
# With $p = \operatorname{sigmoid}(\text{logit})$ and target $y \in \{0, 1\}$ of each pixel, SAM's loss of a mask is $20 L_\text{focal} + L_\text{dice}$:
#
# $$L_\text{focal} = \text{mean over pixels of}\; \alpha_y\, (1 - p_y)^2\, (-\log p_y), \qquad
# L_\text{dice} = 1 - \frac{2 \sum p\, y + 1}{\sum p + \sum y + 1}.$$
#
# $p_y$ is the probability of what is true: $p$ where $y = 1$, $1 - p$ where $y = 0$; $\alpha_1 = 0.25$, $\alpha_0 = 0.75$. So pixels that are right
# already count little. Dice sums over the pixels of **one** mask and looks at the overlap, so that a small object is worth as much as a large one.
# Take $-\log p_y$ from `F.binary_cross_entropy_with_logits(..., reduction="none")`: `log(sigmoid)` is $-\infty$ for large logits.

# %% nbgrader={"grade": false, "grade_id": "focal_dice", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.segment.losses:focal_dice", "banned": ["sigmoid_focal_loss"]}
def focal_dice(logits: Tensor, gt: Tensor, *, reduction: str = "mean") -> Tensor:
    """20 focal + 1 dice.

    logits: (..., H, W).   gt: 0 or 1, float, broadcast to logits (`gt.expand_as(logits)`).
    returns: scalar, the mean over all masks; with reduction="none" the loss of each mask, (...).

    Example: logits [[0, 0]], gt [[1, 0]]: p = 1/2. Focal: pixels cost 0.25 / 4 * 0.693 = 0.0433 and 0.75 / 4 * 0.693 =
    0.1300, mean 0.0866. Dice: 1 - (2 * 0.5 + 1) / (1 + 1 + 1) = 0.3333. Together 20 * 0.0866 + 0.3333 = 2.0662.
    """
    ### BEGIN SOLUTION
    gt = gt.expand_as(logits)
    p = logits.sigmoid()
    p_true = p * gt + (1 - p) * (1 - gt)
    alpha = 0.25 * gt + 0.75 * (1 - gt)
    log_loss = F.binary_cross_entropy_with_logits(logits, gt, reduction="none")
    focal = (alpha * (1 - p_true) ** 2 * log_loss).mean(dim=(-2, -1))
    overlap = (p * gt).sum(dim=(-2, -1))
    dice = 1 - (2 * overlap + 1) / (p.sum(dim=(-2, -1)) + gt.sum(dim=(-2, -1)) + 1)
    each = 20 * focal + dice
    return each.mean() if reduction == "mean" else each
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-focal_dice", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "focal_dice"}
logits, gt = torch.zeros(1, 2, requires_grad=True), torch.tensor([[1.0, 0.0]])
loss = focal_dice(logits, gt)
assert isinstance(loss, Tensor), f"return a tensor, not a {type(loss).__name__}"
assert loss.shape == (), f"return one number, yours has the shape {tuple(loss.shape)}"
assert abs(loss - 2.0662) < 1e-3, (
    f"expected 2.0662, got {loss:.4f}. 3.7991: no alpha, or 1 - p_y is not squared, or focal is summed over the pixels. 1.1998: alpha is 0.25 everywhere. "
    "0.4200: focal without 20; 6.7533: the 20 is at dice. 2.2329: dice without its 1s, without its 2, or on logits; 2.3995: its 1 is only below, or 1 - ... is missing. "
    "Else: are the 1s of dice added once above and once below, and does binary_cross_entropy_with_logits get logits, not p?"
)
sure = focal_dice(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
assert abs(sure - 0.5791) < 1e-3, f"logits [2, 0], both true: expected 0.5791, got {sure:.4f}. 1.4545: alpha is swapped. 0.8207: p_y squared, where 1 - p_y is meant"
both = focal_dice(torch.tensor([[[0.0, 0.0]], [[9.0, -9.0]]]), gt, reduction="none")
assert both.shape == (2,), f'reduction="none" gives a loss a mask: expected (2,), got {tuple(both.shape)}'
assert abs(both[1]) < 1e-3, f"the second mask is right: its loss is 0, yours {both[1]:.4f}. 0.2000: dice sums over both masks. 0.8665: focal is a mean over both"
mean = focal_dice(torch.tensor([[[0.0, 0.0]], [[9.0, -9.0]]]), gt)
assert abs(mean - 1.0331) < 1e-3, f"without reduction the mean over both masks, 1.0331, yours {mean:.4f}. 2.0662: their sum"
extreme = focal_dice(torch.tensor([[1e4, -1e4]], requires_grad=True), 1 - gt)
assert extreme.isfinite(), "logits of 1e4 give inf or NaN: take the logarithm from binary_cross_entropy_with_logits"
assert abs(extreme - 100000.67) < 1, f"-log p_y is 1e4 here, together 100000.67; got {extreme:.2f}: a log(p) that is clamped, or log(p + small), is too small"
loss.backward()
assert logits.grad is not None, "no gradient reaches the logits: is there a detach, or a comparison?"
assert logits.grad[0, 0] < 0 < logits.grad[0, 1], "the gradient should raise the first logit and lower the second"
print("focal_dice: the public checks pass")

# %% [markdown] id="text-min_over_masks"
# ## 4. Only the best mask learns
# *Difficulty 3, importance 5, 20 minutes, 12 points.*
#
# A prompt gets $M$ masks, and the annotator meant one thing. SAM computes the loss of each mask and lets **only the lowest** be
# the loss of that prompt. Beside it the model predicts how good each mask is. The IoU of a mask (intersection over union of the
# pixels with logit $> 0$ and those of the target) is known in training, so it is learned by squared error, for **all** masks:
#
# $$L = \frac1B \sum_b \Big( \min_m L_{bm} + \frac1M \sum_m (\hat u_{bm} - u_{bm})^2 \Big).$$
#
# $u$ is a target: a number. The predicted $\hat u$ has no say in which mask is the best one.

# %% nbgrader={"grade": false, "grade_id": "min_over_masks", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.segment.losses:min_over_masks", "uses": ["focal_dice"]}
def min_over_masks(logits: Tensor, gt: Tensor, iou_pred: Tensor) -> Tensor:
    """SAM's loss of ambiguous prompts. Use your `focal_dice(logits, gt, reduction="none")`.

    logits: (B, M, H, W).   gt: (B, H, W), 0 or 1, float.   iou_pred: (B, M).
    returns: scalar, mean over B prompts. The IoU is 0 where mask and target are both empty.

    Example: B = 1, M = 2, gt [[1, 0]], masks [[0, 0]] (loss 2.0662, nothing above 0: IoU 0) and [[9, 9]] (loss 67.73, IoU 0.5).
    The minimum is 2.0662. With iou_pred = [0.2, 0.9] the regression costs (0.2^2 + 0.4^2) / 2 = 0.1. Together 2.1662.
    """
    ### BEGIN SOLUTION
    target = gt[:, None]
    each = focal_dice(logits, target, reduction="none")
    mask, inside = logits > 0, target > 0.5
    overlap = (mask & inside).sum(dim=(-2, -1))
    union = (mask | inside).sum(dim=(-2, -1))
    iou = overlap / union.clamp_min(1)
    regression = ((iou_pred - iou) ** 2).mean(dim=1)
    return (each.amin(dim=1) + regression).mean()
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-min_over_masks", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "min_over_masks"}
logits = torch.tensor([[[[0.0, 0.0]], [[9.0, 9.0]]]], requires_grad=True)
gt, iou_pred = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[0.2, 0.9]], requires_grad=True)
loss = min_over_masks(logits, gt, iou_pred)
assert isinstance(loss, Tensor), f"return a tensor, not a {type(loss).__name__}"
assert loss.shape == (), f"return one number, yours has the shape {tuple(loss.shape)}"
assert abs(loss - 2.1662) < 1e-3, (
    f"expected 2.1662, got {loss:.4f}. 35.0002: the mean over masks, or the minimum over prompts. 67.8343: the mask with the highest predicted (or true) IoU; "
    "the choice is by the loss. 2.1062: the IoU is learned for the best mask only; 2.2662: summed over masks. 2.3662: not squared. 2.1912: a logit of 0 is outside."
)
loss.backward()
assert logits.grad is not None, "no gradient reaches the logits: is there a detach, or an index in the place of a loss?"
assert logits.grad[0, 1].abs().max() == 0, "the worse mask gets a gradient: only the best one learns, and an IoU is a number"
assert logits.grad[0, 0].abs().max() > 0, "no gradient reaches the best mask"
assert iou_pred.grad is not None, "no gradient reaches the predicted IoU"
assert (iou_pred.grad != 0).all(), "the predicted IoU of every mask learns, not only that of the best one"
another = torch.tensor([[[[-9.0, 9.0]], [[9.0, 0.3]]]])  # its first mask is right, the target is the second pixel
two = min_over_masks(torch.cat([logits.detach(), another]), torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), torch.tensor([[0.2, 0.9], [0.2, 0.9]]))
assert abs(two - 1.2831) < 1e-3, (
    f"two prompts cost 2.1662 and 0.4000: expected their mean, 1.2831, got {two:.4f}. 0.2501: one minimum for the whole batch; every prompt has its own. "
    "Above 30: the targets stand beside the masks, not beside the prompts: gt[:, None]. 2.5663: the sum. 1.4456: a logit of 0.3 is outside."
)
empty = min_over_masks(torch.full((1, 1, 2, 2), -9.0), torch.zeros(1, 2, 2), torch.zeros(1, 1))
assert empty.isfinite(), "mask and target are both empty: 0 / 0. The IoU is 0 there"
assert abs(empty) < 1e-2, f"mask and target are both empty: the IoU is 0 there, and 0 was predicted, so the loss is 0.00; yours {empty:.2f}. 1.00: an IoU of 1"
print("min_over_masks: the public checks pass")

# %% [markdown] id="text-predict"
# ## 5. Predict, then run
# *Difficulty 3, importance 5, 30 minutes, 15 points: prediction 5, figure 5, explanation 5.*
#
# One click in the middle of three nested discs: **whole**, **part** and **sub-part**. All three are right answers; annotators mean the
# whole half of the time, the part in 30 %, the sub-part in 20 %. Nothing in the picture says which. There is no network here: the masks
# themselves are learned, pixel by pixel, so only your loss decides what becomes of them. Eight runs from different random
# masks are trained side by side, eight clicks a step in each, in four ways:
#
# - **one mask**;
# - **three, mean**: three masks, and the mean of their losses;
# - **three, minimum**: three masks, and your `min_over_masks`;
# - **three, relaxed**: the minimum, plus a tenth of the mean.
#
# A pixel is in the mask where its logit is above 0. An answer is *found* when one of the masks has IoU above 0.9 with its disc.

# %% [markdown] id="text-prediction"
# **Write down what you expect before you run anything below.** A wrong prediction costs nothing: being surprised is what
# you are here for.

# %% nbgrader={"grade": false, "grade_id": "prediction", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "predict"}
prediction = {
    "one mask becomes": None,  # "whole", "part" or "sub-part"
    "three, mean": None,  # how many of the 3 answers are found, on average over the runs: a number from 0 to 3
    "three, minimum": None,  # the same
    "three, relaxed": None,  # the same
    "why": None,  # a sentence
}
### BEGIN SOLUTION
prediction = {
    "one mask becomes": "part",
    "three, mean": 1,
    "three, minimum": 2,
    "three, relaxed": 3,
    "why": "The mean pulls all masks to one compromise, and under the minimum a mask that never wins never learns.",
}
### END SOLUTION
predict("ambiguity", prediction)

# %% nbgrader={"grade": true, "grade_id": "check-prediction", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "prediction"}
assert None not in prediction.values(), "write down your prediction in the cell above, and run it first"
becomes = ("whole", "part", "sub-part")
assert prediction["one mask becomes"] in becomes, f"one mask becomes one of {becomes}"
for arm in ("three, mean", "three, minimum", "three, relaxed"):
    assert 0 <= prediction[arm] <= 3, f"'{arm}': a number of answers, from 0 to 3"
assert len(prediction["why"].split()) >= 5, "why: say it in a sentence"

# %% [markdown] id="text-settings"
# Set `USE_REFERENCE = True` to run with the course's functions if yours are not finished (to go back to yours, set it to `False` and run
# the cells with your functions again). On a GPU set `BIG = True`: four times the side, 64 runs, and more steps.

# %% id="settings" sslcourse={"role": "experiment"}
USE_REFERENCE = False
if USE_REFERENCE:
    from sslcourse.segment.losses import focal_dice, min_over_masks
    from sslcourse.segment.mask_decoder import TwoWayBlock
    from sslcourse.segment.prompts import fourier_point_embed

BIG = False
device = "cuda" if BIG else "cpu"
side, runs, most_steps = (128, 64, 600) if BIG else (32, 8, 150)

# %% id="discs" sslcourse={"role": "experiment"}
NAMES, SHARES = ("whole", "part", "sub-part"), torch.tensor([0.5, 0.3, 0.2])
ARMS = {"one mask": 1, "three, mean": 3, "three, minimum": 3, "three, relaxed": 3}  # how many masks

axis = torch.arange(side) - (side - 1) / 2
distance = torch.hypot(axis[:, None], axis[None]) / side
discs = torch.stack([distance < radius for radius in (0.44, 0.25, 0.12)]).float().to(device)

# %% id="loss" sslcourse={"role": "experiment"}
def loss_of(arm: str, logits: Tensor, gt: Tensor, iou_pred: Tensor) -> Tensor:
    """logits (B, M, H, W), gt (B, H, W), iou_pred (B, M) -> scalar."""
    if arm in ("one mask", "three, mean"):
        return focal_dice(logits, gt[:, None])
    best = min_over_masks(logits, gt, iou_pred)
    return best + 0.1 * focal_dice(logits, gt[:, None]) if arm == "three, relaxed" else best

# %% id="learn" sslcourse={"role": "experiment"}
def learn(arm: str, steps: int, budget: Budget) -> tuple[Tensor, Tensor]:
    """Returns the masks (runs, M, side, side) as logits and the predicted IoU (runs, M)."""
    g = torch.Generator().manual_seed(0)
    masks = (0.1 * torch.randn(runs, ARMS[arm], side, side, generator=g)).to(device).requires_grad_()
    iou_pred = torch.full((runs, ARMS[arm]), 0.5, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([masks, iou_pred], lr=0.1)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / steps)
        meant = torch.multinomial(SHARES, 8 * runs, replacement=True, generator=g)  # 8 clicks a run
        clicks = masks.repeat_interleave(8, dim=0), discs[meant], iou_pred.repeat_interleave(8, dim=0)
        optimizer.zero_grad()
        (runs * loss_of(arm, *clicks)).backward()
        optimizer.step()
        if budget.is_over(f"{arm}, step {step} of {steps}"):
            if step < 60:
                print("Fewer than 60 steps: the masks are not finished. Close other programs and run this cell again.")
            break
    return masks.detach(), iou_pred.detach()

# %% id="run" sslcourse={"role": "experiment"}
def ious(masks: Tensor) -> Tensor:
    """(..., H, W) logits -> (..., 3): IoU with each of the three discs."""
    mask, disc = masks[..., None, :, :] > 0, discs > 0.5
    return (mask & disc).sum(dim=(-2, -1)) / (mask | disc).sum(dim=(-2, -1))

learn("one mask", 1, Budget(28))  # the first step loads what the others find in place
learned = {arm: learn(arm, most_steps, Budget(600 if BIG else 28)) for arm in ARMS}

# %% id="result" sslcourse={"role": "experiment"}
result = {}
for arm, (masks, _) in learned.items():
    good = ious(masks) > 0.9  # (runs, M, 3)
    found, idle = good.any(dim=1).float(), (~good.any(dim=2)).float()
    result |= {arm: found.sum(dim=1).mean().item(), f"{arm}: masks without an answer": idle.sum(dim=1).mean().item()}
    which = ", ".join(f"{name} in {share:.0%}" for name, share in zip(NAMES, found.mean(dim=0), strict=True))
    predicted = prediction.get(arm, prediction["one mask becomes"])
    print(f"{arm}: predicted {predicted}; found {result[arm]:.2f} of 3 answers ({which} of the runs)")
record_result("ambiguity", result, show=False)

# %% [markdown] id="text-figure"
# ### Your figure
# Draw what the masks of **one** run have become, in all four arms, so that one look tells which mask answers what, which arms have
# one answer three times, and which masks are **dead** (they never won, so they never learned). Choose a run in which something
# died. Write on each mask the IoU that is predicted for it.
#
# You have `learned[arm]`, a pair: masks `(8, M, 32, 32)` as logits, and predicted IoU `(8, M)`. `ious(masks)` is `(8, M, 3)`.

# %% nbgrader={"grade": true, "grade_id": "figure", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "open"}
### BEGIN SOLUTION
import matplotlib.pyplot as plt

found = (ious(learned["three, minimum"][0]) > 0.9).any(dim=1).sum(dim=1)
one_run = int(found.argmin())  # where most is missing
fig, axes = plt.subplots(3, 4, figsize=(9, 7), layout="constrained")
for column, (arm, (masks, iou_pred)) in zip(axes.T, learned.items(), strict=True):
    column[0].set_title(arm)
    for ax in column:
        ax.axis("off")
    for ax, mask, u, iou in zip(column, masks[one_run], iou_pred[one_run], ious(masks[one_run])):  # noqa: B905
        ax.imshow(mask.sigmoid().cpu(), vmin=0, vmax=1, cmap="gray")
        answer = NAMES[int(iou.argmax())] if iou.max() > 0.9 else "dead"
        ax.text(1, 3, answer if arm in ("one mask", "three, mean") else f"{answer}, predicted IoU {u:.2f}", color="tab:orange", fontsize=8)
plt.show()
### END SOLUTION

# %% [markdown] nbgrader={"grade": true, "grade_id": "explain-gap", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "open"}
# **Explain the gap.** Where were you wrong, and why? If nothing surprised you: which number were you least sure of, and why? Say why a
# mask dies under the minimum, and why a tenth of the mean keeps it alive. What could that tenth cost? Use the numbers above
# and one thing that you see in your figure (3 to 6 sentences).
#
# ### BEGIN SOLUTION
# A full answer (5) compares the predictions with what was measured (or says what made the least sure one doubtful) and explains: one
# mask, or the mean of three, minimises the average loss over what may be meant, which is best served by the part, nearest to both
# others, though the whole is meant more often (its probabilities are grey rings; only the cut at 1/2 makes it a disc); three masks under the mean have the same loss and no reason to differ. Under the minimum
# the mask that is slightly better from the start wins, learns, and wins more; one that never wins gets no gradient and stays the noise
# that it was: dead. A little of the mean draws every mask towards the compromise, near enough to some target to win once; from then on it
# specialises. The cost: every mask is also drawn to the compromise, so masks become a little blurred or alike (with a large weight it
# is the mean arm again). Also good: the predicted IoU of a mask that is always right for one third of the clicks is low, since the other
# clicks count as well. 3: right, but without the figure or without the numbers. 0: repeats the numbers only.
# ### END SOLUTION

# %% [markdown] id="text-stability_score"
# ## 6. A mask that does not hang by a thread
# *Difficulty 2, importance 3, 10 minutes, 7 points.*
#
# To find **everything** in a picture, SAM clicks on a grid of points and sorts the answers. One question to each mask: does it depend on
# where the logits are cut? Cut them a little higher and a little lower than the threshold; the higher cut gives a smaller
# mask **inside** the larger one. Their IoU is the stability: near 1 for a mask with steep borders.

# %% nbgrader={"grade": false, "grade_id": "stability_score", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.segment.masks:stability_score"}
def stability_score(logits: Tensor, threshold: float = 0.0, delta: float = 1.0) -> Tensor:
    """IoU of the masks logits > threshold + delta and logits > threshold - delta.

    logits: (..., H, W).
    returns: (...) float32, one score a mask, in [0, 1]; 0 where even the larger mask is empty.

    Example: logits [[3, 2, 0.5, -0.5, -2]], threshold 0, delta 1: above 1 are 2 pixels, above -1 are 4, so 0.5.
    """
    ### BEGIN SOLUTION
    smaller = (logits > threshold + delta).sum(dim=(-2, -1))
    larger = (logits > threshold - delta).sum(dim=(-2, -1))
    return smaller / larger.clamp_min(1)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-stability_score", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "stability_score"}
logits = torch.tensor([[3.0, 2.0, 0.5, -0.5, -2.0]])
score = stability_score(logits)
assert isinstance(score, Tensor), f"return a tensor, not a {type(score).__name__}"
assert score.shape == (), f"one mask has one score, yours the shape {tuple(score.shape)}"
assert abs(score - 0.5) < 1e-4, (
    f"expected 0.5, got {score:.3f}. 2: the ratio is upside down. 0.667: the mask at the threshold is one of the two; it is in neither. "
    "0.75: that mask and the larger one. 0: delta moves probabilities; it moves logits."
)
three = stability_score(torch.stack([logits, logits + 10, logits - 10]))
assert three.shape == (3,), f"a score for each mask: expected (3,), got {tuple(three.shape)}"
assert three.isfinite().all(), "the third mask is empty at both cuts: 0 / 0 gives NaN. Its score is 0"
assert (three - torch.tensor([0.5, 1.0, 0.0])).abs().max() < 1e-4, f"expected [0.5, 1, 0], got {three.tolist()}"
moved = stability_score(logits, threshold=1.0, delta=2.0)
assert abs(moved - 0.0) < 1e-4, f"cuts at 3 and at -1: nothing is ABOVE 3, so 0; got {moved:.3f}. 0.25: you count the pixel that equals 3"
print("stability_score: the public checks pass")

# %% [markdown] id="text-amg_postprocess"
# ## 7. Each thing once
# *Difficulty 4, importance 3, 25 minutes, 12 points.*
#
# A grid of points gives hundreds of masks: bad ones, halves of things, and the same thing many times. Of $K$ masks those stay that
#
# 1. are **good**: predicted IoU $>$ `min_iou` and stability $\ge$ `min_stability`;
# 2. are **whole**. SAM also looks at crops of the picture, and an edge of the crop may cut a thing in two. Move the boxes from the crop's
#    pixels to the picture's (add the crop's $x_1, y_1$ to both corners). A mask goes if one of its four sides is at most 20 pixels from the
#    **same** side of the crop, unless that side is also at most 20 pixels from the same side of the picture, where things really end;
# 3. are the **best of their kind**. Non-maximum suppression: go from the highest predicted IoU to the lowest, and keep a mask unless its box
#    overlaps one that you have **kept** with IoU $>$ `max_overlap`.
#
# Boxes are $x_1, y_1, x_2, y_2$ with area $(x_2 - x_1)(y_2 - y_1)$, as in torchvision's `nms`, which is not available while
# grading. The intersection of two boxes is a box, too: the larger of both $x_1$, the smaller of both $x_2$, and sides of at least 0.

# %% nbgrader={"grade": false, "grade_id": "amg_postprocess", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.segment.automatic:amg_postprocess", "banned": ["nms", "batched_nms", "box_iou"]}
def amg_postprocess(
    boxes: Tensor, iou: Tensor, stability: Tensor, crop: Tensor, image: Tensor,
    min_iou: float, min_stability: float, max_overlap: float,
) -> Tensor:
    """Which of K masks stay.

    boxes: (K, 4) in pixels of the crop.   iou, stability: (K,).   crop, image: (4,) their boxes in pixels of the image.
    returns: (K',) int64, the indices of the masks that stay, highest predicted IoU first; K' may be 0.

    Example: crop = image = [0, 0, 99, 99], limits 0.8, 0.9, 0.5, four masks of stability 1. Boxes [30, 30, 50, 50],
    [30, 30, 50, 46], [60, 60, 70, 70], [40, 30, 60, 50] with iou = [0.9, 0.95, 0.7, 0.85]. Mask 2 is not good. Mask 1 is
    best and stays; mask 0 overlaps it by 320 / 400 = 0.8 and goes; mask 3 overlaps mask 1 by 160 / 560 = 0.29 and stays:
    [1, 3].
    """
    ### BEGIN SOLUTION
    moved = boxes + crop[:2].repeat(2)
    cut = ((moved - crop).abs() <= 20) & ((moved - image).abs() > 20)
    stays = (iou > min_iou) & (stability >= min_stability) & ~cut.any(dim=1)
    kept = []
    for i in iou.argsort(descending=True).tolist():
        if not stays[i]:
            continue
        for j in kept:
            first, last = torch.maximum(boxes[i, :2], boxes[j, :2]), torch.minimum(boxes[i, 2:], boxes[j, 2:])
            width, height = (last - first).clamp_min(0)
            area_i, area_j = ((boxes[k, 2:] - boxes[k, :2]).prod() for k in (i, j))
            if width * height / (area_i + area_j - width * height) > max_overlap:
                break
        else:
            kept.append(i)
    return torch.tensor(kept, dtype=torch.long)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-amg_postprocess", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "amg_postprocess"}
boxes = torch.tensor([[30.0, 30, 50, 50], [30, 30, 50, 46], [60, 60, 70, 70], [40, 30, 60, 50]])
iou, ones, square = torch.tensor([0.9, 0.95, 0.7, 0.85]), torch.ones(4), torch.tensor([0.0, 0, 99, 99])
kept = amg_postprocess(boxes, iou, ones, square, square, 0.8, 0.9, 0.5)
assert isinstance(kept, Tensor), f"return a tensor, not a {type(kept).__name__}"
assert kept.dtype == torch.int64, f"indices are int64, yours {kept.dtype}: torch.tensor([...], dtype=torch.long)"
assert kept.tolist() == [1, 3], (
    f"expected [1, 3], got {kept.tolist()}. [0, 3]: the highest predicted IoU does not come first. [1, 0, 3]: nothing is suppressed. [1, 3, 2]: "
    "the predicted IoU is not filtered. [1]: divide by the union. [1, 2]: indices into the masks that the filters left; count all K. []: near means |distance| <= 20."
)
chain = torch.tensor([[30.0, 30, 50, 50], [35, 30, 55, 50], [40, 30, 60, 50], [65, 65, 75, 75], [30, 30, 40, 40]])
kept = amg_postprocess(chain, torch.tensor([0.9, 0.85, 0.84, 0.83, 0.82]), torch.ones(5), square, square, 0.8, 0.9, 0.5).tolist()
assert kept == [0, 2, 3, 4], (
    f"expected [0, 2, 3, 4], got {kept}. 2 is missing: it overlaps only mask 1, which is gone. 3: it meets no other mask, so the intersection is 0; "
    "are sides at least 0? 4: it lies inside mask 0, but its IoU is 0.25 only."
)
unstable = amg_postprocess(boxes, iou, torch.tensor([1.0, 0.89, 1.0, 0.9]), square, square, 0.8, 0.9, 0.5).tolist()
assert unstable == [0, 3], f"stability 0.89 is below 0.9, and 0.9 is enough: expected [0, 3], got {unstable}. [3]: mask 1 is filtered, and suppresses nothing"

crop, wide = torch.tensor([100.0, 0, 200, 100]), torch.tensor([0.0, 0, 400, 100])
boxes = torch.tensor([[5.0, 40, 40, 60], [30, 5, 60, 60], [60, 40, 95, 60], [40, 40, 50, 95], [5, 5, 25, 25]])
iou, ones = torch.tensor([0.85, 0.7, 0.95, 0.9, 0.8]), torch.ones(5)
kept = amg_postprocess(boxes, iou, ones, crop, wide, 0.5, 0.9, 0.5).tolist()
assert kept == [3, 1], (
    f"the crop cuts masks 0 and 4 on their left and mask 2 on its right; masks 1 and 3 touch the picture's own edge: expected [3, 1], got {kept}. "
    "[1, 3]: the highest predicted IoU comes first. [3, 4, 1]: mask 4 is at the picture's top, but its left side is cut; ask for each side. "
    "0 or 2 stay: are both corners moved by the crop's x1, y1 first? []: the picture's edges cut nothing."
)
nothing = amg_postprocess(boxes, 0 * iou, ones, crop, wide, 0.5, 0.9, 0.5)
assert nothing.shape == (0,), f"nothing stays: return an empty tensor, not the shape {tuple(nothing.shape)}"
assert nothing.dtype == torch.int64, f"an empty tensor of indices is int64, too; yours is {nothing.dtype}"
print("amg_postprocess: the public checks pass")

# %% [markdown] id="text-mask_to_rle"
# ## 8. A mask in a few numbers
# *Difficulty 3, importance 3, 15 minutes, 7 points.*
#
# SA-1B holds 1.1 billion masks. Pixel by pixel they would fill petabytes, so each is written as **run lengths**, in COCO's format: read the mask
# **column by column** (down the first column, then the second), and count how many zeros, then how many ones, then zeros, and so
# on. The first count is always of **zeros**: it is 0 if the first pixel is set. The counts sum to $H \cdot W$.

# %% nbgrader={"grade": false, "grade_id": "mask_to_rle", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.segment.rle:mask_to_rle", "banned": ["unique_consecutive"]}
def mask_to_rle(mask: Tensor) -> dict[str, list[int]]:
    """Run lengths of a mask.

    mask: (H, W) bool, at least one pixel.
    returns: {"size": [H, W], "counts": [...]}, all Python ints (`.tolist()`, `list(mask.shape)`).

    Example: [[0, 1, 1],
              [1, 1, 0]]  read down the columns is 0 1 | 1 1 | 1 0: counts [1, 4, 1], size [2, 3].
    """
    ### BEGIN SOLUTION
    pixels = mask.T.flatten()
    new = (pixels[1:] != pixels[:-1]).nonzero().flatten() + 1  # where a run starts
    edges = [0, *new.tolist(), len(pixels)]
    counts = torch.tensor(edges).diff().tolist()
    return {"size": list(mask.shape), "counts": [0] * bool(pixels[0]) + counts}
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-mask_to_rle", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "mask_to_rle"}
rle = mask_to_rle(torch.tensor([[False, True, True], [True, True, False]]))
assert isinstance(rle, dict), f"return a dict, not a {type(rle).__name__}"
assert set(rle) == {"size", "counts"}, f"the keys are size and counts, yours {sorted(rle)}"
assert rle["size"] == [2, 3], f"size is [H, W], a list: expected [2, 3], got {rle['size']}"
assert isinstance(rle["counts"], list), f"counts is a list, yours a {type(rle['counts']).__name__}"
assert all(type(n) is int for n in rle["counts"]), f"counts are Python ints, yours {rle['counts']}"
assert rle["counts"] == [1, 4, 1], (
    f"expected [1, 4, 1], got {rle['counts']}. [1, 4]: the last run is missing. [1, 1, 1]: what belongs to the first run? [0, 1, 4, 1]: the mask "
    "starts with a zero."
)
rows = mask_to_rle(torch.tensor([[True, True], [False, False]]))["counts"]
assert rows == [0, 1, 1, 1, 1], f"down the columns this is 1 0 1 0, so [0, 1, 1, 1, 1]; got {rows}. [0, 2, 2]: along the rows. [1, 1, 1, 1]: zeros come first"
assert mask_to_rle(torch.zeros(2, 2, dtype=torch.bool))["counts"] == [4], "an empty 2 x 2 mask is one run of 4 zeros: [4]"
assert mask_to_rle(torch.ones(2, 2, dtype=torch.bool))["counts"] == [0, 4], "a full 2 x 2 mask: [0, 4]"
print("mask_to_rle: the public checks pass")

# %% [markdown] id="text-yours"
# ## 9. A SAM that runs on your functions
# *Nothing to write, 10 minutes.*
#
# The course comes with a tiny SAM that was trained on drawings of 128 pixels. First a scene, one click on the middle of its largest object,
# and what the course's own functions make of it.

# %% id="scene" sslcourse={"role": "experiment"}
from sslcourse.segment.clicks import center_click
from sslcourse.segment.files import load_tiny
from sslcourse.segment.predictor import Predictor
from sslcourse.segment.scenes import draw_scenes

scenes = draw_scenes(4, "test")
picture, wholes = scenes.images[1, :3], scenes[slice(1, 2)].objects(part=0)[1]
largest = wholes[wholes.sum(dim=(1, 2)).argmax()]
points, labels = center_click(largest[None], None)
theirs = Predictor(load_tiny()).set_image(picture).predict(points[0], labels[0])

# %% [markdown] id="text-plug"
# The next cell takes the place embedding and the two-way blocks out and puts **yours** in, with the trained weights. Then the same click.

# %% id="plug" sslcourse={"role": "experiment"}
from sslcourse.segment import prompts

model = load_tiny()
blocks = model.mask_decoder.transformer.layers
for i, block in enumerate(blocks):
    dim, hidden = block.mlp.lin1.in_features, block.mlp.lin1.out_features
    yours = TwoWayBlock(dim, block.self_attn.n_heads, hidden, first=i == 0)
    yours.load_state_dict(block.state_dict())
    blocks[i] = yours
prompts.fourier_point_embed = fourier_point_embed

# %% id="click" sslcourse={"role": "experiment"}
if USE_REFERENCE:
    from sslcourse.segment.automatic import amg_postprocess
    from sslcourse.segment.masks import stability_score
    from sslcourse.segment.rle import mask_to_rle

sam = Predictor(model).set_image(picture)
answer = sam.predict(points[0], labels[0], logits=True)
same = ((answer.masks > 0) == theirs.masks).float().mean()
print(f"{same:.1%} of the pixels are as with the course's functions")

# %% [markdown] id="text-click"
# 100 %? Then the ragged places are the small network's and not yours. Which of the three masks is the whole, which a part? Which one would SAM
# show you, and does the stability agree?

# %% id="show" sslcourse={"role": "experiment"}
import matplotlib.pyplot as plt

fig, axes = plt.subplots(1, 3, figsize=(10, 3.8))
for ax, logits, iou in zip(axes, answer.masks, answer.iou, strict=True):
    ax.imshow(picture.permute(1, 2, 0))
    ax.contour((logits > 0).float(), [0.5], colors="white")
    ax.plot(*points[0, 0], "w+", markersize=12)
    ax.set_title(f"predicted IoU {iou:.2f}, stability {stability_score(logits):.2f}", fontsize=9)
    ax.axis("off")
plt.show()

# %% [markdown] id="text-everything"
# Everything in the picture: a click on each of 16 x 16 places, three masks each, then your filters. SAM asks for a predicted IoU above
# 0.88 and a stability of 0.95. This small one is less sure of itself, so the limits are those that the better 30 % of its masks
# pass. How many masks came, how many stay, and how many numbers does your `mask_to_rle` need for them?

# %% id="everything" sslcourse={"role": "experiment"}
from sslcourse.segment.grids import point_grid
from sslcourse.segment.mask_prompts import box_of

grid = 128 * point_grid(16).float()  # in the middle of 16 x 16 cells
low, iou = sam.predict_low_res(grid[:, None], torch.ones(256, 1))
logits, iou = sam.upscale(low).flatten(0, 1), iou.flatten()
whole = torch.tensor([0, 0, 128, 128])
stability = stability_score(logits)
limits = iou.quantile(0.7).item(), stability.quantile(0.7).item()
kept = amg_postprocess(box_of(logits > 0), iou, stability, whole, whole, *limits, 0.7)

# %% id="painted" sslcourse={"role": "experiment"}
masks = logits[kept] > 0
numbers = sum(len(mask_to_rle(mask)["counts"]) for mask in masks)
print(f"{len(logits)} masks, {len(kept)} stay: {numbers} run lengths instead of {masks.numel()} pixels")
painted, colours = picture.clone().float(), torch.Generator().manual_seed(0)
for mask in sorted(masks, key=lambda mask: -mask.sum()):  # large ones first
    painted[:, mask] = 0.3 * painted[:, mask] + 0.7 * 255 * torch.rand(3, 1, generator=colours)
plt.imshow(torch.cat([picture.float(), painted], dim=-1).permute(1, 2, 0) / 255)
plt.axis("off")
plt.show()

# %% [markdown] id="text-twin"
# Now click yourself: left says *this belongs to it*, right says *this does not*, dragging draws a box. The first click gives three masks, a
# second click one. Find an object where one click is answered wrongly, and count the clicks that repair it. Other pictures are
# `scenes.images[0, :3]` to `[3, :3]`, or a photograph of yours by its file name (it has only ever seen drawings). (No answer to hand in.)

# %% id="twin" sslcourse={"role": "experiment"}
from sslcourse.segment.widget import ClickToSegment

ClickToSegment(model, picture)

# %% [markdown] nbgrader={"grade": true, "grade_id": "open-question", "locked": false, "points": 15, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "open"}
# ## 10. Open question
# *Difficulty 4, importance 4, 15 minutes, 15 points. Graded 0 / 5 / 10 / 15.*
#
# For a single click SAM gives three masks, for several clicks or a box only **one**, made by a fourth mask token that learns from such
# prompts alone. **Why** is that a sensible choice? Then build a case where it hurts: say what is in the picture, which prompts are
# given, what the user means, and what the single mask will look like. Say **how you would measure** whether the case is
# rare, and one change that would help, with what it costs.
#
# ### BEGIN SOLUTION
# 15: the reason (several prompts, or a box, nearly always leave one answer; with one answer three masks would all learn the same, as
# in the mean arm, or two of them would not be trained by it; the fourth token keeps the three for ambiguous prompts apart; one mask also needs no
# choice by a predicted IoU), and a case in which the prompts still agree with two nested or neighbouring answers: two clicks on
# the sleeve (sleeve or coat?), a box that fits both a person and the person with a backpack, two clicks on two wheels (the wheels, or the car?), with
# the mask to expect (one of them by chance, or a compromise between them); a measurement that separates ambiguity from mere failure, such as
# the share of objects with nested masks (SA-1B, or our drawings) for which the oracle best of the three masks beats the single one by more than 0.1 IoU
# at 2, 3, ... clicks; and a change with its cost: three masks for every prompt (the user must choose, the predicted IoU must rank
# well), a stability test that falls back on three (as SAM 2 does; another threshold), words as a prompt (data). 10: reason and case, but no
# measurement or no change. 5: only the reason, or only a case. 0: "several prompts are not ambiguous", or nothing.
# ### END SOLUTION
