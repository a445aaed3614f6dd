"""From words to boxes to masks: how Grounded-SAM reads an open-vocabulary detector and prompts SAM with it.

Ren et al. 2024, "Grounded SAM: Assembling Open-World Models for Diverse Visual Tasks"; the detector is Grounding DINO
(Liu et al. 2023). It gives a logit for every query and token of the text, and a box for every query.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import nms

from sslcourse.errors import InputError
from sslcourse.segment.masks import to_xyxy


def caption(text: str) -> str:
    """The text as the detector wants it: lower case, closed by a full stop."""
    text = text.lower().strip()
    return text if text.endswith(".") else text + "."


@dataclass(frozen=True)
class Grounding:
    """K boxes and what they show.

    Attributes:
        boxes: (K, 4) x1 y1 x2 y2 in pixels.
        scores: (K,) highest probability of a token.
        phrases: the tokens that are probable, in the order of the text.
        queries: (K,) which query each came from.
    """

    boxes: Tensor
    scores: Tensor
    phrases: list[str]
    queries: Tensor


def phrase_of(probabilities: Tensor, tokens: Sequence[str], threshold: float, skip: Collection[str] = ()) -> str:
    """The tokens whose probability (T,) is above the threshold, joined by blanks; `skip` leaves some out."""
    chosen = zip(tokens, probabilities.tolist(), strict=False)
    return " ".join(token for token, p in chosen if p > threshold and token not in skip)


def ground_boxes(
    logits: Tensor,
    boxes: Tensor,
    tokens: Sequence[str],
    size: tuple[int, int],
    *,
    box_threshold: float = 0.3,
    text_threshold: float = 0.25,
    nms_iou: float | None = None,
    skip: Collection[str] = (),
) -> Grounding:
    """Queries that a token of the text fits, with their boxes in pixels and phrases.

    Args:
        logits: (Q, T') with T' >= T; columns behind the text's tokens are padding (-inf).
        boxes: (Q, 4) centre x, centre y, width, height, as shares of the image.
        tokens: the T tokens of the text.
        size: (H, W) of the image in pixels.
        box_threshold: a query stays if the highest probability of its tokens is above.
        text_threshold: a token belongs to the phrase if its probability is above.
        nms_iou: of overlapping boxes (IoU above) the better one stays; None keeps all.
        skip: tokens that belong to no phrase, such as the markers of beginning and end.

    Returns:
        in the order of the queries; by descending score with `nms_iou`.
    """
    if logits.ndim != 2 or boxes.shape != (len(logits), 4) or logits.shape[1] < len(tokens):
        raise InputError(
            f"ground_boxes takes logits (Q, T), boxes (Q, 4) and at most T tokens; got {(*logits.shape,)}, "
            f"{(*boxes.shape,)} and {len(tokens)} tokens."
        )
    probabilities = logits.sigmoid()
    best = probabilities.amax(dim=1)
    queries = (best > box_threshold).nonzero().flatten()
    height, width = size
    pixels = to_xyxy(boxes[queries] * boxes.new_tensor([width, height, width, height]))
    scores = best[queries]
    if nms_iou is not None:
        keep = nms(pixels, scores, nms_iou)
        pixels, scores, queries = pixels[keep], scores[keep], queries[keep]
    phrases = [phrase_of(row, tokens, text_threshold, skip) for row in probabilities[queries]]
    return Grounding(pixels, scores, phrases, queries)


def label_map(masks: Tensor) -> Tensor:
    """(H, W) int64: 0 background, i + 1 in mask i of (K, H, W) bool; later masks cover earlier ones."""
    values = torch.zeros(masks.shape[-2:], dtype=torch.long, device=masks.device)
    for i, mask in enumerate(masks):
        values[mask] = i + 1
    return values
