"""Figures of the chapter on CLIP: who goes with whom, two cones, logit axes, the attack, the playground's data."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .style import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.findings.common import Finding

GREEN = "#1c6b34"


def matrix(images: Tensor, captions: Sequence[str], cosines: Tensor) -> "Figure":
    """Cosines (N, N) of images (N, 3, S, S) uint8 in rows and captions in columns, own pairs framed."""
    import matplotlib.pyplot as plt

    n = len(images)
    figure, axis = plt.subplots(figsize=(6.6, 5.2))
    axis.imshow(cosines, vmin=-0.4, vmax=1, cmap="Blues")
    for i in range(n):
        axis.add_patch(plt.Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, ec=ORANGE, lw=2))
        for j in range(n):
            dark = float(cosines[i, j]) > 0.55
            axis.text(j, i, f"{cosines[i, j]:.2f}", ha="center", va="center", fontsize=8, color="w" if dark else "k")
        inset = axis.inset_axes((-1.5, i - 0.46, 0.92, 0.92), transform=axis.transData)
        inset.imshow(images[i].permute(1, 2, 0))
        inset.axis("off")
    axis.set_xticks(range(n), captions, rotation=40, ha="left", rotation_mode="anchor", fontsize=8.5)
    axis.xaxis.tick_top()
    axis.set_yticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xlim(-1.55, n - 0.5)
    return figure


def cones(img: Tensor, txt: Tensor) -> "Figure":
    """Two modalities (N, D) in a plane: across, the direction between their means; up, where they vary most besides."""
    import matplotlib.pyplot as plt

    img, txt = F.normalize(img, dim=1), F.normalize(txt, dim=1)
    across = F.normalize(img.mean(dim=0) - txt.mean(dim=0), dim=0)
    rest = torch.cat([img - img.mean(dim=0), txt - txt.mean(dim=0)])
    rest = rest - (rest @ across)[:, None] * across
    up = torch.linalg.svd(rest, full_matrices=False).Vh[0]
    figure, axis = plt.subplots(figsize=(5.6, 3.3))
    for z, colour, marker, name in ((img, BLUE, "o", "images"), (txt, ORANGE, "s", "their captions")):
        axis.plot(z @ across, z @ up, marker, ms=3.5, color=colour, alpha=0.75, mew=0, label=name)
    for a, b in zip(img[:40], txt[:40], strict=True):
        axis.plot([a @ across, b @ across], [a @ up, b @ up], color=GREY, lw=0.5, alpha=0.6, zorder=0)
    axis.set(xlabel="along the difference of the means", ylabel="most varied direction besides")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9, markerscale=1.5)
    return figure


def logit_axes(finding: "Finding", shifts: Sequence[str], models: dict[str, str]) -> "Figure":
    """Accuracy under each shift by accuracy on photographs, both on logit axes, a dot a seed, with the expected line.

    Args:
        finding: `clip_shift`; for each shift "expected" is the line of the supervised snapshots at a model's accuracy.
        shifts: names of the panels.
        models: arm -> what the legend calls it; "supervised" is the last snapshot.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    colours = dict(zip(models, (ORANGE, GREEN, BLUE), strict=False))
    figure, axes = plt.subplots(1, len(shifts), figsize=(2.3 * len(shifts), 3.2), sharey=True)
    logit = torch.logit
    for axis, shift in zip(axes, shifts, strict=True):
        for k in range(len(finding.seeds)):
            ends = [(finding.arms[f"photo: {m}"][k], finding.arms[f"{shift}: {m}, expected"][k]) for m in models
                    if m != "supervised"]  # fmt: skip
            (x0, y0), (x1, y1) = [(logit(torch.tensor(a)), logit(torch.tensor(b))) for a, b in ends]
            x = logit(torch.tensor([0.32, 0.93]))
            y = y0 + (y1 - y0) / (x1 - x0) * (x - x0)
            axis.plot(x.sigmoid(), y.sigmoid(), color=GREY, lw=0.8, alpha=0.7, zorder=1,
                      label="line of the supervised runs" if k == 0 else None)  # fmt: skip
        for (model, name), marker in zip(models.items(), "osD", strict=True):
            points = finding.arms[f"photo: {model}"], finding.arms[f"{shift}: {model}"]
            axis.plot(*points, marker, color=colours[model], ms=5.5, mew=0, label=name, zorder=2)
        axis.set(xscale="logit", yscale="logit", xlim=(0.3, 0.95), ylim=(0.06, 0.75), title=shift)
        ticks = {"x": (0.4, 0.6, 0.8, 0.9), "y": (0.1, 0.2, 0.4, 0.6)}
        axis.set_xticks(ticks["x"], [f"{t:g}" for t in ticks["x"]])
        axis.set_yticks(ticks["y"], [f"{t:g}" for t in ticks["y"]])
        for side in (axis.xaxis, axis.yaxis):
            side.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("accuracy under the shift")
    figure.supxlabel("accuracy on photographs", fontsize=10)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2, fontsize=9)
    return figure


def attack(rows: dict[str, Tensor], finding: "Finding", groups: dict[str, str]) -> "Figure":
    """Scenes with and without a label (left), and accuracy of four models on each kind (right).

    Args:
        rows: kind of label -> images (n, 3, S, S) uint8, the same scenes in each.
        finding: `clip_typographic`, with arms "group: kind".
        groups: group of the finding -> its name in the figure.
    """
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.1), width_ratios=(1, 1.3))
    strips = [torch.cat([F.pad(x, (1, 1, 1, 1), value=255) for x in images], dim=2) for images in rows.values()]
    left.imshow(torch.cat(strips, dim=1).permute(1, 2, 0))
    side = strips[0].shape[1]
    left.set_yticks([(k + 0.5) * side for k in range(len(rows))], list(rows))
    left.set_xticks([])
    left.tick_params(length=0)
    left.spines[:].set_visible(False)
    width = 0.8 / len(rows)
    for k, (kind, colour) in enumerate(zip(rows, (GREY, BLUE, ORANGE), strict=True)):
        means = [finding.mean(f"{group}: {kind}") for group in groups]
        x = [g + (k - 1) * width for g in range(len(groups))]
        error = [[m.value - m.low for m in means], [m.high - m.value for m in means]]
        right.bar(x, [m.value for m in means], width * 0.92, yerr=error, color=colour, label=kind, capsize=2)
    right.axhline(0.1, color="black", lw=0.8, ls=":")
    right.set_xticks(range(len(groups)), list(groups.values()))
    right.set(ylabel="zero-shot accuracy", ylim=(0, 1))
    right.legend(ncols=3, fontsize=8.5, loc="upper center")
    return figure


def bars(values: Tensor, names: Sequence[str], own: int, k: int = 5) -> "Figure":
    """The k most similar classes of one image by their cosine; its own in orange, and always there."""
    import matplotlib.pyplot as plt

    best = values.argsort(descending=True)[:k].tolist()
    shown = best if own in best else [*best[:-1], own]
    figure, axis = plt.subplots(figsize=(5.6, 2.2))
    axis.barh(range(len(shown)), values[shown], color=[ORANGE if c == own else BLUE for c in shown])
    axis.set_yticks(range(len(shown)), [names[c] for c in shown])
    axis.invert_yaxis()
    axis.set_xlabel("cosine similarity")
    return figure


def playground_data(
    images: Tensor, labels: Tensor, classes: Sequence[str], templates: Sequence[str], img: Tensor, txt: Tensor
) -> dict[str, Any]:
    """What the playground of `_static/js/words.js` needs: a sheet of pictures, and embeddings in eight bits.

    Args:
        images: (N, 3, S, S) uint8; labels: (N,) positions in `classes`.
        classes: C names; templates: T prompts with braces.
        img: (N, D) embeddings of the images; txt: (C * T, D) those of every template with every class, class by class.
    """
    import base64

    def packed(z: Tensor) -> str:
        z = F.normalize(z, dim=1)
        return base64.b64encode((z / z.abs().amax() * 127).round().to(torch.int8).numpy().tobytes()).decode()

    sheet = torch.cat(list(images), dim=2).permute(1, 2, 0)
    return {
        "side": images.shape[-1],
        "dim": img.shape[1],
        "classes": list(classes),
        "templates": list(templates),
        "labels": labels.tolist(),
        "sheet": _png(sheet.numpy()),
        "img": packed(img),
        "txt": packed(txt),
    }


def playground(data: dict[str, Any], still: "Figure", alt: str) -> Any:
    """The zero-shot playground, with a still picture for readers without script.

    Args:
        data: of `playground_data`.
        still: what stays when no script runs; alt: what it shows.
    """
    import base64
    import io

    from IPython.display import HTML
    from matplotlib.pyplot import close

    buffer = io.BytesIO()
    still.savefig(buffer, format="png", dpi=100)
    close(still)
    picture = base64.b64encode(buffer.getvalue()).decode()
    kept = json.dumps(data, separators=(",", ":"))
    return HTML(
        f'<div class="ssl-words"><img src="data:image/png;base64,{picture}" alt="{alt}">'
        f'<script type="application/json">{kept}</script></div>'
    )


def _png(pixels: Any) -> str:
    import base64
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
