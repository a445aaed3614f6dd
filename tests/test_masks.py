"""Masks: counts under every rounding, BEiT's paper against a slow loop, frames, and what a teacher looks at."""

import math
import random

import pytest
import torch
from torch import Tensor

from sslcourse.data import masks
from sslcourse.data.rng import step_generator
from sslcourse.errors import InputError


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- counts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "ratio", "keep", "hide", "up"),
    [
        (49, 0.75, 37, 36, 37),  # 36.75 hidden, 12.25 kept
        (196, 0.75, 147, 147, 147),  # a whole number
        (36, 0.6, 22, 21, 22),  # SimMIM's 6 x 6 squares
        (196, 0.9, 177, 176, 177),  # VideoMAE's frames
        (100, 0.9, 91, 90, 90),  # 100 x (1 - 0.9) is a little less than 10
        (7, 0.0, 0, 0, 0),
        (7, 1.0, 7, 7, 7),
    ],
)
def test_every_rounding_hides_its_count(n: int, ratio: float, keep: int, hide: int, up: int) -> None:
    for rounding, count in (("keep", keep), ("hide", hide), ("up", up)):
        assert masks.hidden_count(n, ratio, rounding) == count
        mask = masks.random_mask(1, n, ratio, rng(), batch=5, rounding=rounding)
        assert mask.flatten(1).sum(dim=1).tolist() == [count] * 5


def test_simmim_rounds_up_and_a_tube_down() -> None:
    square = masks.simmim_mask(24, 8, 4, 0.5, rng(), batch=20)  # 3 x 3 squares of 2 x 2 tokens: 4.5, so 5
    assert square.flatten(1).sum(dim=1).tolist() == [5 * 4] * 20
    tube = masks.tube_mask(2, 3, 3, 0.5, rng(), batch=20)  # so 4
    assert tube.sum(dim=(2, 3)).tolist() == [[4, 4]] * 20
    assert torch.equal(tube[:, 0], tube[:, 1])


def test_bad_ratios_and_settings_are_one_sentence() -> None:
    for ratio in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="between 0 and 1"):
            masks.hidden_count(10, ratio)
    with pytest.raises(InputError, match="did you mean 'keep'"):
        masks.hidden_count(10, 0.5, "kep")
    with pytest.raises(InputError, match="blocks of 1 patch or more"):
        masks.blockwise_mask(4, 4, 17, 1, None, 0.3, rng())
    with pytest.raises(InputError, match="numbers >= 0"):
        masks.umt_semantic_mask(-torch.ones(1, 4), 0.5, rng())


# --- whole frames ----------------------------------------------------------------------------------------------------


def test_frames_are_hidden_whole_and_in_exact_number() -> None:
    mask = masks.frame_mask(7, 3, 4, 0.5, rng(), batch=2000)  # floor(3.5) = 3 of 7
    assert mask.shape == (2000, 7, 3, 4)
    frames = mask[:, :, 0, 0]
    assert torch.equal(mask, frames[..., None, None].expand_as(mask))
    assert (frames.sum(dim=1) == 3).all()
    share = frames.double().mean(dim=0)  # every frame as often as every other
    assert (share - 3 / 7).abs().max() < 4.5 * math.sqrt(3 / 7 * 4 / 7 / 2000)
    one = masks.frame_mask(4, 2, 2, 0.5, torch.tensor([0.1, 0.9, 0.8, 0.2]))
    assert one[:, 0, 0].tolist() == [False, True, True, False]  # of given numbers, the largest


# --- BEiT, Algorithm 1 -----------------------------------------------------------------------------------------------


def paper_loop(h: int, w: int, n_mask: int, least: int, aspect: float, draw: random.Random) -> Tensor:
    """Algorithm 1 of Bao et al. 2021, a block and a patch at a time."""
    hidden: set[tuple[int, int]] = set()
    while len(hidden) <= n_mask:
        s = draw.uniform(least, max(least, n_mask - len(hidden)))
        r = draw.uniform(aspect, 1 / aspect)
        a, b = min(h, round(math.sqrt(s * r))), min(w, round(math.sqrt(s / r)))
        top, left = draw.randint(0, h - a), draw.randint(0, w - b)
        hidden |= {(i, j) for i in range(top, top + a) for j in range(left, left + b)}
    mask = torch.zeros(h, w, dtype=torch.bool)
    for i, j in hidden:
        mask[i, j] = True
    return mask


@pytest.mark.parametrize(("h", "w", "n_mask", "least"), [(14, 14, 78, 16), (8, 12, 30, 6)])
def test_the_papers_blocks_have_the_statistics_of_a_slow_loop(h: int, w: int, n_mask: int, least: int) -> None:
    n = 1500
    draw = random.Random(0)
    slow = torch.stack([paper_loop(h, w, n_mask, least, 0.3, draw) for _ in range(n)])
    fast = masks.blockwise_mask(h, w, n_mask, least, None, 0.3, rng(), algorithm="paper", batch=n)
    assert int(fast.flatten(1).sum(dim=1).min()) > n_mask  # never fewer

    def statistics(mask: Tensor) -> Tensor:
        """An image a row: the hidden share, its square, borders between hidden and visible along both axes."""
        x = mask.double()
        share = x.mean(dim=(1, 2))
        edges = [x.diff(dim=axis).abs().mean(dim=(1, 2)) for axis in (1, 2)]
        return torch.stack([share, share.square(), *edges], dim=1)

    ours, theirs = statistics(fast), statistics(slow)
    error = ((ours.var(dim=0) + theirs.var(dim=0)) / n).sqrt()
    assert ((ours.mean(dim=0) - theirs.mean(dim=0)).abs() < 4 * error).all()
    p, q = fast.double().mean(dim=0), slow.double().mean(dim=0)  # how often each place is hidden
    assert ((p - q).abs() / ((p * (1 - p) + q * (1 - q)) / n).sqrt()).max() < 5


def test_the_code_hides_at_most_and_beit_2_exactly_as_many() -> None:
    for algorithm, low, high in (("code", 0, 75), ("exact", 75, 75), ("paper", 76, 196)):
        counts = masks.blockwise_mask(14, 14, 75, 16, None, 0.3, rng(), algorithm=algorithm, batch=200).sum(dim=(1, 2))
        assert low <= int(counts.min()) <= int(counts.max()) <= high


# --- Unmasked Teacher ------------------------------------------------------------------------------------------------


def test_one_kept_token_is_drawn_in_proportion_to_attention() -> None:
    n = 40_000
    attn = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05, 0.0])
    kept = ~masks.umt_semantic_mask(7 * attn.expand(n, 6), 5 / 6, rng())  # of any sum
    assert (kept.sum(dim=1) == 1).all()
    p = attn.double()
    assert ((kept.double().mean(dim=0) - p).abs() <= 4.5 * (p * (1 - p) / n).sqrt()).all()


def test_kept_tokens_are_drawn_without_replacement() -> None:
    n = 40_000
    p = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05], dtype=torch.float64)
    kept = ~masks.umt_semantic_mask(p.expand(n // 4, 4, 5), 0.6, rng(1))
    assert (kept.sum(dim=2) == 2).all()
    # First, or second after any other j: p_i + sum_j p_j p_i / (1 - p_j).
    after = p[:, None] * p / (1 - p[:, None])
    expected = p + after.sum(dim=0) - after.diagonal()
    assert float(expected.sum()) == pytest.approx(2)
    share = kept.flatten(0, 1).double().mean(dim=0)
    assert ((share - expected).abs() < 4.5 * (expected * (1 - expected) / n).sqrt()).all()


def test_without_attention_a_token_is_kept_only_when_no_other_is_left() -> None:
    attn = torch.tensor([[0.5, 0.0, 0.5, 0.0]]).expand(100, 4)
    assert torch.equal(masks.umt_semantic_mask(attn, 0.5, rng()), attn == 0)
    assert (masks.umt_semantic_mask(attn, 0.25, rng()).sum(dim=1) == 1).all()


# --- processes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["random", "simmim", "uniform", "frame", "code", "exact", "paper", "cube", "umt"])
def test_two_processes_hide_what_one_would(kind: str) -> None:
    attn = torch.rand(8, 3, 6, generator=rng(2)).softmax(dim=-1)

    def draw(rank: int, world: int) -> Tensor:
        g, b = step_generator(3, 5, rank=rank, world=world), 8 // world
        if kind in ("code", "exact", "paper"):
            return masks.blockwise_mask(8, 8, 26, 4, None, 0.3, g, algorithm=kind, batch=b)
        return {
            "random": lambda: masks.random_mask(5, 7, 0.5, g, batch=b),
            "simmim": lambda: masks.simmim_mask(32, 8, 4, 0.6, g, batch=b),
            "uniform": lambda: masks.uniform_sampling(6, 8, g, batch=b),
            "frame": lambda: masks.frame_mask(6, 2, 2, 0.5, g, batch=b),
            "cube": lambda: masks.cube_mask(4, 6, 6, 0.4, g, batch=b),
            "umt": lambda: masks.umt_semantic_mask(attn[rank * b : (rank + 1) * b], 0.5, g),
        }[kind]()

    assert torch.equal(torch.cat([draw(0, 2), draw(1, 2)]), draw(0, 1))
