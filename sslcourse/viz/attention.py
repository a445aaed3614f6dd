"""Where a ViT looks: its attention as heat maps and masks, and its patches as colours (DINO, figures 1, 3 and 8)."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sslcourse.errors import InputError
from sslcourse.evaluate.descriptors import pca_projection
from sslcourse.viz.scenes import _bare, _figure, to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pca_colours(maps: Tensor, *, clip: float = 0.02) -> Tensor:
    """The three main directions of patch features as red, green and blue (DINOv2, Oquab et al. 2023, figure 1).

    Args:
        maps: (N, D, h, w) float, D >= 3; the directions are those of the patches of all N images together, so the same
            colour means the same thing in each of them.
        clip: share of the patches at either end of a direction that is cut off.

    Returns:
        (N, 3, h, w) in [0, 1].
    """
    if maps.ndim != 4 or maps.shape[1] < 3 or maps.shape[0] * maps.shape[2] * maps.shape[3] < 4:
        raise InputError(f"pca_colours needs maps (N, D, h, w) of 4 patches or more, D >= 3; got {tuple(maps.shape)}.")
    x = maps.double().movedim(1, -1)
    flat = x.flatten(0, 2)
    centred = flat - flat.mean(dim=0)
    projected = centred @ pca_projection(centred.T @ centred / len(flat), 3, power=0.0).T
    low, high = (projected.quantile(q, dim=0) for q in (clip, 1 - clip))
    colours = ((projected - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return colours.unflatten(0, x.shape[:3]).movedim(-1, 1).float()


def attention_figure(image: Tensor, attention: Tensor, masks: Tensor, colours: Tensor, width: float = 8.0) -> "Figure":
    """One image: itself, its patches as colours, and for each head where it looks, with the outline of the mask.

    A head's title says which share of the image its outline covers.

    Args:
        image: (3, H, W) uint8.
        attention: (heads, h, w), and masks: (heads, h, w) bool, of the patches.
        colours: (3, h, w) in [0, 1], of `pca_colours`.
        width: of the figure, in inches.
    """
    size: Any = image.shape[1:]
    heads = len(attention)
    columns = min(4, heads + 2)
    rows = math.ceil((heads + 2) / columns)
    figure = _figure(width, rows * (width / columns) * size[0] / size[1] + 0.3 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax in axes:
        _bare(ax)
    axes[0].imshow(to_numpy(image))
    axes[0].set_title("image", fontsize=9)
    axes[1].imshow(to_numpy((interpolate(colours[None], size, mode="nearest-exact")[0] * 255).to(torch.uint8)))
    axes[1].set_title("patches (PCA)", fontsize=9)
    for i, ax in enumerate(axes[2 : 2 + heads]):
        mask = interpolate(masks[None, i : i + 1].float(), size, mode="nearest-exact")[0, 0] > 0.5
        heat = interpolate(attention[None, i : i + 1].float(), size, mode="bilinear")[0, 0]
        ax.imshow(heat.numpy(), cmap="magma")
        ax.contour(mask.float().numpy(), levels=[0.5], colors="white", linewidths=0.8)
        ax.set_title(f"head {i + 1}: {mask.float().mean():.0%}", fontsize=9)
    return figure
