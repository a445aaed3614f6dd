"""Hidden checks of lab 2 (contrastive losses): one property each. Inputs are drawn anew for every hand-in."""

import torch
from torch import Tensor

from autograder.rubric import Draw, worth
from autograder.student import Student
from autograder.wire import Scattered


# -------------------------------------------------------------------------------------------- chopra_contrastive
def pairs(draw: Draw, n: int) -> tuple[Tensor, Tensor]:
    """Distances on both sides of the margin 1, and labels with both kinds on both sides."""
    d = torch.cat([draw.uniform(n, low=0.05, high=0.9), draw.uniform(n, low=1.2, high=3.0)])
    return d, torch.arange(2 * n) % 2


@worth(3, "chopra_contrastive", "both kinds of pairs, near and far, averaged over all")
def test_chopra_values(student: Student, draw: Draw) -> None:
    student.same(*pairs(draw, 6), 1.0)


@worth(1, "chopra_contrastive", "a pair of one kind only pays its own term")
def test_chopra_kinds(student: Student, draw: Draw) -> None:
    d, _ = pairs(draw, 5)
    for same in (torch.ones(10), torch.zeros(10)):
        student.same(d, same, 1.0)


@worth(1, "chopra_contrastive", "any margin; 1 when none is given")
def test_chopra_margin(student: Student, draw: Draw) -> None:
    d, same = pairs(draw, 5)
    student.same(d, same, margin=2.5)
    student.same(d, same)


@worth(2, "chopra_contrastive", "the gradient with respect to the distances")
def test_chopra_gradient(student: Student, draw: Draw) -> None:
    d, same = pairs(draw, 5)
    student.same(d.requires_grad_(), same, 1.5, grad=True)


@worth(1, "chopra_contrastive", "labels of type bool, one pair, float64; inputs stay as they are")
def test_chopra_edges(student: Student, draw: Draw) -> None:
    d, same = pairs(draw, 4)
    student.same(d, same.bool(), 1.0)
    student.same(d[:1].double(), torch.zeros(1), 1.0)
    student.pure(d, same, 2.0)


# -------------------------------------------------------------------------------------------- batch_hard_triplet
def three_classes(draw: Draw, n: int = 4) -> tuple[Tensor, Tensor]:
    """Three classes of n that overlap, in a random order."""
    y = torch.arange(3).repeat_interleave(n)[draw.permutation(3 * n)]
    return draw.normal(3 * n, 5) + y[:, None] * 0.4, y


@worth(3, "batch_hard_triplet", "the hardest positive and the hardest negative of every anchor")
def test_triplet_values(student: Student, draw: Draw) -> None:
    student.same(*three_classes(draw), 5.0)


@worth(2, "batch_hard_triplet", "solved anchors count as 0; margin 0.2 when none is given")
def test_triplet_solved(student: Student, draw: Draw) -> None:
    z, y = three_classes(draw)
    z[y == 0] += 30
    student.same(z, y, 0.5)
    student.same(z, y)


@worth(3, "batch_hard_triplet", "an anchor without a positive or without a negative does not count")
def test_triplet_alone(student: Student, draw: Draw) -> None:
    z, y = three_classes(draw, 3)
    y[draw.permutation(9)[:2]] = torch.tensor([7, 8])
    student.same(z, y, 5.0)
    student.same(z, torch.arange(9), 5.0)
    student.same(z, torch.zeros(9, dtype=torch.long), 5.0)


@worth(3, "batch_hard_triplet", "the gradient, also where two points coincide")
def test_triplet_gradient(student: Student, draw: Draw) -> None:
    z, y = three_classes(draw, 3)
    student.same(z.clone().requires_grad_(), y, 5.0, grad=True)
    twins = torch.cat([z, z[:1] + 30, z[:1] + 30])  # far away, so that nobody has two nearest negatives
    student.same(twins.requires_grad_(), torch.cat([y, torch.tensor([9, 9])]), 5.0, grad=True)


@worth(1, "batch_hard_triplet", "labels of any value, float64, memory with gaps; inputs stay as they are")
def test_triplet_edges(student: Student, draw: Draw) -> None:
    z, y = three_classes(draw, 2)
    student.same(Scattered(z.double()), 100 * y - 7, 5.0)
    student.pure(z, y, 1.0)


# -------------------------------------------------------------------------------------------------------- n_pair
@worth(2, "n_pair", "every anchor picks its own positive among all")
def test_n_pair_values(student: Student, draw: Draw) -> None:
    student.same(draw.normal(6, 8), draw.normal(6, 8))


@worth(1, "n_pair", "longer vectors count more: nothing is normalised")
def test_n_pair_lengths(student: Student, draw: Draw) -> None:
    lengths = draw.uniform(5, 1, low=0.2, high=3)
    student.same(draw.unit(5, 6) * lengths, draw.unit(5, 6))


@worth(2, "n_pair", "the regulariser: mean squared length of all 2N")
def test_n_pair_regulariser(student: Student, draw: Draw) -> None:
    a, p = 2 * draw.normal(4, 6), draw.normal(4, 6)
    student.same(a.requires_grad_(), p.requires_grad_(), l2=draw.integer(1, 9) / 10, grad=True)


@worth(1, "n_pair", "the gradient of anchors and positives")
def test_n_pair_gradient(student: Student, draw: Draw) -> None:
    student.same(draw.normal(5, 4).requires_grad_(), draw.normal(5, 4).requires_grad_(), grad=True)


@worth(1, "n_pair", "logits of 1000, two pairs, float64; inputs stay as they are")
def test_n_pair_edges(student: Student, draw: Draw) -> None:
    student.same(100 * draw.normal(3, 8), 100 * draw.normal(3, 8))
    student.same(draw.normal(2, 3, dtype=torch.float64), Scattered(draw.normal(2, 3, dtype=torch.float64)))
    student.pure(draw.normal(3, 4), draw.normal(3, 4), 0.1)


# ------------------------------------------------------------------------------------------------------ info_nce
@worth(3, "info_nce", "negatives of the batch: the other keys")
def test_info_nce_batch(student: Student, draw: Draw) -> None:
    student.same(draw.unit(6, 8), draw.unit(6, 8), None, 0.5)
    student.same(draw.unit(9, 4), draw.unit(9, 4), None, 1.0)


@worth(3, "info_nce", "negatives shared by all queries, (M, D), in place of the batch's")
def test_info_nce_queue(student: Student, draw: Draw) -> None:
    student.same(draw.unit(4, 6), draw.unit(4, 6), draw.unit(11, 6), 0.5)


@worth(2, "info_nce", "negatives of each query, (N, M, D)")
def test_info_nce_own(student: Student, draw: Draw) -> None:
    student.same(draw.unit(4, 6), draw.unit(4, 6), draw.unit(20, 6).view(4, 5, 6), 0.5)
    negs = 4 * draw.normal(3, 5, 6)
    student.same(draw.unit(3, 6).requires_grad_(), draw.unit(3, 6), negs.requires_grad_(), 0.5, grad=True)


@worth(1, "info_nce", "the temperature: 0.1 when none is given, any other when it is")
def test_info_nce_temperature(student: Student, draw: Draw) -> None:
    q, k = draw.unit(5, 6), draw.unit(5, 6)
    student.same(q, k)
    student.same(q, k, draw.unit(7, 6), tau=0.07)


@worth(2, "info_nce", "the lengths of queries, keys and negatives do not matter")
def test_info_nce_scale(student: Student, draw: Draw) -> None:
    lengths = 10.0 ** draw.uniform(5, 1, low=-2, high=2)
    student.same(draw.normal(5, 6) * lengths, 3 * draw.normal(5, 6), None, 0.5)
    student.same(draw.normal(5, 6), draw.normal(5, 6) * lengths, 4 * draw.normal(8, 6), 0.5)


@worth(2, "info_nce", "the gradient of queries, keys and negatives")
def test_info_nce_gradient(student: Student, draw: Draw) -> None:
    new = lambda *shape: draw.normal(*shape).requires_grad_()  # noqa: E731
    for negs in (None, new(6, 4)):
        student.same(new(3, 4), new(3, 4), negs, 0.5, grad=True)


@worth(1, "info_nce", "temperature 0.01: value and gradient stay finite and right")
def test_info_nce_cold(student: Student, draw: Draw) -> None:
    q = draw.normal(5, 4)
    k = (-q + 0.1 * draw.normal(5, 4)).requires_grad_()
    student.same(q.clone().requires_grad_(), k, q + 0.1 * draw.normal(5, 4), 0.01, grad=True)
    student.same(q.clone().requires_grad_(), k, None, 0.01, grad=True)


@worth(1, "info_nce", "one query, as many negatives as queries, float64, memory with gaps; inputs stay as they are")
def test_info_nce_edges(student: Student, draw: Draw) -> None:
    q, k, negs = (draw.unit(3, 6, dtype=torch.float64) for _ in range(3))
    student.same(q[:1], k[:1], negs, 0.5)
    student.same(Scattered(q), k, negs, 0.5)
    student.pure(2 * q, 2 * k, 2 * negs, 0.5)


# ------------------------------------------------------------------------------------------------ hcl_reweighted
def similarities(draw: Draw, a: int, m: int) -> tuple[Tensor, Tensor]:
    """Cosines: positives above most of the negatives, so that neither term vanishes."""
    return draw.uniform(a, low=0.3, high=0.9), draw.uniform(a, m, low=-0.6, high=0.8)


@worth(2, "hcl_reweighted", "beta = tau_plus = 0: InfoNCE")
def test_hcl_plain(student: Student, draw: Draw) -> None:
    student.same(*similarities(draw, 5, 7), 0.5, 0.0, 0.0)


@worth(2, "hcl_reweighted", "negatives weighed by hardness, with mean 1")
def test_hcl_hard(student: Student, draw: Draw) -> None:
    student.same(*similarities(draw, 5, 7), 1.0, 1.0, 0.0)
    student.same(*similarities(draw, 4, 9), 0.3, 2.0, 0.0)


@worth(2, "hcl_reweighted", "the correction for false negatives, and its floor; defaults 0.5, 1 and 0.1")
def test_hcl_debiased(student: Student, draw: Draw) -> None:
    pos, neg = similarities(draw, 5, 7)
    student.same(pos, neg, 0.5, 0.0, 0.1)
    student.same(pos, neg)
    student.same(pos, neg - 0.3, 0.5, 0.5, 0.6)


@worth(2, "hcl_reweighted", "the gradient, through the weights too")
def test_hcl_gradient(student: Student, draw: Draw) -> None:
    pos, neg = similarities(draw, 5, 7)
    student.same(pos.requires_grad_(), neg.requires_grad_(), 0.5, 1.0, 0.02, grad=True)


@worth(1, "hcl_reweighted", "temperature 0.01: value and gradient stay finite and right")
def test_hcl_cold(student: Student, draw: Draw) -> None:
    pos, neg = similarities(draw, 6, 5)
    pos[0], pos[1] = -0.4, 0.99
    neg[[0, 2], 0] = draw.uniform(2, low=0.93, high=0.99)
    pos[3], neg[3] = -0.5, draw.uniform(5, low=-0.9, high=-0.5)  # far below the others: each anchor shifts by its own
    student.same(pos.requires_grad_(), neg.requires_grad_(), 0.01, 1.0, 0.1, grad=True)
    student.same(pos, neg, 0.01, 0.5, 0.0, grad=True)


@worth(1, "hcl_reweighted", "one anchor, one negative, float64, memory with gaps; inputs stay as they are")
def test_hcl_edges(student: Student, draw: Draw) -> None:
    pos, neg = similarities(draw, 3, 4)
    student.same(pos[:1], neg[:1, :1], 0.5, 1.0, 0.0)
    student.same(pos.double(), Scattered(neg.double()), 0.5, 1.0, 0.1)
    student.pure(pos, neg, 0.5, 1.0, 0.1)


# ---------------------------------------------------------------------------------------------- mochi_synthesize
def mixtures(student: Student, draw: Draw, s1: int, s2: int, *, n_hard: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """The student's mixtures of 3 queries and 20 negatives in 12 dimensions; unit queries, their hardest negatives."""
    q, negs = draw.normal(3, 12) * 2, draw.normal(20, 12) * draw.uniform(20, 1, low=0.3, high=3)
    made = vectors(student, (3, s1 + s2, 12), student(q, negs, n_hard, s1, s2, draw.generator()))
    unit_q, unit = (torch.nn.functional.normalize(t, dim=1) for t in (q, negs))
    return made, unit_q, unit[(unit_q @ unit.T).topk(n_hard, dim=1).indices]


def vectors(student: Student, shape: tuple[int, ...], made: object) -> Tensor:
    """What the student returned, if it has the right shape and type and is finite."""
    if not isinstance(made, Tensor) or made.shape != shape or made.dtype != torch.float32 or made.isnan().any():
        student.wrong("return a finite tensor of shape (B, s1 + s2, D) and of the type of the input.")
    return made


def shares(made: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The share of `first` in each mixture (S, D) of two unit vectors (D,); NaN where it is no such mixture."""
    basis = torch.stack([first, second], dim=1)
    weights = torch.linalg.lstsq(basis, made.T).solution
    off = (basis @ weights - made.T).norm(dim=0) > 1e-3 * made.norm(dim=1)
    bad = off | (weights < -1e-3).any(dim=0) | (made.norm(dim=1) < 1e-6)
    return (weights[0] / weights.sum(dim=0)).masked_fill(bad, torch.nan)


@worth(1, "mochi_synthesize", "unit vectors, s1 + s2 for every query; s1 or s2 may be 0")
def test_mochi_unit(student: Student, draw: Draw) -> None:
    for s1, s2 in ((3, 5), (0, 4), (4, 0)):
        made, _, _ = mixtures(student, draw, s1, s2)
        if (made.norm(dim=2) - 1).abs().max() > 1e-4:
            student.wrong("the mixtures are not of length 1: normalise after mixing.")


@worth(2, "mochi_synthesize", "the s1: between two of the n_hard most similar negatives, any two of them")
def test_mochi_between(student: Student, draw: Draw) -> None:
    made, _, hard = mixtures(student, draw, 160, 1)
    for rows, h in zip(made[:, :160], hard, strict=True):
        found = torch.stack([shares(rows, h[i], h[j]) for i in range(4) for j in range(i)])
        if not bool((~found.isnan()).any(dim=0).all()):
            student.wrong("one of the first s1 is no mixture of two of the n_hard most (cosine-)similar negatives.")
        if not bool((~found.isnan()).any(dim=1).all()):
            student.wrong("some pairs of hard negatives are never mixed: draw both partners at random.")


@worth(1, "mochi_synthesize", "alpha is uniform in (0, 1), drawn for every mixture")
def test_mochi_alpha(student: Student, draw: Draw) -> None:
    made, _, hard = mixtures(student, draw, 150, 1, n_hard=2)
    spread = torch.stack([shares(rows, h[0], h[1]) for rows, h in zip(made[:, :150], hard, strict=True)]).flatten()
    inner = spread[(spread > 0.001) & (spread < 0.999)]
    parts = [((inner >= low) & (inner < low + 0.2)).float().mean() for low in (0.0, 0.4, 0.8)]  # a fifth each
    if len(inner) < 100 or min(parts) < 0.08:
        student.wrong("the coefficients do not spread over (0, 1): draw one for every mixture.")


@worth(2, "mochi_synthesize", "the s2: between the query and a hard negative, the query's share below one half")
def test_mochi_query(student: Student, draw: Draw) -> None:
    made, q, hard = mixtures(student, draw, 1, 120)
    picked = []
    for rows, own, h in zip(made[:, 1:], q, hard, strict=True):
        found = torch.stack([shares(rows, own, h[i]) for i in range(4)])
        if not bool((~found.isnan()).any(dim=0).all()):
            student.wrong("one of the last s2 is no mixture of its query and one of the hardest negatives.")
        share, which = found.nan_to_num(0).max(dim=0)
        picked.append(which)
        if share.max() > 0.501 or share.max() < 0.4 or share.min() > 0.1:
            student.wrong("the query's shares do not spread over (0, 0.5): draw one for every mixture, below one half.")
    if torch.equal(picked[0], picked[1]):
        student.wrong("all queries mix the same places of their ranking: every query draws its own partners.")


@worth(1, "mochi_synthesize", "all dice come from rng; inputs stay as they are")
def test_mochi_random(student: Student, draw: Draw) -> None:
    q, negs, first, second = draw.normal(2, 6), draw.normal(9, 6), draw.generator(), draw.generator()
    student.pure(q, negs, 3, 4, 4, first)
    made, again, other = (vectors(student, (2, 8, 6), student(q, negs, 3, 4, 4, g)) for g in (first, first, second))
    if not torch.equal(made, again):
        student.wrong("the same generator gave other mixtures: draw everything from rng.")
    if torch.equal(made, other):
        student.wrong("another generator gave the same mixtures: draw from rng.")
    if len(made.flatten(0, 1).unique(dim=0)) < 12:
        student.wrong("mixtures repeat: every query and every mixture draws its own partners and coefficients.")


@worth(1, "mochi_synthesize", "no gradient flows into the mixtures")
def test_mochi_gradient(student: Student, draw: Draw) -> None:
    q, negs = draw.normal(2, 6).requires_grad_(), draw.normal(7, 6).requires_grad_()
    got = student.outcome(q, negs, 3, 2, 2, draw.generator(), grad=True)
    if any(g is not None for g in got.grads or []):
        student.wrong("a gradient flows from the mixtures to the query or the negatives: use torch.no_grad().")
    if (vectors(student, (2, 4, 6), got.value).norm(dim=2) - 1).abs().max() > 1e-4:
        student.wrong("the mixtures are not of length 1.")


# -------------------------------------------------------------------------------------------------- mixup_cutmix
def batch(draw: Draw, h: int = 6, w: int = 8, b: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Images that are not square, labels that are not one-hot, a permutation without fixed order."""
    return draw.normal(b, 3, h, w), torch.softmax(draw.normal(b, 4), dim=1), draw.permutation(b)


@worth(2, "mixup_cutmix", "mixup: images and labels with one share an image")
def test_mixup_values(student: Student, draw: Draw) -> None:
    x, y, perm = batch(draw)
    student.same(x, y, draw.uniform(5, low=0.1, high=0.9), perm)
    student.same(x, y, 0.3, perm, "mixup")


@worth(2, "mixup_cutmix", "cutmix: a box of the right size in the middle, from the right partner")
def test_cutmix_box(student: Student, draw: Draw) -> None:
    x, y, perm = batch(draw, 12, 12)
    sides = 2 * draw.integers(1, 6, 5) + draw.uniform(5, low=0.1, high=0.9)  # even: no edge on a pixel's centre
    _part(student, 0, x, y, 0.75, perm, "cutmix")
    _part(student, 0, x, y, 1 - (sides / 12) ** 2, perm, "cutmix")


@worth(2, "mixup_cutmix", "cutmix: boxes anywhere, cut off at the border, in images that are not square")
def test_cutmix_places(student: Student, draw: Draw) -> None:
    lam, center = draw.uniform(5, low=0.2, high=0.8), draw.uniform(5, 2)
    x, y, perm = batch(draw, 10, 17)
    _part(student, 0, x, y, lam, perm, "cutmix", center=center)


@worth(2, "mixup_cutmix", "cutmix: the labels take the share of pixels that stayed")
def test_cutmix_labels(student: Student, draw: Draw) -> None:
    corner = torch.tensor([[0.01, 0.02], [0.99, 0.11], [0.06, 0.91], [0.94, 0.98], [0.51, 0.02]])
    x, y, perm = batch(draw, 10, 17)
    _part(student, 1, x, y, 0.5, perm, "cutmix", center=corner)


@worth(1, "mixup_cutmix", "the gradient of the images, lam of 0 and 1")
def test_mixup_gradient(student: Student, draw: Draw) -> None:
    x, y, perm = batch(draw)
    student.same(x.clone().requires_grad_(), y, 0.4, perm, grad=True)
    student.same(x.requires_grad_(), y, 0.4, perm, "cutmix", grad=True)
    for lam, mode in ((0.0, "cutmix"), (1.0, "cutmix"), (1.0, "mixup")):
        student.same(x, y, lam, perm, mode)


@worth(
    1, "mixup_cutmix", "one image, one channel, float64, memory with gaps; inputs stay as they are, no dice of its own"
)
def test_mixup_edges(student: Student, draw: Draw) -> None:
    x, y, perm = batch(draw, 5, 4, 3)
    student.same(Scattered(x.double()), y.double(), 0.25, perm, "mixup")
    student.same(x[:1, :1], y[:1], 0.6, torch.zeros(1, dtype=torch.long), "cutmix")
    student.pure(x, y, 0.3, perm, "mixup")
    student.pure(x, y, 0.3, perm, "cutmix")


def _part(student: Student, part: int, *args: object, **kwargs: object) -> None:
    """Only the images (0), or only the labels (1), have to be right."""
    got, want = student(*args, **kwargs), student.reference(*args, **kwargs)[part]
    if not isinstance(got, tuple | list) or len(got) != 2 or not isinstance(got[part], Tensor):
        student.wrong("return two tensors: images and labels.")
    if got[part].shape != want.shape or not torch.allclose(got[part].to(want.dtype), want, atol=1e-5):
        names = (
            "images: the boxes are not where they should be, or not the partner's",
            "labels: count the pixels that stayed",
        )
        student.wrong(f"wrong {names[part]}.")


# ---------------------------------------------------------------------------------------------------- prediction
@worth(5, "prediction", "complete, and possible")
def test_prediction(answer: object) -> None:
    assert isinstance(answer, dict), "write the prediction as a dict of plain values."
    number = answer.get("negatives_at_0.02")
    possible = isinstance(number, int | float) and 1 <= number <= 1023
    assert possible, "negatives_at_0.02 is a number between 1 and 1023."
    assert answer.get("half_at") in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0), "half_at is one of the six temperatures."
    assert answer.get("least_even") in ("pairs", "triplet", "info_nce"), "least_even is one of the three losses."
    assert len(str(answer.get("why") or "").split()) >= 5, "why: say it in a sentence."
