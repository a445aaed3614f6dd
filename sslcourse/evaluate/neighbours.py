"""The k most similar rows of a bank, exactly, in memory bounded by a chunk of queries.

Where a CPU multiplies bfloat16 in hardware (AMX), half the bits find candidates in a quarter of the time: whatever
rounding can have done to a similarity is bounded, so queries whose k nearest are certainly among the candidates only
need these in full precision, and the few others are searched as without it. Either way the result is the same.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

_BLOCKS_PER_NEIGHBOUR = 25  # the search keeps the best k of this many times k blocks; see `_top_k`
_CHUNK_BYTES = 16 * 2**20  # of similarities, or of gathered candidates, held at once; near the cache of a CPU
_COARSE_BYTES = 4 * 2**20  # of similarities in bfloat16
_CANDIDATES = 2  # times k
_HALF_ULP = 2.0**-9  # relative rounding error of a bfloat16


def neighbours(
    bank: Tensor,
    q: Tensor,
    k: int,
    *,
    chunk: int | None = None,
    leave_one_out: bool = False,
    coarse: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """The k bank rows with the largest dot product with every query; equal ones at rank k enter in bank order.

    Args:
        bank: (N, D) float of unit length, 1 <= k <= N (N - 1 with `leave_one_out`).
        q: (Q, D) float of unit length.
        chunk: queries compared at once; by default as many as keep the similarities near the cache.
        leave_one_out: query i is bank row i and not its own neighbour.
        coarse: look for candidates in bfloat16 first; where that is fast by default. It takes a copy of the bank of
            half its size.

    Returns:
        (Q, k) dot products and (Q, k) int64 positions in the bank, in no order.
    """
    s, index = q.new_empty(len(q), k), torch.empty(len(q), k, dtype=torch.long, device=q.device)
    own = torch.arange(len(q), device=q.device) if leave_one_out else None
    left = torch.arange(len(q), device=q.device)
    if _multiplies_bfloat16_fast(bank) if coarse is None else coarse:
        left = _through_candidates(bank, q, own, s, index, chunk)
    step = chunk or max(1, _CHUNK_BYTES // (len(bank) * bank.element_size()))
    # One buffer, reused: fresh pages cost as much as half the product.
    buffer = bank.new_empty(min(step, len(left)), len(bank))
    for rows in left.split(step):
        similarity = torch.mm(q[rows], bank.T, out=buffer[: len(rows)])
        if own is not None:
            similarity[torch.arange(len(rows), device=q.device), own[rows]] = -torch.inf
        s[rows], index[rows] = _top_k(similarity, k)
    return s, index


def _through_candidates(
    bank: Tensor, q: Tensor, own: Tensor | None, s: Tensor, index: Tensor, chunk: int | None
) -> Tensor:
    """Fill `s` and `index` for the queries that bfloat16 leaves no doubt about; positions of the others."""
    k, m = s.shape[1], min(_CANDIDATES * s.shape[1], len(bank))
    held = min(_COARSE_BYTES // (2 * len(bank)), _CHUNK_BYTES // (m * bank.shape[1] * bank.element_size()))
    step = chunk or max(1, held)
    rounded = bank.bfloat16()
    error = max(_length_lost(*parts).max().item() for parts in zip(bank.split(1024), rounded.split(1024), strict=True))
    buffer = rounded.new_empty(min(step, len(q)), len(bank))
    left = []
    for rows in torch.arange(len(q)).split(step):
        part = q[rows[0] : rows[-1] + 1]
        rounded_part = part.bfloat16()
        near = torch.mm(rounded_part, rounded.T, out=buffer[: len(part)])
        if own is not None:
            near[torch.arange(len(part)), own[rows]] = -torch.inf
        best, candidates = _top_k_blocked(near, m)
        last, worst = best[:, k - 1].float(), best[:, m - 1].float()
        # |q.b - q'.b'| <= |q - q'| |b| + |q'| |b - b'| for unit q, b; then the sum in float32 and the rounded result.
        bound = _length_lost(part, rounded_part) + (1 + 2 * _HALF_ULP) * error + q.shape[1] * 2.0**-23
        bound += _HALF_ULP * torch.maximum(last.abs(), worst.abs())
        sure = worst + bound < last - bound if m < len(bank) else torch.ones_like(last, dtype=torch.bool)
        found = bank.index_select(0, candidates.flatten()).view(len(part), m, -1)
        similarity = torch.bmm(found, part[:, :, None])[:, :, 0]
        if own is not None:
            similarity.masked_fill_(candidates == own[rows, None], -torch.inf)
        values, place = similarity.topk(min(k + 1, m))
        if m > k:
            sure &= values[:, k - 1] != values[:, k]  # of two equal ones the first of the bank is in
        s[rows], index[rows] = values[:, :k], candidates.gather(1, place[:, :k])
        left.append(rows[~sure])
        if len(left[-1]) > len(rows) // 2:  # neighbours too close for half the bits: no detour any more
            left.append(torch.arange(int(rows[-1]) + 1, len(q)))
            break
    return torch.cat(left) if left else torch.arange(0)


def _length_lost(x: Tensor, rounded: Tensor) -> Tensor:
    """(N,) length of what rows of x (N, D) have lost in bfloat16."""
    return torch.linalg.vector_norm(x - rounded, dim=1)


def _multiplies_bfloat16_fast(bank: Tensor) -> bool:
    """Whether the detour through bfloat16 pays: on a CPU with AMX, for a bank that is not small."""
    return (
        bank.device.type == "cpu"
        and bank.dtype == torch.float32
        and min(len(bank) // 64, bank.shape[1]) >= 64
        and _amx()
    )


@lru_cache
def _amx() -> bool:
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16", False))


def _top_k(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and columns of the k largest entries of each row; among equal values the lower column comes first."""
    n = similarity.shape[1]
    # One more than asked for: rank k + 1 tells whether the choice at rank k was arbitrary.
    wanted = min(k + 1, n)
    values, index = _top_k_blocked(similarity, wanted)
    if wanted > k:
        tied = (values[:, k - 1] == values[:, k]).nonzero()[:, 0]
        if len(tied):
            value, column = similarity[tied].sort(dim=1, descending=True, stable=True)
            values[tied], index[tied] = value[:, :wanted], column[:, :wanted]
    return values[:, :k], index[:, :k]


def _top_k_blocked(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`similarity.topk(k)`, several times faster on long rows.

    The k largest entries lie in the k blocks with the largest maxima, and a maximum over strided blocks is one
    vectorised pass, so the costly selection only sees k blocks instead of the whole row.
    """
    n = similarity.shape[1]
    size = n // (k * _BLOCKS_PER_NEIGHBOUR)
    if size < 4:
        return similarity.topk(k)
    # Block b is the columns b, b + blocks, b + 2 blocks, ...; the n % size columns at the end are always searched.
    blocks = n // size
    end = size * blocks
    blocked = similarity[:, :end].unflatten(1, (size, blocks))
    best = blocked.amax(dim=1).topk(k, sorted=False).indices
    inside = blocked.gather(2, best[:, None, :].expand(-1, size, -1)).flatten(1)
    values, position = torch.cat([inside, similarity[:, end:]], dim=1).topk(k)
    row, column = position // k, best.gather(1, position % k)
    return values, torch.where(position < size * k, row * blocks + column, position - size * k + end)
