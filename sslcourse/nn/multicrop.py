"""Crops of several sizes through one network: one pass for each size, one for the head."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sslcourse.data.views import group_by_size
from sslcourse.errors import InputError

Network = Callable[[Tensor], Tensor]


def multicrop_forward(backbone: Network, head: Network, crops: Sequence[Tensor]) -> Tensor:
    """Outputs of all crops, in their order (SwAV, Caron et al. 2020, section 3.4; DINO).

    Neighbours of one size go through the backbone together, so its batch norm sees one resolution at a time; the head
    sees the features of all crops as one batch.

    Args:
        backbone: (B, 3, h, w) -> (B, D).
        head: (N, D) -> (N, K).
        crops: V tensors (B, 3, h, w); list crops of one size one after the other.

    Returns:
        (V * B, K): the B rows of crop 0, then those of crop 1, ...; `out.chunk(V)` gives the crops back.
    """
    if not crops:
        raise InputError("multicrop_forward got no crops.")
    batches, _ = group_by_size(crops)
    return head(torch.cat([backbone(batch) for batch in batches]))
