"""FastSAM, HQ-SAM, grounding and matting: their functions against loops, limits and bad input."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sslcourse.errors import InputError
from sslcourse.segment import fastsam, matting
from sslcourse.segment.build import build_tiny_sam
from sslcourse.segment.grounded import caption, ground_boxes, label_map
from sslcourse.segment.hq import HQSam, hq_fuse


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# FastSAM


def test_a_mask_is_a_cut_combination_of_prototypes() -> None:
    coef, proto = torch.randn(3, 4, generator=generator()), torch.randn(4, 6, 8, generator=generator(1))
    boxes = torch.tensor([[0.0, 0, 8, 6], [2, 1, 5, 4], [3, 3, 3, 3]])
    found = fastsam.proto_masks(coef, proto, boxes)
    for n, y, x in itertools.product(range(3), range(6), range(8)):
        logit = sum(float(coef[n, k]) * float(proto[k, y, x]) for k in range(4))
        x1, y1, x2, y2 = boxes[n].tolist()
        assert found[n, y, x] == (1 / (1 + math.exp(-logit)) > 0.5 and x1 <= x < x2 and y1 <= y < y2)
    large = fastsam.proto_masks(coef, proto, boxes * 4, (24, 32))
    assert large.shape == (3, 24, 32)
    assert large[2].sum() == 0
    assert fastsam.proto_masks(coef[:0], proto, boxes[:0], (24, 32)).shape == (0, 24, 32)
    with pytest.raises(InputError, match="proto_masks takes"):
        fastsam.proto_masks(coef, proto[:3], boxes)


def three_masks() -> Tensor:
    """Nested squares and one apart: (3, 20, 20)."""
    masks = torch.zeros(3, 20, 20, dtype=torch.bool)
    masks[0, 2:12, 2:12] = True
    masks[1, 4:8, 4:8] = True
    masks[2, 14:18, 14:18] = True
    return masks


def test_points_choose() -> None:
    masks = three_masks()
    inside = fastsam.select_by_prompt(masks, torch.tensor([[10.0, 10.0]]))
    assert torch.equal(inside, masks[0])
    both = fastsam.select_by_prompt(masks, torch.tensor([[10.0, 10.0], [15.0, 15.0]]))
    assert torch.equal(both, masks[0] | masks[2])
    hole = fastsam.select_by_prompt(masks, torch.tensor([[10.0, 10.0], [5.0, 5.0]]), torch.tensor([1, 0]))
    assert not hole[4:8, 4:8].any()
    assert fastsam.select_by_prompt(masks, torch.tensor([[0.0, 19.0]])).sum() == 0
    scaled = fastsam.select_by_prompt(masks, torch.tensor([[20.0, 20.0]]), size=(40, 40))
    assert torch.equal(scaled, masks[0])


def point_by_point(masks: Tensor, points: Tensor, labels: Tensor) -> Tensor:
    """What `select_by_points` does, as the definition reads: mask by mask, the largest first, and point by point."""
    chosen = torch.zeros_like(masks[0])
    for i in fastsam.by_area(masks).tolist():
        for (x, y), label in zip(points.long().tolist(), labels.tolist(), strict=True):
            if label >= 0 and masks[i, y, x]:
                chosen = chosen | masks[i] if label else chosen & ~masks[i]
    return chosen


@pytest.mark.parametrize("seed", range(4))
def test_many_prompts_at_once_equal_one_by_one(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(7, 2, 2, generator=generator).sort(dim=1).values.flatten(1) * torch.tensor([30, 20] * 2)
    masks = fastsam.crop_to_boxes(torch.ones(7, 20, 30, dtype=torch.bool), corners)
    points = torch.rand(50, 3, 2, generator=generator) * torch.tensor([30, 20])
    labels = torch.randint(-1, 2, (50, 3), generator=generator)
    found = fastsam.select_by_prompt(masks, points, labels)
    assert torch.equal(found, torch.stack([point_by_point(masks, *each) for each in zip(points, labels, strict=True)]))
    assert found.flatten(1).any(dim=1).sum() > 10
    assert torch.equal(found[3], fastsam.select_by_points(masks, points[3], labels[3]))
    assert not fastsam.select_by_points(masks[:0], points, labels).any()
    assert not fastsam.select_by_points(masks, points[:, :0], labels[:, :0]).any()
    with pytest.raises(InputError, match=r"\(N, P, 2\), labels"):
        fastsam.select_by_points(masks, points, labels[:, :2])


def test_a_hundred_times_the_prompts_are_no_more_steps() -> None:
    masks, point = three_masks(), torch.tensor([[[10.0, 10.0]], [[15.0, 15.0]]])
    box = torch.tensor([[4.0, 4, 8, 8], [13, 13, 19, 19]])

    class Steps(TorchDispatchMode):
        n = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.n += 1
            return func(*args, **(kwargs or {}))

    def steps(times: int) -> int:
        points, boxes, ones = point.repeat(times, 1, 1), box.repeat(times, 1), torch.ones(2 * times, 1).long()
        with Steps() as counted:
            fastsam.select_by_points(masks, points, ones)
            fastsam.select_by_boxes(masks, boxes)
        return counted.n

    assert steps(100) == steps(1)


def test_boxes_choose_by_iou() -> None:
    masks = three_masks()
    boxes = torch.tensor([[4.0, 4, 8, 8], [1, 1, 13, 13], [13, 13, 19, 19]])
    best = fastsam.select_by_boxes(masks, boxes)
    for box, found in zip(boxes.int().tolist(), best.tolist(), strict=True):
        square = torch.zeros(20, 20, dtype=torch.bool)
        square[box[1] : box[3], box[0] : box[2]] = True
        ious = [int((square & m).sum()) / int((square | m).sum()) for m in masks]
        assert found == max(range(3), key=ious.__getitem__)
    assert torch.equal(fastsam.select_by_prompt(masks, boxes=boxes[:2]), masks[0] | masks[1])
    beyond = torch.tensor([[-9.0, -9, -3, -3], [13, 13, 40, 40], [10, 10, 10, 10]])
    assert fastsam.select_by_boxes(masks, beyond).tolist() == [0, 2, 0]


def test_texts_choose_and_one_prompt_at_a_time() -> None:
    masks = three_masks()
    scores = fastsam.text_scores(torch.eye(3), torch.tensor([0.0, 1.0, 0.1]))
    assert scores.sum().item() == pytest.approx(1)
    assert torch.equal(fastsam.select_by_prompt(masks, scores=scores), masks[1])
    several = fastsam.text_scores(torch.eye(3), torch.tensor([[0.0, 1.0, 0.1], [1.0, 0.0, 0.0]]))
    assert torch.equal(several[0], scores)
    assert several.argmax(dim=1).tolist() == [1, 0]
    with pytest.raises(InputError, match="takes one of"):
        fastsam.select_by_prompt(masks)
    with pytest.raises(InputError, match="takes one of"):
        fastsam.select_by_prompt(masks, torch.zeros(1, 2), scores=scores)
    with pytest.raises(InputError, match="2 scores for 3 masks"):
        fastsam.select_by_prompt(masks, scores=scores[:2])
    with pytest.raises(InputError, match="no mask"):
        fastsam.select_by_boxes(masks[:0], torch.zeros(1, 4))


def test_contained_masks_and_crops() -> None:
    masks = three_masks()
    assert fastsam.drop_contained(masks).tolist() == [0, 2]
    image = torch.randint(0, 255, (3, 20, 20), dtype=torch.uint8, generator=generator())
    crops, kept, boxes = fastsam.text_crops(image, masks, min_area=20)
    assert kept.tolist() == [0]
    assert boxes.tolist() == [[2, 2, 12, 12]]
    assert torch.equal(crops[0, :, 2:12, 2:12], image[:, 2:12, 2:12])
    assert (crops[0, :, 12:] == 255).all()
    assert fastsam.text_crops(image, masks, min_area=1000)[0].shape == (0, 3, 20, 20)


# HQ-SAM


def test_hq_features_are_summed_and_corrected() -> None:
    weights = torch.randn(2, 4, generator=generator())
    maps = [torch.randn(2, 4, 3, 5, generator=generator(i)) for i in range(3)]
    plain = torch.randn(2, 1, 3, 5, generator=generator(9))
    alone, corrected = hq_fuse(weights, *maps), hq_fuse(weights, *maps, plain)
    for n, y, x in itertools.product(range(2), range(3), range(5)):
        value = sum(float(weights[n, c]) * sum(float(m[n, c, y, x]) for m in maps) for c in range(4))
        assert alone[n, 0, y, x].item() == pytest.approx(value, abs=1e-4)
    torch.testing.assert_close(corrected, alone + plain)


def test_hq_sam_corrects_the_mask_that_sam_would_choose() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_tiny_sam(64, 16, hq=True).eval()
        embedding = model.encode(torch.randn(1, 3, 64, 64))
    assert isinstance(model, HQSam)
    points, labels = torch.tensor([[[20.0, 30.0]]]), torch.ones(1, 1)
    with torch.no_grad():
        sparse, dense = model.prompt_encoder(points, labels)
        inputs = (embedding.image, embedding.early, model.prompt_encoder.dense_pe(), sparse, dense)
        masks, hq, iou = model.mask_decoder.predict_all_hq(*inputs)  # type: ignore[operator]
        best = int(iou[0, 1:].argmax()) + 1
        found, score = model.decode(embedding, points, labels)
        single, _ = model.decode(embedding, points, labels, multimask=False)
    torch.testing.assert_close(found, masks[:, best : best + 1] + hq)
    assert score.item() == pytest.approx(iou[0, best].item())
    torch.testing.assert_close(single, masks[:, :1] + hq)


# Grounding


def test_words_become_boxes() -> None:
    tokens = ["red", "star", ".", "blue", "ring", "."]
    logits = torch.full((4, 8), -torch.inf)
    logits[:, :6] = -5.0
    logits[0, :2] = 2.0
    logits[1, 3] = 0.2
    logits[2, :2] = 1.0  # the same star again
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.4], [0.2, 0.8, 0.1, 0.2], [0.5, 0.5, 0.5, 0.4], [0.1, 0.1, 0.1, 0.1]])
    found = ground_boxes(logits, boxes, tokens, (100, 200))
    assert found.queries.tolist() == [0, 1, 2]
    assert found.phrases == ["red star", "blue", "red star"]
    torch.testing.assert_close(found.boxes[0], torch.tensor([50.0, 30.0, 150.0, 70.0]))
    torch.testing.assert_close(found.scores, torch.tensor([2.0, 0.2, 1.0]).sigmoid())
    once = ground_boxes(logits, boxes, tokens, (100, 200), nms_iou=0.5)
    assert once.queries.tolist() == [0, 1]
    nothing = ground_boxes(logits, boxes, tokens, (100, 200), box_threshold=0.99, nms_iou=0.5)
    assert nothing.phrases == []
    with pytest.raises(InputError, match="ground_boxes takes"):
        ground_boxes(logits, boxes[:3], tokens, (100, 200))
    assert caption("  Red Star ") == "red star."
    assert caption("a.") == "a."


def test_later_masks_cover_earlier_ones() -> None:
    masks = three_masks()
    values = label_map(masks)
    assert values[5, 5] == 2
    assert values[10, 10] == 1
    assert values[0, 0] == 0


# Matting


def test_a_trimap_has_a_band_on_both_sides() -> None:
    mask = torch.zeros(30, 30, dtype=torch.bool)
    mask[8:22, 8:22] = True
    trimap = matting.mask_to_trimap(mask, 3)
    y, x = torch.meshgrid(torch.arange(30), torch.arange(30), indexing="ij")
    for i, j in itertools.product(range(30), range(30)):
        near = ((y - i) ** 2 + (x - j) ** 2) <= 9
        expected = 2 if bool(mask[near].all()) else 1 if bool(mask[near].any()) else 0
        # On the rim of the disc OpenCV's rounding decides.
        if abs(int(trimap[i, j]) - expected):
            rim = ((y - i) ** 2 + (x - j) ** 2).float().sqrt().sub(3).abs() <= 0.8
            assert len(mask[rim].unique()) == 2
    assert set(trimap.unique().tolist()) == {0, 1, 2}
    assert set(matting.mask_to_trimap(mask, 0).unique().tolist()) == {0, 2}
    with pytest.raises(InputError, match="bool mask and a radius"):
        matting.mask_to_trimap(mask.float(), 3)


def test_compositing() -> None:
    alpha, front, back = torch.rand(1, 4, 4), torch.rand(3, 4, 4), torch.rand(3, 4, 4)
    image = matting.alpha_composite(alpha, front, back)
    torch.testing.assert_close(image, back + alpha * (front - back))
    torch.testing.assert_close(matting.alpha_composite(torch.ones(1, 4, 4), front, back), front)
    torch.testing.assert_close(matting.alpha_composite(torch.zeros(1, 4, 4), front, back), back)
    with pytest.raises(InputError, match="lies in"):
        matting.alpha_composite(alpha * 255, front, back)


def test_matting_scores_count_the_unknown_only() -> None:
    true, alpha = torch.rand(2, 24, 24, generator=generator()), torch.rand(2, 24, 24, generator=generator(1))
    trimap = torch.randint(0, 3, (2, 24, 24), generator=generator(2)).to(torch.uint8)
    for b in range(2):
        unknown = trimap[b] == 1
        total = float((alpha[b] - true[b]).abs()[unknown].sum()) / 1000
        assert matting.sad(alpha, true, trimap)[b].item() == pytest.approx(total)
        square = float(((alpha[b] - true[b]) ** 2)[unknown].mean())
        assert matting.mse(alpha, true, trimap)[b].item() == pytest.approx(square)
    assert matting.sad(true, true).tolist() == [0, 0]
    assert matting.gradient_error(true, true).tolist() == [0, 0]
    assert (matting.gradient_error(alpha, true) > 0).all()
    assert matting.mse(alpha, true, torch.zeros_like(trimap)).tolist() == [0, 0]
    flat = matting.gradient_magnitude(torch.full((1, 12, 12), 0.3))
    assert flat.abs().max() < 1e-6


def test_refinement_of_the_truth_is_the_truth() -> None:
    mask = torch.zeros(1, 40, 40)
    mask[0, 10:30, 10:30] = 1
    refined = matting.refine_alpha(mask, mask, mask, mask)
    assert torch.equal(refined, mask)
    soft = torch.nn.functional.avg_pool2d(mask[None], 5, 1, 2)[0]
    refined = matting.refine_alpha(mask, soft, soft, soft)
    band = matting.unknown_of_mask(mask > 0.5, 5)
    assert torch.equal(refined[band], soft[band])
    assert torch.equal(refined[0, 20, 20], mask[0, 20, 20])


def test_matting_losses_by_gradient_and_at_zero() -> None:
    pred = torch.rand(1, 1, 16, 16, dtype=torch.float64, generator=generator(), requires_grad=True)
    true = torch.rand(1, 1, 16, 16, dtype=torch.float64, generator=generator(1))
    assert matting.laplacian_loss(true, true, levels=3).item() == 0
    loss = matting.laplacian_loss(pred, true, levels=3)
    assert loss.item() > 0
    (gradient,) = torch.autograd.grad(loss, pred)
    step = 1e-6 * torch.randn(pred.shape, dtype=torch.float64, generator=generator(2))
    moved = matting.laplacian_loss(pred + step, true, levels=3) - matting.laplacian_loss(pred - step, true, levels=3)
    assert moved.item() == pytest.approx(2 * float((gradient * step).sum()), rel=1e-3)
    with pytest.raises(InputError, match="levels need sides"):
        matting.laplacian_loss(pred, true)
