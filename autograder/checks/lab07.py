"""Hidden checks of lab 7 (BEiT and MAE), one property each. Inputs are drawn anew for every student and hand-in."""

import torch
from torch import Tensor

from autograder.checks.masking import (
    RATIO,
    backwards,
    columns,
    count,
    dvae_inputs,
    edges,
    elongated,
    equal,
    hidden,
    like_the_library,
    masks,
    network,
    orders,
    part,
    played,
    rows,
    visible,
    words,
)
from autograder.compare import Step, difference
from autograder.rubric import Draw, worth
from autograder.student import Student
from autograder.wire import Scattered
from sslcourse.losses.masked import mae_loss

# ----------------------------------------------------------------------------------------------- random_masking


@worth(3, "random_masking", "the tokens with the smallest noise stay, each image its own, in the order of their noise")
def test_masking_visible(student: Student, draw: Draw) -> None:
    x, noise = draw.normal(3, 8, 4), draw.uniform(3, 8)
    want = x.gather(1, noise.argsort(dim=1)[:, :2, None].expand(-1, -1, 4))
    got = part(student(x, 0.75, noise), 0)
    if got.shape != want.shape:
        student.wrong("x_vis has the shape (B, keep, D).")
    if not torch.equal(got, want):
        student.wrong("x_vis does not hold the tokens with the smallest noise, in that order.")


@worth(3, "random_masking", "the mask: True = hidden, in the order of x")
def test_masking_mask(student: Student, draw: Draw) -> None:
    noise = draw.uniform(3, 12)
    got = part(student(draw.normal(3, 12, 2), 0.75, noise), 1)
    if got.shape != noise.shape or got.dtype != torch.bool:
        student.wrong("the mask has the shape (B, N) and the type bool.")
    if not torch.equal(got, noise.argsort(dim=1).argsort(dim=1) >= 3):
        student.wrong("the mask does not say which tokens of x are hidden.")


@worth(3, "random_masking", "ids_restore: the place of every token in the list")
def test_masking_restore(student: Student, draw: Draw) -> None:
    noise = draw.uniform(2, 9)
    got = part(student(draw.normal(2, 9, 2), 0.6, noise), 2)
    if not torch.equal(got, noise.argsort(dim=1).argsort(dim=1)):
        student.wrong("ids_restore is not the place of every token in the list of `ids_shuffle`.")


@worth(1, "random_masking", "int(N * (1 - ratio)) stay, rounded down; nothing hidden for ratio 0")
def test_masking_counts(student: Student, draw: Draw) -> None:
    for n, ratio in ((9, 0.85), (7, 0.5), (10, 0.75), (5, 0.3), (6, 0.0)):
        x, noise = draw.normal(2, n, 3), draw.uniform(2, n)
        visible(student, student(x, ratio, noise), x, ratio, noise)


@worth(1, "random_masking", "the gradient reaches visible tokens only")
def test_masking_gradient(student: Student, draw: Draw) -> None:
    noise = draw.uniform(2, 6)
    (found,) = student.outcome(draw.normal(2, 6, 3).requires_grad_(), 0.5, noise, grad=True).grads or [None]
    seen = noise.argsort(dim=1).argsort(dim=1) < 3
    if found is None or not torch.equal(found.abs().amax(dim=2) > 0, seen):
        student.wrong("the gradient of x_vis reaches other tokens than the visible ones, or none.")


@worth(1, "random_masking", "one image, one number a token, memory with gaps, float64; inputs stay as they are")
def test_masking_edges(student: Student, draw: Draw) -> None:
    student.pure(draw.normal(2, 8, 3), 0.75, draw.uniform(2, 8))
    x, noise = draw.normal(1, 5, 1), draw.uniform(1, 5)
    visible(student, student(x, 0.4, noise), x, 0.4, noise)
    x, noise = draw.normal(2, 8, 3, dtype=torch.float64), draw.normal(2, 8)
    visible(student, student(Scattered(x), 0.75, noise), x, 0.75, noise)


# -------------------------------------------------------------------------------------------- decoder_unshuffle


@worth(4, "decoder_unshuffle", "every visible token in its place, mask tokens elsewhere")
def test_unshuffle_values(student: Student, draw: Draw) -> None:
    student.same(draw.normal(1, 4, 5), draw.normal(1, 1, 5), orders(draw, 1, 7))
    student.same(draw.normal(1, 3, 1), draw.normal(1, 1, 1), orders(draw, 1, 9))


@worth(2, "decoder_unshuffle", "each image has its own order")
def test_unshuffle_images(student: Student, draw: Draw) -> None:
    student.same(draw.normal(4, 4, 3), draw.normal(1, 1, 3), orders(draw, 4, 8))


@worth(1, "decoder_unshuffle", "CLS stays in front and takes no part")
def test_unshuffle_class_token(student: Student, draw: Draw) -> None:
    x = draw.normal(2, 3, 4)
    got = student(x, draw.normal(1, 1, 4), orders(draw, 2, 6))
    if not isinstance(got, Tensor) or got.shape != (2, 7, 4) or not torch.equal(got[:, 0], x[:, 0]):
        student.wrong("the first token is CLS: it comes out first, as it went in, and the result is (B, 1 + N, D).")


@worth(2, "decoder_unshuffle", "the gradient of the tokens and of the mask token")
def test_unshuffle_gradient(student: Student, draw: Draw) -> None:
    x, token = draw.normal(2, 3, 4).requires_grad_(), draw.normal(1, 1, 4).requires_grad_()
    student.same(x, token, backwards(2, 6), grad=True)


@worth(1, "decoder_unshuffle", "all visible, none visible, memory with gaps, float64; inputs stay as they are")
def test_unshuffle_edges(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 6, 3), draw.normal(1, 1, 3), backwards(2, 5))
    student.same(draw.normal(2, 1, 3), draw.normal(1, 1, 3), backwards(2, 4))
    student.same(Scattered(draw.normal(2, 4, 3).double()), draw.normal(1, 1, 3).double(), backwards(2, 6))
    student.pure(draw.normal(2, 3, 4), draw.normal(1, 1, 4), backwards(2, 6))


# ----------------------------------------------------------------------------------------------------- mae_loss


@worth(3, "mae_loss", "the mean over the hidden patches, nothing of the visible ones")
def test_mae_values(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 6, 5), draw.normal(2, 6, 5), equal(draw, 2, 6, 4))
    student.same(draw.normal(1, 4, 3), draw.normal(1, 4, 3), equal(draw, 1, 4, 3))


@worth(2, "mae_loss", "norm_pix: every patch by its own mean and standard deviation")
def test_mae_normalised(student: Student, draw: Draw) -> None:
    pred, patches = draw.normal(2, 5, 4), draw.normal(2, 5, 4) * 3 + draw.normal(2, 5, 1) * 5
    student.same(pred, patches, equal(draw, 2, 5, 5), True)
    student.same(pred, patches, equal(draw, 2, 5, 5), norm_pix=True)


@worth(1, "mae_loss", "norm_pix: a patch without contrast, or with little of it")
def test_mae_flat(student: Student, draw: Draw) -> None:
    contrast = torch.tensor([5e-4, 1e-3, 1e-2, 1.0])[:, None]
    flat = draw.integers(-3, 4, 2, 4, 1) / 4 + draw.normal(2, 4, 6) * contrast
    student.same(draw.normal(2, 4, 6), flat, equal(draw, 2, 4, 4), norm_pix=True)
    student.same(draw.normal(1, 2, 6), torch.full((1, 2, 6), 0.5), equal(draw, 1, 2, 2), norm_pix=True)


@worth(1, "mae_loss", "images that hide different numbers of patches: a mean over patches, not over images")
def test_mae_unequal(student: Student, draw: Draw) -> None:
    student.same(draw.normal(4, 6, 3), draw.normal(4, 6, 3), hidden(draw, 4, 6))


@worth(2, "mae_loss", "the gradient of the prediction, 0 where a patch was visible")
def test_mae_gradient(student: Student, draw: Draw) -> None:
    mask = equal(draw, 2, 5, 3)
    student.same(draw.normal(2, 5, 4).requires_grad_(), draw.normal(2, 5, 4), mask, grad=True)
    student.same(draw.normal(2, 5, 4).requires_grad_(), draw.normal(2, 5, 4), mask, True, grad=True)


@worth(1, "mae_loss", "all hidden, large numbers, float64, memory with gaps; inputs stay as they are")
def test_mae_edges(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 3, 4), draw.normal(2, 3, 4), equal(draw, 2, 3, 3))
    student.same(draw.normal(2, 3, 4) * 1e4, draw.normal(2, 3, 4), equal(draw, 2, 3, 3))
    doubles = (draw.normal(2, 3, 4, dtype=torch.float64) for _ in range(2))
    student.same(*map(Scattered, doubles), equal(draw, 2, 3, 3), True)
    student.pure(draw.normal(2, 3, 4), draw.normal(2, 3, 4), equal(draw, 2, 3, 3), True)


# ------------------------------------------------------------------------------------------------------ MiniMAE


@worth(3, "MiniMAE", "the encoder sees CLS and the visible patches, each with its own position")
def test_network_encoder(student: Student, draw: Draw) -> None:
    step = Step(args=(draw.normal(2, 8, 3), draw.uniform(2, 8)), watch=("encoder",))
    got, want = played(student, *network(draw, 8), step)
    if difference(got[1].get("encoder"), want[1]["encoder"]) is not None:
        student.wrong("the encoder does not see CLS and the visible patches, each with its own position.")


@worth(3, "MiniMAE", "the decoder sees all places, with mask tokens and positions")
def test_network_decoder(student: Student, draw: Draw) -> None:
    init, load = network(draw, 6)
    load["narrow.weight"].zero_()  # whatever the encoder has made of it
    got, want = played(student, init, load, Step(args=(draw.normal(3, 6, 3), draw.uniform(3, 6)), watch=("decoder",)))
    if difference(got[1].get("decoder"), want[1]["decoder"]) is not None:
        student.wrong("the decoder does not see CLS and all places: tokens, mask tokens, `decoder_pos`.")


@worth(1, "MiniMAE", "the prediction, and other ratios")
def test_network_prediction(student: Student, draw: Draw) -> None:
    for ratio in (RATIO, 0.25, 0.9):
        got, want = played(student, *network(draw, 10, ratio), Step(args=(draw.normal(2, 10, 3), draw.uniform(2, 10))))
        if wrong := difference(part(got, 1), want[1]):
            student.wrong(f"the prediction: {wrong}")


@worth(2, "MiniMAE", "the loss: of the raw, hidden patches")
def test_network_loss(student: Student, draw: Draw) -> None:
    patches = draw.normal(2, 8, 3) * 3
    got, want = played(student, *network(draw, 8), Step(args=(patches, draw.uniform(2, 8))))
    loss, pred = part(got, 0), part(got, 1)
    if pred.shape != patches.shape or loss.shape != () or not torch.allclose(loss, mae_loss(pred, patches, want[2])):
        student.wrong("the loss is not the squared error of your own prediction at the hidden patches.")


@worth(1, "MiniMAE", "the mask")
def test_network_mask(student: Student, draw: Draw) -> None:
    got, want = played(student, *network(draw, 8), Step(args=(draw.normal(1, 8, 3), draw.uniform(1, 8))))
    if difference(part(got, 2), want[2]) is not None:
        student.wrong("the third result is not the mask (B, N), True = hidden.")


@worth(2, "MiniMAE", "the gradient of every parameter")
def test_network_gradient(student: Student, draw: Draw) -> None:
    step = Step(args=(draw.normal(2, 8, 3), draw.uniform(2, 8)), grad=True)
    got, want = played(student, *network(draw, 8), step)
    if lost := [name for name, g in want[1].items() if difference(got[1].get(name), g) is not None]:
        student.wrong(f"a missing or wrong gradient: {', '.join(lost[:4])}{' and more' * (len(lost) > 4)}.")


# ----------------------------------------------------------------------------------------------- blockwise_mask


@worth(2, "blockwise_mask", "at most n_mask patches, and nearly that many")
def test_blocks_count(student: Student, draw: Draw) -> None:
    for settings in ((14, 14, 75, 16, None, 0.3), (10, 14, 60, 4, None, 0.5)):
        made = masks(student, draw, 60, *settings)
        if bool((count(made) > settings[2]).any()):
            student.wrong("more than n_mask patches are hidden.")
        if not like_the_library(made, count, settings):
            student.wrong("too few patches are hidden: count only what a block newly hides, and try ten times.")


@worth(2, "blockwise_mask", "sides: as often tall as wide, as elongated as aspect allows")
def test_blocks_aspect(student: Student, draw: Draw) -> None:
    settings = (20, 20, 24, 24, None, 0.3)
    made = masks(student, draw, 250, *settings)
    tall, wide = (float((a(made) > b(made)).sum()) for a, b in ((rows, columns), (columns, rows)))
    if tall > 1.8 * wide or wide > 1.8 * tall:
        student.wrong("tall and wide blocks are not equally frequent: the logarithm of height / width is uniform.")
    if not like_the_library(made, elongated, settings):
        student.wrong("the blocks are too long or too square: height / width is log-uniform from aspect to 1 / aspect.")


@worth(2, "blockwise_mask", "areas: uniform between min and what may still be hidden")
def test_blocks_area(student: Student, draw: Draw) -> None:
    for settings in ((24, 24, 120, 4, None, 0.5), (24, 24, 90, 30, None, 0.8)):
        if not like_the_library(masks(student, draw, 100, *settings), edges, settings):
            student.wrong("the blocks have other sizes: the area is uniform between min and the room that is left.")


@worth(2, "blockwise_mask", "places: every row and column that a block can start in, equally likely")
def test_blocks_places(student: Student, draw: Draw) -> None:
    for h, w in ((4, 7), (6, 3)):
        made = masks(student, draw, 120, h, w, 4, 4, None, 1.0)
        if bool((count(made) != 4).any() | (rows(made) != 2).any() | (columns(made) != 2).any()):
            student.wrong("with n_mask = min = 4 and aspect = 1 the mask is one square of 2 x 2.")
        if not bool(made.any(dim=0).all()):
            student.wrong("some patches, at the border, are never hidden: a block may start in row 0 to h - height.")
        if not 0.005 <= made[:, 0, 0].float().mean() <= 0.25:
            student.wrong("the places are not equally likely.")


@worth(1, "blockwise_mask", "max: no block is larger")
def test_blocks_largest(student: Student, draw: Draw) -> None:
    settings = (24, 24, 60, 2, 6, 0.5)
    made = masks(student, draw, 60, *settings)
    if not like_the_library(made, edges, settings) or bool((count(made) > 60).any()):
        student.wrong("blocks are larger or smaller than max allows.")


@worth(1, "blockwise_mask", "blocks that cannot fit: sides smaller than the grid's, an end after ten failures")
def test_blocks_end(student: Student, draw: Draw) -> None:
    for settings in ((4, 4, 16, 4, None, 0.3), (3, 9, 20, 8, None, 0.2), (2, 2, 4, 1, None, 1.0)):
        made = masks(student, draw, 60, *settings)
        if bool((count(made) > settings[2]).any()) or not like_the_library(made, count, settings):
            student.wrong("near the end too many or too few patches are hidden: ten failures in a row end the mask.")
    full = count(masks(student, draw, 60, 3, 3, 9, 1, 1, 1.0)) == 9  # 63 % of the library's
    if not 0.3 < full.float().mean() < 0.9:
        student.wrong("ten failures in a row end a mask, and a block that hides nothing new is one.")
    if bool(masks(student, draw, 8, 3, 3, 9, 9, None, 1.0).any(dim=(1, 2)).all()):
        student.wrong("a block as high or wide as the grid does not fit.")


@worth(1, "blockwise_mask", "n_mask = 0 hides nothing, n_mask = 1 one patch")
def test_blocks_few(student: Student, draw: Draw) -> None:
    if bool(masks(student, draw, 3, 5, 6, 0, 1, None, 0.3).any()):
        student.wrong("n_mask = 0 hides nothing.")
    if bool((count(masks(student, draw, 20, 5, 6, 1, 1, None, 1.0)) != 1).any()):
        student.wrong("n_mask = 1 hides one patch.")


@worth(1, "blockwise_mask", "all dice come from rng")
def test_blocks_random(student: Student, draw: Draw) -> None:
    settings, first, second = (12, 12, 50, 8, None, 0.3), draw.generator(), draw.generator()
    student.pure(*settings, first)
    made, again, other = (student(*settings, rng) for rng in (first, first, second))
    if not torch.equal(made, again):
        student.wrong("the same generator gave another mask: draw everything from rng.")
    if torch.equal(made, other):
        student.wrong("another generator gave the same mask: draw from rng.")


# ---------------------------------------------------------------------------------------------------- beit_loss


@worth(2, "beit_loss", "the cross-entropy of the hidden patches")
def test_beit_values(student: Student, draw: Draw) -> None:
    student.same(*words(draw, 2, 6, 5), equal(draw, 2, 6, 3))
    student.same(*words(draw, 1, 4, 7), equal(draw, 1, 4, 1))


@worth(1, "beit_loss", "masks and tokens as grids, in reading order")
def test_beit_grids(student: Student, draw: Draw) -> None:
    logits, tokens = words(draw, 2, 6, 5)
    mask = equal(draw, 2, 6, 2)
    student.same(logits, tokens, mask.view(2, 2, 3))
    student.same(logits, tokens.view(2, 2, 3), mask)
    student.same(logits, tokens.view(2, 3, 2), mask.view(2, 3, 2))


@worth(1, "beit_loss", "images that hide different numbers of patches: a mean over patches, not over images")
def test_beit_unequal(student: Student, draw: Draw) -> None:
    student.same(*words(draw, 3, 6, 4), hidden(draw, 3, 6))


@worth(1, "beit_loss", "the gradient, 0 where a patch was visible")
def test_beit_gradient(student: Student, draw: Draw) -> None:
    logits, tokens = words(draw, 2, 5, 4)
    student.same(logits.requires_grad_(), tokens, equal(draw, 2, 5, 2), grad=True)


@worth(1, "beit_loss", "logits of 1e4, all hidden, float64, memory with gaps; inputs stay as they are")
def test_beit_edges(student: Student, draw: Draw) -> None:
    logits, tokens = words(draw, 2, 4, 5)
    student.same((logits * 5e3).requires_grad_(), tokens, equal(draw, 2, 4, 4), grad=True)
    student.same(Scattered(logits.double()), tokens, torch.ones(2, 2, 2, dtype=torch.bool))
    student.pure(logits, tokens, equal(draw, 2, 4, 4))


# --------------------------------------------------------------------------------------------- gumbel_dvae_step


@worth(2, "gumbel_dvae_step", "the soft code: temperature, noise, axes")
def test_dvae_codes(student: Student, draw: Draw) -> None:
    for tau in (1.0, 0.4):
        logits, book, noise = dvae_inputs(draw, 2, 5, 3, 2, 4)
        codes = part(student(logits, book, tau, noise), 0, of=2)
        want = torch.einsum("bkhw,kd->bdhw", ((logits + noise) / tau).softmax(dim=1), book)
        if codes.shape != want.shape:
            student.wrong("codes have the shape (B, D, h, w).")
        if not torch.allclose(codes, want, atol=1e-4, rtol=1e-3):
            student.wrong("the codes are not softmax((logits + gumbel) / tau) of the codebook.")


@worth(2, "gumbel_dvae_step", "KL(q || uniform), without noise and temperature")
def test_dvae_kl(student: Student, draw: Draw) -> None:
    for k in (3, 6):
        logits, book, noise = dvae_inputs(draw, 2, k, 3, 2, 3, 2.0)
        kl, log_q = part(student(logits, book, 0.5, noise), 1, of=2), logits.log_softmax(dim=1)
        want = (log_q.exp() * log_q).sum(dim=1).mean() + torch.tensor(float(k)).log()
        if kl.shape != () or not torch.allclose(kl.float(), want, atol=1e-4, rtol=1e-3):
            student.wrong("the second result is not KL(softmax(logits) || uniform), the mean over places and images.")


@worth(2, "gumbel_dvae_step", "hard: one vector of the codebook forward, the soft gradient backward")
def test_dvae_hard(student: Student, draw: Draw) -> None:
    logits, book, noise = dvae_inputs(draw, 2, 4, 3, 2, 2)
    student.same(logits.requires_grad_(), book, 0.7, noise, True)
    student.same(logits, book.requires_grad_(), 0.7, noise, hard=True, grad=True)


@worth(1, "gumbel_dvae_step", "the gradient of logits and codebook")
def test_dvae_gradient(student: Student, draw: Draw) -> None:
    logits, book, noise = dvae_inputs(draw, 1, 4, 3, 2, 3)
    student.same(logits.requires_grad_(), book.requires_grad_(), 0.6, noise, grad=True)


@worth(1, "gumbel_dvae_step", "logits of 1e4, tau 0.01, one place, float64, memory with gaps; inputs stay as they are")
def test_dvae_edges(student: Student, draw: Draw) -> None:
    logits, book, noise = dvae_inputs(draw, 1, 4, 3, 1, 1)
    student.same((logits * 1e4).requires_grad_(), book, 1.0, noise, grad=True)
    student.same(logits, book, 0.01, noise)
    student.same(Scattered(logits.double()), book.double(), 1.0, noise.double())
    student.pure(logits, book, 0.5, noise, True)


# --------------------------------------------------------------------------------------------------- prediction


@worth(5, "prediction", "complete, and possible")
def test_prediction(answer: object) -> None:
    assert isinstance(answer, dict), "write the prediction as a dict of plain values."
    value = answer.get("copy at 75 %")
    possible = isinstance(value, int | float) and 0 <= value <= 2
    assert possible, "copy at 75 %: a number from 0 to 2."
    assert answer.get("harder to copy") in ("single 75 %", "blocks 25 %"), "harder to copy: one of the two masks."
    assert answer.get("larger gain") in ("25 %", "75 %"), "larger gain: '25 %' or '75 %'."
    assert len(str(answer.get("why") or "").split()) >= 5, "why: say it in a sentence."
