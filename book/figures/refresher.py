"""Figures of the refresher: where numbers go in a reshape, how an image becomes tokens, and what pairing is worth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sslcourse.evaluate.result import Result

from .style import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Light grounds for black digits, one a row of the original table.
ROWS = ("#cfe3f1", "#f7d9c4", "#d7ead9", "#e4dcef")


def _table(axis: Any, values: Tensor, owner: Tensor, title: str) -> None:
    from matplotlib.patches import Rectangle

    rows, columns = values.shape
    for i in range(rows):
        for j in range(columns):
            axis.add_patch(Rectangle((j, -i - 1), 1, 1, fc=ROWS[int(owner[i, j])], ec="white", lw=2))
            axis.text(j + 0.5, -i - 0.5, f"{int(values[i, j])}", ha="center", va="center", fontsize=13)
    axis.set_xlim(-0.1, columns + 0.1)
    axis.set_ylim(-3.1, 0.1)
    axis.set_aspect("equal")
    axis.axis("off")
    axis.set_title(title, fontfamily="monospace", fontsize=10.5)


def reshape_or_permute() -> "Figure":
    """A (2, 3) table, its transpose and its reshape to (3, 2): the same shape, other neighbours."""
    import matplotlib.pyplot as plt

    x = torch.arange(1, 7).reshape(2, 3)
    row = torch.arange(2)[:, None].expand(2, 3)
    figure, axes = plt.subplots(1, 3, figsize=(6.4, 2.3))
    _table(axes[0], x, row, "x, (2, 3)")
    _table(axes[1], x.T, row.T, "x.T, (3, 2)")
    _table(axes[2], x.reshape(3, 2), row.reshape(3, 2), "x.reshape(3, 2)")
    return figure


def tokens(image: Tensor, patch: int) -> "Figure":
    """An image (3, H, W) in [0, 1] cut into patches, and the patches in a row behind the class token."""
    import matplotlib.pyplot as plt

    pixels = image.permute(1, 2, 0)
    side = pixels.shape[0] // patch
    figure = plt.figure(figsize=(6.4, 2.8))
    whole, line = figure.subfigures(2, 1, height_ratios=(2.1, 1))
    axis = whole.subplots()
    axis.imshow(pixels)
    for k in range(1, side):
        axis.axhline(k * patch - 0.5, color="white", lw=1.5)
        axis.axvline(k * patch - 0.5, color="white", lw=1.5)
    for k in range(side * side):
        place = {"xy": ((k % side + 0.12) * patch, (k // side + 0.12) * patch), "ha": "left", "va": "top"}
        axis.annotate(str(k + 1), **place, color="white", fontsize=8, bbox={"fc": "#1d2733", "ec": "none", "pad": 1})
    axis.axis("off")
    axes = line.subplots(1, side * side + 1)
    axes[0].text(0.5, 0.5, "cls", ha="center", va="center", fontsize=8, transform=axes[0].transAxes)
    axes[0].set_facecolor(ROWS[1])
    axes[0].set_aspect("equal")
    for k in range(side * side):
        row, column = divmod(k, side)
        axes[k + 1].imshow(pixels[row * patch : (row + 1) * patch, column * patch : (column + 1) * patch])
    for k, each in enumerate(axes):
        each.set_xticks([])
        each.set_yticks([])
        each.spines[:].set_visible(False)
        each.set_xlabel(str(k), fontsize=8)
    return figure


def pairing(a: Sequence[float], b: Sequence[float], each: Sequence[Result], difference: Result) -> "Figure":
    """Left: two methods, their seeds joined, with separate intervals. Right: the difference, paired by seed."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 2.8), width_ratios=(1.7, 1))
    for first, second in zip(a, b, strict=True):
        left.plot([0, 1], [first, second], "o-", color=GREY, mfc=BLUE, mec=BLUE, lw=0.9, ms=4)
    for x, result in zip((-0.18, 1.18), each, strict=True):
        half = [[result.value - result.low], [result.high - result.value]]
        left.errorbar(x, result.value, yerr=half, fmt="s", color=ORANGE, capsize=4, lw=1.8)
    left.set_xticks([0, 1], ["method A", "method B"])
    left.set_xlim(-0.5, 1.5)
    left.set_ylabel("accuracy")
    left.set_title("each with its own interval")
    right.axhline(0, color=GREY, lw=1)
    right.plot([0] * len(a), [y - x for x, y in zip(a, b, strict=True)], "o", color=BLUE, ms=4)
    half = [[difference.value - difference.low], [difference.high - difference.value]]
    right.errorbar(0.25, difference.value, yerr=half, fmt="s", color=ORANGE, capsize=4, lw=1.8)
    right.set_yticks([0, 0.01, 0.02], ["0", "+0.01", "+0.02"])
    right.set_xticks([0.12], ["B - A, same seed"])
    right.set_xlim(-0.4, 0.7)
    right.set_title("the difference, paired")
    return figure
