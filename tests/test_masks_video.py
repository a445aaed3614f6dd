"""Mask scores against loops over pixels: mIoU, boundary IoU, DAVIS J and F, label propagation."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.zips import Clip
from sslcourse.errors import InputError
from sslcourse.evaluate import (
    boundary_iou,
    davis_scores,
    knn_copy,
    mask_boundary,
    miou,
    propagate_labels,
    video_views_eval,
)
from sslcourse.evaluate.encoder import Encoder
from sslcourse.evaluate.segmentation import confusion_matrix, mask_iou
from sslcourse.evaluate.video import (
    _followed,
    contour_accuracy,
    masks_from_labels,
    region_similarity,
    video_segmentation,
)


def random_masks(*shape: int, seed: int = 0) -> Tensor:
    """Smooth random blobs, so that outlines are lines."""
    g = torch.Generator().manual_seed(seed)
    noise = F.interpolate(torch.rand(1, math.prod(shape[:-2]), 4, 5, generator=g), shape[-2:], mode="bicubic")
    return noise.view(shape) > 0.5


def test_miou_equals_a_loop_over_pixels() -> None:
    g = torch.Generator().manual_seed(0)
    pred, target = (torch.randint(4, (3, 6, 5), generator=g) for _ in range(2))
    target[torch.rand(3, 6, 5, generator=g) < 0.3] = 255
    ious = []
    for c in range(4):
        hit = union = 0
        for p, t in zip(pred.flatten().tolist(), target.flatten().tolist(), strict=True):
            if t != 255:
                hit += p == c and t == c
                union += p == c or t == c
        ious.append(hit / union)
    assert miou(pred, target, 4).item() == pytest.approx(sum(ious) / 4)


def test_miou_is_over_all_images_at_once_and_over_classes_that_occur() -> None:
    pred = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0]])
    target = torch.tensor([[0, 0, 0, 1], [1, 255, 255, 255]])
    assert miou(pred, target, 10).item() == pytest.approx((3 / 4 + 1 / 2) / 2)  # classes 2 .. 9 occur nowhere
    assert miou(pred + 2 * (target == 255), target, 2).item() == pytest.approx((3 / 4 + 1 / 2) / 2)
    only_predicted = torch.tensor([[0, 2]])
    assert miou(only_predicted, torch.tensor([[0, 0]]), 3).item() == pytest.approx((1 / 2 + 0) / 2)


def test_confusion_does_not_overflow_small_integers() -> None:
    target = torch.full((2, 300), 200, dtype=torch.uint8)
    matrix = confusion_matrix(target, target, 250)
    assert matrix.dtype == torch.int64
    assert matrix[200, 200] == 600


@pytest.mark.parametrize(
    ("pred", "target", "sentence"),
    [
        (torch.zeros(2, 2).long(), torch.zeros(2, 3).long(), "one shape"),
        (torch.zeros(2, 2), torch.zeros(2, 2).long(), "integers"),
        (torch.full((2, 2), 3), torch.zeros(2, 2).long(), "pred values"),
        (torch.zeros(2, 2).long(), torch.full((2, 2), -1), "target values"),
        (torch.zeros(2, 2).long(), torch.full((2, 2), 255), "at least one pixel"),
    ],
)
def test_bad_maps_are_one_sentence(pred: Tensor, target: Tensor, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        miou(pred, target, 3)


def boundary_loop(mask: Tensor, d: int) -> Tensor:
    out = torch.zeros_like(mask)
    h, w = mask.shape
    for y in range(h):
        for x in range(w):
            around = [(y + dy, x + dx) for dy in range(-d, d + 1) for dx in range(-d, d + 1)]
            inside = all(0 <= v < h and 0 <= u < w and bool(mask[v, u]) for v, u in around)
            out[y, x] = bool(mask[y, x]) and not inside
    return out


@pytest.mark.parametrize("ratio", [0.02, 0.15])
def test_boundary_equals_the_loop(ratio: float) -> None:
    masks = random_masks(3, 14, 18)
    d = max(1, round(ratio * math.hypot(14, 18)))
    for mask in (*masks, torch.ones(14, 18, dtype=torch.bool)):  # a full mask: its boundary is the image border
        assert torch.equal(mask_boundary(mask, ratio), boundary_loop(mask, d))


def test_boundary_iou_minds_the_outline_more_than_the_area() -> None:
    big = torch.zeros(100, 100, dtype=torch.bool)
    big[10:90, 10:90] = True
    smaller = torch.zeros_like(big)
    smaller[12:88, 12:88] = True
    assert mask_iou(big, smaller).item() > 0.9
    assert boundary_iou(big, smaller).item() < 0.4
    assert boundary_iou(big, big).item() == 1.0
    empty = torch.zeros_like(big)
    assert boundary_iou(empty, empty).item() == 1.0


def outline_loop(mask: Tensor) -> Tensor:
    h, w = mask.shape
    out = torch.zeros_like(mask)
    for y in range(h):
        for x in range(w):
            for dy, dx in ((0, 1), (1, 0), (1, 1)):
                v, u = min(y + dy, h - 1), min(x + dx, w - 1)
                out[y, x] |= mask[y, x] ^ mask[v, u]
    return out


def f_loop(pred: Tensor, truth: Tensor) -> float:
    """The F of DAVIS for one frame: every outline pixel looks for one of the other within the tolerance."""
    radius = math.ceil(0.008 * math.hypot(*pred.shape))
    outlines = [[tuple(p) for p in outline_loop(m).nonzero().tolist()] for m in (pred, truth)]

    def share(a: list, b: list) -> float:
        if not a:
            return 1.0
        return sum(any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in b) for y, x in a) / len(a)

    precision, recall = share(outlines[0], outlines[1]), share(outlines[1], outlines[0])
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def test_davis_scores_equal_the_slow_version() -> None:
    truth, pred = random_masks(2, 6, 20, 30), random_masks(2, 6, 20, 30, seed=1)
    pred[0, :3] = truth[0, :3].roll(1, dims=-1)  # nearly right
    pred[1, 2], truth[1, 3] = False, False  # lost; hidden
    pred[1, 4], truth[1, 4] = False, False  # both
    scores = davis_scores(pred, truth)
    for k in range(2):
        j = []
        f = []
        for t in range(1, 5):
            union = int((pred[k, t] | truth[k, t]).sum())
            j.append(int((pred[k, t] & truth[k, t]).sum()) / union if union else 1.0)
            f.append(f_loop(pred[k, t], truth[k, t]))
        assert region_similarity(pred[k], truth[k])[1:5].tolist() == pytest.approx(j)
        assert contour_accuracy(pred[k], truth[k])[1:5].tolist() == pytest.approx(f)
        assert scores["J"][k].item() == pytest.approx(sum(j) / 4)
        assert scores["F"][k].item() == pytest.approx(sum(f) / 4)
        assert scores["J&F"][k].item() == pytest.approx((sum(j) + sum(f)) / 8)
        assert scores["J_recall"][k].item() == pytest.approx(sum(v > 0.5 for v in j) / 4)


def test_the_given_frame_does_not_count() -> None:
    truth = random_masks(1, 5, 16, 16)
    pred = truth.clone()
    pred[:, 0] = pred[:, -1] = ~truth[:, 0]
    assert davis_scores(pred, truth)["J&F"].item() == 1.0
    with pytest.raises(InputError, match="T >= 3"):
        davis_scores(pred[:, :2], truth[:, :2])


def propagation_loop(features: Tensor, first: Tensor, context: int, top_k: int, radius: int, T: float) -> Tensor:
    frames, _, h, w = features.shape
    labels = [first]
    for t in range(1, frames):
        now = torch.zeros_like(first)
        sources = sorted({0, *range(max(0, t - context), t)})
        for y in range(h):
            for x in range(w):
                seen = []
                for s in sources:
                    for v in range(max(0, y - radius), min(h, y + radius + 1)):
                        for u in range(max(0, x - radius), min(w, x + radius + 1)):
                            cos = float(F.cosine_similarity(features[t, :, y, x], features[s, :, v, u], dim=0))
                            seen.append((cos, labels[s][:, v, u]))
                seen = sorted(seen, key=lambda pair: -pair[0])[:top_k]
                weights = torch.tensor([math.exp(cos / T) for cos, _ in seen])
                now[:, y, x] = sum(wt * label for wt, (_, label) in zip(weights / weights.sum(), seen, strict=True))
        labels.append(now)
    return torch.stack(labels)


@pytest.mark.parametrize(("context", "radius"), [(1, 1), (2, 9)])
def test_label_propagation_equals_the_loop(context: int, radius: int) -> None:
    g = torch.Generator().manual_seed(0)
    features, first = torch.randn(4, 6, 4, 5, generator=g), torch.rand(2, 4, 5, generator=g)
    ours = propagate_labels(features, first, context=context, top_k=3, radius=radius)
    torch.testing.assert_close(ours, propagation_loop(features, first, context, 3, radius, 0.1), rtol=1e-4, atol=1e-5)


def test_labels_follow_a_moving_object() -> None:
    # Every place has a feature of its own; the whole picture moves one place to the right each frame.
    still = torch.randn(32, 6, 8, generator=torch.Generator().manual_seed(0))
    features = torch.stack([still.roll(t, dims=2) for t in range(4)])
    first = torch.zeros(2, 6, 8)
    first[1, 2:4, 1:3] = 1
    first[0] = 1 - first[1]
    labels = propagate_labels(features, first, top_k=1)
    for t in range(4):
        assert torch.equal(labels[t], first.roll(t, dims=2))
    masks = masks_from_labels(labels, (12, 16))
    assert masks.shape == (4, 12, 16)
    assert masks[3, 5:7, 9:11].all()
    assert masks[0].float().mean() < 0.15


def test_bad_propagation_is_one_sentence() -> None:
    with pytest.raises(InputError, match="labels"):
        propagate_labels(torch.rand(3, 4, 5, 5), torch.rand(2, 4, 5))
    with pytest.raises(InputError, match="finite"):
        propagate_labels(torch.full((3, 4, 5, 5), torch.nan), torch.rand(2, 5, 5))


class Blocks(nn.Module):
    """Colours of 2 x 2 blocks."""

    def forward_map(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)


def moving_square(frames: int = 5) -> Clip:
    """A bright square that moves right over a ramp of greys."""
    video = torch.linspace(0, 60, 32).to(torch.uint8).expand(3, frames, 16, 32).clone()
    masks = torch.zeros(frames, 16, 32, dtype=torch.bool)
    for t in range(frames):
        masks[t, 4:12, 4 + 2 * t : 12 + 2 * t] = True
    video[0, masks], video[1, masks] = 250, 180
    return Clip("square", video, masks)


def test_an_object_that_features_tell_apart_is_followed() -> None:
    encoder = Encoder(Blocks(), mean=(0.4, 0.4, 0.4), std=(1.0, 1.0, 1.0))
    clip = moving_square()
    result = video_segmentation(encoder, [clip, clip], top_k=2)
    assert (result.n, result.over) == (2, "objects")
    assert result.value > 0.9
    assert result.detail["J&F"] == pytest.approx((result.detail["J"] + result.detail["F"]) / 2)
    small = video_segmentation(encoder, [clip], top_k=2, short_side=12)  # maps of 3 x 6 in place of 4 x 8
    assert 0.5 < small.value < result.value
    assert video_segmentation(encoder, [clip, clip], top_k=2, short_side=64).value == result.value  # never enlarged
    still = Clip("still", clip.video[:, :1].expand(-1, 5, -1, -1), clip.masks)  # frames that do not show the motion
    assert video_segmentation(encoder, [still]).value < 0.75
    hidden = Clip("hidden", clip.video, clip.masks & (torch.arange(5) > 0)[:, None, None])
    with pytest.raises(InputError, match="first frame"):
        video_segmentation(encoder, [hidden])


def test_only_the_first_mask_is_seen() -> None:
    encoder, clip = Encoder(Blocks()), moving_square()
    other = clip.masks.clone()
    other[1:] = other[1:].flip(0)
    a, b = (
        davis_scores(_followed(encoder, clip.video, m[None], None, {}), clip.masks[None]) for m in (clip.masks, other)
    )
    assert a["J&F"] == b["J&F"]


def test_labels_are_copied_from_the_nearest():
    similarity = torch.tensor([[0.9, 0.5, -torch.inf], [0.0, 0.2, 0.1]])
    labels = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert knn_copy(similarity, labels, k=1).T.tolist() == [[1, 0, 0], [0, 1, 0]]
    share = math.exp(0.9 / 0.1) / (math.exp(0.9 / 0.1) + math.exp(0.5 / 0.1))
    expected = torch.tensor([share, 1 - share, 0.0])
    torch.testing.assert_close(knn_copy(similarity, labels, k=5)[:, 0], expected)  # a place it may not see: weight 0


def test_views_of_a_video_are_averaged_as_probabilities():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(5 * 4 * 3, 7, generator=generator)
    slow = []
    for video in range(5):
        views = [logits[video * 12 + clip * 3 + crop] for clip in range(4) for crop in range(3)]
        slow.append(sum(view.exp() / view.exp().sum() for view in views) / 12)
    torch.testing.assert_close(video_views_eval(logits, clips=4, crops=3), torch.stack(slow))
    one_is_sure = torch.tensor([[1e4, 0.0], [-1.0, 1.0], [-1.0, 1.0]])
    assert video_views_eval(one_is_sure, 3, 1).argmax() == 1  # averaged logits would let one view decide alone
    with pytest.raises(InputError, match="video_views_eval needs logits"):
        video_views_eval(logits, clips=7, crops=1)
