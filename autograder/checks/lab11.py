"""Hidden checks of lab 11 (SAM), one property each. Inputs are drawn anew for every student and hand-in."""

from typing import Any

import torch
from torch import Tensor

from autograder.compare import Script, Step, difference, run_here
from autograder.rubric import Draw, worth
from autograder.student import Student
from autograder.wire import Scattered
from sslcourse.segment.losses import focal_dice, true_iou
from sslcourse.segment.mask_decoder import TwoWayBlock

# ------------------------------------------------------------------------------------------ fourier_point_embed

HUGE = (1 << 20, 1 << 20)  # pixels; half a pixel is nothing here


def pixels(draw: Draw, n: int, height: int, width: int) -> Tensor:
    """(n, 2) float x y."""
    return torch.stack([draw.integers(0, width, n), draw.integers(0, height, n)], dim=1).float()


@worth(4, "fourier_point_embed", "sines, then cosines, of the place in a large square")
def test_fourier_values(student: Student, draw: Draw) -> None:
    student.same(pixels(draw, 6, *HUGE), HUGE, draw.normal(2, 5))


@worth(2, "fourier_point_embed", "a pixel's place is its centre")
def test_fourier_centre(student: Student, draw: Draw) -> None:
    student.same(pixels(draw, 5, 8, 8), (8, 8), draw.normal(2, 4))


@worth(2, "fourier_point_embed", "images that are not square: x belongs to the width")
def test_fourier_not_square(student: Student, draw: Draw) -> None:
    student.same(pixels(draw, 6, 1 << 19, 1 << 20), (1 << 19, 1 << 20), draw.normal(2, 4))
    student.same(pixels(draw, 6, 1 << 20, 1 << 18), (1 << 20, 1 << 18), draw.normal(2, 3))


@worth(1, "fourier_point_embed", "any shape in front, one point, float64, the gradient; inputs stay as they are")
def test_fourier_edges(student: Student, draw: Draw) -> None:
    student.same(pixels(draw, 6, *HUGE).view(2, 3, 2), HUGE, draw.normal(2, 4))
    student.same(pixels(draw, 1, *HUGE)[0], HUGE, draw.normal(2, 1))
    student.same(Scattered(pixels(draw, 4, *HUGE).double()), HUGE, draw.normal(2, 3, dtype=torch.float64))
    student.same(pixels(draw, 3, *HUGE).requires_grad_(), HUGE, draw.normal(2, 3), grad=True)
    student.pure(draw.uniform(3, 2, high=9.0), (9, 9), draw.normal(2, 3))


# -------------------------------------------------------------------------------------------------- TwoWayBlock

DIM, HEADS, HIDDEN = 8, 2, 12


def weights(draw: Draw) -> dict[str, Tensor]:
    """Weights of a block, by the library's names."""
    shapes = {name: tuple(p.shape) for name, p in TwoWayBlock(DIM, HEADS, HIDDEN, first=False).state_dict().items()}
    return {name: draw.normal(*shape) * 0.6 + name.endswith("norm.weight") for name, shape in shapes.items()}


def meeting(draw: Draw, n: int, places: float = 1.0, images: int | None = None) -> tuple[Tensor, ...]:
    """Tokens, image and the places of both."""
    sizes = ((n, 3, DIM), (images or n, 6, DIM), (n, 3, DIM), (1, 6, DIM))
    tokens, image, token_pe, image_pe = (draw.normal(*size) for size in sizes)
    return tokens, image, places * token_pe, places * image_pe


def same_block(student: Student, draw: Draw, first: bool, *, only_tokens: bool = False, **how: Any) -> None:
    """The student's block does what the library's does; or only its tokens are compared."""
    script = Script((DIM, HEADS, HIDDEN, first), weights(draw), (Step(args=meeting(draw, **how)),))
    if not only_tokens:
        student.same(script)
        return
    got, want = student(script)[0], run_here(student.reference, (script,), {}, False).value[0]
    if not isinstance(got, tuple | list) or len(got) != 2:
        student.wrong("forward returns the pair (tokens, image).")
    if sentence := difference(got[0], want[0], "as tokens it returned"):
        student.wrong(sentence)


@worth(4, "TwoWayBlock", "a later block without places: the order of the tokens' steps, residuals and norms")
def test_block_steps(student: Student, draw: Draw) -> None:
    same_block(student, draw, False, only_tokens=True, n=2, places=0.0)


@worth(3, "TwoWayBlock", "places are added to queries and keys of the tokens' steps, not to values")
def test_block_places(student: Student, draw: Draw) -> None:
    same_block(student, draw, False, only_tokens=True, n=2)


@worth(2, "TwoWayBlock", "the first block: its self-attention replaces the tokens")
def test_block_first(student: Student, draw: Draw) -> None:
    same_block(student, draw, True, only_tokens=True, n=2)


@worth(2, "TwoWayBlock", "the image looks at the new tokens")
def test_block_image(student: Student, draw: Draw) -> None:
    same_block(student, draw, False, n=2, places=0.0)
    same_block(student, draw, False, n=1)


@worth(2, "TwoWayBlock", "one image for several prompts, and the gradient of every weight")
def test_block_gradient(student: Student, draw: Draw) -> None:
    same_block(student, draw, False, n=3, images=1, places=0.0)
    steps = [Step(args=meeting(draw, 2, places=0.0), grad=True)]
    student.same_object(DIM, HEADS, HIDDEN, False, load=weights(draw), steps=steps)


# --------------------------------------------------------------------------------------------------- focal_dice


def targets(draw: Draw, *shape: int) -> Tensor:
    """0 or 1, both in every mask."""
    gt = (draw.uniform(*shape) < 0.4).float()
    gt[..., 0, 0], gt[..., -1, -1] = 1, 0
    return gt


@worth(3, "focal_dice", "the loss of each mask")
def test_focal_dice_values(student: Student, draw: Draw) -> None:
    student.same(draw.normal(4, 5, 5) * 2, targets(draw, 4, 5, 5), reduction="none")


@worth(2, "focal_dice", "without a word about it, the mean over all masks")
def test_focal_dice_mean(student: Student, draw: Draw) -> None:
    logits, gt = draw.normal(2, 3, 5, 4), targets(draw, 2, 3, 5, 4)
    each, mean = student(logits, gt, reduction="none"), student(logits, gt)
    if not isinstance(mean, Tensor) or mean.shape != ():
        student.wrong("without reduction='none' return one number, the mean over all masks.")
    if not isinstance(each, Tensor) or not torch.allclose(each.mean(), mean, atol=1e-4):
        student.wrong("without reduction='none' it is not the mean of what it gives with it.")


@worth(2, "focal_dice", "masks do not mix, and one target serves several masks")
def test_focal_dice_masks(student: Student, draw: Draw) -> None:
    logits, gt = draw.normal(3, 2, 4, 6), targets(draw, 3, 1, 4, 6)
    together = student(logits, gt, reduction="none")
    alone = student(logits[1:2, 1:2], gt[1:2], reduction="none")
    if not isinstance(together, Tensor) or together.shape != (3, 2):
        student.wrong("reduction='none' gives the loss of each mask, in the shape in front of (H, W).")
    if not isinstance(alone, Tensor) or not torch.allclose(together[1, 1], alone.reshape(-1)[0], atol=1e-4):
        student.wrong("the loss of a mask changes when other masks are beside it: sum over its own pixels only.")


@worth(2, "focal_dice", "the gradient")
def test_focal_dice_gradient(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 4, 4).requires_grad_(), targets(draw, 2, 4, 4), grad=True)


@worth(1, "focal_dice", "large logits: right and finite; empty and full targets, float64; inputs stay as they are")
def test_focal_dice_edges(student: Student, draw: Draw) -> None:
    for gt in (targets(draw, 2, 3, 5), torch.zeros(2, 3, 5), torch.ones(2, 3, 5)):
        found = student.outcome((draw.normal(2, 3, 5) * 1e4).requires_grad_(), gt, grad=True)
        if not all(isinstance(x, Tensor) and bool(x.isfinite().all()) for x in (found.value, *(found.grads or [None]))):
            student.wrong("logits of 1e4, or a target without ones or zeros, give inf or NaN in value or gradient.")
    student.same(draw.normal(2, 3, 5) * 30, targets(draw, 2, 3, 5), reduction="none")  # where log(p + small) is cut
    double = student(Scattered(draw.normal(2, 3, 5, dtype=torch.float64)), targets(draw, 2, 3, 5).double())
    if not isinstance(double, Tensor) or double.dtype != torch.float64:
        student.wrong("float64 goes in, and something else comes out.")
    student.pure(draw.normal(2, 3, 4), targets(draw, 2, 3, 4))


# ----------------------------------------------------------------------------------------------- min_over_masks


def told(logits: Tensor, gt: Tensor) -> Tensor:
    """(B, M) the true IoU: with these the regression costs nothing."""
    return true_iou(logits, gt[:, None])


def prompts(draw: Draw, b: int, m: int, h: int = 4, w: int = 5) -> tuple[Tensor, Tensor]:
    """Logits (b, m, h, w) and targets (b, h, w)."""
    return draw.normal(b, m, h, w) * 2, targets(draw, b, h, w)


@worth(3, "min_over_masks", "the loss of the best mask")
def test_min_values(student: Student, draw: Draw) -> None:
    for b, m in ((1, 4), (5, 3)):
        logits, gt = prompts(draw, b, m)
        student.same(logits, gt, told(logits, gt))


@worth(2, "min_over_masks", "the mean over prompts, each for itself")
def test_min_prompts(student: Student, draw: Draw) -> None:
    logits, gt = prompts(draw, 5, 1)
    student.same(logits, gt, told(logits, gt))


@worth(2, "min_over_masks", "the squared error of the predicted IoU, the mean over all masks")
def test_min_regression(student: Student, draw: Draw) -> None:
    logits, gt = prompts(draw, 3, 1)
    student.same(logits.repeat(1, 3, 1, 1), gt, draw.uniform(3, 3))
    student.same(logits, gt, draw.uniform(3, 1))


@worth(1, "min_over_masks", "the predicted IoU has no say in which mask is the best")
def test_min_choice(student: Student, draw: Draw) -> None:
    logits, gt = prompts(draw, 4, 3)
    worst = focal_dice(logits, gt[:, None].expand_as(logits), reduction="none").argmax(dim=1, keepdim=True)
    student.same(logits, gt, torch.zeros(4, 3).scatter(1, worst, 1.0))


@worth(2, "min_over_masks", "the gradient: the best mask learns, the others do not")
def test_min_gradient(student: Student, draw: Draw) -> None:
    logits, gt = prompts(draw, 3, 3)
    student.same(logits.requires_grad_(), gt, draw.uniform(3, 3), grad=True)


def equal(draw: Draw, b: int, m: int) -> tuple[Tensor, Tensor]:
    """`prompts` whose m masks are equal, so that each of them is the best one."""
    logits, gt = prompts(draw, b, 1)
    return logits.repeat(1, m, 1, 1), gt


@worth(1, "min_over_masks", "the gradient: every predicted IoU learns")
def test_min_iou_gradient(student: Student, draw: Draw) -> None:
    student.same(*equal(draw, 3, 3), draw.uniform(3, 3).requires_grad_(), grad=True)


@worth(1, "min_over_masks", "mask and target empty, float64; inputs stay as they are")
def test_min_edges(student: Student, draw: Draw) -> None:
    logits, gt = equal(draw, 2, 2)
    student.same(-logits.abs() - 0.1, torch.zeros_like(gt), draw.uniform(2, 2))
    student.same(logits.double(), gt.double(), draw.uniform(2, 2).double())
    student.pure(logits, gt, draw.uniform(2, 2))


# ---------------------------------------------------------------------------------------------- stability_score


@worth(3, "stability_score", "the ratio of the two areas")
def test_stability_values(student: Student, draw: Draw) -> None:
    student.same(draw.normal(6, 7) * 2)
    student.same(draw.normal(5, 9) * 3 + 1)


@worth(1, "stability_score", "a score for each mask")
def test_stability_masks(student: Student, draw: Draw) -> None:
    student.same(draw.normal(3, 2, 6, 5) * 2)


@worth(2, "stability_score", "another threshold, another delta")
def test_stability_settings(student: Student, draw: Draw) -> None:
    student.same(draw.normal(9, 9) * 2, 0.7, 0.4)
    student.same(draw.normal(9, 9) * 2, delta=0.5)
    student.same(draw.normal(9, 9) * 2, threshold=-0.6)


@worth(1, "stability_score", "empty masks, full masks, one pixel, logits on the cut, 1e4; inputs stay as they are")
def test_stability_edges(student: Student, draw: Draw) -> None:
    student.same(torch.cat([draw.normal(1, 1) + 9, draw.normal(1, 4) - 9], dim=1))
    for logits in (draw.normal(4, 4) - 9, draw.normal(4, 4) + 9, draw.normal(4, 4) * 1e4):
        student.same(logits)
    student.same(draw.integers(-3, 4, 6, 6).float())
    student.pure(draw.normal(2, 4, 4))


# ---------------------------------------------------------------------------------------------- amg_postprocess

SIDE = torch.tensor([0.0, 0.0, 1000.0, 1000.0])
APART = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)) * 200 + 100  # corners that never touch


def apart(draw: Draw, k: int) -> Tensor:
    """(k, 4) boxes that do not overlap and lie far from every edge of `SIDE`."""
    corner = APART[draw.permutation(16)[:k]]
    return torch.cat([corner, corner + draw.integers(20, 120, k, 2)], dim=1)


def ranks(draw: Draw, k: int, low: float = 0.5) -> Tensor:
    """(k,) different predicted IoU above `low`."""
    return low + (1 + draw.permutation(k).float()) / (k + 1) * (1 - low)


@worth(3, "amg_postprocess", "masks of low predicted IoU or stability go; the others come best first")
def test_amg_good(student: Student, draw: Draw) -> None:
    student.same(apart(draw, 9), ranks(draw, 9), ranks(draw, 9), SIDE, SIDE, 0.72, 0.68, 0.7)
    student.same(apart(draw, 12), ranks(draw, 12), ranks(draw, 12), SIDE, SIDE, 0.6, 0.52, 0.7)


def crowd(draw: Draw, k: int, most: int = 40) -> Tensor:
    """(k, 4) boxes of sides up to 2 * most, in groups that overlap, in a place where no edge is near."""
    centre = APART[draw.permutation(16)[:3]][draw.integers(0, 3, k)] + 60
    centre = centre + draw.integers(-most // 3, most // 3 + 1, k, 2)
    half = draw.integers(most // 2, most, k, 2)
    return torch.cat([centre - half, centre + half], dim=1).float()


@worth(3, "amg_postprocess", "of boxes that overlap too much the one with the highest predicted IoU stays")
def test_amg_suppression(student: Student, draw: Draw) -> None:
    for overlap in (0.3137, 0.5171, 0.7093):
        student.same(crowd(draw, 14), ranks(draw, 14), torch.ones(14), SIDE, SIDE, 0.4, 0.9, overlap)
        student.same(crowd(draw, 14, most=4), ranks(draw, 14), torch.ones(14), SIDE, SIDE, 0.4, 0.9, overlap)


@worth(1, "amg_postprocess", "what was suppressed, or filtered, suppresses nothing")
def test_amg_chain(student: Student, draw: Draw) -> None:
    start, step = draw.integers(100, 300, 2).float(), torch.tensor([[12.0, 0.0]])
    corner = start + torch.arange(6.0)[:, None] * step
    boxes, iou = torch.cat([corner, corner + 40], dim=1), torch.linspace(0.9, 0.6, 6)
    order = draw.permutation(6)
    for stable in (1, 0):  # the second time the best mask is unstable
        stability = torch.tensor([float(stable), 1, 1, 1, 1, 1])
        student.same(boxes[order], iou[order], stability[order], SIDE, SIDE, 0.5, 0.9, 0.4)


def at_edges(draw: Draw, crop: Tensor) -> Tensor:
    """(10, 4) boxes in pixels of a crop: near and far from each of its sides, and in corners, in a random order."""
    width, height = (crop[2:] - crop[:2]).tolist()
    x, y = width / 2, height / 2
    near, far = [0, *draw.integers(2, 20, 3).tolist()], draw.integers(22, 60, 4).tolist()
    boxes = [[near[1], near[2], 90, 80], [width - 80, height - 90, width - near[3], height - near[2]]]
    for gap, (a, b) in zip((near, far), ((-8, 8), (-40, 30)), strict=True):
        boxes += [[gap[0], y + a, x - 30, y + b], [x + 30, y + a, width - gap[1], y + b]]
        boxes += [[x + a, gap[2], x + b, y - 50], [x + a, y + 50, x + b, height - gap[3]]]
    return torch.tensor(boxes)[draw.permutation(10)]


@worth(2, "amg_postprocess", "masks that the crop's edge cuts go, those at the image's edge stay")
def test_amg_edges(student: Student, draw: Draw) -> None:
    image = torch.tensor([0.0, 0.0, 1200.0, 900.0])
    for x, y in ((300, 200), (0, 200), (700, 500), (300, 0)):
        crop = torch.tensor([x, y, x + 500.0, y + 400.0])
        student.same(at_edges(draw, crop), ranks(draw, 10), torch.ones(10), crop, image, 0.4, 0.9, 0.9)


@worth(1, "amg_postprocess", "limits: IoU above, stability from, overlap above, 20 pixels are near")
def test_amg_limits(student: Student, draw: Draw) -> None:
    boxes = torch.tensor([[100.0, 100, 140, 140], [100, 100, 140, 120], [300, 300, 340, 340]])
    student.same(boxes, torch.tensor([0.75, 0.625, 0.5]), torch.tensor([0.5, 1.0, 1.0]), SIDE, SIDE, 0.5, 0.5, 0.5)
    crop = torch.tensor([200.0, 200.0, 600.0, 600.0])
    near = torch.tensor([[20.0, 50, 90, 90], [21, 150, 90, 190], [150, 150, 380, 250], [150, 270, 190, 379]])
    student.same(near, ranks(draw, 4), torch.ones(4), crop, SIDE, 0.1, 0.5, 0.9)
    image = torch.tensor([180.0, 179.0, 900.0, 900.0])
    student.same(near - 20, ranks(draw, 4), torch.ones(4), crop, image, 0.1, 0.5, 0.9)


@worth(2, "amg_postprocess", "one mask, none that stays, whole numbers as boxes; inputs stay as they are")
def test_amg_nothing(student: Student, draw: Draw) -> None:
    student.same(apart(draw, 1), ranks(draw, 1), torch.ones(1), SIDE, SIDE, 0.4, 0.9, 0.7)
    student.same(apart(draw, 3), ranks(draw, 3), torch.zeros(3), SIDE, SIDE, 0.4, 0.9, 0.7)
    whole = SIDE.long()
    student.same(apart(draw, 5).long(), ranks(draw, 5), torch.ones(5), whole, whole, 0.6, 0.9, 0.7)
    student.pure(crowd(draw, 6), ranks(draw, 6), torch.ones(6), SIDE, SIDE, 0.4, 0.9, 0.5)


# -------------------------------------------------------------------------------------------------- mask_to_rle


def masks(draw: Draw, h: int, w: int, first: bool, share: float = 0.4) -> Tensor:
    """(h, w) bool whose first pixel is `first`, with at least one pixel of each kind."""
    mask = draw.uniform(h, w) < share
    mask[0, 0], mask[-1, -1], mask[0, -1] = first, not first, first
    return mask


@worth(2, "mask_to_rle", "runs down the columns, of a mask that starts with a zero")
def test_rle_values(student: Student, draw: Draw) -> None:
    student.same(masks(draw, 5, 6, False))
    student.same(masks(draw, 7, 4, False, share=0.8))


@worth(3, "mask_to_rle", "zeros come first: masks whose first pixel is set")
def test_rle_starts_with_one(student: Student, draw: Draw) -> None:
    student.same(masks(draw, 4, 5, True))
    student.same(torch.cat([torch.ones(3, 2), torch.zeros(3, 3)], dim=1).bool())
    student.same(torch.ones(draw.integer(2, 9), draw.integer(2, 9), dtype=torch.bool))


@worth(1, "mask_to_rle", "an empty mask: the counts sum to H * W")
def test_rle_empty(student: Student, draw: Draw) -> None:
    student.same(torch.zeros(draw.integer(2, 9), draw.integer(2, 9), dtype=torch.bool))
    student.same(torch.zeros(1, 1, dtype=torch.bool))


@worth(1, "mask_to_rle", "one row, one column, memory with gaps; the input stays as it is")
def test_rle_edges(student: Student, draw: Draw) -> None:
    student.same(masks(draw, 1, 7, False))
    student.same(Scattered(masks(draw, 6, 1, False)))
    student.pure(masks(draw, 4, 3, False))


# --------------------------------------------------------------------------------------------------- prediction


@worth(5, "prediction", "complete, and possible")
def test_prediction(answer: object) -> None:
    assert isinstance(answer, dict), "write the prediction as a dict of plain values."
    becomes = ("whole", "part", "sub-part")
    assert answer.get("one mask becomes") in becomes, f"one mask becomes one of {becomes}."
    for arm in ("three, mean", "three, minimum", "three, relaxed"):
        count = answer.get(arm)
        possible = isinstance(count, int | float) and not isinstance(count, bool) and 0 <= count <= 3
        assert possible, f"'{arm}': a number of answers, from 0 to 3."
    assert len(str(answer.get("why") or "").split()) >= 5, "why: say it in a sentence."
