"""Dense matching, NCE and mutual information, consistency, mixing, LooC, metric losses: slow forms, limits, edges."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from sslcourse.data.mixing import dilo_paste, mixup_cutmix
from sslcourse.errors import InputError
from sslcourse.losses import (
    dense_info_nce,
    densecl_match,
    fixmatch_consistency,
    guess_labels,
    info_nce,
    lifted_generalized,
    looc_draws,
    looc_loss,
    looc_targets,
    margin_pairs,
    match_geometric,
    match_random,
    mi_lower_bound,
    mixmatch_loss,
    moco_logits,
    nce,
    nt_xent,
    nt_xent_pairs,
    pairwise_distance,
    sharpen,
    supcon_out,
    symmetric_moco_v3,
    triplet,
    uda_consistency,
)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(*shape, seed=0):
    return F.normalize(randn(*shape, seed=seed), dim=-1)


# --- DenseCL --------------------------------------------------------------------------------------------------------


def test_a_grid_of_one_cell_is_moco():
    g1, g2, queue = randn(4, 1, 6), randn(4, 1, 6, seed=1), unit(9, 6, seed=2)
    idx = densecl_match(g1, g2)
    logits, labels = moco_logits(g1[:, 0], g2[:, 0], queue, 0.2)
    assert_close(dense_info_nce(g1, g2, idx, queue, 0.2), F.cross_entropy(logits, labels))


def test_dense_slow_form_and_gradient():
    f1, f2, g1, g2, queue = (
        unit(*s, seed=i) for i, s in enumerate([(2, 4, 3), (2, 5, 3), (2, 4, 6), (2, 5, 6), (7, 6)])
    )
    idx, total = densecl_match(f1, f2), 0.0
    for b in range(2):
        for s in range(4):
            best = max(range(5), key=lambda j: float(f1[b, s] @ f2[b, j]))
            assert idx[b, s] == best
            positive = math.exp(g1[b, s] @ g2[b, best] / 0.3)
            total -= math.log(positive / (positive + sum(math.exp(g1[b, s] @ k / 0.3) for k in queue)))
    assert_close(dense_info_nce(g1, g2, idx, queue, 0.3).item(), total / 8)
    assert torch.autograd.gradcheck(lambda x: dense_info_nce(x, g2, idx, queue, 0.3), g1.requires_grad_())


def test_geometric_matching_undoes_crop_and_flip():
    boxes = torch.tensor([[0, 0, 8, 8]])
    same, inside = match_geometric(boxes, boxes, (2, 3))
    assert same.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert inside.all()
    mirrored, _ = match_geometric(boxes, boxes, (2, 3), flip2=torch.tensor([True]))
    assert mirrored.tolist() == [[2, 1, 0, 5, 4, 3]]
    _, inside = match_geometric(boxes, torch.tensor([[0, 4, 8, 8]]), (1, 2))
    assert inside.tolist() == [[False, True]]


def test_cells_without_a_partner_can_be_left_out():
    g1, g2, queue = randn(2, 3, 4), randn(2, 3, 4, seed=1), unit(5, 4, seed=2)
    idx = match_random(2, 3, torch.Generator().manual_seed(0))
    valid = torch.tensor([[True, False, False], [False, False, False]])
    assert_close(
        dense_info_nce(g1, g2, idx, queue, valid=valid), dense_info_nce(g1[:1, :1], g2[:1], idx[:1, :1], queue)
    )
    assert dense_info_nce(g1, g2, idx, queue, valid=valid & False) == 0


# --- NCE and mutual information -------------------------------------------------------------------------------------


def test_nce_slow_form_and_gradient():
    pos, neg = randn(3), randn(3, 4, seed=1)
    log_noise, total = math.log(1 / 50), 0.0
    for s, row in zip(pos.tolist(), neg.tolist(), strict=True):
        h = lambda value: math.exp(value) / (math.exp(value) + 4 / 50)  # noqa: E731
        total -= math.log(h(s)) + sum(math.log(1 - h(n)) for n in row)
    assert_close(nce(pos, neg, log_noise, log_noise).item(), total / 3)
    assert torch.autograd.gradcheck(lambda p, n: nce(p, n, -1.0, -1.0), (pos.requires_grad_(), neg.requires_grad_()))
    assert nce(torch.tensor([-1e4]), torch.full((1, 2), 1e4), 0.0, 0.0).isfinite()


def test_nce_finds_the_normaliser_of_a_density():
    x, noise = randn(20_000), 2 * randn(20_000, seed=1)
    log_noise = lambda v: -(v**2) / 8 - math.log(2 * math.sqrt(2 * math.pi))  # noqa: E731
    c = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([c], max_iter=30)

    def closure():
        optimizer.zero_grad()
        loss = nce(c - x**2 / 2, (c - noise**2 / 2)[:, None], log_noise(x), log_noise(noise)[:, None])
        loss.backward()
        return loss

    optimizer.step(closure)
    assert_close(c.item(), -0.5 * math.log(2 * math.pi), atol=0.02, rtol=0)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_the_bound_meets_the_mutual_information_of_gaussians(rho):
    n, d = 1024, 2
    x, e = randn(n, d), randn(n, d, seed=1)
    y = rho * x + math.sqrt(1 - rho**2) * e
    true = -0.5 * d * math.log(1 - rho**2)
    log_ratio = -((y[None] - rho * x[:, None]) ** 2).sum(2) / (2 * (1 - rho**2)) + (y[None] ** 2).sum(2) / 2 + true
    bound = mi_lower_bound(log_ratio).item()
    assert bound == pytest.approx(true, abs=0.12)
    assert mi_lower_bound(0.3 * log_ratio) <= bound + 1e-6  # a worse critic proves less


def test_the_bound_never_exceeds_log_n():
    scores = 1e4 * torch.eye(8)
    assert_close(mi_lower_bound(scores).item(), math.log(8))
    assert mi_lower_bound(-scores) < 0


# --- Consistency ----------------------------------------------------------------------------------------------------


def test_consistency_losses_count_confident_images_and_stop_the_gradient_of_the_target():
    weak = torch.tensor([[4.0, 0.0, 0.0], [0.1, 0.0, 0.0]], requires_grad=True)
    strong = randn(2, 3).float().requires_grad_()
    loss = fixmatch_consistency(weak, strong, 0.9)
    assert_close(loss, -strong.log_softmax(1)[0, 0] / 2)
    loss.backward()
    assert weak.grad is None
    p = (weak[0] / 0.4).softmax(0)
    q = strong[0].softmax(0)
    assert_close(uda_consistency(weak, strong, 0.4, 0.8), (p * (p / q).log()).sum().detach() / 2)
    assert uda_consistency(weak, weak, 1.0, 0.0).abs() < 1e-6
    assert uda_consistency(weak * 1e4, strong, 0.01).isfinite()


def test_mixmatch_sharpens_the_mean_and_weighs_the_unlabelled():
    assert_close(sharpen(torch.tensor([[0.6, 0.4]]), 0.5), torch.tensor([[0.36, 0.16]]) / 0.52)
    logits = [torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3.0)]])]
    assert_close(guess_labels(logits, 1.0), torch.tensor([[0.375, 0.625]]))
    z, target = randn(3, 4), randn(3, 4, seed=1).softmax(1)
    expected = -(target[:1] * z[:1].log_softmax(1)).sum() + 5 * (z[1:].softmax(1) - target[1:]).pow(2).mean()
    assert_close(mixmatch_loss(z, target, 1, 5.0), expected)
    assert mixmatch_loss(z, target, 3).isfinite()


# --- Mixing ---------------------------------------------------------------------------------------------------------


def test_mixup_mixes_images_and_labels_by_the_same_share():
    x, y, perm = randn(3, 2, 4, 6), torch.eye(3, dtype=torch.float64), torch.tensor([1, 2, 0])
    lam = torch.tensor([1.0, 0.25, 0.0], dtype=torch.float64)
    mixed, labels = mixup_cutmix(x, y, lam, perm)
    assert_close(mixed[1], 0.25 * x[1] + 0.75 * x[2])
    assert_close(labels, lam[:, None] * y + (1 - lam)[:, None] * y[perm])


def test_cutmix_counts_the_pixels_that_stayed():
    x, y = torch.zeros(2, 1, 8, 8), torch.eye(2)
    x[1] = 1
    perm = torch.tensor([1, 0])
    mixed, labels = mixup_cutmix(x, y, 0.75, perm, "cutmix")
    assert mixed[0].sum() == 16  # a box of half the side
    assert_close(labels[0], torch.tensor([0.75, 0.25]))
    corner = torch.zeros(2, 2)
    mixed, labels = mixup_cutmix(x, y, 0.75, perm, "cutmix", center=corner)
    assert mixed[0].sum() == 4
    assert_close(labels[0], torch.tensor([60 / 64, 4 / 64]))


def test_paste_keeps_soft_edges_and_drops_what_is_barely_salient():
    fg, bg = torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    sal = torch.tensor([[[[10.0, 20.0], [11.0, 15.0]]]])
    image, mask = dilo_paste(fg, sal, bg, 0.2)
    assert_close(mask[0, 0], torch.tensor([[0.0, 1.0], [0.0, 0.5]]))
    assert_close(image[0, 1], mask[0, 0])
    assert dilo_paste(fg, torch.ones(1, 1, 1, 1), bg)[1].sum() == 0
    smooth = dilo_paste(torch.ones(1, 3, 8, 8), torch.eye(2)[None, None], torch.zeros(1, 3, 8, 8), 0.0)[1]
    assert smooth.unique().numel() > 2  # resized between the values, not by copying the nearest


# --- LooC -----------------------------------------------------------------------------------------------------------


def test_looc_targets_of_two_augmentations():
    positive, negative = looc_targets(looc_draws(2), 2)  # views: query, k_0, k_1, k_2
    assert positive.int().tolist() == [[0, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert negative.int().tolist() == [[0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 1, 0]]


def test_looc_without_augmentations_is_moco():
    q, k, queue = randn(1, 4, 6), randn(1, 1, 4, 6, seed=1), unit(1, 9, 6, seed=2)
    assert_close(looc_loss(q, k, queue, 0.2), info_nce(q[0], k[0, 0], queue[0], 0.2))


def test_looc_slow_form_and_gradient():
    q, k, queue = unit(3, 2, 5), unit(3, 3, 2, 5, seed=1), unit(3, 4, 5, seed=2)
    e, total = (lambda a, b: math.exp(float(a @ b) / 0.5)), 0.0
    for b in range(2):
        rest = [sum(e(q[s, b], n) for n in queue[s]) for s in range(3)]
        for j in range(3):
            total -= math.log(e(q[0, b], k[0, j, b]) / (e(q[0, b], k[0, j, b]) + rest[0])) / 3
        for i in (1, 2):
            everything = sum(e(q[i, b], k[i, j, b]) for j in range(3)) + rest[i]
            total -= math.log(e(q[i, b], k[i, i, b]) / everything)
    assert_close(looc_loss(q, k, queue, 0.5).item(), total / 6)
    assert torch.autograd.gradcheck(lambda x: looc_loss(x, k, queue, 0.5), q.requires_grad_())


# --- Metric losses, tiles, edges ------------------------------------------------------------------------------------


def test_pairs_of_one_positive_each_are_nt_xent():
    z1, z2 = randn(5, 4), randn(5, 4, seed=1)
    y = torch.arange(5).repeat(2)
    assert_close(nt_xent_pairs(torch.cat([z1, z2]), y, 0.3), nt_xent(z1, z2, 0.3))


def test_metric_losses_in_slow_form():
    z, y = randn(6, 3), torch.tensor([0, 0, 1, 1, 1, 2])
    d, pull, push, triplets, anchors = pairwise_distance(z, z), [], [], [], []
    for i in range(6):
        near = [float(d[i, j]) for j in range(6) if j != i and y[j] == y[i]]
        far = [float(d[i, j]) for j in range(6) if y[j] != y[i]]
        pull += [max(0.0, v - 0.1) for v in near]
        push += [max(0.0, 2.0 - v) for v in far]
        lse = lambda v: math.log(sum(map(math.exp, v))) if v else 0.0  # noqa: E731
        anchors.append(max(0.0, lse(near) + lse([1 - v for v in far])))
        for j in (j for j in range(6) if j != i and y[j] == y[i]):
            for k in (k for k in range(6) if y[k] != y[i]):
                triplets.append(math.log1p(math.exp(float(d[i, j] - min(d[i, k], d[j, k])) + 0.2)))
    mean = lambda v: sum(v) / len(v)  # noqa: E731
    assert_close(margin_pairs(z, y, 0.1, 2.0, active_only=False).item(), mean(pull) + mean(push))
    assert_close(lifted_generalized(z, y).item(), mean(anchors))
    assert_close(triplet(z, y, 0.2, swap=True, soft=True).item(), mean(triplets))


@pytest.mark.parametrize("tile", [1, 3, 100])
@pytest.mark.parametrize("y", [None, torch.tensor([7, 3, 7, 1, 3, 7])])
def test_tiled_supcon_has_the_same_value_and_gradient(tile, y):
    z = randn(6, 2, 5).requires_grad_()
    plain, tiled = supcon_out(z, y, 0.2), supcon_out(z, y, 0.2, tile=tile)
    assert_close(tiled, plain)
    assert_close(torch.autograd.grad(tiled, z)[0], torch.autograd.grad(plain, z)[0])


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("duplicates", [False, True])
def test_extremes_are_finite_in_value_and_gradient(scale, duplicates):
    z = randn(6, 4).float() * scale
    z = (z[:1].expand(6, -1).clone() if duplicates else z).requires_grad_()
    y, queue = torch.tensor([0, 0, 1, 1, 1, 2]), unit(3, 4).float()
    half = z[:3], z[3:]
    for loss in (
        supcon_out(z[:, None], y, 0.01),
        supcon_out(z[:, None], y, 0.01, tile=2),
        nt_xent_pairs(z, y, 0.01),
        nt_xent_pairs(z, torch.zeros(6, dtype=torch.int64), 0.01),
        dense_info_nce(half[0][None], half[1][None], torch.zeros(1, 3, dtype=torch.int64), queue, 0.01),
        symmetric_moco_v3(*half, *half, tau=0.01),
        looc_loss(half[0][None], half[1][None, None], queue[None], 0.01),
        margin_pairs(z, y),
        lifted_generalized(z, y),
        triplet(z, y, swap=True, soft=True),
    ):
        (gradient,) = torch.autograd.grad(loss, z)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_half_precision_costs_what_rounding_the_input_costs():
    z, y = randn(16, 2, 8).float(), torch.arange(16) % 4
    half = z.bfloat16()
    assert supcon_out(half, y).dtype == torch.float32
    assert_close(supcon_out(half, y), supcon_out(half.float(), y), rtol=1e-6, atol=1e-6)
    assert_close(supcon_out(half, y), supcon_out(z, y), rtol=0.01, atol=0)


def test_bad_input_is_one_sentence():
    z = randn(4, 5)
    for call in (
        lambda: densecl_match(z, z),
        lambda: dense_info_nce(z[:, None], z[:, None], torch.zeros(4, 2, dtype=torch.int64), z),
        lambda: nce(z, z, 0.0, 0.0),
        lambda: mi_lower_bound(z),
        lambda: uda_consistency(z, z, tau=0),
        lambda: sharpen(z, 0),
        lambda: mixup_cutmix(z, z, 0.5, torch.arange(4)),
        lambda: mixup_cutmix(randn(4, 3, 2, 2), z, 1.5, torch.arange(4)),
        lambda: dilo_paste(randn(1, 3, 2, 2), randn(1, 1, 2, 2), randn(1, 3, 2, 2), 1.0),
        lambda: looc_targets(looc_draws(2), 3),
        lambda: looc_loss(z[None], z[None, None], z[None, :, :3]),
        lambda: supcon_out(randn(4, 2, 5), tile=0),
        lambda: triplet(z, torch.arange(4), mining="semi_hard", swap=True),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert "\n" not in str(error.value)
