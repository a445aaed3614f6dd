"""Losses of promptable segmentation against slow forms, by gradients, and at their limits."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from sslcourse.errors import InputError
from sslcourse.segment.losses import (
    best_mask_losses,
    dice_loss,
    focal_dice,
    focal_loss,
    min_over_masks,
    point_losses,
    sample_at,
    sigmoid_focal,
    true_iou,
    uncertain_points,
)


def batch(b: int = 3, m: int = 3, side: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(b, m, side, side + 1, generator=g, dtype=torch.float64)
    gt = (torch.rand(b, side, side + 1, generator=g) > 0.5).double()
    return logits, gt, torch.rand(b, m, generator=g, dtype=torch.float64)


def slow_focal(logits: Tensor, gt: Tensor) -> float:
    total = 0.0
    for z, t in zip(logits.flatten().tolist(), gt.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        total += -0.25 * (1 - p) ** 2 * math.log(p) if t else -0.75 * p**2 * math.log(1 - p)
    return total / logits.numel()


def slow_dice(logits: Tensor, gt: Tensor) -> float:
    p = [1 / (1 + math.exp(-z)) for z in logits.flatten().tolist()]
    t = gt.flatten().tolist()
    return 1 - (2 * sum(a * b for a, b in zip(p, t, strict=True)) + 1) / (sum(p) + sum(t) + 1)


def slow_min(logits: Tensor, gt: Tensor, iou: Tensor) -> float:
    total = 0.0
    for z, t, predicted in zip(logits, gt, iou, strict=True):
        losses = [20 * slow_focal(mask, t) + slow_dice(mask, t) for mask in z]
        squares = 0.0
        for mask, guess in zip(z, predicted.tolist(), strict=True):
            inside, wanted = mask > 0, t > 0.5
            true = int((inside & wanted).sum()) / max(int((inside | wanted).sum()), 1)
            squares += (guess - true) ** 2
        total += min(losses) + squares / len(z)
    return total / len(logits)


def test_values_are_those_of_loops() -> None:
    logits, gt, iou = batch()
    assert focal_loss(logits[0, 0], gt[0]).item() == pytest.approx(slow_focal(logits[0, 0], gt[0]))
    assert dice_loss(logits[0, 0], gt[0]).item() == pytest.approx(slow_dice(logits[0, 0], gt[0]))
    each = focal_dice(logits, gt[:, None], reduction="none")
    assert each.shape == (3, 3)
    assert each[1, 2].item() == pytest.approx(20 * slow_focal(logits[1, 2], gt[1]) + slow_dice(logits[1, 2], gt[1]))
    assert min_over_masks(logits, gt, iou).item() == pytest.approx(slow_min(logits, gt, iou))


def test_focal_is_torchvisions_and_cross_entropy_in_its_limit() -> None:
    logits, gt, _ = batch()
    target = gt[:, None].expand_as(logits)
    torch.testing.assert_close(sigmoid_focal(logits, target), sigmoid_focal_loss(logits, target))
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    torch.testing.assert_close(sigmoid_focal(logits, target, alpha=-1, gamma=0), plain)


def test_gradients() -> None:
    logits, gt, iou = batch(2, 3, 3, seed=1)
    logits.requires_grad_()
    iou.requires_grad_()
    assert torch.autograd.gradcheck(lambda z, i: min_over_masks(z, gt, i), (logits, iou))


def test_only_the_best_mask_learns_and_every_iou_does() -> None:
    logits, gt, iou = batch()
    logits.requires_grad_()
    iou.requires_grad_()
    min_over_masks(logits, gt, iou).backward()
    best = focal_dice(logits, gt[:, None], reduction="none").argmin(dim=1)
    learns = logits.grad.abs().amax(dim=(2, 3)) > 0  # type: ignore[union-attr]
    assert learns.tolist() == torch.nn.functional.one_hot(best, 3).bool().tolist()
    assert (iou.grad != 0).all()


def test_the_predicted_iou_does_not_choose() -> None:
    logits, gt, iou = batch()
    one, other = best_mask_losses(logits, gt, iou), best_mask_losses(logits, gt, 1 - iou)
    assert torch.equal(one.focal, other.focal)
    assert torch.equal(one.dice, other.dice)


def test_one_mask_has_no_choice() -> None:
    logits, gt, iou = batch(m=1)
    expected = focal_dice(logits, gt[:, None]) + ((iou - true_iou(logits, gt[:, None])) ** 2).mean()
    torch.testing.assert_close(min_over_masks(logits, gt, iou), expected)


@pytest.mark.parametrize("filled", [0.0, 1.0])
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_extremes_are_finite(filled: float, scale: float) -> None:
    logits = torch.full((2, 3, 4, 4), scale, requires_grad=True)
    gt = torch.full((2, 4, 4), filled)
    loss = min_over_masks(logits, gt, torch.zeros(2, 3))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()  # type: ignore[arg-type]


def test_an_empty_mask() -> None:
    gt = torch.zeros(1, 4, 4)
    assert true_iou(torch.full((1, 4, 4), -1.0), gt).tolist() == [0.0]
    good, bad = dice_loss(torch.full((1, 4, 4), -20.0), gt), dice_loss(torch.full((1, 4, 4), 20.0), gt)
    assert good.item() == pytest.approx(0, abs=1e-5)
    assert bad.item() > 0.9


def test_half_precision_is_widened() -> None:
    logits, gt, iou = batch()
    exact = min_over_masks(logits.bfloat16().double(), gt, iou.bfloat16().double())
    assert min_over_masks(logits.bfloat16(), gt, iou.bfloat16()).item() == pytest.approx(exact.item(), rel=1e-5)


def test_shapes_are_checked() -> None:
    logits, gt, iou = batch()
    with pytest.raises(InputError, match="logits \\(B, M, H, W\\)"):
        min_over_masks(logits, gt[:, :-1], iou)


def test_points_are_taken_where_the_mask_is_uncertain() -> None:
    x = torch.linspace(-1, 1, 33)
    logits = (x * 8).expand(1, 1, 33, 33)  # uncertain in the middle column
    g = torch.Generator().manual_seed(0)
    # Not at the border, where the zeros beyond it count.
    candidates, fresh = 0.05 + 0.9 * torch.rand(1, 300, 2, generator=g), torch.rand(1, 25, 2, generator=g)
    chosen = uncertain_points(logits, candidates, fresh, 100)
    assert torch.equal(chosen[:, 75:], fresh)
    assert (chosen[0, :75, 0] - 0.5).abs().max() < (candidates[0, :, 0] - 0.5).abs().sort().values[80]


def test_a_loss_on_points_of_pixel_centres_is_the_loss_on_pixels() -> None:
    logits, gt, _ = batch(2, 1, 4)
    h, w = gt.shape[1:]
    rows, columns = torch.arange(h, dtype=torch.float64), torch.arange(w, dtype=torch.float64)
    y, x = torch.meshgrid((rows + 0.5) / h, (columns + 0.5) / w, indexing="ij")
    points = torch.stack([x, y], dim=-1).reshape(1, -1, 2).expand(2, -1, -1)
    torch.testing.assert_close(sample_at(logits, points), logits.flatten(1))
    found = point_losses(logits, gt[:, None], points)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], gt)
    torch.testing.assert_close(found.cross_entropy, plain)
    torch.testing.assert_close(found.dice, dice_loss(logits[:, 0], gt).mean())
