"""Losses without negatives against slow forms and limits; the modules and tools around them."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.curate import components, curate_by_retrieval, retrieval_dedup
from sslcourse.data.mask_batches import ibot_masks, random_block_mask_batch
from sslcourse.data.masks import block_masks
from sslcourse.errors import InputError
from sslcourse.evaluate.attention import attn_to_mask
from sslcourse.losses.barlow import barlow_twins_loss, cross_correlation
from sslcourse.losses.byol import byol_loss, regression_loss
from sslcourse.losses.deepcluster import kmeans_pseudolabels, sobel, spherical_kmeans, uniform_sample, whiten
from sslcourse.losses.dino import dino_loss, sinkhorn_centering, teacher_temperature, update_center
from sslcourse.losses.ibot import ibot_patch_loss
from sslcourse.losses.koleo import koleo, nearest_neighbor
from sslcourse.losses.simsiam import simsiam_loss
from sslcourse.losses.swav import sinkhorn, swav_codes, swav_loss
from sslcourse.nn.dino_head import DINOHead, IBOTHead
from sslcourse.nn.multicrop import multicrop_forward
from sslcourse.train.optim import cosine_ema_schedule
from sslcourse.train.schedules import clip_each_gradient, drop_gradients, warmup_then_cosine


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def four(n: int = 5, d: int = 7) -> list[Tensor]:
    return [randn(n, d, seed=s) for s in range(4)]


# BYOL and SimSiam


def test_byol_loss_is_the_squared_distance_of_unit_vectors_pair_by_pair() -> None:
    p1, p2, z1, z2 = four()
    slow = 0.0
    for i in range(5):
        for p, z in ((p1[i], z2[i]), (p2[i], z1[i])):
            slow += float(((p / p.norm() - z / z.norm()) ** 2).sum()) / 5
    assert float(byol_loss(p1, p2, z1, z2)) == pytest.approx(slow, rel=1e-12)


def test_simsiam_is_a_quarter_of_byol_minus_one() -> None:
    vectors = four()
    assert float(simsiam_loss(*vectors)) == pytest.approx(float(byol_loss(*vectors)) / 4 - 1, abs=1e-12)


@pytest.mark.parametrize("loss", [byol_loss, simsiam_loss])
def test_gradients_reach_the_predictions_only(loss: object) -> None:
    vectors = [x.requires_grad_() for x in four()]
    loss(*vectors).backward()  # type: ignore[operator]
    assert [x.grad is None for x in vectors] == [False, False, True, True]
    p1, p2, z1, z2 = four()
    check = partial(loss, z1=z1, z2=z2)  # type: ignore[call-overload]
    assert torch.autograd.gradcheck(lambda a, b: check(a, b), (p1.requires_grad_(), p2.requires_grad_()))


def test_without_the_stop_gradient_both_sides_are_trained() -> None:
    vectors = [x.requires_grad_() for x in four()]
    simsiam_loss(*vectors, stop_gradient=False).backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in vectors)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e25])
def test_length_does_not_matter_even_where_squares_overflow(scale: float) -> None:
    vectors = [x.float() for x in four()]
    far = [x * max(scale, 1e-7) for x in vectors] if scale < 1 else [x * scale for x in vectors]
    torch.testing.assert_close(simsiam_loss(*far), simsiam_loss(*vectors), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(byol_loss(*far), byol_loss(*vectors), rtol=1e-4, atol=1e-5)


def test_a_zero_vector_has_cosine_zero_and_finite_gradients() -> None:
    p = torch.zeros(2, 3, requires_grad=True)
    loss = regression_loss(p, torch.ones(2, 3))
    loss.sum().backward()
    assert loss.tolist() == [2.0, 2.0]
    assert p.grad is not None
    assert p.grad.isfinite().all()


def test_byol_takes_half_precision_and_refuses_other_shapes() -> None:
    vectors = [x.bfloat16() for x in four()]
    assert byol_loss(*vectors).dtype == torch.float32
    with pytest.raises(InputError, match="one shape"):
        byol_loss(*vectors[:3], vectors[3][:2])


def test_the_ema_schedule_ends_at_one() -> None:
    assert [cosine_ema_schedule(s, 10, 0.9) for s in (0, 10)] == [pytest.approx(0.9), 1.0]


# Barlow Twins


def test_barlow_twins_against_loops() -> None:
    z1, z2 = randn(6, 3), randn(6, 3, seed=1)
    a, b = ((z - z.mean(0)) / z.std(0, correction=0) for z in (z1, z2))
    slow = 0.0
    for i in range(3):
        for j in range(3):
            c = float((a[:, i] * b[:, j]).mean())
            slow += (1 - c) ** 2 if i == j else 0.3 * c**2
    assert float(barlow_twins_loss(z1, z2, 0.3, eps=0.0)) == pytest.approx(slow, rel=1e-10)
    assert torch.autograd.gradcheck(lambda x, y: barlow_twins_loss(x, y, 0.3), (z1.requires_grad_(), z2))


def test_barlow_twins_limits() -> None:
    z = torch.linalg.qr(randn(8, 8) - randn(8, 8).mean(0))[0][:, :4]
    z = z - z.mean(0)
    white = z @ torch.linalg.inv(torch.linalg.cholesky(z.T @ z)).T
    assert float(barlow_twins_loss(white, white, eps=0.0)) == pytest.approx(0, abs=1e-10)
    assert cross_correlation(torch.ones(4, 2), torch.ones(4, 2)).abs().max() == 0  # constant features: no NaN


# Sinkhorn and SwAV


@pytest.mark.parametrize("eps", [0.01, 0.05, 1.0])
def test_sinkhorn_gives_unit_rows_and_in_the_limit_equal_columns(eps: float) -> None:
    scores = F.normalize(randn(12, 8), dim=1) @ F.normalize(randn(4, 8, seed=1), dim=1).T
    scores = scores.float()
    codes = sinkhorn(scores, eps, 3000)
    torch.testing.assert_close(codes.sum(1), torch.ones(12))
    torch.testing.assert_close(codes.sum(0), torch.full((4,), 3.0), rtol=1e-2, atol=1e-2)
    assert not sinkhorn(scores.requires_grad_(), eps).requires_grad


def test_sinkhorn_against_the_plain_form() -> None:
    scores = randn(6, 4) * 0.5
    q = torch.exp(scores / 0.3).T
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / 4
        q = q / q.sum(0, keepdim=True) / 6
    torch.testing.assert_close(sinkhorn(scores, 0.3, 3), (q * 6).T)


def test_sinkhorn_survives_what_overflows_the_plain_form() -> None:
    scores = torch.tensor([[1e4, -1e4, 0.0], [1e4, 0.0, 0.0]])
    codes = sinkhorn(scores, 0.01)
    assert codes.isfinite().all()
    torch.testing.assert_close(codes.sum(1), torch.ones(2))


def test_swav_loss_against_loops() -> None:
    scores = [randn(3, 4, seed=s) for s in range(4)]
    codes = [randn(3, 4, seed=9 + s).softmax(1) for s in range(2)]
    slow = 0.0
    for i in range(2):
        for v in range(4):
            if v != i:
                for b in range(3):
                    p = (scores[v][b] / 0.2).exp() / (scores[v][b] / 0.2).exp().sum()
                    slow -= float((codes[i][b] * p.log()).sum()) / 3 / 3 / 2
    assert float(swav_loss(scores, codes, 0.2)) == pytest.approx(slow, rel=1e-10)


def test_codes_of_a_batch_with_a_queue_are_its_own_rows() -> None:
    scores, queued = randn(3, 4), randn(5, 4, seed=1)
    torch.testing.assert_close(swav_codes(scores, queued), sinkhorn(torch.cat([queued, scores]))[5:])


# DINO, iBOT, KoLeo


def test_dino_with_one_pair_and_two_prototypes_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.1]]), torch.tensor([[math.log(3) * 0.5, 0.0]])
    center = torch.zeros(2)
    p = 3 / 4  # softmax of (log 3, 0)
    q = 1 / (1 + math.e)  # softmax of (0, 1)
    by_hand = -(p * math.log(q) + (1 - p) * math.log(1 - q))
    views = [torch.zeros(1, 2), student]
    assert float(dino_loss(views, [teacher], center, 0.1, 0.5)) == pytest.approx(by_hand, rel=1e-6)


def test_dino_skips_a_view_with_itself_and_trains_the_student_only() -> None:
    student = [randn(2, 5, seed=s).requires_grad_() for s in range(3)]
    teacher = [randn(2, 5, seed=9).requires_grad_()]
    dino_loss(student, teacher, torch.zeros(5, dtype=torch.float64)).backward()
    assert [x.grad is not None and bool(x.grad.abs().sum() > 0) for x in (*student, *teacher)] == [
        False,
        True,
        True,
        False,
    ]


def test_the_centre_moves_to_the_mean_of_raw_logits() -> None:
    t = randn(4, 3)
    torch.testing.assert_close(update_center(torch.ones(1, 3).double(), t, 0.9), 0.9 + 0.1 * t.mean(0, keepdim=True))
    assert [teacher_temperature(e, 0.04, 0.07, 4) for e in (0, 3, 9)] == pytest.approx([0.04, 0.07, 0.07])


def test_sinkhorn_centering_uses_the_temperature() -> None:
    t = randn(6, 4)
    torch.testing.assert_close(sinkhorn_centering(t, 0.07), sinkhorn(t, 0.07, 3))


def test_ibot_counts_masked_patches_per_image() -> None:
    s, t = randn(3, 4, 5), randn(3, 4, 5, seed=1)
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]]).bool()
    center = randn(5, seed=2)
    slow = 0.0
    for b in range(3):
        for i in range(4):
            if mask[b, i]:
                target = ((t[b, i] - center) / 0.04).softmax(0)
                slow -= float((target * (s[b, i] / 0.1).log_softmax(0)).sum()) / int(mask[b].sum()) / 3
    assert float(ibot_patch_loss(s, t, mask, center)) == pytest.approx(slow, rel=1e-10)


def test_ibot_with_an_empty_mask_adds_nothing() -> None:
    s = randn(2, 4, 5).requires_grad_()
    loss = ibot_patch_loss(s, randn(2, 4, 5, seed=1), torch.zeros(2, 4, dtype=torch.bool), torch.zeros(5).double())
    loss.backward()
    assert loss.item() == 0
    assert s.grad is not None
    assert s.grad.abs().max() == 0


def test_koleo_against_a_loop_and_its_gradient() -> None:
    x = randn(6, 3)
    u = F.normalize(x, dim=1)
    nearest = [min(float((u[i] - u[j]).norm()) for j in range(6) if j != i) for i in range(6)]
    assert float(koleo(x)) == pytest.approx(-sum(map(math.log, nearest)) / 6, rel=1e-6)
    assert torch.autograd.gradcheck(koleo, (x.requires_grad_(),))


def test_koleo_is_finite_for_duplicates_and_opposites() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    koleo(x).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert nearest_neighbor(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).tolist() == [1, 0]


def test_steps_along_koleo_spread_a_clump() -> None:
    x = torch.cat([torch.ones(12, 1), 0.1 * randn(12, 1).float()], dim=1).requires_grad_()
    before = float(koleo(x))
    optimizer = torch.optim.Adam([x], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        koleo(x).backward()
        optimizer.step()
    assert float(koleo(x)) < before - 0.5


# Heads and crops


def test_outputs_of_a_normalised_head_are_cosines() -> None:
    head = DINOHead(6, 9, 8, 5)
    y = head(randn(4, 6).float() * 100)
    assert y.shape == (4, 9)
    assert y.abs().max() <= 1 + 1e-5
    assert not head.last_layer.weight_g.requires_grad
    assert DINOHead(6, 9, 8, 5, norm_last_layer=False).last_layer.weight_g.requires_grad


def test_an_ibot_head_shares_its_prototypes_or_not() -> None:
    tokens = randn(2, 5, 6).float()
    shared = IBOTHead(6, 9, 8, 4)
    cls, patches = shared.forward_tokens(tokens)
    assert (cls.shape, patches.shape) == ((2, 9), (2, 4, 9))
    torch.testing.assert_close(shared(tokens), torch.cat([cls[:, None], patches], dim=1))
    assert IBOTHead(6, 9, 8, 4, patch_out_dim=3).forward_tokens(tokens)[1].shape == (2, 4, 3)


def test_multicrop_makes_one_pass_a_size_and_keeps_the_order() -> None:
    sizes: list[tuple[int, ...]] = []

    def backbone(x: Tensor) -> Tensor:
        sizes.append(tuple(x.shape))
        return x.mean(dim=(2, 3))

    crops = [randn(2, 3, side, side, seed=i) for i, side in enumerate((8, 8, 4, 4, 4))]
    out = multicrop_forward(backbone, nn.Identity(), crops)
    assert [s[0] for s in sizes] == [4, 6]
    torch.testing.assert_close(out, torch.cat([x.mean(dim=(2, 3)) for x in crops]))


# Schedules and gradients


def test_the_schedule_repeats_its_base_and_freezes_first() -> None:
    values = [warmup_then_cosine(k, 12, 3, 1.0, 0.1, freeze=2) for k in range(13)]
    assert values[:6] == [0.0, 0.0, 0.0, 0.5, 1.0, 1.0]
    assert values[-1] == 0.1
    assert values[-2] > 0.1


def test_gradients_are_clipped_one_by_one_and_dropped_by_name() -> None:
    model = nn.ModuleDict({"a": nn.Linear(1, 1, bias=False), "last_layer": nn.Linear(1, 1, bias=False)})
    a, b = model.parameters()
    a.grad, b.grad = torch.tensor([[4.0]]), torch.tensor([[0.5]])
    assert clip_each_gradient(model.parameters(), 1.0).tolist() == [4.0, 0.5]
    assert [round(float(p.grad), 4) for p in (a, b) if p.grad is not None] == [1.0, 0.5]
    drop_gradients(model, "last_layer")
    assert a.grad is not None
    assert b.grad is None


# DeepCluster


def test_whitened_features_are_unit_vectors_of_equal_spread() -> None:
    x = randn(200, 6) * torch.tensor([9.0, 5, 3, 1, 1, 1]).double()
    y = whiten(x, 3)
    torch.testing.assert_close(y.norm(dim=1), torch.ones(200).double())
    assert float(y.std(0).max() / y.std(0).min()) < 1.3


def test_kmeans_finds_clumps_and_depends_on_the_seed_only() -> None:
    corners = torch.eye(4).double().repeat_interleave(10, dim=0)
    x = corners + 0.05 * randn(40, 4)
    state = torch.get_rng_state()
    runs = [kmeans_pseudolabels(x, 4, 20, seed) for seed in range(4)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(runs[0], kmeans_pseudolabels(x, 4, 20, 0))
    pure = [len({tuple(labels[10 * c : 10 * c + 10].tolist()) for c in range(4)}) == 4 for labels in runs]
    assert any(pure)


@pytest.mark.parametrize("seed", range(3))
def test_no_cluster_is_empty_even_where_points_repeat(seed: int) -> None:
    x = torch.cat([torch.tensor([[1.0, 0.0]]).repeat(20, 1), torch.tensor([[0.0, 1.0]])])
    labels = kmeans_pseudolabels(x, 5, 10, seed)
    assert labels.bincount(minlength=5).min() >= 1


def test_spherical_kmeans_keeps_the_centroid_of_an_empty_cluster() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    labels, centroids = spherical_kmeans(x, torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), 3)
    assert labels.tolist() == [0, 0]
    assert centroids.tolist() == [[1.0, 0.0], [-1.0, 0.0]]


def test_uniform_sampling_evens_clusters_out() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    drawn = uniform_sample(labels, torch.Generator().manual_seed(0))
    assert len(drawn) == 100
    assert 45 <= int((labels[drawn] == 1).sum()) <= 51


def test_sobel_sees_edges_and_no_colour() -> None:
    x = torch.zeros(1, 3, 6, 6)
    x[..., 3:] = 1
    y = sobel(x)
    assert y[0, 0, 2].tolist()[1:5] == [0.0, -4.0, -4.0, 0.0]
    assert y[0, 1, 2, 2:4].abs().max() == 0
    torch.testing.assert_close(sobel(x.flip(1)), y)


# Masks, curation, attention


def test_block_masks_of_a_batch_keep_their_shares() -> None:
    masks = random_block_mask_batch(40, 8, 8, torch.Generator().manual_seed(0))
    counts = masks.flatten(1).sum(1)
    assert masks.shape == (40, 8, 8)
    assert (counts > 0).sum() == 20
    assert counts.max() <= 32
    assert counts[counts > 0].unique().numel() > 5  # ratios are spread
    assert not random_block_mask_batch(4, 8, 8, torch.Generator().manual_seed(0), prob=0.0).any()


def test_ibot_masks_leave_about_half_of_the_images_whole() -> None:
    masks = ibot_masks(200, 7, 7, torch.Generator().manual_seed(0))
    whole = (masks.flatten(1).sum(1) == 0).sum()
    assert 70 <= int(whole) <= 130
    assert masks.flatten(1).sum(1).max() <= 0.5 * 49


def test_block_masks_of_a_part_of_the_batch_are_those_of_the_whole() -> None:
    counts = torch.tensor([0, 3, 40, 12, 64, 1, 25, 30])

    after = []

    def draw(mine: slice) -> torch.Tensor:
        g = torch.Generator().manual_seed(0)
        masks = block_masks((8, 8), counts, 1, None, 0.3, g, mine)
        after.append(torch.rand((), generator=g))
        return masks

    whole = draw(slice(0, 8))
    hidden = whole.flatten(1).sum(1)
    assert hidden[0] == 0
    assert (hidden <= counts).all()
    assert (hidden[1:] > 0).all()
    for mine in (slice(0, 4), slice(4, 8), slice(2, 3)):
        assert torch.equal(draw(mine), whole[mine])
    assert len(set(map(float, after))) == 1  # what is drawn next does not depend on how long it took


def test_dedup_keeps_one_of_a_chain_in_any_order() -> None:
    angles = torch.tensor([0.0, 0.3, 0.6, 2.0])  # neighbours are close, the ends of the chain are not
    emb = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert retrieval_dedup(emb, 0.9).tolist() == [True, False, False, True]
    order = torch.tensor([2, 3, 0, 1])
    assert int(retrieval_dedup(emb[order], 0.9).sum()) == 2
    assert components(emb * 7, 0.9).tolist() == [0, 0, 0, 3]


def test_retrieval_finds_what_resembles_the_curated_set() -> None:
    pool = torch.cat([torch.eye(4)[:1].repeat(5, 1), torch.eye(4)[1:]]) + 0.01 * randn(8, 4).float()
    kept = curate_by_retrieval(torch.eye(4)[:1] * 3, pool, 5)
    assert kept.tolist() == [0, 1, 2, 3, 4]
    assert curate_by_retrieval(torch.eye(4)[:2], pool, 100).tolist() == list(range(8))
    sampled = curate_by_retrieval(torch.eye(4)[:1], pool, 1, 2, clusters=2)
    assert 1 <= len(sampled) <= 2
    with pytest.raises(InputError, match="one width"):
        curate_by_retrieval(torch.eye(3), pool)


def test_attention_masks_leave_the_class_token_out_and_keep_the_mass() -> None:
    attention = torch.zeros(1, 2, 5, 5)
    attention[0, 0, 0] = torch.tensor([0.9, 0.05, 0.03, 0.01, 0.01])
    attention[0, 1, 0] = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4])
    masks = attn_to_mask(attention, (2, 2), 0.6)
    assert masks[0, 0].tolist() == [[True, True], [False, False]]
    assert masks[0, 1].tolist() == [[False, False], [True, True]]
