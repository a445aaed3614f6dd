"""Diagnostics as protocols: the monitors' numbers with an interval, over test images."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sslcourse.data.images import Images
from sslcourse.errors import InputError
from sslcourse.evaluate.baselines import pixel_encoder
from sslcourse.evaluate.diagnostics import (
    _jackknifed,
    alignment_of_views,
    cka_with_pixels,
    pair_auc,
    rank_of_features,
    similarity_histogram,
    spread_of_features,
    uniformity_of_features,
)
from sslcourse.evaluate.encoder import Encoder
from sslcourse.evaluate.figure import plot_histograms
from sslcourse.train.monitor import measure

NONE = torch.zeros(0, 8)
BY_NAME = {"feature_std": spread_of_features, "rankme": rank_of_features, "uniformity": uniformity_of_features}


def features(n: int = 120, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    return torch.randn(3, 8, generator=g)[y] + 0.7 * torch.randn(n, 8, generator=g), y


def photos(n: int = 24, seed: int = 0) -> Images:
    g = torch.Generator().manual_seed(seed)
    return Images(torch.randint(256, (n, 3, 16, 16), generator=g, dtype=torch.uint8), torch.arange(n) % 2)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_value_is_that_of_the_monitor(name: str) -> None:
    x, y = features()
    result = BY_NAME[name](NONE, NONE[:, 0], x, y)
    assert result.value == pytest.approx(measure(x)[name], rel=1e-4)
    assert result.low < result.value < result.high
    assert (result.n, result.over) == (120, "images")
    shuffled = x[torch.randperm(120, generator=torch.Generator().manual_seed(1))]
    assert BY_NAME[name](NONE, NONE[:, 0], shuffled, y).value == pytest.approx(result.value, rel=1e-4)


def test_collapse_shows() -> None:
    collapsed = torch.ones(50, 8) + 1e-3 * torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    assert spread_of_features(NONE, NONE, collapsed, NONE).high < 0.01
    assert rank_of_features(NONE, NONE, collapsed, NONE).high < 1.2


def test_the_jackknife_of_a_mean_is_the_textbook_standard_error() -> None:
    x = torch.randn(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = _jackknifed("mean", lambda rows: rows[0].mean().item(), [x[:, None]], 0)
    assert result.detail["groups"] == 10
    pairs = (x[:10] + x[10:]) / 2  # group g leaves out images g and g + 10
    error = pairs.std().item() / math.sqrt(10)
    assert (result.high - result.low) / 2 == pytest.approx(2.2622 * error, rel=1e-3)  # t with 9 degrees of freedom
    with pytest.raises(InputError, match="four test images"):
        _jackknifed("mean", lambda rows: 0.0, [x[:3, None]], 0)


def test_pairs_of_one_class_are_more_similar(tmp_path: Path) -> None:
    x, y = features()
    result = pair_auc(NONE, NONE, x, y)
    assert result.value == pytest.approx(similarity_histogram(x, y).auc)
    assert 0.5 < result.low < result.value
    assert int(result.kept["positive"].sum() + result.kept["negative"].sum()) == 120 * 119 // 2
    with pytest.raises(InputError, match="two classes"):
        pair_auc(NONE, NONE, x, torch.zeros_like(y))
    named = [result]
    result.detail["representation"] = "net"
    plot_histograms(named, tmp_path / "pairs.png", title="blobs")
    assert (tmp_path / "pairs.png").read_bytes().startswith(b"\x89PNG")


class MeanColour(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), 4)


def test_alignment_is_perfect_for_a_constant_and_the_same_views_for_all() -> None:
    data = photos()
    constant = alignment_of_views(Encoder(Constant(), 16), data, data)
    assert (constant.value, constant.low, constant.high) == (0, 0, 0)
    a = alignment_of_views(Encoder(MeanColour(), 16), data, data)
    assert a.value > 0
    assert torch.equal(a.kept["each"], alignment_of_views(Encoder(MeanColour(), 16), data, data).kept["each"])
    assert not torch.equal(
        a.kept["each"], alignment_of_views(Encoder(MeanColour(), 16), data, data, seed=1).kept["each"]
    )
    assert a.n == 24


def test_pixels_are_like_pixels() -> None:
    data = photos()
    found = cka_with_pixels(pixel_encoder(data, size=16), data, data)
    assert found.value == pytest.approx(1)
    assert cka_with_pixels(Encoder(MeanColour(), 16), data, data).value < 0.9
