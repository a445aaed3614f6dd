"""Known-wrong and other right answers of lab 2. A wrong one is one edit of the solution's cell."""

from autograder.checks.mutants import wrong
from autograder.checks.mutants.lab02_crowds import RIGHT_CROWDS, WRONG_CROWDS
from autograder.checks.mutants.lab02_pairs import RIGHT_PAIRS, WRONG_PAIRS
from autograder.rubric import Right

__all__ = ["EQUIVALENT", "RIGHT", "RIGHT_CROWDS", "RIGHT_PAIRS", "WRONG", "WRONG_CROWDS", "WRONG_PAIRS"]

WRONG = [
    *wrong(
        "mochi_synthesize",
        (
            "not_normalised_again",
            "return F.normalize(torch.cat([between, towards_query], dim=1), dim=2)",
            "return torch.cat([between, towards_query], dim=1)",
            "a mixture of two unit vectors is shorter than 1: normalise again.",
        ),
        (
            "query_can_dominate",
            "beta = 0.5 * torch.rand(len(q), s2, 1, generator=rng)",
            "beta = torch.rand(len(q), s2, 1, generator=rng)",
            "the query's share goes up to 1, which makes a positive of the negative: it stays below one half.",
        ),
        (
            "query_and_negative_swapped",
            "beta * q[:, None] + (1 - beta) * pick(s2)",
            "(1 - beta) * q[:, None] + beta * pick(s2)",
            "beta is the share of the query, so the negative has 1 - beta; yours are swapped.",
        ),
        (
            "gradient_flows",
            "with torch.no_grad():",
            "with torch.enable_grad():",
            "a gradient flows from the synthetic negatives to query and queue: make them under torch.no_grad().",
        ),
        (
            "easiest",
            "topk(n_hard, dim=1)",
            "topk(n_hard, dim=1, largest=False)",
            "these are the least similar negatives.",
        ),
        (
            "all_negatives",
            "chosen = torch.randint(n_hard, (len(q), count), generator=rng)\n"
            "        return negs[hardest.gather(1, chosen)]",
            "return negs[torch.randint(len(negs), (len(q), count), generator=rng)]",
            "the partners come from all negatives; only the n_hard most similar ones are mixed.",
        ),
        (
            "ranked_by_dot_product",
            "q, negs = F.normalize(q, dim=1), F.normalize(negs, dim=1)\n"
            "        hardest = (q @ negs.T).topk(n_hard, dim=1).indices",
            "hardest = (q @ negs.T).topk(n_hard, dim=1).indices\n"
            "        q, negs = F.normalize(q, dim=1), F.normalize(negs, dim=1)",
            "the ranking uses plain dot products, so long negatives win: normalise first.",
        ),
        (
            "not_normalised_first",
            "        q, negs = F.normalize(q, dim=1), F.normalize(negs, dim=1)\n",
            "",
            "query and negatives are not normalised before they are ranked and mixed.",
        ),
        (
            "hardest_of_the_first_query",
            "return negs[hardest.gather(1, chosen)]",
            "return negs[hardest[:1].expand(len(q), -1).gather(1, chosen)]",
            "all queries get the hard negatives of the first one.",
        ),
        (
            "one_draw_for_all_queries",
            "torch.randint(n_hard, (len(q), count), generator=rng)",
            "torch.randint(n_hard, (1, count), generator=rng).expand(len(q), -1)",
            "all queries mix the same places of their ranking: every query draws its own partners.",
        ),
        (
            "constant_alpha",
            "alpha = torch.rand(len(q), s1, 1, generator=rng)",
            "alpha = torch.full((len(q), s1, 1), 0.5)",
            "alpha is a constant: draw one from (0, 1) for every mixture.",
        ),
        (
            "one_beta",
            "beta = 0.5 * torch.rand(len(q), s2, 1, generator=rng)",
            "beta = 0.5 * torch.rand(1, 1, 1, generator=rng)",
            "all mixtures share one coefficient: draw one for every mixture.",
        ),
        (
            "with_itself",
            "between = alpha * pick(s1) + (1 - alpha) * pick(s1)",
            "partner = pick(s1)\n        between = alpha * partner + (1 - alpha) * partner",
            "a hard negative is mixed with itself: draw two partners.",
        ),
        (
            "global_dice",
            "chosen = torch.randint(n_hard, (len(q), count), generator=rng)",
            "chosen = torch.randint(n_hard, (len(q), count))",
            "partners or coefficients come from the global generator: pass generator=rng everywhere.",
        ),
        (
            "order",
            "torch.cat([between, towards_query], dim=1)",
            "torch.cat([towards_query, between], dim=1)",
            "the order is wrong: first the s1 mixtures of two negatives, then the s2 with the query.",
        ),
    ),
    *wrong(
        "mixup_cutmix",
        (
            "side_of_lam",
            "(1 - lam).sqrt()",
            "lam.sqrt()",
            "the box has sides sqrt(lam); the pasted share is 1 - lam, so its sides are sqrt(1 - lam).",
        ),
        (
            "no_root",
            "((1 - lam).sqrt() * length)",
            "((1 - lam) * length)",
            "sides of 1 - lam make an area of (1 - lam)^2: the root is missing.",
        ),
        (
            "lam_not_recomputed",
            "        lam = keep.mean(dim=(1, 2, 3))\n",
            "",
            "the labels still use the lam that was asked for: count the pixels that really stayed.",
        ),
        (
            "lam_of_the_box",
            "lam = keep.mean(dim=(1, 2, 3))",
            "lam = 1 - keep.mean(dim=(1, 2, 3))",
            "the labels take the share of the pasted pixels; they keep the share of those that stayed.",
        ),
        (
            "labels_swapped",
            "share * y + (1 - share) * y[perm]",
            "(1 - share) * y + share * y[perm]",
            "the labels are mixed the wrong way round: the image itself has the share lam.",
        ),
        (
            "images_swapped",
            "keep * x + (1 - keep) * x[perm]",
            "(1 - keep) * x + keep * x[perm]",
            "the images are mixed the wrong way round: the image itself has the share lam.",
        ),
        (
            "labels_not_permuted",
            "(1 - share) * y[perm]",
            "(1 - share) * y.flip(0)",
            "the labels come from other partners than the images: use the same perm for both.",
        ),
        (
            "inverse_permutation",
            "x[perm]",
            "x[perm.argsort()]",
            "the images come from the inverse permutation: the partner of i is perm[i].",
        ),
        (
            "black_box",
            "keep * x + (1 - keep) * x[perm]",
            "keep * x",
            "the box is black (that is Cutout): paste the partner's pixels into it.",
        ),
        (
            "down_and_right_swapped",
            "middle[:, axis, None] * length",
            "middle[:, 1 - axis, None] * length",
            "rows and columns of the centre are swapped: (down, right).",
        ),
        (
            "one_box_for_all",
            "inside.append((pixels - middle[:, axis, None] * length).abs() < half[:, None])",
            "inside.append(((pixels - middle[:, axis, None] * length).abs() < half[:, None])[:1].expand(len(x), -1))",
            "every image gets the box of the first one.",
        ),
        (
            "side_not_halved",
            ".floor() / 2",
            ".floor()",
            "the distance from the centre is compared with the whole side; half of it belongs to each direction.",
        ),
        (
            "not_rounded_down",
            "((1 - lam).sqrt() * length).floor() / 2",
            "((1 - lam).sqrt() * length).ceil() / 2",
            "sides are rounded down to whole pixels; yours are rounded up.",
        ),
        (
            "pixel_corners",
            "torch.arange(length) + 0.5",
            "torch.arange(length).float()",
            "a pixel counts by its centre, at r + 0.5; you use its corner, at r.",
        ),
        (
            "side_of_the_height",
            "((1 - lam).sqrt() * length).floor()",
            "((1 - lam).sqrt() * x.shape[2]).floor()",
            "both sides of the box are measured in the height: each is a share of its own side of the image.",
        ),
        (
            "one_share",
            "share = lam[:, None].to(y.dtype)",
            "share = lam.mean().to(y.dtype)",
            "the labels of all images are mixed with one share; each image has its own.",
        ),
        (
            "in_place",
            "    share = lam[:, None].to(y.dtype)\n",
            "    share = lam[:, None].to(y.dtype)\n    y.data.mul_(1 - 1e-3)\n",
            "the caller's labels are changed in place: make new tensors.",
        ),
    ),
]

RIGHT = [
    Right(
        "mochi_synthesize",
        "loop",
        """
def mochi_synthesize(q, negs, n_hard, s1, s2, rng):
    unit = lambda v: v / v.norm()
    coin = lambda: torch.rand(1, generator=rng)
    rows = []
    for query in q.detach():
        query = unit(query)
        near = sorted((unit(n) for n in negs.detach()), key=lambda n: -float(n @ query))[:n_hard]
        pick = lambda: near[int(torch.randint(len(near), (1,), generator=rng))]
        for _ in range(s1):
            a = coin()
            rows.append(unit(a * pick() + (1 - a) * pick()))
        for _ in range(s2):
            b = coin() / 2
            rows.append(unit(b * query + (1 - b) * pick()))
    return torch.stack(rows).view(len(q), s1 + s2, -1)
""",
    ),
    Right(
        "mochi_synthesize",
        "two_different_partners",
        """
def mochi_synthesize(q, negs, n_hard, s1, s2, rng):
    q, negs = F.normalize(q.detach(), dim=1), F.normalize(negs.detach(), dim=1)
    order = (q @ negs.T).argsort(dim=1, descending=True)[:, :n_hard]
    hard = negs[order]
    b = torch.arange(len(q))[:, None]
    w = torch.rand(len(q), s2, generator=rng)[..., None].mul(0.5)
    last = hard[b, torch.randint(0, n_hard, (len(q), s2), generator=rng)].lerp(q[:, None].expand(-1, s2, -1), w)
    i = torch.randint(0, n_hard, (len(q), s1), generator=rng)
    j = (i + torch.randint(min(1, n_hard - 1), max(n_hard, 2) - (n_hard == 1), (len(q), s1), generator=rng)) % n_hard
    a = torch.rand(len(q), s1, generator=rng)[..., None]
    first = a * hard[b, i] + (1 - a) * hard[b, j]
    out = torch.cat((first, last), 1)
    return out / out.norm(dim=-1, keepdim=True)
""",
    ),
    Right(
        "mixup_cutmix",
        "loop",
        """
def mixup_cutmix(x, y, lam, perm, mode="mixup", *, center=None):
    images, labels = [], []
    for b in range(len(x)):
        share = float(lam[b]) if isinstance(lam, Tensor) and lam.ndim else float(lam)
        partner = int(perm[b])
        if mode == "mixup":
            image = share * x[b] + (1 - share) * x[partner]
        else:
            h, w = x.shape[-2:]
            cy, cx = (0.5, 0.5) if center is None else center[b].tolist()
            image, taken = x[b].clone(), 0
            side = math.sqrt(1 - share)
            for r in range(h):
                for c in range(w):
                    if abs(r + 0.5 - cy * h) < int(side * h) / 2 and abs(c + 0.5 - cx * w) < int(side * w) / 2:
                        image[:, r, c] = x[partner, :, r, c]
                        taken += 1
            share = 1 - taken / (h * w)
        images.append(image)
        labels.append(share * y[b] + (1 - share) * y[partner])
    return torch.stack(images), torch.stack(labels)
""",
    ),
    Right(
        "mixup_cutmix",
        "where",
        """
def mixup_cutmix(x, y, lam, perm, mode="mixup", *, center=None):
    b, _, h, w = x.shape
    lam = lam if isinstance(lam, Tensor) and lam.ndim == 1 else torch.full((b,), float(lam))
    lam = lam.to(x.dtype)
    if mode == "cutmix":
        cy, cx = (torch.full((b,), 0.5),) * 2 if center is None else center.unbind(1)
        side = torch.sqrt(1 - lam)
        rows = torch.abs(torch.arange(h).view(1, h) + 0.5 - cy.view(b, 1) * h) < torch.floor(side * h).view(b, 1) / 2
        cols = torch.abs(torch.arange(w).view(1, w) + 0.5 - cx.view(b, 1) * w) < torch.floor(side * w).view(b, 1) / 2
        box = torch.einsum("bh,bw->bhw", rows.to(x.dtype), cols.to(x.dtype))
        out = torch.where(box[:, None] > 0, x[perm], x)
        lam = 1 - box.sum((1, 2)) / (h * w)
    else:
        out = torch.lerp(x[perm], x, lam.view(b, 1, 1, 1))
    share = lam.view(b, 1).to(y.dtype)
    return out, torch.lerp(y[perm], y, share)
""",
    ),
]

# Automatic mutations that no check can kill, because they change nothing that the exercise asks for.
EQUIVALENT = {
    "batch_hard_triplet: counts = positive.any(dim=1) & (~equal).any()": "all or nobody has a negative",
    "batch_hard_triplet: hardest_negative = d.masked_fill(equal.detach(), math.inf).amin(dim=1)": "a mask",
    "batch_hard_triplet: d = torch.where(apart.detach(), squared, 1.0).sqrt() * apart": "a mask",
    "n_pair: labels = torch.arange(len(a))": "differs on a GPU only",
    "n_pair: labels = torch.arange(len(a.detach()), device=a.device)": "a length",
    "info_nce: positive = torch.arange(len(q))": "differs on a GPU only",
    "info_nce: positive = torch.zeros(len(q.detach()), dtype=torch.long, device=q.device)": "a length",
    "hcl_reweighted: shift = torch.maximum(pos.detach(), neg.amax(dim=1)).detach()": "detached anyway",
    "mochi_synthesize: q, negs = (F.normalize(q), F.normalize(negs, dim=1))": "dim=1 is the default",
    "mixup_cutmix: middle = torch.full((len(x), 3), 0.5) if center is None else center": "two coordinates are read",
    "batch_hard_triplet: return losses.mean() if len(losses.detach()) else z.sum() * 0": "a length",
    "batch_hard_triplet: return losses.mean() if len(losses) else z.mean() * 0": "0 either way",
    "batch_hard_triplet: positive = equal & ~torch.eye(len(y), dtype=torch.bool)": "differs on a GPU only",
    "batch_hard_triplet: positive = equal & ~torch.eye(len(y.detach()), dtype=torch.bool, device=y.device)": "length",
    "batch_hard_triplet: hardest_positive = d.masked_fill(~positive, -math.inf).amax(dim=0)": "symmetric",
    "batch_hard_triplet: hardest_negative = d.masked_fill(equal, math.inf).amin(dim=0)": "symmetric",
    "batch_hard_triplet: counts = positive.any(dim=0) & (~equal).any(dim=1)": "symmetric",
    "batch_hard_triplet: counts = positive.any(dim=1) & (~equal).any(dim=0)": "symmetric",
    "batch_hard_triplet: d = torch.where(apart, squared, 2.0).sqrt() * apart": "multiplied by 0",
    "batch_hard_triplet: d = torch.where(apart, squared, 0.0).sqrt() * apart": "where keeps the NaN from the gradient",
    "info_nce: q, k = (F.normalize(q), F.normalize(k, dim=1))": "dim=1 is the default",
    "info_nce: q, k = (F.normalize(q, dim=1), F.normalize(k))": "dim=1 is the default",
    "info_nce: positive = torch.zeros(len(q), dtype=torch.long)": "differs on a GPU only",
    "info_nce: positive = torch.arange(len(q.detach()), device=q.device)": "a length",
    "hcl_reweighted: shift = torch.maximum(neg.amax(dim=1), pos).detach()": "symmetric",
    "hcl_reweighted: return ((positive + torch.maximum(floor, debiased)).log() - (pos - shift)).mean()": "symmetric",
    "mochi_synthesize: q, negs = (F.normalize(q.detach(), dim=1), F.normalize(negs, dim=1))": "no gradient",
    "mochi_synthesize: q, negs = (F.normalize(q, dim=1), F.normalize(negs.detach(), dim=1))": "no gradient",
    "mochi_synthesize: q, negs = (F.normalize(q, dim=1), F.normalize(negs))": "dim=1 is the default",
    "mochi_synthesize: hardest = (q @ negs.T).topk(n_hard).indices": "dim=1 is the default",
    "mochi_synthesize: alpha = torch.rand(len(q.detach()), s1, 1, generator=rng)": "a length",
    "mochi_synthesize: chosen = torch.randint(n_hard, (len(q.detach()), count), generator=rng)": "a length",
    "mochi_synthesize: beta = 0.5 * torch.rand(len(q.detach()), s2, 1, generator=rng)": "a length",
    "mochi_synthesize: between = alpha * pick(s1) + (2 - alpha) * pick(s1)": "the same distribution",
    "mixup_cutmix: lam = torch.as_tensor(lam, dtype=x.dtype).expand(len(x.detach()))": "a length",
    "mixup_cutmix: lam = torch.as_tensor(lam).expand(len(x))": "the type is mended by the products",
    "mixup_cutmix: inside.append((pixels - middle[:, axis, None] * length).abs() <= half[:, None])": "no such pixel",
    "mixup_cutmix: middle = torch.full((len(x.detach()), 2), 0.5) if center is None else center": "a length",
}
