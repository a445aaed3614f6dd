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
# # Lab 0: Warm-up, and how labs work here
#
# Four small functions that the whole course keeps using: moving dimensions around, all dot products at once, cosine
# similarity, and a linear probe that you train yourself. One hour, if PyTorch is familiar.
#
# **How labs work.** Fill in a function where it says `raise NotImplementedError`, run the check below it, go on when it passes. Every
# exercise is graded on its own and gives points for each property that holds (value, gradient, odd sizes, ...), so a half-right answer
# earns half the points. Stuck? `hint("split_heads", 1)`; levels 2 and 3 say more, and none costs anything.
#
# The grader runs each exercise's cell **alone**, with the imports of the next cell: put helper functions inside. Before you hand in,
# run `sslcourse check 00_warmup.ipynb` in a terminal. 100 points: functions 70, experiment 15, open question 15.

# %% id="preamble" sslcourse={"role": "preamble"}
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# %% id="tools"
from sslcourse.lab import hint, predict, record_result

hint()

# %% [markdown] id="text-split_heads"
# ## 1. Shapes: split a vector into heads
# *Difficulty 1, importance 4, 10 minutes, 12 points.*
#
# A transformer cuts each token's vector of D numbers into h pieces of D/h, and lets every piece attend on its own. `reshape`
# cuts; `transpose` or `permute` brings the dimensions into order. Mixing the two up gives the right shape with the wrong numbers in it:
# look where one number ends up, not only at the shape.

# %% nbgrader={"grade": false, "grade_id": "split_heads", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "banned": ["rearrange"]}
def split_heads(x: Tensor, heads: int) -> Tensor:
    """Cut every token's vector into `heads` pieces.

    x: (B, N, D), D divisible by heads.
    returns: (B, heads, N, D // heads); piece h of token n holds the numbers h * D/heads ... (h + 1) * D/heads - 1 of it.

    Example: x = [[[1, 2, 3, 4]]] with 2 heads  ->  [[[[1, 2]], [[3, 4]]]]
    """
    ### BEGIN SOLUTION
    b, n, d = x.shape
    pieces = x.reshape(b, n, heads, d // heads)
    return pieces.transpose(1, 2)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-split_heads", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "split_heads"}
x = torch.arange(16.0).reshape(1, 2, 8)
pieces = split_heads(x, 4)
assert pieces.shape == (1, 4, 2, 2), f"4 heads of 2 tokens with 2 numbers: (1, 4, 2, 2), yours is {tuple(pieces.shape)}"
assert pieces[0, 0, 1].tolist() == [8, 9], f"head 0 of token 1 starts at 8: expected [8, 9], got {pieces[0, 0, 1].tolist()}"
assert pieces[0, 3, 0].tolist() == [6, 7], f"head 3 of token 0 ends at 7: expected [6, 7], got {pieces[0, 3, 0].tolist()}"
print("split_heads: the public checks pass")

# %% [markdown] id="text-pairwise_dot"
# ## 2. Einsum: all dot products of two sets
# *Difficulty 2, importance 5, 10 minutes, 14 points.*
#
# In `torch.einsum("...", a, b)` each letter is a dimension: the letters after `->` stay, the others are summed over. Write the dot
# product of every row of `a` with every row of `b`, for a whole batch. This one line is attention, retrieval and
# the heart of every contrastive loss.

# %% nbgrader={"grade": false, "grade_id": "pairwise_dot", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "banned": []}
def pairwise_dot(a: Tensor, b: Tensor) -> Tensor:
    """Dot product of every row of `a` with every row of `b`, batch by batch.

    a: (B, N, D).   b: (B, M, D).   returns: (B, N, M).

    Example: a = [[[1, 2]]], b = [[[3, 4], [5, 6]]]  ->  [[[11, 17]]]
    """
    ### BEGIN SOLUTION
    return torch.einsum("bnd,bmd->bnm", a, b)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-pairwise_dot", "locked": true, "points": 14, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "pairwise_dot"}
table = pairwise_dot(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0], [5.0, 6.0]]]))
assert isinstance(table, Tensor), f"return a tensor, not a {type(table).__name__}"
assert table.shape == (1, 1, 2), f"1 row against 2 rows in a batch of 1: (1, 1, 2), yours is {tuple(table.shape)}"
assert table.tolist() == [[[11, 17]]], f"1*3 + 2*4 = 11 and 1*5 + 2*6 = 17, got {table.tolist()}"
print("pairwise_dot: the public checks pass")

# %% [markdown] id="text-row_cosine"
# ## 3. Cosine similarity, row by row
# *Difficulty 1, importance 5, 10 minutes, 14 points.*
#
# $\cos(a, b) = \dfrac{a \cdot b}{\lVert a\rVert\,\lVert b\rVert}$ for each pair of rows. Take care of rows of zeros: they have no direction, so their similarity
# is 0, and their gradient must not be NaN.

# %% nbgrader={"grade": false, "grade_id": "row_cosine", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "banned": ["cosine_similarity", "CosineSimilarity"]}
def row_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity of row i of `a` with row i of `b`.

    a, b: (N, D) float.   returns: (N,), in [-1, 1]; 0 where a row is all zeros.

    Example: a = [[3, 4], [1, 0]], b = [[4, 3], [0, 5]]  ->  [0.96, 0]
    """
    ### BEGIN SOLUTION
    a = F.normalize(a, dim=1)
    b = F.normalize(b, dim=1)
    return (a * b).sum(dim=1)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-row_cosine", "locked": true, "points": 14, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "row_cosine"}
c = row_cosine(torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]), torch.tensor([[4.0, 3.0], [0.0, 5.0], [1.0, 1.0]]))
assert c.shape == (3,), f"three pairs give three numbers, yours has shape {tuple(c.shape)}"
assert torch.isfinite(c).all(), f"a row of zeros has similarity 0, not NaN; got {c.tolist()}"
assert torch.allclose(c, torch.tensor([0.96, 0.0, 0.0])), f"expected [0.96, 0, 0], got {c.tolist()}"
print("row_cosine: the public checks pass")

# %% [markdown] id="text-LinearProbe"
# ## 4. A linear probe
# *Difficulty 2, importance 5, 25 minutes, 30 points.*
#
# How good is a representation? The field's answer: freeze it, train **one linear layer** on top, report its accuracy. Write that layer as a
# module, with its own training step: plain gradient descent on the cross-entropy, $p \leftarrow p - \eta\, \partial L / \partial p$ for
# every parameter. `torch.optim.SGD` may do it for you, or three lines of your own.

# %% nbgrader={"grade": false, "grade_id": "LinearProbe", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "exercise", "banned": [], "trains": true}
class LinearProbe(nn.Module):
    """One linear layer, called `linear`, on frozen features.

    Example: with weights [[1, 0], [0, 1]] and bias [0, 0], the features [[2, 0]] give the logits [[2, 0]];
    their loss for label 0 is log(1 + e^-2) = 0.1269.
    """

    def __init__(self, dim: int, classes: int):
        """dim: numbers in a feature.   classes: numbers in a prediction."""
        super().__init__()
        ### BEGIN SOLUTION
        self.linear = nn.Linear(dim, classes)
        ### END SOLUTION

    def forward(self, features: Tensor) -> Tensor:
        """(N, dim) -> logits (N, classes), no softmax."""
        ### BEGIN SOLUTION
        return self.linear(features)
        ### END SOLUTION

    def training_step(self, features: Tensor, labels: Tensor, lr: float) -> Tensor:
        """One step of gradient descent; returns the mean cross-entropy **before** the step, a scalar without gradient."""
        ### BEGIN SOLUTION
        loss = F.cross_entropy(self(features), labels)
        self.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in self.parameters():
                p -= lr * p.grad
        return loss.detach()
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "check-LinearProbe", "locked": true, "points": 30, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "LinearProbe"}
probe = LinearProbe(2, 2)
assert [n for n, _ in probe.named_parameters()] == ["linear.weight", "linear.bias"], "call the layer self.linear"
probe.load_state_dict({"linear.weight": torch.eye(2), "linear.bias": torch.zeros(2)})
assert probe(torch.tensor([[2.0, 0.0]])).tolist() == [[2, 0]], "forward returns the logits as they are, no softmax"
loss = probe.training_step(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), lr=1.0)
assert abs(loss - 0.1269) < 1e-3, f"the loss before the step is 0.1269, yours is {loss:.4f}"
assert abs(probe.linear.bias[0] - 0.1192) < 1e-3, f"bias 0 moves up to 0.1192, yours is at {probe.linear.bias[0]:.4f}"
print("LinearProbe: the public checks pass")

# %% [markdown] id="text-predict"
# ## 5. Predict, then run
# *Difficulty 1, importance 5, 15 minutes, 15 points: prediction 5, explanation 10.*
#
# Scikit-learn's handwritten digits come with the course: ten classes, 8 x 8 pixels. You will train your probe on **raw pixels**, and on
# pixels whose **order is shuffled** (the same shuffle for all images). Ten classes, so guessing scores 0.10. Say first what you expect;
# being wrong costs nothing.

# %% nbgrader={"grade": false, "grade_id": "prediction", "locked": false, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "predict"}
prediction = {
    "accuracy": None,  # on the raw pixels, between 0 and 1
    "shuffled": None,  # "better", "equal" or "worse" than in order
    "why": None,  # a sentence
}
### BEGIN SOLUTION
prediction = {
    "accuracy": 0.93,
    "shuffled": "equal",
    "why": "A linear layer gives each pixel its own weight, wherever that pixel stands.",
}
### END SOLUTION
predict("shuffled pixels", prediction)

# %% nbgrader={"grade": true, "grade_id": "check-prediction", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false} sslcourse={"role": "check", "of": "prediction"}
assert None not in prediction.values(), "write down your prediction in the cell above, and run it first"
assert 0 <= prediction["accuracy"] <= 1, "an accuracy lies between 0 and 1"
assert prediction["shuffled"] in ("better", "equal", "worse"), "shuffled: better, equal or worse"
assert len(prediction["why"].split()) >= 5, "why: say it in a sentence"

# %% id="data" sslcourse={"role": "experiment"}
from sklearn.datasets import load_digits

pixels, labels = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
pixels = pixels.float() / 16
order = torch.randperm(64, generator=torch.Generator().manual_seed(0))

# %% id="train" sslcourse={"role": "experiment"}
def accuracy_of_probe(features: Tensor) -> float:
    """Train on the first 1,200 digits, test on the other 597."""
    torch.manual_seed(0)
    probe = LinearProbe(64, 10)
    for _ in range(300):
        probe.training_step(features[:1200], labels[:1200], lr=1.0)
    with torch.no_grad():
        return (probe(features[1200:]).argmax(dim=1) == labels[1200:]).float().mean().item()

# %% id="run" sslcourse={"role": "experiment"}
measured = {"in order": accuracy_of_probe(pixels), "shuffled": accuracy_of_probe(pixels[:, order])}
record_result("shuffled pixels", measured)

# %% [markdown] nbgrader={"grade": true, "grade_id": "explain-gap", "locked": false, "points": 10, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "open"}
# **Explain the gap.** Compare each value that you predicted with the measured one. What does the shuffled run say about what a linear
# probe can and cannot see in an image? (3 to 5 sentences. Graded 0 / 5 / 10.)
#
# ### BEGIN SOLUTION
# 10: both values compared; shuffling permutes the weights and changes nothing else, so the accuracies agree up to the
# random initialisation; hence a linear probe does not know which pixels are neighbours, and whatever it reads has to be present in
# single features. 5: the numbers, and that shuffling does not matter, without the reason. 0: repeats the numbers.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": true, "grade_id": "open-question", "locked": false, "points": 15, "schema_version": 3, "solution": true, "task": false} sslcourse={"role": "open"}
# ## 6. Open question
# *Difficulty 2, importance 4, 15 minutes, 15 points. Graded 0 / 5 / 10 / 15.*
#
# A friend trains a probe on a network's features and reports an accuracy of 0.97, after choosing the learning rate with the best **test**
# accuracy out of ten. What is wrong with that number, in which direction, and what should be reported instead?
#
# ### BEGIN SOLUTION
# 15: the test set took part in the choice, so 0.97 is too high on average (the best of ten noisy numbers); choose on a validation part
# of the training images, test once, report an interval or several seeds. 10: cause and remedy without the direction
# or the uncertainty. 5: "one should use a validation set" alone. 0: nothing of it.
# ### END SOLUTION
