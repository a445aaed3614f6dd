"""Retrieval: mAP with junk against a loop and a hand-worked ranking, bounded memory, clear sentences."""

import math

import pytest
import torch
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.evaluate import (
    average_precision,
    mean_average_precision,
    micro_average_precision,
    precision_at,
    retrieval_ap,
    retrieval_map,
    revisited,
)
from sslcourse.evaluate.descriptors import Whitening, gem, multi_scale, pca_projection


def loop_ap(scores: Tensor, relevant: Tensor, junk: Tensor, rule: str) -> list[float]:
    """The definition, one query and one image at a time."""
    aps = []
    for s, r, j in zip(scores.tolist(), relevant.tolist(), junk.tolist(), strict=True):
        ranking = [i for i in sorted(range(len(s)), key=lambda i: (-s[i], i)) if not j[i]]
        wanted = [i for i in range(len(s)) if r[i] and not j[i]]
        area, found = 0.0, 0
        for rank, i in enumerate(ranking):
            if i in wanted:
                before = 1.0 if rank == 0 else found / rank
                found += 1
                after = found / (rank + 1)
                area += after if rule == "step" else (before + after) / 2
        aps.append(area / len(wanted) if wanted else math.nan)
    return aps


@pytest.mark.parametrize("rule", ["trapezoid", "step"])
@pytest.mark.parametrize("levels", [3, 1000])  # few levels: nearly everything is tied
def test_equals_the_loop(rule: str, levels: int) -> None:
    g = torch.Generator().manual_seed(levels)
    scores = torch.randint(levels, (20, 30), generator=g).float()
    relevant, junk = torch.rand(20, 30, generator=g) < 0.15, torch.rand(20, 30, generator=g) < 0.2
    relevant[3] = False
    ours = average_precision(scores, relevant, junk, rule=rule)
    expected = torch.tensor(loop_ap(scores, relevant, junk, rule), dtype=torch.float64)
    torch.testing.assert_close(ours, expected, equal_nan=True)
    assert torch.equal(mean_average_precision(scores, relevant, junk, rule=rule), ours.nanmean())


def test_a_worked_ranking() -> None:
    # Ranking: relevant, junk, other, relevant. Without the junk the relevant ones stand at ranks 0 and 2 of 3.
    scores = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    relevant = torch.tensor([[True, False, False, True]])
    junk = torch.tensor([[False, True, False, False]])
    assert mean_average_precision(scores, relevant, junk, rule="step").item() == pytest.approx((1 + 2 / 3) / 2)
    assert mean_average_precision(scores, relevant, junk).item() == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    # As a negative, the junk would cost: ranks 0 and 3.
    assert mean_average_precision(scores, relevant, rule="step").item() == pytest.approx((1 + 2 / 4) / 2)


def test_step_rule_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score

    g = torch.Generator().manual_seed(0)
    scores, relevant = torch.randn(8, 50, generator=g), torch.rand(8, 50, generator=g) < 0.2
    expected = [average_precision_score(r.numpy(), s.double().numpy()) for s, r in zip(scores, relevant, strict=True)]
    torch.testing.assert_close(
        average_precision(scores, relevant, rule="step"), torch.tensor(expected, dtype=torch.float64)
    )
    micro = average_precision_score(relevant.flatten().numpy(), scores.flatten().numpy())
    assert micro_average_precision(scores, relevant).item() == pytest.approx(micro)


def test_a_relevant_image_at_minus_infinity_still_ranks_before_nothing() -> None:
    scores = torch.tensor([[1.0, -math.inf, -math.inf]])
    relevant, junk = torch.tensor([[False, False, True]]), torch.tensor([[False, True, False]])
    assert average_precision(scores, relevant, junk, rule="step").item() == pytest.approx(1 / 2)


def test_easy_medium_and_hard() -> None:
    scores = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0]])  # hard, easy, junk, other, easy
    easy = torch.tensor([[False, True, False, False, True]])
    hard = torch.tensor([[True, False, False, False, False]])
    junk = torch.tensor([[False, False, True, False, False]])
    maps = {
        name: mean_average_precision(scores, *ground, rule="step")
        for name, ground in revisited(easy, hard, junk).items()
    }
    assert maps["easy"].item() == pytest.approx((1 + 2 / 3) / 2)
    assert maps["medium"].item() == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert maps["hard"].item() == 1.0


def test_precision_at_k_stops_at_the_last_relevant_image() -> None:
    scores = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    relevant = torch.tensor([[True, False, True, False]])
    assert precision_at(scores, relevant, [1, 2, 10]).tolist() == [[1.0, 0.5, pytest.approx(2 / 3)]]


def test_micro_ap_counts_what_was_not_among_the_candidates() -> None:
    scores, relevant = torch.tensor([[2.0, 1.0]]), torch.tensor([[True, False]])
    assert micro_average_precision(scores, relevant).item() == 1.0
    assert micro_average_precision(scores, relevant, n_relevant=4).item() == 0.25
    assert micro_average_precision(scores, torch.zeros_like(relevant), n_relevant=4).item() == 0.0
    with pytest.raises(InputError, match="n_relevant"):
        micro_average_precision(scores, torch.ones_like(relevant), n_relevant=1)


def test_features_in_chunks_give_the_dense_result() -> None:
    g = torch.Generator().manual_seed(0)
    bank, q = torch.randn(40, 8, generator=g, dtype=torch.float64), torch.randn(11, 8, generator=g, dtype=torch.float64)
    labels, q_labels = torch.randint(-1, 4, (40,), generator=g), torch.randint(0, 6, (11,), generator=g)
    similarity = torch.nn.functional.cosine_similarity(q[:, None], bank, dim=2)
    dense = average_precision(similarity, q_labels[:, None] == labels)
    for chunk in (1, 4, 100):
        ours = retrieval_ap(bank, labels, q, q_labels, chunk=chunk)
        torch.testing.assert_close(ours, dense, equal_nan=True)
    assert ours[q_labels > 3].isnan().all()
    result = retrieval_map(bank, labels, q, q_labels)
    assert result.n == int((q_labels <= 3).sum())
    assert result.low <= result.value <= result.high


def test_an_image_does_not_find_itself() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.2]])
    ap = retrieval_ap(bank, torch.tensor([0, 0, 1, 2]), bank, torch.tensor([0, 0, 1, 2]), leave_one_out=True)
    assert ap[:2].tolist() == [1.0, 1.0]
    assert ap[2:].isnan().all()  # nothing else shows what they show


def test_unlabelled_images_are_distractors_even_for_an_unlabelled_query() -> None:
    bank = torch.eye(3)
    assert retrieval_ap(bank, torch.tensor([-1, -1, 0]), bank[:1], torch.tensor([-1])).isnan().all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((torch.rand(2, 3), torch.ones(2, 4, dtype=torch.bool)), "queries, images"),
        ((torch.rand(2, 3), torch.ones(2, 3)), "bool"),
        ((torch.full((1, 2), torch.nan), torch.ones(1, 2, dtype=torch.bool)), "NaN"),
        ((torch.rand(2, 3), torch.zeros(2, 3, dtype=torch.bool)), "at least one query"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[Tensor, Tensor], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        mean_average_precision(*arguments)


def test_bad_features_are_one_sentence() -> None:
    x, y = torch.rand(4, 3), torch.zeros(4, dtype=torch.long)
    with pytest.raises(InputError, match="finite"):
        retrieval_ap(x, y, x * torch.nan, y)
    with pytest.raises(InputError, match="whose class is in the bank"):
        retrieval_map(x, y, x, y + 1)
    with pytest.raises(InputError, match="rule"):
        mean_average_precision(x, x > 0, rule="steps")  # type: ignore[arg-type]


def test_gem_lies_between_mean_and_maximum() -> None:
    x = torch.rand(2, 9, 4, generator=torch.Generator().manual_seed(0)) + 0.1
    torch.testing.assert_close(gem(x, p=1), x.mean(1))
    torch.testing.assert_close(gem(x, p=3), x.pow(3).mean(1).pow(1 / 3))
    torch.testing.assert_close(gem(x, p=1e4), x.amax(1), rtol=1e-3, atol=1e-3)


def test_multi_scale_does_not_mix_the_images_of_a_batch() -> None:
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    features = multi_scale(x, lambda v: v.mean((2, 3)))
    torch.testing.assert_close(features, torch.cat([multi_scale(one, lambda v: v.mean((2, 3))) for one in x[:, None]]))


def test_whitened_features_are_uncorrelated() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(500, 6, generator=g, dtype=torch.float64) @ torch.randn(6, 6, generator=g, dtype=torch.float64) + 3
    y = Whitening.fit(x, 4)(x)
    torch.testing.assert_close(y.T @ y / len(y), torch.eye(4, dtype=torch.float64))
    assert pca_projection(torch.diag(torch.tensor([1.0, 0.0])), 2).isfinite().all()
