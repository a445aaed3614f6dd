"""Two views, multi-crop, and one batch a resolution."""

from functools import partial

import pytest
import torch

from sslcourse.data.augment import Augment
from sslcourse.data.views import group_by_size, multi_crop, two_views
from sslcourse.errors import InputError


def pixels(n: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def bind(size: int, g: torch.Generator) -> partial:
    return partial(Augment(size), generator=g)


def test_two_views_are_two_calls_in_order():
    calls = []
    v1, v2 = two_views(pixels(), lambda x: calls.append(len(calls)) or x + len(calls))
    assert calls == [0, 1]
    assert torch.equal(v1, pixels() + 1)
    assert torch.equal(v2, pixels() + 2)


def test_two_views_differ_and_repeat_with_the_seed():
    a, b = two_views(pixels(), bind(32, torch.Generator().manual_seed(1)))
    c, d = two_views(pixels(), bind(32, torch.Generator().manual_seed(1)))
    assert torch.equal(a, c)
    assert torch.equal(b, d)
    assert not torch.equal(a, b)


def test_multi_crop_gives_globals_then_locals():
    g = torch.Generator().manual_seed(0)
    views = multi_crop(pixels(), bind(32, g), bind(16, g), 6)
    assert [v.shape[-1] for v in views] == [32, 32] + [16] * 6
    assert len({v.numpy().tobytes() for v in views}) == 8
    batches, counts = group_by_size(views)
    assert [tuple(b.shape) for b in batches] == [(8, 3, 32, 32), (24, 3, 16, 16)]
    assert counts == [2, 6]
    back = [v for b, k in zip(batches, counts, strict=True) for v in b.chunk(k)]
    assert all(torch.equal(x, y) for x, y in zip(views, back, strict=True))


def test_multi_crop_without_locals_and_with_one_size():
    g = torch.Generator().manual_seed(0)
    assert len(multi_crop(pixels(), bind(32, g), bind(16, g), 0)) == 2
    assert group_by_size(multi_crop(pixels(), bind(16, g), bind(16, g), 3))[1] == [5]
    assert group_by_size([]) == ([], [])


@pytest.mark.parametrize(("n_local", "n_global"), [(-1, 2), (2, 0)])
def test_bad_counts(n_local, n_global):
    with pytest.raises(InputError, match="n_global"):
        multi_crop(pixels(), torch.clone, torch.clone, n_local, n_global=n_global)
