"""FastSAM: first all objects with a detector's prototype masks, then the prompt picks some of them.

Zhao et al. 2023, "Fast Segment Anything": YOLOv8-seg finds everything in one pass; points, boxes and texts select.
A mask is a linear combination of prototypes that all objects share, cut to the object's box (YOLACT, Bolya et al.
2019).
Boxes are x1 y1 x2 y2.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.segment.prompts import PADDING

if TYPE_CHECKING:
    from sslcourse.zoo.words import WordModel

Size = tuple[int, int]  # height, width


def crop_to_boxes(masks: Tensor, boxes: Tensor) -> Tensor:
    """Zero outside the boxes: masks (n, h, w), boxes (n, 4) in their pixels. A pixel is in for x1 <= column < x2."""
    height, width = masks.shape[1:]
    x, y = torch.arange(width, device=masks.device), torch.arange(height, device=masks.device)[:, None]
    x1, y1, x2, y2 = boxes.T[:, :, None, None]
    return masks * ((x >= x1) & (x < x2) & (y >= y1) & (y < y2))


def proto_masks(
    coef: Tensor, proto: Tensor, boxes: Tensor, size: Size | None = None, *, crop_first: bool = True
) -> Tensor:
    """Masks sigmoid(coef . proto), cut to their boxes, more than half: (n, H, W) bool.

    Logits are cut (to 0) and enlarged; the sigmoid comes last, as in the recorded official numbers.

    Args:
        coef: (n, k) coefficients.
        proto: (k, h, w) prototypes.
        boxes: (n, 4) in pixels of the image.
        size: (H, W) of the image, which the masks are brought to bilinearly before the threshold; None for h x w.
        crop_first: cut at the resolution of the prototypes, which is fast; False cuts on the image, which is exact.
            Then `proto` may have other proportions than the image: equal margins that letterbox it are cut off.
    """
    if coef.shape[1:] != proto.shape[:1] or boxes.shape != (len(coef), 4):
        raise InputError(
            f"proto_masks takes coef (n, k), proto (k, h, w), boxes (n, 4); got {(*coef.shape,)}, {(*proto.shape,)}, "
            f"{(*boxes.shape,)}."
        )
    h, w = (int(n) for n in proto.shape[1:])
    height, width = size or (h, w)
    masks = torch.einsum("nk,khw->nhw", coef, proto)
    if crop_first:
        masks = crop_to_boxes(masks, boxes * boxes.new_tensor([w / width, h / height] * 2))
        return _resize(masks, (height, width)).sigmoid() > 0.5
    gain = min(h / height, w / width)
    top, left = (h - height * gain) / 2, (w - width * gain) / 2
    masks = masks[:, int(top) : int(h - top), int(left) : int(w - left)]
    return crop_to_boxes(_resize(masks, (height, width)), boxes).sigmoid() > 0.5


def _resize(masks: Tensor, size: Size) -> Tensor:
    if tuple(masks.shape[1:]) == size or not len(masks):
        return masks.reshape(-1, *size) if not len(masks) else masks
    return F.interpolate(masks[None], size, mode="bilinear", align_corners=False)[0]


def unletterbox_boxes(boxes: Tensor, net: Size, image: Size) -> Tensor:
    """Boxes of the padded network input on the original image, cut off at its border; margins are whole pixels."""
    gain = min(net[0] / image[0], net[1] / image[1])
    margin = [round((net[i] - image[i] * gain) / 2 - 0.1) for i in (1, 0)]  # an odd pixel is on the far side
    moved = (boxes - boxes.new_tensor(margin * 2)) / gain
    return torch.minimum(moved.clamp_min(0), moved.new_tensor([image[1], image[0]] * 2))


def snap_to_border(boxes: Tensor, size: Size, tolerance: float = 20.0) -> Tensor:
    """Boxes (n, 4) with sides closer than `tolerance` px to the image's border moved onto it."""
    height, width = size
    near = boxes[:, :2] < tolerance
    limit = boxes.new_tensor([width, height])
    far = boxes[:, 2:] > limit - tolerance
    return torch.cat([boxes[:, :2].where(~near, 0.0), boxes[:, 2:].where(~far, limit)], dim=1)


def iou_with_image(boxes: Tensor, size: Size) -> Tensor:
    """(n,) IoU of boxes inside the image with the whole of it: above 0.9 FastSAM takes the detection for everything."""
    height, width = size
    cut = torch.minimum(boxes.clamp_min(0), boxes.new_tensor([width, height] * 2))
    inside = (cut[:, 2:] - cut[:, :2]).prod(dim=1)
    own = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return inside / (own + height * width - inside)


def by_area(masks: Tensor) -> Tensor:
    """(n,) indices of masks (n, H, W), the largest first; equal ones keep their order."""
    return masks.flatten(1).sum(dim=1).sort(descending=True, stable=True).indices


def drop_contained(masks: Tensor, share: float = 0.8) -> Tensor:
    """Indices of the masks (n, H, W) bool, by descending area, without those of which a larger one holds > `share`."""
    order = by_area(masks)
    flat = masks.flatten(1).float()
    area = flat.sum(dim=1).double()
    held = (flat @ flat.T).double() > share * area  # [i, j]: mask i holds more than that of mask j
    dropped = (held & (area < area[:, None])).any(dim=0)
    return order[~dropped[order]]


def select_by_points(masks: Tensor, points: Tensor, labels: Tensor, size: Size | None = None) -> Tensor:
    """The union of the masks under points to include, without those under points to exclude: (H, W) bool.

    From large to small, every mask below a point is added or taken away, so a small mask has the last word. Of several
    points on one mask the last decides. N prompts at once cost hardly more than one: all are looked up together, and
    prompts for which the same masks decide share one answer.

    Args:
        masks: (n, H, W) bool.
        points: (P, 2) x y in pixels of an image of `size`, None for H x W; or (N, P, 2).
        labels: (P,) 1 include, 0 exclude, -1 no point; or (N, P).

    Returns:
        (H, W) bool; (N, H, W) of N prompts.
    """
    if points.shape[:-1] != labels.shape or points.ndim not in (2, 3) or points.shape[-1] != 2:
        raise InputError(
            f"points are (P, 2) or (N, P, 2), labels (P,) or (N, P); got {(*points.shape,)} and {(*labels.shape,)}."
        )
    if points.ndim == 2:
        return select_by_points(masks, points[None], labels[None], size)[0]
    height, width = (int(n) for n in masks.shape[1:])
    if not points.shape[1] or not len(masks):
        return masks.new_zeros(len(points), height, width)
    image = size or (height, width)
    points, labels = points.to(masks.device), labels.to(masks.device)
    scaled = points.double() * torch.tensor([width / image[1], height / image[0]], dtype=torch.float64).to(
        points.device
    )
    x, y = scaled[..., 0].long().clamp(0, width - 1), scaled[..., 1].long().clamp(0, height - 1)
    under = masks[by_area(masks)]
    hit = (under[:, y, x] & (labels >= 0)).permute(1, 2, 0)  # (N, P, n)
    number = torch.arange(1, points.shape[1] + 1, device=masks.device)[:, None]
    last = (hit * number).amax(dim=1)  # (N, n): the point that decides on a mask, from 1 on; 0 for none
    says = labels.gather(1, (last - 1).clamp_min(0)).masked_fill(last == 0, PADDING)
    different, which = says.unique(dim=0, return_inverse=True)
    return _paint(under, different)[which]


def _paint(masks: Tensor, says: Tensor) -> Tensor:
    """(U, H, W) bool: masks (n, H, W) in their order add (1), take away (0) or do nothing (-1), as `says` (U, n)."""
    painted = masks.new_zeros(len(says), *masks.shape[1:])
    for mask, each in zip(masks, says.T, strict=True):
        decided = (each >= 0).nonzero().flatten()
        painted[decided] = torch.where(mask, (each[decided] == 1)[:, None, None], painted[decided])
    return painted


def select_by_boxes(masks: Tensor, boxes: Tensor, size: Size | None = None) -> Tensor:
    """(B,) index of the mask that overlaps each box most: |M in box| / (|box| + |M| - |M in box|).

    A table of sums over all pixels above and left of each one (Crow 1984) counts a mask in any box by four look-ups,
    so that many boxes cost hardly more than one.

    Args:
        masks: (n, H, W) bool.
        boxes: (B, 4) in pixels of an image of `size` (None for H x W), rounded to whole pixels of the masks.
    """
    height, width = (int(n) for n in masks.shape[1:])
    if not len(masks):
        raise InputError("there is no mask to choose from.")
    if size is not None and size != (height, width):
        ratio = boxes.new_tensor([width / size[1], height / size[0]] * 2)
        boxes = (boxes * ratio).trunc()
    limit = torch.tensor([width, height] * 2, device=masks.device)
    x1, y1, x2, y2 = torch.minimum(boxes.to(masks.device).round().long().clamp_min(0), limit).T
    x2, y2 = torch.maximum(x1, x2), torch.maximum(y1, y2)
    above = F.pad(masks.to(torch.int32).cumsum(dim=1).cumsum(dim=2), (1, 0, 1, 0))
    shared = above[:, y2, x2] - above[:, y1, x2] - above[:, y2, x1] + above[:, y1, x1]  # (n, B)
    union = (y2 - y1) * (x2 - x1) + above[:, -1, -1:] - shared
    return (shared / union.clamp_min(1)).argmax(dim=0)


def text_scores(image_features: Tensor, text_features: Tensor, scale: float = 100.0) -> Tensor:
    """Softmax over n crops of `scale` times their cosine with texts: (n, D) and (D,) -> (n,); (T, D) -> (T, n)."""
    cosine = F.normalize(text_features, dim=-1) @ F.normalize(image_features, dim=-1).T
    return (scale * cosine).softmax(dim=-1)


def text_crops(image: Tensor, masks: Tensor, min_area: int = 100) -> tuple[Tensor, Tensor, Tensor]:
    """What CLIP is shown of every mask: the image, white outside the mask's box.

    Args:
        image: (3, H, W) uint8.
        masks: (n, H, W) bool; those of `min_area` pixels or fewer are left out.

    Returns:
        crops (k, 3, H, W) uint8; indices (k,) of their masks; boxes (k, 4) int64, right and bottom exclusive.
    """
    kept = (masks.flatten(1).sum(dim=1) > min_area).nonzero().flatten()
    boxes = tight_boxes(masks[kept])
    inside = crop_to_boxes(torch.ones_like(masks[kept]), boxes)[:, None]
    return torch.where(inside, image, 255), kept, boxes


def masks_by_text(
    image: Tensor, masks: Tensor, words: "WordModel", text: str | Sequence[str], min_area: int = 100
) -> Tensor:
    """How much each mask is what a text names, to a CLIP that sees the place of every mask alone.

    The pictures of the masks are embedded once for all texts.

    Args:
        image: (3, H, W) uint8; masks: (n, H, W) bool, all objects.
        words: a model of images and words, from `zoo.words.word_model`.
        text: what to look for, or T such texts.
        min_area: masks of so many pixels or fewer are not looked at.

    Returns:
        (n,) probabilities that sum to 1, (T, n) of T texts; 0 for masks that were not looked at.
    """
    if isinstance(text, str):
        return masks_by_text(image, masks, words, [text], min_area)[0]
    crops, kept, _ = text_crops(image, masks, min_area)
    scores = torch.zeros(len(text), len(masks))
    if len(kept) and len(text):
        pictures = [Image.fromarray(crop.permute(1, 2, 0).cpu().numpy()) for crop in crops]
        with torch.no_grad():
            scores[:, kept.cpu()] = text_scores(words.embed(pictures), words.text(list(text)), words.scale)
    return scores


def tight_boxes(masks: Tensor) -> Tensor:
    """(n, 4) int64 boxes of masks (n, H, W) bool, right and bottom exclusive; zeros for an empty mask."""
    from sslcourse.segment.mask_prompts import box_of

    boxes = box_of(masks).long()
    boxes[:, 2:] += masks.flatten(1).any(dim=1)[:, None].long()
    return boxes


def select_by_prompt(
    masks: Tensor,
    points: Tensor | None = None,
    labels: Tensor | None = None,
    boxes: Tensor | None = None,
    scores: Tensor | None = None,
    size: Size | None = None,
) -> Tensor:
    """The part of an image that one kind of prompt means: (H, W) bool; of N prompts by points (N, H, W).

    Args:
        masks: (n, H, W) bool, all objects.
        points, labels: see `select_by_points`.
        boxes: (B, 4), see `select_by_boxes`; the union of what they choose.
        scores: (n,) of a text, see `text_scores`; the best mask. Masks that were not scored have -inf.
        size: (H, W) of the image that points and boxes belong to.
    """
    given: Sequence[Tensor | None] = (points, boxes, scores)
    if sum(prompt is not None for prompt in given) != 1:
        raise InputError("select_by_prompt takes one of points, boxes and scores.")
    if points is not None:
        kinds = torch.ones(points.shape[:-1], dtype=torch.long) if labels is None else labels
        return select_by_points(masks, points, kinds, size)
    if boxes is not None:
        return masks[select_by_boxes(masks, boxes, size)].any(dim=0)
    assert scores is not None  # one of the three is there
    if not len(masks) or len(scores) != len(masks):
        raise InputError(f"there are {len(scores)} scores for {len(masks)} masks; give one each, at least one.")
    return masks[int(scores.argmax())]
