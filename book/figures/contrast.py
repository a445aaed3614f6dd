"""Figures of the contrastive chapters: the partner puzzle, logits as heat maps, and the explorer's data."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sslcourse.losses.infonce import cosine_similarity_matrix

from .style import ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def to_pixels(views: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Standardised views (B, 3, H, W) back to (B, H, W, 3) in [0, 1] for `imshow`."""
    scale = views.new_tensor(std)[:, None, None]
    return (views * scale + views.new_tensor(mean)[:, None, None]).clamp(0, 1).permute(0, 2, 3, 1)


def partner_puzzle(views1: Tensor, views2: Tensor, anchor: int) -> "Figure":
    """One view alone, and all partners in a row below: (B, H, W, 3) in [0, 1] each."""
    import matplotlib.pyplot as plt

    n = len(views2)
    figure, axes = plt.subplots(2, n, figsize=(0.95 * n, 2.4))
    for axis in axes.flat:
        axis.axis("off")
    middle = axes[0, n // 2]
    middle.imshow(views1[anchor])
    middle.set_title("anchor", fontsize=9)
    for k in range(n):
        axes[1, k].imshow(views2[k])
        axes[1, k].set_title("abcdefghijklmnop"[k], fontsize=9)
    return figure


def view_pairs(images: Tensor, views1: Tensor, views2: Tensor) -> "Figure":
    """Images in the first row, their two views below: (B, H, W, 3) in [0, 1] each."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, len(images), figsize=(0.95 * len(images), 3.0))
    for row, (batch, name) in enumerate(zip((images, views1, views2), ("image", "view 1", "view 2"), strict=True)):
        for k, picture in enumerate(batch):
            axes[row, k].imshow(picture)
            axes[row, k].set_xticks([])
            axes[row, k].set_yticks([])
        axes[row, 0].set_ylabel(name)
    return figure


def outline_positives(axis: Any, n: int) -> None:
    """Orange squares around the positives of a (2n, 2n) matrix in the stacked layout, and lines between its blocks."""
    from matplotlib.patches import Rectangle

    for i in range(2 * n):
        axis.add_patch(Rectangle(((i + n) % (2 * n) - 0.5, i - 0.5), 1, 1, fill=False, ec=ORANGE, lw=1.3))
    for line in (axis.axhline, axis.axvline):
        line(n - 0.5, color="white", lw=1.2)


def logit_maps(sims: Sequence[Tensor], titles: Sequence[str], tau: float) -> "Figure":
    """Matrices of cosine similarity (2N, 2N) as logits sim / tau, one colour scale, the diagonal left out."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(sims), figsize=(3.7 * len(sims), 3.6))
    for axis, sim, title in zip(axes, sims, titles, strict=True):
        logits = sim / tau
        logits = logits.masked_fill(torch.eye(len(sim), dtype=torch.bool), float("nan"))
        picture = axis.imshow(logits, vmin=-1 / tau, vmax=1 / tau)
        outline_positives(axis, len(sim) // 2)
        axis.set_title(title)
        axis.set_xlabel("candidate $j$")
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0].set_ylabel("anchor $i$")
    figure.colorbar(picture, ax=axes, shrink=0.85, label=r"logit $s_{ij}/\tau$")
    return figure


def explorer(steps: Sequence[int], embeddings: Sequence[Tensor], tau: float, still: "Figure", alt: str) -> Any:
    """The contrast explorer of `_static/js/contrast.js`, with its data and a still picture for readers without script.

    Args:
        steps: training steps at which `embeddings` were saved.
        embeddings: one (2N, D) tensor a step, views stacked.
        tau: temperature of the run; the slider starts there.
        still: what stays when no script runs.
        alt: what the still picture shows.
    """
    import base64
    import io

    from IPython.display import HTML
    from matplotlib.pyplot import close

    sims = [[[round(s, 3) for s in row] for row in cosine_similarity_matrix(z).tolist()] for z in embeddings]
    data = json.dumps({"steps": list(steps), "tau": tau, "sims": sims}, separators=(",", ":"))
    buffer = io.BytesIO()
    still.savefig(buffer, format="png", dpi=100)
    close(still)
    picture = base64.b64encode(buffer.getvalue()).decode()
    return HTML(
        f'<div class="ssl-contrast"><img src="data:image/png;base64,{picture}" alt="{alt}">'
        f'<script type="application/json">{data}</script></div>'
    )
