"""Known-wrong and other right answers of lab 7, BEiT's masks."""

from autograder.checks.mutants import edits
from autograder.rubric import Right

BLOCKWISE_MASK = edits(
    "blockwise_mask",
    """
aspect_uniform: height / width is uniform, so most blocks are tall; its logarithm is uniform.
- aspect ** (2 * torch.rand((), generator=rng).item() - 1)
+ aspect + (1 / aspect - aspect) * torch.rand((), generator=rng).item()

aspect_one_sided: height / width stays below 1, so all blocks are wide; it goes up to 1 / aspect.
- aspect ** (2 * torch.rand((), generator=rng).item() - 1)
+ aspect ** torch.rand((), generator=rng).item()

aspect_ignored: all blocks are nearly square: draw height / width.
- aspect ** (2 * torch.rand((), generator=rng).item() - 1)
+ aspect ** (0 * torch.rand((), generator=rng).item())

aspect_two_values: height / width is always an end of its range; its logarithm is uniform.
- aspect ** (2 * torch.rand((), generator=rng).item() - 1)
+ aspect ** (1 - 2 * round(torch.rand((), generator=rng).item()))

ratio_without_root: height and width differ by the ratio's square: the root is over area * ratio.
- round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
+ round(math.sqrt(area) * ratio), round(math.sqrt(area) / ratio)

hidden_counted_twice: patches that were hidden already count as new.
-             block[:] = True
+             n_mask -= int(block.sum())
+             block[:] = True

too_many: a block may hide more than what is left: more than n_mask patches are hidden.
-         if 1 <= (~block).sum() <= room:
+         if 1 <= (~block).sum():

old_blocks_too: a block that hides nothing new is a failure.
-         if 1 <= (~block).sum() <= room:
+         if (~block).sum() <= room:

last_row_never: blocks never start in the last possible row and column (off by one).
- h - rows + 1, (), generator=rng).item()
-         left = torch.randint(w - columns + 1, (),
+ h - rows, (), generator=rng).item()
+         left = torch.randint(w - columns, (),

first_row_never: blocks never start in row and column 0.
- h - rows + 1, (), generator=rng).item()
-         left = torch.randint(w - columns + 1, (), generator=rng).item()
+ h - rows, (), generator=rng).item() + 1
+         left = torch.randint(w - columns, (), generator=rng).item() + 1

always_in_the_corner: all blocks start in the same corner: draw their place.
- torch.randint(h - rows + 1, (), generator=rng).item()
+ 0

sides_one_too_long: a block is a row and a column larger than drawn.
- mask[top : top + rows, left : left + columns]
+ mask[top : top + rows + 1, left : left + columns + 1]

grid_swapped: height and width of the grid are swapped.
-     mask = torch.zeros(h, w, dtype=torch.bool)
+     h, w = w, h
+     mask = torch.zeros(h, w, dtype=torch.bool)

cut_at_the_border: blocks may stick out and are cut; they lie inside the grid.
- h - rows + 1, (), generator=rng).item()
-         left = torch.randint(w - columns + 1, (),
+ h, (), generator=rng).item()
+         left = torch.randint(w, (),

as_large_as_the_grid: a block as high or wide as the grid does not fit.
- 1 <= rows < h and 1 <= columns < w
+ 1 <= rows <= h and 1 <= columns <= w

only_largest: the area is always all that is left; it is uniform from min.
- area = min + (room - min) * torch.rand((), generator=rng).item()
+ area = room

only_smallest: the area is always min; it is uniform up to what is left.
- area = min + (room - min) * torch.rand((), generator=rng).item()
+ area = min

area_from_zero: the area starts at 0; the smallest is min.
- area = min + (room - min) * torch.rand((), generator=rng).item()
+ area = room * torch.rand((), generator=rng).item()

area_of_the_first: the area is drawn up to n_mask each time, also when less may still be hidden.
- area = min + (room - min) * torch.rand(
+ area = min + ((n_mask if max is None else room) - min) * torch.rand(

max_ignored: `max` is not used: no block is larger.
-         if max is not None and room > max:
-             room = max

one_block: there is only one block: go on until n_mask are hidden.
-             failures = 0
+             break

one_try: a block that does not fit ends the mask; up to ten are tried.
- failures < 10
+ failures < 1

failures_add_up: failures are counted over the whole mask; ten in a row end it.
-             failures = 0
+             failures -= 1

global_dice: dice come from the global generator; use rng.
- torch.rand((), generator=rng).item() - 1)
+ torch.rand(()).item() - 1)

seed_fixed: rng is not used: every mask is the same.
-     failures = 0
-     while
+     failures, rng = 0, torch.Generator().manual_seed(0)
+     while

inverted: the mask is inverted: True means hidden.
-     return mask
+     return ~mask

transposed: rows and columns are swapped: the mask is (h, w).
-     return mask
+     return mask.T

as_numbers: the mask holds numbers; its type is bool.
-     return mask
+     return mask.long()
""",
)

RIGHT = [
    Right(
        "blockwise_mask",
        "loop_of_tries",
        """
def blockwise_mask(h, w, n_mask, min, max, aspect, rng):
    mask = torch.zeros((h, w), dtype=torch.bool)
    low, high = math.log(aspect), math.log(1 / aspect)
    limit = h * w if max is None else max
    hidden = 0
    while hidden < n_mask:
        for _ in range(10):
            u = torch.rand(4, generator=rng).tolist()
            room = sorted((n_mask - hidden, limit))[0]
            area = u[0] * room + (1 - u[0]) * min
            ratio = math.exp(low + (high - low) * u[1])
            a, b = int(round((area * ratio) ** 0.5)), int(round((area / ratio) ** 0.5))
            if a >= h or b >= w or not a or not b:
                continue
            i, j = int(u[2] * (h - a + 1)), int(u[3] * (w - b + 1))
            new = a * b - int(mask[i : i + a, j : j + b].sum())
            if 0 < new <= room:
                mask[i : i + a, j : j + b] = True
                hidden += new
                break
        else:
            return mask
    return mask
""",
    ),
    Right(
        "blockwise_mask",
        "numpy",
        """
def blockwise_mask(h, w, n_mask, min, max, aspect, rng):
    import numpy as np

    dice = np.random.default_rng(int(torch.randint(2**31, (), generator=rng)))
    mask, failed = np.zeros((h, w), bool), 0
    while mask.sum() < n_mask and failed < 10:
        room = n_mask - mask.sum() if max is None else np.minimum(max, n_mask - mask.sum())
        area = dice.uniform(0, 1) * (room - min) + min
        ratio = np.exp(dice.uniform(-1, 1) * np.log(1 / aspect))
        a, b = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
        failed += 1
        if 0 < a < h and 0 < b < w:
            i, j = dice.integers(0, h - a + 1), dice.integers(0, w - b + 1)
            larger = mask.copy()
            larger[i : i + a, j : j + b] = True
            if 0 < larger.sum() - mask.sum() <= room:
                mask, failed = larger, 0
    return torch.from_numpy(mask)
""",
    ),
]
