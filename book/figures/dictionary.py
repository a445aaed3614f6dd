"""Figures of the MoCo chapter: a query before its dictionary, and how keys grow old."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import normalize

from .style import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def dictionary(query: Tensor, key: Tensor, queue: Sequence[Tensor]) -> "Figure":
    """A query, its key, and the batches in the queue, newest first: (H, W, 3) and (B, H, W, 3) in [0, 1]."""
    import matplotlib.pyplot as plt

    rows = len(queue[0])
    columns = len(queue) + 3
    figure, axes = plt.subplots(rows, columns, figsize=(0.95 * columns, 0.95 * rows + 0.3))
    for axis in axes.flat:
        axis.axis("off")
    middle = rows // 2
    for axis, picture, title in ((axes[middle, 0], query, "query $q$"), (axes[middle, 1], key, "its key $k^+$")):
        axis.imshow(picture)
        axis.set_title(title, fontsize=9)
    for age, batch in enumerate(queue):
        fade = 0.82**age
        for row, picture in enumerate(batch):
            axes[row, age + 3].imshow(fade * picture + (1 - fade))
        axes[0, age + 3].set_title("1 step ago" if age == 0 else str(age + 1), fontsize=9)
    return figure


def staleness(snapshots: dict[int, Tensor], today: int, oldest: int) -> tuple[list[int], list[float]]:
    """How well old keys of the same images fit today's: {step: (B, D) embeddings} -> ages in steps, mean cosines.

    Keys of every saved step, up to `oldest` steps ago, are compared with those of the step `today`, without the mean
    over the images, which all share.
    """
    unit = {step: normalize(z - z.mean(dim=0), dim=1) for step, z in snapshots.items()}
    ages = sorted(today - step for step in snapshots if 0 <= today - step <= oldest)
    return ages, [(unit[today - age] * unit[today]).sum(dim=1).mean().item() for age in ages]


def staleness_plot(curves: dict[str, tuple[list[int], list[float]]], spans: dict[str, int]) -> "Figure":
    """Cosine of old keys with today's by age, a line for each encoder; `spans` are ages to mark, such as a queue's."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.0, 3.0))
    for (name, (ages, cosines)), color in zip(curves.items(), (BLUE, ORANGE, GREY), strict=False):
        axis.plot(ages, cosines, "o-", color=color, ms=4, label=name)
    for name, span in spans.items():
        axis.axvline(span, color=GREY, lw=1, ls="--")
        axis.text(span, 0.02, f" {name}", color=GREY, fontsize=9, transform=axis.get_xaxis_transform())
    axis.set_xlabel("age of the key in steps")
    axis.set_ylabel("cosine with the key of today")
    axis.legend()
    return figure
