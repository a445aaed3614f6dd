"""Functions of masks: run lengths, stability, small regions, clicks, boundary IoU's parts, against slow twins."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcourse import evaluate
from sslcourse.errors import InputError
from sslcourse.segment.clicks import center_click, errors, jittered_box, one_click, squared_depth, uniform_clicks
from sslcourse.segment.mask_prompts import box_of
from sslcourse.segment.masks import (
    boundary,
    boundary_iou,
    boxes_near_crop_edge,
    count_pixels,
    remove_small_regions,
    stability_score,
    to_xywh,
    to_xyxy,
    uncrop_masks,
)
from sslcourse.segment.rle import area_of, coco_export, mask_to_rle, pack_counts, rle_to_mask, unpack_counts


@st.composite
def a_mask(draw: st.DrawFn) -> torch.Tensor:
    h, w = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    return torch.tensor(draw(st.lists(st.booleans(), min_size=h * w, max_size=h * w))).view(h, w)


@settings(deadline=None, max_examples=150)
@given(a_mask())
def test_run_lengths_are_the_mask(mask: torch.Tensor) -> None:
    rle = mask_to_rle(mask)
    columns = mask.T.flatten().tolist()
    runs = [(value, len(list(run))) for value, run in itertools.groupby(columns)]  # the slow twin
    assert rle["counts"] == ([0] if runs[0][0] else []) + [length for _, length in runs]
    assert sum(rle["counts"]) == mask.numel()
    assert torch.equal(rle_to_mask(rle), mask)
    assert area_of(rle) == int(mask.sum())
    assert unpack_counts(pack_counts(rle["counts"])) == rle["counts"]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 2**30), min_size=1, max_size=8))
def test_packed_counts_come_back(counts: list[int]) -> None:
    assert unpack_counts(pack_counts(counts)) == counts


def test_coco_reads_what_we_write() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    mask = torch.rand(37, 23, generator=torch.Generator().manual_seed(0)) > 0.6
    exported = coco_export([mask_to_rle(mask)], image_id=3, scores=[0.5])
    (annotation,) = exported["annotations"]
    segmentation = annotation["segmentation"] | {"counts": annotation["segmentation"]["counts"].encode()}
    assert torch.equal(torch.from_numpy(coco.decode(segmentation)).bool(), mask)
    assert annotation["area"] == coco.area(segmentation)
    assert annotation["bbox"] == coco.toBbox(segmentation).tolist()


def test_run_lengths_of_bad_input() -> None:
    with pytest.raises(InputError, match="one bool mask"):
        mask_to_rle(torch.zeros(2, 2))
    with pytest.raises(InputError, match="sum to 5"):
        rle_to_mask({"size": [2, 2], "counts": [2, 3]})
    with pytest.raises(InputError, match="middle of a number"):
        unpack_counts("o")
    with pytest.raises(InputError, match="does not occur"):
        unpack_counts("\x7f")
    with pytest.raises(InputError, match="at least one mask"):
        coco_export([], image_id=1)


def test_stability_is_the_iou_of_two_thresholds() -> None:
    logits = torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(1)) * 2
    found = stability_score(logits, 0.3, 0.7)
    for i, j in itertools.product(range(2), range(3)):
        inner, outer = logits[i, j] > 1.0, logits[i, j] > -0.4
        assert found[i, j] == pytest.approx(int((inner & outer).sum()) / int((inner | outer).sum()))


def test_stability_at_its_limits() -> None:
    step = torch.where(torch.arange(8) < 4, 50.0, -50.0).expand(1, 8, 8)
    assert stability_score(step).tolist() == [1.0]
    assert stability_score(torch.full((1, 4, 4), -9.0)).tolist() == [0.0]
    assert stability_score(torch.full((1, 4, 4), -9.0), empty=1.0).tolist() == [1.0]
    assert stability_score(torch.zeros(1, 4, 4)).tolist() == [0.0]  # the outer mask is full, the inner one empty


def test_small_regions() -> None:
    mask = torch.zeros(12, 12, dtype=torch.bool)
    mask[1:8, 1:8] = True
    mask[3, 3] = False  # a hole of one pixel
    mask[10, 10] = True  # an island of one pixel
    filled, changed = remove_small_regions(mask, 2, "holes")
    assert changed
    assert filled[3, 3]
    assert filled[10, 10]
    cleaned, changed = remove_small_regions(mask, 2, "islands")
    assert changed
    assert not cleaned[10, 10]
    assert not cleaned[3, 3]
    same, changed = remove_small_regions(mask, 1, "islands")
    assert not changed
    assert torch.equal(same, mask)
    only_small, _ = remove_small_regions(mask, 1000, "islands")
    assert int(only_small.sum()) == 48  # the largest island stays
    with pytest.raises(InputError, match="holes"):
        remove_small_regions(mask, 2, "hills")  # type: ignore[arg-type]


def test_boxes() -> None:
    mask = torch.zeros(3, 9, 7, dtype=torch.bool)
    mask[0, 2:5, 1:4] = True
    mask[1, 8, 6] = True
    assert box_of(mask).tolist() == [[1, 2, 3, 4], [6, 8, 6, 8], [0, 0, 0, 0]]
    assert to_xywh(box_of(mask))[0].tolist() == [1, 2, 2, 2]
    assert to_xyxy(torch.tensor([2.0, 3.0, 2.0, 4.0])).tolist() == [1, 1, 3, 5]


def test_what_the_edge_of_a_crop_cuts() -> None:
    image, crop = torch.tensor([0, 0, 200, 100]), torch.tensor([0, 0, 100, 100])
    boxes = torch.tensor([[30, 30, 60, 60], [0, 0, 60, 60], [30, 30, 99, 60], [30, 0, 60, 99]])
    assert boxes_near_crop_edge(boxes, crop, image).tolist() == [False, False, True, False]
    assert not boxes_near_crop_edge(boxes, image, image).any()


def test_a_crop_on_the_image() -> None:
    mask = torch.ones(2, 3, dtype=torch.bool)
    full = uncrop_masks(mask, torch.tensor([4, 1, 7, 3]), (5, 8))
    assert box_of(full).tolist() == [4, 1, 6, 2]
    assert int(full.sum()) == 6


@settings(deadline=None, max_examples=80)
@given(a_mask(), st.booleans())
def test_depth_is_the_distance_to_the_nearest_outside_pixel(mask: torch.Tensor, border: bool) -> None:
    h, w = mask.shape
    pad = 1 if border else 0
    outside = [
        (y, x)
        for y, x in itertools.product(range(-pad, h + pad), range(-pad, w + pad))
        if not (0 <= y < h and 0 <= x < w and mask[y, x])
    ]
    found = squared_depth(mask, border_counts=border)
    for y, x in itertools.product(range(h), range(w)):
        nearest = min(((y - a) ** 2 + (x - b) ** 2 for a, b in outside), default=(h + w) ** 2)
        assert found[y, x] == (nearest if mask[y, x] else 0)


@settings(deadline=None, max_examples=60)
@given(a_mask(), st.integers(0, 2**31), st.floats(0, 1))
def test_clicks_are_on_errors(gt: torch.Tensor, seed: int, u: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    pred = torch.rand(gt.shape, generator=generator) > 0.5
    wrong, missing = errors(gt, pred)
    uniform = torch.rand(1, 3, *gt.shape, 2, generator=generator)
    answers = [
        uniform_clicks(gt[None], pred[None], uniform),
        one_click(gt[None], pred[None], torch.tensor([u])),
        center_click(gt[None], pred[None]),
    ]
    for points, labels in answers:
        for (x, y), label in zip(points[0].long().tolist(), labels[0].tolist(), strict=True):
            if (wrong | missing).any():
                assert (missing if label else wrong)[y, x]
            else:
                assert label == 0
                assert not gt[y, x] or bool(gt.all())


def test_one_click_is_uniform_over_the_errors() -> None:
    gt = torch.tensor([[[1, 0, 0], [0, 1, 1]]], dtype=torch.bool)
    pred = torch.tensor([[[0, 0, 1], [0, 1, 0]]], dtype=torch.bool)  # one false positive, two false negatives
    at = (torch.arange(300) + 0.5) / 300
    points, labels = one_click(gt.expand(300, -1, -1), pred.expand(300, -1, -1), at)
    places = list(zip(points[:, 0, 0].tolist(), points[:, 0, 1].tolist(), labels[:, 0].tolist(), strict=True))
    assert {place: places.count(place) for place in places} == {(2, 0, 0): 100, (0, 0, 1): 100, (2, 1, 1): 100}


def test_the_first_click_is_the_middle() -> None:
    gt = torch.zeros(1, 20, 20, dtype=torch.bool)
    gt[0, 3:10, 5:14] = True
    points, labels = center_click(gt, None)
    assert points[0, 0, 1] == 6
    assert 8 <= points[0, 0, 0] <= 10
    assert labels.tolist() == [[1]]
    with pytest.raises(InputError, match="bool masks of one shape"):
        center_click(gt, torch.zeros(1, 20, 20))


def test_a_jittered_box_stays_in_the_image_and_near() -> None:
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 10:31, 0:41] = True
    assert jittered_box(mask, torch.full((1, 4), 0.5)).tolist() == [[0, 10, 40, 30]]
    assert jittered_box(mask, torch.zeros(1, 4)).tolist() == [[0, 8, 36, 28]]
    assert jittered_box(mask, torch.ones(1, 4), noise=10.0, bound=20.0).tolist() == [[20, 30, 60, 50]]


@settings(deadline=None, max_examples=60)
@given(a_mask(), st.integers(1, 3))
def test_the_boundary_is_what_is_near_the_outside(mask: torch.Tensor, d: int) -> None:
    h, w = mask.shape
    found = boundary(mask, d)
    for y, x in itertools.product(range(h), range(w)):
        window = itertools.product(range(y - d, y + d + 1), range(x - d, x + d + 1))
        near = any(not (0 <= a < h and 0 <= b < w and mask[a, b]) for a, b in window)
        assert found[y, x] == (bool(mask[y, x]) and near)


def test_boundary_iou() -> None:
    a = torch.zeros(50, 50, dtype=torch.bool)
    a[10:30, 10:30] = True
    b = a.roll(2, dims=1)
    ratio = 3 / (50**2 + 50**2) ** 0.5
    assert float(boundary_iou(a, b, 3)) == pytest.approx(float(evaluate.boundary_iou(a, b, ratio)))
    assert float(boundary_iou(a, b, 1)) < float(boundary_iou(a, b, 3)) < float((a & b).sum() / (a | b).sum())
    assert float(boundary_iou(a, a, 2)) == 1
    assert float(boundary_iou(a & ~a, a & ~a, 2)) == 1
    assert float(boundary_iou(a, a & ~a, 2)) == 0
    with pytest.raises(InputError, match="at least 1 pixel"):
        boundary_iou(a, b, 0)


@pytest.mark.parametrize("size", [(64, 64), (520, 16), (3, 300), (7, 9), (0, 8), (512, 512)])
def test_words_of_eight_pixels_count_and_bound_as_pixels_do(size: tuple[int, int]) -> None:
    height, width = size
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(2, 3, height, width, generator=generator) < torch.tensor([0.001, 0.5, 1.1])[:, None, None]
    assert torch.equal(count_pixels(masks), masks.flatten(-2).sum(dim=-1))
    assert torch.equal(count_pixels(masks.mT), masks.flatten(-2).sum(dim=-1))
    odd = masks[0, 1].clone().as_strided((1, height, width), (1, width, 1))  # as what is cut out of channels has
    assert torch.equal(count_pixels(odd), masks[0, 1:2].flatten(-2).sum(dim=-1))
    if not masks.numel():
        return
    assert torch.equal(box_of(odd)[0], box_of(masks[0, 1]))
    for mask, box in zip(masks.flatten(0, 1), box_of(masks).flatten(0, 1), strict=True):
        y, x = mask.nonzero(as_tuple=True)
        expected = [x.min(), y.min(), x.max(), y.max()] if len(x) else [0, 0, 0, 0]
        assert box.tolist() == [float(v) for v in expected]
