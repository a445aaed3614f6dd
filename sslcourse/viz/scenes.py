"""Figures of scenes: grids of images, labels drawn over them, film strips. matplotlib is imported when first used."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sslcourse.data.shapes.scene import PARTS, Scene
from sslcourse.data.shapes.sdf import CLASSES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Apart in hue and in lightness, so that they differ for colour-blind readers and in print.
TINTS = ["#e8a33d", "#2f7fc1", "#7a3e9d", "#3fae6b", "#c6406a", "#5a5a5a"]


def grid(
    images: Sequence[Tensor],
    *,
    columns: int,
    titles: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
    width: float = 7.5,
) -> "Figure":
    """Images in rows of `columns`.

    Args:
        images: (3, H, W) uint8 each, or None for an empty place.
        titles: a text above each image; or, where there are only as many as columns, above each column.
        rows: a text to the left of each row.
        width: of the figure, in inches.
    """
    n_rows = -(-len(images) // columns)
    cell = (width - (1.1 if rows else 0)) / columns
    figure = _figure(width, n_rows * (cell + (0.22 if titles and len(titles) > columns else 0)) + 0.25)
    axes = figure.subplots(n_rows, columns, squeeze=False)
    for i, ax in enumerate(axes.flat):
        _bare(ax)
        if i < len(images) and images[i] is not None:
            ax.imshow(to_numpy(images[i]), interpolation="nearest")
            if titles and i < len(titles):
                ax.set_title(titles[i], fontsize=8.5, pad=3)
        else:
            ax.set_visible(False)
    for name, ax in zip(rows or [], axes[:, 0], strict=False):
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8.5, labelpad=6)
    return figure


def labels(scene: Scene, width: float = 7.5) -> "Figure":
    """One scene and its labels: image, boxes with classes, instance masks, matte, emblems, dots."""
    from matplotlib.patches import Rectangle

    image = to_numpy(scene.image)
    gray = np.repeat(image.mean(2, keepdims=True), 3, 2) / 255 * 0.5 + 0.5
    panels = [
        ("image", image),
        ("boxes", image),
        ("instance masks", tint(gray, scene.masks)),
        ("alpha matte", scene.alpha.sum(0).clamp(0, 1).cpu().numpy()),
        *((f"{name}s", tint(gray, scene.parts[:, p])) for p, name in enumerate(PARTS) if p),
    ]
    figure = _figure(width, width * 0.72)
    for ax, (name, picture) in zip(figure.subplots(2, 3).flat, panels, strict=True):
        _bare(ax)
        ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(name, fontsize=9.5, pad=3)
        if name == "boxes":
            for k, (x1, y1, x2, y2) in enumerate(scene.boxes.tolist()):
                tone = TINTS[k % len(TINTS)]
                ax.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, lw=1.6, ec=tone))
                text = f"{k} {CLASSES[int(scene.kinds[k])]}"
                ax.text(
                    x1, y1, text, fontsize=7.5, color="white", va="bottom", bbox={"fc": tone, "ec": "none", "pad": 1}
                )
    return figure


def film(video: Tensor, masks: Tensor | None = None, rows: Sequence[str] | None = None, width: float = 7.5) -> "Figure":
    """Clips (B, 3, T, H, W) uint8 as film strips, one row a clip, time to the right; `masks` (B, T, H, W) outlined."""
    frames = video.transpose(1, 2).flatten(0, 1)
    if masks is not None:
        edge = outline(masks.flatten(0, 1))
        frames = torch.where(edge[:, None], torch.tensor([255, 255, 255], dtype=torch.uint8)[:, None, None], frames)
    return grid(list(frames), columns=video.shape[2], rows=rows, width=width)


def outline(masks: Tensor) -> Tensor:
    """The pixels of masks (B, H, W) bool that touch a pixel outside."""
    inside = -torch.nn.functional.max_pool2d(-masks[:, None].float(), 3, 1, 1)
    return masks & (inside[:, 0] < 1)


def tint(image: NDArray[np.float64], masks: Tensor) -> NDArray[np.float64]:
    """An RGB image in [0, 1] (H, W, 3) with masks (K, H, W) coloured over it."""
    from matplotlib.colors import to_rgb

    out = image.copy()
    for k, mask in enumerate(masks.cpu().numpy()):
        out[mask] = 0.25 * out[mask] + 0.75 * np.array(to_rgb(TINTS[k % len(TINTS)]))
    return out


def to_numpy(image: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) uint8 -> (H, W, 3)."""
    return image.permute(1, 2, 0).cpu().numpy()


def _figure(width: float, height: float) -> "Figure":
    """A figure that a notebook shows as the value of a cell. pyplot does not know it, so it is never shown twice."""
    from io import BytesIO

    from matplotlib.figure import Figure

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            buffer = BytesIO()
            self.savefig(buffer, format="png", bbox_inches="tight")
            return buffer.getvalue()

    return Shown(figsize=(width, height))


def _bare(ax: object) -> None:
    ax.set_xticks([])  # type: ignore[attr-defined]
    ax.set_yticks([])  # type: ignore[attr-defined]
    for side in ax.spines.values():  # type: ignore[attr-defined]
        side.set_visible(False)
