"""Figures of the chapter on contrastive losses: points on a circle, the interactive ones too."""

import json
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sslcourse.losses.infonce import info_nce

from .style import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def circles(points: dict[str, Tensor], notes: dict[str, str]) -> "Figure":
    """One circle a column: first views as discs, second views as squares, partners joined; (2N, 2) each."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(points), figsize=(1.6 * len(points), 2.3))
    for axis, (name, z) in zip(axes, points.items(), strict=True):
        first, second = (1.12 * z[: len(z) // 2]), 0.92 * z[len(z) // 2 :]
        axis.add_patch(plt.Circle((0, 0), 1, fill=False, ec=GREY, lw=0.8))
        for a, b in zip(first, second, strict=True):
            axis.plot([a[0], b[0]], [a[1], b[1]], color=GREY, lw=0.8, zorder=1)
        axis.scatter(*first.T, color=BLUE, s=9, zorder=2)
        axis.scatter(*second.T, color=ORANGE, marker="s", s=8, zorder=2)
        axis.set_title(name)
        axis.set_xlabel(notes.get(name, ""), fontsize=8.5)
        axis.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal", xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure


def pushes(angles: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Points (2N, 2) at these angles and -dL/dz of InfoNCE at each of them; the first N are queries."""
    z = torch.stack([angles.cos(), angles.sin()], dim=1).requires_grad_()
    info_nce(*z.chunk(2), tau=tau).backward()
    assert z.grad is not None
    return z.detach(), -z.grad


def push_circles(angles: Tensor, taus: tuple[float, ...]) -> "Figure":
    """The arrows of the interactive figure at some temperatures, the longest of each circle at one length."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(taus), figsize=(3.2 * len(taus), 3.4))
    for axis, tau in zip(axes, taus, strict=True):
        z, push = pushes(angles, tau)
        axis.add_patch(plt.Circle((0, 0), 1, fill=False, ec=GREY, lw=1))
        scaled = 0.45 * push / push.norm(dim=1).max()
        axis.quiver(*(1.2 * z).T, *scaled.T, color=ORANGE, angles="xy", scale_units="xy", scale=1, width=0.012)
        for i, (x, y) in enumerate(z.tolist()):
            shape = "o" if i < len(z) // 2 else "s"
            axis.plot(x, y, shape, ms=13, mfc="white", mec="black", zorder=3)
            axis.text(x, y, str(i % (len(z) // 2) + 1), ha="center", va="center", fontsize=8, zorder=4)
        axis.set_title(rf"$\tau$ = {tau}, longest arrow {push.norm(dim=1).max():.2f}")
        axis.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal", xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure


def explorer(degrees: list[float], still: "Figure", alt: str) -> Any:
    """The interactive circle of `_static/js/circle.js`, with a still picture for readers without script.

    Args:
        degrees: where the 2N points start, first views before second views.
        still: what stays when no script runs.
        alt: what the still picture shows.
    """
    import base64
    import io

    from IPython.display import HTML
    from matplotlib.pyplot import close

    data = json.dumps({"angles": [round(math.radians(d), 4) for d in degrees]}, separators=(",", ":"))
    buffer = io.BytesIO()
    still.savefig(buffer, format="png", dpi=100)
    close(still)
    picture = base64.b64encode(buffer.getvalue()).decode()
    return HTML(
        f'<div class="ssl-circle"><img src="data:image/png;base64,{picture}" alt="{alt}">'
        f'<script type="application/json">{data}</script></div>'
    )
