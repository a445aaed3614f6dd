"""Known-wrong and other right answers of lab 2: pairs, triplets, N-pair."""

from autograder.checks.mutants import wrong
from autograder.rubric import Right

WRONG_PAIRS = [
    *wrong(
        "chopra_contrastive",
        (
            "flipped",
            "same * attract + (1 - same) * repel",
            "(1 - same) * attract + same * repel",
            "`same` is read the wrong way round: pairs that belong together are pushed apart.",
        ),
        (
            "margin_on_square",
            "F.relu(margin - d).pow(2)",
            "F.relu(margin - d.pow(2))",
            "the margin is compared with the squared distance: first `margin - d`, then the hinge, then the square.",
        ),
        (
            "margin_on_square_squared",
            "F.relu(margin - d).pow(2)",
            "F.relu(margin - d.pow(2)).pow(2)",
            "the margin is compared with the squared distance: `margin - d` comes first, then hinge and square.",
        ),
        (
            "no_hinge",
            "F.relu(margin - d).pow(2)",
            "(margin - d).pow(2)",
            "without max(0, .) a negative beyond the margin is pulled back to it.",
        ),
        (
            "hinge_not_squared",
            "F.relu(margin - d).pow(2)",
            "F.relu(margin - d)",
            "the hinge of the negatives is not squared.",
        ),
        ("distance_not_squared", "attract = d.pow(2)", "attract = d", "the distance of the positives is not squared."),
        ("summed", ").mean()", ").sum()", "this is the sum over the pairs; the loss is their mean."),
        (
            "halved",
            "return (same * attract + (1 - same) * repel).mean()",
            "return (same * attract + (1 - same) * repel).mean() / 2",
            "this has the paper's factor 1/2; the exercise asks for the form without it.",
        ),
        (
            "mean_of_each_kind",
            "return (same * attract + (1 - same) * repel).mean()",
            "apart = 1 - same\n    pull = (same * attract).sum() / same.sum().clamp_min(1)\n"
            "    return pull + (apart * repel).sum() / apart.sum().clamp_min(1)",
            "you average positives and negatives apart; the mean runs over all pairs together.",
        ),
        (
            "margin_fixed",
            "F.relu(margin - d)",
            "F.relu(1 - d)",
            "the margin is written as the number 1 instead of the argument.",
        ),
        (
            "detached",
            "attract = d.pow(2)",
            "attract = d.detach().pow(2)",
            "a detach() keeps the gradient from the positives.",
        ),
    ),
    *wrong(
        "batch_hard_triplet",
        (
            "own_positive",
            "positive = equal & ~torch.eye(len(y), dtype=torch.bool, device=y.device)",
            "positive = equal",
            "an anchor is its own positive: leave the diagonal out, and so the anchors without another positive.",
        ),
        (
            "zero_wins_the_minimum",
            "d.masked_fill(equal, math.inf).amin(dim=1)",
            "d.masked_fill(equal, 0).amin(dim=1)",
            "what is no negative was filled with 0, so the minimum is always 0: fill with infinity.",
        ),
        (
            "nearest_positive",
            "d.masked_fill(~positive, -math.inf).amax(dim=1)",
            "d.masked_fill(~positive, math.inf).amin(dim=1)",
            "this is the nearest positive; the hardest one is the furthest.",
        ),
        (
            "furthest_negative",
            "d.masked_fill(equal, math.inf).amin(dim=1)",
            "d.masked_fill(equal, -math.inf).amax(dim=1)",
            "this is the furthest negative; the hardest one is the nearest.",
        ),
        (
            "active_only",
            "return losses.mean() if len(losses)",
            "losses = losses[losses > 0]\n    return losses.mean() if len(losses)",
            "you average over the anchors with a loss above 0 only; solved ones count as 0.",
        ),
        (
            "everybody_counts",
            "    losses = F.relu(margin + hardest_positive[counts] - hardest_negative[counts])\n"
            "    return losses.mean() if len(losses) else z.sum() * 0",
            "    losses = F.relu(margin + hardest_positive[counts] - hardest_negative[counts])\n"
            "    return losses.sum() / len(z)",
            "you divide by all N; anchors without a positive or without a negative do not count.",
        ),
        (
            "root_of_zero",
            "d = torch.where(apart, squared, 1.0).sqrt() * apart",
            "d = squared.sqrt()",
            "the gradient is NaN: sqrt has an infinite slope at 0, and each point is at distance 0 from itself.",
        ),
        (
            "squared_distances",
            "d = torch.where(apart, squared, 1.0).sqrt() * apart",
            "d = squared",
            "these are squared distances: the root is missing.",
        ),
        (
            "normalised",
            "squared = (z[:, None] - z[None]).pow(2).sum(dim=2)",
            "z = F.normalize(z, dim=1)\n    squared = (z[:, None] - z[None]).pow(2).sum(dim=2)",
            "the embeddings are taken as they are; you normalised them.",
        ),
        (
            "no_hinge",
            "F.relu(margin + hardest_positive[counts] - hardest_negative[counts])",
            "margin + hardest_positive[counts] - hardest_negative[counts]",
            "without max(0, .) a solved anchor makes the loss negative.",
        ),
        (
            "margin_subtracted",
            "F.relu(margin + hardest_positive",
            "F.relu(-margin + hardest_positive",
            "the sign of the margin is wrong: the negative has to be further away by the margin.",
        ),
        (
            "default_margin",
            "margin: float = 0.2",
            "margin: float = 1.0",
            "the default margin is 0.2.",
        ),
    ),
    *wrong(
        "n_pair",
        (
            "normalised",
            "    logits = a @ p.T\n",
            "    logits = F.normalize(a, dim=1) @ F.normalize(p, dim=1).T\n",
            "you normalise the embeddings; N-pair keeps their lengths and pays for them with l2.",
        ),
        (
            "other_direction",
            "logits = a @ p.T",
            "logits = p @ a.T",
            "rows and columns are swapped: each anchor classifies among the positives, not the other way round.",
        ),
        (
            "length_not_squared",
            "torch.cat([a, p]).pow(2).sum(dim=1)",
            "torch.cat([a, p]).norm(dim=1)",
            "the regulariser is the mean *squared* length.",
        ),
        (
            "regulariser_of_anchors",
            "torch.cat([a, p]).pow(2).sum(dim=1)",
            "a.pow(2).sum(dim=1)",
            "the regulariser looks at the anchors only; it is the mean over all 2N embeddings.",
        ),
        (
            "regulariser_mean_of_numbers",
            "torch.cat([a, p]).pow(2).sum(dim=1)",
            "torch.cat([a, p]).pow(2).mean(dim=1)",
            "a squared length is the sum of the D squares, not their mean.",
        ),
        (
            "regulariser_summed",
            "lengths.mean()",
            "lengths.sum()",
            "the regulariser is the mean over the embeddings, yours is the sum.",
        ),
        (
            "regulariser_over_n",
            "lengths.mean()",
            "lengths.sum() / len(a)",
            "the regulariser is divided by N, but there are 2N embeddings.",
        ),
        (
            "no_regulariser",
            " + l2 * lengths.mean()",
            "",
            "the regulariser is missing.",
        ),
        (
            "summed",
            "F.cross_entropy(logits, labels)",
            'F.cross_entropy(logits, labels, reduction="sum")',
            "this is the sum over the anchors; the loss is their mean.",
        ),
        (
            "exp_overflows",
            "F.cross_entropy(logits, labels)",
            "(logits.exp().sum(dim=1).log() - logits.diagonal()).mean()",
            "exp() of a large dot product is infinite: F.cross_entropy or logsumexp takes the largest one out first.",
        ),
        (
            "one_over_all",
            "F.cross_entropy(logits, labels)",
            "(logits.flatten().logsumexp(dim=0) - logits.diagonal()).mean()",
            "the softmax runs over the whole table; each row has its own.",
        ),
    ),
]

RIGHT_PAIRS = [
    Right(
        "chopra_contrastive",
        "where",
        """
def chopra_contrastive(d, same, margin=1.0):
    return torch.where(same.bool(), d * d, (margin - d).clamp(min=0) ** 2).mean()
""",
    ),
    Right(
        "chopra_contrastive",
        "loop",
        """
def chopra_contrastive(d, same, margin=1.0):
    total = 0.0
    for distance, together in zip(d, same):
        total = total + (distance ** 2 if together else torch.clamp(margin - distance, min=0) ** 2)
    return total / len(d)
""",
    ),
    Right(
        "batch_hard_triplet",
        "loop",
        """
def batch_hard_triplet(z, y, margin=0.2):
    losses = []
    for a in range(len(z)):
        positives = [torch.linalg.vector_norm(z[a] - z[p]) for p in range(len(z)) if p != a and y[p] == y[a]]
        negatives = [torch.linalg.vector_norm(z[a] - z[n]) for n in range(len(z)) if y[n] != y[a]]
        if positives and negatives:
            losses.append(torch.clamp(margin + torch.stack(positives).max() - torch.stack(negatives).min(), min=0))
    return torch.stack(losses).mean() if losses else 0 * z.sum()
""",
    ),
    Right(
        "batch_hard_triplet",
        "cdist",
        """
def batch_hard_triplet(z, y, margin=0.2):
    d = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist")
    same = y.unsqueeze(0) == y.unsqueeze(1)
    other = ~same
    same = same & (torch.arange(len(y))[:, None] != torch.arange(len(y)))
    big = 1e6
    pull = torch.where(same, d, -big).max(1).values
    push = torch.where(other, d, big).min(1).values
    valid = (same.sum(1) > 0) & (other.sum(1) > 0)
    return (F.relu(pull - push + margin) * valid).sum() / valid.sum().clamp(min=1)
""",
    ),
    Right(
        "n_pair",
        "logsumexp",
        """
def n_pair(a, p, l2=0.0):
    scores = torch.einsum("id,jd->ij", a, p)
    loss = (torch.logsumexp(scores, 1) - scores.diagonal()).mean()
    return loss + l2 * (a.norm(dim=1).pow(2).mean() + p.norm(dim=1).pow(2).mean()) / 2
""",
    ),
    Right(
        "n_pair",
        "loop",
        """
def n_pair(a, p, l2=0.0):
    total = 0.0
    for i in range(len(a)):
        differences = torch.stack([a[i] @ (p[j] - p[i]) for j in range(len(p)) if j != i])
        total = total + F.softplus(torch.logsumexp(differences, 0))
        total = total + l2 * (a[i] @ a[i] + p[i] @ p[i]) / 2
    return total / len(a)
""",
    ),
]
