"""Masks of everything: a grid of points, three masks each, and filters that keep the good ones once.

Kirillov et al. 2023, "Segment Anything", appendix B. A mask stays if its predicted IoU and its stability are high, if
it does not touch the edge of a crop, and if no better mask has nearly the same box (non-maximum suppression).

The best masks are judged first, and most of the others have nearly the box of a better one: they go before they are
brought to the size of the image. Of those that stay, only the low resolution is kept until the end. So nothing has to
be compressed on the way, and memory does not grow with the image.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torchvision.ops import nms

from sslcourse.errors import InputError
from sslcourse.segment.bounds import Bounds
from sslcourse.segment.grids import crop_boxes, layer_grids
from sslcourse.segment.mask_prompts import box_of
from sslcourse.segment.masks import (
    boxes_near_crop_edge,
    remove_small_regions,
    stability_score,
    to_xywh,
    uncrop_boxes,
    uncrop_masks,
)
from sslcourse.segment.resize import to_pixels
from sslcourse.segment.rle import RLE, area_of, mask_to_rle, rle_to_mask

_AT_ONCE = 8  # masks that are enlarged together: more would leave the processor's cache
MAX_SIDE = 4096  # hundreds of masks of a larger image are gigabytes and hours


class PointModel(Protocol):
    """What answers points: `Predictor`, or anything else with these three methods.

    A model may also have `bounds(low_res, threshold, delta)`, the `Bounds` of the masks that logits (K, h, w) become:
    then masks that cannot stay are not enlarged.
    """

    def set_image(self, image: Any) -> Any: ...

    def predict_low_res(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 1, 2) x y in pixels of the image -> logits (N, M, h, w) of any size, predicted IoU (N, M)."""
        ...

    def upscale(self, low_res: Tensor) -> Tensor:
        """(N, M, h, w) -> logits (N, M, H, W) of the image's size."""
        ...


@dataclass(frozen=True)
class Candidates:
    """K masks that passed the filters, on one image or crop.

    Attributes:
        low_res: (K, h, w) logits as the model gave them.
        boxes: (K, 4) first and last pixel.
        iou, stability: (K,).
        points: (K, 2) that asked for them.
    """

    low_res: Tensor
    boxes: Tensor
    iou: Tensor
    stability: Tensor
    points: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: slice | Tensor) -> "Candidates":
        return Candidates(*(getattr(self, f.name)[index] for f in fields(self)))

    @staticmethod
    def cat(parts: Sequence["Candidates"]) -> "Candidates":
        return Candidates(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Candidates)))


@dataclass(frozen=True)
class Thresholds:
    """What decides whether a mask stays."""

    pred_iou: float = 0.88
    """Predicted IoU above which it stays; 0 for no filter."""
    stability: float = 0.95
    """Stability from which on it stays; 0 for no filter."""
    delta: float = 1.0
    """Shift of the logit that the stability is measured with."""
    nms: float = 0.7
    """IoU of boxes above which the mask of the lower score goes."""
    mask: float = 0.0
    """Logit above which a pixel is in the mask."""

    @property
    def lowest(self) -> tuple[float, float]:
        """The limits of predicted IoU and stability as numbers that nothing is below where there is no filter."""
        return self.pred_iou if self.pred_iou > 0 else -math.inf, self.stability


def amg_stays(
    boxes: Tensor,
    iou: Tensor,
    stability: Tensor,
    crop: Tensor,
    image: Tensor,
    min_iou: float,
    min_stability: float,
) -> Tensor:
    """Which masks are good and whole, (K,) bool; arguments as in `amg_postprocess`."""
    return (iou > min_iou) & (stability >= min_stability) & ~boxes_near_crop_edge(boxes, crop, image)


def amg_postprocess(
    boxes: Tensor,
    iou: Tensor,
    stability: Tensor,
    crop: Tensor,
    image: Tensor,
    min_iou: float,
    min_stability: float,
    max_overlap: float,
) -> Tensor:
    """Which of K masks stay: the good ones that the crop does not cut, and of every object the best.

    Args:
        boxes: (K, 4) x1 y1 x2 y2, in pixels of the crop.
        iou, stability: (K,) predicted IoU and stability.
        crop, image: (4,) boxes of what the model saw and of the whole image, in pixels of the image.
        min_iou: predicted IoU above which a mask stays.
        min_stability: stability from which on it stays.
        max_overlap: IoU of boxes above which the mask of the lower predicted IoU goes.

    Returns:
        (K',) int64 indices, by descending predicted IoU.
    """
    stays = amg_stays(boxes, iou, stability, crop, image, min_iou, min_stability).nonzero().flatten()
    return stays[nms(boxes[stays].float(), iou[stays].float(), max_overlap)]


SMALL = Thresholds(pred_iou=0.4, stability=0.6)  # for the course's models, which promise less than they hold


def amg_judge(model: PointModel, found: Candidates, limits: Thresholds) -> Candidates:
    """`found` with the stability and the boxes of its masks at the size of the image."""
    logits = model.upscale(found.low_res[:, None])[:, 0]
    stability = stability_score(logits, limits.mask, limits.delta)
    return replace(found, stability=stability, boxes=box_of(logits > limits.mask).long())


def amg_candidates(
    model: PointModel,
    answers: Iterable[tuple[Tensor, Tensor, Tensor]],
    crop: Tensor,
    image: Tensor,
    limits: Thresholds,
) -> Candidates:
    """The masks that stay of the answers to all points of a grid, best first: what `amg_postprocess` keeps.

    The masks come up by descending predicted IoU. A good one stays, and takes those below it along that surely have
    nearly the same box. Those, and masks that cannot be stable, are never enlarged (`segment.bounds`): most of all.

    Args:
        answers: (low_res, iou, points) of each batch: (N, M, h, w) logits and (N, M) of the model, and (N, 2) points.
        crop, image: (4,) boxes of what the model sees and of the whole image.

    Returns:
        by descending predicted IoU; boxes and points in pixels of the crop.
    """
    found = Candidates.cat([_asked(*answer, limits) for answer in answers])
    found = found[found.iou.argsort(descending=True, stable=True)]
    bounds: Bounds | None = None
    left = torch.ones(len(found), dtype=torch.bool, device=found.iou.device)
    if hasattr(model, "bounds"):
        bounds = model.bounds(found.low_res, limits.mask, limits.delta)
        left = bounds.stability >= limits.stability
    good = found[:0]
    while bool(left.any()):
        best = left.nonzero()[: 1 if bounds else _AT_ONCE, 0]
        left[best] = False
        some = amg_judge(model, found[best], limits)
        some = some[amg_stays(some.boxes, some.iou, some.stability, crop, image, *limits.lowest)]
        before, good = len(good), Candidates.cat([good, some])
        good = good[nms(good.boxes.float(), good.iou.float(), limits.nms)]
        if bounds:
            for box in good.boxes[before:]:  # what another one suppresses suppresses nothing
                left &= ~bounds.repeat(box, limits.nms)
    return good


def _asked(low_res: Tensor, iou: Tensor, points: Tensor, limits: Thresholds) -> Candidates:
    """The masks of a batch that the model itself believes in, not judged yet."""
    score = iou.flatten()
    good = score > limits.lowest[0]
    asked = points.repeat_interleave(iou.shape[1], dim=0)[good]
    boxes = torch.zeros(len(asked), 4, dtype=torch.long, device=score.device)
    return Candidates(low_res.flatten(0, 1)[good], boxes, score[good], torch.zeros_like(score[good]), asked)


@dataclass(frozen=True)
class AutoMask:
    """One object of an image.

    Attributes:
        rle: run lengths of its mask; `mask` decodes them.
        bbox: x y width height of the first to the last pixel (one pixel: width 0, as in SAM).
        predicted_iou, stability_score: of the mask before clean-up.
        point: x y that asked for it.
        crop_box: x y width height of the crop it was seen in.
    """

    rle: RLE
    bbox: list[float]
    predicted_iou: float
    stability_score: float
    point: list[float]
    crop_box: list[float]

    @property
    def area(self) -> int:
        return area_of(self.rle)

    @property
    def mask(self) -> Tensor:
        """(H, W) bool."""
        return rle_to_mask(self.rle)


@dataclass(frozen=True)
class AutomaticMasks:
    """Finds the masks of everything in an image: `AutomaticMasks(Predictor(model))(image)`.

    Attributes:
        model: what answers points.
        points_per_side: of the grid on the whole image.
        points_per_batch: points that are asked at once.
        limits: see `Thresholds`.
        crop_layers: layers of crops beside the image, of 2^i x 2^i crops.
        crop_overlap: see `crop_boxes`.
        crop_points_scale: points a side are divided by this in each layer.
        crop_nms: as `Thresholds.nms`, between crops; the smaller crop wins.
        min_region: holes and islands of fewer pixels are removed; 0 for none.
    """

    model: PointModel
    points_per_side: int = 32
    points_per_batch: int = 64
    limits: Thresholds = Thresholds()
    crop_layers: int = 0
    crop_overlap: float = 512 / 1500
    crop_points_scale: int = 1
    crop_nms: float = 0.7
    min_region: int = 0

    @torch.no_grad()
    def __call__(self, image: Any) -> list[AutoMask]:
        """The masks of an image (anything `Predictor.set_image` takes), best first within a crop.

        Raises:
            InputError: a side above 4096 px.
        """
        pixels = to_pixels(image)
        height, width = int(pixels.shape[-2]), int(pixels.shape[-1])
        if max(height, width) > MAX_SIDE:
            raise InputError(
                f"masks of everything are made for images of up to {MAX_SIDE} px a side; this one has {width} x "
                f"{height}: make it smaller first."
            )
        crops, layers = crop_boxes((height, width), self.crop_layers, self.crop_overlap)
        grids = layer_grids(self.points_per_side, self.crop_layers, self.crop_points_scale)
        found = [self._in_crop(pixels, crop, grids[i]) for crop, i in zip(crops, layers.tolist(), strict=True)]
        candidates = Candidates.cat([part for part, _ in found])
        masks = [mask for _, part in found for mask in part]
        seen = crops.repeat_interleave(torch.tensor([len(part) for part, _ in found]), dim=0)
        if len(crops) > 1:
            area = (seen[:, 2:] - seen[:, :2]).prod(dim=1)
            keep = nms(candidates.boxes.float(), 1 / area.float(), self.crop_nms)
            candidates, masks, seen = candidates[keep], [masks[i] for i in keep.tolist()], seen[keep]
        if self.min_region and masks:
            candidates, masks, keep = self._clean(candidates, masks)
            seen = seen[keep]
        return [_record(candidates, masks[i], seen[i], i) for i in range(len(masks))]

    def _in_crop(self, pixels: Tensor, crop: Tensor, grid: Tensor) -> tuple[Candidates, list[RLE]]:
        """What was found in a crop, in pixels of the image; the logits are not needed any more."""
        x1, y1, x2, y2 = crop.tolist()
        size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
        image = torch.tensor([0, 0, size[1], size[0]])
        self.model.set_image(pixels[:, y1:y2, x1:x2])
        points = grid * torch.tensor([x2 - x1, y2 - y1])
        kept = amg_candidates(self.model, self._answers(points), crop, image, self.limits)
        masks = (self.model.upscale(low[None, None])[0, 0] > self.limits.mask for low in kept.low_res)
        moved = Candidates(
            low_res=kept.low_res[:, :0, :0].cpu(),
            boxes=uncrop_boxes(kept.boxes, crop).cpu(),
            iou=kept.iou.cpu(),
            stability=kept.stability.cpu(),
            points=kept.points.cpu() + crop[:2],
        )
        return moved, [mask_to_rle(uncrop_masks(mask, crop, size)) for mask in masks]

    def _answers(self, points: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for batch in points.split(self.points_per_batch):
            low_res, iou = self.model.predict_low_res(batch[:, None], torch.ones(len(batch), 1, dtype=torch.long))
            yield low_res, iou, batch.to(low_res.device)

    def _clean(self, candidates: Candidates, masks: list[RLE]) -> tuple[Candidates, list[RLE], Tensor]:
        """Remove small holes and islands; then what became alike goes, and a mask that was changed goes first."""
        cleaned, boxes, untouched = [], [], []
        for rle in masks:
            filled, had_holes = remove_small_regions(rle_to_mask(rle), self.min_region, "holes")
            whole, had_islands = remove_small_regions(filled, self.min_region, "islands")
            untouched.append(not (had_holes or had_islands))
            cleaned.append(rle if untouched[-1] else mask_to_rle(whole))
            boxes.append(box_of(whole).long())
        candidates = replace(candidates, boxes=torch.stack(boxes))
        limit = max(self.limits.nms, self.crop_nms)
        keep = nms(candidates.boxes.float(), torch.tensor(untouched).float(), limit)
        return candidates[keep], [cleaned[i] for i in keep.tolist()], keep


def _record(candidates: Candidates, rle: RLE, crop: Tensor, i: int) -> AutoMask:
    return AutoMask(
        rle=rle,
        bbox=to_xywh(candidates.boxes[i]).tolist(),
        predicted_iou=float(candidates.iou[i]),
        stability_score=float(candidates.stability[i]),
        point=candidates.points[i].tolist(),
        crop_box=to_xywh(crop).tolist(),
    )
