"""The collapse monitors against closed forms."""

import math

import pytest
import torch

from sslcourse.errors import InputError
from sslcourse.train.monitor import alignment, collapse_warning, feature_std, measure, rankme, uniformity

EYE = torch.eye(8, dtype=torch.float64)
SAME = torch.ones(8, 8, dtype=torch.float64)


def test_feature_std_is_one_on_a_cross_polytope_and_zero_on_a_point():
    torch.testing.assert_close(feature_std(torch.cat([EYE, -EYE])), torch.tensor(1.0, dtype=torch.float64))
    assert feature_std(5 * SAME) < 1e-12


def test_feature_std_looks_at_directions_only():
    z = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(feature_std(z), feature_std(z * torch.linspace(0.1, 9, 32)[:, None]))


def test_rankme_of_known_spectra():
    assert rankme(EYE).item() == pytest.approx(8, abs=1e-4)
    assert rankme(SAME).item() == pytest.approx(1, abs=1e-3)
    z = torch.diag(torch.tensor([2.0, 1.0, 1.0]))
    expected = math.exp(-(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25)))
    assert rankme(z).item() == pytest.approx(expected, abs=1e-4)


def test_rankme_survives_zeros():
    assert math.isfinite(rankme(torch.zeros(4, 3)).item())


@pytest.mark.parametrize(("y", "expected"), [(EYE, 0.0), (-EYE, 4.0), (EYE.roll(1, 0), 2.0)])
def test_alignment_of_equal_opposite_and_orthogonal_pairs(y, expected):
    assert alignment(EYE, 3 * y).item() == pytest.approx(expected)
    assert alignment(EYE, y, alpha=1).item() == pytest.approx(math.sqrt(expected))


def test_uniformity_of_a_point_antipodes_and_orthogonal_vectors():
    assert uniformity(SAME).item() == pytest.approx(0, abs=1e-6)
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item() == pytest.approx(-8)
    assert uniformity(EYE, t=3).item() == pytest.approx(-6)


def test_uniformity_is_the_mean_over_distinct_pairs():
    z = torch.nn.functional.normalize(torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    pairs = [math.exp(-2 * (z[i] - z[j]).pow(2).sum().item()) for i in range(6) for j in range(6) if i != j]
    assert uniformity(z).item() == pytest.approx(math.log(sum(pairs) / len(pairs)), abs=1e-5)


def test_collapse_is_named_and_health_is_not():
    g = torch.Generator().manual_seed(0)
    healthy = torch.randn(64, 16, generator=g)
    assert collapse_warning(measure(healthy, healthy)) is None
    point = torch.randn(1, 16, generator=g) + 0.001 * healthy
    assert "same way" in collapse_warning(measure(point))
    line = torch.randn(64, 1, generator=g) * torch.ones(1, 16)
    assert "dimension" in collapse_warning(measure(line))


def test_measure_has_alignment_only_for_pairs():
    z = torch.randn(8, 4)
    assert measure(z).keys() == {"feature_std", "rankme", "uniformity"}
    assert measure(z, z)["alignment"] == pytest.approx(0, abs=1e-6)


def test_one_embedding_is_refused():
    with pytest.raises(InputError, match="N >= 2"):
        rankme(torch.randn(1, 4))
    with pytest.raises(InputError, match="pairs"):
        alignment(torch.randn(3, 4), torch.randn(4, 4))
