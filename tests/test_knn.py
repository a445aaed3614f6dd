"""kNN evaluation: equal to a loop written from the papers, deterministic, bounded in memory, clear on bad input."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.evaluate import Result, bootstrap_ci, knn_accuracy, knn_classify, seed_interval, wilson_interval
from sslcourse.evaluate import neighbours as search
from sslcourse.evaluate.result import print_results, save_results


def features(n: int, d: int = 16, n_cls: int = 5, seed: int = 0, dtype: torch.dtype = torch.float32):
    """Noisy class centres: (n, d) features and their labels."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(n_cls, (n,), generator=g)
    centres = torch.randn(n_cls, d, generator=torch.Generator().manual_seed(99))
    return (centres[labels] + 1.5 * torch.randn(n, d, generator=g)).to(dtype), labels


def knn_loop(bank: Tensor, labels: Tensor, q: Tensor, k: int, T: float, n_cls: int, weighted: bool = True) -> Tensor:
    """The definition, one query and one neighbour at a time; exp(s / T) as printed, not normalised."""
    scores = torch.zeros(len(q), n_cls, dtype=torch.float64)
    for i in range(len(q)):
        s = [float(F.cosine_similarity(q[i].double(), b.double(), dim=0)) for b in bank]
        for j in sorted(range(len(bank)), key=lambda j: -s[j])[:k]:
            scores[i, labels[j]] += math.exp(s[j] / T) if weighted else 1.0
    return scores


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_equals_the_loop(k: int, weighted: bool) -> None:
    bank, labels = features(60)
    q, _ = features(17, seed=1)
    expected = knn_loop(bank, labels, q, k, 0.07, 5, weighted)
    scores = knn_classify(bank, labels, q, k, 0.07, 5, weighted=weighted)
    torch.testing.assert_close(scores.double(), expected / expected.sum(1, keepdim=True), rtol=1e-4, atol=1e-6)


def test_a_worked_example() -> None:
    # Cosines with (1, 0): 1, 0.6, 0. The two nearest vote: exp(1 / 0.5) against exp(0.6 / 0.5).
    bank = torch.tensor([[2.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    scores = knn_classify(bank, torch.tensor([2, 0, 1]), torch.tensor([[5.0, 0.0]]), k=2, T=0.5)
    near, far = math.exp(2.0), math.exp(1.2)
    torch.testing.assert_close(scores, torch.tensor([[far, 0.0, near]]) / (near + far))


def test_chunks_do_not_change_the_scores() -> None:
    bank, labels = features(200, dtype=torch.float64)
    q, _ = features(50, seed=1, dtype=torch.float64)
    whole = knn_classify(bank, labels, q, chunk=50)
    for chunk in (1, 7, 49):
        torch.testing.assert_close(knn_classify(bank, labels, q, chunk=chunk), whole)


@pytest.mark.parametrize("n", [2000, 2333])
@pytest.mark.parametrize("k", [1, 7, 20])
def test_the_blocked_search_finds_what_topk_finds(n: int, k: int) -> None:
    g = torch.Generator().manual_seed(n + k)
    similarity = torch.randn(30, n, generator=g)
    values, index = search._top_k(similarity, k)
    expected = similarity.topk(k)
    assert torch.equal(values, expected.values)
    assert torch.equal(index, expected.indices)


@pytest.mark.parametrize("n", [40, 3000])
def test_ties_at_rank_k_go_to_the_first_in_the_bank(n: int) -> None:
    # Few distinct values, so that almost every row is tied at rank k.
    similarity = torch.randint(4, (20, n), generator=torch.Generator().manual_seed(0)).float()
    _, index = search._top_k(similarity.clone(), 9)
    expected = similarity.sort(dim=1, descending=True, stable=True).indices[:, :9]
    assert torch.equal(index.sort(dim=1).values, expected.sort(dim=1).values)


def unit(n: int, d: int, seed: int, spread: float = 1.0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(1 - spread + spread * torch.randn(n, d, generator=g), dim=1)


# Random directions; features so alike that bfloat16 tells nothing; a bank with copies, so ties at rank k; a tiny one.
SEARCHED = {
    "random": (unit(3000, 64, 0), unit(50, 64, 1)),
    "alike": (unit(3000, 64, 0, 0.003), unit(50, 64, 1, 0.003)),
    "copies": (unit(60, 64, 0).repeat(50, 1), unit(50, 64, 1)),
    "tiny": (unit(12, 8, 0), unit(12, 8, 1)),
}


@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize("case", SEARCHED)
def test_the_search_through_bfloat16_finds_the_same(case: str, leave_one_out: bool) -> None:
    bank, q = SEARCHED[case]
    q = bank[: len(q)] if leave_one_out else q
    bank = bank[: len(q)] if leave_one_out and case == "tiny" else bank
    s, index = search.neighbours(bank, q, 9, chunk=17, leave_one_out=leave_one_out, coarse=True)
    similarity = q @ bank.T
    if leave_one_out:
        own = torch.arange(len(q))
        similarity[own, own] = -torch.inf
        assert not bool((index == own[:, None]).any())
    torch.testing.assert_close(s.sort(dim=1).values, similarity.topk(9).values.sort(dim=1).values)
    torch.testing.assert_close(similarity.gather(1, index), s)
    if case == "copies":
        expected = similarity.sort(dim=1, descending=True, stable=True).indices[:, :9]
        assert torch.equal(index.sort(dim=1).values, expected.sort(dim=1).values)
    assert all(len(set(row.tolist())) == 9 for row in index)


def test_candidates_are_enough_for_spread_features_and_given_up_for_alike_ones() -> None:
    def searched_again(bank: Tensor, q: Tensor) -> Tensor:
        s, index = q.new_empty(len(q), 9), torch.empty(len(q), 9, dtype=torch.long)
        return search._through_candidates(bank, q, None, s, index, 20)

    assert len(searched_again(unit(20_000, 64, 0), unit(60, 64, 1))) < 20
    assert searched_again(*SEARCHED["alike"]).tolist() == list(range(50))


def test_collapsed_features_vote_for_the_first_k_of_the_bank() -> None:
    labels = torch.tensor([3, 3, 1, 0, 0, 0, 0])
    scores = knn_classify(torch.ones(7, 4), labels, torch.ones(2, 4), k=3)
    torch.testing.assert_close(scores, torch.tensor([[0, 1 / 3, 0, 2 / 3]] * 2))


def test_all_zero_features_are_not_nan() -> None:
    assert knn_classify(torch.zeros(4, 3), torch.tensor([0, 1, 0, 1]), torch.zeros(2, 3), k=2).isfinite().all()


@pytest.mark.parametrize("T", [1e-4, 0.07, 1e4])
def test_temperature_extremes_stay_finite(T: float) -> None:
    bank, labels = features(80)
    scores = knn_classify(bank, labels, bank, k=10, T=T)
    torch.testing.assert_close(scores.sum(1), torch.ones(80))
    if T == 1e4:  # every neighbour counts the same
        torch.testing.assert_close(scores, knn_classify(bank, labels, bank, k=10, weighted=False), atol=1e-3, rtol=0)
    if T == 1e-4:  # only the nearest counts, and that is the query itself
        assert torch.equal(scores.argmax(1), labels)


def test_scale_of_the_features_does_not_matter() -> None:
    bank, labels = features(80)
    q, _ = features(9, seed=1)
    scores = knn_classify(bank, labels, q)
    torch.testing.assert_close(knn_classify(bank * 1e4, labels, q * 1e-4), scores, rtol=1e-4, atol=1e-5)


def test_order_of_bank_and_queries_does_not_matter() -> None:
    bank, labels = features(120, dtype=torch.float64)
    q, _ = features(30, seed=1, dtype=torch.float64)
    p, r = torch.randperm(120, generator=torch.Generator().manual_seed(2)), torch.arange(29, -1, -1)
    torch.testing.assert_close(knn_classify(bank[p], labels[p], q[r]), knn_classify(bank, labels, q)[r])


def test_leave_one_out_never_asks_the_query_itself() -> None:
    bank, labels = features(90, dtype=torch.float64)
    scores = knn_classify(bank, labels, bank, k=5, n_cls=5, leave_one_out=True, chunk=40)
    for i in (0, 39, 40, 89):
        rest = torch.arange(90) != i
        torch.testing.assert_close(
            scores[i : i + 1], knn_classify(bank[rest], labels[rest], bank[i : i + 1], 5, n_cls=5)
        )
    # One class a feature: with itself in the bank every query is right, without it none can be.
    alone = torch.arange(90)
    assert torch.equal(knn_classify(bank, alone, bank, k=1).argmax(1), alone)
    assert not (knn_classify(bank, alone, bank, k=1, leave_one_out=True).argmax(1) == alone).any()


def test_one_class_no_queries_and_unused_classes() -> None:
    bank, _ = features(10)
    labels = torch.zeros(10, dtype=torch.long)
    torch.testing.assert_close(knn_classify(bank, labels, bank, k=10), torch.ones(10, 1))
    assert knn_classify(bank, labels, bank[:0], k=3, n_cls=7).shape == (0, 7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    bank, labels = features(50, dtype=dtype)
    scores = knn_classify(bank, labels, bank)
    assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_inputs_are_left_alone_and_need_no_gradient() -> None:
    bank, labels = features(50)
    q = bank.clone().requires_grad_()
    before = bank.clone()
    assert not knn_classify(bank, labels, q).requires_grad
    assert torch.equal(bank, before)


def test_memory_is_bounded_by_the_chunk() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, list | tuple) else [out]:
                if isinstance(x, Tensor):
                    largest = max(largest, x.untyped_storage().nbytes())
            return out

    bank, labels = features(2000, d=8)
    with Largest():
        knn_classify(bank, labels, bank, chunk=10)
    found, features_and_chunk = 2000 * 20 * 8, 2000 * 8 * 4 + 10 * 2000 * 4
    assert largest <= max(found, features_and_chunk)  # never 2000 x 2000


BAD = {
    "too few neighbours": (lambda b, y: knn_classify(b, y, b, k=21), "1 <= k <= 20"),
    "k = 0": (lambda b, y: knn_classify(b, y, b, k=0), "1 <= k <= 20"),
    "leave one out": (lambda b, y: knn_classify(b, y, b, k=20, leave_one_out=True), "1 <= k <= 19"),
    "leave one out, other queries": (lambda b, y: knn_classify(b, y, b[:3], k=2, leave_one_out=True), "as queries"),
    "temperature": (lambda b, y: knn_classify(b, y, b, T=0.0), "temperature above 0"),
    "widths": (lambda b, y: knn_classify(b, y, b[:, :3]), r"\(20, 16\) and \(20, 3\)"),
    "uint8": (lambda b, y: knn_classify(b.byte(), y, b.byte()), "float features"),
    "labels": (lambda b, y: knn_classify(b, y[:7], b), "20 bank features"),
    "float labels": (lambda b, y: knn_classify(b, y.float(), b), "integer label"),
    "unlabelled": (lambda b, y: knn_classify(b, y - 1, b), "-1 marks"),
    "too few classes": (lambda b, y: knn_classify(b, y, b, n_cls=2), r"0 \.\. 1"),
    "NaN in the bank": (lambda b, y: knn_classify(b / (b != b[3]), y, b), "1 of 20 bank features"),
    "inf in a query": (lambda b, y: knn_classify(b, y, b * torch.inf), "20 of 20 query features"),
    "empty bank": (lambda b, y: knn_classify(b[:0], y[:0], b), "1 <= k <= 0"),
    "no query": (lambda b, y: knn_accuracy(b, y, b[:0], y[:0]), "at least one"),
    "query labels": (lambda b, y: knn_accuracy(b, y, b, y[:2]), "query labels"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(case: str) -> None:
    call, sentence = BAD[case]
    bank, labels = features(20)
    with pytest.raises(InputError, match=sentence) as error:
        call(bank, labels)
    assert "\n" not in str(error.value)


def test_accuracy_is_a_result() -> None:
    bank, labels = features(300)
    q, truth = features(200, seed=1)
    result = knn_accuracy(bank, labels, q, truth)
    assert result.value == (knn_classify(bank, labels, q).argmax(1) == truth).double().mean().item()
    assert result.low < result.value < result.high
    assert (result.n, result.over, result.detail["k"]) == (200, "images", 20)
    assert result.detail["top5"] == 1.0  # there are 5 classes
    assert knn_accuracy(bank[:4], labels[:4], q, truth).detail["k"] == 4


# --- Result ------------------------------------------------------------------------------------------------------


def test_wilson_interval_values() -> None:
    # Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(20, 20)[1] == 1.0
    with pytest.raises(InputError, match="0 <= successes <= n"):
        wilson_interval(3, 2)


def test_bootstrap_agrees_with_theory_and_pairs() -> None:
    g = torch.Generator().manual_seed(0)
    a = torch.rand(2000, generator=g) < 0.7
    low, high = bootstrap_ci(a, generator=torch.Generator().manual_seed(1))
    p = a.double().mean().item()
    half = 1.96 * math.sqrt(p * (1 - p) / 2000)
    assert (low, high) == pytest.approx((p - half, p + half), abs=2e-3)
    assert bootstrap_ci(a, generator=torch.Generator().manual_seed(1)) == (low, high)
    # b is a with 20 hits turned into misses: the paired difference is sure, two separate intervals overlap widely.
    b = a.clone()
    b[a.nonzero()[:20, 0]] = False
    low, high = bootstrap_ci(a, b, generator=torch.Generator().manual_seed(1))
    assert 0 < low < 0.01 < high < 0.02
    assert bootstrap_ci(a, a, generator=torch.Generator().manual_seed(1)) == (0.0, 0.0)


def test_bootstrap_bad_input() -> None:
    g = torch.Generator()
    with pytest.raises(InputError, match="one score an image"):
        bootstrap_ci(torch.ones(3), torch.ones(4), generator=g)
    with pytest.raises(InputError, match="one score an image"):
        bootstrap_ci(torch.ones(0), generator=g)
    with pytest.raises(InputError, match="level"):
        bootstrap_ci(torch.ones(3), level=95, generator=g)


def test_seed_interval_is_students_t() -> None:
    result = seed_interval([0.40, 0.42, 0.44, 0.41, 0.43], "simclr")
    # mean 0.42, s.d. 0.015811, t(4, 0.975) = 2.7764
    half = 2.7764 * 0.0158114 / math.sqrt(5)
    assert (result.value, result.low, result.high) == pytest.approx((0.42, 0.42 - half, 0.42 + half), abs=1e-6)
    assert (result.n, result.over) == (5, "seeds")
    single = seed_interval([0.5])
    assert math.isnan(single.low)
    assert "no interval" in str(single)
    with pytest.raises(InputError, match="at least one run"):
        seed_interval([])


def test_results_are_printed_and_saved_with_interval_and_n(tmp_path, capsys) -> None:
    import json

    results = [Result("pixels", 0.35, 0.31, 0.39, 500), seed_interval([0.5], "one seed")]
    print_results(results, "kNN")
    printed = capsys.readouterr().out
    for text in ("pixels", "0.350", "[0.310, 0.390]", "500 images", "[no interval from 1]", "1 seeds"):
        assert text in printed
    save_results(results, tmp_path / "r.json")
    rows = json.loads((tmp_path / "r.json").read_text())
    assert rows[0]["value"] == 0.35
    assert rows[1]["low"] is None
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]
