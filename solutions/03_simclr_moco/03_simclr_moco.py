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
# # Lab 3: SimCLR and MoCo, from two views to a representation
#
# You take two random views of every image, and teach a network to tell which views belong together. No label is used.
# In the first half you train SimCLR **with the loss that you wrote**, and find out what its temperature does. In the second
# half you build what MoCo puts in the place of a large batch: a queue of keys and an encoder that moves slowly.
#
# | | |
# |---|---|
# | **You need** | tensors, broadcasting, `backward()`; the chapters *SimCLR* and *MoCo* |
# | **Time** | 3 hours, best in two sittings (SimCLR, then MoCo); every exercise says how many minutes |
# | **Points** | 100: functions 70, prediction and experiment 15, open question 15 |
#
# How it works: fill in a function, run the check below it, go on when it passes. A check looks at a few public examples;
# grading looks at more properties (gradients, extreme temperatures, odd sizes) and gives points for each one. Every exercise
# is graded **on its own**, with the course's version of the earlier ones. So if you are stuck, borrow and move on:
# `from sslcourse.losses.infonce import cosine_similarity_matrix` in a new cell, for instance.
#
# - Difficulty and importance go from 1 to 5.
# - Stuck? `hint("nt_xent", 1)` opens a first hint; levels 2 and 3 say more. Hints cost nothing.
# - Write helper functions and imports **inside** the exercise's cell: the grader runs that cell alone.
# - Before you hand in, save the notebook and run, in a terminal in the course's folder,
#   `.venv/bin/sslcourse check labs/03_simclr_moco/03_simclr_moco.ipynb`.

# %% id="preamble" sslcourse={"role": "preamble"}
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# %% id="tools"
from sslcourse.lab import Budget, hint, predict, record_result

hint()

# %% [markdown] id="notation"
# # SimCLR
#
# A batch has $N$ images. Two views of each make $2N$ embeddings, stacked as
#
# $$z = [\,\underbrace{z_0, \dots, z_{N-1}}_{\text{first views}},\ \underbrace{z_N, \dots, z_{2N-1}}_{\text{second views}}\,].$$
#
# So the **positive** of row $i$ is row $i + N$ (or $i - N$), and every other row is a negative. We climb to the loss
# in four steps: similarity, views, masks, loss.

# %% [markdown] id="text-cosine"
# ## 1. Cosine similarity, all pairs at once
# *Difficulty 1, importance 4, 10 minutes, 4 points.*
#
# How alike are two embeddings? SimCLR looks only at their direction:
# $\;s(a, b) = \dfrac{a \cdot b}{\lVert a\rVert\,\lVert b\rVert}$.
# Return the whole table of pairs. `F.normalize` is allowed; `F.cosine_similarity` is not: it is the answer, and the grader
# refuses it.

# %% nbgrader={"grade": false, "grade_id": "cosine_similarity_matrix", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.losses.infonce:cosine_similarity_matrix", "banned": ["cosine_similarity", "CosineSimilarity"]}
def cosine_similarity_matrix(a: Tensor, b: Tensor | None = None) -> Tensor:
    """Cosine similarity of every row of `a` with every row of `b`.

    a: (N, D) float.   b: (M, D) float, or None to compare `a` with itself.
    returns: (N, M), in [-1, 1]; a row of zeros has similarity 0 with everything.

    Example: a = [[3, 4]], b = [[4, 3], [0, -2]]  ->  [[0.96, -0.80]]
    """
    ### BEGIN SOLUTION
    b = a if b is None else b
    a = F.normalize(a, dim=1)
    b = F.normalize(b, dim=1)
    return a @ b.T
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-cosine_similarity_matrix", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "cosine_similarity_matrix"}
s = cosine_similarity_matrix(torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0], [0.0, -2.0]]))
assert isinstance(s, Tensor), f"return a tensor, not a {type(s).__name__}"
assert s.shape == (1, 2), f"1 row against 2 rows is a (1, 2) table, yours is {tuple(s.shape)}"
assert torch.allclose(s, torch.tensor([[0.96, -0.80]])), f"expected [[0.96, -0.80]], got {s.tolist()}: are both sides of unit length?"

s = cosine_similarity_matrix(torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))
assert s.shape == (3, 3), f"b=None compares a with itself: expected (3, 3), got {tuple(s.shape)}"
assert abs(s[0, 0] - 1) < 1e-6, f"a row is exactly as similar to itself as possible: expected 1, got {s[0, 0]:.3f}"
assert abs(s[0, 1] - 0.7071) < 1e-3, f"rows 0 and 1 meet at 45 degrees: expected 0.7071, got {s[0, 1]:.4f}; which length divides which row?"
assert s[2].abs().max() == 0, "a row of zeros has no direction: its similarities are 0, not NaN"
print("cosine_similarity_matrix: the public checks pass")

# %% [markdown] id="text-two_views"
# ## 2. Two views
# *Difficulty 1, importance 5, 5 minutes, 8 points.*
#
# `t` is a random transform: **every call draws new random numbers**, one set for each image of the batch. A view of a
# batch is what one call returns. Two lines are enough; the point is which two.

# %% nbgrader={"grade": false, "grade_id": "two_views", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.data.views:two_views"}
def two_views(x: Tensor, t) -> tuple[Tensor, Tensor]:
    """Two independent random views of the same batch.

    x: (B, C, H, W) images of any dtype.   t: random transform of a batch, Tensor -> Tensor.
    returns: two tensors, each what one call of `t` on `x` returns.

    Example: x = [10], and t adds 1 when first called and 2 when called again  ->  ([11], [12])
    """
    ### BEGIN SOLUTION
    v1 = t(x)
    v2 = t(x)
    return v1, v2
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-two_views", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "two_views"}
calls = []
def count_up(x):
    calls.append(x.clone())
    return x + len(calls)

views = two_views(torch.tensor([10.0, 20.0]), count_up)
assert isinstance(views, tuple), f"return two tensors with a comma between them, not a {type(views).__name__}"
assert all(x.shape == (2,) for x in calls), "t takes the whole batch at once and draws for each image itself: no loop over images"
assert len(calls) == 2, f"one call makes one view, so two are needed; t was called {len(calls)} time(s)"
assert calls[1].tolist() == [10, 20], f"the second view is a view of x, [10, 20], but t was given {calls[1].tolist()}"
assert [v.tolist() for v in views] == [[11, 21], [12, 22]], f"expected ([11, 21], [12, 22]), got {[v.tolist() for v in views]}"
print("two_views: the public checks pass")

# %% [markdown] id="text-masks"
# ## 3. Masks: who is compared with whom
# *Difficulty 2, importance 4, 10 minutes, 4 points.*
#
# Every view is an anchor once. Anchor $i$ with its positive $j$ has the loss (Chen et al. 2020, Eq. 1)
#
# $$\ell_i = -\log \frac{\exp(s_{ij}/\tau)}{\sum_{k \ne i} \exp(s_{ik}/\tau)}, \qquad
# L = \frac{1}{2N}\sum_{i=0}^{2N-1} \ell_i .$$
#
# The equation asks two questions of every pair $(i, k)$: is $k$ the positive of $i$? May $k$ stand in the denominator?
# Answer them for all pairs at once, as two tables of `True` and `False`.

# %% nbgrader={"grade": false, "grade_id": "nt_xent_masks", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.losses.infonce:nt_xent_masks"}
def nt_xent_masks(n: int) -> tuple[Tensor, Tensor]:
    """Positives and candidates of a batch laid out as [first views; second views].

    n: number of images, >= 1.
    returns: positive (2n, 2n) bool, True where the column is the other view of the row's image;
        candidates (2n, 2n) bool, True where the column may stand in the row's denominator.

    Example: n = 1  ->  positive = [[F, T], [T, F]], candidates = [[F, T], [T, F]]
    """
    ### BEGIN SOLUTION
    self_pairs = torch.eye(2 * n, dtype=torch.bool)
    positive = self_pairs.roll(n, dims=1)
    candidates = ~self_pairs
    return positive, candidates
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-nt_xent_masks", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "nt_xent_masks"}
positive, candidates = nt_xent_masks(2)
assert positive.dtype == candidates.dtype == torch.bool, f"masks are bool, got {positive.dtype} and {candidates.dtype}"
assert positive.shape == candidates.shape == (4, 4), f"2 images make 4 views, so (4, 4); got {tuple(positive.shape)}"
assert positive.sum(1).tolist() == [1] * 4, f"every row has one positive, yours have {positive.sum(1).tolist()}"
assert positive[0, 2], "views 0 and 2 show the same image: row i needs column i + n"
assert positive[3, 1], "views 3 and 1 show the same image: row i + n needs column i"
assert candidates.sum(1).tolist() == [3] * 4, f"a view is compared with all others, the positive included: 3 a row, not {candidates.sum(1).tolist()}"
assert not candidates.diagonal().any(), "the one that is left out of a row is the view itself: the diagonal is False"
print("nt_xent_masks: the public checks pass")

# %% [markdown] id="text-nt_xent"
# ## 4. NT-Xent
# *Difficulty 3, importance 5, 30 minutes, 14 points.*
#
# Now the equation of exercise 3 for all anchors at once, from your similarity matrix and your masks. A batch of 512
# images has a million pairs, so a Python loop over them would not train. Two things to take care of:
# at $\tau = 0.01$ a logit is 100 and $e^{100}$ overflows (what does `torch.logsumexp` do about it?), and a candidate
# that is masked out has to contribute **nothing**, so $e^0 = 1$ is too much.

# %% nbgrader={"grade": false, "grade_id": "nt_xent", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.losses.infonce:nt_xent", "uses": ["cosine_similarity_matrix", "nt_xent_masks"], "banned": ["nt_xent_loop", "cosine_similarity"]}
def nt_xent(z1: Tensor, z2: Tensor, tau: float = 0.5) -> Tensor:
    """NT-Xent of a batch, without a loop over anchors.

    z1, z2: (N, D) float, row i of both from image i; not normalised yet.   tau: temperature > 0.
    returns: scalar, mean over the 2N anchors; finite, with a finite gradient, for any tau >= 0.01.

    Example: z1 = z2 = [[1, 0], [0, 1]], tau = 1: every anchor has one similarity 1 (its positive) and two of 0,
    so each loss is -log(e / (e + 1 + 1)) = log(1 + 2/e) = 0.5514. With tau = 0.5 it is log(1 + 2/e^2) = 0.2395.
    """
    ### BEGIN SOLUTION
    logits = cosine_similarity_matrix(torch.cat([z1, z2])) / tau
    positive, candidates = nt_xent_masks(len(z1))
    log_denominator = logits.masked_fill(~candidates, -math.inf).logsumexp(dim=1)
    return (log_denominator - logits[positive]).mean()
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-nt_xent", "locked": true, "points": 14, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "nt_xent"}
z1 = torch.tensor([[3.0, 0.0], [0.0, 2.0]], requires_grad=True)
z2 = torch.eye(2)
loss = nt_xent(z1, z2, 1.0)
assert isinstance(loss, Tensor), f"return a tensor, not a {type(loss).__name__}"
assert loss.shape == (), f"return one number, yours has shape {tuple(loss.shape)}"
assert abs(loss - 0.5514) < 1e-3, (
    f"expected 0.5514, got {loss:.4f}. 1.0064: the diagonal is still in the denominator; 0.7437: it stays as e^0 = 1; "
    "-0.3069: the positive is missing there; 0.3133: only views of the other half are; 0.1672: normalise; "
    "1.1029: the sum over 2N is divided by N; 1.5514: the positive is the wrong row"
)
value = nt_xent(z1, z2)
assert abs(value - 0.2395) < 1e-3, f"without a tau it is 0.5: expected 0.2395, got {value:.4f}. 0.7944: divide by tau, do not multiply"
assert nt_xent(z1, z2, 0.01).isfinite(), "tau = 0.01 overflows: let logsumexp take the exponentials"
assert loss.requires_grad, "the loss is cut off from z1: is there a detach(), an .item() or a new torch.tensor(...)?"
loss.backward()
assert z1.grad.isfinite().all(), "the gradient is not finite"
print("nt_xent: the public checks pass")

# %% [markdown] id="text-predict"
# ## 5. Predict, then run
# *Difficulty 2, importance 5, 35 minutes, 15 points: prediction 5, figure 5, explanation 5.*
#
# You will train one small network three times, about half a minute each, every time with another temperature, on 32-pixel
# `Shapes`. The views keep the whole picture and change its colours. Then kNN (a vote of the 20 nearest neighbours) measures
# how well the features tell ten classes apart on images that the network never saw; guessing scores 0.10. First, what you start from:

# %% id="data" sslcourse={"role": "experiment"}
from sslcourse.data import Shapes
from sslcourse.evaluate import extract_features, knn_accuracy, pixel_features
from sslcourse.nn.convnet import ConvNet

TAUS = (0.02, 0.2, 2.0)
train, test = Shapes("train", size=32).as_images(3000), Shapes("test", size=32).as_images(1000)

# %% id="baselines" sslcourse={"role": "experiment"}
def knn(network: nn.Module) -> float:
    """kNN accuracy of a network's features on the test images."""
    bank, query = extract_features(network, train), extract_features(network, test)
    return knn_accuracy(bank, train.labels, query, test.labels).value

bank, query = pixel_features(train, test)
pixels = knn_accuracy(bank, train.labels, query, test.labels).value
torch.manual_seed(0)
print(f"kNN of raw pixels {pixels:.2f}, of an untrained network {knn(ConvNet()):.2f}")

# %% [markdown] id="text-prediction"
# **Write down what you expect before you run anything below.** A wrong prediction costs nothing: being surprised is what
# you are here for. Fill in the four values.

# %% nbgrader={"grade": false, "grade_id": "prediction", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "predict"}
prediction = {
    "best_tau": None,  # one of TAUS
    "worst_tau": None,  # one of TAUS
    "knn_of_best": None,  # between 0 and 1
    "why": None,  # a sentence
}
### BEGIN SOLUTION
prediction = {
    "best_tau": 0.2,
    "worst_tau": 2.0,
    "knn_of_best": 0.5,
    "why": "A high temperature weighs all negatives alike, so nothing pushes the hard ones away.",
}
### END SOLUTION
predict("temperature", prediction)

# %% nbgrader={"grade": true, "grade_id": "check-prediction", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "prediction"}
assert None not in prediction.values(), "write down your prediction in the cell above, and run it first"
assert {prediction["best_tau"], prediction["worst_tau"]} <= set(TAUS), f"choose both temperatures from {TAUS}"
assert prediction["best_tau"] != prediction["worst_tau"], "the best and the worst temperature cannot be the same one"
assert 0 <= prediction["knn_of_best"] <= 1, "knn_of_best is an accuracy: between 0 and 1"
assert len(prediction["why"].split()) >= 5, "why: say it in a sentence"

# %% [markdown] id="text-train"
# This is Algorithm 1 of the paper, with your two functions in it. Read it once: views, network, head, loss, step.
# Set `USE_REFERENCE = True` to run with the course's functions if yours are not finished (to go back to yours, set it to
# `False` and run the cells with your functions again). Twenty steps are timed first, so that a slower machine takes fewer
# steps, the same number at all three temperatures; the budget stops a training that takes too long all the same, and says so.

# %% id="train" sslcourse={"role": "experiment"}
import time
from functools import partial

from sslcourse.data.augment import Augment
from sslcourse.data.rng import step_generator
from sslcourse.nn.heads import projection_head

USE_REFERENCE = False
if USE_REFERENCE:
    from sslcourse.data.views import two_views
    from sslcourse.losses.infonce import cosine_similarity_matrix, nt_xent

augment = Augment(32, scale=(1.0, 1.0), ratio=(1.0, 1.0), jitter=(0.8, 0.8, 0.8, 0.5), jitter_p=1.0, gray=0.4, blur=0.0, solarize=0.3)

def networks(seed: int) -> tuple[nn.Module, nn.Module]:
    """An untrained network and its projection head."""
    torch.manual_seed(seed)
    return ConvNet(), projection_head(256, 256, 128, layers=2, last_bn=True)

# %% id="simclr" sslcourse={"role": "experiment"}
def simclr(tau: float, steps: int, budget: Budget) -> tuple[nn.Module, nn.Module]:
    """Train with NT-Xent at temperature `tau`; returns the network and its head."""
    network, head = networks(seed=0)
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=8e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        if budget.is_over(f"tau = {tau}, step {step} of {steps}"):
            break
        images = train.images[torch.randint(len(train), (64,), generator=step_generator(1, step))]
        v1, v2 = two_views(images, partial(augment, generator=step_generator(0, step)))
        z1, z2 = head(network(torch.cat([v1, v2]))).chunk(2)
        loss = nt_xent(z1, z2, tau)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network, head

# %% id="run" sslcourse={"role": "experiment"}
start = time.perf_counter()
simclr(TAUS[0], steps=20, budget=Budget(20))
steps = max(20, min(200, int(20 * 32 / (time.perf_counter() - start))))  # 32 seconds a training, or less
print(f"{steps} steps at each temperature")

trained = {tau: simclr(tau, steps, Budget(40)) for tau in TAUS}
accuracy = {tau: knn(network) for tau, (network, _) in trained.items()}
record_result("temperature", {f"kNN at tau = {tau}": value for tau, value in accuracy.items()})

# %% [markdown] id="text-figure"
# ### Your figure
# Take 8 test images, two views of each, and draw the 16 x 16 cosine similarities as a heat map: once with an untrained
# network and head, once after training with the best temperature. Same colour scale for both; name the axes; the eye should find
# the positives at once.
#
# You have `networks(1)` and `trained[tau]`, a network and its head each (call `.eval()` and use `torch.no_grad()`), and
# `partial(augment, generator=step_generator(2, 0))`, a random transform for your `two_views`. Embeddings are `head(network(views))`.

# %% nbgrader={"grade": true, "grade_id": "figure", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "open"}
### BEGIN SOLUTION
import matplotlib.pyplot as plt

untrained = networks(seed=1)
best = max(accuracy, key=accuracy.get)
views = torch.cat(two_views(test.images[:8], partial(augment, generator=step_generator(2, 0))))
fig, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for ax, (network, head), title in zip(axes, (untrained, trained[best]), ("before training", f"after, tau = {best}"), strict=True):
    with torch.no_grad():
        similarity = cosine_similarity_matrix(head(network.eval()(views)))
    picture = ax.imshow(similarity, vmin=-1, vmax=1, cmap="RdBu_r")
    ax.scatter(torch.arange(16).roll(8), torch.arange(16), s=60, facecolors="none", edgecolors="black")
    ax.set(title=title, xlabel="candidate view", ylabel="anchor view")
fig.colorbar(picture, ax=axes, label="cosine similarity")
plt.show()
### END SOLUTION

# %% [markdown] nbgrader={"grade": true, "grade_id": "explain-gap", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "open"}
# **Explain the gap.** Where were you wrong, and why? Use the numbers above and one thing that you see in your figure
# (3 to 6 sentences).
#
# ### BEGIN SOLUTION
# What is seen (three seeds; untrained 0.14, raw pixels 0.44): after 200 steps tau = 0.2 gives 0.43 to 0.53, 0.02 gives 0.18 to
# 0.36 and 2 gives 0.18 to 0.22; after 100 steps (a slower machine) 0.33 to 0.42, 0.12 to 0.15 and 0.19 to 0.22. So 0.2 is best
# in every seed; the other two change places with seed and length, and either is a fair "worst".
#
# A full answer (5) compares each predicted value with the measured one, and explains the temperatures with the softmax weights
# of the negatives: a tiny tau gives all the weight to the one or two nearest negatives, which are often images of the same
# class, and a start that is blind finds every positive buried under some negative (the loss stays above log(2N - 1) for long);
# at tau = 2 even the best positive has a weight only e times that of an opposite view, all negatives count alike, and the views
# hardly find their partners. It points at the figure: after training the two off-diagonal lines of positives are bright, and some
# cells of same-class images are brighter than the rest. Raw pixels are nearly as good as this short training: saying so is a
# good sign. 3: right, but without the figure or without the numbers. 0: repeats the numbers only.
# ### END SOLUTION

# %% [markdown] id="moco"
# # MoCo
#
# SimCLR's negatives are the other views of the batch, so many negatives need a large batch. MoCo keeps the **keys** of earlier
# batches in a queue. The **queries** come from the network $f_q$ that learns, the keys from a second one, $f_k$, that follows
# it slowly, so that keys of different ages still fit together. You write the four pieces.

# %% [markdown] id="text-ema"
# ## 6. The encoder that follows
# *Difficulty 2, importance 5, 15 minutes, 8 points.*
#
# After every step the key encoder moves a little towards the query encoder (He et al. 2020, Eq. 2):
# $\;\theta_k \leftarrow m\,\theta_k + (1 - m)\,\theta_q$.
#
# Change the tensors of `target` **in place**, since the key encoder owns them: in Python `t = ...` only gives the name `t` to
# a new tensor. Batch norm counts its batches in an integer; an average of counters means nothing, so integers are copied.

# %% nbgrader={"grade": false, "grade_id": "ema_update", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.train.optim:ema_update"}
def ema_update(online: list[Tensor], target: list[Tensor], m: float) -> None:
    """target <- m * target + (1 - m) * online, in place and without a gradient.

    online: tensors of the network that learns, such as list(network.parameters()); they stay as they are.
    target: as many tensors of the same shapes, in the same order. Integer tensors become those of `online`.
    m: momentum in [0, 1].   returns: nothing.

    Example: online = [[10, 0]], target = [[0, 10]], m = 0.9  ->  target is now [[1, 9]]
    """
    ### BEGIN SOLUTION
    with torch.no_grad():
        for o, t in zip(online, target, strict=True):
            if t.is_floating_point():
                t.mul_(m).add_((1 - m) * o)
            else:
                t.copy_(o)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-ema_update", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "ema_update"}
online, weight = [torch.tensor([10.0, 0.0], requires_grad=True)], torch.tensor([0.0, 10.0])
assert ema_update(online, [weight], 0.9) is None, "it works in place and returns nothing"
assert weight.tolist() != [0, 10], "the network's own tensor is unchanged: a new one in its place, or in the list, is not enough (t.mul_, t.copy_)"
assert torch.allclose(weight, torch.tensor([1.0, 9.0])), f"expected [1, 9], got {weight.tolist()}; [9, 1]: m and 1 - m are swapped"
assert online[0].tolist() == [10, 0], "online has changed; only target moves"
assert not weight.requires_grad, "target now carries a gradient: work under torch.no_grad()"

count = torch.tensor(3)  # an integer, as batch norm's counter
ema_update([torch.tensor(7)], [count], 0.9)
assert count == 7, f"an integer is copied from online: expected 7, got {count}"
print("ema_update: the public checks pass")

# %% [markdown] id="text-queue"
# ## 7. The queue
# *Difficulty 3, importance 4, 20 minutes, 12 points.*
#
# The queue is a table of $K$ keys, used as a ring: `ptr` is the row of the oldest key, the next batch is written from there on,
# and behind the last row comes the first one again. So nothing ever moves, and a batch may be split by the end of the table.

# %% nbgrader={"grade": false, "grade_id": "queue_enqueue", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.losses.moco:queue_enqueue"}
def queue_enqueue(queue: Tensor, ptr: int, keys: Tensor) -> int:
    """Overwrite the oldest rows of the queue with a batch of keys.

    queue: (K, D) float, changed in place; no gradient may enter it.   ptr: first row to write, 0 <= ptr < K.
    keys: (B, D) float, B <= K. What is stored are their directions (each row divided by its norm), without a gradient.
    returns: the row where the next batch starts, 0 <= ptr < K.

    Example: queue of 3 rows, ptr = 2, keys = [[3, 4], [0, 2]]: [0.6, 0.8] goes to row 2, [0, 1] to row 0  ->  1
    """
    ### BEGIN SOLUTION
    rows = (ptr + torch.arange(len(keys))) % len(queue)
    queue[rows] = F.normalize(keys.detach(), dim=1)
    return (ptr + len(keys)) % len(queue)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-queue_enqueue", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "queue_enqueue"}
queue, keys = torch.zeros(4, 2), torch.tensor([[3.0, 4.0], [0.0, 2.0]], requires_grad=True)
ptr = queue_enqueue(queue, 1, keys)
assert type(ptr) is int, f"return the next row as an int, not a {type(ptr).__name__}"
assert queue.abs().sum() > 0, "the queue is unchanged: write into its rows, queue[...] = ..."
assert not queue.requires_grad, "the queue now carries a gradient: detach the keys"
want = torch.tensor([[0.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.0, 0.0]])
assert torch.allclose(queue, want), f"two keys from row 1 on, each of length 1: expected {want.tolist()}, got {queue.tolist()}"
assert ptr == 3, f"rows 1 and 2 are written, so the next batch starts in row 3; yours in {ptr}"

queue = torch.zeros(3, 2)
ptr = queue_enqueue(queue, 2, keys)  # the example: the end of the table splits this batch
assert torch.allclose(queue[2], torch.tensor([0.6, 0.8])), f"row 2 should hold [0.6, 0.8], the first key; got {queue[2].tolist()}"
assert torch.allclose(queue[0], torch.tensor([0.0, 1.0])), f"behind row 2 comes row 0, for the second key; got {queue[0].tolist()}"
assert queue[1].abs().sum() == 0, "row 1 is not the oldest yet: it stays as it is"
assert ptr == 1, f"the next batch starts in row 1, yours in {ptr}"
print("queue_enqueue: the public checks pass")

# %% [markdown] id="text-moco_logits"
# ## 8. One positive, K negatives
# *Difficulty 3, importance 5, 15 minutes, 12 points.*
#
# Every query chooses among $1 + K$ keys: its own, and those in the queue (He et al. 2020, Eq. 1 and Algorithm 1). Put the positive
# into column 0; then the correct class is 0 for every query, and `F.cross_entropy(logits, labels)` is the loss.
# The gradient flows through the queries alone.

# %% nbgrader={"grade": false, "grade_id": "moco_logits", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.losses.moco:moco_logits"}
def moco_logits(q: Tensor, k: Tensor, queue: Tensor, tau: float = 0.07) -> tuple[Tensor, Tensor]:
    """Logits and labels of the (1 + K)-way choice that MoCo trains.

    q: (B, D) float queries.   k: (B, D) float, k[i] the positive key of q[i]. Neither is normalised yet.
    queue: (K, D) float, keys of length 1.   tau: temperature > 0.
    returns: logits (B, 1 + K) float, cosines over tau with the positive in column 0; labels (B,) int64 zeros.
        The gradient reaches q, not k and not the queue.

    Example: q = [[2, 0]], k = [[3, 4]], queue = [[0, 1], [-1, 0]], tau = 0.5  ->  ([[1.2, 0, -2]], [0])
    """
    ### BEGIN SOLUTION
    q = F.normalize(q, dim=1)
    k = F.normalize(k.detach(), dim=1)
    positive = (q * k).sum(dim=1, keepdim=True)
    negatives = q @ queue.detach().T
    logits = torch.cat([positive, negatives], dim=1) / tau
    labels = torch.zeros(len(q), dtype=torch.long)
    return logits, labels
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-moco_logits", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "moco_logits"}
q = torch.tensor([[2.0, 0.0], [0.0, 1.0]], requires_grad=True)
k = torch.tensor([[3.0, 4.0], [0.0, 5.0]], requires_grad=True)
queue = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], requires_grad=True)
out = moco_logits(q, k, queue, 0.5)
assert isinstance(out, tuple), f"return two tensors with a comma between them, not a {type(out).__name__}"
logits, labels = out
assert logits.shape == (2, 3), f"each of 2 queries has 1 positive and 2 keys of the queue: (2, 3), yours is {tuple(logits.shape)}"
assert torch.allclose(logits[0], torch.tensor([1.2, 0.0, -2.0])), f"expected [1.2, 0, -2] for the first query, got {logits[0].tolist()}: positive first, cosines, all over tau"
assert torch.allclose(logits[1], torch.tensor([2.0, 2.0, 0.0])), f"expected [2, 2, 0] for the second query, got {logits[1].tolist()}: q[i] belongs to k[i]"
assert labels.dtype == torch.long, f"labels are class numbers, int64, not {labels.dtype}"
assert labels.tolist() == [0, 0], f"the positive is class 0 for every query, you say {labels.tolist()}"
assert logits.requires_grad, "no gradient reaches q: is there a no_grad() or detach() too many?"
F.cross_entropy(logits, labels).backward()
assert k.grad is None, "a gradient reaches k: the key encoder is not trained; detach its keys"
assert queue.grad is None, "a gradient reaches the queue: its keys are old, nothing trains them; detach it"
value = moco_logits(q, k, queue)[0][0, 0]
assert abs(value - 0.6 / 0.07) < 1e-3, f"without a tau it is 0.07: expected {0.6 / 0.07:.2f}, got {value:.2f}"
print("moco_logits: the public checks pass")

# %% [markdown] id="text-symmetric"
# ## 9. MoCo v3
# *Difficulty 3, importance 3, 10 minutes, 8 points.*
#
# With a batch of thousands MoCo v3 drops the queue: the other keys of the batch are the negatives again. Queries of view 1 look
# for keys of view 2 and the other way round (Chen et al. 2021, Algorithm 1):
#
# $$L = 2\tau\,\bigl[\mathrm{ctr}(q_1, k_2) + \mathrm{ctr}(q_2, k_1)\bigr], \qquad
# \mathrm{ctr}(q, k) = -\frac{1}{N}\sum_i \log\frac{\exp(q_i \cdot k_i/\tau)}{\sum_j \exp(q_i \cdot k_j/\tau)} .$$

# %% nbgrader={"grade": false, "grade_id": "symmetric_moco_v3", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.losses.moco:symmetric_moco_v3"}
def symmetric_moco_v3(q1: Tensor, q2: Tensor, k1: Tensor, k2: Tensor, tau: float = 0.2) -> Tensor:
    """Loss of MoCo v3: both directions, negatives from the batch.

    q1, q2: (N, D) float queries of the two views.   k1, k2: (N, D) float keys of the two views. None is normalised yet.
    tau: temperature > 0.
    returns: scalar. The gradient reaches the queries, not the keys.

    Example: all four are [[1, 0], [0, 1]], tau = 1: each direction is log(1 + 1/e) = 0.3133, the loss 2 * 0.6265 = 1.2530
    """
    ### BEGIN SOLUTION
    def ctr(q, k):
        logits = F.normalize(q, dim=1) @ F.normalize(k.detach(), dim=1).T / tau
        return F.cross_entropy(logits, torch.arange(len(q)))

    return 2 * tau * (ctr(q1, k2) + ctr(q2, k1))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-symmetric_moco_v3", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "symmetric_moco_v3"}
eye = torch.eye(2)
loss = symmetric_moco_v3(eye, eye, eye, eye, 1.0)
assert isinstance(loss, Tensor), f"return a tensor, not a {type(loss).__name__}"
assert loss.shape == (), f"return one number, yours has shape {tuple(loss.shape)}"
assert abs(loss - 1.2530) < 1e-3, f"expected 1.2530, got {loss:.4f}. 0.6265: the factor 2 tau, or one of the two terms, is missing"

q1, k1, k2 = (5 * eye).requires_grad_(), (2 * eye.flip(0)).requires_grad_(), 3 * eye
q2 = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
loss = symmetric_moco_v3(q1, q2, k1, k2, 0.5)
assert abs(loss - 1.2539) < 1e-3, (
    f"four different inputs, tau = 0.5: expected 1.2539, got {loss:.4f}. 3.2539: q1 looks among the keys of view 2, k2, and q2 among k1; "
    "2.0181: normalise; 1.1982: divide by tau, do not multiply; 0.8201: each query chooses among keys"
)
assert loss.requires_grad, "no gradient reaches the queries: is there a no_grad() or detach() too many?"
loss.backward()
assert k1.grad is None, "a gradient reaches the keys: detach them"
print("symmetric_moco_v3: the public checks pass")

# %% [markdown] id="text-moco-run"
# ## 10. MoCo, with your functions
# *Difficulty 2, importance 4, 10 minutes, no points.*
#
# Algorithm 1 of the paper, with three of your functions in it. A query that guesses has the loss $\log(1 + K)$, the dashed line
# of the figure. The network is trained twice: with a slow key encoder, and with $m = 0$, where the keys come from the network of
# the step before. What do you expect of the two losses? Say it before you run anything (no points).

# %% nbgrader={"grade": false, "grade_id": "prediction-momentum", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "experiment"}
expected = {
    "m = 0.99": None,  # "falls below the line", "stays on it" or "rises above it"
    "m = 0.0": None,  # the same
}
### BEGIN SOLUTION
expected = {"m = 0.99": "falls below the line", "m = 0.0": "rises above it"}
### END SOLUTION
predict("momentum", expected)

# %% id="moco-train" sslcourse={"role": "experiment"}
import copy

if USE_REFERENCE:
    from sslcourse.losses.moco import moco_logits, queue_enqueue
    from sslcourse.train.optim import ema_update

def moco(m: float, steps: int, budget: Budget, keys: int = 256, tau: float = 0.5) -> list[float]:
    """Train with a queue of `keys` keys and momentum `m`; returns the loss of every step."""
    query, losses = nn.Sequential(*networks(seed=0)), []
    key = copy.deepcopy(query).requires_grad_(False)
    queue, ptr = F.normalize(torch.randn(keys, 128, generator=step_generator(2, 0)), dim=1), 0
    optimizer = torch.optim.AdamW(query.parameters(), lr=2e-3, weight_decay=1e-3)
    for step in range(steps):
        if budget.is_over(f"m = {m}, step {step} of {steps}"):
            break
        images = train.images[torch.randint(len(train), (64,), generator=step_generator(1, step))]
        x_q, x_k = two_views(images, partial(augment, generator=step_generator(0, step)))
        k = key(x_k)
        loss = F.cross_entropy(*moco_logits(query(x_q), k, queue, tau))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema_update(list(query.parameters()), list(key.parameters()), m)
        ptr = queue_enqueue(queue, ptr, k)
        losses.append(loss.item())
    return losses

# %% id="moco-run" sslcourse={"role": "experiment"}
import matplotlib.pyplot as plt

losses = {m: moco(m, steps, Budget(40)) for m in (0.99, 0.0)}
for m, values in losses.items():
    plt.plot(values, label=f"m = {m}")
plt.axhline(math.log(1 + 256), color="grey", linestyle="--", label="a guess")
plt.xlabel("step")
plt.ylabel("loss")
plt.legend()
plt.show()
last = {f"m = {m}, mean loss of the last 10 steps": sum(values[-10:]) / len(values[-10:]) for m, values in losses.items()}
record_result("momentum", last | {"a guess": math.log(1 + 256)})

# %% [markdown] nbgrader={"grade": true, "grade_id": "open-question", "locked": false, "points": 15, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "open"}
# ## 11. Open question
# *Difficulty 4, importance 4, 20 minutes, 15 points. Graded 0 / 5 / 10 / 15.*
#
# MoCo v3 dropped the queue. Under which budget of memory and batch size would you bring it back? Say what the queue would cost
# or break there, and describe **one measurement** that would tell you whether it helps.
#
# ### BEGIN SOLUTION
# 15: a budget in numbers under which the batch cannot supply the negatives (one GPU, batch 256 and less: 255 negatives against
# thousands in a queue of K x D x 4 bytes, which costs nothing beside the activations); what it costs or breaks (stale keys, hence
# a slow encoder and a second set of weights; keys of the same image in the queue in small datasets; batch-norm leakage); and a
# measurement that changes only the number of negatives (same steps, images and momentum, queue on and off, at least three seeds,
# kNN or linear accuracy with an interval). 10: budget and cost, but the measurement changes more than one thing or has no spread.
# 5: one of the three only. 0: "when the batch is small", or nothing.
# ### END SOLUTION
