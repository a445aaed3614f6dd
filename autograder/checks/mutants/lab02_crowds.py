"""Known-wrong and other right answers of lab 2: InfoNCE and its hard negatives."""

from autograder.checks.mutants import wrong
from autograder.rubric import Right

WRONG_CROWDS = [
    *wrong(
        "info_nce",
        (
            "q_not_normalised",
            "q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)",
            "k = F.normalize(k, dim=1)",
            "the queries are not of unit length.",
        ),
        (
            "k_not_normalised",
            "q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)",
            "q = F.normalize(q, dim=1)",
            "the keys are not of unit length.",
        ),
        (
            "not_normalised",
            "    q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)\n",
            "",
            "these are plain dot products: normalise queries and keys.",
        ),
        (
            "negatives_not_normalised",
            "        negs = F.normalize(negs, dim=-1)\n",
            "",
            "the negatives that you are given are not normalised yet.",
        ),
        (
            "negatives_normalised_over_m",
            "negs = F.normalize(negs, dim=-1)",
            "negs = F.normalize(negs, dim=1)",
            "with negatives of shape (N, M, D) dim=1 runs over the M: the vector lies along the last dimension.",
        ),
        (
            "tau_multiplied",
            "F.cross_entropy(logits / tau, positive)",
            "F.cross_entropy(logits * tau, positive)",
            "the temperature multiplies the logits; it has to divide them.",
        ),
        (
            "tau_squared",
            "F.cross_entropy(logits / tau, positive)",
            "F.cross_entropy(logits / tau**2, positive)",
            "the temperature divides twice: once for the queries and once for the keys?",
        ),
        ("no_tau", "logits / tau", "logits", "the temperature is missing."),
        (
            "keys_stay_as_negatives",
            "logits = torch.cat([to_positive, to_negatives], dim=1)",
            "others = (q @ k.T)[~torch.eye(len(q), dtype=torch.bool)].view(len(q), -1)\n"
            "        logits = torch.cat([to_positive, to_negatives, others], dim=1)",
            "given negatives replace those of the batch; you use both.",
        ),
        (
            "positive_twice",
            "logits = torch.cat([to_positive, to_negatives], dim=1)",
            "logits = torch.cat([to_positive, to_positive, to_negatives], dim=1)",
            "the positive stands among the negatives, too: it is counted twice below the fraction bar.",
        ),
        (
            "all_keys_and_positive",
            "logits = q @ k.T\n        positive = torch.arange(len(q), device=q.device)",
            "logits = torch.cat([(q * k).sum(dim=1, keepdim=True), q @ k.T], dim=1)\n"
            "        positive = torch.zeros(len(q), dtype=torch.long)",
            "the positive stands among the negatives, too: with negs=None only the *other* keys are negatives.",
        ),
        (
            "positive_missing_below",
            "    return F.cross_entropy(logits / tau, positive)",
            "    rows = torch.arange(len(q))\n"
            "    chosen = F.one_hot(positive, logits.shape[1]).bool()\n"
            "    below = (logits / tau).masked_fill(chosen, -math.inf).logsumexp(dim=1)\n"
            "    return (below - logits[rows, positive] / tau).mean()",
            "the positive is missing below the fraction bar: the candidates are the positive and the negatives.",
        ),
        (
            "labels_of_a_queue",
            "positive = torch.arange(len(q), device=q.device)",
            "positive = torch.zeros(len(q), dtype=torch.long)",
            "with negs=None the positive of query i stands in column i; your label is 0 for all.",
        ),
        (
            "labels_of_a_batch",
            "positive = torch.zeros(len(q), dtype=torch.long, device=q.device)",
            "positive = torch.arange(len(q)).clamp_max(logits.shape[1] - 1)",
            "with given negatives the positive stands in column 0 of every row.",
        ),
        (
            "first_query_for_all",
            'torch.einsum("nd,nmd->nm", q, negs)',
            "q @ negs[0].T",
            "all queries are compared with the negatives of the first one.",
        ),
        (
            "pairs_of_queries",
            "logits = q @ k.T",
            "logits = q @ q.T",
            "the queries are compared with each other; the candidates are the keys.",
        ),
        (
            "other_direction",
            "logits = q @ k.T",
            "logits = k @ q.T",
            "keys pick queries here; each query picks its key: rows are queries.",
        ),
        (
            "summed",
            "F.cross_entropy(logits / tau, positive)",
            'F.cross_entropy(logits / tau, positive, reduction="sum")',
            "this is the sum over the queries; the loss is their mean.",
        ),
        (
            "exp_overflows",
            "    return F.cross_entropy(logits / tau, positive)",
            "    e = (logits / tau).exp()\n    return -(e[torch.arange(len(q)), positive] / e.sum(dim=1)).log().mean()",
            "exp() of a logit of 100 is infinite, and of -100 it is 0: let F.cross_entropy take the exponentials.",
        ),
        (
            "keys_detached",
            "F.normalize(k, dim=1)",
            "F.normalize(k.detach(), dim=1)",
            "a detach() keeps the gradient from the keys: whether they learn is the method's business, not the loss's.",
        ),
        (
            "negatives_detached",
            "negs = F.normalize(negs, dim=-1)",
            "negs = F.normalize(negs.detach(), dim=-1)",
            "a detach() keeps the gradient from the negatives.",
        ),
        ("default_tau", "tau: float = 0.1", "tau: float = 0.5", "the default temperature is 0.1."),
    ),
    *wrong(
        "hcl_reweighted",
        (
            "weights_sum_one",
            "weights = m * torch.softmax(beta * neg, dim=1)",
            "weights = torch.softmax(beta * neg, dim=1)",
            "the weights have sum 1; they have to have mean 1, that is sum M.",
        ),
        (
            "weights_not_normalised",
            "weights = m * torch.softmax(beta * neg, dim=1)",
            "weights = torch.exp(beta * neg)",
            "the weights are not divided by their mean.",
        ),
        (
            "weights_over_anchors",
            "torch.softmax(beta * neg, dim=1)",
            "torch.softmax(beta * neg, dim=0) * len(neg) / m",
            "the weights are normalised over the anchors; each anchor has its own.",
        ),
        (
            "beta_without_tau",
            "torch.softmax(beta * neg, dim=1)",
            "torch.softmax(beta * tau * neg, dim=1)",
            "beta multiplies s, but the weight is exp(beta s / tau): the temperature is missing.",
        ),
        (
            "correction_added",
            "negatives - tau_plus * m * positive",
            "negatives + tau_plus * m * positive",
            "the expected false negatives are added; they have to be subtracted.",
        ),
        (
            "correction_without_m",
            "tau_plus * m * positive",
            "tau_plus * positive",
            "the correction is for one negative; there are M of them.",
        ),
        (
            "not_rescaled",
            " / (1 - tau_plus)",
            "",
            "after the subtraction the rest has to be divided by 1 - tau_plus.",
        ),
        (
            "no_floor",
            "(positive + torch.maximum(debiased, floor)).log()",
            "(positive + debiased).log()",
            "without the floor M exp(-1 / tau) the corrected negatives can become negative, and the logarithm NaN.",
        ),
        (
            "floor_at_zero",
            "floor = m * (-1 / tau - shift).exp()",
            "floor = torch.zeros_like(pos)",
            "the floor is M exp(-1 / tau), not 0.",
        ),
        (
            "floor_without_m",
            "floor = m * (-1 / tau - shift).exp()",
            "floor = (-1 / tau - shift).exp()",
            "the floor is for one negative; there are M of them.",
        ),
        (
            "weights_detached",
            "torch.softmax(beta * neg, dim=1)",
            "torch.softmax(beta * neg, dim=1).detach()",
            "the value is right, but the weights are cut out of the graph: here the gradient flows through them.",
        ),
        (
            "positive_missing_below",
            "(positive + torch.maximum(debiased, floor)).log()",
            "torch.maximum(debiased, floor).log()",
            "the positive is missing below the fraction bar.",
        ),
        (
            "exp_overflows",
            "shift = torch.maximum(pos, neg.amax(dim=1)).detach()",
            "shift = torch.zeros_like(pos)",
            "exp() overflows at a small temperature: subtract the largest logit of the anchor from all its exponents.",
        ),
        (
            "log_of_zero",
            "return ((positive + torch.maximum(debiased, floor)).log() - (pos - shift)).mean()",
            "return -(positive / (positive + torch.maximum(debiased, floor))).log().mean()",
            "exp(s_+ / tau - c) of a far positive is 0, and its logarithm infinite: use s_+ / tau - c itself.",
        ),
        (
            "shift_of_positive",
            "shift = torch.maximum(pos, neg.amax(dim=1)).detach()",
            "shift = pos.detach()",
            "you subtract the positive's logit; where a negative is larger, its exponential still overflows.",
        ),
        (
            "summed",
            "(pos - shift)).mean()",
            "(pos - shift)).sum()",
            "this is the sum over the anchors; the loss is their mean.",
        ),
        (
            "defaults",
            "beta: float = 1.0, tau_plus: float = 0.1",
            "beta: float = 0.0, tau_plus: float = 0.0",
            "the defaults are beta = 1 and tau_plus = 0.1.",
        ),
    ),
]

RIGHT_CROWDS = [
    Right(
        "info_nce",
        "loop",
        """
def info_nce(q, k, negs=None, tau=0.1):
    unit = lambda v: v / v.norm()
    losses = []
    for i in range(len(q)):
        if negs is None:
            others = [k[j] for j in range(len(k)) if j != i]
        else:
            others = list(negs) if negs.dim() == 2 else list(negs[i])
        logits = torch.stack([unit(q[i]) @ unit(c) / tau for c in [k[i], *others]])
        losses.append(torch.logsumexp(logits, 0) - logits[0])
    return torch.stack(losses).mean()
""",
    ),
    Right(
        "info_nce",
        "cosine",
        """
def info_nce(q, k, negs=None, tau=0.1):
    positive = F.cosine_similarity(q, k, dim=-1)
    if negs is None:
        table = F.cosine_similarity(q[:, None], k[None], dim=-1)
    else:
        given = negs if negs.ndim == 3 else negs.expand(len(q), *negs.shape)
        table = torch.cat([positive[:, None], F.cosine_similarity(q[:, None], given, dim=-1)], 1)
    return (torch.logsumexp(table / tau, dim=1) - positive / tau).mean()
""",
    ),
    Right(
        "hcl_reweighted",
        "log_domain",
        """
def hcl_reweighted(pos, neg, tau=0.5, beta=1.0, tau_plus=0.1):
    m, p, n = neg.shape[1], pos / tau, neg / tau
    log_negatives = math.log(m) + torch.logsumexp((1 + beta) * n, 1) - torch.logsumexp(beta * n, 1)
    floor = torch.full_like(p, math.log(m) - 1 / tau)
    ratio = tau_plus * m * torch.exp((p - log_negatives).clamp(max=math.log(1e6)))
    left = 1 - ratio
    log_debiased = log_negatives + torch.where(left > 0, left, 1.0).log() - math.log(1 - tau_plus)
    log_debiased = torch.where(left > 0, log_debiased, floor)
    return (torch.logaddexp(p, torch.maximum(log_debiased, floor)) - p).mean()
""",
    ),
    Right(
        "hcl_reweighted",
        "loop",
        """
def hcl_reweighted(pos, neg, tau=0.5, beta=1.0, tau_plus=0.1):
    losses = []
    for p, row in zip(pos / tau, neg / tau):
        m, top = len(row), max(float(p), float(row.max()))
        weight = torch.exp(beta * (row - row.max()))
        weight = weight / weight.mean()
        ng = (weight * torch.exp(row - top)).sum() - tau_plus * m * torch.exp(p - top)
        ng = torch.clamp(ng / (1 - tau_plus), min=m * math.exp(-1 / tau - top))
        losses.append(torch.log(torch.exp(p - top) + ng) - (p - top))
    return torch.stack(losses).mean()
""",
    ),
]
