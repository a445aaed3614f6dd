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
# # Lab 6: a Vision Transformer that teaches itself
#
# You write the parts of a Vision Transformer and the parts of DINO, put them together, and watch a teacher that is nothing
# but the average of its own student. Left alone such a pair agrees on nonsense. Two small tricks prevent it, and at the end
# you take each of them away to see what it was for.
#
# | | |
# |---|---|
# | **You need** | `reshape`, `permute`, softmax, `detach()`; chapter 6 |
# | **Time** | about 3 hours; every exercise says how many minutes |
# | **Points** | 100: functions 70, prediction and experiment 15, open question 15 |
#
# How it works: fill in a function, run the check below it, go on when it passes. A check looks at a few public examples;
# grading looks at more properties (gradients, images that are not square, extreme logits) and gives points for each one.
# Every exercise is graded **on its own**. So if you are stuck, leave it and move on: the experiment at the end runs
# with the course's functions if you set `USE_REFERENCE = True` there.
#
# - Difficulty and importance go from 1 to 5.
# - Stuck? `hint("attention", 1)` opens a first hint; levels 2 and 3 say more. Hints cost nothing.
# - Write helper functions and imports **inside** the exercise's cell: the grader runs that cell alone.
# - Before you hand in, save the notebook and run, in a terminal in the course's folder,
#   `.venv/bin/sslcourse check labs/06_vit_dino/06_vit_dino.ipynb`.

# %% id="preamble" sslcourse={"role": "preamble"}
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# %% id="tools"
from sslcourse.lab import Budget, hint, predict, record_result

hint()

# %% [markdown] id="text-patchify"
# ## 1. An image becomes a sequence
# *Difficulty 2, importance 4, 10 minutes, 6 points.*
#
# A transformer reads a sequence of vectors, so an image of $H \times W$ pixels is cut into patches of $p \times p$:
# $N = \frac{H}{p} \cdot \frac{W}{p}$ vectors of $p \cdot p \cdot C$ numbers. The order is a convention, and everything
# after it relies on it: patches in **reading order** (left to right, then down); inside a patch pixel **rows, then columns, then
# channels**, so that the $C$ numbers of one pixel stand together.
#
# The way to do it without a loop: split the axes H and W in two each (`reshape`), bring the six axes into the
# right order (`permute`), merge them again (`reshape`).

# %% nbgrader={"grade": false, "grade_id": "patchify", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.nn.patches:patchify"}
def patchify(x: Tensor, p: int) -> Tensor:
    """Cut images into patches.

    x: (B, C, H, W), H and W multiples of p, not always equal.   p: side of a patch in pixels.
    returns: (B, N, p*p*C), N = H/p * W/p patches in reading order; inside a patch rows, columns, channels.

    Example: one channel, p = 2, x = [[0, 1, 2, 3],
                                      [4, 5, 6, 7]]  ->  [[0, 1, 4, 5], [2, 3, 6, 7]]
    """
    ### BEGIN SOLUTION
    b, c, height, width = x.shape
    x = x.reshape(b, c, height // p, p, width // p, p)
    x = x.permute(0, 2, 4, 3, 5, 1)
    return x.reshape(b, -1, p * p * c)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-patchify", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "patchify"}
x = torch.arange(8.0).view(1, 1, 2, 4)
patches = patchify(x, 2)
assert isinstance(patches, Tensor), f"return a tensor, not a {type(patches).__name__}"
assert patches.shape == (1, 2, 4), f"2 x 4 pixels are 2 patches of 4 numbers: expected (1, 2, 4), got {tuple(patches.shape)}"
assert patches.tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7]]], (
    f"got {patches.tolist()}. [0, 1, 2, 3] in one patch: the axes were not permuted. [0, 4, 1, 5]: columns before rows."
)
pixel = patchify(torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2), 2)
below = patchify(torch.arange(16.0).view(1, 1, 4, 4), 2)[0, :, 0].tolist()
assert below == [0, 2, 8, 10], f"the four patches of 4 x 4 pixels start with [0, 2, 8, 10], yours with {below}. [0, 8, 2, 10]: down the columns"
assert pixel.shape == (1, 1, 12), f"a 2 x 2 patch of 3 channels has 12 numbers, yours {tuple(pixel.shape)}"
assert pixel[0, 0, :3].tolist() == [10, 20, 30], f"a patch starts with the 3 channels of its first pixel, yours with {pixel[0, 0, :3].tolist()}"
print("patchify: the public checks pass")

# %% [markdown] id="text-unpatchify"
# ## 2. And back
# *Difficulty 2, importance 3, 5 minutes, 4 points.*
#
# The same three moves backwards: read your `patchify` from its last line to its first. From $N$ alone nobody can tell
# $2 \times 8$ patches from $4 \times 4$, so the grid is given. You need it at the end, to draw what the network looks at.

# %% nbgrader={"grade": false, "grade_id": "unpatchify", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.nn.patches:unpatchify"}
def unpatchify(tokens: Tensor, p: int, h: int, w: int) -> Tensor:
    """The inverse of `patchify`.

    tokens: (B, h*w, p*p*C).   p: side of a patch in pixels.   h, w: rows and columns of patches.
    returns: (B, C, h*p, w*p).

    Example: p = 2, h = 1, w = 2, tokens = [[0, 1, 4, 5], [2, 3, 6, 7]]  ->  [[0, 1, 2, 3],
                                                                             [4, 5, 6, 7]]
    """
    ### BEGIN SOLUTION
    b, _, values = tokens.shape
    x = tokens.reshape(b, h, w, p, p, values // (p * p))
    x = x.permute(0, 5, 1, 3, 2, 4)
    return x.reshape(b, -1, h * p, w * p)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-unpatchify", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "unpatchify"}
tokens = torch.tensor([[[0.0, 1, 4, 5], [2, 3, 6, 7]]])
image = unpatchify(tokens, 2, 1, 2)
assert isinstance(image, Tensor), f"return a tensor, not a {type(image).__name__}"
assert image.shape == (1, 1, 2, 4), f"a grid of 1 x 2 patches of 2 x 2 pixels is 2 x 4 pixels; got {tuple(image.shape)}"
assert image.flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7], f"expected 0 to 7 in reading order, got {image.flatten().tolist()}"
channels = unpatchify(torch.arange(12.0).view(1, 1, 12), 2, 1, 1)
assert channels.shape == (1, 3, 2, 2), f"12 numbers of a 2 x 2 patch are 3 channels: expected (1, 3, 2, 2), got {tuple(channels.shape)}"
first = channels[0, 0].flatten().tolist()
assert first == [0, 3, 6, 9], f"channel 0 is every third number, [0, 3, 6, 9]; yours is {first}. [0, 1, 2, 3]: channels come last in a patch"
grid = unpatchify(torch.arange(4.0).view(1, 4, 1), 1, 2, 2).flatten().tolist()
assert grid == [0, 1, 2, 3], f"patches come in reading order: expected [0, 1, 2, 3], got {grid}"
print("unpatchify: the public checks pass")

# %% [markdown] id="text-interpolate_pos"
# ## 3. Positions for another size
# *Difficulty 2, importance 4, 15 minutes, 10 points.*
#
# To a transformer a sequence is a set. What says "top left" is a learned vector added to each token, one for
# each place of the grid, and one for the extra token CLS, which stands first and has no place. DINO shows its network
# crops of two sizes, so the grid of vectors is resized like a picture with $D$ channels: **bicubic**, while **CLS stays as it is**.
#
# `F.interpolate` wants `(1, D, rows, columns)`, the places `(1, N, D)` become that by way of `(1, n, n, D)`, and the same way
# leads back. `n = math.isqrt(N)`; leave `align_corners` alone.

# %% nbgrader={"grade": false, "grade_id": "interpolate_pos", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.nn.patches:interpolate_pos"}
def interpolate_pos(pos: Tensor, h: int, w: int) -> Tensor:
    """Resize position embeddings to a grid of h x w patches.

    pos: (1, 1+N, D) float: CLS first, then a SQUARE grid of N = n * n patches in reading order.
    h, w: rows and columns that are wanted, not always equal.
    returns: (1, 1 + h*w, D), dtype of pos; CLS unchanged, the rest bicubic.

    Example: pos of a 1 x 1 grid, D = 1, [[7], [3]], to h = 1, w = 2  ->  [[7], [3], [3]]
    """
    ### BEGIN SOLUTION
    n = math.isqrt(pos.shape[1] - 1)
    cls, patches = pos[:, :1], pos[:, 1:]
    grid = patches.reshape(1, n, n, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(h, w), mode="bicubic")
    patches = grid.permute(0, 2, 3, 1).reshape(1, h * w, -1)
    return torch.cat([cls, patches], dim=1)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-interpolate_pos", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "interpolate_pos"}
pos = torch.tensor([[[7.0], [3.0]]])
out = interpolate_pos(pos, 1, 2)
assert isinstance(out, Tensor), f"return a tensor, not a {type(out).__name__}"
assert out.shape == (1, 3, 1), f"CLS and 1 x 2 patches are (1, 3, 1), yours is {tuple(out.shape)}"
assert torch.allclose(out.flatten(), torch.tensor([7.0, 3.0, 3.0])), f"expected [7, 3, 3], got {out.flatten().tolist()}: is CLS left out of the interpolation?"

grid = torch.tensor([[0.0, 1.0], [0.0, 1.0]])  # grows from left to right, equal from top to bottom
out = interpolate_pos(torch.cat([torch.zeros(1), grid.flatten()]).view(1, 5, 1), 2, 4)[0, 1:, 0].view(2, 4)
assert torch.allclose(out[0], out[1]), "both rows of the grid are equal, yours differ: are rows and columns swapped somewhere?"
expected = torch.tensor([-0.1055, 0.2266, 0.7734, 1.1055])
assert torch.allclose(out[0], expected, atol=1e-3), (
    f"expected [-0.105, 0.227, 0.773, 1.105], got {[round(v, 3) for v in out[0].tolist()]}. "
    "[0, 0.25, 0.75, 1]: bilinear. [0, 0.315, 0.685, 1]: align_corners. [0, 1, 0, 1]: size=(w, h)."
)
two = interpolate_pos(torch.tensor([[[0.0, 0.0]] + [[1.0, 5.0]] * 4]), 3, 3)[0, 1:]
assert torch.allclose(two, torch.tensor([1.0, 5.0])), "all old places hold (1, 5), so all new ones do: reshape to (1, n, n, D) first, then permute"
print("interpolate_pos: the public checks pass")

# %% [markdown] id="text-attention"
# ## 4. Attention
# *Difficulty 3, importance 5, 25 minutes, 12 points.*
#
# One linear layer turns every token into a query, a key and a value of $D$ numbers each. They are cut into
# $n$ heads of $d = D / n$ numbers, and each head does the same on its own (Vaswani et al. 2017, Eq. 1):
#
# $$A = \operatorname{softmax}\!\Big(\frac{Q K^\top}{\sqrt{d}}\Big), \qquad \text{output} = A V .$$
#
# Row $i$ of $A$ says where token $i$ looks: non-negative, sum 1. Shapes to aim at: q, k, v `(B, heads, N, d)`; the map
# `(B, heads, N, N)`; the output `(B, N, D)` with the heads side by side. In `wqkv` the first $D$ rows make queries, the next
# keys, the last values; within each, head 0 owns the first $d$ rows, head 1 the next, and so on.

# %% nbgrader={"grade": false, "grade_id": "attention", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.nn.vit:attention", "banned": ["scaled_dot_product_attention", "multi_head_attention_forward", "MultiheadAttention"]}
def attention(x: Tensor, wqkv: Tensor, n_heads: int, return_map: bool = False):
    """Multi-head self-attention, without the output projection.

    x: (B, N, D) tokens.   wqkv: (3D, D), used as x @ wqkv.T.   n_heads: divides D.
    returns: (B, N, D); with return_map=True the pair of it and the map (B, n_heads, N, N), whose rows sum to 1.

    Example: x = [[1], [0]] (N = 2, D = 1), wqkv = [[1], [1], [1]], one head. Token 0 has q k^T = [1, 0], so it looks
    at [e, 1] / (e + 1) = [0.731, 0.269]; token 1 at [0.5, 0.5]. The output is [[0.731], [0.5]].
    """
    ### BEGIN SOLUTION
    b, n, _ = x.shape
    qkv = (x @ wqkv.T).reshape(b, n, 3, n_heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    logits = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    weights = logits.softmax(dim=-1)
    out = (weights @ v).transpose(1, 2).reshape(b, n, -1)
    return (out, weights) if return_map else out
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-attention", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "attention"}
x, wqkv = torch.tensor([[[1.0], [0.0]]]), torch.ones(3, 1)
out = attention(x, wqkv, 1)
assert isinstance(out, Tensor), f"without return_map return one tensor, not a {type(out).__name__}"
assert out.shape == (1, 2, 1), f"as many tokens come out as went in: expected (1, 2, 1), got {tuple(out.shape)}"
assert torch.allclose(out.flatten(), torch.tensor([0.7311, 0.5]), atol=1e-3), (
    f"expected [0.731, 0.5], got {[round(v, 3) for v in out.flatten().tolist()]}. [0.731, 0.269]: softmax over the queries (dim=-2), or the map is transposed"
)

x = torch.tensor([[[0.0, 1.0, 0.0, 4.0], [2.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]]])
out, look = attention(x, torch.eye(4).repeat(3, 1), 2, return_map=True)  # queries = keys = values = x
assert look.shape == (1, 2, 3, 3), f"2 heads, 3 tokens: the map is (1, 2, 3, 3), yours {tuple(look.shape)}"
assert torch.allclose(look.sum(-1), torch.ones(1, 2, 3)), f"a row of the map sums to 1, yours to {[round(v, 3) for v in look.sum(-1)[0, 0].tolist()]}"
scale = (look[0, 0, 0, 0] / look[0, 0, 0, 1]).log().item()  # the two logits of head 0 differ by 1 before the scale
assert abs(scale - 0.7071) < 1e-3, (
    f"d = 2 numbers a head, so logits are multiplied by 0.707, yours by {scale:.3f}. 0.5: the square root of D. 1: no root. "
    "Another number: are the heads cut as the text says (reshape to (B, N, heads, d), then transpose)?"
)
assert torch.allclose(out[0, 0, 2:], look[0, 1, 0] @ x[0, :, 2:]), "the last two numbers of token 0 belong to head 1: how are the heads merged?"

queries, keys, values = torch.eye(2), torch.tensor([[0.0, 0.0], [1.0, 0.0]]), 2 * torch.eye(2)
out = attention(torch.eye(2)[None], torch.cat([queries, keys, values]), 1)[0]
assert torch.allclose(out, torch.tensor([[1.0, 1.0], [1.3395, 0.6605]]), atol=1e-3), (
    "in wqkv the first D rows make queries, the next keys, the last values: is one taken for another?"
)
print("attention: the public checks pass")

# %% [markdown] id="text-dino_loss"
# ## 5. DINO's loss
# *Difficulty 3, importance 5, 30 minutes, 16 points.*
#
# Student and teacher both turn a crop into $K$ logits. The teacher sees the $G$ large crops only, the student all $V$ of
# them, large ones first. Its answer for *one* crop should be the teacher's answer for *another* crop of the same image:
#
# $$P_i = \operatorname{softmax}\Big(\frac{t_i - c}{\tau_t}\Big), \qquad
# L = \frac{1}{\#\text{pairs}} \sum_{i < G} \; \sum_{\substack{v < V \\ v \ne i}} \;
# \frac1B \sum_{b} \Big( - \sum_k P_i \log \operatorname{softmax}\Big(\frac{s_v}{\tau_s}\Big) \Big).$$
#
# The centre $c$ is subtracted from the teacher only; no gradient reaches the teacher or the centre. Teacher $i$ and
# student $v = i$ saw the same crop, and that pair is left out of the sum *and* of the count. (Mind the letters: $K$, $P$ and $V$
# are numbers of outputs, answers and crops here, not the keys, the patch and the values of before.)

# %% nbgrader={"grade": false, "grade_id": "dino_loss", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.losses.dino:dino_loss"}
def dino_loss(student: list[Tensor], teacher: list[Tensor], center: Tensor, ts: float = 0.1, tt: float = 0.04) -> Tensor:
    """Cross-entropy between the teacher's and the student's answers, over all pairs of different crops.

    student: V >= 2 tensors (B, K) of logits, one a crop.   teacher: G <= V tensors (B, K), of the first G crops.
    center: (K,).   ts, tt: temperatures of student and teacher.
    returns: scalar, the mean over pairs and batch; finite for logits of 1e4.

    Example: V = G = 2, B = 1, K = 2, center = 0, ts = tt = 1; student and teacher both give [[0, 0]] for crop 0 and
    [[2, 0]] for crop 1. Student 1 against teacher 0, who says (1/2, 1/2), costs log(1 + e^2) - 1 = 1.127; student 0
    against teacher 1 costs log 2 = 0.693; the mean is 0.910.
    """
    ### BEGIN SOLUTION
    targets = [((t - center) / tt).softmax(dim=-1).detach() for t in teacher]
    log_p = [F.log_softmax(s / ts, dim=-1) for s in student]
    losses = []
    for i, target in enumerate(targets):
        for v, answer in enumerate(log_p):
            if v != i:
                losses.append(-(target * answer).sum(dim=-1).mean())
    return torch.stack(losses).mean()
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-dino_loss", "locked": true, "points": 16, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "dino_loss"}
zero = torch.zeros(1, 2)
student = [zero.clone().requires_grad_(), torch.tensor([[2.0, 0.0]], requires_grad=True)]
teacher = [zero.clone().requires_grad_(), torch.tensor([[2.0, 0.0]])]
loss = dino_loss(student, teacher, torch.zeros(2), 1.0, 1.0)
assert isinstance(loss, Tensor), f"return a tensor, not a {type(loss).__name__}"
assert loss.shape == (), f"return one number, yours has shape {tuple(loss.shape)}"
assert abs(loss - 0.9100) < 1e-3, (
    f"expected 0.910, got {loss:.3f}. 0.720: the pairs of equal crops are in, too; 0.529: only they are. -0.910: the minus sign. "
    "0.455: divided by 4 pairs, though 2 are left out, or a mean over K where the sum is meant."
)
assert loss.requires_grad, "no gradient reaches the student: is there a detach too many?"
loss.backward()
assert student[0].grad is not None, "no gradient reaches student 0: is there a detach too many?"
assert teacher[0].grad is None, "a gradient reaches the teacher: detach its answers"

twice = dino_loss([s.detach().expand(3, 2) for s in student], [t.detach().expand(3, 2) for t in teacher], torch.zeros(2), 1.0, 1.0)
assert abs(twice - 0.9100) < 1e-3, f"three times the same image: again 0.910, got {twice:.3f}. 2.730: summed over the batch; it is a mean"
centred = dino_loss([zero, student[1].detach()], [torch.tensor([[1.0, 0.0]])] * 2, torch.tensor([1.0, 0.0]), 1.0, 0.5)
assert abs(centred - 0.9100) < 1e-3, (
    f"teacher [1, 0] minus centre [1, 0] is [0, 0], so again 0.910; got {centred:.3f}. 0.813: the student is centred, too. "
    "0.529: no centre. 0.428: it is added. 0.679: it is subtracted after the division by tt."
)
one = dino_loss([zero, torch.tensor([[2.0, 0.0]])], [torch.tensor([[0.04, 0.0]])], torch.zeros(2), 1.0)
assert abs(one - 0.6648) < 1e-3, f"tt is 0.04 when none is given, and with one teacher crop there is one pair: expected 0.6648, got {one:.4f}"
assert dino_loss([1e4 * s for s in student], teacher, torch.zeros(2)).isfinite(), "log(softmax) of large logits is log(0): use F.log_softmax"
print("dino_loss: the public checks pass")

# %% [markdown] id="text-update_center"
# ## 6. The centre
# *Difficulty 1, importance 4, 5 minutes, 6 points.*
#
# After the loss has been computed, the centre moves a little towards the mean of the teacher's raw logits:
# $c \leftarrow m\, c + (1 - m)\, \bar t$. What every image gets a lot of is thus taken away from every image.

# %% nbgrader={"grade": false, "grade_id": "update_center", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.losses.dino:update_center"}
def update_center(center: Tensor, t: Tensor, m: float = 0.9) -> Tensor:
    """The next centre.

    center: (K,).   t: (..., K) raw logits of the teacher, such as (B, K), or (G, B, K) of G crops.   m: in [0, 1].
    returns: (K,), a new tensor without gradient; the mean runs over everything but K.

    Example: center = [0, 0], t = [[2, 4], [4, 0]], m = 0.9  ->  0.1 * [3, 2] = [0.3, 0.2]
    """
    ### BEGIN SOLUTION
    mean = t.detach().flatten(0, -2).mean(dim=0)
    return m * center + (1 - m) * mean
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-update_center", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "update_center"}
t = torch.tensor([[2.0, 4.0], [4.0, 0.0]], requires_grad=True)
center = update_center(torch.zeros(2), t)
assert isinstance(center, Tensor), f"return a tensor, not a {type(center).__name__}"
assert center.shape == (2,), f"one number a logit: expected (2,), got {tuple(center.shape)}"
assert torch.allclose(center, torch.tensor([0.3, 0.2])), f"expected [0.3, 0.2], got {[round(v, 3) for v in center.tolist()]}. [2.7, 1.8]: m and 1 - m are swapped"
assert not center.requires_grad, "the centre carries a gradient: it would keep every step's graph alive"
old = torch.ones(2)
stacked = update_center(old, t.detach().view(2, 1, 2), m=0.5)
assert stacked.shape == (2,), f"t may have more axes: average over all but the last. Expected (2,), got {tuple(stacked.shape)}"
assert stacked.tolist() == [2.0, 1.5], f"center = [1, 1], m = 0.5: expected [2.0, 1.5], got {stacked.tolist()}. [1.5, 1.0]: take the raw logits' mean"
assert old.tolist() == [1, 1], "the old centre has been changed in place: return a new tensor"
print("update_center: the public checks pass")

# %% [markdown] id="text-multicrop_forward"
# ## 7. Crops of two sizes, one pass each
# *Difficulty 2, importance 3, 10 minutes, 8 points.*
#
# Two large and eight small crops would be ten passes through the network. Crops of one size stack to one batch, so two
# passes do; the head then takes the features of **all** crops at once. The order of the answers has to be that
# of the crops. Crops of one size come one after the other, and `itertools.groupby(crops, key=lambda crop: crop.shape)` goes
# through these runs: it yields `(shape, run)`.

# %% nbgrader={"grade": false, "grade_id": "multicrop_forward", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.nn.multicrop:multicrop_forward"}
def multicrop_forward(backbone, head, crops: list[Tensor]) -> Tensor:
    """Outputs of all crops, with one pass of the backbone a size and one of the head.

    backbone: (B, 3, h, w) -> (B, D).   head: (M, D) -> (M, K).
    crops: V tensors (B, 3, h, w), those of one size one after the other.
    returns: (V * B, K): the B rows of crop 0, then those of crop 1, ...

    Example: V = 3 crops of B = 2 images with sides 32, 32, 16: the backbone is called with 4 images of 32, then with
    2 of 16; the head once with 6 rows; 6 rows come back.
    """
    ### BEGIN SOLUTION
    from itertools import groupby

    features = []
    for _, group in groupby(crops, key=lambda crop: crop.shape):
        features.append(backbone(torch.cat(list(group))))
    return head(torch.cat(features))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-multicrop_forward", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "multicrop_forward"}
seen, heads = [], []
def backbone(x):
    seen.append(tuple(x.shape))
    return x.mean(dim=(2, 3))
def head(z):
    heads.append(len(z))
    return 2 * z[:, :1]

crops = [torch.full((2, 3, side, side), float(i)) for i, side in enumerate([32, 32, 16])]
out = multicrop_forward(backbone, head, crops)
assert isinstance(out, Tensor), f"return a tensor, not a {type(out).__name__}"
assert out.shape == (6, 1), f"3 crops of 2 images are 6 rows: expected (6, 1), got {tuple(out.shape)}"
assert seen == [(4, 3, 32, 32), (2, 3, 16, 16)], f"one pass a size: expected 4 images of 32, then 2 of 16; the backbone saw {seen}"
assert heads == [6], f"the head takes all 6 rows at once; it was called with {heads}"
assert out.flatten().tolist() == [0, 0, 2, 2, 4, 4], f"rows in the order of the crops: expected [0, 0, 2, 2, 4, 4], got {out.flatten().tolist()}"
print("multicrop_forward: the public checks pass")

# %% [markdown] id="text-attn_to_mask"
# ## 8. What does CLS look at?
# *Difficulty 3, importance 3, 15 minutes, 8 points.*
#
# DINO's heads look at objects that nobody labelled. To compare that with a segmentation, the paper turns each head's
# attention into a mask: **the fewest patches that together hold 60 % of the attention** that CLS pays to the patches. So:
# take the row of CLS without the attention that it pays to itself, let it sum to 1, sort, keep from the top until
# the mass is reached (the patch that reaches it is still in), and put everything back in its place (`sort` returns an order,
# `scatter` along it undoes the sorting). Each head on its own.

# %% nbgrader={"grade": false, "grade_id": "attn_to_mask", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.evaluate.attention:attn_to_mask"}
def attn_to_mask(attention: Tensor, grid: tuple[int, int], mass: float = 0.6) -> Tensor:
    """The class token's attention as masks, one a head.

    attention: (B, heads, T, T), a map of `attention` above (rows are queries). Token 0 is CLS, the last h * w tokens are
        the patches in reading order; should anything stand between, it is ignored.
    grid: (h, w).   mass: share of the attention to the patches that is kept, in (0, 1].
    returns: (B, heads, h, w) bool.

    Example: CLS looks at [CLS, four patches] with [0.5, 0.05, 0.25, 0.15, 0.05]. Of the patches' 0.5 that is
    [0.1, 0.5, 0.3, 0.1]. 0.5 is not yet 60 %, 0.5 + 0.3 is: the mask of a 2 x 2 grid is [[F, T], [T, F]].
    """
    ### BEGIN SOLUTION
    h, w = grid
    share = attention[:, :, 0, -h * w :]
    share = share / share.sum(dim=-1, keepdim=True)
    top, order = share.sort(dim=-1, descending=True)
    before = top.cumsum(dim=-1) - top  # what the patches ahead of this one hold
    kept = torch.zeros_like(share, dtype=torch.bool).scatter(-1, order, before < mass)
    return kept.unflatten(-1, (h, w))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-attn_to_mask", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "attn_to_mask"}
look = torch.full((1, 1, 5, 5), 0.2)
look[0, 0, 0] = torch.tensor([0.5, 0.05, 0.25, 0.15, 0.05])
mask = attn_to_mask(look, (2, 2))
assert isinstance(mask, Tensor), f"return a tensor, not a {type(mask).__name__}"
assert mask.dtype == torch.bool, f"a mask is bool, yours is {mask.dtype}"
assert mask.shape == (1, 1, 2, 2), f"one image, one head, 2 x 2 patches: expected (1, 1, 2, 2), got {tuple(mask.shape)}"
assert mask.flatten().tolist() == [False, True, True, False], (
    f"expected [F, T, T, F], got {mask.flatten().tolist()}. F, T, F, F: the patch that reaches 60 % is missing. "
    "T, T, F, F: the sorting was not undone. All T: let the patches alone sum to 1, and start from the strongest."
)
assert attn_to_mask(look, (2, 2), mass=0.05).sum() == 1, "even for a tiny mass the strongest patch is in"
assert attn_to_mask(look, (1, 4)).shape == (1, 1, 1, 4), "the grid need not be square"
look = torch.full((1, 2, 6, 6), 1 / 6)  # 2 heads; token 1 is neither CLS nor a patch
look[0, :, 0] = torch.tensor([[0.1, 0.6, 0.3, 0.0, 0.0, 0.0], [0.1, 0.6, 0.0, 0.0, 0.0, 0.3]])
heads = attn_to_mask(look, (2, 2)).flatten(2)[0].tolist()
assert heads == [[True, False, False, False], [False, False, False, True]], (
    f"head 0 looks at the first patch, head 1 at the last, yours {heads}: each head has its own mask, and the patches are the LAST h * w tokens"
)
print("attn_to_mask: the public checks pass")

# %% [markdown] id="text-predict"
# ## 9. Predict, then run
# *Difficulty 3, importance 5, 30 minutes, 15 points: prediction 5, figure 5, explanation 5.*
#
# Now your functions become a small DINO: a ViT of two blocks, a head with $K = 64$ outputs, two large and two small crops of
# each image. The teacher's answers $P$ are watched by two entropies: that of a **single** answer, averaged over
# images, and that of the **mean** answer. Both lie between 0 (all on one output) and $\ln 64 = 4.16$ (all outputs alike).
# Their difference is what an answer tells about its image.
#
# You train it four times for about half a minute each: with **both** safeguards; with **sharpening only** ($\tau_t = 0.04$, the centre
# stays 0); with **centering only** ($\tau_t = 1$, softer than the student's 0.1); with **neither** of them ($\tau_t = 1$, the centre stays 0).

# %% id="arms" sslcourse={"role": "experiment"}
K = 64
ARMS = {  # (temperature of the teacher, does the centre move?)
    "both": (0.04, True),
    "sharpening only": (0.04, False),
    "centering only": (1.0, True),
    "neither": (1.0, False),
}

# %% [markdown] id="text-prediction"
# **Write down what you expect before you run anything below.** A wrong prediction costs nothing: being surprised is what
# you are here for. For each arm choose one ending: `"one output"` (both entropies near 0: every image gets the same single
# output), `"uniform"` (both near 4.16: every image gets all outputs alike), `"different answers"` (single entropy well below
# that of the mean).

# %% nbgrader={"grade": false, "grade_id": "prediction", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "predict"}
prediction = {
    "both": None,  # "one output", "uniform" or "different answers"
    "sharpening only": None,
    "centering only": None,
    "neither": None,
    "lowest_loss": None,  # the arm whose training loss ends lowest
    "why": None,  # a sentence
}
### BEGIN SOLUTION
prediction = {
    "both": "different answers",
    "sharpening only": "one output",
    "centering only": "uniform",
    "neither": "uniform",
    "lowest_loss": "sharpening only",
    "why": "Sharpening makes single answers peaked and nothing moves the peak, while a soft teacher only gets softer.",
}
### END SOLUTION
predict("centering", prediction)

# %% nbgrader={"grade": true, "grade_id": "check-prediction", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "prediction"}
assert None not in prediction.values(), "write down your prediction in the cell above, and run it first"
endings = {"one output", "uniform", "different answers"}
assert {prediction[arm] for arm in ARMS} <= endings, f"choose an ending for each arm from {sorted(endings)}"
assert prediction["lowest_loss"] in ARMS, f"lowest_loss is one of {list(ARMS)}"
assert len(prediction["why"].split()) >= 5, "why: say it in a sentence"

# %% [markdown] id="text-vit"
# Your functions, assembled; the head comes from the course: an MLP, a unit vector of 32 numbers at its end, and as logits the
# cosines of that vector with $K$ learned prototypes. Set `USE_REFERENCE = True` to run with the course's functions if yours are not finished (to go
# back to yours, set it to `False` and run the cells with your functions again). On a GPU set `BIG = True`: a wider and
# deeper network and ten times the steps.

# %% id="settings" sslcourse={"role": "experiment"}
USE_REFERENCE = False
if USE_REFERENCE:
    from sslcourse.evaluate.attention import attn_to_mask
    from sslcourse.losses.dino import dino_loss, update_center
    from sslcourse.nn.multicrop import multicrop_forward
    from sslcourse.nn.patches import interpolate_pos, patchify, unpatchify
    from sslcourse.nn.vit import attention

BIG = False
device = "cuda" if BIG else "cpu"
dim, depth, most_steps = (192, 6, 3000) if BIG else (48, 2, 300)

# %% id="block" sslcourse={"role": "experiment"}
class Block(nn.Module):
    """Attention lets tokens talk to each other, the MLP thinks about each of them."""

    def __init__(self, dim: int, n_heads: int = 3):
        super().__init__()
        self.n_heads, self.norm1, self.norm2 = n_heads, nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.wqkv, self.proj = nn.Parameter(torch.randn(3 * dim, dim) * dim**-0.5), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.proj(attention(self.norm1(x), self.wqkv, self.n_heads))
        return x + self.mlp(self.norm2(x))

# %% id="vit" sslcourse={"role": "experiment"}
class TinyViT(nn.Module):
    """Images (B, 3, H, W) to the class token's output (B, dim); patches of 8 x 8 pixels."""

    def __init__(self, dim: int, depth: int):
        super().__init__()
        self.embed, self.norm = nn.Linear(8 * 8 * 3, dim), nn.LayerNorm(dim)
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.pos = nn.Parameter(0.02 * torch.randn(1, 1 + 4 * 4, dim))
        self.blocks = nn.Sequential(*[Block(dim) for _ in range(depth)])

    def tokens(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), self.embed(patchify(x, 8))], dim=1)
        return tokens + interpolate_pos(self.pos, x.shape[2] // 8, x.shape[3] // 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(self.tokens(x)))[:, 0]

# %% id="data" sslcourse={"role": "experiment"}
import copy
import time
from functools import partial

from sslcourse.data import Shapes
from sslcourse.data.augment import Augment
from sslcourse.data.rng import step_generator
from sslcourse.data.views import multi_crop
from sslcourse.nn.dino_head import DINOHead
from sslcourse.train.optim import ema_update

train, test = Shapes("train", size=32).as_images(2000), Shapes("test", size=32).as_images(256)
mild = {"jitter": (0.4, 0.4, 0.2, 0.1), "gray": 0.0, "blur": 0.0}
large, small = Augment(32, scale=(0.5, 1.0), **mild), Augment(16, scale=(0.2, 0.6), **mild)

# %% id="views" sslcourse={"role": "experiment"}
def views(images: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Two large crops (32 pixels) and two small ones (16 pixels) of each image."""
    crops = multi_crop(images, partial(large, generator=generator), partial(small, generator=generator), 2)
    return [crop.to(device) for crop in crops]

watched = large(test.images, generator=step_generator(9, 0)).to(device)  # one crop of images that are not trained on

# %% id="entropies" sslcourse={"role": "experiment"}
def entropies(answers: Tensor) -> tuple[float, float]:
    """Entropy of single answers (mean over images) and of the mean answer; answers (B, K) sum to 1."""
    def entropy(p):
        return -(p * p.clamp_min(1e-12).log()).sum(dim=-1)
    return entropy(answers).mean().item(), entropy(answers.mean(dim=0)).item()

# %% [markdown] id="text-train"
# The training loop, Algorithm 1 of the paper with small crops added. Read it once: which lines are the safeguards? The teacher's
# momentum is 0.95, not the paper's 0.996: with so few steps it has to follow faster.

# %% id="dino" sslcourse={"role": "experiment"}
def dino(tt: float, moves: bool, steps: int, budget: Budget):
    """Train; returns the teacher, its centre, the curve [(step, single, mean)] and the last loss."""
    torch.manual_seed(0)
    student = nn.ModuleDict({"backbone": TinyViT(dim, depth), "head": DINOHead(dim, K, hidden=96, bottleneck=32)}).to(device)
    teacher = copy.deepcopy(student).requires_grad_(False)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    center, curve = torch.zeros(K, device=device), []
    for step in range(steps):
        chosen = torch.randint(len(train), (32,), generator=step_generator(1, step))
        crops = views(train.images[chosen], step_generator(0, step))
        s = multicrop_forward(student["backbone"], student["head"], crops)
        t = multicrop_forward(teacher["backbone"], teacher["head"], crops[:2])
        loss = dino_loss(list(s.chunk(4)), list(t.chunk(2)), center, 0.1, tt)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema_update(student, teacher, 0.95)
        if moves:
            center = update_center(center, t)
        over = budget.is_over(f"step {step} of {steps}")
        if step % 10 == 0 or step == steps - 1 or over:
            logits = teacher["head"](teacher["backbone"](watched))
            curve.append((step, *entropies(((logits - center) / tt).softmax(dim=-1))))
        if over:
            break
    return teacher, center, curve, loss.item()

# %% [markdown] id="text-run"
# Twenty steps are timed first, so that a slower machine takes fewer steps, the same number in all four arms, but never fewer than
# 100: before that the arms have not parted. The budget stops a training that takes over a minute, and says so.

# %% id="run" sslcourse={"role": "experiment"}
dino(*ARMS["both"], steps=2, budget=Budget(20))  # the first steps load what the others find in place
start = time.perf_counter()
dino(*ARMS["both"], steps=20, budget=Budget(20))
steps = most_steps if BIG else max(100, min(most_steps, int(20 * 26 / (time.perf_counter() - start))))
print(f"{steps} steps in each arm")

trained = {arm: dino(*setting, steps, Budget(600 if BIG else 75)) for arm, setting in ARMS.items()}
result = {}
for arm, (_, _, curve, loss) in trained.items():
    last, single, mean = curve[-1]
    result |= {f"{arm}: single answer": single, f"{arm}: mean answer": mean, f"{arm}: loss": loss}
    print(f'{arm}: predicted "{prediction[arm]}"; single {single:.2f}, mean {mean:.2f}, loss {loss:.2f}')
    if last < 79:
        print("Fewer than 80 steps: the first collapse is not finished. Close other programs and run this cell again.")
lowest = min(trained, key=lambda arm: trained[arm][3])
print(f'lowest loss: predicted "{prediction["lowest_loss"]}"; measured "{lowest}"')
record_result("centering", result, show=False)

# %% [markdown] id="text-figure"
# ### Your figure
# Draw the two entropies over the training steps, for all four arms, so that one look tells the three endings apart. Name the
# axes, mark $\ln 64$, and write on the figure where "one output" and "uniform" are.
#
# You have `trained[arm]`, which holds teacher, centre, curve and loss; a curve is a list of `(step, single, mean)`.

# %% nbgrader={"grade": true, "grade_id": "figure", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "open"}
### BEGIN SOLUTION
import matplotlib.pyplot as plt

fig, axes = plt.subplots(1, 4, figsize=(13, 3.4), sharey=True, layout="constrained")
for ax, arm in zip(axes, ARMS, strict=True):
    at, single, mean = zip(*trained[arm][2], strict=True)
    ax.plot(at, single, label="single answer")
    ax.plot(at, mean, "--", label="mean answer")
    ax.axhline(math.log(K), color="grey", lw=0.8)
    ax.set(title=arm, xlabel="training step", ylim=(-0.15, 4.6))
axes[0].set_ylabel("entropy (nats)")
axes[0].legend(loc="lower left")
axes[1].annotate("one output", (at[-1], 0.1), ha="right")
axes[2].annotate("uniform: ln 64", (at[-1], math.log(K) + 0.1), ha="right")
plt.show()
### END SOLUTION

# %% [markdown] nbgrader={"grade": true, "grade_id": "explain-gap", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "open"}
# **Explain the gap.** Where were you wrong, and why? If nothing surprised you: which arm were you least sure of, and why?
# What does the loss tell about the four runs, and what does it hide? Use the numbers above and one thing that you see in
# your figure (3 to 6 sentences).
#
# ### BEGIN SOLUTION
# A full answer (5) compares each predicted ending with the measured one (or says what made the least sure one doubtful) and
# explains both collapses. Sharpening alone: a
# temperature of 0.04 makes the answers peaked, the student copies the peak, the teacher follows, and nothing ever moves the
# peak: one output for all images, both entropies near 0. Centering alone, or neither: a teacher that is softer than its student
# asks for flatter answers at every step, until they are uniform, both entropies near ln 64. Both: the centre takes from
# every output what it gets too often, the temperature keeps single answers peaked, and the gap between the curves
# stays open. The loss is lowest where everything has collapsed to one output (a constant is easily predicted), so it cannot be
# used to choose among the runs. 3: right, but without the figure or without the numbers. 0: repeats the numbers only.
# ### END SOLUTION

# %% [markdown] id="text-twin"
# ### Move the temperature yourself
# The logits that your trained teacher gives to the test images, sharpened by another $\tau_t$ (nothing is trained here). The
# information, the gap between the two entropies, grows all the way to the left. Why is that no reason to train with
# $\tau_t = 0.003$? (No answer to hand in; chapter 6 asks it again among its exercises, with a solution.)

# %% id="twin" sslcourse={"role": "experiment"}
from ipywidgets import FloatLogSlider, interact

teacher, center, _, _ = trained["both"]
logits = teacher["head"](teacher["backbone"](watched))

@interact(tt=FloatLogSlider(0.04, min=-2.5, max=0.5, step=0.1))
def look(tt):
    single, mean = entropies(((logits - center) / tt).softmax(dim=-1))
    print(f"single {single:.2f}   mean {mean:.2f}   information {mean - single:.2f} of {math.log(K):.2f}")

# %% [markdown] id="text-look"
# ### What does your teacher look at?
# The last block's map, your masks, and `unpatchify` to paint them: below each crop what each of the three heads keeps. Sixteen
# patches and a few minutes of training make coarse masks; the question below is about large networks.

# %% id="look" sslcourse={"role": "experiment"}
import matplotlib.pyplot as plt

net = teacher["backbone"]
*first, last = net.blocks
with torch.no_grad():
    tokens = nn.Sequential(*first)(net.tokens(watched[:8]))
    _, look = attention(last.norm1(tokens), last.wqkv, last.n_heads, return_map=True)
masks = attn_to_mask(look, (4, 4)).flatten(2)[..., None].float()  # (8, heads, 16, 1)
shown = (watched[:8] - watched.min()) / (watched.max() - watched.min())
kept = [unpatchify(patchify(shown, 8) * m + 1 - m, 8, 4, 4) for m in masks.unbind(1)]  # white elsewhere
rows = [torch.cat(list(images), dim=-1) for images in (shown, *kept)]  # each (3, 32, 8 * 32)
plt.figure(figsize=(10, 5))
plt.imshow(torch.cat(rows, dim=1).permute(1, 2, 0).cpu())
plt.axis("off")
plt.show()

# %% [markdown] nbgrader={"grade": true, "grade_id": "open-question", "locked": false, "points": 15, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "open"}
# ## 10. Open question
# *Difficulty 4, importance 4, 20 minutes, 15 points. Graded 0 / 5 / 10 / 15.*
#
# In the last block of a DINO ViT the class token looks at the object. In the same ViT, trained with labels, it does so much
# less (Jaccard 45.9 against 27.3; a random network 22.0). Give **two** explanations for the difference, and describe
# **one experiment** that would tell them apart: what is trained, what is kept equal, what is measured, and which result would
# speak for which explanation.
#
# ### BEGIN SOLUTION
# 15: two explanations with different causes, such as (a) the objective: labels need only the most telling part (a beak), while
# agreement over crops rewards whatever the crops share, the object; (b) multi-crop: small-to-large matching makes the class
# token find the object, whatever the loss; (c) supervision lets the class token gather evidence in earlier blocks, so the last
# block has nothing left to look for; (d) augmentation or length of training differ. And an experiment that changes one of them only,
# e.g. supervised training with the same crops, schedule and network (a against b), or the masks of every block and not only the
# last (c); Jaccard on images with masks, best head and mean over heads, several seeds, and what each result would mean.
# 10: two explanations and an experiment that does not separate them (changes two things). 5: one explanation, or a list
# without an experiment. 0: "labels are worse", or nothing.
# ### END SOLUTION
