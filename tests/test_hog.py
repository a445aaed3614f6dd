"""HOG: against scikit-image, against a loop over pixels, and its limits."""

import math

import pytest
import torch
from torch import Tensor

from sslcourse.data.hog import hog_features, hog_targets
from sslcourse.errors import InputError


def picture(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def hog_loop(gray: Tensor, bins: int, cell: int) -> Tensor:
    """The textbook, a pixel at a time."""
    height, width = gray.shape
    votes = torch.zeros(height // cell, width // cell, bins, dtype=gray.dtype)
    for y in range(height):
        for x in range(width):
            gx = float(gray[y, x + 1] - gray[y, x - 1]) if 0 < x < width - 1 else 0.0
            gy = float(gray[y + 1, x] - gray[y - 1, x]) if 0 < y < height - 1 else 0.0
            angle = math.degrees(math.atan2(gy, gx)) % 180
            votes[y // cell, x // cell, int(angle / (180 / bins)) % bins] += math.hypot(gx, gy)
    return votes / votes.norm(dim=-1, keepdim=True).clamp(min=1e-12)


@pytest.mark.parametrize(("shape", "bins", "cell"), [((16, 24), 9, 8), ((12, 8), 6, 4), ((10, 15), 9, 5)])
def test_it_equals_a_loop_over_pixels(shape, bins, cell):
    x = picture(*shape)
    torch.testing.assert_close(hog_features(x, bins, cell), hog_loop(x, bins, cell))


def test_inner_cells_equal_scikit_image():
    hog = pytest.importorskip("skimage.feature").hog
    x = picture(64, 48, seed=1)
    theirs = torch.from_numpy(hog(x.numpy(), 9, (8, 8), (1, 1), "L2", feature_vector=False)[:, :, 0, 0])
    torch.testing.assert_close(hog_features(x)[1:-1, 1:-1], theirs[1:-1, 1:-1], rtol=0, atol=1e-6)


def test_every_cell_has_length_one_and_an_even_one_is_zero():
    x = torch.cat([picture(3, 16, 16), torch.full((1, 16, 16), 0.3, dtype=torch.float64)])
    for convention in ("textbook", "maskfeat"):
        length = hog_features(x, convention=convention).norm(dim=-1)
        torch.testing.assert_close(length[:3], torch.ones_like(length[:3]))
        assert (length[3] == 0).all()


def test_a_batch_is_its_images_and_orientation_has_no_sign():
    x = picture(2, 3, 16, 24)
    torch.testing.assert_close(hog_features(x)[1, 2], hog_features(x[1, 2]))
    torch.testing.assert_close(hog_features(2 - 3 * x), hog_features(x))  # inverted, stronger, brighter
    torch.testing.assert_close(hog_features(x.transpose(-1, -2).contiguous().transpose(-1, -2)), hog_features(x))


def test_an_edge_votes_for_the_bin_of_its_direction():
    step = torch.zeros(16, 16)
    step[:, 8:] = 1.0  # dark, then bright: the gradient points right, 0 degrees
    assert hog_features(step).sum(dim=(0, 1)).argmax() == 0
    assert hog_features(step.T).sum(dim=(0, 1)).argmax() == 4  # down, 90 degrees: the middle of 9 bins
    assert hog_features(step, convention="maskfeat").sum(dim=(0, 1)).argmax() == 4  # angles from the vertical


def test_targets_are_channels_bins_rows_columns_of_the_patch():
    x = picture(2, 3, 32, 16, dtype=torch.float32)
    target = hog_targets(x, 16)
    cells = hog_features(x, convention="maskfeat")
    assert target.shape == (2, 2, 108)
    expected = [cells[1, c, 2 + i, j, k] for c in range(3) for k in range(9) for i in range(2) for j in range(2)]
    torch.testing.assert_close(target[1, 1], torch.stack(expected))


def test_no_gradient_goes_back_and_inputs_stay():
    x = picture(3, 16, 16).requires_grad_()
    before = x.detach().clone()
    assert not hog_features(x).requires_grad
    assert torch.equal(x, before)


def test_bad_input_is_one_sentence():
    with pytest.raises(InputError, match="whole cells of 8 px"):
        hog_features(torch.zeros(12, 16))
    with pytest.raises(InputError, match="windows of 16 px"):
        hog_features(torch.zeros(24, 16), window=16)
    with pytest.raises(InputError, match="did you mean 'textbook'"):
        hog_features(torch.zeros(8, 8), convention="textboook")
    with pytest.raises(InputError, match="whole number of cells"):
        hog_targets(torch.zeros(1, 3, 24, 24), 12)
