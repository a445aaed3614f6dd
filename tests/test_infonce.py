"""InfoNCE and NT-Xent: against slow loops, closed forms, limits, and the inputs that break careless code."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses import cosine_similarity_matrix, info_nce, nt_xent, nt_xent_loop, nt_xent_masks

TILES = [None, 1, 3, 256]


def embeddings(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pair(n: int, d: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return embeddings(n, d, dtype=dtype), embeddings(n, d, seed=1, dtype=dtype)


def value_and_gradients(loss, *inputs: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    value = loss(*leaves)
    return value.detach(), *torch.autograd.grad(value, leaves)


def unit(v: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in v))
    return [x / length for x in v]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def slow_nt_xent(z1: Tensor, z2: Tensor, tau: float) -> float:
    """Eq. 1 of SimCLR in plain Python."""
    z = [unit(row) for row in [*z1.tolist(), *z2.tolist()]]
    n, total = len(z) // 2, 0.0
    for i in range(2 * n):
        partner = i + n if i < n else i - n
        denominator = sum(math.exp(dot(z[i], z[k]) / tau) for k in range(2 * n) if k != i)
        total -= math.log(math.exp(dot(z[i], z[partner]) / tau) / denominator)
    return total / (2 * n)


def slow_info_nce(q: Tensor, k: Tensor, negs: list[list[list[float]]], tau: float) -> float:
    """Eq. 1 of MoCo in plain Python; `negs` lists the negatives of each query."""
    total = 0.0
    for query, key, others in zip(q.tolist(), k.tolist(), negs, strict=True):
        query, key = unit(query), unit(key)
        positive = math.exp(dot(query, key) / tau)
        total -= math.log(positive / (positive + sum(math.exp(dot(query, unit(x)) / tau) for x in others)))
    return total / len(q)


class TestNTXent:
    @pytest.mark.parametrize("tile", TILES)
    @pytest.mark.parametrize("n", [2, 3, 7])
    def test_equals_the_equation(self, n: int, tile: int | None) -> None:
        z1, z2 = pair(n)
        assert nt_xent(z1, z2, 0.3, tile=tile).item() == pytest.approx(slow_nt_xent(z1, z2, 0.3), rel=1e-12)
        assert nt_xent_loop(z1, z2, 0.3).item() == pytest.approx(slow_nt_xent(z1, z2, 0.3), rel=1e-12)

    def test_closed_form_of_aligned_orthogonal_pairs(self) -> None:
        """Partners equal, everything else at a right angle: log(1 + (2N - 2) exp(-1/tau)) for every anchor."""
        n, tau = 4, 0.5
        z = torch.eye(n, dtype=torch.float64)
        expected = math.log(1 + (2 * n - 2) * math.exp(-1 / tau))
        for tile in TILES:
            assert nt_xent(z, z, tau, tile=tile).item() == pytest.approx(expected, rel=1e-12)

    def test_collapsed_embeddings_cost_the_log_of_the_candidates(self) -> None:
        z = torch.ones(6, 3, dtype=torch.float64)
        assert nt_xent(z, z, 0.1).item() == pytest.approx(math.log(11), rel=1e-12)

    @pytest.mark.parametrize("tile", TILES)
    def test_gradient(self, tile: int | None) -> None:
        leaves = [z.requires_grad_() for z in pair(4, 3)]
        assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.2, tile=tile), leaves)
        assert torch.autograd.gradcheck(lambda a, b: 3 * nt_xent(a, b, 0.2, tile=tile, normalize=False), leaves)

    @settings(max_examples=25, deadline=None)
    @given(
        n=st.integers(2, 20), d=st.integers(1, 9), tile=st.integers(1, 45), tau=st.sampled_from([0.01, 0.1, 1.0, 50])
    )
    def test_tiles_change_nothing(self, n: int, d: int, tile: int, tau: float) -> None:
        z1, z2 = pair(n, d)
        plain = value_and_gradients(lambda a, b: nt_xent(a, b, tau), z1, z2)
        tiled = value_and_gradients(lambda a, b: nt_xent(a, b, tau, tile=tile), z1, z2)
        torch.testing.assert_close(tiled, plain, rtol=1e-9, atol=1e-10)

    def test_equals_info_nce_with_the_other_views_as_negatives(self) -> None:
        z1, z2 = pair(4)
        z, partners = torch.cat([z1, z2]), torch.cat([z2, z1])
        others = torch.stack([z[[j for j in range(8) if j not in (i, (i + 4) % 8)]] for i in range(8)])
        torch.testing.assert_close(nt_xent(z1, z2, 0.3), info_nce(z, partners, others, 0.3))

    def test_invariances(self) -> None:
        z1, z2 = pair(6)
        loss = nt_xent(z1, z2, 0.2)
        order = torch.randperm(6, generator=torch.Generator().manual_seed(2))
        rotation = torch.linalg.qr(embeddings(5, 5, seed=3)).Q
        torch.testing.assert_close(nt_xent(z2, z1, 0.2), loss)  # which view comes first
        torch.testing.assert_close(nt_xent(z1[order], z2[order], 0.2), loss)  # the order of the images
        torch.testing.assert_close(nt_xent(7 * z1, z2 * torch.arange(1.0, 7)[:, None], 0.2), loss)  # lengths
        torch.testing.assert_close(nt_xent(z1 @ rotation, z2 @ rotation, 0.2), loss)  # the basis
        assert not torch.isclose(nt_xent(z1, z2[order], 0.2), loss)  # but not who belongs to whom

    def test_without_normalisation_lengths_count(self) -> None:
        z1, z2 = (F.normalize(z) for z in pair(5))
        torch.testing.assert_close(nt_xent(z1, z2, 0.2, normalize=False), nt_xent(z1, z2, 0.2))
        assert not torch.isclose(nt_xent(2 * z1, z2, 0.2, normalize=False), nt_xent(2 * z1, z2, 0.2))

    @pytest.mark.parametrize("tile", TILES)
    def test_inputs_stay_as_they_are_and_need_not_be_contiguous(self, tile: int | None) -> None:
        wide = embeddings(5, 8)
        before = wide.clone()
        strided = nt_xent(wide[:, ::2], wide[:, 1::2], 0.5, tile=tile)
        dense = nt_xent(wide[:, ::2].contiguous(), wide[:, 1::2].contiguous(), 0.5, tile=tile)
        torch.testing.assert_close(strided, dense)
        assert wide.equal(before)

    def test_the_tiled_form_without_gradient_and_twice(self) -> None:
        z1, z2 = pair(4)
        torch.testing.assert_close(nt_xent(z1, z2, tile=3), nt_xent(z1, z2))
        z1.requires_grad_()
        with pytest.raises(InputError, match="differentiated twice"):
            torch.autograd.grad(nt_xent(z1, z2, tile=3), z1, create_graph=True)

    def test_one_trained_step_reduces_it(self) -> None:
        z1, z2 = pair(8)
        value, g1, g2 = value_and_gradients(lambda a, b: nt_xent(a, b, 0.5, tile=4), z1, z2)
        assert nt_xent(z1 - 0.1 * g1, z2 - 0.1 * g2, 0.5) < value


class TestExtremes:
    """Finite values and gradients, and the right ones, where exp overflows and where a norm is 0."""

    CASES = {  # noqa: RUF012
        "random": pair(6, dtype=torch.float32),
        "duplicates": (torch.ones(6, 5), torch.ones(6, 5)),
        "opposite": (torch.ones(6, 5), -torch.ones(6, 5)),
        "zero vector": (pair(6, dtype=torch.float32)[0].index_fill(0, torch.tensor([2]), 0.0), torch.ones(6, 5)),
        "huge": (1e4 * pair(6, dtype=torch.float32)[0], 1e4 * pair(6, dtype=torch.float32)[1]),
        "tiny": (1e-10 * pair(6, dtype=torch.float32)[0], 1e-10 * pair(6, dtype=torch.float32)[1]),
    }

    @pytest.mark.parametrize("tau", [0.01, 0.1])
    @pytest.mark.parametrize("tile", [None, 4])
    @pytest.mark.parametrize("name", CASES)
    def test_finite_and_equal_to_float64(self, name: str, tile: int | None, tau: float) -> None:
        z1, z2 = self.CASES[name]
        single = value_and_gradients(lambda a, b: nt_xent(a, b, tau, tile=tile), z1, z2)
        double = value_and_gradients(lambda a, b: nt_xent(a, b, tau, tile=tile), z1.double(), z2.double())
        for ours, exact in zip(single, double, strict=True):
            assert ours.isfinite().all()
            torch.testing.assert_close(ours.double(), exact, rtol=1e-3, atol=1e-4 * float(exact.abs().max() + 1))

    @pytest.mark.parametrize("tile", [None, 4])
    def test_logits_of_ten_thousand(self, tile: int | None) -> None:
        z1, z2 = (100 * z for z in pair(4, 64, torch.float32))  # products of about 1e4
        found = value_and_gradients(lambda a, b: nt_xent(a, b, 1.0, tile=tile, normalize=False), z1, z2)
        assert all(x.isfinite().all() for x in found)

    @pytest.mark.parametrize("tau", [0.01, 0.1])
    def test_info_nce(self, tau: float) -> None:
        for z1, z2 in self.CASES.values():
            for negs in (None, z2.roll(1, 0), torch.stack([z2.roll(1, 0)] * 6)):
                found = value_and_gradients(lambda a, b, negs=negs: info_nce(a, b, negs, tau), z1, z2)
                assert all(x.isfinite().all() for x in found)

    def test_a_shorter_eps_bounds_the_gradient_of_a_zero_vector(self) -> None:
        z1, z2 = self.CASES["zero vector"]
        steep = value_and_gradients(lambda a, b: nt_xent(a, b), z1, z2)[1][2].norm()
        mild = value_and_gradients(lambda a, b: nt_xent(a, b, eps=1e-6), z1, z2)[1][2].norm()
        assert float(steep / mild) == pytest.approx(1e6, rel=1e-3)


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("tile", [None, 5])
    def test_half_precision_is_computed_in_float32(self, dtype: torch.dtype, tile: int | None) -> None:
        z1, z2 = (z.to(dtype) for z in pair(8))
        half = value_and_gradients(lambda a, b: nt_xent(a, b, 0.05, tile=tile), z1, z2)
        single = value_and_gradients(lambda a, b: nt_xent(a, b, 0.05, tile=tile), z1.float(), z2.float())
        assert half[0].dtype == torch.float32
        assert half[0] == single[0]
        assert half[1].dtype == dtype
        torch.testing.assert_close(half[1].float(), single[1], rtol=2**-7, atol=1e-6)
        assert info_nce(z1, z2, z2.roll(1, 0)) == info_nce(z1.float(), z2.float(), z2.float().roll(1, 0))

    @pytest.mark.parametrize("tile", [None, 5])
    def test_autocast_does_not_reach_inside(self, tile: int | None) -> None:
        z1, z2 = pair(8, dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            inside = nt_xent(z1, z2, 0.05, tile=tile), info_nce(z1, z2, z2.roll(1, 0))
        assert inside == (nt_xent(z1, z2, 0.05, tile=tile), info_nce(z1, z2, z2.roll(1, 0)))


class TestInfoNCE:
    def test_in_batch_negatives(self) -> None:
        q, k = pair(5)
        negs = [[row for j, row in enumerate(k.tolist()) if j != i] for i in range(5)]
        assert info_nce(q, k, tau=0.2).item() == pytest.approx(slow_info_nce(q, k, negs, 0.2), rel=1e-12)

    def test_shared_negatives(self) -> None:
        (q, k), queue = pair(3), embeddings(7, 5, seed=2)
        expected = slow_info_nce(q, k, [queue.tolist()] * 3, 0.2)
        assert info_nce(q, k, queue, 0.2).item() == pytest.approx(expected, rel=1e-12)

    def test_negatives_of_each_query(self) -> None:
        (q, k), negs = pair(3), embeddings(3, 4, 5, seed=2)
        assert info_nce(q, k, negs, 0.2).item() == pytest.approx(slow_info_nce(q, k, negs.tolist(), 0.2), rel=1e-12)

    def test_one_query_is_enough_where_negatives_are_given(self) -> None:
        (q, k), queue = pair(1), embeddings(1, 5, seed=2)
        expected = slow_info_nce(q, k, [queue.tolist()], 0.1)
        assert info_nce(q, k, queue).item() == pytest.approx(expected, rel=1e-12)

    def test_shared_negatives_are_everybodys_own(self) -> None:
        (q, k), queue = pair(3), embeddings(7, 5, seed=2)
        torch.testing.assert_close(info_nce(q, k, queue), info_nce(q, k, queue.expand(3, 7, 5)))

    def test_the_order_of_negatives_does_not_matter(self) -> None:
        (q, k), queue = pair(3), embeddings(7, 5, seed=2)
        torch.testing.assert_close(info_nce(q, k, queue), info_nce(q, k, queue.flip(0)))

    def test_perfect_keys_and_infinitely_many_negatives_reach_log_k(self) -> None:
        """With unrelated keys the classifier guesses: the loss is about log of the number of candidates."""
        q, k = embeddings(2000, 64), embeddings(2000, 64, seed=1)
        assert info_nce(q, k, tau=1.0).item() == pytest.approx(math.log(2000), rel=0.01)

    @pytest.mark.parametrize("shape", [None, (4, 3), (3, 4, 3)])
    def test_gradient(self, shape: tuple[int, ...] | None) -> None:
        leaves = [x.requires_grad_() for x in pair(3, 3)]
        if shape is not None:
            leaves.append(embeddings(*shape, seed=2).requires_grad_())
        assert torch.autograd.gradcheck(lambda *x: info_nce(*x, tau=0.3), leaves)


class TestLadder:
    def test_cosine_similarity_matrix(self) -> None:
        a, b = embeddings(3, 5), embeddings(4, 5, seed=1)
        expected = torch.tensor([[dot(unit(x), unit(y)) for y in b.tolist()] for x in a.tolist()])
        torch.testing.assert_close(cosine_similarity_matrix(a, b), expected.double())
        torch.testing.assert_close(cosine_similarity_matrix(a).diagonal(), torch.ones(3, dtype=torch.float64))
        assert not cosine_similarity_matrix(torch.zeros(2, 5).double(), a).any()

    @pytest.mark.parametrize("n", [1, 2, 5])
    def test_masks(self, n: int) -> None:
        positive, candidates = nt_xent_masks(n)
        assert positive.shape == candidates.shape == (2 * n, 2 * n)
        assert positive.dtype == candidates.dtype == torch.bool
        assert positive.sum(1).eq(1).all()
        assert positive.nonzero()[:, 1].tolist() == [*range(n, 2 * n), *range(n)]
        assert candidates.equal(~torch.eye(2 * n, dtype=torch.bool))


class TestBadInput:
    @pytest.mark.parametrize("loss", [nt_xent, nt_xent_loop, info_nce])
    @pytest.mark.parametrize(
        ("z1", "z2", "message"),
        [
            (torch.ones(1, 3), torch.ones(1, 3), "batch of 1"),
            (torch.ones(0, 3), torch.ones(0, 3), "batch of 0"),
            (torch.ones(4, 3), torch.ones(3, 3), r"\(4, 3\) and \(3, 3\)"),
            (torch.ones(4, 3), torch.ones(4, 2), r"\(4, 3\) and \(4, 2\)"),
            (torch.ones(4), torch.ones(4), r"\(N, D\)"),
            (torch.ones(4, 3, 2), torch.ones(4, 3, 2), r"\(N, D\)"),
            (torch.ones(4, 3, dtype=torch.uint8), torch.ones(4, 3, dtype=torch.uint8), "uint8"),
            (torch.ones(4, 3), torch.ones(4, 3, dtype=torch.int64), "int64"),
            (torch.ones(4, 3), torch.ones(4, 3, dtype=torch.float64), "one floating-point dtype"),
        ],
    )
    def test_shapes_and_types(self, loss, z1: Tensor, z2: Tensor, message: str) -> None:
        with pytest.raises(InputError, match=message):
            loss(z1, z2, tau=0.5)

    @pytest.mark.parametrize("loss", [nt_xent, nt_xent_loop, info_nce])
    @pytest.mark.parametrize("tau", [0.0, -0.1, math.nan])
    def test_temperature(self, loss, tau: float) -> None:
        with pytest.raises(InputError, match="temperature"):
            loss(*pair(4), tau=tau)

    def test_tile(self) -> None:
        with pytest.raises(InputError, match="tile=0"):
            nt_xent(*pair(4), tile=0)

    @pytest.mark.parametrize("shape", [(0, 5), (7, 4), (3, 7, 5), (4, 0, 5), (5,), (1, 4, 7, 5)])
    def test_negatives(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(InputError, match="negs of shape"):
            info_nce(*pair(4), torch.ones(shape, dtype=torch.float64))

    def test_negatives_of_another_dtype(self) -> None:
        with pytest.raises(InputError, match="dtype"):
            info_nce(*pair(4), torch.ones(7, 5, dtype=torch.int64))
