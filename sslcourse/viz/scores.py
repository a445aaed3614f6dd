"""Images with bars beside them: what zero-shot classification says of each."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.viz.scenes import _bare, _figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BEST, _OTHER = "#0b5394", "#9db7d0"
_LETTERS = 32  # of a label that are shown


def scores(
    images: Sequence[Image.Image],
    labels: Sequence[str],
    p: Tensor,
    *,
    top: int = 5,
    titles: Sequence[str] | None = None,
    width: float = 7.5,
) -> "Figure":
    """One row an image: the image, and bars of its most probable labels, best first.

    Args:
        images: N images.
        labels: C names.
        p: (N, C) in [0, 1].
        top: how many labels a row shows.
        titles: N texts above the images.
        width: of the figure, in inches.
    """
    if p.shape != (len(images), len(labels)) or not len(images):
        raise InputError(f"scores needs (N, C) numbers for {len(images)} images and {len(labels)} labels.")
    shown = min(top, len(labels))
    values, index = p.topk(shown, dim=1)
    height = max(1.4, 0.28 * shown + 0.5)
    figure = _figure(width, height * len(images) + 0.3)
    axes = figure.subplots(len(images), 2, squeeze=False, width_ratios=(1, 2.4))
    for i, (left, right) in enumerate(axes):
        _bare(left)
        left.imshow(images[i], interpolation="nearest" if max(images[i].size) <= 64 else "antialiased")
        if titles:
            left.set_title(titles[i], fontsize=8.5, pad=3)
        rows = range(shown)
        right.barh(rows, values[i].tolist(), color=[_BEST, *[_OTHER] * (shown - 1)])
        right.set_yticks(rows, [_short(labels[k]) for k in index[i].tolist()], fontsize=9)
        right.set_ylim(shown - 0.4, -0.6)
        right.set_xlim(0, 1.12)
        for y, value in enumerate(values[i].tolist()):
            right.text(value + 0.01, y, f"{value:.2f}", va="center", fontsize=8.5)
        right.spines[["top", "right"]].set_visible(False)
        right.tick_params(left=False, labelbottom=i == len(images) - 1)
    axes[-1, 1].set_xlabel("probability")
    figure.tight_layout()
    return figure


def _short(label: str) -> str:
    """A label that leaves room for its bar."""
    return label if len(label) <= _LETTERS else label[: _LETTERS - 1].rstrip() + "\u2026"
