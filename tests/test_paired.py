"""Two models on one test set: paired intervals, mCE, effective robustness, all against what they are by hand."""

import dataclasses

import pytest
import torch
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.evaluate.paired import (
    difference,
    effective_robustness_result,
    is_comparison,
    mce_results,
    with_comparisons,
)
from sslcourse.evaluate.result import Result, accuracy, from_json, mean_result, seed_interval, to_json
from sslcourse.evaluate.robustness import mce, relative_mce, robustness_result


def model(name: str, hits: Tensor, protocol: str = "knn") -> Result:
    detail = {"protocol": protocol, "representation": name}
    return accuracy(f"{protocol}, {name}", torch.stack([1 - hits, hits], dim=1), torch.ones(len(hits)).long(), detail)


def hits(n: int, share: float, seed: int) -> Tensor:
    return (torch.rand(n, generator=torch.Generator().manual_seed(seed)) < share).float()


def test_models_that_fail_on_the_same_images_are_told_apart() -> None:
    """Five images more of 200: the separate intervals overlap widely, that of the difference stays above 0."""
    weak = hits(200, 0.6, 0)
    strong = weak.clone()
    strong[(weak == 0).nonzero()[:8, 0]] = 1
    a, b = model("strong", strong), model("weak", weak)
    assert a.low < b.high
    found = difference(a, b)
    assert found.value == pytest.approx(8 / 200)
    assert 0 < found.low < found.value < found.high
    assert found.high - found.low < 0.5 * (a.high - a.low)
    back = difference(b, a)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low), abs=1e-9)
    assert (found.n, found.over, found.name) == (200, "images", "knn, strong - weak")
    assert found.interval.startswith("[+")
    assert is_comparison(found)
    assert not is_comparison(a)


def test_over_seeds_the_pairs_have_students_interval() -> None:
    a, b = (
        dataclasses.replace(seed_interval(v, "knn"), detail={"protocol": "knn", "representation": r})
        for v, r in (([0.6, 0.7, 0.8], "a"), ([0.5, 0.65, 0.7], "b"))
    )
    found, by_hand = difference(a, b), seed_interval([0.1, 0.05, 0.1])
    assert (found.value, found.low, found.high) == pytest.approx((by_hand.value, by_hand.low, by_hand.high))
    assert (found.n, found.over) == (3, "seeds")


def test_scores_that_are_no_means_are_paired_by_their_resamples() -> None:
    detail = {"protocol": "segmentation"}
    draws = torch.linspace(0.2, 0.4, 101, dtype=torch.float64)
    a, b = (
        Result("s", 0.3 + gap, 0.2, 0.4, 10, "images", detail | {"representation": r}, {"draws": draws + gap})
        for gap, r in ((0.05, "a"), (0.0, "b"))
    )
    found = difference(a, b)
    assert (found.value, found.low, found.high) == pytest.approx((0.05, 0.05, 0.05))


def test_what_cannot_be_paired_is_one_sentence() -> None:
    a = model("a", hits(20, 0.5, 0))
    for other in (model("b", hits(10, 0.5, 0)), model("b", hits(20, 0.5, 0), "linear")):
        with pytest.raises(InputError, match="one protocol and test set"):
            difference(a, other)
    with pytest.raises(InputError, match="keep no scores"):
        difference(a, from_json(to_json(a)))


def corrupted(name: str, share: float, clean: float, seed: int) -> Result:
    g = torch.Generator().manual_seed(seed)
    recognised = torch.rand(3, 5, 60, generator=g) < share
    result = robustness_result(recognised, torch.rand(60, generator=g) < clean, ["a", "b", "c"])
    return dataclasses.replace(result, detail=result.detail | {"representation": name})


def test_mce_of_results_is_that_of_their_errors() -> None:
    a, b = corrupted("net", 0.7, 0.9, 0), corrupted("pixels", 0.4, 0.8, 1)
    found = {r.detail["protocol"]: r for r in mce_results(a, b)}
    ours, theirs = (torch.tensor(list(r.detail["errors"].values())) for r in (a, b))
    assert found["mce"].value == pytest.approx(mce(ours, theirs).item())
    clean = [1 - r.detail["clean_accuracy"] for r in (a, b)]
    assert found["relative_mce"].value == pytest.approx(relative_mce(ours, clean[0], theirs, clean[1]).item())
    for r in found.values():
        assert r.low < r.value < r.high
        assert r.n == 60
    (same, relative) = mce_results(b, b)
    assert (same.value, same.low, same.high) == pytest.approx((1, 1, 1))
    assert relative.value == pytest.approx(1)


def test_a_reference_without_errors_has_no_mce() -> None:
    a, perfect = corrupted("net", 0.7, 0.9, 0), corrupted("perfect", 1.1, 1.1, 1)
    assert mce_results(a, perfect) == []
    with pytest.raises(InputError, match="keeps none"):
        mce_results(a, model("knn", hits(60, 0.5, 0)))


def shifted(name: str, ladder: list[tuple[float, float]], n: int = 1000) -> Result:
    """Exactly these shares of n images recognised, without and with shift."""
    rows = [[(torch.arange(n) < round(share * n)).float() for share in pair] for pair in ladder]
    detail = {"protocol": "shift", "representation": name}
    kept = {"ladder": torch.stack([torch.stack(part) for part in zip(*rows, strict=True)])}
    return dataclasses.replace(mean_result("shift", rows[-1][1], "images", detail), kept=kept)


def test_effective_robustness_is_the_height_over_the_line_of_the_references() -> None:
    def on_line(x: float) -> float:
        return torch.sigmoid(torch.logit(torch.tensor(x)) - 1).item()

    references = [shifted("pixels", [(x, on_line(x)) for x in (0.3, 0.5, 0.8)])]
    level = shifted("level", [(x, on_line(x)) for x in (0.4, 0.6, 0.9)])
    above = shifted("above", [(0.4, 0.3), (0.6, 0.5), (0.9, on_line(0.9) + 0.1)])
    found = effective_robustness_result(level, references)
    assert found.value == pytest.approx(0, abs=2e-3)  # shares are whole images
    assert found.low < 0 < found.high
    assert found.detail["slope"] == pytest.approx(1, abs=0.02)
    found = effective_robustness_result(above, references)
    assert found.value == pytest.approx(0.1, abs=2e-3)
    assert found.low > 0
    with pytest.raises(InputError, match="same images"):
        effective_robustness_result(level, [shifted("pixels", [(0.5, 0.4)])])


def test_the_table_keeps_protocols_together() -> None:
    results = [model(name, hits(50, share, i)) for i, (name, share) in enumerate({"pixels": 0.3, "net": 0.6}.items())]
    results += [corrupted("pixels", 0.4, 0.8, 1), corrupted("net", 0.7, 0.9, 0)]
    results.append(Result("rankme, net", 9.0, 8.0, 10.0, 50, "images", {"protocol": "rankme", "representation": "net"}))
    table = with_comparisons(results, ["net"], ["pixels"])
    assert [(r.detail["protocol"], r.detail["representation"], r.detail.get("minus")) for r in table] == [
        ("knn", "pixels", None),
        ("knn", "net", None),
        ("knn", "net", "pixels"),
        ("robustness", "pixels", None),
        ("robustness", "net", None),
        ("robustness", "net", "pixels"),
        ("mce", "net", None),
        ("relative_mce", "net", None),
        ("rankme", "net", None),
    ]


def test_a_result_survives_json() -> None:
    one = seed_interval([0.5], "one run")
    back = from_json(to_json(one))
    assert (back.low != back.low, back.value, back.n) == (True, 0.5, 1)
