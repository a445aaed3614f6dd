"""Figures of the chapter on BEiT and MAE: hidden patches and what is painted there, blocks, a codebook, the painter."""

import base64
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sslcourse.data.masks import mask_order, upsample_mask
from sslcourse.data.rng import step_generator
from sslcourse.evaluate.reconstruction import copy_nearest, paint, unexplained

from .style import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATIOS = (0.25, 0.4, 0.5, 0.6, 0.75, 0.85, 0.95)
COLUMNS = ("what is seen", "copied", "painted", "the truth")
Shares = Sequence[tuple[str, Sequence[float], Sequence[float]]]


def hidden(images: Tensor, mask: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] with the patches of a mask (B, h, w) in grey."""
    return torch.where(upsample_mask(mask, images.shape[2] // mask.shape[1])[:, None], 0.5, images)


def four(mae: Any, images: Tensor, kind: str, ratio: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Masked, copied, painted and original of uint8 images (B, 3, S, S), each (B, 3, S, S) in [0, 1]."""
    order = mask_order(kind, *mae.backbone.grid_size, ratio, step_generator(seed, 0), batch=len(images))  # type: ignore[arg-type]
    painted, mask = paint(mae, images, order, ratio)
    truth = images / 255
    return hidden(truth, mask), copy_nearest(truth, mask), painted, truth


def rows(columns: Sequence[Tensor], titles: Sequence[str] = COLUMNS, width: float = 6.6) -> "Figure":
    """A grid of pictures: one row an image, one column a tensor (B, 3, H, W) in [0, 1]."""
    import matplotlib.pyplot as plt

    n, k = len(columns[0]), len(columns)
    shape = columns[0].shape[2] / columns[0].shape[3]
    figure, axes = plt.subplots(n, k, figsize=(width, 0.25 + n * width / k * shape), squeeze=False)
    for line, images in zip(axes, zip(*columns, strict=True), strict=True):
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy())
            axis.axis("off")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    return figure


def tiles(photo: Tensor, side: int) -> Tensor:
    """Cut a photograph (3, H, W) into squares, in reading order: (N, 3, side, side); what does not fit is left out."""
    c, h, w = photo.shape[0], photo.shape[1] // side, photo.shape[2] // side
    cut = photo[:, : h * side, : w * side].reshape(c, h, side, w, side)
    return cut.permute(1, 3, 0, 2, 4).reshape(h * w, c, side, side)


def mosaic(squares: Tensor, columns: int) -> Tensor:
    """The inverse of `tiles`: (N, 3, side, side) -> (3, H, W)."""
    n, c, side, _ = squares.shape
    laid = squares.reshape(n // columns, columns, c, side, side)
    return laid.permute(2, 0, 3, 1, 4).reshape(c, n // columns * side, columns * side)


def blocks(masks: dict[str, Tensor]) -> "Figure":
    """Some masks (n, h, w) of each kind, a row a kind, hidden patches dark, with how many are hidden."""
    import matplotlib.pyplot as plt

    n = len(next(iter(masks.values())))
    figure, axes = plt.subplots(len(masks), n, figsize=(1.15 * n, 1.45 * len(masks)), squeeze=False)
    for line, (name, some) in zip(axes, masks.items(), strict=True):
        for axis, mask in zip(line, some, strict=True):
            axis.pcolormesh(mask.flip(0).float().numpy(), cmap="Blues", vmin=0, vmax=1.3, edgecolors="#c9d3da", lw=0.3)
            axis.set_aspect("equal")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(str(int(mask.sum())), fontsize=8, labelpad=2)
        line[0].set_ylabel(name)
    return figure


def curves(ratios: Sequence[float], shares: Shares, ylabel: str) -> "Figure":
    """Means with intervals against the mask ratio: (name, means, half widths of intervals) for each line."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.2, 3.1))
    styles = [(BLUE, "o-"), (BLUE, "o--"), (ORANGE, "s-"), (ORANGE, "s--"), (GREY, "^-")]
    for (name, means, half), (colour, style) in zip(shares, styles, strict=False):
        axis.errorbar(
            ratios[: len(means)], means, yerr=half, fmt=style, color=colour, ms=4, capsize=2, lw=1.5, label=name
        )
    axis.set(xlabel="share of patches that is hidden", ylabel=ylabel, ylim=(0, None))
    axis.legend(fontsize=8.5)
    return figure


def pairs(finding: Any, groups: dict[str, tuple[str, str]], names: tuple[str, str]) -> "Figure":
    """Two arms a group, every seed a line between them; means with intervals beside. The first arm is blue."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.6, 3.0))
    for x, arms in enumerate(groups.values()):
        for k in range(len(finding.seeds)):
            axis.plot((x - 0.18, x + 0.18), [finding.arms[arm][k] for arm in arms], color=GREY, lw=0.8, alpha=0.6)
        for place, arm, colour, name in zip((x - 0.26, x + 0.26), arms, (BLUE, ORANGE), names, strict=True):
            mean = finding.mean(arm)
            error = [[mean.value - mean.low], [mean.high - mean.value]]
            axis.errorbar(
                place, mean.value, yerr=error, fmt="s", color=colour, ms=5, capsize=3, label=None if x else name
            )
    axis.set_xticks(range(len(groups)), [label.replace(" ", "\n", 1) for label in groups], fontsize=9)
    axis.set_ylabel(finding.metric)
    axis.set_ylim(bottom=-0.02)
    axis.legend(fontsize=8.5)
    return figure


def codebook(recorded: dict[str, Any]) -> "Figure":
    """A dVAE's tokens as the patches they decode to, the frequent first; and images as the dVAE writes them."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(6.8, 3.0))
    left, right = figure.subfigures(1, 2, width_ratios=(1.15, 1))
    axis = left.subplots()
    side, columns = len(recorded["patches"][0]), 16
    patches = torch.tensor(recorded["patches"], dtype=torch.uint8)
    axis.imshow(_sheet(patches, columns, 1).numpy(), extent=(0, columns, -len(patches) // columns, 0))
    axis.set_title(f"{len(patches)} tokens, {side} × {side} pixels each")
    axis.axis("off")
    pairs = torch.tensor(recorded["images"], dtype=torch.uint8)  # (2, n, H, W, 3)
    axes = right.subplots(2, pairs.shape[1])
    for line, images, name in zip(axes, pairs, ("image", "written"), strict=True):
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image.numpy())
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(name)
    return figure


def _sheet(pictures: Tensor, columns: int, gap: int = 0) -> Tensor:
    """Pictures (n, H, W, 3) uint8 side by side, `columns` in a row, white between them: (H', W', 3)."""
    n, h, w, c = pictures.shape
    lines = -(-n // columns)
    sheet = torch.full((lines, columns, h + gap, w + gap, c), 255, dtype=torch.uint8)
    sheet.view(-1, h + gap, w + gap, c)[:n, :h, :w] = pictures
    return sheet.transpose(1, 2).reshape(lines * (h + gap), columns * (w + gap), c)


def painter(mae: Any, pictures: Tensor, names: Sequence[str], *, seeds: int = 3, alt: str) -> Any:
    """The mask painter of `_static/js/painter.js` for uint8 pictures (n, 3, S, S); a still stays without script.

    Masks are the same for all pictures; paintings and errors are computed here, the rest in the page.
    """
    from IPython.display import HTML
    from matplotlib.pyplot import close

    grid, n = mae.backbone.grid_size, len(pictures)
    wanted = [(kind, ratio) for kind in ("random", "block") for ratio in RATIOS] + [("grid", 0.75)]
    settings, painted, errors = [], [], []
    for kind, ratio in wanted:
        order = mask_order(kind, *grid, ratio, step_generator(0, 0), batch=seeds)  # type: ignore[arg-type]
        images, orders = pictures.repeat_interleave(seeds, 0), order.repeat(n, 1)
        own, mask = paint(mae, images, orders, ratio)
        masks = ["".join(f"{digit:x}" for digit in _nibbles(one)) for one in mask[:seeds]]
        settings.append({"kind": kind, "ratio": ratio, "masks": masks})
        both = [unexplained(x, images / 255, mask) for x in (copy_nearest(images / 255, mask), own)]
        painted.append(own.view(n, seeds, *own.shape[1:]))
        errors.append(torch.stack(both, dim=-1).view(n, seeds, 2))
    sheet = torch.stack(painted, dim=1).flatten(0, 2)  # picture, setting, draw
    data = {
        "grid": grid[0], "patch": mae.backbone.stride, "seeds": seeds, "pictures": list(names), "settings": settings,
        "originals": _webp(pictures / 255, n, 92), "painted": _webp(sheet, len(wanted) * seeds, 70),
        "errors": [[round(e, 3) for e in pair] for pair in torch.stack(errors, dim=1).view(-1, 2).tolist()],
    }  # fmt: skip
    buffer = io.BytesIO()
    still = rows(four(mae, pictures, "random", 0.75))
    still.savefig(buffer, format="png", dpi=100)
    close(still)
    picture = base64.b64encode(buffer.getvalue()).decode()
    return HTML(
        f'<div class="ssl-painter"><img src="data:image/png;base64,{picture}" alt="{alt}">'
        f'<script type="application/json">{json.dumps(data, separators=(",", ":"))}</script></div>'
    )


def _nibbles(mask: Tensor) -> list[int]:
    """Four patches a number, the first the highest bit."""
    return (mask.reshape(-1, 4).int() * torch.tensor([8, 4, 2, 1])).sum(dim=1).tolist()


def _webp(images: Tensor, columns: int, quality: int) -> str:
    """Images (n, 3, H, W) in [0, 1] as one sheet, `columns` in a row, as the address of a WebP."""
    from PIL import Image

    sheet = _sheet((255 * images).round().to(torch.uint8).permute(0, 2, 3, 1), columns)
    buffer = io.BytesIO()
    Image.fromarray(sheet.numpy()).save(buffer, "WEBP", quality=quality, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
