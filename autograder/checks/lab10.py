"""Hidden checks of lab 10 (CLIP and SigLIP), one property each. Inputs are drawn anew for every student and hand-in."""

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor

from autograder.compare import Part, Step, difference
from autograder.rubric import Draw, worth
from autograder.student import Student


def lengths(draw: Draw, x: Tensor) -> Tensor:
    """The same directions with other lengths, 0.3 to 5."""
    return x * draw.uniform(len(x), 1, low=0.3, high=5.0).to(x.dtype)


def pairs(draw: Draw, n: int, d: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Unit images and texts, row i of the one not far from row i of the other."""
    img = draw.unit(n, d, dtype=dtype)
    return img, torch.nn.functional.normalize(img + 0.7 * draw.unit(n, d, dtype=dtype), dim=1)


def log(scale: float) -> Tensor:
    return torch.tensor(math.log(scale))


# --------------------------------------------------------------------------------------------------- clip_loss


@worth(4, "clip_loss", "both directions, the mean over pairs (unit vectors, scale 1)")
def test_clip_values(student: Student, draw: Draw) -> None:
    student.same(*pairs(draw, 5, 4), log(1.0))
    student.same(*pairs(draw, 2, 3), log(1.0))


@worth(2, "clip_loss", "the scale, of which log_scale is the logarithm")
def test_clip_scale(student: Student, draw: Draw) -> None:
    for scale in (14.3, 0.4, 60.0):
        student.same(*pairs(draw, 4, 6), log(scale))


@worth(2, "clip_loss", "embeddings of any length")
def test_clip_lengths(student: Student, draw: Draw) -> None:
    img, txt = pairs(draw, 4, 5)
    student.same(lengths(draw, img), lengths(draw, txt), log(1.0))


@worth(2, "clip_loss", "the scale is 100 at most")
def test_clip_clamp(student: Student, draw: Draw) -> None:
    img = draw.unit(6, 2)
    close = torch.nn.functional.normalize(img + 0.1 * draw.unit(6, 2), dim=1)
    student.same(img, close, log(400.0))
    student.same(img, close, torch.tensor(20.0))


@worth(2, "clip_loss", "the gradient of images, texts and log_scale")
def test_clip_gradient(student: Student, draw: Draw) -> None:
    img, txt = pairs(draw, 4, 3)
    scale = log(1.0).requires_grad_()
    student.same(lengths(draw, img).requires_grad_(), lengths(draw, txt).requires_grad_(), scale, grad=True)


@worth(2, "clip_loss", "one pair, pairs in another order, scale 100 without overflow, float64; inputs stay as they are")
def test_clip_edges(student: Student, draw: Draw) -> None:
    student.same(draw.unit(1, 4), draw.unit(1, 4), log(10.0))
    img, txt = pairs(draw, 4, 4)
    order = draw.permutation(4)
    student.same(img[order], txt[order], log(1.0))
    student.same(img.clone().requires_grad_(), img.clone().requires_grad_(), log(99.0), grad=True)
    student.same(*pairs(draw, 3, 4, torch.float64), log(1.0).double())
    student.pure(lengths(draw, img), lengths(draw, txt), log(2.0))


# ------------------------------------------------------------------------------------------------- siglip_loss


@worth(4, "siglip_loss", "all pairs, yes and no, divided by N (unit vectors, t = 1, b = 0)")
def test_siglip_values(student: Student, draw: Draw) -> None:
    student.same(*pairs(draw, 5, 4), 1.0, 0.0)
    student.same(*pairs(draw, 2, 3), 1.0, 0.0)


@worth(2, "siglip_loss", "the factor t and the bias b")
def test_siglip_numbers(student: Student, draw: Draw) -> None:
    student.same(*pairs(draw, 4, 6), 3.0, -2.0)
    student.same(*pairs(draw, 3, 5), 0.5, 1.5)


@worth(1, "siglip_loss", "t = 10 and b = -10 when they are not given")
def test_siglip_defaults(student: Student, draw: Draw) -> None:
    img, txt = pairs(draw, 4, 6)
    student.same(img, txt)
    student.same(img, txt, 4.0)


@worth(1, "siglip_loss", "embeddings of any length")
def test_siglip_lengths(student: Student, draw: Draw) -> None:
    img, txt = pairs(draw, 4, 5)
    student.same(lengths(draw, img), lengths(draw, txt), 1.0, 0.0)


@worth(2, "siglip_loss", "the gradient of images, texts, t and b")
def test_siglip_gradient(student: Student, draw: Draw) -> None:
    img, txt = pairs(draw, 4, 3)
    t, b = (torch.tensor(value, requires_grad=True) for value in (1.0, 0.0))
    student.same(lengths(draw, img).requires_grad_(), lengths(draw, txt).requires_grad_(), t, b, grad=True)


@worth(2, "siglip_loss", "one pair, huge t in value and gradient, float64; inputs stay as they are")
def test_siglip_edges(student: Student, draw: Draw) -> None:
    student.same(draw.unit(1, 4), draw.unit(1, 4), 1.0, 0.0)
    img, txt = pairs(draw, 4, 4)
    student.same(img.clone().requires_grad_(), txt.clone().requires_grad_(), 1e4, 0.0, grad=True)
    student.same(*pairs(draw, 3, 4, torch.float64), 1.0, 0.0)
    student.pure(lengths(draw, img), lengths(draw, txt), 2.0, -1.0)


# -------------------------------------------------------------------------------------------- gather_negatives


def two(student: Student, parts: list[Tensor], rank: int) -> list[object]:
    """The two results, whatever they are."""
    got = student(parts, rank)
    if not isinstance(got, tuple | list) or len(got) != 2:
        student.wrong("return two tensors: the candidates and the labels.")
    return list(got)


@worth(2, "gather_negatives", "the candidates of all processes, in their order")
def test_gather_candidates(student: Student, draw: Draw) -> None:
    for w, n, rank in ((3, 3, 1), (4, 2, 3)):
        parts = [draw.normal(n, 4) for _ in range(w)]
        if wrong := difference(two(student, parts, rank)[0], torch.cat(parts), "as its first result it returned"):
            student.wrong(wrong)


@worth(2, "gather_negatives", "the labels: rows of the own ones, int64")
def test_gather_labels(student: Student, draw: Draw) -> None:
    for rank in range(3):
        parts, own = [draw.normal(2, 3) for _ in range(3)], torch.arange(2 * rank, 2 * rank + 2)
        if wrong := difference(two(student, parts, rank)[1], own, "as its second result it returned"):
            student.wrong(wrong)


@worth(1, "gather_negatives", "the gradient reaches every process")
def test_gather_gradient(student: Student, draw: Draw) -> None:
    found = student.outcome([draw.normal(2, 3).requires_grad_() for _ in range(3)], 1, grad=True).grads or []
    if len(found) != 3 or any(g is None or not bool(g.abs().max() > 0) for g in found):
        student.wrong("no gradient reaches some of the processes: detach nothing.")


@worth(1, "gather_negatives", "one process, one embedding each, float64; inputs stay as they are")
def test_gather_edges(student: Student, draw: Draw) -> None:
    student.same([draw.normal(3, 2)], 0)
    student.same([draw.normal(1, 2, dtype=torch.float64) for _ in range(3)], 2)
    student.pure([draw.normal(2, 2) for _ in range(2)], 0)


# -------------------------------------------------------------------------------------------------------- CLIP

TOWERS = (Part("Linear", (5, 4)), Part("EmbeddingBag", (9, 4)))  # images are 5 numbers, texts bags of 9 words
NOTHING = (Part("Identity"), Part("Identity"))
LINEAR = {"weight": (4, 5), "bias": (4,)}


def weights(draw: Draw, scale: float = 1.0, bias: float | None = None) -> dict[str, Tensor]:
    """A state dict of the module with `TOWERS`."""
    named = {"visual.weight": draw.normal(4, 5), "visual.bias": draw.normal(4), "text.weight": draw.normal(9, 4)}
    named["logit_scale"] = log(scale)
    return named if bias is None else {**named, "logit_bias": torch.tensor(bias)}


def batch(draw: Draw, images: int, texts: int) -> tuple[Tensor, Tensor]:
    return draw.normal(images, 5), draw.integers(0, 9, texts, 3)


@worth(3, "CLIP", "logits of images and texts with the weights that are loaded")
def test_module_logits(student: Student, draw: Draw) -> None:
    student.same_object(*TOWERS, load=weights(draw), steps=[Step(args=batch(draw, 3, 3))])
    student.same_object(*TOWERS, load=weights(draw), steps=[Step(args=batch(draw, 4, 2))])


@worth(2, "CLIP", "the scale, without a limit")
def test_module_scale(student: Student, draw: Draw) -> None:
    for scale in (20.0, 0.3, 150.0):
        steps = [Step(args=(draw.unit(3, 4), draw.unit(2, 4)))]
        student.same_object(*NOTHING, load={"logit_scale": log(scale)}, steps=steps)


@worth(2, "CLIP", "the bias, where one is asked for")
def test_module_bias(student: Student, draw: Draw) -> None:
    steps = [Step(args=(draw.unit(3, 4), draw.unit(2, 4))), Step("state_dict")]
    for scale in (1.0, 5.0):
        load = {"logit_scale": log(scale), "logit_bias": -3 * draw.uniform(1)[0]}
        student.same_object(*NOTHING, load=load, steps=steps, logit_bias=-10.0)


@worth(2, "CLIP", "encode_image and encode_text return what the towers return")
def test_module_encode(student: Student, draw: Draw) -> None:
    alike = {f"{tower}.{name}": draw.normal(*shape) for tower in ("visual", "text") for name, shape in LINEAR.items()}
    steps = [Step("encode_image", (draw.normal(3, 5),)), Step("encode_text", (draw.normal(2, 5),))]
    student.same_object(TOWERS[0], TOWERS[0], load={**alike, "logit_scale": log(1.0)}, steps=steps)
    x, tokens = batch(draw, 3, 2)
    steps = [Step("encode_image", (x,)), Step("encode_text", (tokens,))]
    student.same_object(*TOWERS, load=weights(draw), steps=steps)


@worth(1, "CLIP", "what is learned, and where it starts")
def test_module_start(student: Student, draw: Draw) -> None:
    begin, bias = draw.uniform(2, low=0.5, high=3.0).tolist()
    student.same_object(*NOTHING, steps=[Step("state_dict")])
    student.same_object(*NOTHING, steps=[Step("state_dict")], logit_scale=begin, logit_bias=-bias)


@worth(2, "CLIP", "the gradient reaches both towers, the scale and the bias")
def test_module_gradient(student: Student, draw: Draw) -> None:
    steps = [Step(args=batch(draw, 3, 2), grad=True)]
    student.same_object(*TOWERS, load=weights(draw, 3.0), steps=steps)
    student.same_object(*TOWERS, load=weights(draw, 3.0, -2.0), steps=steps, logit_bias=0.0)


# ------------------------------------------------------------------------------------------- zero_shot_weights

NAMES = ("cat", "dog", "ant", "zebra", "old cow", "bee")
SENTENCES = ("a photo of a {}.", "one {}", "the {} in the grass", "{}, drawn by hand")


def encoder(draw: Draw, d: int, longest: float = 5.0, dtype: torch.dtype = torch.float32) -> Callable[..., Tensor]:
    """A text tower that nobody can guess: every text has its own direction, and a length from 0.3 to `longest`."""
    seed = draw.integer(0, 1 << 30)

    def encode(texts: list[str]) -> Tensor:
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            raise TypeError("encode takes a list of texts")
        rows = []
        for text in texts:
            digest = int.from_bytes(hashlib.sha256(f"{seed} {text}".encode()).digest()[:6], "big")
            g = torch.Generator().manual_seed(digest)
            row = torch.randn(d, generator=g, dtype=torch.float64)
            rows.append(row / row.norm() * (0.3 + (longest - 0.3) * torch.rand(1, generator=g, dtype=torch.float64)))
        return torch.stack(rows).to(dtype)

    return encode


@worth(4, "zero_shot_weights", "one template: the unit embedding of every class, in the order given")
def test_zero_shot_one_template(student: Student, draw: Draw) -> None:
    order = [NAMES[i] for i in draw.permutation(5).tolist()]
    student.same(encoder(draw, 4), order, list(SENTENCES[:1]))
    student.same(encoder(draw, 3), ["dog", "ant", "cat"], list(SENTENCES[1:2]))


@worth(4, "zero_shot_weights", "several templates: the mean of unit embeddings, normalised again")
def test_zero_shot_ensemble(student: Student, draw: Draw) -> None:
    student.same(encoder(draw, 4, longest=0.3), ["bee", "ant", "dog"], list(SENTENCES[:2]))
    student.same(encoder(draw, 5, longest=0.3), ["zebra", "cat"], list(SENTENCES))


@worth(2, "zero_shot_weights", "every prompt has one vote, whatever its length")
def test_zero_shot_lengths(student: Student, draw: Draw) -> None:
    student.same(encoder(draw, 4, longest=50.0), ["cat", "bee", "ant"], list(SENTENCES[1:]))


@worth(1, "zero_shot_weights", "the order of templates does not matter, that of classes is kept")
def test_zero_shot_order(student: Student, draw: Draw) -> None:
    encode, classes = encoder(draw, 4, longest=0.3), ["cat", "bee", "ant"]
    first = student.same(encode, classes, list(SENTENCES))
    second = student(encode, classes[::-1], list(SENTENCES[::-1]))
    if not isinstance(second, Tensor) or second.shape != first.shape or not torch.allclose(second.flip(1), first):
        student.wrong("turning classes and templates around should turn the columns around, and change nothing else.")


@worth(1, "zero_shot_weights", "one class, a class that is named twice, float64")
def test_zero_shot_edges(student: Student, draw: Draw) -> None:
    student.same(encoder(draw, 4, longest=0.3), ["old cow"], list(SENTENCES[:3]))
    student.same(encoder(draw, 4, longest=0.3), ["cat", "bee", "cat"], list(SENTENCES[:2]))
    student.same(encoder(draw, 3, longest=0.3, dtype=torch.float64), ["dog", "ant"], list(SENTENCES[:2]))


# ----------------------------------------------------------------------------------------------- prompt_logits


@worth(2, "prompt_logits", "the cosines times the scale")
def test_logits_values(student: Student, draw: Draw) -> None:
    student.same(draw.unit(2, 3), draw.unit(3, 3).T, 2.5)
    student.same(draw.unit(5, 4), draw.unit(3, 4).T, 10.0)


@worth(1, "prompt_logits", "images of any length; weights as they are")
def test_logits_lengths(student: Student, draw: Draw) -> None:
    student.same(lengths(draw, draw.unit(4, 5)), draw.unit(3, 5).T, 3.0)
    student.same(draw.unit(4, 5), lengths(draw, draw.unit(3, 5)).T, 3.0)


@worth(1, "prompt_logits", "scale 100 when it is not given; a scale that is learned; the gradient")
def test_logits_scale(student: Student, draw: Draw) -> None:
    student.same(draw.unit(3, 4), draw.unit(2, 4).T)
    img, W = draw.normal(3, 4).requires_grad_(), draw.unit(2, 4).T.contiguous().requires_grad_()
    student.same(img, W, torch.tensor(7.0, requires_grad=True), grad=True)


@worth(1, "prompt_logits", "one image, one class, an embedding of zeros, float64; inputs stay as they are")
def test_logits_edges(student: Student, draw: Draw) -> None:
    student.same(draw.normal(1, 4), draw.unit(1, 4).T, 2.0)
    img = draw.normal(3, 4)
    img[1] = 0
    student.same(img, draw.unit(2, 4).T, 2.0)
    student.same(draw.normal(2, 3, dtype=torch.float64), draw.unit(2, 3, dtype=torch.float64).T, 2.0)
    student.pure(draw.normal(3, 4), draw.unit(2, 4).T, 2.0)


# ---------------------------------------------------------------------------------------- effective_robustness


def reference_models(draw: Draw, m: int, spread: float = 0.4, dtype: torch.dtype = torch.float32) -> Tensor:
    """(m, 2) accuracies near a line on logit axes, far enough apart for a slope."""
    u = torch.linspace(-1.5, 2.5, m, dtype=torch.float64)[draw.permutation(m)]
    slope, intercept = draw.uniform(2, low=0.5, high=1.3).tolist()
    v = slope * u - intercept + spread * draw.normal(m, dtype=torch.float64)
    return torch.stack([u.sigmoid(), v.sigmoid()], dim=1).to(dtype)


def accuracies(draw: Draw) -> list[float]:
    """A model's two accuracies, the second one lower."""
    return [draw.uniform(1, low=0.62, high=0.9).item(), draw.uniform(1, low=0.25, high=0.55).item()]


@worth(3, "effective_robustness", "two reference models: the line runs through both")
def test_robustness_two_models(student: Student, draw: Draw) -> None:
    for _ in range(3):
        student.same(*accuracies(draw), reference_models(draw, 2))


@worth(3, "effective_robustness", "several reference models: least squares on logit axes")
def test_robustness_line(student: Student, draw: Draw) -> None:
    for m in (4, 6):
        student.same(*accuracies(draw), reference_models(draw, m))


@worth(1, "effective_robustness", "a model on the line stands 0 above it, however far from the others")
def test_robustness_on_the_line(student: Student, draw: Draw) -> None:
    slope, intercept = draw.uniform(2, low=0.5, high=1.2).tolist()
    u = torch.tensor([-1.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    both = torch.stack([u.sigmoid(), (slope * u - intercept).sigmoid()], dim=1)
    acc_id, acc_ood = both[3].tolist()
    student.same(acc_id, acc_ood, both[:3].float())
    student.same(acc_id, acc_ood - 0.1, both[:3].float())


@worth(1, "effective_robustness", "above is positive, below negative, one point of accuracy is one point")
def test_robustness_sign(student: Student, draw: Draw) -> None:
    acc_id, acc_ood = accuracies(draw)
    fit = reference_models(draw, 4)
    first, second = student.same(acc_id, acc_ood, fit), student.same(acc_id, acc_ood + 0.2, fit)
    if not isinstance(first, float) or abs(second - first - 0.2) > 1e-4:
        student.wrong("0.2 more accuracy under shift should be 0.2 more effective robustness.")


@worth(1, "effective_robustness", "float64, accuracies near 0 and 1; inputs stay as they are")
def test_robustness_edges(student: Student, draw: Draw) -> None:
    student.same(*accuracies(draw), reference_models(draw, 5, dtype=torch.float64))
    student.same(0.999, 0.003, reference_models(draw, 3))
    student.pure(*accuracies(draw), reference_models(draw, 3))


# -------------------------------------------------------------------------------------------------- prediction


@worth(5, "prediction", "complete, and possible")
def test_prediction(answer: object) -> None:
    assert isinstance(answer, dict), "write the prediction as a dict of plain values."
    gaps = {answer.get("gap at 0.01"), answer.get("gap at 1")}
    assert gaps <= {"stays", "closes"}, 'a gap "stays" or "closes".'
    arms = ("tau 0.01", "tau 0.07", "tau 1", "learned")
    assert {answer.get("lowest loss"), answer.get("most new pairs")} <= set(arms), f"choose an arm of A: {arms}."
    shares = [answer.get(f"share at b = {b}") for b in (0, -10)]
    possible = all(isinstance(s, int | float) and 0 <= s <= 1 for s in shares)
    assert possible, "a share is a number between 0 and 1."
    assert answer.get("words on sketches") in ("above", "on", "below"), "words on sketches: above, on or below."
    assert len(str(answer.get("why") or "").split()) >= 5, "why: say it in a sentence."
