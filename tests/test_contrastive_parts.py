"""SupCon, hard negatives and MoCo's functions: limits that tie them to NT-Xent and InfoNCE, slow forms, edges."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from sslcourse.errors import InputError
from sslcourse.losses.infonce import info_nce, nt_xent
from sslcourse.losses.moco import moco_logits, queue_enqueue, shuffle_bn, symmetric_moco_v3
from sslcourse.losses.negatives import hcl_reweighted, mochi_draws, mochi_mix, mochi_synthesize
from sslcourse.losses.supcon import supcon_in, supcon_out


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(*shape, seed=0):
    return F.normalize(randn(*shape, seed=seed), dim=-1)


# --- SupCon ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [supcon_out, supcon_in])
def test_supcon_of_instances_is_nt_xent(loss):
    z = randn(5, 2, 7)
    expected = nt_xent(z[:, 0], z[:, 1], tau=0.3)
    assert_close(loss(z, torch.arange(5), tau=0.3), expected)
    assert_close(loss(z, tau=0.3), expected)


def slow_supcon(z, y, tau, inside):
    z, total, anchors = F.normalize(z, dim=2), 0.0, 0
    rows = [(i, v) for i in range(len(z)) for v in range(z.shape[1])]
    for a in rows:
        others = [r for r in rows if r != a]
        similarity = {r: math.exp(float(z[a] @ z[r]) / tau) for r in others}
        positives = [similarity[r] / sum(similarity.values()) for r in others if y[r[0]] == y[a[0]]]
        anchors += 1
        if inside:
            total -= math.log(sum(positives) / len(positives))
        else:
            total -= sum(map(math.log, positives)) / len(positives)
    return total / anchors


@pytest.mark.parametrize(("loss", "inside"), [(supcon_out, False), (supcon_in, True)])
def test_supcon_slow_form(loss, inside):
    z, y = randn(4, 3, 5), torch.tensor([0, 1, 0, 2])
    assert_close(loss(z, y, tau=0.2).item(), slow_supcon(z, y, 0.2, inside))
    assert torch.autograd.gradcheck(lambda x: loss(x, y, tau=0.2), z.clone().requires_grad_())


@given(st.integers(0, 10_000), st.integers(2, 7), st.integers(1, 3), st.sampled_from([0.01, 0.1, 1.0]))
@settings(max_examples=60, deadline=None)
def test_l_in_never_exceeds_l_out(seed, images, views, tau):
    z = randn(images, views, 4, seed=seed)
    y = torch.randint(3, (images,), generator=torch.Generator().manual_seed(seed))
    assert supcon_in(z, y, tau) <= supcon_out(z, y, tau) + 1e-9


@pytest.mark.parametrize("loss", [supcon_out, supcon_in])
def test_supcon_anchor_without_positive_is_finite(loss):
    z = torch.ones(3, 1, 4, requires_grad=True)
    value = loss(z, torch.tensor([0, 0, 1]), tau=0.01)
    value.backward()
    assert value.isfinite()
    assert z.grad.isfinite().all()


def test_supcon_first_view_anchors_and_mask():
    z, y = randn(4, 2, 6), torch.tensor([0, 1, 0, 1])
    mask = (y[:, None] == y[None]).double()
    assert_close(supcon_out(z, y, all_anchors=False), supcon_out(z, mask=mask, all_anchors=False))
    both = (supcon_out(z, y, all_anchors=False) + supcon_out(z.flip(1), y, all_anchors=False)) / 2
    assert_close(both, supcon_out(z, y))


# --- Hard negatives -------------------------------------------------------------------------------------------------


def similarities(z1, z2):
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    n, s = len(z1), z @ z.T
    itself = torch.eye(2 * n, dtype=torch.bool)
    pair = itself.roll(n, dims=1)
    return s[pair], s[~(itself | pair)].view(2 * n, -1)


def test_hcl_without_reweighting_is_nt_xent():
    z1, z2 = randn(6, 5), randn(6, 5, seed=1)
    assert_close(hcl_reweighted(*similarities(z1, z2), tau=0.4, beta=0.0, tau_plus=0.0), nt_xent(z1, z2, tau=0.4))


@pytest.mark.parametrize("beta", [0.5, 2.0])
@pytest.mark.parametrize("tau_plus", [0.0, 0.1, 0.6])
def test_hcl_slow_form(beta, tau_plus):
    pos, neg = similarities(randn(4, 3), randn(4, 3, seed=1))
    tau, m, losses = 0.5, neg.shape[1], []
    for p, row in zip(pos.tolist(), neg.tolist(), strict=True):
        weights = [math.exp(beta * s / tau) for s in row]
        mean = sum(weights) / m
        mass = sum(w / mean * math.exp(s / tau) for w, s in zip(weights, row, strict=True))
        ng = max((mass - tau_plus * m * math.exp(p / tau)) / (1 - tau_plus), m * math.exp(-1 / tau))
        losses.append(-math.log(math.exp(p / tau) / (math.exp(p / tau) + ng)))
    assert_close(hcl_reweighted(pos, neg, tau, beta, tau_plus).item(), sum(losses) / len(losses))
    inputs = (pos.clone().requires_grad_(), neg.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda p, n: hcl_reweighted(p, n, tau, beta, tau_plus), inputs)


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("tau_plus", [0.0, 0.1, 0.9])
def test_hcl_is_finite_at_low_temperature(beta, tau_plus):
    pos = torch.tensor([1.0, -1.0, 0.5], requires_grad=True)
    neg = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [0.0, 0.0]], requires_grad=True)
    value = hcl_reweighted(pos, neg, 0.01, beta, tau_plus)
    gradients = torch.autograd.grad(value, [pos, neg])
    assert value.isfinite()
    assert all(g.isfinite().all() for g in gradients)


def test_mochi_mixes_only_the_hardest():
    q, negs = unit(3, 6), unit(20, 6, seed=1)
    rng = torch.Generator().manual_seed(0)
    made = mochi_synthesize(q.requires_grad_(), negs, n_hard=1, s1=4, s2=0, rng=rng)
    hardest = negs[(q @ negs.T).argmax(dim=1)]
    assert_close(
        made, hardest[:, None].expand(-1, 4, -1)
    )  # with one hard negative, mixing it with itself changes nothing
    assert not made.requires_grad


def test_mochi_query_mix_stays_closer_to_the_negative():
    q, hard = unit(50, 8), unit(50, 1, 8, seed=1)
    made = mochi_mix(q, hard, mochi_draws(50, 1, 0, 16, torch.Generator().manual_seed(0)))
    assert made.shape == (50, 16, 8)
    assert_close(made.norm(dim=2), torch.ones(50, 16, dtype=torch.float64))
    to_query = (made * q[:, None]).sum(2)
    to_negative = (made * hard).sum(2)
    assert (to_negative > to_query).all()


# --- MoCo -----------------------------------------------------------------------------------------------------------


def test_moco_is_info_nce_against_the_queue():
    q, k, queue = randn(4, 6), randn(4, 6, seed=1), unit(9, 6, seed=2)
    logits, labels = moco_logits(q, k, queue, tau=0.2)
    assert_close(F.cross_entropy(logits, labels), info_nce(q, k, queue, tau=0.2))


def test_moco_gradient_reaches_only_the_query_and_survives_an_enqueue():
    q, k, queue = (x.requires_grad_() for x in (randn(4, 6), randn(4, 6, seed=1), unit(8, 6, seed=2)))
    logits, labels = moco_logits(q, k, queue)
    loss = F.cross_entropy(logits, labels)
    queue_enqueue(queue.detach(), 0, k)  # overwrites the storage that the logits came from
    loss.backward()
    assert q.grad.abs().sum() > 0
    assert k.grad is None
    assert queue.grad is None


def test_moco_with_an_empty_queue_has_nothing_to_learn():
    logits, labels = moco_logits(randn(3, 5), randn(3, 5, seed=1), torch.empty(0, 5, dtype=torch.float64))
    assert_close(F.cross_entropy(logits, labels).item(), 0.0)


def test_queue_wraps_around_and_holds_unit_keys_without_gradient():
    queue, keys = torch.zeros(5, 3, dtype=torch.float64), randn(4, 3).requires_grad_()
    ptr = queue_enqueue(queue, 0, keys)
    assert ptr == 4
    assert queue_enqueue(queue, ptr, 2 * keys) == 3
    expected = F.normalize(keys.detach(), dim=1)
    assert_close(queue, torch.stack([*expected[1:4], expected[3], expected[0]]))
    assert not queue.requires_grad


def test_shuffle_bn_is_undone_by_its_inverse_and_uses_its_generator():
    x, generator = randn(10, 2), torch.Generator().manual_seed(3)
    first, inverse = shuffle_bn(x, generator)
    second, _ = shuffle_bn(x, generator)
    assert torch.equal(first[inverse], x)
    assert not torch.equal(first, x)
    assert not torch.equal(first, second)
    assert torch.equal(first, shuffle_bn(x, torch.Generator().manual_seed(3))[0])


def test_moco_v3_is_two_crossed_info_nces():
    q1, q2, k1, k2 = (randn(4, 6, seed=s).requires_grad_() for s in range(4))
    loss = symmetric_moco_v3(q1, q2, k1, k2, tau=0.3)
    assert_close(loss, 0.6 * (info_nce(q1, k2, tau=0.3) + info_nce(q2, k1, tau=0.3)))
    loss.backward()
    assert k1.grad is None
    assert k2.grad is None


def test_bad_input_is_one_sentence():
    z = randn(4, 5)
    for call in (
        lambda: supcon_out(z),
        lambda: supcon_in(randn(4, 2, 5), torch.arange(3)),
        lambda: supcon_out(randn(4, 2, 5), tau=0.0),
        lambda: hcl_reweighted(z[:, 0], z[:3]),
        lambda: hcl_reweighted(z[:, 0], z, tau_plus=1.0),
        lambda: mochi_synthesize(z, z, 5, 1, 1, torch.Generator()),
        lambda: moco_logits(z, z, randn(3, 4)),
        lambda: queue_enqueue(randn(3, 5), 0, z),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert "\n" not in str(error.value)
