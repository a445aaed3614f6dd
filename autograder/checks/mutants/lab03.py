"""Known-wrong and other right answers of lab 3. A wrong one is one edit of the solution's cell."""

from autograder.checks.mutants import lab03_moco
from autograder.rubric import Right, Wrong

WRONG = [
    # cosine_similarity_matrix
    Wrong(
        "cosine_similarity_matrix",
        "b_not_normalised",
        "    b = F.normalize(b, dim=1)\n",
        "",
        "only `a` is of unit length; `b` has to be normalised, too.",
    ),
    Wrong(
        "cosine_similarity_matrix",
        "a_not_normalised",
        "    a = F.normalize(a, dim=1)\n    b = F.normalize(b, dim=1)\n",
        "    b = F.normalize(b, dim=1)\n",
        "only `b` is of unit length; `a` has to be normalised, too.",
    ),
    Wrong(
        "cosine_similarity_matrix",
        "not_normalised",
        "    a = F.normalize(a, dim=1)\n    b = F.normalize(b, dim=1)\n",
        "",
        "these are plain dot products: divide by the lengths of both vectors.",
    ),
    Wrong(
        "cosine_similarity_matrix",
        "columns_normalised",
        "    a = F.normalize(a, dim=1)\n    b = F.normalize(b, dim=1)\n",
        "    a = F.normalize(a, dim=0)\n    b = F.normalize(b, dim=0)\n",
        "you normalise the columns (dim=0); a vector is a row, so dim=1.",
    ),
    Wrong(
        "cosine_similarity_matrix",
        "squared_norm",
        "    a = F.normalize(a, dim=1)\n    b = F.normalize(b, dim=1)\n    return a @ b.T",
        "    return a @ b.T / (a.pow(2).sum(1)[:, None] * b.pow(2).sum(1)).clamp_min(1e-24)",
        "you divide by the squared lengths: the square root is missing.",
    ),
    Wrong(
        "cosine_similarity_matrix",
        "distance",
        "    return a @ b.T",
        "    return 1 - a @ b.T",
        "this is the cosine distance, 1 - s: equal vectors should score 1, not 0.",
    ),
    Wrong(
        "cosine_similarity_matrix",
        "transposed",
        "    return a @ b.T",
        "    return b @ a.T",
        "the table is transposed: rows belong to `a`, columns to `b`.",
    ),
    Wrong(
        "cosine_similarity_matrix",
        "zero_row_nan",
        "    a = F.normalize(a, dim=1)\n    b = F.normalize(b, dim=1)\n",
        "    a = a / a.norm(dim=1, keepdim=True)\n    b = b / b.norm(dim=1, keepdim=True)\n",
        "a row of zeros is divided by its length 0: guard the division with a tiny number, as F.normalize does.",
    ),
    Wrong(
        "cosine_similarity_matrix",
        "large_eps",
        "    a = F.normalize(a, dim=1)\n    b = F.normalize(b, dim=1)\n",
        "    a = a / (a.norm(dim=1, keepdim=True) + 1e-3)\n    b = b / (b.norm(dim=1, keepdim=True) + 1e-3)\n",
        "the number that guards against division by 0 is so large that it shortens small vectors.",
    ),
    Wrong(
        "cosine_similarity_matrix",
        "detached",
        "    b = F.normalize(b, dim=1)\n",
        "    b = F.normalize(b.detach(), dim=1)\n",
        "a detach() keeps the gradient from one of the inputs.",
    ),
    Wrong(
        "cosine_similarity_matrix",
        "in_place",
        "    a = F.normalize(a, dim=1)\n",
        "    a.data.div_(a.data.norm(dim=1, keepdim=True).clamp_min(1e-12))\n",
        "the caller's `a` is normalised in place: make a new tensor.",
    ),
    # two_views
    Wrong(
        "two_views",
        "same_view_twice",
        "    v2 = t(x)\n",
        "    v2 = v1\n",
        "t is called once and its result used twice: the two views are identical.",
    ),
    Wrong(
        "two_views",
        "view_of_a_view",
        "    v2 = t(x)\n",
        "    v2 = t(v1)\n",
        "the second view is a view of the first one: give t the original x both times.",
    ),
    Wrong(
        "two_views",
        "one_view_is_x",
        "    v1 = t(x)\n",
        "    v1 = x\n",
        "one view is the untouched x; both have to be transformed.",
    ),
    Wrong(
        "two_views",
        "image_by_image",
        "    v1 = t(x)\n    v2 = t(x)\n",
        "    v1 = torch.cat([t(i[None]) for i in x])\n    v2 = torch.cat([t(i[None]) for i in x])\n",
        "t takes the whole batch at once and draws new numbers for each image; one call makes one view.",
    ),
    Wrong(
        "two_views",
        "stacked",
        "    return v1, v2",
        "    return torch.stack([v1, v2])",
        "the views are stacked into one tensor: return the two of them, `return v1, v2`.",
    ),
    Wrong(
        "two_views",
        "x_changed",
        "    v1 = t(x)\n",
        "    v1 = t(x)\n    x.mul_(1).add_(1).sub_(1 - 1e-3)\n",
        "x is changed in place between the two calls.",
    ),
    # nt_xent_masks
    Wrong(
        "nt_xent_masks",
        "positive_next_row",
        "    positive = self_pairs.roll(n, dims=1)\n",
        "    positive = self_pairs.view(n, 2, 2 * n).flip(1).reshape(2 * n, 2 * n)\n",
        "your positives are neighbours (rows 2k and 2k + 1); the layout is [view1; view2], so they are N apart.",
    ),
    Wrong(
        "nt_xent_masks",
        "one_direction",
        "    positive = self_pairs.roll(n, dims=1)\n",
        "    positive = self_pairs.roll(n, dims=1).triu()\n",
        "only the first views have a positive; rows n .. 2n - 1 need theirs, too.",
    ),
    Wrong(
        "nt_xent_masks",
        "positive_is_self",
        "    positive = self_pairs.roll(n, dims=1)\n",
        "    positive = self_pairs\n",
        "your positive is the view itself; it is the other view of the same image.",
    ),
    Wrong(
        "nt_xent_masks",
        "self_is_candidate",
        "    candidates = ~self_pairs\n",
        "    candidates = torch.ones_like(self_pairs)\n",
        "the diagonal is still a candidate: a view is never compared with itself.",
    ),
    Wrong(
        "nt_xent_masks",
        "positive_not_candidate",
        "    candidates = ~self_pairs\n",
        "    candidates = ~(self_pairs | positive)\n",
        "the positive is missing from the candidates; it belongs into the denominator.",
    ),
    Wrong(
        "nt_xent_masks",
        "inverted",
        "    candidates = ~self_pairs\n",
        "    candidates = self_pairs\n",
        "the candidates are inverted: True where a view may be compared.",
    ),
    Wrong(
        "nt_xent_masks",
        "not_bool",
        "    return positive, candidates",
        "    return positive.float(), candidates.float()",
        "the masks are numbers; return type bool.",
    ),
    Wrong(
        "nt_xent_masks",
        "swapped",
        "    return positive, candidates",
        "    return candidates, positive",
        "the two masks are returned in the wrong order: positive first.",
    ),
    # nt_xent
    Wrong(
        "nt_xent",
        "diagonal_in_denominator",
        "logits.masked_fill(~candidates, -math.inf)",
        "logits",
        "your diagonal is still in the denominator: every anchor is compared with itself.",
    ),
    Wrong(
        "nt_xent",
        "diagonal_zero",
        "masked_fill(~candidates, -math.inf)",
        "masked_fill(~candidates, 0)",
        "a masked logit of 0 still counts as exp(0) = 1: use minus infinity.",
    ),
    Wrong(
        "nt_xent",
        "positive_next_row",
        "    positive, candidates = nt_xent_masks(len(z1))\n",
        "    _, candidates = nt_xent_masks(len(z1))\n"
        "    positive = (~candidates).view(-1, 2, len(logits)).flip(1).reshape(candidates.shape)\n",
        "your positive is the neighbouring row; with [view1; view2] it is row i + N (or i - N).",
    ),
    Wrong(
        "nt_xent",
        "divided_by_n",
        "    return (log_denominator - logits[positive]).mean()",
        "    return (log_denominator - logits[positive]).sum() / len(z1)",
        "you divide by N, but 2N views were anchors.",
    ),
    Wrong(
        "nt_xent",
        "summed",
        "    return (log_denominator - logits[positive]).mean()",
        "    return (log_denominator - logits[positive]).sum()",
        "this is the sum over the anchors; the loss is their mean.",
    ),
    Wrong(
        "nt_xent",
        "one_direction",
        "    return (log_denominator - logits[positive]).mean()",
        "    return (log_denominator - logits[positive])[: len(z1)].mean()",
        "only the first views are anchors; the second views are anchors, too.",
    ),
    Wrong(
        "nt_xent",
        "only_across_views",
        "    positive, candidates = nt_xent_masks(len(z1))\n",
        "    positive, candidates = nt_xent_masks(len(z1))\n"
        "    view = torch.arange(len(logits)) // len(z1)\n"
        "    candidates = view[:, None] != view\n",
        "each view is compared only with the views of the other kind; its own kind are negatives, too.",
    ),
    Wrong(
        "nt_xent",
        "positive_not_in_denominator",
        "~candidates, -math.inf",
        "~candidates | positive, -math.inf",
        "the positive is missing from the denominator: the sum runs over all k other than i.",
    ),
    Wrong(
        "nt_xent",
        "tau_multiplied",
        " / tau\n",
        " * tau\n",
        "the temperature multiplies the similarities; it has to divide them.",
    ),
    Wrong(
        "nt_xent",
        "not_normalised",
        "cosine_similarity_matrix(torch.cat([z1, z2]))",
        "(lambda z: z @ z.T)(torch.cat([z1, z2]))",
        "these are plain dot products: the embeddings are not normalised.",
    ),
    Wrong(
        "nt_xent",
        "exp_overflows",
        "logits.masked_fill(~candidates, -math.inf).logsumexp(dim=1)",
        "(logits.exp() * candidates).sum(dim=1).log()",
        "exp() of a logit of 100 is infinite: logsumexp takes the largest one out first.",
    ),
    Wrong(
        "nt_xent",
        "second_view_detached",
        "torch.cat([z1, z2])",
        "torch.cat([z1, z2.detach()])",
        "a detach() keeps the gradient from one of the views; in SimCLR both learn.",
    ),
    Wrong(
        "nt_xent",
        "default_tau",
        "tau: float = 0.5",
        "tau: float = 1.0",
        "the default temperature is 0.5.",
    ),
    Wrong(
        "nt_xent",
        "negated",
        "log_denominator - logits[positive]",
        "logits[positive] - log_denominator",
        "the sign is wrong: this is the log-probability, the loss is its negative.",
    ),
]

WRONG += lab03_moco.WRONG

RIGHT = [
    Right(
        "cosine_similarity_matrix",
        "einsum",
        """
def cosine_similarity_matrix(a, b=None):
    if b is None:
        b = a
    lengths = torch.einsum("i,j->ij", a.norm(dim=1), b.norm(dim=1))
    return torch.einsum("id,jd->ij", a, b) / lengths.clamp_min(1e-12)
""",
    ),
    Right(
        "cosine_similarity_matrix",
        "loop",
        """
def cosine_similarity_matrix(a, b=None):
    b = a if b is None else b
    unit = lambda v: v / v.pow(2).sum().sqrt() if v.detach().abs().max() > 0 else v
    rows = [[torch.dot(unit(p), unit(q)) for q in b] for p in a]
    return torch.stack([torch.stack(row) for row in rows])
""",
    ),
    Right("two_views", "one_line", "def two_views(x, t):\n    return t(x), t(x)\n"),
    Right("two_views", "list", "def two_views(x, t):\n    return tuple([t(x.clone()) for _ in range(2)])\n"),
    Right(
        "nt_xent_masks",
        "indices",
        """
def nt_xent_masks(n):
    i = torch.arange(2 * n)
    return (i[:, None] - i).abs() == n, i[:, None] != i
""",
    ),
    Right(
        "nt_xent_masks",
        "blocks",
        """
def nt_xent_masks(n):
    one, zero = torch.eye(n), torch.zeros(n, n)
    positive = torch.cat([torch.cat([zero, one], 1), torch.cat([one, zero], 1)])
    return positive.bool(), (1 - torch.eye(2 * n)) > 0
""",
    ),
    Right(
        "nt_xent",
        "cross_entropy",
        """
def nt_xent(z1, z2, tau=0.5):
    n = len(z1)
    logits = cosine_similarity_matrix(torch.cat([z1, z2])) / tau
    logits = logits - torch.diag(torch.full((2 * n,), math.inf, dtype=logits.dtype)).nan_to_num(0.0, posinf=math.inf)
    return F.cross_entropy(logits, torch.arange(2 * n).roll(n))
""",
    ),
    Right(
        "nt_xent",
        "four_blocks",
        """
def nt_xent(z1, z2, tau=0.5):
    a, b = F.normalize(z1, dim=-1), F.normalize(z2, dim=-1)
    same = torch.eye(len(a), dtype=torch.bool)
    aa = torch.einsum("id,jd->ij", a, a).masked_fill(same, float("-inf")) / tau
    bb = torch.einsum("id,jd->ij", b, b).masked_fill(same, float("-inf")) / tau
    ab = torch.einsum("id,jd->ij", a, b) / tau
    first = torch.logsumexp(torch.cat([ab, aa], 1), 1) - ab.diagonal()
    second = torch.logsumexp(torch.cat([ab.T, bb], 1), 1) - ab.diagonal()
    return torch.cat([first, second]).mean()
""",
    ),
]

RIGHT += lab03_moco.RIGHT

# Automatic mutations that no check can kill, because they change nothing that the exercise asks for.
EQUIVALENT = {
    "cosine_similarity_matrix: a = F.normalize(a)": "dim=1 is the default",
    "cosine_similarity_matrix: b = F.normalize(b)": "dim=1 is the default",
    "two_views: v1 = t(x.detach())": "images carry no gradient",
    "two_views: v2 = t(x.detach())": "images carry no gradient",
    "nt_xent_masks: positive = self_pairs.roll(n, dims=0)": "the mask is symmetric",
    "nt_xent: positive, candidates = nt_xent_masks(len(z1.detach()))": "a length has no gradient",
    "nt_xent: log_denominator = logits.masked_fill(~candidates, -math.inf).logsumexp(dim=0)": "logits are symmetric",
} | lab03_moco.EQUIVALENT
