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
# # Lab 2: Contrastive losses, hard negatives, mixed images
#
# Pull together what belongs together, push apart the rest. Five losses and two ways to make new examples; you write all
# seven, in the order in which people found them. At the end you measure, **with the loss that you wrote**, which negatives it
# really looks at, and what three of these losses do to sixty points on a circle.
#
# | | |
# |---|---|
# | **You need** | tensors, broadcasting, `backward()`; chapter 2 |
# | **Time** | about 3 hours after the chapter, best in two sittings; every exercise says how many minutes |
# | **Points** | 100: functions 70, prediction and experiment 15, open question 15 |
#
# How it works: fill in a function, run the check below it, go on when it passes. A check looks at a few public examples;
# grading looks at more properties (gradients, tiny temperatures, classes with one member, odd sizes) and gives points for
# each one. Every exercise is graded **on its own**. If you are stuck, move on: the experiment can run with the course's functions.
#
# - Difficulty and importance go from 1 to 5.
# - Stuck? `hint("info_nce", 1)` opens a first hint; levels 2 and 3 say more. Hints cost nothing.
# - Write helper functions and imports **inside** the exercise's cell: the grader runs that cell alone.
# - Before you hand in, save the notebook and run, in a terminal in the course's folder,
#   `.venv/bin/sslcourse check labs/02_contrastive_losses/02_contrastive_losses.ipynb`.

# %% id="preamble" sslcourse={"role": "preamble"}
import math

import torch
import torch.nn.functional as F
from torch import Tensor

# %% id="tools"
from sslcourse.lab import Budget, hint, predict, record_result

hint()

# %% [markdown] id="notation"
# ## The pieces
#
# An **embedding** is a row `z[i]` of a tensor with shape `(N, D)`. A **label** `y[i]` says what it shows; in self-supervised
# learning the label is simply "which image did this view come from". $d_{ij} = \lVert z_i - z_j \rVert$ is a distance. The
# **cosine similarity** of two vectors is their dot product after both were divided by their lengths: 1 if they point the same way,
# -1 if opposite. On vectors of length 1 it is the dot product.
#
# The ladder: pairs, triplets, one positive against many negatives, the same with a temperature (InfoNCE); then two ways to
# care about *hard* negatives, weighing them and making new ones; last, mixing images instead of embeddings.

# %% [markdown] id="text-chopra"
# ## 1. Pairs
# *Difficulty 1, importance 3, 10 minutes, 8 points.*
#
# The oldest form (Chopra et al. 2005; this is Hadsell et al. 2006 without the factor 1/2). A pair that belongs together pays
# its squared distance. A pair that does not pays only while it is **nearer than a margin** $m$:
#
# $$L = \operatorname{mean}\bigl(\,b\,d^2 + (1 - b)\,\max(0,\ m - d)^2\,\bigr), \qquad b = 1 \text{ if the pair belongs together, else } 0 .$$
#
# In code $b$ is `same`. It may come as 0/1 or as `True`/`False`. PyTorch refuses `1 - same` for the latter: convert first.

# %% nbgrader={"grade": false, "grade_id": "chopra_contrastive", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.losses.pairwise:chopra_contrastive"}
def chopra_contrastive(d: Tensor, same: Tensor, margin: float = 1.0) -> Tensor:
    """Contrastive loss of pairs, given their distances.

    d: (P,) float distances, >= 0.   same: (P,) bool or 0/1, true where the pair belongs together.   margin: > 0.
    returns: scalar, mean over all P pairs.

    Example: d = [0.5, 0.2, 2.0], same = [1, 0, 0], margin = 1  ->  (0.25 + 0.64 + 0) / 3 = 0.2967
    """
    ### BEGIN SOLUTION
    same = same.to(d.dtype)
    attract = d.pow(2)
    repel = F.relu(margin - d).pow(2)
    return (same * attract + (1 - same) * repel).mean()
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-chopra_contrastive", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "chopra_contrastive"}
d = torch.tensor([0.5, 0.2, 2.0], requires_grad=True)
loss = chopra_contrastive(d, torch.tensor([1, 0, 0]), 1.0)
assert isinstance(loss, Tensor), f"return a tensor, not a {type(loss).__name__}"
assert loss.shape == (), f"return the mean over the pairs, one number; yours has shape {tuple(loss.shape)}"
assert abs(loss - 0.2967) < 1e-3, (
    f"expected 0.2967, got {loss:.4f}. 1.4300: same and different are swapped; 0.6300: a far negative pays, too; "
    "0.4033 or 0.3905: the margin is compared with the squared distance; 0.3500: the hinge is not squared."
)
assert abs(chopra_contrastive(d, torch.tensor([True, False, False])) - 0.2967) < 1e-3, "same may be of type bool, and the margin is 1 if none is given"
loss.backward()
assert d.grad[2] == 0, "a negative beyond the margin is left alone: its gradient is 0"
print("chopra_contrastive: the public checks pass")

# %% [markdown] id="text-triplet"
# ## 2. Triplets, the hardest of the batch
# *Difficulty 3, importance 3, 30 minutes, 12 points.*
#
# A pair needs an absolute margin. A **triplet** only asks that the positive is nearer than the negative, by a margin. A batch
# has very many triplets and most are solved already, so each anchor $a$ takes its hardest positive and its hardest negative
# (Hermans et al. 2017, Eq. 5):
#
# $$L = \operatorname{mean}_a\ \max\bigl(0,\ m + \max_{p:\ y_p = y_a,\ p \ne a} d_{ap} - \min_{n:\ y_n \ne y_a} d_{an}\bigr).$$
#
# Two traps. An anchor without any positive, or without any negative, has no triplet: it does not count, not even as a 0. And
# the square root has an infinite slope at 0: every point is at distance 0 from itself, which is enough to make the whole
# gradient NaN even if you mask those entries afterwards. Replace the zeros by 1 *before* the root (`torch.where`) and put the 0
# back afterwards, or clamp the squares at 1e-12.

# %% nbgrader={"grade": false, "grade_id": "batch_hard_triplet", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.losses.pairwise:batch_hard_triplet", "banned": ["triplet_margin_loss", "TripletMarginLoss", "triplet_margin_with_distance_loss"]}
def batch_hard_triplet(z: Tensor, y: Tensor, margin: float = 0.2) -> Tensor:
    """Triplet loss with the hardest positive and the hardest negative of every anchor.

    z: (N, D) float embeddings, taken as they are.   y: (N,) int labels.   margin: >= 0.
    returns: scalar, mean over the anchors that have a positive and a negative (solved ones count as 0);
        if there is no such anchor, a 0 that still has a graph (z.sum() * 0), so that backward() works.

    Example: z = [[0], [1], [1.5], [4]], y = [0, 0, 1, 1]. Hardest positives are 1, 1, 2.5, 2.5 away, hardest negatives
    1.5, 0.5, 0.5, 3; with margin 0.2 the anchors pay 0, 0.7, 2.2, 0  ->  0.725
    """
    ### BEGIN SOLUTION
    squared = (z[:, None] - z[None]).pow(2).sum(dim=2)
    apart = squared > 0
    d = torch.where(apart, squared, 1.0).sqrt() * apart
    equal = y[:, None] == y
    positive = equal & ~torch.eye(len(y), dtype=torch.bool, device=y.device)
    hardest_positive = d.masked_fill(~positive, -math.inf).amax(dim=1)
    hardest_negative = d.masked_fill(equal, math.inf).amin(dim=1)
    counts = positive.any(dim=1) & (~equal).any(dim=1)
    losses = F.relu(margin + hardest_positive[counts] - hardest_negative[counts])
    return losses.mean() if len(losses) else z.sum() * 0
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-batch_hard_triplet", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "batch_hard_triplet"}
z = torch.tensor([[0.0], [1.0], [1.5], [4.0]], requires_grad=True)
loss = batch_hard_triplet(z, torch.tensor([0, 0, 1, 1]))
assert isinstance(loss, Tensor), f"return a tensor, not a {type(loss).__name__}"
assert loss.shape == (), f"return one number, yours has shape {tuple(loss.shape)}"
assert abs(loss - 0.725) < 1e-3, (
    f"expected 0.725, got {loss:.4f}. 1.4500: solved anchors count as 0, they are not left out; 1.9500: something that is "
    "no negative has distance 0 and wins the minimum (mask with infinity); 0.3000: the furthest negative was taken."
)
loss.backward()
assert z.grad.isfinite().all(), "the gradient is NaN: sqrt(0), a point's distance to itself, has an infinite slope"

alone = torch.tensor([[0.0], [1.0], [1.5], [4.0], [1.2]])
loss = batch_hard_triplet(alone, torch.tensor([0, 0, 1, 1, 2]))
assert abs(loss - 0.85) < 1e-3, f"the fifth point has no positive: it is a negative of the others, no anchor; expected 0.85, got {loss:.4f}"
lonely = batch_hard_triplet(alone.requires_grad_(), torch.zeros(5, dtype=torch.long))
assert lonely == 0, f"one class only, no negatives: the loss is 0, yours is {lonely:.4f}"
assert lonely.requires_grad, "make this 0 from z (z.sum() * 0), so that backward() works"
print("batch_hard_triplet: the public checks pass")

# %% [markdown] id="text-n_pair"
# ## 3. One positive, N - 1 negatives at once
# *Difficulty 2, importance 3, 10 minutes, 7 points.*
#
# Why compare with one negative at a time? With $N$ anchors $a_i$ and their positives $p_i$, each of another class, let
# every anchor **classify** which of the $N$ positives is its own (Sohn 2016). The logits are plain dot products:
#
# $$L = \operatorname{mean}_i\Bigl(-\log\frac{\exp(a_i^\top p_i)}{\sum_j \exp(a_i^\top p_j)}\Bigr) + \lambda\,\operatorname{mean}\lVert\cdot\rVert^2 ,$$
#
# where the last mean runs over all $2N$ embeddings. It is there because nothing is normalised: longer vectors alone would
# lower the loss. `F.cross_entropy` is welcome.

# %% nbgrader={"grade": false, "grade_id": "n_pair", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.losses.pairwise:n_pair"}
def n_pair(a: Tensor, p: Tensor, l2: float = 0.0) -> Tensor:
    """N-pair loss with its regulariser.

    a: (N, D) float anchors.   p: (N, D) float positives, p[i] belongs to a[i].   l2: weight of the mean squared norm.
    returns: scalar.

    Example: a = [[2, 0], [0, 1]], p = [[1, 0], [1, 1]]: the logits are [[2, 2], [0, 1]], so the loss is the mean of
    log 2 and log(1 + e^-1), 0.5032; the squared norms are 4, 1, 1, 2, so l2 = 0.1 adds 0.2.
    """
    ### BEGIN SOLUTION
    logits = a @ p.T
    labels = torch.arange(len(a), device=a.device)
    lengths = torch.cat([a, p]).pow(2).sum(dim=1)
    return F.cross_entropy(logits, labels) + l2 * lengths.mean()
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-n_pair", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "n_pair"}
a, p = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]], requires_grad=True)
loss = n_pair(a, p)
assert isinstance(loss, Tensor), f"return a tensor, not a {type(loss).__name__}"
assert loss.shape == (), f"return one number, yours has shape {tuple(loss.shape)}"
assert abs(loss - 0.5032) < 1e-3, (
    f"expected 0.5032, got {loss:.4f}. 0.7201: each positive picks its anchor, it should be the other way round; "
    "0.4791: the lengths were normalised away; 1.0064: this is the sum."
)
assert abs(n_pair(a, p, 0.1) - 0.7032) < 1e-3, (
    f"with l2 = 0.1 expected 0.5032 + 0.2, got {n_pair(a, p, 0.1):.4f}: mean over the 2N embeddings of the *squared* length"
)
assert loss.requires_grad, "the gradient is lost: build the loss from tensors, without .item() or torch.tensor(...)"
print("n_pair: the public checks pass")

# %% [markdown] id="text-info_nce"
# ## 4. InfoNCE
# *Difficulty 3, importance 5, 35 minutes, 15 points.*
#
# The same classification on the unit sphere, with a temperature: for a query $q$, its positive key $k$ and the candidates
# $C$ (the positive **and** the negatives),
#
# $$\ell = -\log\frac{\exp(q^\top k / \tau)}{\sum_{c \in C}\exp(q^\top c / \tau)}, \qquad \text{all vectors of length 1.}$$
#
# Where do negatives come from? Three cases, one function:
#
# | `negs` | negatives of query $i$ |
# |---|---|
# | `None` | the other keys of the batch, `k[j]` with $j \ne i$ |
# | `(M, D)` | these M vectors for every query (MoCo keeps such vectors from earlier batches in a queue) |
# | `(N, M, D)` | its own M vectors, `negs[i]` |
#
# Given negatives *replace* those of the batch. Build a table of logits with one row per query, say in which column the
# positive stands, and let `F.cross_entropy` take the exponentials: at $\tau = 0.01$ they overflow if you do.

# %% nbgrader={"grade": false, "grade_id": "info_nce", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.losses.infonce:info_nce"}
def info_nce(q: Tensor, k: Tensor, negs: Tensor | None = None, tau: float = 0.1) -> Tensor:
    """InfoNCE of queries against keys.

    q: (N, D) float queries.   k: (N, D) float keys, k[i] is the positive of q[i]; neither is normalised yet.
    negs: None, (M, D) or (N, M, D), see the table above; not normalised yet.   tau: temperature > 0.
    returns: scalar, mean over the N queries.

    Example: q = [[1, 0]], k = [[3, 0]], negs = [[0, 2], [-1, 0]], tau = 1: the similarities are 1 (positive), 0 and -1,
    so the loss is -log(e / (e + 1 + 1/e)) = 0.4076.
    """
    ### BEGIN SOLUTION
    q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)
    if negs is None:
        logits = q @ k.T
        positive = torch.arange(len(q), device=q.device)
    else:
        negs = F.normalize(negs, dim=-1)
        to_positive = (q * k).sum(dim=1, keepdim=True)
        to_negatives = q @ negs.T if negs.ndim == 2 else torch.einsum("nd,nmd->nm", q, negs)
        logits = torch.cat([to_positive, to_negatives], dim=1)
        positive = torch.zeros(len(q), dtype=torch.long, device=q.device)
    return F.cross_entropy(logits / tau, positive)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-info_nce", "locked": true, "points": 15, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "info_nce"}
q, k = torch.tensor([[1.0, 0.0]], requires_grad=True), torch.tensor([[3.0, 0.0]])
negs = torch.tensor([[0.0, 2.0], [-1.0, 0.0]])
loss = info_nce(q, k, negs, 1.0)
assert isinstance(loss, Tensor), f"return a tensor, not a {type(loss).__name__}"
assert loss.shape == (), f"return one number, yours has shape {tuple(loss.shape)}"
assert abs(loss - 0.4076) < 1e-3, f"expected 0.4076, got {loss:.4f}. 0.0659: normalise k; -0.6867: the positive is missing below the fraction bar"

eye, negs = torch.eye(2), torch.tensor([[-1.0, 0.0], [0.0, 2.0]])
shared, own = info_nce(eye, 5 * eye, negs, 1.0), info_nce(eye, 5 * eye, torch.stack([negs, -negs]), 1.0)
assert abs(shared - 0.6348) < 1e-3, f"two queries, negs (M, D): expected 0.6348, got {shared:.4f}. In which column does *your* table hold the positive?"
assert abs(own - 0.4076) < 1e-3, f"negs (N, M, D): expected 0.4076, got {own:.4f}. Row i holds the negatives of query i alone"
batch = info_nce(eye, 5 * eye, tau=0.5)
assert abs(batch - 0.1269) < 1e-3, f"two pairs, tau = 0.5: expected log(1 + e^-2) = 0.1269, got {batch:.4f}. 0.7586: the positive is also among the negatives"
assert abs(info_nce(eye, eye.flip(0)) - 10) < 1e-2, f"the wrong key, tau = 0.1 when none is given: expected 10, got {info_nce(eye, eye.flip(0)):.3f}"
assert info_nce(eye, eye.flip(0), tau=0.01).isfinite(), "tau = 0.01 overflows: let F.cross_entropy take the exponentials"
loss.backward()
assert q.grad is not None, "no gradient reaches q: is there a detach() or .item()?"
assert q.grad.isfinite().all(), "the gradient is not finite"
print("info_nce: the public checks pass")

# %% [markdown] id="text-hcl"
# ## 5. Weigh the hard negatives, correct for the false ones
# *Difficulty 4, importance 3, 25 minutes, 10 points.*
#
# Among many negatives a few are **hard** (similar to the anchor), and some of those are **false**: they show the same thing,
# only nobody knows. Robinson et al. (2021) weigh up the first and subtract what the second are expected to contribute. For an
# anchor with the similarity $s_+$ of its positive and $s_1, \dots, s_M$ of its negatives:
#
# $$w_j \propto \exp(\beta s_j/\tau)\ \text{ with mean 1}, \qquad
# N_g = \max\Bigl(\frac{\sum_j w_j e^{s_j/\tau} - \tau_+ M e^{s_+/\tau}}{1 - \tau_+},\ M e^{-1/\tau}\Bigr), \qquad
# \ell = -\log\frac{e^{s_+/\tau}}{e^{s_+/\tau} + N_g} .$$
#
# $\beta$ says how much hardness counts, and $\tau_+$ is the guessed share of false negatives. $N_g$ is the estimated total of the
# *true* negatives: remove the false share, then rescale by $1/(1 - \tau_+)$; the floor $M e^{-1/\tau}$ is the least that $M$
# negatives can contribute. With $\beta = \tau_+ = 0$ this is InfoNCE: a good test. The gradient flows **through the weights, too**.
#
# Write it as it stands first. Then make it survive $\tau = 0.01$. For every anchor choose $c$ as its largest $s/\tau$, positive
# included, and multiply every exponential by $e^{-c}$ (the floor becomes $M e^{-1/\tau - c}$): $\ell$ does not change, and nothing
# overflows. But $P = e^{s_+/\tau - c}$ itself may now become 0, and its logarithm $-\infty$. So do not divide and then take the
# logarithm; write $\ell = \log(P + N_g) - (s_+/\tau - c)$.

# %% nbgrader={"grade": false, "grade_id": "hcl_reweighted", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.losses.negatives:hcl_reweighted"}
def hcl_reweighted(pos: Tensor, neg: Tensor, tau: float = 0.5, beta: float = 1.0, tau_plus: float = 0.1) -> Tensor:
    """InfoNCE with negatives weighed by hardness and corrected for false ones.

    pos: (A,) float cosine similarities of the anchors with their positives.   neg: (A, M) float, with their negatives.
    tau: temperature > 0.   beta: >= 0.   tau_plus: 0 <= tau_plus < 1.
    returns: scalar, mean over the A anchors; finite, with a finite gradient, for any tau >= 0.01.

    Example: pos = [1], neg = [[0, 0.5]], tau = 1, beta = 1, tau_plus = 0: exp(neg) = [1, 1.6487] are also the weights;
    with mean 1 they are [0.7551, 1.2449], so N_g = 0.7551 * 1 + 1.2449 * 1.6487 = 2.8076 and the loss is
    -log(e / (e + 2.8076)) = 0.7094. With beta = 0 it is 0.6803.
    """
    ### BEGIN SOLUTION
    m = neg.shape[1]
    pos, neg = pos / tau, neg / tau
    weights = m * torch.softmax(beta * neg, dim=1)
    shift = torch.maximum(pos, neg.amax(dim=1)).detach()
    positive = (pos - shift).exp()
    negatives = (weights * (neg - shift[:, None]).exp()).sum(dim=1)
    debiased = (negatives - tau_plus * m * positive) / (1 - tau_plus)
    floor = m * (-1 / tau - shift).exp()
    return ((positive + torch.maximum(debiased, floor)).log() - (pos - shift)).mean()
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-hcl_reweighted", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "hcl_reweighted"}
pos, neg = torch.tensor([1.0]), torch.tensor([[0.0, 0.5]], requires_grad=True)
loss = hcl_reweighted(pos, neg, 1.0, 0.0, 0.0)
assert isinstance(loss, Tensor), f"return a tensor, not a {type(loss).__name__}"
assert loss.shape == (), f"return the mean over the anchors, one number; yours has shape {tuple(loss.shape)}"
assert abs(loss - 0.6803) < 1e-3, f"beta = tau_plus = 0 is InfoNCE: expected 0.6803, got {loss:.4f}. 0.3969: the weights have sum 1, not mean 1"
loss = hcl_reweighted(pos, neg, 1.0, 1.0, 0.0)
assert abs(loss - 0.7094) < 1e-3, f"beta = 1: expected 0.7094, got {loss:.4f}. 0.8620: the weights have to have mean 1"
loss = hcl_reweighted(pos, neg, 1.0, 1.0, 0.1)
assert abs(loss - 0.6551) < 1e-3, f"tau_plus = 0.1: expected 0.6551, got {loss:.4f}. 0.8628: the correction is subtracted, not added"
assert abs(hcl_reweighted(pos, 0 * neg - 1, 1.0, 1.0, 0.5) - 0.2395) < 1e-3, "N_g is never below M exp(-1 / tau)"
cold = hcl_reweighted(pos, neg, 0.01)
cold.backward()
assert cold.isfinite(), "tau = 0.01 overflows: subtract the same number from all exponents of an anchor first"
assert neg.grad.isfinite().all(), "the gradient is not finite at tau = 0.01"

pos, neg = torch.tensor([-1.0], requires_grad=True), torch.tensor([[0.5, 1.0]], requires_grad=True)
cold = hcl_reweighted(pos, neg, 0.01)
assert abs(cold - 200.80) < 0.02, f"expected 200.80, got {cold:.2f}. inf: exp(s_+ / tau - c) became 0, so use s_+ / tau - c itself, not its logarithm"
cold.backward()
assert torch.cat([pos.grad, neg.grad[0]]).isfinite().all(), "a gradient is not finite at tau = 0.01 with a far positive"
print("hcl_reweighted: the public checks pass")

# %% [markdown] id="text-mochi"
# ## 6. Make harder ones
# *Difficulty 3, importance 3, 20 minutes, 8 points.*
#
# If hard negatives teach most, why not make some? MoCHi (Kalantidis et al. 2020) takes, for each query, its `n_hard` most
# similar negatives and mixes them on the sphere:
#
# - `s1` times: two hard negatives $h, h'$, both drawn at random from the `n_hard` (they may be the same one): $\ \alpha h + (1 - \alpha) h'$ with $\alpha \in (0, 1)$;
# - `s2` times: a hard negative and the **query**: $\ \beta q + (1 - \beta) h$ with $\beta \in (0, 0.5)$, so that the query never dominates
#   (this $\beta$ is a share; it has nothing to do with that of exercise 5).
#
# Each mixture is then normalised. Every query and every mixture gets its own random partners and its own uniform coefficient.
# The results are data, not a part of the graph: no gradient flows into them. Draw all random numbers from `rng`
# (`torch.rand(..., generator=rng)`, `torch.randint(...)`), in any order you like.

# %% nbgrader={"grade": false, "grade_id": "mochi_synthesize", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.losses.negatives:mochi_synthesize"}
def mochi_synthesize(q: Tensor, negs: Tensor, n_hard: int, s1: int, s2: int, rng: torch.Generator) -> Tensor:
    """Synthetic hard negatives for every query.

    q: (B, D) float queries.   negs: (K, D) float negatives; neither is normalised yet.   rng: CPU generator.
    n_hard: how many of the most (cosine-)similar negatives are used, 1 <= n_hard <= K.
    s1: mixtures of two hard negatives.   s2: mixtures of the query and a hard negative.
    returns: (B, s1 + s2, D) float, unit length, without gradient; the s1 first.

    Example: q = [[1, 0]], negs = [[0, 3], [-1, 0]], n_hard = 1, s1 = s2 = 1: the hardest is [0, 1], so the first mixture
    is [0, 1]; the second is beta * [1, 0] + (1 - beta) * [0, 1], normalised: with beta = 0.4, [0.5547, 0.8321].
    """
    ### BEGIN SOLUTION
    def pick(count: int) -> Tensor:
        chosen = torch.randint(n_hard, (len(q), count), generator=rng)
        return negs[hardest.gather(1, chosen)]

    with torch.no_grad():
        q, negs = F.normalize(q, dim=1), F.normalize(negs, dim=1)
        hardest = (q @ negs.T).topk(n_hard, dim=1).indices
        alpha = torch.rand(len(q), s1, 1, generator=rng)
        beta = 0.5 * torch.rand(len(q), s2, 1, generator=rng)
        between = alpha * pick(s1) + (1 - alpha) * pick(s1)
        towards_query = beta * q[:, None] + (1 - beta) * pick(s2)
        return F.normalize(torch.cat([between, towards_query], dim=1), dim=2)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-mochi_synthesize", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "mochi_synthesize"}
q, negs = torch.tensor([[1.0, 0.0]], requires_grad=True), torch.tensor([[0.0, 3.0], [-1.0, 0.0]])
made = mochi_synthesize(q, negs, 1, 2, 50, torch.Generator().manual_seed(0))
assert isinstance(made, Tensor), f"return a tensor, not a {type(made).__name__}"
assert made.shape == (1, 52, 2), f"1 query, 2 + 50 mixtures, 2 numbers each: (1, 52, 2); yours is {tuple(made.shape)}"
assert (made.norm(dim=2) - 1).abs().max() < 1e-5, "every mixture has length 1: normalise after mixing"
assert torch.allclose(made[0, :2], torch.tensor([0.0, 1.0]), atol=1e-5), f"the only hard negative is [0, 1] (cosine, not dot product), so its mixtures are, too; got {made[0, :2].tolist()}"
assert (made[0, 2:, 0] < made[0, 2:, 1]).all(), "the query must not dominate: beta stays below 0.5"
assert made[0, 2:, 0].std() > 0.05, "every mixture draws its own coefficient"
assert not made.requires_grad, "no gradient flows into the synthetic negatives: torch.no_grad()"
again = mochi_synthesize(q, negs, 1, 2, 50, torch.Generator().manual_seed(0))
assert torch.equal(made, again), "the same generator gives the same mixtures: draw from rng only"
print("mochi_synthesize: the public checks pass")

# %% [markdown] id="text-mixup"
# ## 7. Mix the images
# *Difficulty 3, importance 3, 25 minutes, 10 points.*
#
# Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) make one image of two, and one label of two. Image $i$ is mixed with
# image `perm[i]`, and keeps the share $\lambda_i$:
#
# - `"mixup"`: $\ \lambda x + (1 - \lambda) x'$ in every pixel, and the same for the labels.
# - `"cutmix"`: a box is cut out of $x'$ and pasted into $x$. Its sides are $\sqrt{1 - \lambda}$ of the image's sides, rounded
#   down to whole pixels. **A pixel belongs to the box if its centre lies inside**: pixel $r$ has its centre at $r + 0.5$, the
#   box's centre is at `center` times the side, and the box reaches half its side in each direction. A centre on the edge is not
#   inside, so a box of odd side in the middle of an even image is one pixel smaller. What sticks out of the image is cut off,
#   so the labels take the share of pixels that *really* stayed, not $\lambda$.

# %% nbgrader={"grade": false, "grade_id": "mixup_cutmix", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "library": "sslcourse.data.mixing:mixup_cutmix"}
def mixup_cutmix(x: Tensor, y: Tensor, lam, perm: Tensor, mode: str = "mixup", *, center: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mix every image, and its label, with another image of the batch.

    x: (B, C, H, W) float.   y: (B, K) float class probabilities.   perm: (B,) int64, the partner of every image.
    lam: (B,) float tensor or one Python float, the share of the image itself.   mode: "mixup" or "cutmix".
    center: (B, 2) float in [0, 1], the middle of the box as (down, right); None puts it into the middle of the image.
    returns: mixed images (B, C, H, W) and labels (B, K).

    Example: on 4 x 4 images lam = 0.75 makes a box of 2 x 2 pixels: in the middle it covers rows and columns 1 and 2, and
    12/16 of the label stays. With center = (0, 0) only its lower right quarter, pixel (0, 0), lies inside: 15/16 stays.
    """
    ### BEGIN SOLUTION
    lam = torch.as_tensor(lam, dtype=x.dtype).expand(len(x))
    if mode == "mixup":
        keep = lam[:, None, None, None]
    else:
        middle = torch.full((len(x), 2), 0.5) if center is None else center
        inside = []
        for axis, length in enumerate(x.shape[2:]):
            half = ((1 - lam).sqrt() * length).floor() / 2
            pixels = torch.arange(length) + 0.5
            inside.append((pixels - middle[:, axis, None] * length).abs() < half[:, None])
        box = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        keep = (~box).to(x.dtype)
        lam = keep.mean(dim=(1, 2, 3))
    share = lam[:, None].to(y.dtype)
    return keep * x + (1 - keep) * x[perm], share * y + (1 - share) * y[perm]
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-mixup_cutmix", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "mixup_cutmix"}
x, y, swap = torch.arange(2.0)[:, None, None, None].expand(2, 3, 4, 4), torch.eye(2), torch.tensor([1, 0])
mixed, labels = mixup_cutmix(x, y, 0.75, swap)
assert isinstance(mixed, Tensor), f"return two tensors, the first is a {type(mixed).__name__}"
assert mixed.shape == (2, 3, 4, 4), f"the images keep their shape, yours are {tuple(mixed.shape)}"
assert torch.allclose(mixed[0], torch.tensor(0.25)), f"mixup: 0.75 * 0 + 0.25 * 1 = 0.25 everywhere, got {mixed[0].mean():.3f}"
assert torch.allclose(labels[0], torch.tensor([0.75, 0.25])), f"image 0 keeps 0.75 of its label, got {labels[0].tolist()}"

mixed, labels = mixup_cutmix(x, y, torch.tensor([0.75, 0.75]), swap, "cutmix")
assert mixed[0, 0].sum() == 4, f"lam = 0.75 makes a box of 2 x 2 pixels, yours has {mixed[0, 0].sum():.0f}: sides are sqrt(1 - lam)"
assert mixed[0, 0, 1:3, 1:3].sum() == 4, f"the box lies in the middle, rows and columns 1 and 2; yours:\n{mixed[0, 0].int()}"
assert torch.allclose(labels[0], torch.tensor([0.75, 0.25])), f"12 of 16 pixels stayed: expected [0.75, 0.25], got {labels[0].tolist()}"

mixed, labels = mixup_cutmix(x, y, 0.75, swap, "cutmix", center=torch.zeros(2, 2))
assert mixed[0, 0].sum() == 1, f"at the corner only one pixel of the box lies inside, yours has {mixed[0, 0].sum():.0f}"
assert abs(labels[0, 0] - 15 / 16) < 1e-6, f"15 of 16 pixels stayed, so does that share of the label; got {labels[0, 0]:.4f}"

wide = torch.arange(2.0)[:, None, None, None].expand(2, 3, 4, 6)
mixed, labels = mixup_cutmix(wide, y, 0.0, swap, "cutmix", center=torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
assert mixed[0, 0].sum() == mixed[0, 0, :2, 3:].sum() == 6, f"center = (0, 1) is (down, right), the upper right corner: rows 0, 1 and columns 3, 4, 5; yours:\n{mixed[0, 0].int()}"
assert torch.allclose(labels[0], torch.tensor([0.75, 0.25])), f"18 of 24 pixels stayed: expected [0.75, 0.25], got {labels[0].tolist()}"
print("mixup_cutmix: the public checks pass")

# %% [markdown] id="text-predict"
# ## 8. Predict, then run: the temperature chooses the negatives
# *Difficulty 2, importance 5, 20 minutes, 15 points: prediction 5, figure 5, explanation 5.*
#
# One query, one positive, 1023 random negatives in 128 dimensions (the chapter has 255 in 32). `info_nce` has all of them in
# its sum, but which does it *push*? The length of the gradient at a negative says so: it is proportional to the softmax
# probability (times $\sqrt{1 - s^2}$, because length is taken out: nearly 1 here). If all 1023 got equal pushes, the
# **effective number** of negatives would be 1023; if one got everything, it would be 1 (it is the exponential of the entropy of
# the shares).
#
# Then sixty points on a circle, two views of thirty images, follow the gradient of three losses: `pairs` (exercise 1, all
# pairs, margin 1), `triplet` (exercise 2, margin 0.3) and `info_nce` (exercise 4, $\tau = 0.1$). How well do they spread the
# images over the circle? *Uniformity* measures it: lower is more even, 0 means all in one place.

# %% id="names" sslcourse={"role": "experiment"}
TAUS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
LOSSES = ("pairs", "triplet", "info_nce")

# %% [markdown] id="text-prediction"
# **Write down what you expect before you run anything below.** A wrong prediction costs nothing: being surprised is what
# you are here for. Fill in the four values; `predict` keeps them in `my_record.json` beside the notebook, which you need not
# hand in.

# %% nbgrader={"grade": false, "grade_id": "prediction", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "predict"}
prediction = {
    "negatives_at_0.02": None,  # effective number at tau = 0.02, between 1 and 1023
    "half_at": None,  # the smallest of TAUS at which at least half of the 1023 count
    "least_even": None,  # which of LOSSES spreads the images least evenly
    "why": None,  # a sentence
}
### BEGIN SOLUTION
prediction = {
    "negatives_at_0.02": 3,
    "half_at": 0.2,
    "least_even": "triplet",
    "why": "A small temperature gives all weight to the nearest negatives; a triplet stops pushing beyond its margin.",
}
### END SOLUTION
predict("negatives", prediction)

# %% nbgrader={"grade": true, "grade_id": "check-prediction", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "prediction"}
assert None not in prediction.values(), "write down your prediction in the cell above, and run it first"
assert 1 <= prediction["negatives_at_0.02"] <= 1023, "negatives_at_0.02 is a number of negatives: between 1 and 1023"
assert prediction["half_at"] in TAUS, f"half_at is one of {TAUS}"
assert prediction["least_even"] in LOSSES, f"least_even is one of {LOSSES}"
assert len(prediction["why"].split()) >= 5, "why: say it in a sentence"

# %% [markdown] id="text-run"
# Set `USE_REFERENCE = True` to run with the course's functions if yours are not finished (to go back to yours, set it to
# `False` and run the cells with your functions again). With a GPU, `DEVICE = "cuda"` compares with 65,535 negatives, the
# size of MoCo's queue; your `info_nce` then has to make its labels on `q.device`.

# %% id="setting" sslcourse={"role": "experiment"}
USE_REFERENCE = False
if USE_REFERENCE:
    from sslcourse.losses import batch_hard_triplet, chopra_contrastive, info_nce

# %% id="vectors" sslcourse={"role": "experiment"}
DEVICE = "cpu"
M, D = (1023 if DEVICE == "cpu" else 65_535), 128
generator = torch.Generator().manual_seed(0)
queries, noise = torch.randn(2, 64, D, generator=generator)
keys = queries + 0.5 * noise  # a second view: similar, not equal
negatives = torch.randn(M, D, generator=generator)

# %% id="pushes" sslcourse={"role": "experiment"}
def pushes(i: int, tau: float) -> Tensor:
    """The share of the push that each negative gets from query i: (M,), sum 1."""
    negs = F.normalize(negatives, dim=1).to(DEVICE).requires_grad_()
    info_nce(queries[i : i + 1].to(DEVICE), keys[i : i + 1].to(DEVICE), negs, tau).backward()
    length = negs.grad.norm(dim=1).cpu()
    return length / length.sum()

def effective(share: Tensor) -> float:
    """The effective number of negatives, exp(entropy)."""
    return torch.special.entr(share).sum().exp().item()

# %% id="run-negatives" sslcourse={"role": "experiment"}
budget = Budget(40)
counted = {tau: [effective(pushes(i, tau)) for i in range(64) if not budget.is_over(f"tau = {tau}, query {i}")] for tau in TAUS}
number = {tau: sum(found) / len(found) for tau, found in counted.items() if found}
for tau, found in number.items():
    print(f"tau = {tau}: {found:.1f} of {M} negatives, {found / M:.0%}")
half_at = next((tau for tau, found in number.items() if found >= M / 2), None)
print(f"at 0.02: predicted {prediction['negatives_at_0.02']}, measured {number.get(0.02, math.nan):.1f}")
print(f"half of them count from tau = {half_at} on; predicted {prediction['half_at']}")

# %% id="circle" sslcourse={"role": "experiment"}
from sslcourse.losses import pairwise_distance
from sslcourse.train.monitor import alignment, uniformity

y = torch.arange(30).repeat(2)  # rows 0 to 29 are first views, rows 30 to 59 second views
i, j = torch.triu_indices(60, 60, 1)

# %% id="three-losses" sslcourse={"role": "experiment"}
losses = {
    "pairs": lambda z: chopra_contrastive(pairwise_distance(z, z)[i, j], y[i] == y[j], 1.0),
    "triplet": lambda z: batch_hard_triplet(z, y, 0.3),
    "info_nce": lambda z: info_nce(z[:30], z[30:], tau=0.1),
}

# %% id="follow" sslcourse={"role": "experiment"}
def follow(loss, steps: int = 400) -> Tensor:
    """Sixty points that follow the gradient of a loss around the circle: (60, 2)."""
    generator = torch.Generator().manual_seed(1)
    first = math.pi * torch.rand(30, generator=generator)  # one half of the circle only
    angle = torch.cat([first, first + 0.5 * torch.randn(30, generator=generator)]).requires_grad_()
    optimizer, budget = torch.optim.Adam([angle], lr=0.02), Budget(20)
    for step in range(steps):
        z = torch.stack([angle.cos(), angle.sin()], dim=1)
        if budget.is_over(f"step {step} of {steps}"):
            break
        optimizer.zero_grad()
        loss(z).backward()
        optimizer.step()
    return z.detach()

# %% id="run-circle" sslcourse={"role": "experiment"}
ended = {name: follow(loss) for name, loss in losses.items()}
uniform = {name: uniformity(z[:30]).item() for name, z in ended.items()}
for name, z in ended.items():
    print(f"{name:>8}: partners apart (alignment) {alignment(z[:30], z[30:]):.3f}, uniformity {uniform[name]:.3f}")
even = 2 * math.pi * torch.arange(30) / 30
print(f"perfectly even: uniformity {uniformity(torch.stack([even.cos(), even.sin()], dim=1)):.3f}")
print(f"least even: {max(uniform, key=uniform.get)}; predicted {prediction['least_even']}")
record_result("negatives", {f"negatives_at_{tau:g}": number[tau] for tau in number} | {f"uniformity of {n}": u for n, u in uniform.items()})

# %% [markdown] id="text-figure"
# ### Your figure
# Take query 0. Draw, for three temperatures (0.02, 0.2 and 1), the share of the push of every negative against its cosine
# similarity with the query: one dot a negative, one colour a temperature. The shares differ by many powers of ten: a
# logarithmic axis is a good idea. Name the axes, add a legend and a line at the equal share $1/M$.
#
# You have `similarity` and `pushes(0, tau)`. At 0.02 the smallest pushes are 0 in float32 and have no dot; that is no mistake.

# %% id="similarity" sslcourse={"role": "experiment"}
similarity = F.normalize(negatives, dim=1) @ F.normalize(queries[0], dim=0)  # (M,)

# %% nbgrader={"grade": true, "grade_id": "figure", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "open"}
### BEGIN SOLUTION
import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for tau, marker in zip((0.02, 0.2, 1.0), "ovs", strict=True):
    ax.semilogy(similarity, pushes(0, tau), marker, ms=4, label=f"$\\tau$ = {tau}: {effective(pushes(0, tau)):.0f} effective")
ax.axhline(1 / M, color="black", lw=1, ls="--", label="equal share")
ax.set(xlabel="cosine similarity with the query", ylabel="share of the push", ylim=(1e-8, 1))
ax.legend()
plt.show()
### END SOLUTION

# %% [markdown] id="text-play"
# ### Play with it
# Twelve numbered points on a circle: six images, two views each (one colour an image). The arrows show where **your** `info_nce`
# pushes every point, $-\partial L/\partial z$ along the circle, scaled to the longest one. Move the temperature. How many arrows
# are longer than half the longest at 0.05, and how many at 1? Whose are they?

# %% id="play-imports" sslcourse={"role": "experiment"}
import ipywidgets
import matplotlib.pyplot as plt

# %% id="play" sslcourse={"role": "experiment"}
@ipywidgets.interact(tau=ipywidgets.FloatLogSlider(value=0.2, min=-1.7, max=0, step=0.05, description="temperature"))
def arrows(tau: float = 0.2) -> None:
    angle = torch.tensor([20, 75, 140, 200, 255, 320, 48, 95, 118, 228, 300, 342]).deg2rad()
    z = torch.stack([angle.cos(), angle.sin()], dim=1).requires_grad_()
    info_nce(z[:6], z[6:], tau=tau).backward()
    p, push = z.detach(), -z.grad
    _, ax = plt.subplots(figsize=(4, 4))
    ax.scatter(*p.T, c=torch.arange(12) % 6, cmap="tab10", s=60)
    for n, place in enumerate(0.85 * p):
        ax.text(*place, str(n), ha="center", va="center", fontsize=8)
    longest = push.norm(dim=1).max()
    ax.quiver(*p.T, *(0.7 * push / longest).T, angles="xy", scale_units="xy", scale=1, width=0.008)
    ax.set(xlim=(-1.8, 1.8), ylim=(-1.8, 1.8), aspect="equal", title=f"$\\tau$ = {tau:.2f}, longest arrow {longest:.2f}")
    plt.show()

# %% [markdown] nbgrader={"grade": true, "grade_id": "explain-gap", "locked": false, "points": 5, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "open"}
# **Explain the gap.** Where were you wrong, and why? Use the numbers above and one thing that you see in your figure
# (3 to 5 sentences).
#
# ### BEGIN SOLUTION
# What is seen (always, up to the last digits): of 1023 negatives about 10 count at tau = 0.02, 238 at 0.05, 699 at 0.1 and 1019
# at 1, so half of them count from 0.1 on. (The chapter's vectors have 32 dimensions and similarities that spread twice as far, so there
# it is 0.2: what counts is the spread of s / tau.) On the circle InfoNCE brings partners together (alignment 0.000) and spreads the images (uniformity -1.717, the most that 30 points can);
# the triplet loss brings partners together but hears only the nearest negative, so a crowd hardly thins out (-1.1 to -1.3, by seed); all pairs
# spread the images but keep partners apart (0.3 to 0.8), since 1,740 negative pairs outvote 30 positive ones.
#
# A full answer (5) compares each predicted value with the measured one, and explains the count with the softmax: the push on a
# negative is its probability, proportional to exp(s / tau), so at tau = 0.02 a similarity higher by 0.1 means e^5 = 148 times the push, at
# tau = 1 only 1.1 times. It points at the figure: straight lines on the logarithmic axis with slope 1 / tau (in natural logarithms). For the
# circle it says that a hinge is silent beyond its margin, and the hardest negative is one voice, while a softmax hears all. 3: right, but without the figure or without the numbers.
# 0: repeats the numbers only.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": true, "grade_id": "open-question", "locked": false, "points": 15, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "open"}
# ## 9. Open question
# *Difficulty 4, importance 4, 15 minutes, 15 points. Graded 0 / 5 / 10 / 15.*
#
# When is a hard negative a **false** negative? Propose a measurement on *unlabelled* images that estimates how many of the
# hardest negatives of an anchor show the same kind of thing, and say **which result would prove your idea wrong**. Five
# sentences are enough.
#
# ### BEGIN SOLUTION
# 15: a measurement that needs no labels and could fail (for instance: cluster the features of *another* network or of an
# earlier checkpoint, or ask whether the neighbours of the neighbour agree (mutual neighbours), or whether the two views of the
# suspect are as near to the anchor as the anchor's own views are to each other; compare the rate among the k hardest with the rate among random
# negatives), a statement of what would falsify it (the rate among the hardest equals the rate among random ones; or on a small
# labelled check set the flagged pairs are no more often of one class than chance), and an awareness that the network that
# is being trained cannot be the only judge of itself. 10: a sound measurement, but no result that would prove it wrong, or
# circular (similarity under the same network *is* the definition of hardness). 5: a definition only ("same class"), or
# labels are used throughout. 0: nothing, or "use a higher temperature".
# ### END SOLUTION

# %% [markdown] id="text-bonus"
# ## If you want more (no points)
# Two losses of the chapter are left. `soft_nearest_neighbor(z, y, T)` votes among all neighbours instead of one; `lifted_structured(z, y, margin)`
# puts each positive pair against all negatives of both its ends. Write them from the chapter's equations and compare with
# `sslcourse.losses.soft_nearest_neighbor` and `sslcourse.losses.lifted_structured`: value, gradient, a class with one member.
