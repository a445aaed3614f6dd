"""Video object segmentation: the scores of DAVIS, and labels carried from frame to frame by frozen features.

    J = |P & G| / |P | G|,     F = 2 p r / (p + r)

with the precision p and recall r of the outline, matched within 0.8 % of the image's diagonal (Perazzi et al. 2016,
section 5; Pont-Tuset et al. 2017). J&F is the mean of both; the first frame is given, and the last is left out, too.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.evaluate.encoder import Encoder
from sslcourse.evaluate.result import Result, mean_result
from sslcourse.evaluate.segmentation import mask_iou

TOLERANCE = 0.008  # of the diagonal, within which outlines match


def region_similarity(pred: Tensor, truth: Tensor) -> Tensor:
    """J: (..., T) float64 IoU of masks (..., T, H, W) bool; 1 where both are empty."""
    return mask_iou(pred, truth)


def contour_accuracy(pred: Tensor, truth: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """F: (..., T) float64, how well the outlines of masks (..., T, H, W) bool agree.

    An outline that is missing where the other has one gives 0, none in both gives 1.
    """
    if pred.shape != truth.shape or pred.dtype != torch.bool or truth.dtype != torch.bool:
        raise InputError(f"F compares bool masks of one shape; got {(*pred.shape,)} and {(*truth.shape,)}.")
    height, width = pred.shape[-2:]
    radius = math.ceil(tolerance * math.hypot(height, width))
    outlines = [_outline(m.reshape(-1, 1, height, width)) for m in (pred, truth)]
    near = [_dilate(outline, radius) for outline in outlines]
    counts = [o.sum(dim=(1, 2, 3)).double() for o in outlines]
    found = [(o & n).sum(dim=(1, 2, 3)).double() for o, n in zip(outlines, reversed(near), strict=True)]
    # Nothing drawn is precise, nothing to find is found.
    precision, recall = (torch.where(c > 0, f / c.clamp_min(1), 1.0) for f, c in zip(found, counts, strict=True))
    total = precision + recall
    score = torch.where(total > 0, 2 * precision * recall / total.clamp_min(1e-12), 0.0)
    return score.view(pred.shape[:-2])


def davis_scores(pred: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Mean J, F and J&F of every object over the frames that count: all but the first and the last.

    Args:
        pred, truth: (K, T, H, W) bool masks of K objects in T >= 3 frames.

    Returns:
        "J", "F", "J&F", (K,) float64 each, and "J_recall", the share of frames with J > 0.5.
    """
    if pred.ndim != 4 or pred.shape[1] < 3:
        raise InputError(f"DAVIS scores need masks (K, T, H, W) with T >= 3 frames; got {tuple(pred.shape)}.")
    j = region_similarity(pred[:, 1:-1], truth[:, 1:-1])
    f = contour_accuracy(pred[:, 1:-1], truth[:, 1:-1])
    mean_j, mean_f = j.mean(dim=1), f.mean(dim=1)
    return {"J": mean_j, "F": mean_f, "J&F": (mean_j + mean_f) / 2, "J_recall": (j > 0.5).double().mean(dim=1)}


def knn_copy(similarity: Tensor, labels: Tensor, k: int = 5, T: float = 0.1) -> Tensor:
    """Labels copied from the k most similar places, with weights exp(similarity / T) that sum to 1.

    Args:
        similarity: (N, M) float, cosines of N places with M labelled ones; -inf where a place may not look.
        labels: (C, M) label shares.
        k: places copied from; all M if there are fewer.

    Returns:
        (C, N) label shares, averages of columns of `labels`.
    """
    best, index = similarity.topk(min(k, similarity.shape[1]), dim=1)
    return (labels[:, index] * (best / T).softmax(dim=1)).sum(dim=2)


@torch.no_grad()
def propagate_labels(
    features: Tensor, first: Tensor, *, context: int = 7, top_k: int = 5, radius: int = 12, T: float = 0.1
) -> Tensor:
    """Carry the labels of the first frame through a clip: every place takes those of the places most like it.

    Each place of frame t looks at the first frame and the `context` frames before t, within `radius` places of its
    own, and averages the labels of the `top_k` most similar places with weights exp(cosine / T) (Jabri et al. 2020,
    "Space-time correspondence as a contrastive random walk", section 4.1; DINO's settings, Caron et al. 2021).

    Args:
        features: (frames, D, h, w) float.
        first: (C, h, w) label shares of the first frame, in [0, 1].
        radius: in places, along both axes; places further away are not looked at.

    Returns:
        (frames, C, h, w); frame 0 is `first`.
    """
    _check(features, first, context, top_k, radius, T)
    frames, _, h, w = features.shape
    tokens = F.normalize(features.float(), dim=1).flatten(2)  # (frames, D, N)
    labels = [first.float().flatten(1)]  # (C, N) each
    far = _far(h, w, radius, features.device)
    for t in range(1, frames):
        sources = sorted({0, *range(max(0, t - context), t)})
        similarity = torch.einsum("dn,sdm->nsm", tokens[t], tokens[sources])
        similarity = similarity.masked_fill(far[:, None], -torch.inf).flatten(1)  # (N, sources * N)
        # A place always sees itself in the frame before, so no row is all -inf.
        labels.append(knn_copy(similarity, torch.cat([labels[s] for s in sources], dim=1), top_k, T))
    return torch.stack(labels).unflatten(2, (h, w))


def masks_from_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """The label with the largest share at every pixel: (frames, C, h, w) -> (frames, height, width) int64.

    Shares are enlarged bilinearly, then each is stretched to [0, 1] within its frame (DINO's evaluation): small
    objects fade as they are carried along.
    """
    big = F.interpolate(labels, size, mode="bilinear", align_corners=False)
    low, high = big.amin(dim=(2, 3), keepdim=True), big.amax(dim=(2, 3), keepdim=True)
    stretched = torch.where(high > 0, (big - low) / (high - low).clamp_min(1e-12), big)
    return stretched.argmax(dim=1)


def video_segmentation(
    encoder: Encoder, clips: Iterable[Any], *, short_side: int | None = None, seed: int = 0, **how: Any
) -> Result:
    """Mean J&F of objects whose mask is given in the first frame, with a bootstrap interval over the objects.

    Nothing is trained: the masks are carried along by `propagate_labels` on the frozen maps.

    Args:
        clips: with `video` (3, T, H, W) uint8 and `masks` (T, H, W) bool, or (K, T, H, W) for K objects: those of
            `DavisPack`. Clips of `Shapes` come as `shapes_videos`.
        short_side: what the network sees frames at, in pixels, where they are larger; masks keep their own size.
        how: settings of `propagate_labels`.
    """
    found: list[dict[str, Tensor]] = []
    for clip in clips:
        truth = clip.masks if clip.masks.ndim == 4 else clip.masks[None]
        truth = truth[truth[:, 0].flatten(1).any(dim=1)]  # what the first frame does not show cannot be followed
        if len(truth):
            found.append(davis_scores(_followed(encoder, clip.video, truth, short_side, how), truth))
    if not found:
        raise InputError("Video segmentation needs a clip with an object in its first frame.")
    scores = {name: torch.cat([f[name] for f in found]) for name in found[0]}
    means = {name: value.mean().item() for name, value in scores.items()}
    detail = {"protocol": "video_segmentation", "n_clips": len(found), "short_side": short_side, **how, **means}
    return mean_result("video_segmentation", scores["J&F"], "objects", detail, seed=seed)


def _followed(encoder: Encoder, video: Tensor, truth: Tensor, short_side: int | None, how: dict[str, Any]) -> Tensor:
    """(K, T, H, W) bool: the objects in every frame, from their masks in the first."""
    frames = video.transpose(0, 1)
    maps = encoder.maps(_shrunk(frames, short_side) if short_side else frames)
    objects = truth[:, 0].float()
    labels = torch.cat([1 - objects.amax(dim=0, keepdim=True), objects])  # 0 is the background
    first = F.interpolate(labels[None], maps.shape[2:], mode="area")[0]
    pred = masks_from_labels(propagate_labels(maps, first, **how), (video.shape[2], video.shape[3]))
    return pred == torch.arange(1, len(labels))[:, None, None, None]


def _shrunk(frames: Tensor, short_side: int) -> Tensor:
    """(T, 3, H, W) uint8 frames whose shorter side is at most `short_side`."""
    scale = short_side / min(frames.shape[2:])
    if scale >= 1:
        return frames
    size = [max(1, round(side * scale)) for side in frames.shape[2:]]
    small = F.interpolate(frames.float(), size, mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)


def _outline(mask: Tensor) -> Tensor:
    """Pixels that differ from their right, lower or lower right neighbour; (B, 1, H, W) bool."""
    # At the last row and column the neighbour outside is the pixel itself: the image's border is no outline.
    padded = F.pad(mask.float(), (0, 1, 0, 1), mode="replicate") > 0.5
    right, below, diagonal = padded[..., :-1, 1:], padded[..., 1:, :-1], padded[..., 1:, 1:]
    return (mask ^ right) | (mask ^ below) | (mask ^ diagonal)


def _dilate(mask: Tensor, radius: int) -> Tensor:
    """All pixels within `radius` (Euclidean) of the mask; (B, 1, H, W) bool."""
    offset = torch.arange(-radius, radius + 1, device=mask.device)
    disk = (offset[:, None] ** 2 + offset**2 <= radius**2).float()
    return F.conv2d(mask.float(), disk[None, None], padding=radius) > 0.5


def _far(h: int, w: int, radius: int, device: torch.device) -> Tensor:
    """(N, N) bool: which places lie further apart than `radius` along either axis."""
    y, x = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    y, x = y.flatten(), x.flatten()
    return ((y[:, None] - y).abs() > radius) | ((x[:, None] - x).abs() > radius)


def _check(features: Tensor, first: Tensor, context: int, top_k: int, radius: int, T: float) -> None:
    if features.ndim != 4 or first.ndim != 3 or first.shape[1:] != features.shape[2:]:
        raise InputError(
            f"Label propagation needs features (frames, D, h, w) and labels (C, h, w) of the first frame; got "
            f"{tuple(features.shape)} and {tuple(first.shape)}."
        )
    if min(context, top_k) < 1 or radius < 0 or T <= 0:
        raise InputError("Label propagation needs context and top_k of 1 or more, radius >= 0 and T > 0.")
    if not bool(features.isfinite().all()):
        raise InputError("Label propagation needs finite features; found NaN or infinity.")
