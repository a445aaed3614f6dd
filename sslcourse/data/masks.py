"""Which patches a masked method hides: every paper's generator, for a whole batch at once.

A mask is bool, True = hidden, on the grid of patches: (h, w), with `batch` (B, h, w); for clips (t, h, w) or
(B, t, h, w), where t counts tubelets. `mask.flatten(1)` is what `ViT` takes.

Random numbers come from `rng`, a CPU generator of one row an image (`shard_rows`: N processes hide what one would);
the masks are computed on `device`. Where a mask is a ranking of one number a patch, `rng` may be those numbers.

Papers round differently, and 0.75 x 49 patches is no whole number:

    MAE               keeps floor(N (1 - ratio)): `random_mask(..., rounding="keep")`
    VideoMAE, UMT,    hide floor(N ratio), a frame: rounding="hide"
    UM-MAE (random)
    SimMIM            hides ceil(N ratio): rounding="up"
    BEiT              at most n_mask (its code), more than n_mask (its paper), exactly n_mask (BEiT v2)
"""

import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor

from sslcourse.data.rng import shard_rows
from sslcourse.errors import InputError, unknown

Rounding = Literal["keep", "hide", "up"]
Rng = Generator | Tensor
Device = torch.device | str | None


def hidden_count(n: int, ratio: float, rounding: Rounding = "keep") -> int:
    """How many of n patches a ratio in [0, 1] hides; `rounding` as in the table above.

    The products are computed in floating point, as in the papers' codes: 100 x (1 - 0.9) is 9.999..., so 9 are kept.
    """
    if not 0 <= ratio <= 1:
        raise InputError(f"a mask ratio lies between 0 and 1; got {ratio}.")
    if rounding not in ("keep", "hide", "up"):
        raise unknown("rounding", rounding, ["keep", "hide", "up"])
    return {"keep": n - int(n * (1 - ratio)), "hide": int(n * ratio), "up": math.ceil(n * ratio)}[rounding]


def hide_smallest(noise: Tensor, count: int) -> Tensor:
    """(..., N) numbers -> (..., N) bool, True at the `count` smallest of each row; of equal ones, any."""
    first = noise.topk(count, dim=-1, largest=False, sorted=False).indices
    return torch.zeros_like(noise, dtype=torch.bool).scatter_(-1, first, True)


def random_mask(
    h: int,
    w: int,
    ratio: float,
    rng: Rng,
    *,
    batch: int | None = None,
    rounding: Rounding = "keep",
    device: Device = None,
) -> Tensor:
    """Patches chosen without regard to their place (MAE, He et al. 2021, section 3): (h, w) or (B, h, w).

    With numbers as `rng`, (B, h * w), those with the largest are hidden, as in `random_masking`.
    """
    noise = _noise(rng, batch, h * w, device)
    return hide_smallest(-noise, hidden_count(h * w, ratio, rounding)).unflatten(-1, (h, w))


def grid_mask(h: int, w: int, *, every: int = 2, batch: int | None = None, device: Device = None) -> Tensor:
    """All but the first patch of each `every` x `every` block, the same for all images (MAE, figure 6, grid, 75 %)."""
    row, column = torch.arange(h, device=device), torch.arange(w, device=device)
    mask = (row[:, None] % every != 0) | (column % every != 0)
    return mask if batch is None else mask.expand(batch, h, w)


def mask_order(
    kind: Literal["random", "block", "grid"], h: int, w: int, ratio: float, rng: Generator, *, batch: int
) -> Tensor:
    """Numbers (B, h * w) whose largest are to be hidden, for MAE's three kinds of masks (table 1f and figure 6).

    "random" hides each patch by itself, "block" what BEiT's blocks cover, "grid" all but one of each 2 x 2.
    """
    if kind not in ("random", "block", "grid"):
        raise unknown("mask", kind, ["random", "block", "grid"])
    count = hidden_count(h * w, ratio)
    noise = _noise(rng, batch, h * w, None)
    if kind == "random":
        return noise
    if kind == "grid":
        mask = grid_mask(h, w, batch=batch)
    else:
        mask = blockwise_mask(h, w, count, max(1, h * w * 16 // 196), None, 0.3, rng, algorithm="exact", batch=batch)
    if int(mask[0].sum()) != count:
        raise InputError(f"a {kind} mask of {h} x {w} patches hides {int(mask[0].sum())} of them, not {ratio} of all.")
    return mask.flatten(1) + noise / 2


def simmim_mask(
    img: int, mask_patch: int, model_patch: int, ratio: float, rng: Rng, *, batch: int | None = None,
    device: Device = None,
) -> Tensor:  # fmt: skip
    """Large squares, told on the grid of the network's smaller patches (SimMIM, Xie et al. 2021, section 3.2).

    Args:
        img: side of the square images in pixels, a multiple of `mask_patch`.
        mask_patch: side of the squares that are hidden, a multiple of `model_patch`, the side of the tokens.
        ratio: of the ceil(ratio * squares) squares that are hidden.
        rng: a generator, or (B, squares) numbers: the smallest are hidden.

    Returns:
        (img / model_patch, img / model_patch), with `batch` (B, ...).
    """
    if img % mask_patch or mask_patch % model_patch:
        raise InputError(
            f"simmim_mask needs an image of whole squares of whole tokens; got {img} px, squares of {mask_patch} px, "
            f"tokens of {model_patch} px."
        )
    side = img // mask_patch
    squares = hide_smallest(_noise(rng, batch, side**2, device), hidden_count(side**2, ratio, "up"))
    return upsample_mask(squares.unflatten(-1, (side, side)), mask_patch // model_patch)


def upsample_mask(mask: Tensor, factor: int) -> Tensor:
    """(..., h, w) -> (..., h * factor, w * factor), every entry a square."""
    row, column = (torch.arange(n * factor, device=mask.device) // factor for n in mask.shape[-2:])
    return mask.index_select(-2, row).index_select(-1, column)


def uniform_sampling(
    h: int, w: int, rng: Rng, *, batch: int | None = None, balanced: bool = True, device: Device = None
) -> Tensor:
    """Hide all but one patch of each 2 x 2 block (UM-MAE, Li et al. 2022, section 3.2), so 75 %.

    What stays visible is a dense image of half the side, which a pyramid network can work on.

    Args:
        balanced: draw corners without replacement from a pool twice as large as needed in which all four are equally
            frequent, as the authors' code does; False draws every corner by itself, as the paper's text can be read.
        rng: a generator, or the numbers that rank the pool, (B, pool size) with the pool size as in `balanced`.
    """
    if h % 2 or w % 2:
        raise InputError(f"uniform sampling needs an even number of rows and of columns of patches; got {h} x {w}.")
    blocks = h * w // 4
    pool = 4 * math.ceil(2 * blocks / 4) if balanced else 4 * blocks
    noise = _noise(rng, batch, pool, device)
    if balanced:
        corner = noise.argsort(dim=-1)[..., :blocks] % 4
    else:
        corner = noise.unflatten(-1, (blocks, 4)).argmin(dim=-1)
    corner = upsample_mask(corner.unflatten(-1, (h // 2, w // 2)), 2)
    row, column = (torch.arange(n, device=corner.device) % 2 for n in (h, w))
    return corner != 2 * row[:, None] + column


def tube_mask(
    t: int, h: int, w: int, ratio: float, rng: Rng, *, batch: int | None = None, device: Device = None
) -> Tensor:
    """The same places in all frames (VideoMAE, Tong et al. 2022, section 3.3): (t, h, w) or (B, t, h, w).

    floor(ratio * h * w) places are hidden. With numbers as `rng`, (B, h * w), those with the largest.
    """
    frame = random_mask(h, w, ratio, rng, batch=batch, rounding="hide", device=device)
    return frame.unsqueeze(-3).expand(*frame.shape[:-2], t, h, w)


def frame_mask(
    t: int, h: int, w: int, ratio: float, rng: Rng, *, batch: int | None = None, device: Device = None
) -> Tensor:
    """Whole frames, floor(ratio * t) of them: (t, h, w) or (B, t, h, w). With numbers as `rng`, (B, t)."""
    frames = random_mask(1, t, ratio, rng, batch=batch, rounding="hide", device=device).squeeze(-2)
    return frames[..., None, None].expand(*frames.shape, h, w)


def umt_semantic_mask(attn: Tensor, ratio: float, rng: Rng) -> Tensor:
    """Keep what the teacher looks at, sampled (Unmasked Teacher, Li et al. 2023, section 3.2): (..., N) -> (..., N).

    In every frame N - floor(N * ratio) tokens are drawn without replacement with probabilities `attn` and stay
    visible, whichever frame they are in: an exponential race, whose winner is token i with probability p_i / sum p.

    Args:
        attn: (B * T, N) or (B, T, N) attention of the class token to the patches, >= 0, without the one to itself.
        rng: a generator (the leading dimension of `attn` is what processes share), or numbers like `attn`, drawn from
            the exponential distribution.
    """
    if attn.min() < 0:
        raise InputError("umt_semantic_mask takes attention, numbers >= 0; softmax has to come before it.")
    if isinstance(rng, Tensor):
        race = rng
    else:
        total, mine = shard_rows(len(attn), rng)
        race = torch.empty(total, *attn.shape[1:]).exponential_(generator=rng)[mine]
    n = attn.shape[-1]
    arrival = race.to(attn.device, torch.float64) / attn.double()  # 0 attention arrives never, after all others
    return ~hide_smallest(arrival, n - hidden_count(n, ratio, "hide"))


def blockwise_mask(
    h: int,
    w: int,
    n_mask: int,
    min: int,
    max: int | None,
    aspect: float,
    rng: Generator,
    *,
    algorithm: Literal["code", "paper", "exact"] = "code",
    batch: int | None = None,
    device: Device = None,
) -> Tensor:
    """BEiT's blockwise masking, (h, w) or (B, h, w): rectangles until enough is hidden (Bao et al. 2021, section 2.3).

    Algorithm 1 of the paper and the code published with it differ:

    ========================  =========================================  ==========================================
    .                         "paper"                                    "code"
    ========================  =========================================  ==========================================
    area of a block           U(min, n_mask - hidden), at least min      U(min, n_mask - hidden), in whatever order
    height / width            U(aspect, 1 / aspect): more tall blocks    log-uniform: tall as often as wide
    blocks as high as h       possible (cut at the border)               tried again, as is one that hides nothing
                                                                         new or too much; 10 failures end the mask
    hidden in the end         more than n_mask                           at most n_mask, often a little less
    ========================  =========================================  ==========================================

    Args:
        n_mask: patches to hide; 75 of 14 x 14 in the code, 40 % in the paper.
        min, max: smallest and largest area of a block in patches (None: no largest).
        aspect: smallest height / width of a block, in (0, 1]; the largest is 1 / aspect.
        algorithm: "exact" is BEiT v2's: "code", then single patches at random until n_mask are hidden.
    """
    if not 0 <= n_mask <= h * w or min < 1 or not 0 < aspect <= 1:
        raise InputError(
            f"blockwise_mask hides 0 to {h * w} patches of {h} x {w} in blocks of 1 patch or more with an aspect in "
            f"(0, 1]; got n_mask={n_mask}, min={min}, aspect={aspect}."
        )
    if algorithm not in ("code", "paper", "exact"):
        raise unknown("algorithm", algorithm, ["code", "paper", "exact"])
    total, mine = _rows(batch, rng)
    if algorithm == "paper":
        largest = h * w if max is None else max
        mask = _paper_blocks(h, w, n_mask, (min, largest), aspect, _child(rng), total, mine, device)
        return mask if batch is not None else mask[0]
    mask = block_masks((h, w), torch.full((total,), n_mask), min, max, aspect, rng, mine, device)
    if algorithm == "exact":  # hidden patches rank before visible ones, each kind at random
        noise = torch.rand(total, h * w, generator=rng)[mine].to(mask.device)
        mask = hide_smallest(noise - mask.flatten(1).float(), n_mask).view_as(mask)
    return mask if batch is not None else mask[0]


def block_masks(
    grid: tuple[int, int],
    counts: Tensor,
    min: int,
    max: int | None,
    aspect: float,
    rng: Generator,
    mine: slice,
    device: Device = None,
) -> Tensor:
    """`blockwise_mask` by the algorithm "code" for images that hide up to `counts` (B,) patches each.

    Returns the masks of the images `mine` of these B, (len(counts[mine]), h, w); see `shard_rows`.
    """

    def propose(remaining: Tensor, u: Tensor) -> Tensor:
        area = min + u[0] * (remaining - min)  # the bounds may stand in the wrong order
        ratio = torch.exp((2 * u[1] - 1) * math.log(1 / aspect))
        return torch.stack([(area * ratio).sqrt().round(), (area / ratio).sqrt().round()], dim=-1)

    largest = math.prod(grid) if max is None else max
    return _boxes(grid, counts, largest, propose, _child(rng), mine, device, attempts=10)


def cube_mask(
    t: int,
    h: int,
    w: int,
    ratio: float,
    rng: Generator,
    *,
    aspect: float = 0.3,
    batch: int | None = None,
    device: Device = None,
) -> Tensor:
    """Boxes in space and time until about `ratio` is hidden (MaskFeat, Wei et al. 2021, section 4.2, "cube").

    (t, h, w) or (B, t, h, w). A box spans 1 to t frames and h*w/5 to h*w patches of a frame, and is smaller than the
    frame along both sides; one that hides nothing new or more than round(ratio * t * h * w) in all is drawn again, 100
    times at most, so somewhat less is hidden in the end (the authors' code).
    """
    hidden_count(1, ratio)  # refuses what is no ratio; MaskFeat rounds as none of its roundings does
    low, high = h * w // 5, h * w
    n_mask = round(t * h * w * ratio)

    def propose(remaining: Tensor, u: Tensor) -> Tensor:
        area = low + u[0] * (high - low)
        ratio = torch.exp((2 * u[1] - 1) * math.log(1 / aspect))
        return torch.stack([1 + (u[2] * t).floor(), (area * ratio).sqrt().round(), (area / ratio).sqrt().round()], -1)

    total, mine = _rows(batch, rng)
    counts = torch.full((total,), n_mask)
    mask = _boxes((t, h, w), counts, t * h * w, propose, _child(rng), mine, device, attempts=100)
    return mask if batch is not None else mask[0]


def _boxes(
    grid: tuple[int, ...],
    counts: Tensor,
    largest: int,
    propose: Callable[[Tensor, Tensor], Tensor],
    rng: Generator,
    mine: slice,
    device: Device,
    attempts: int,
) -> Tensor:
    """Add boxes to the masks (*grid) of the images `mine`. A round tries `attempts` for each and takes one that fits.

    `counts` (B,) is how many patches each of all images may hide. `propose` makes sides (A, attempts, axes) from how
    many may still be hidden (A, 1) and from uniform numbers (axes, A, attempts). An image is done when it is full or
    when nothing has fitted.
    """
    axes = len(grid)
    whole = torch.tensor(grid, device=device)
    sums = [torch.ones(n + 1, n, device=device).tril(-1) for n in grid]
    ticks = [torch.arange(n, device=device) for n in grid]
    strict = torch.tensor([*[0] * (axes - 2), 1, 1], device=device)  # smaller than a frame along both of its sides
    free = counts[mine].to(device, torch.float32)
    mask = torch.zeros(len(free), *grid, dtype=torch.bool, device=device)
    active = free.nonzero()[:, 0]
    while len(active):
        u = torch.rand(2 * axes, len(counts), attempts, generator=rng)[:, mine].to(mask.device)[:, active]
        now, left = mask[active], free[active][:, None]
        remaining = left.clamp(max=largest)
        sides = propose(remaining, u[:axes])
        valid = ((sides >= 1) & (sides <= whole - strict)).all(dim=-1)
        sides = sides.where(valid[..., None], 1.0)
        start = (u[axes:].permute(1, 2, 0) * (whole - sides + 1)).floor()  # all places where such a box can start
        new = sides.prod(dim=-1) - _inside(now, start.long(), (start + sides).long(), sums)
        fits = valid & (new > 0) & (new <= remaining)
        row, first = torch.arange(len(active), device=device), fits.int().argmax(dim=1)
        found, new = fits[row, first], new[row, first]
        low = start[row, first].where(found[:, None], 0.0)
        high = low + sides[row, first] * found[:, None]
        box = torch.ones((), dtype=torch.bool, device=device)
        for axis, tick in enumerate(ticks):
            span = (tick >= low[:, axis, None]) & (tick < high[:, axis, None])
            box = box & span.view(-1, *[1] * axis, len(tick), *[1] * (axes - axis - 1))
        mask[active] = now | box
        free[active] -= new * found
        active = active[found & (new < left[:, 0])]
    return mask


def _inside(mask: Tensor, low: Tensor, high: Tensor, sums: list[Tensor]) -> Tensor:
    """How many are hidden inside boxes [low, high): masks (A, *grid), corners (A, K, axes) -> (A, K) float.

    By a summed-area table, whose running sums are matrix products with `sums`, and the 2^axes corners of each box.
    """
    table = mask.float()
    for ones in sums:
        table = torch.tensordot(table, ones, dims=([1], [1]))  # the axis goes to the end, the next becomes the first
    steps = [math.prod(table.shape[axis + 1 :]) for axis in range(1, table.ndim)]
    table = table.flatten(1)
    inside = torch.zeros_like(low[..., 0], dtype=table.dtype)
    for ends in itertools.product((low, high), repeat=len(sums)):
        place = sum(end[..., axis] * step for axis, (end, step) in enumerate(zip(ends, steps, strict=True)))
        below = sum(end is low for end in ends) % 2
        inside += table.gather(1, torch.as_tensor(place)) * (-1 if below else 1)
    return inside


def _paper_blocks(
    h: int,
    w: int,
    n_mask: int,
    area: tuple[int, int],
    aspect: float,
    rng: Generator,
    total: int,
    mine: slice,
    device: Device,
) -> Tensor:
    """Algorithm 1 of BEiT: every block is taken, until more than n_mask are hidden."""
    mask = torch.zeros(mine.stop - mine.start, h, w, dtype=torch.bool, device=device)
    row, column = (torch.arange(n, device=device) for n in (h, w))
    while True:
        hidden = mask.flatten(1).sum(dim=1)
        active = (hidden <= n_mask) & (hidden < h * w)
        if not active.any():
            return mask
        u = torch.rand(4, total, generator=rng)[:, mine].to(mask.device).double()
        size = area[0] + u[0] * (n_mask - hidden).clamp(min=area[0], max=area[1]).sub(area[0])
        ratio = aspect + u[1] * (1 / aspect - aspect)
        height, width = (size * ratio).sqrt().round().clamp(1, h), (size / ratio).sqrt().round().clamp(1, w)
        top, left = ((u[2] * (h - height + 1)).floor(), (u[3] * (w - width + 1)).floor())
        rows = (row >= top[:, None]) & (row < (top + height)[:, None]) & active[:, None]
        columns = (column >= left[:, None]) & (column < (left + width)[:, None])
        mask |= rows[:, :, None] & columns[:, None, :]


def _noise(rng: Rng, batch: int | None, n: int, device: Device) -> Tensor:
    """(n,) or (B, n) numbers: drawn, or those that `rng` is."""
    if isinstance(rng, Tensor):
        if rng.shape[-1] != n or (batch is not None and rng.shape != (batch, n)):
            raise InputError(f"this mask ranks {n} numbers an image; got numbers of shape {(*rng.shape,)}.")
        return rng
    total, mine = _rows(batch, rng)
    noise = torch.rand(total, n, generator=rng)[mine].to(device)
    return noise if batch is not None else noise[0]


def _rows(batch: int | None, rng: Generator) -> tuple[int, slice]:
    return (1, slice(0, 1)) if batch is None else shard_rows(batch, rng)


def _child(rng: Generator) -> Generator:
    """A generator of its own for loops of unknown length, so that what is drawn after them does not depend on it."""
    seed = int(torch.randint(2**62, (), generator=rng))
    return torch.Generator().manual_seed(seed)
