"""Figures of the chapter on ViT and DINO: patches, answers of teachers, entropy curves, and the explorer's data."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sslcourse.nn.patches import patchify, unpatchify

from .style import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def answers(recorded: Sequence[list[list[float]]], names: Sequence[str]) -> "Figure":
    """What teachers answer: for each a map of images (rows) by outputs (columns), darker = more probable."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(names), figsize=(1.75 * len(names), 2.0), sharey=True)
    for axis, rows, name in zip(axes, recorded, names, strict=True):
        axis.imshow(torch.tensor(rows).sqrt(), vmin=0, vmax=1, cmap="Blues", aspect="auto")
        axis.set_title(name)
        axis.set_xlabel("output $k$")
        axis.set_xticks([])
        axis.set_yticks([])
        for side in ("top", "right"):
            axis.spines[side].set_visible(True)
    axes[0].set_ylabel("image")
    return figure


def sequence(image: Tensor, p: int) -> "Figure":
    """An image (3, H, W) in [0, 1] with its grid, and its patches in the order in which the transformer reads them."""
    import matplotlib.pyplot as plt

    h, w = image.shape[1] // p, image.shape[2] // p
    patches = patchify(image[None], p)
    gapped = torch.ones(1, 3, h * (p + 1), w * (p + 1))
    for i in range(h * w):
        y, x = i // w * (p + 1), i % w * (p + 1)
        gapped[:, :, y : y + p, x : x + p] = unpatchify(patches[:, i : i + 1], p, 1, 1)
    strip = torch.ones(1, 3, p, h * w * (p + 2))
    for i in range(h * w):
        strip[..., i * (p + 2) : i * (p + 2) + p] = unpatchify(patches[:, i : i + 1], p, 1, 1)
    figure, axes = plt.subplots(2, 1, figsize=(7.6, 3.3), height_ratios=(4, 1))
    axes[0].imshow(gapped[0].permute(1, 2, 0))
    axes[1].imshow(strip[0].permute(1, 2, 0))
    for i in range(h * w):
        axes[1].text(i * (p + 2) + p / 2 - 0.5, p + 3.5, str(i + 1), ha="center", va="top", fontsize=8)
    axes[1].text(-4, p / 2, "CLS", ha="right", va="center", fontsize=9)
    for axis in axes:
        axis.axis("off")
    return figure


def entropy_curves(runs: dict[str, list[tuple[int, float, float]]], top: float) -> "Figure":
    """Entropy of a single target and of the mean target over the training, a panel a run."""
    import matplotlib.pyplot as plt

    rows = (len(runs) + 1) // 2
    figure, grid = plt.subplots(rows, 2, figsize=(6.6, 2.4 * rows), sharex=True, sharey=True, squeeze=False)
    for axis, (name, curve) in zip(grid.flat, runs.items(), strict=True):
        steps, single, mean = zip(*curve, strict=True)
        axis.fill_between(steps, single, mean, color=BLUE, alpha=0.15, lw=0)
        axis.plot(steps, mean, "--", color=BLUE, label="mean answer")
        axis.plot(steps, single, color=ORANGE, label="single answer")
        axis.axhline(top, color=GREY, lw=0.8)
        axis.set(title=name, ylim=(-0.12, top * 1.12))
    figure.supxlabel("training step", fontsize=10)
    figure.supylabel("entropy (nats)", fontsize=10)
    first = grid[0, 0]
    first.text(0.98, top * 1.02, f"uniform: ln {round(torch.tensor(top).exp().item())}", ha="right", fontsize=8,
               transform=first.get_yaxis_transform())  # fmt: skip
    first.legend(loc="best", fontsize=8)
    return figure


def recorded_curves(path: str | Path) -> dict[str, Any]:
    """The file that `benchmarks.findings.dino_curves` wrote."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def explorer(data: dict[str, Any], still: "Figure", alt: str) -> Any:
    """The entropy explorer of `_static/js/entropy.js`, with its data and a still picture for readers without script.

    Args:
        data: `recorded_curves`.
        still: what stays when no script runs.
        alt: what the still picture shows.
    """
    import base64
    import io

    from IPython.display import HTML
    from matplotlib.pyplot import close

    kept = json.dumps({key: value for key, value in data.items() if key != "answers"}, separators=(",", ":"))
    buffer = io.BytesIO()
    still.savefig(buffer, format="png", dpi=100)
    close(still)
    picture = base64.b64encode(buffer.getvalue()).decode()
    return HTML(
        f'<div class="ssl-entropy"><img src="data:image/png;base64,{picture}" alt="{alt}">'
        f'<script type="application/json">{kept}</script></div>'
    )
