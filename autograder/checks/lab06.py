"""Hidden checks of lab 6 (ViT and DINO), one property each. Inputs are drawn anew for every student and hand-in."""

import torch
from torch import Tensor, nn

from autograder.compare import Fresh
from autograder.rubric import Draw, worth
from autograder.student import Student
from autograder.wire import Scattered

# ----------------------------------------------------------------------------------------------------- patchify


@worth(2, "patchify", "patches in reading order, pixels of a patch row by row")
def test_patchify_order(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 1, 4, 4), 2)
    student.same(draw.normal(1, 1, 6, 6), 3)


@worth(2, "patchify", "the channels of a pixel stand together")
def test_patchify_channels(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 3, 4, 4), 2)


@worth(1, "patchify", "images that are not square")
def test_patchify_not_square(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 1, 4, 10), 2)
    student.same(draw.normal(1, 1, 9, 3), 3)


@worth(1, "patchify", "one patch, one pixel a patch, memory with gaps, float64, the gradient; inputs stay as they are")
def test_patchify_edges(student: Student, draw: Draw) -> None:
    student.same(draw.normal(1, 2, 4, 4), 4)
    student.same(draw.normal(1, 2, 2, 3), 1)
    student.same(Scattered(draw.normal(2, 3, 4, 6, dtype=torch.float64)), 2)
    student.same(draw.normal(1, 3, 4, 2).requires_grad_(), 2, grad=True)
    student.pure(draw.normal(1, 3, 4, 4), 2)


# --------------------------------------------------------------------------------------------------- unpatchify


@worth(2, "unpatchify", "every number back in its place")
def test_unpatchify_values(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 4, 12), 2, 2, 2)
    student.same(draw.normal(1, 9, 9), 3, 3, 3)


@worth(1, "unpatchify", "grids that are not square")
def test_unpatchify_not_square(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 6, 12), 2, 2, 3)
    student.same(draw.normal(2, 8, 8), 2, 4, 2)


@worth(1, "unpatchify", "one patch, one pixel a patch, memory with gaps, float64; inputs stay as they are")
def test_unpatchify_edges(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 1, 16), 4, 1, 1)
    student.same(draw.normal(1, 6, 3), 1, 2, 3)
    student.same(Scattered(draw.normal(2, 6, 12, dtype=torch.float64)), 2, 3, 2)
    student.pure(draw.normal(1, 4, 12), 2, 2, 2)


# ---------------------------------------------------------------------------------------------- interpolate_pos


def smooth(draw: Draw, n: int, d: int) -> Tensor:
    """(1, 1 + n * n, d): random positions, the class token's far from the others."""
    return torch.cat([draw.normal(1, 1, d) + 3, draw.normal(1, n * n, d)], dim=1)


@worth(3, "interpolate_pos", "a larger and a smaller square grid, bicubic")
def test_pos_values(student: Student, draw: Draw) -> None:
    student.same(smooth(draw, 3, 4), 5, 5)
    student.same(smooth(draw, 4, 3), 2, 2)


@worth(3, "interpolate_pos", "grids that are not square: rows are rows")
def test_pos_not_square(student: Student, draw: Draw) -> None:
    student.same(smooth(draw, 3, 4), 2, 5)
    student.same(smooth(draw, 3, 4), 6, 3)


@worth(2, "interpolate_pos", "the class token's embedding stays as it is")
def test_pos_class_token(student: Student, draw: Draw) -> None:
    pos = smooth(draw, 3, 5)
    got = student(pos, 4, 4)
    if not isinstance(got, Tensor) or got.ndim != 3 or got.shape[1] < 1 or not torch.equal(got[:, :1], pos[:, :1]):
        student.wrong("the first embedding belongs to CLS, which has no place: it comes out as it went in.")


@worth(1, "interpolate_pos", "the type of pos: bfloat16, float64")
def test_pos_dtype(student: Student, draw: Draw) -> None:
    for dtype in (torch.bfloat16, torch.float64):
        pos = smooth(draw, 2, 3).to(dtype)
        got = student(pos, 3, 3)
        if not isinstance(got, Tensor) or got.dtype != dtype:
            student.wrong(f"pos is {dtype}, and what comes back is not.".replace("torch.", ""))


@worth(1, "interpolate_pos", "the same grid, the gradient; inputs stay as they are")
def test_pos_edges(student: Student, draw: Draw) -> None:
    student.same(smooth(draw, 3, 2), 3, 3)
    student.same(smooth(draw, 2, 3).requires_grad_(), 3, 2, grad=True)
    student.pure(smooth(draw, 2, 3), 3, 2)


# ---------------------------------------------------------------------------------------------------- attention


@worth(3, "attention", "the output with one head")
def test_attention_one_head(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 5, 4), draw.normal(12, 4) * 0.7, 1)


@worth(3, "attention", "the output with several heads, each on its own part")
def test_attention_heads(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 5, 6), draw.normal(18, 6) * 0.7, 3)
    student.same(draw.normal(1, 3, 8), draw.normal(24, 8) * 0.7, 2)


@worth(2, "attention", "the map of every head, rows that sum to 1")
def test_attention_map(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 4, 3), draw.normal(9, 3) * 0.7, 1, return_map=True)
    got = student(draw.normal(2, 4, 6), draw.normal(18, 6) * 0.7, 3, True)
    if not isinstance(got, tuple | list) or len(got) != 2 or not isinstance(got[1], Tensor):
        student.wrong("with return_map=True return two tensors: the output and the map.")
    if got[1].shape != (2, 3, 4, 4):
        student.wrong("the map has the shape (B, n_heads, N, N): one for each head.")
    if not torch.allclose(got[1].sum(dim=-1), torch.ones(2, 3, 4), atol=1e-4):
        student.wrong("a row of the map, one a query, sums to 1.")


@worth(1, "attention", "the order of the tokens does not matter: permuted in, permuted out")
def test_attention_permutation(student: Student, draw: Draw) -> None:
    x, wqkv, order = draw.normal(2, 6, 4), draw.normal(12, 4), draw.permutation(6)
    first, second = student(x, wqkv, 2), student(x[:, order], wqkv, 2)
    if (
        not isinstance(first, Tensor)
        or first.shape != x.shape
        or not torch.allclose(first[:, order], second, atol=1e-5)
    ):
        student.wrong("permuting the tokens should permute the output, and change nothing else.")


@worth(2, "attention", "the gradient of the tokens and of the weight")
def test_attention_gradient(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 4, 4).requires_grad_(), draw.normal(12, 4).requires_grad_(), 1, grad=True)


@worth(1, "attention", "one token, huge logits, float64, memory with gaps; inputs stay as they are")
def test_attention_edges(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 1, 4), draw.normal(12, 4), 2)
    student.same(draw.normal(1, 4, 4) * 100, draw.normal(12, 4), 1, True)
    student.same(Scattered(draw.normal(2, 3, 4, dtype=torch.float64)), draw.normal(12, 4, dtype=torch.float64), 1)
    student.pure(draw.normal(1, 3, 4), draw.normal(12, 4), 2, True)


# ---------------------------------------------------------------------------------------------------- dino_loss


def crops(draw: Draw, count: int, b: int, k: int, scale: float = 0.1) -> list[Tensor]:
    """`count` tensors (b, k) of logits, small enough that a wrong temperature does not hide everything else."""
    return [draw.normal(b, k) * scale for _ in range(count)]


@worth(4, "dino_loss", "two crops: each student answers the other crop's teacher")
def test_dino_values(student: Student, draw: Draw) -> None:
    student.same(crops(draw, 2, 3, 5), crops(draw, 2, 3, 5), torch.zeros(5), 0.1, 0.1)
    student.same(crops(draw, 2, 1, 4, 1.0), crops(draw, 2, 1, 4, 1.0), torch.zeros(4), 1.0, 1.0)


@worth(3, "dino_loss", "small crops: the student sees more crops than the teacher, equal pairs are not counted")
def test_dino_small_crops(student: Student, draw: Draw) -> None:
    student.same(crops(draw, 5, 2, 6), crops(draw, 2, 2, 6), torch.zeros(6), 0.1, 0.1)
    student.same(crops(draw, 3, 2, 6), crops(draw, 1, 2, 6), torch.zeros(6), 0.1, 0.1)


@worth(2, "dino_loss", "the centre is subtracted, from the teacher only")
def test_dino_center(student: Student, draw: Draw) -> None:
    student.same(crops(draw, 3, 4, 5), crops(draw, 2, 4, 5), draw.normal(5) * 0.1, 0.1, 0.1)


@worth(2, "dino_loss", "two temperatures, 0.1 and 0.04 when none is given")
def test_dino_temperatures(student: Student, draw: Draw) -> None:
    s, t = crops(draw, 2, 3, 5), crops(draw, 2, 3, 5)
    student.same(s, t, torch.zeros(5))
    student.same(s, t, torch.zeros(5), ts=0.3, tt=0.06)


@worth(2, "dino_loss", "the gradient of the student")
def test_dino_gradient(student: Student, draw: Draw) -> None:
    s = [x.requires_grad_() for x in crops(draw, 3, 2, 4)]
    student.same(s, crops(draw, 2, 2, 4), draw.normal(4) * 0.1, 0.1, 0.05, grad=True)


@worth(2, "dino_loss", "no gradient for the teacher and for the centre")
def test_dino_teacher_is_fixed(student: Student, draw: Draw) -> None:
    s, t = ([x.requires_grad_() for x in crops(draw, 2, 2, 4)] for _ in range(2))
    found = student.outcome(s, t, (draw.normal(4) * 0.1).requires_grad_(), 0.1, 0.05, grad=True).grads or []
    if len(found) != 5 or found[0] is None or found[1] is None:
        student.wrong("no gradient reaches the student.")
    if any(g is not None and bool(g.abs().max() > 0) for g in found[2:]):
        student.wrong("a gradient reaches the teacher or the centre: detach the teacher's answers.")


@worth(1, "dino_loss", "logits of 1e4: value and gradient stay finite; float64; inputs stay as they are")
def test_dino_extremes(student: Student, draw: Draw) -> None:
    student.same(
        [(x * 1e4).requires_grad_() for x in crops(draw, 2, 2, 4)], crops(draw, 2, 2, 4, 1e3), torch.zeros(4), grad=True
    )
    doubles = [[draw.normal(2, 3, dtype=torch.float64) for _ in range(2)] for _ in range(2)]
    student.same(*doubles, torch.zeros(3, dtype=torch.float64), 1.0, 1.0)
    student.pure(crops(draw, 3, 2, 4), crops(draw, 2, 2, 4), draw.normal(4))


# ------------------------------------------------------------------------------------------------ update_center


@worth(3, "update_center", "m times the old centre, 1 - m times the mean of the logits")
def test_center_values(student: Student, draw: Draw) -> None:
    student.same(draw.normal(5), draw.normal(7, 5), 0.9)
    student.same(draw.normal(4), draw.normal(4, 4) * 3, 0.6)


@worth(1, "update_center", "m is 0.9 when it is not given; 0 and 1 are allowed")
def test_center_momentum(student: Student, draw: Draw) -> None:
    center, t = draw.normal(5), draw.normal(6, 5)
    student.same(center, t)
    for m in (0.0, 1.0):
        student.same(center, t, m=m)


@worth(1, "update_center", "several crops at once: (G, B, K)")
def test_center_crops(student: Student, draw: Draw) -> None:
    student.same(draw.normal(4), draw.normal(2, 3, 4), 0.8)


@worth(1, "update_center", "no gradient, one row, float64; inputs stay as they are")
def test_center_edges(student: Student, draw: Draw) -> None:
    found = student.outcome(draw.normal(3), draw.normal(4, 3).requires_grad_(), grad=True).grads or []
    if any(g is not None for g in found):
        student.wrong("the centre carries a gradient: every step's graph would be kept.")
    student.same(draw.normal(3, dtype=torch.float64), draw.normal(1, 3, dtype=torch.float64))
    student.pure(draw.normal(3), draw.normal(4, 3))


# -------------------------------------------------------------------------------------------- multicrop_forward


class Net:
    """A backbone, or a head, made of a linear map of what it is given; it notes the sizes of its batches.

    Args:
        weight: (in, out), of the mean over pixels for images.
        batch: also depend on the mean over the batch, as batch norm does.
    """

    def __init__(self, weight: Tensor, seen: list[tuple[int, ...]], batch: bool = False) -> None:
        self.weight, self.seen, self.batch = weight, seen, batch

    def __call__(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape))
        z = (x.mean(dim=(2, 3)) if x.ndim == 4 else x) @ self.weight
        return z - z.mean(dim=0).square() if self.batch else z


def networks(draw: Draw, batch: bool = False) -> tuple[Fresh, Fresh, list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Backbone 3 -> 4 and head 4 -> 5 with lists of what they saw."""
    first, second = draw.normal(3, 4), draw.normal(4, 5)
    images: list[tuple[int, ...]] = []
    rows: list[tuple[int, ...]] = []
    return Fresh(lambda: Net(first, images, batch)), Fresh(lambda: Net(second, rows, batch)), images, rows


def of_sides(draw: Draw, b: int, *sides: int) -> list[Tensor]:
    """One crop (b, 3, side, side) for each side."""
    return [draw.normal(b, 3, side, side) for side in sides]


@worth(3, "multicrop_forward", "the right rows in the order of the crops")
def test_multicrop_values(student: Student, draw: Draw) -> None:
    student.same(*networks(draw)[:2], of_sides(draw, 2, 6, 6, 4, 4, 4))
    student.same(*networks(draw)[:2], of_sides(draw, 3, 4, 6, 6))


@worth(2, "multicrop_forward", "one pass of the backbone for each size")
def test_multicrop_passes(student: Student, draw: Draw) -> None:
    backbone, head, images, _ = networks(draw)
    student(backbone, head, of_sides(draw, 2, 6, 6, 4, 4, 4))
    if images != [(4, 3, 6, 6), (6, 3, 4, 4)]:
        student.wrong("the backbone is called once a size, with all crops of that size in their order.")


@worth(2, "multicrop_forward", "batch statistics: one size at a time in the backbone, all crops together in the head")
def test_multicrop_statistics(student: Student, draw: Draw) -> None:
    student.same(*networks(draw, batch=True)[:2], of_sides(draw, 2, 6, 6, 4, 4))
    backbone, head, _, rows = networks(draw)
    student(backbone, head, of_sides(draw, 2, 6, 6, 4))
    if rows != [(6, 4)]:
        student.wrong("the head is called once, with the features of all crops.")


@worth(1, "multicrop_forward", "one crop, one size, three sizes, a batch of 1, crops that are not square")
def test_multicrop_edges(student: Student, draw: Draw) -> None:
    student.same(*networks(draw)[:2], of_sides(draw, 2, 5))
    student.same(*networks(draw)[:2], of_sides(draw, 1, 5, 5, 5))
    student.same(*networks(draw)[:2], of_sides(draw, 1, 6, 5, 5, 4))
    for width in (4, 5):
        student.same(*networks(draw)[:2], [draw.normal(2, 3, 4, 6), draw.normal(2, 3, 4, width)])


# ------------------------------------------------------------------------------------------------- attn_to_mask


def look(draw: Draw, b: int, heads: int, tokens: int, peak: float = 1.0) -> Tensor:
    """(b, heads, tokens, tokens): an attention map whose rows sum to 1."""
    return nn.functional.softmax(draw.normal(b, heads, tokens, tokens) * peak, dim=-1)


@worth(4, "attn_to_mask", "the fewest patches that hold 60 % of a head's attention")
def test_mask_values(student: Student, draw: Draw) -> None:
    student.same(look(draw, 2, 3, 10), (3, 3))
    student.same(look(draw, 1, 2, 17, 2.0), (4, 4))


@worth(1, "attn_to_mask", "any other mass, also one that is reached exactly")
def test_mask_mass(student: Student, draw: Draw) -> None:
    attention = look(draw, 2, 2, 10)
    for mass in (0.05, 0.35, 0.9):
        student.same(attention, (3, 3), mass=mass)
    halves = torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625])[None, None, None].repeat(1, 1, 5, 1)
    student.same(halves[..., [0, *(1 + draw.permutation(4)).tolist()]], (2, 2), mass=0.5)


@worth(1, "attn_to_mask", "what CLS pays to itself does not count")
def test_mask_class_token(student: Student, draw: Draw) -> None:
    attention = look(draw, 2, 2, 10)
    attention[:, :, 0, 0] += 2.0
    attention[:, :, 1:, :] = attention[:, :, 1:, :].flip(-1)
    student.same(attention / attention.sum(dim=-1, keepdim=True), (3, 3))


@worth(1, "attn_to_mask", "each head on its own")
def test_mask_heads(student: Student, draw: Draw) -> None:
    attention, order = look(draw, 1, 3, 10, 2.0), torch.tensor([2, 0, 1])
    first, second = student.same(attention, (3, 3)), student(attention[:, order], (3, 3))
    if not torch.equal(first[:, order], second):
        student.wrong("another order of the heads should give the same masks in that order.")


@worth(1, "attn_to_mask", "grids that are not square, tokens between CLS and patches, float64; inputs stay as they are")
def test_mask_edges(student: Student, draw: Draw) -> None:
    student.same(look(draw, 1, 2, 7), (2, 3))
    student.same(look(draw, 1, 2, 11), (3, 2))
    student.same(look(draw, 1, 1, 5).double(), (4, 1))
    student.pure(look(draw, 1, 2, 7), (2, 3))


# --------------------------------------------------------------------------------------------------- prediction


@worth(5, "prediction", "complete, and possible")
def test_prediction(answer: object) -> None:
    assert isinstance(answer, dict), "write the prediction as a dict of plain values."
    arms = ("both", "sharpening only", "centering only", "neither")
    endings = ("one output", "uniform", "different answers")
    for arm in arms:
        assert answer.get(arm) in endings, f"'{arm}' ends in one of {endings}."
    assert answer.get("lowest_loss") in arms, f"lowest_loss is one of {arms}."
    assert len(str(answer.get("why") or "").split()) >= 5, "why: say it in a sentence."
