"""Known-wrong and other right answers of lab 0."""

from autograder.rubric import Right, Wrong

_UNIT = "    a = F.normalize(a, dim=1)\n    b = F.normalize(b, dim=1)\n"

WRONG = [
    Wrong(
        "split_heads",
        "reshape_only",
        "    pieces = x.reshape(b, n, heads, d // heads)\n    return pieces.transpose(1, 2)",
        "    return x.reshape(b, heads, n, d // heads)",
        "a reshape to the final shape mixes tokens and heads: cut the last dimension, then swap two dimensions.",
    ),
    Wrong(
        "split_heads",
        "not_swapped",
        "    return pieces.transpose(1, 2)",
        "    return pieces",
        "the heads still stand behind the tokens: swap dimensions 1 and 2.",
    ),
    Wrong(
        "split_heads",
        "interleaved",
        "x.reshape(b, n, heads, d // heads)",
        "x.reshape(b, n, d // heads, heads).transpose(2, 3)",
        "your heads take every h-th number; head 0 should hold the first D/h numbers.",
    ),
    Wrong(
        "split_heads",
        "size_and_number_swapped",
        "x.reshape(b, n, heads, d // heads)",
        "x.reshape(b, n, d // heads, heads)",
        "the number of heads and the size of a head are swapped.",
    ),
    Wrong(
        "split_heads",
        "last_swapped",
        "    return pieces.transpose(1, 2)",
        "    return pieces.permute(0, 2, 3, 1)",
        "the last two dimensions are swapped: (B, heads, N, D // heads).",
    ),
    Wrong(
        "pairwise_dot",
        "transposed",
        "bnd,bmd->bnm",
        "bnd,bmd->bmn",
        "the table is transposed: rows belong to `a`, columns to `b`.",
    ),
    Wrong(
        "pairwise_dot",
        "across_batches",
        'torch.einsum("bnd,bmd->bnm", a, b)',
        'torch.einsum("bnd,cmd->bnm", a, b)',
        "rows of different batches are multiplied: use the same letter for the batch of `a` and of `b`.",
    ),
    Wrong(
        "pairwise_dot",
        "batch_summed",
        'torch.einsum("bnd,bmd->bnm", a, b)',
        'torch.einsum("bnd,bmd->nm", a, b)',
        "the batch is summed over: keep its letter in the result.",
    ),
    Wrong(
        "pairwise_dot",
        "scaled",
        'torch.einsum("bnd,bmd->bnm", a, b)',
        'torch.einsum("bnd,bmd->bnm", a, b) / a.shape[-1] ** 0.5',
        "this is attention's scaled product; the plain dot product has no factor.",
    ),
    Wrong(
        "pairwise_dot",
        "mean",
        'torch.einsum("bnd,bmd->bnm", a, b)',
        'torch.einsum("bnd,bmd->bnm", a, b) / a.shape[-1]',
        "this is the mean of the products; a dot product is their sum.",
    ),
    Wrong(
        "row_cosine",
        "all_pairs",
        "(a * b).sum(dim=1)",
        "a @ b.T",
        "these are all pairs; only row i with row i was asked for.",
    ),
    Wrong("row_cosine", "not_normalised", _UNIT, "", "this is the plain dot product: divide by both lengths."),
    Wrong(
        "row_cosine",
        "one_not_normalised",
        "    b = F.normalize(b, dim=1)\n",
        "",
        "only `a` is of unit length.",
    ),
    Wrong(
        "row_cosine",
        "columns",
        _UNIT,
        "    a = F.normalize(a, dim=0)\n    b = F.normalize(b, dim=0)\n",
        "you normalise the columns (dim=0); a vector is a row.",
    ),
    Wrong(
        "row_cosine",
        "zero_row_nan",
        _UNIT,
        "    a = a / a.norm(dim=1, keepdim=True)\n    b = b / b.norm(dim=1, keepdim=True)\n",
        "a row of zeros is divided by its length 0: guard the division, as F.normalize does.",
    ),
    Wrong("row_cosine", "mean", ".sum(dim=1)", ".mean(dim=1)", "a dot product is a sum, not a mean."),
    Wrong(
        "LinearProbe",
        "no_bias_used",
        "        return self.linear(features)",
        "        return features @ self.linear.weight.T",
        "the bias is missing from the logits.",
    ),
    Wrong(
        "LinearProbe",
        "softmax",
        "        return self.linear(features)",
        "        return self.linear(features).softmax(dim=1)",
        "forward returns probabilities; cross_entropy expects logits and takes the softmax itself.",
    ),
    Wrong("LinearProbe", "ascent", "p -= lr", "p += lr", "the step goes uphill: subtract the gradient."),
    Wrong("LinearProbe", "no_lr", "p -= lr * p.grad", "p -= p.grad", "the learning rate is not used."),
    Wrong(
        "LinearProbe",
        "gradients_add_up",
        "        self.zero_grad()\n",
        "",
        "gradients of earlier steps are still there: zero_grad before backward.",
    ),
    Wrong(
        "LinearProbe",
        "loss_after",
        "        return loss.detach()",
        "        return F.cross_entropy(self(features), labels).detach()",
        "this is the loss after the step; return the one from before.",
    ),
    Wrong(
        "LinearProbe",
        "summed_loss",
        "F.cross_entropy(self(features), labels)",
        'F.cross_entropy(self(features), labels, reduction="sum")',
        "the loss is summed over the batch; it is the mean.",
    ),
    Wrong(
        "LinearProbe",
        "weight_only",
        "for p in self.parameters():",
        "for p in [self.linear.weight]:",
        "only the weight is trained; the bias is a parameter, too.",
    ),
]

RIGHT = [
    Right(
        "split_heads",
        "chunks",
        "def split_heads(x, heads):\n    return torch.stack(x.chunk(heads, dim=-1), dim=1)\n",
    ),
    Right(
        "split_heads",
        "unflatten",
        "def split_heads(x, heads):\n    return x.unflatten(-1, (heads, -1)).permute(0, 2, 1, 3)\n",
    ),
    Right("pairwise_dot", "matmul", "def pairwise_dot(a, b):\n    return a @ b.transpose(-1, -2)\n"),
    Right(
        "pairwise_dot",
        "broadcast",
        "def pairwise_dot(a, b):\n    return (a[:, :, None] * b[:, None]).sum(-1)\n",
    ),
    Right(
        "row_cosine",
        "einsum",
        """
def row_cosine(a, b):
    lengths = (a.pow(2).sum(1) * b.pow(2).sum(1)).clamp_min(1e-24).sqrt()
    return torch.einsum("nd,nd->n", a, b) / lengths
""",
    ),
    Right(
        "row_cosine",
        "norms",
        """
def row_cosine(a, b):
    return (a * b).sum(1) / a.norm(dim=1).clamp_min(1e-12) / b.norm(dim=1).clamp_min(1e-12)
""",
    ),
    Right(
        "LinearProbe",
        "sgd",
        """
class LinearProbe(nn.Module):
    def __init__(self, dim, classes):
        super().__init__()
        self.linear = torch.nn.Linear(dim, classes)

    def forward(self, features):
        return F.linear(features, self.linear.weight, self.linear.bias)

    def training_step(self, features, labels, lr):
        optimizer = torch.optim.SGD(self.parameters(), lr=lr)
        optimizer.zero_grad()
        loss = nn.CrossEntropyLoss()(self.forward(features), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()
""",
    ),
    Right(
        "LinearProbe",
        "by_hand",
        """
class LinearProbe(nn.Module):
    def __init__(self, dim, classes):
        super().__init__()
        self.linear = nn.Linear(dim, classes)

    def forward(self, features):
        return self.linear(features)

    @torch.no_grad()
    def training_step(self, features, labels, lr):
        logits = self(features)
        error = (logits.softmax(1) - F.one_hot(labels, logits.shape[1])) / len(labels)
        self.linear.weight -= lr * error.T @ features
        self.linear.bias -= lr * error.sum(0)
        return F.cross_entropy(logits, labels)
""",
    ),
]

# Automatic mutations that no check can kill, because they change nothing that the exercise asks for.
EQUIVALENT = {
    "split_heads: return pieces.transpose(2, 1)": "swapping 2 and 1 is swapping 1 and 2",
    "row_cosine: a = F.normalize(a)": "dim=1 is the default",
    "row_cosine: b = F.normalize(b)": "dim=1 is the default",
    "LinearProbe: return self.linear(features.detach())": "the features are frozen",
    "LinearProbe: loss = F.cross_entropy(self(features.detach()), labels)": "the features are frozen",
}
