"""Several views of a batch: what a method asks for once it has a random transform.

A transform `t` is any function of the batch, `Tensor -> Tensor`; bind a generator with
`functools.partial(augment, generator=g)`. It is called once a view, so consecutive views use consecutive numbers.
"""

from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import Tensor

from sslcourse.errors import InputError

Transform = Callable[[Tensor], Tensor]


def two_views(x: Tensor, t: Transform) -> tuple[Tensor, Tensor]:
    """Two views of the same images: (t(x), t(x)), row i of both from image i."""
    return t(x), t(x)


def multi_crop(x: Tensor, global_t: Transform, local_t: Transform, n_local: int, *, n_global: int = 2) -> list[Tensor]:
    """`n_global` views by `global_t`, then `n_local` by `local_t` (SwAV, Caron et al. 2020, section 3.4).

    Globals come first, so views of one size are neighbours and `group_by_size` makes one batch of each size.
    """
    if n_local < 0 or n_global < 1:
        raise InputError(f"multi_crop needs n_global >= 1 and n_local >= 0; got {n_global} and {n_local}.")
    return [global_t(x) for _ in range(n_global)] + [local_t(x) for _ in range(n_local)]


def group_by_size(views: Sequence[Tensor]) -> tuple[list[Tensor], list[int]]:
    """Concatenate neighbouring views of one size, for one forward pass a resolution.

    Returns:
        The batches, and for each the number of views in it: `batch.chunk(count)` gives the views back. Batch
        normalisation in training mode then takes its statistics over all views of a batch together.
    """
    groups = [list(g) for _, g in groupby(views, key=lambda v: v.shape[1:])]
    return [torch.cat(g) for g in groups], [len(g) for g in groups]
