"""Metric-learning losses against slow forms written from the papers, their limits, and gradients at the edges."""

import math
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from sslcourse.errors import InputError
from sslcourse.losses.infonce import info_nce
from sslcourse.losses.pairwise import (
    batch_hard_triplet,
    chopra_contrastive,
    lifted_structured,
    n_pair,
    pairwise_distance,
    soft_nearest_neighbor,
    triplet,
)

LABELLED = [batch_hard_triplet, triplet, lifted_structured, soft_nearest_neighbor]


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(0)
    return torch.randn(9, 4, generator=g, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 3])


def distance(z, i, j):
    return math.dist(z[i].tolist(), z[j].tolist())


def test_contrastive_by_hand():
    d, same = torch.tensor([0.5, 0.5, 3.0]), torch.tensor([True, False, False])
    assert_close(chopra_contrastive(d, same, margin=1.0), torch.tensor((0.25 + 0.25 + 0.0) / 3))


def test_batch_hard_slow_form(batch):
    z, y = batch
    losses = []
    for a in range(len(y)):
        positives = [distance(z, a, p) for p in range(len(y)) if p != a and y[p] == y[a]]
        negatives = [distance(z, a, n) for n in range(len(y)) if y[n] != y[a]]
        if positives and negatives:  # the singleton class 3 has no positive
            losses.append(max(0.0, 0.3 + max(positives) - min(negatives)))
    assert_close(batch_hard_triplet(z, y, 0.3).item(), sum(losses) / len(losses))


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("active_only", [False, True])
def test_all_triplets_slow_form(batch, squared, active_only):
    z, y = batch
    power = 2 if squared else 1
    losses = [
        max(0.0, distance(z, a, p) ** power - distance(z, a, n) ** power + 0.2)
        for a in range(9)
        for p in range(9)
        for n in range(9)
        if p != a and y[p] == y[a] and y[n] != y[a]
    ]
    losses = [x for x in losses if x > 0] if active_only else losses
    ours = triplet(z, y, 0.2, squared=squared, active_only=active_only)
    assert_close(ours.item(), sum(losses) / len(losses))


def test_semi_hard_slow_form(batch):
    z, y = batch
    losses = []
    for a in range(9):
        for p in range(9):
            if p == a or y[p] != y[a]:
                continue
            negatives = [distance(z, a, n) for n in range(9) if y[n] != y[a]]
            further = [d for d in negatives if d > distance(z, a, p)]
            chosen = min(further) if further else max(negatives)
            losses.append(max(0.0, distance(z, a, p) - chosen + 0.4))
    ours = triplet(z, y, 0.4, mining="semi_hard", active_only=False)
    assert_close(ours.item(), sum(losses) / len(losses))


def test_lifted_structured_slow_form(batch):
    z, y = batch
    losses = []
    for i, j in combinations(range(9), 2):
        if y[i] != y[j]:
            continue
        pushes = [1.0 - distance(z, e, k) for e in (i, j) for k in range(9) if y[k] != y[e]]
        total = math.log(sum(map(math.exp, pushes))) + distance(z, i, j)
        losses.append(max(0.0, total) ** 2 / 2)
    assert_close(lifted_structured(z, y, 1.0).item(), sum(losses) / len(losses))


def test_soft_nearest_neighbor_slow_form(batch):
    z, y = batch
    losses = []
    for i in range(9):
        weights = {j: math.exp(-(distance(z, i, j) ** 2) / 0.7) for j in range(9) if j != i}
        own = sum(w for j, w in weights.items() if y[j] == y[i])
        if own:
            losses.append(-math.log(own / sum(weights.values())))
    assert_close(soft_nearest_neighbor(z, y, 0.7).item(), sum(losses) / len(losses))


def test_n_pair_of_unit_vectors_is_info_nce(batch):
    a, p = F.normalize(batch[0][:4], dim=1), F.normalize(batch[0][4:8], dim=1)
    assert_close(n_pair(a, p), info_nce(a, p, tau=1.0))
    assert_close(n_pair(a, p, l2=0.02) - n_pair(a, p), torch.tensor(0.02, dtype=torch.float64))


@pytest.mark.parametrize("loss", LABELLED)
def test_gradients(batch, loss):
    z, y = batch
    assert torch.autograd.gradcheck(lambda x: loss(x, y), z.clone().requires_grad_())


@pytest.mark.parametrize("loss", LABELLED)
@pytest.mark.parametrize(
    "y", [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 2]], ids=["one class", "singletons", "few positives"]
)
def test_duplicates_and_missing_partners_stay_finite(loss, y):
    z = torch.tensor([[1.0, 2.0]] * 4, requires_grad=True)
    value = loss(z, torch.tensor(y))
    value.backward()
    assert value.isfinite()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("loss", LABELLED)
def test_large_distances_stay_finite(loss):
    z = (1e4 * torch.eye(4)).requires_grad_()
    value = loss(z, torch.tensor([0, 0, 1, 1]))
    value.backward()
    assert value.isfinite()
    assert z.grad.isfinite().all()


def test_order_does_not_matter(batch):
    z, y = batch
    order = torch.tensor([4, 2, 8, 0, 7, 1, 3, 6, 5])
    for loss in LABELLED:
        assert_close(loss(z, y), loss(z[order], y[order]))


def test_distance_to_itself_has_no_gradient():
    z = torch.zeros(2, 3, requires_grad=True)
    pairwise_distance(z, z).sum().backward()
    assert torch.equal(z.grad, torch.zeros(2, 3))


def test_bad_input_is_one_sentence(batch):
    z, y = batch
    for call in (
        lambda: batch_hard_triplet(z, y[:3]),
        lambda: soft_nearest_neighbor(z, y, 0.0),
        lambda: lifted_structured(z.long(), y),
        lambda: triplet(z, y, -1.0),
        lambda: chopra_contrastive(z[:, 0], y[:3]),
        lambda: n_pair(z[:1], z[:1]),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert "\n" not in str(error.value)
