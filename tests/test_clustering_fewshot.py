"""Clustering scores against scikit-learn and all matchings; label subsets that nest and are stratified."""

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.evaluate import (
    cluster_accuracy,
    clustering,
    clustering_scores,
    few_labels,
    kmeans_accuracy,
    stratified_subset,
)
from sslcourse.evaluate.clustering import kmeans, nearest


def blobs(n: int, n_cls: int = 4, spread: float = 0.3, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(n_cls, 8, generator=torch.Generator().manual_seed(7))
    labels = torch.arange(n) % n_cls
    return centres[labels] + spread * torch.randn(n, 8, generator=g), labels


@pytest.mark.parametrize(("clusters", "classes"), [(4, 4), (3, 5), (5, 3)])
def test_cluster_accuracy_is_the_best_of_all_matchings(clusters: int, classes: int) -> None:
    g = torch.Generator().manual_seed(clusters)
    pred, truth = torch.randint(clusters, (60,), generator=g), torch.randint(classes, (60,), generator=g)
    most = max(clusters, classes)
    best = max(
        sum(int((truth[pred == c] == j).sum()) for c, j in enumerate(p[:clusters])) for p in permutations(range(most))
    )
    assert cluster_accuracy(pred, truth) == best / 60


def test_scores_ignore_the_numbering_of_clusters() -> None:
    truth = torch.tensor([0, 0, 1, 1, 2, 2])
    renamed = torch.tensor([5, 5, 0, 0, 2, 2])
    assert clustering_scores(renamed, truth) == pytest.approx({"acc": 1.0, "ari": 1.0, "nmi": 1.0, "fmi": 1.0})
    assert cluster_accuracy(torch.zeros(6, dtype=torch.long), truth) == pytest.approx(1 / 3)


def test_kmeans_finds_separate_blobs_and_assigns_new_points() -> None:
    x, y = blobs(200)
    q, q_y = blobs(40, seed=1)
    result = kmeans_accuracy(x, y, q, q_y)
    assert result.value == 1.0
    assert result.detail["nmi"] == pytest.approx(1.0)
    centres = kmeans(x, 4)
    assert torch.equal(nearest(q, centres), torch.cdist(q, centres).argmin(1))
    assert torch.equal(kmeans(x, 4, seed=3), kmeans(x, 4, seed=3))


def test_centres_are_those_of_training_features_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = blobs(100)
    q, q_y = blobs(20, seed=1)
    found: list[Tensor] = []

    def recorded(*args: Any, **kwargs: Any) -> Tensor:
        found.append(kmeans(*args, **kwargs))
        return found[-1]

    monkeypatch.setattr(clustering, "kmeans", recorded)
    kmeans_accuracy(x, y, q, q_y)
    kmeans_accuracy(x, y, 100 * torch.randn(20, 8, generator=torch.Generator().manual_seed(0)) + 50, q_y.flip(0))
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize(
    ("pred", "truth", "sentence"),
    [
        (torch.zeros(3, dtype=torch.long), torch.zeros(2, dtype=torch.long), "one cluster and one class"),
        (torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), "one cluster and one class"),
        (torch.zeros(2, dtype=torch.long), torch.tensor([0, -1]), "0 or more"),
    ],
)
def test_bad_clusterings_are_one_sentence(pred: Tensor, truth: Tensor, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        cluster_accuracy(pred, truth)


def test_kmeans_refuses_what_it_cannot_cluster() -> None:
    with pytest.raises(InputError, match="k=5"):
        kmeans(torch.rand(4, 2), 5)
    with pytest.raises(InputError, match="finite"):
        kmeans(torch.full((4, 2), torch.nan), 2)


def test_subsets_nest_and_take_the_same_share_of_every_class() -> None:
    g = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate((1000, 400, 50, 3))])
    labels = labels[torch.randperm(len(labels), generator=g)]
    one, ten = stratified_subset(labels, 0.01), stratified_subset(labels, 0.1)
    assert torch.bincount(labels[one]).tolist() == [10, 4, 1, 1]  # never 0
    assert torch.bincount(labels[ten]).tolist() == [100, 40, 5, 1]
    assert set(one.tolist()) < set(ten.tolist())
    assert torch.equal(stratified_subset(labels, 1.0), torch.arange(len(labels)))


def test_subsets_depend_on_the_seed_alone() -> None:
    labels = torch.arange(500) % 5
    first = stratified_subset(labels, 0.1, seed=1)
    torch.rand(3)  # the global generator plays no part
    assert torch.equal(stratified_subset(labels, 0.1, seed=1), first)
    assert not torch.equal(stratified_subset(labels, 0.1, seed=2), first)
    # Another class does not change the choice within a class.
    more = torch.cat([labels, torch.full((100,), 7)])
    assert torch.equal(stratified_subset(more, 0.1, seed=1)[:50], first)


def test_images_without_a_label_are_never_chosen() -> None:
    labels = torch.tensor([-1, 0, -1, 1, 0])
    assert (labels[stratified_subset(labels, 1.0)] >= 0).all()


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_fractions_lie_between_0_and_1(fraction: float) -> None:
    with pytest.raises(InputError, match="fraction"):
        stratified_subset(torch.tensor([0, 1]), fraction)


def test_few_labels_reports_the_spread_over_subsets() -> None:
    x, y = blobs(400, spread=2.0)
    q, q_y = blobs(100, spread=2.0, seed=1)
    few = few_labels(x, y, q, q_y, fraction=0.02, subsets=4, sweep=[1e-2])
    many = few_labels(x, y, q, q_y, fraction=0.5, subsets=4, sweep=[1e-2])
    assert (few.n, few.over, few.detail["n_labels"]) == (4, "subsets", 8)
    assert many.value > few.value
    assert few.low < few.value < few.high
