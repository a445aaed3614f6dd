"""How good a promptable segmenter is on scenes whose masks are known: IoU after a click, several clicks, or a box.

The simulated annotator of Kirillov et al. 2023, section 7.1: the first click is the middle of the object, each further
one the middle of the largest error. A first click is ambiguous, so the best of three masks is scored ("oracle") beside
the one the model itself would choose.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sslcourse.evaluate.segmentation import mask_iou
from sslcourse.segment.clicks import center_click
from sslcourse.segment.mask_prompts import box_of
from sslcourse.segment.sam import Embedding, Sam
from sslcourse.segment.scenes import SceneMasks

_AT_ONCE = 64  # objects that are decoded together


@dataclass(frozen=True)
class Objects:
    """M objects of scenes with the embedding of the image of each."""

    embedding: Embedding
    masks: Tensor  # (M, H, W) bool


def iou_of(pred: Tensor, gt: Tensor) -> Tensor:
    """IoU of masks (..., H, W) bool, broadcast to each other: (...); 1 where both are empty."""
    return mask_iou(*torch.broadcast_tensors(pred, gt))


@torch.no_grad()
def objects_of(model: Sam, scenes: SceneMasks, part: int, min_area: int = 12) -> Iterator[Objects]:
    """The objects (0 whole, 1 emblem, 2 dot) of scenes of the model's size, some at a time, every scene encoded once.

    Parts of fewer than `min_area` pixels are left out.
    """
    for start in range(0, len(scenes), _AT_ONCE // 2):
        batch = scenes[slice(start, start + _AT_ONCE // 2)]
        embedding = model.encode(model.preprocess(batch.images[:, :3]))
        index, masks = batch.objects(part, min_area)
        for rows in torch.arange(len(index)).split(_AT_ONCE):
            yield Objects(embedding[index[rows]], masks[rows])


def _full(model: Sam, low_res: Tensor) -> Tensor:
    size = (model.image_size, model.image_size)
    return model.postprocess(low_res, size, size) > model.mask_threshold


@torch.no_grad()
def click_ious(model: Sam, scenes: SceneMasks, part: int = 0, clicks: int = 1) -> tuple[Tensor, Tensor]:
    """IoU after 1 .. `clicks` clicks on every object.

    Returns:
        the best of three masks after the first click (M,); the mask that the model chooses after each click
        (M, clicks): of three by its predicted IoU at first, then the single one.
    """
    model.eval()
    oracle, chosen = [], []
    for some in objects_of(model, scenes, part):
        points, labels = center_click(some.masks, None)
        low, iou = model.decode(some.embedding, points, labels)
        each = iou_of(_full(model, low), some.masks[:, None])
        rows, best = torch.arange(len(low)), iou.argmax(dim=1)
        oracle.append(each.amax(dim=1))
        found, low = [each[rows, best]], low[rows, best][:, None]
        for _ in range(clicks - 1):
            place, label = center_click(some.masks, _full(model, low)[:, 0])
            points, labels = torch.cat([points, place], dim=1), torch.cat([labels, label], dim=1)
            low, _ = model.decode(some.embedding, points, labels, masks=low, multimask=False)
            found.append(iou_of(_full(model, low)[:, 0], some.masks))
        chosen.append(torch.stack(found, dim=1))
    return torch.cat(oracle), torch.cat(chosen)


@torch.no_grad()
def box_ious(model: Sam, scenes: SceneMasks, part: int = 0, *, multimask: bool = False) -> Tensor:
    """(M,) IoU of the single mask for the tight box of every object; with `multimask` the best of three."""
    model.eval()
    found = []
    for some in objects_of(model, scenes, part):
        low, _ = model.decode(some.embedding, boxes=box_of(some.masks), multimask=multimask)
        found.append(iou_of(_full(model, low), some.masks[:, None]).amax(dim=1))
    return torch.cat(found)
