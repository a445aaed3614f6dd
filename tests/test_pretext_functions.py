"""Pretext tasks as functions: what is asked, what is the answer, and that nothing gives it away."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from sslcourse.data.lab import ab_bins, annealed_mean, color_soft_encode, lab_to_rgb, rebalance, rgb_to_lab
from sslcourse.data.pretext import context_pair, jigsaw_permutations, rotation_batch, tile_and_shuffle
from sslcourse.errors import InputError
from sslcourse.losses import denoising_loss, inpaint_l2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- Rotation, jigsaw, context --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
def test_rotation_turns_counter_clockwise_in_blocks(dtype):
    x = torch.arange(2 * 3 * 3 * 3).view(2, 3, 3, 3).to(dtype)
    turned, y = rotation_batch(x)
    assert y.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert y.dtype == torch.int64
    assert_close(turned[:2], x)
    assert_close(turned[2, 0], x[0, 0].T.flip(0))  # the right edge comes to the top
    for k in range(1, 4):
        assert_close(turned[2 * k : 2 * k + 2], turned[2 * k - 2 : 2 * k].rot90(1, dims=(2, 3)))


def test_rotation_of_an_oblong_image_turns_its_central_square():
    x = torch.rand(1, 3, 4, 8, generator=generator())
    turned, _ = rotation_batch(x)
    assert_close(turned, rotation_batch(x[..., 2:6])[0])


def test_jigsaw_permutations_are_far_apart():
    chosen = jigsaw_permutations(24, seed=1)
    assert chosen.shape == (24, 9)
    assert_close(chosen.sort(dim=1).values, torch.arange(9).expand(24, -1))
    distance = (chosen[:, None] != chosen[None]).sum(2) + 9 * torch.eye(24, dtype=torch.int64)
    assert distance[:9, :9].min() == 9  # nine tiles allow nine permutations that agree nowhere, and greed finds them
    assert distance.min() >= 7
    assert torch.equal(chosen, jigsaw_permutations(24, seed=1))
    assert not torch.equal(chosen, jigsaw_permutations(24, seed=2))
    assert len(jigsaw_permutations(6, 3).unique(dim=0)) == 6
    assert jigsaw_permutations(4, 16).shape == (4, 16)


def test_every_next_permutation_is_a_furthest_one():
    chosen = jigsaw_permutations(10, 4, seed=3)
    everyone = torch.tensor(list(itertools.permutations(range(4))))
    for i in range(1, 10):
        nearest = (everyone[:, None] != chosen[None, :i]).sum(2).amin(1)
        assert (chosen[i] != chosen[:i]).sum(1).min() == nearest.max()


def test_tiles_are_cut_in_reading_order_and_put_where_the_permutation_says():
    x = torch.arange(2 * 36.0).view(2, 1, 6, 6)
    perm = torch.tensor([[8, 7, 6, 5, 4, 3, 2, 1, 0], [0, 2, 1, 3, 5, 4, 6, 8, 7]])
    tiles = tile_and_shuffle(x, perm)
    assert tiles.shape == (2, 9, 1, 2, 2)
    for b, j in itertools.product(range(2), range(9)):
        row, column = divmod(int(perm[b, j]), 3)
        assert_close(tiles[b, j], x[b, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2])
    assert_close(tile_and_shuffle(x, perm[0])[1], tile_and_shuffle(x, perm[:1].expand(2, -1))[1])


def test_the_gap_is_taken_from_all_sides_of_a_tile():
    x = torch.arange(12.0).expand(1, 1, 12, 12)
    tiles = tile_and_shuffle(x, torch.arange(9), gap=2)
    assert tiles.shape == (1, 9, 1, 2, 2)
    assert tiles[0, :3, 0, 0].tolist() == [[1, 2], [5, 6], [9, 10]]


def test_context_labels_name_the_neighbours_in_reading_order():
    x = torch.arange(144.0).view(1, 1, 12, 12).expand(8, -1, -1, -1)
    centre, neighbour = context_pair(x, 6, 6, 2, 1, torch.arange(8))
    assert (centre == centre[:1]).all()
    assert centre[0, 0].tolist() == [[65, 66], [77, 78]]
    steps = [(-3, -3), (-3, 0), (-3, 3), (0, -3), (0, 3), (3, -3), (3, 0), (3, 3)]
    for label, (dy, dx) in enumerate(steps):
        assert_close(neighbour[label], centre[label] + 12 * dy + dx)


def test_context_positions_may_differ_and_never_leave_the_image():
    x = torch.rand(2, 3, 9, 12, generator=generator())
    p0, p1 = context_pair(x, torch.tensor([4, 5]), torch.tensor([4, 7]), 3, 0, torch.tensor([0, 4]))
    assert_close(p0[1], x[1, :, 4:7, 6:9])
    assert_close(p1[0], x[0, :, 0:3, 0:3])
    with pytest.raises(InputError, match="sticks out"):
        context_pair(x, 4, 4, 3, 1, 0)
    with pytest.raises(InputError, match="0 to 7"):
        context_pair(x, 4, 4, 3, 0, 8)


# --- Colour ---------------------------------------------------------------------------------------------------------


def test_lab_is_that_of_scikit_image_and_back():
    color = pytest.importorskip("skimage.color")
    x = torch.rand(2, 3, 5, 7, generator=generator(), dtype=torch.float64)
    expected = torch.from_numpy(color.rgb2lab(x.permute(0, 2, 3, 1).numpy())).permute(0, 3, 1, 2)
    assert_close(rgb_to_lab(x), expected, rtol=1e-5, atol=1e-3)
    assert_close(lab_to_rgb(rgb_to_lab(x)), x, rtol=1e-5, atol=1e-6)
    grey = torch.linspace(0, 1, 5).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert rgb_to_lab(grey)[:, 1:].abs().max() < 0.01


def test_bins_cover_every_colour():
    bins = ab_bins(10)
    assert bins.unique(dim=0).shape == bins.shape
    assert 200 < len(bins) < 313  # the paper's list, which also holds colours that a screen cannot show
    ab = rgb_to_lab(torch.rand(1, 3, 60, 60, generator=generator()))[0, 1:].flatten(1).T
    assert torch.cdist(ab, bins).amin(1).max() < 50**0.5 + 1  # half the diagonal of a square


def test_soft_encoding_weighs_the_nearest_bins_by_distance():
    bins = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [90.0, 90.0]])
    p = color_soft_encode(torch.tensor([[2.0, 0.0]]), bins, k=2, sigma=5.0)
    weights = [math.exp(-4 / 50), math.exp(-64 / 50)]
    assert_close(p, torch.tensor([[weights[0], weights[1], 0.0, 0.0]]) / sum(weights))
    image = color_soft_encode(torch.rand(2, 4, 3, 2, generator=generator()) * 1000, ab_bins(20), k=5, sigma=0.1)
    assert image.shape == (2, 4, 3, len(ab_bins(20)))
    assert_close(image.sum(-1), torch.ones(2, 4, 3))
    assert (image > 0).sum(-1).max() <= 5


def test_annealed_mean_goes_from_the_mean_to_the_mode():
    bins = torch.tensor([[0.0, 0.0], [10.0, 20.0]])
    logits = torch.tensor([[0.7, 0.3]]).log()
    assert_close(annealed_mean(logits, bins, T=1.0), torch.tensor([[3.0, 6.0]]))
    assert_close(annealed_mean(logits, bins, T=0.01), torch.tensor([[0.0, 0.0]]), atol=1e-5, rtol=0)
    p = torch.tensor([0.7, 0.3]) ** (1 / 0.38)
    assert_close(annealed_mean(logits, bins), (p / p.sum() @ bins)[None])
    assert annealed_mean(torch.tensor([[1e4, -1e4]]), bins).isfinite().all()


def test_rebalancing_raises_what_is_rare_and_keeps_the_mean():
    prior = torch.tensor([0.9, 0.1, 0.0])
    w = rebalance(prior)
    assert w[0] < w[1] < w[2]
    assert_close((prior * w).sum(), torch.tensor(1.0))
    assert_close(rebalance(prior, 1.0), torch.ones(3))


# --- Inpainting -----------------------------------------------------------------------------------------------------


def test_inpainting_counts_the_hole_and_its_rim_more():
    target = torch.zeros(1, 3, 5, 5)
    mask = torch.zeros(1, 1, 5, 5, dtype=torch.bool)
    mask[:, :, 1:4, 1:4] = True
    middle = torch.zeros_like(target)
    middle[:, :, 2, 2] = 3.0  # the one pixel of the hole that touches nothing known
    assert_close(inpaint_l2(middle, target, mask, 10.0), torch.tensor(9.0 / (8 * 10 + 1)))
    assert_close(inpaint_l2(middle, target, mask, 1.0), torch.tensor(1.0))
    assert_close(inpaint_l2(torch.ones_like(target), target, mask), torch.tensor(1.0))
    assert inpaint_l2(middle, target, ~mask) == 0
    assert inpaint_l2(middle, target, torch.zeros_like(mask)) == 0


def test_inpainting_slow_form_and_gradient():
    pred, target = (torch.rand(2, 3, 4, 6, generator=generator(s), dtype=torch.float64) for s in (0, 1))
    mask = torch.rand(2, 1, 4, 6, generator=generator(2)) > 0.4
    known = F.pad((~mask).double(), (1, 1, 1, 1))
    total = weights = 0.0
    for b, i, j in itertools.product(range(2), range(4), range(6)):
        if mask[b, 0, i, j]:
            w = 10.0 if known[b, 0, i : i + 3, j : j + 3].sum() > 0 else 1.0
            total += w * float((pred - target)[b, :, i, j].pow(2).mean())
            weights += w
    assert_close(inpaint_l2(pred, target, mask).item(), total / weights)
    assert torch.autograd.gradcheck(lambda p: inpaint_l2(p, target, mask), pred.requires_grad_())


def test_denoising_slow_form_gradient_and_emphasis():
    pred, clean = (torch.rand(2, 3, 4, 6, generator=generator(s), dtype=torch.float64) for s in (0, 1))
    damaged = torch.rand(2, 1, 4, 6, generator=generator(2)) > 0.4
    assert_close(denoising_loss(pred, clean), (pred - clean).pow(2).mean())
    assert_close(denoising_loss(pred, clean, damaged), denoising_loss(pred, clean))
    total = weights = 0.0
    for b, i, j in itertools.product(range(2), range(4), range(6)):
        w = 5.0 if damaged[b, 0, i, j] else 1.0
        total += w * float((pred - clean)[b, :, i, j].pow(2).mean())
        weights += w
    assert_close(denoising_loss(pred, clean, damaged, 5.0).item(), total / weights)
    assert denoising_loss(pred, pred, damaged, 0.0) == 0
    assert denoising_loss(pred, clean, torch.ones_like(damaged), 0.0) == 0  # nothing counts: finite
    assert torch.autograd.gradcheck(lambda p: denoising_loss(p, clean, damaged, 5.0), pred.requires_grad_())


def test_bad_input_is_one_sentence():
    x = torch.rand(2, 3, 8, 8)
    for call in (
        lambda: rotation_batch(x[0]),
        lambda: jigsaw_permutations(7, 3),
        lambda: tile_and_shuffle(x, torch.arange(4)),
        lambda: tile_and_shuffle(x, torch.arange(9), gap=2),
        lambda: color_soft_encode(x, ab_bins(20)),
        lambda: annealed_mean(torch.zeros(2, 2), torch.zeros(2, 2), T=0),
        lambda: inpaint_l2(x, x, x > 0),
        lambda: denoising_loss(x, x[:1]),
        lambda: denoising_loss(x, x, x > 0),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert "\n" not in str(error.value)
