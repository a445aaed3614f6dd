r"""DenseCL (Wang et al. 2021): the contrastive loss of MoCo for every cell of a feature map.

    L_dense = 1/S^2 sum_s -log( exp(r_s.t+_s / tau) / ( exp(r_s.t+_s / tau) + sum_{t- in queue} exp(r_s.t- / tau) ) )

(Eq. 2): r_s is cell s of the query's projected map, t+_s the cell of the other view that shows the same place, and the
queue holds one pooled dense key an image. Which cell shows the same place is not known: the paper takes the most
similar one of the *backbone's* maps (Eq. 3) and compares that with three other rules (its table 5).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.moco import moco_logits
from sslcourse.losses.precision import full_precision


@torch.no_grad()
def densecl_match(f1: Tensor, f2: Tensor) -> Tensor:
    """For every cell of view 1 the most similar cell of view 2 (DenseCL, Eq. 3), by cosine.

    Pass the maps F of the backbone (the paper's choice: "max-sim F"), or the projected ones ("max-sim Theta").

    Args:
        f1: (B, S, D) float, the S cells of view 1.
        f2: (B, S', D) float, the cells of view 2.

    Returns:
        (B, S) int64, positions in view 2; the first one of equals.
    """
    if f1.ndim != 3 or f2.ndim != 3 or len(f1) != len(f2) or f1.shape[2] != f2.shape[2]:
        raise InputError(f"densecl_match needs maps (B, S, D) and (B, S', D); got {(*f1.shape,)} and {(*f2.shape,)}.")
    return (F.normalize(f1, dim=2) @ F.normalize(f2, dim=2).mT).argmax(dim=2)


def match_random(batch: int, cells: int, generator: torch.Generator) -> Tensor:
    """Any cell of view 2, drawn on the CPU: (batch, cells) int64. The paper's lower end."""
    return torch.randint(cells, (batch, cells), generator=generator)


def match_geometric(
    boxes1: Tensor, boxes2: Tensor, grid: tuple[int, int], flip1: Tensor | None = None, flip2: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The cell of view 2 whose centre lies nearest in the image, known from the two crops.

    Args:
        boxes1, boxes2: (B, 4) top, left, height, width of the crops in the image, in any unit.
        grid: (rows, columns) of the feature maps.
        flip1, flip2: (B,) bool, whether a view was mirrored left to right after its crop.

    Returns:
        idx: (B, S) int64, cells in reading order.
        inside: (B, S) bool, False where crop 2 does not contain the centre of the cell; `idx` is then its border.
    """
    centres = [_centres(boxes, grid, flip) for boxes, flip in ((boxes1, flip1), (boxes2, flip2))]
    idx = torch.cdist(centres[0], centres[1]).argmin(dim=2)
    offset = centres[0] - boxes2[:, None, :2]
    inside = ((offset >= 0) & (offset <= boxes2[:, None, 2:])).all(dim=2)
    return idx, inside


@full_precision
def dense_info_nce(
    g1: Tensor, g2: Tensor, idx: Tensor, queue: Tensor, tau: float = 0.2, *, valid: Tensor | None = None
) -> Tensor:
    """InfoNCE of every cell (DenseCL, Eq. 2). One cell and MoCo's queue give MoCo.

    Args:
        g1: (B, S, D) float, projected map of the query, L2-normalised inside; the gradient flows through it only.
        g2: (B, S', D) float, projected map of the key, L2-normalised inside, detached.
        idx: (B, S) int64, the positive cell of `g2` for every cell of `g1`.
        queue: (K, D) float unit keys, pooled dense keys of earlier images (not the global ones).
        tau: temperature, > 0.
        valid: (B, S) bool, the cells that count; None for all.

    Returns:
        scalar, mean over the B * S cells that count; 0 if none does.
    """
    if g1.ndim != 3 or g2.ndim != 3 or idx.shape != g1.shape[:2] or len(g2) != len(g1):
        raise InputError(
            f"dense_info_nce needs maps (B, S, D), (B, S', D) and idx (B, S); got {(*g1.shape,)}, {(*g2.shape,)} and "
            f"{(*idx.shape,)}."
        )
    positive = g2.gather(1, idx[:, :, None].expand(-1, -1, g2.shape[2]))
    logits, labels = moco_logits(g1.flatten(0, 1), positive.flatten(0, 1), queue, tau)
    loss = F.cross_entropy(logits, labels, reduction="none").view_as(idx)
    if valid is None:
        return loss.mean()
    return (loss * valid).sum() / valid.sum().clamp_min(1)


def _centres(boxes: Tensor, grid: tuple[int, int], flip: Tensor | None) -> Tensor:
    """Centres of the cells in the image, (B, rows * columns, 2) as (y, x)."""
    boxes = boxes if boxes.is_floating_point() else boxes.float()
    rows, columns = ((torch.arange(n, device=boxes.device, dtype=boxes.dtype) + 0.5) / n for n in grid)
    at = columns.expand(len(boxes), -1)
    if flip is not None:
        at = torch.where(flip[:, None], 1 - at, at)
    y = boxes[:, :1] + rows * boxes[:, 2:3]
    x = boxes[:, 1:2] + at * boxes[:, 3:]
    return torch.stack([y[:, :, None].expand(-1, -1, grid[1]), x[:, None].expand(-1, grid[0], -1)], 3).flatten(1, 2)
