"""Hidden checks of lab 3 (SimCLR): one property each. Inputs are drawn anew for every student and every hand-in."""

from collections.abc import Callable

import torch
from torch import Tensor

from autograder.compare import Fresh
from autograder.rubric import Draw, worth
from autograder.student import Student
from autograder.wire import Scattered

# ---------------------------------------------------------------------------------------- cosine_similarity_matrix


@worth(4, "cosine_similarity_matrix", "every row of a with every row of b")
def test_cosine_values(student: Student, draw: Draw) -> None:
    student.same(draw.normal(5, 8) * 3, draw.normal(7, 8))


@worth(2, "cosine_similarity_matrix", "b=None compares a with itself")
def test_cosine_self(student: Student, draw: Draw) -> None:
    student.same(draw.normal(6, 4) * 2)


@worth(2, "cosine_similarity_matrix", "the length of a vector does not matter, however large or small")
def test_cosine_scale(student: Student, draw: Draw) -> None:
    lengths = torch.tensor([1e-4, 1.0, 300.0, 1e4])[:, None]
    student.same(draw.normal(4, 6) * lengths, draw.normal(3, 6) * 50)


@worth(2, "cosine_similarity_matrix", "the gradient reaches both inputs")
def test_cosine_gradient(student: Student, draw: Draw) -> None:
    student.same(draw.normal(3, 5).requires_grad_(), draw.normal(4, 5).requires_grad_(), grad=True)


@worth(2, "cosine_similarity_matrix", "rows of zeros, float64, memory with gaps; inputs stay as they are")
def test_cosine_edges(student: Student, draw: Draw) -> None:
    a = draw.normal(4, 6, dtype=torch.float64)
    a[1] = 0
    student.same(a, Scattered(draw.normal(2, 6, dtype=torch.float64)))
    student.pure(draw.normal(3, 4) * 5, draw.normal(3, 4) * 5)


# ---------------------------------------------------------------------------------------------------- two_views


def noise(draw: Draw) -> Fresh:
    """A random transform that starts from the same state in every run, and adds other noise at each call."""
    seed = draw.integer(0, 1 << 30)

    def make() -> Callable[[Tensor], Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return lambda x: x.float() + torch.randn(x.shape, generator=generator)

    return Fresh(make)


def recording(t: Callable[[Tensor], Tensor], made: list[Tensor]) -> Callable[[Tensor], Tensor]:
    """`t`, which also keeps what it returned."""

    def call(x: Tensor) -> Tensor:
        made.append(t(x))
        return made[-1]

    return call


@worth(4, "two_views", "two calls of t, both on x")
def test_two_views_values(student: Student, draw: Draw) -> None:
    student.same(draw.normal(3, 3, 5, 7), noise(draw))


@worth(3, "two_views", "the views differ from each other and from x")
def test_two_views_differ(student: Student, draw: Draw) -> None:
    x, t = draw.normal(2, 3, 4, 4), noise(draw)
    made: list[Tensor] = []
    v1, v2 = student(x, Fresh(lambda: recording(t.make(), made)))
    if torch.equal(v1, v2):
        student.wrong("both views are the same: t was rolled once, or one result was used twice.")
    if torch.equal(v1, x) or torch.equal(v2, x):
        student.wrong("one view is x itself; SimCLR transforms both.")
    if not all(any(v.dtype == m.dtype and torch.equal(v, m) for m in made) for v in (v1, v2)):
        student.wrong("a view is not what t returned.")


@worth(2, "two_views", "a transform that changes the size, images of type uint8, a batch of 1")
def test_two_views_any_transform(student: Student, draw: Draw) -> None:
    images = draw.integers(0, 256, 1, 3, 6, 8).to(torch.uint8)
    student.same(images, Fresh(lambda: lambda x: x[..., ::2, 1:5].float() / 255))


@worth(1, "two_views", "x stays as it is, and no dice of its own")
def test_two_views_pure(student: Student, draw: Draw) -> None:
    student.pure(draw.normal(2, 3, 4, 4), noise(draw))


# ------------------------------------------------------------------------------------------------- nt_xent_loop


@worth(6, "nt_xent_loop", "the mean over the 2N anchors of Eq. 1")
def test_loop_values(student: Student, draw: Draw) -> None:
    student.same(draw.unit(5, 8), draw.unit(5, 8), 0.5)
    student.same(draw.unit(4, 3), draw.unit(4, 3), 1.0)


@worth(3, "nt_xent_loop", "the temperature divides every similarity")
def test_loop_temperature(student: Student, draw: Draw) -> None:
    z1, z2 = draw.unit(4, 6), draw.unit(4, 6)
    for tau in (0.1, 2.0):
        student.same(z1, z2, tau)


@worth(2, "nt_xent_loop", "the lengths of the embeddings do not matter")
def test_loop_scale(student: Student, draw: Draw) -> None:
    student.same(draw.normal(3, 5) * 7, draw.normal(3, 5) * 0.1, 0.5)


@worth(3, "nt_xent_loop", "the gradient of both views")
def test_loop_gradient(student: Student, draw: Draw) -> None:
    student.same(draw.normal(4, 5).requires_grad_(), draw.normal(4, 5).requires_grad_(), 0.5, grad=True)


@worth(2, "nt_xent_loop", "two images, an odd number of images, float64; inputs stay as they are")
def test_loop_edges(student: Student, draw: Draw) -> None:
    student.same(draw.unit(2, 4), draw.unit(2, 4), 0.2)
    student.same(draw.unit(3, 4, dtype=torch.float64), draw.unit(3, 4, dtype=torch.float64), 0.5)
    student.pure(draw.unit(3, 4) * 2, draw.unit(3, 4) * 2, 0.5)


# ------------------------------------------------------------------------------------------------ nt_xent_masks


@worth(5, "nt_xent_masks", "the positives: the other view of the same image")
def test_masks_positive(student: Student, draw: Draw) -> None:
    n = draw.integer(4, 9)
    if not _masks(student, n)[0]:
        student.wrong("positives: row i wants column i + n, row i + n wants column i.")


@worth(4, "nt_xent_masks", "the candidates: everybody but the view itself")
def test_masks_candidates(student: Student, draw: Draw) -> None:
    n = draw.integer(4, 9)
    if not _masks(student, n)[1]:
        student.wrong("candidates: all but the view itself, the positive included.")


@worth(3, "nt_xent_masks", "type bool, for one image and for an odd number")
def test_masks_edges(student: Student) -> None:
    for n in (1, 3):
        student.same(n)


def _masks(student: Student, n: int) -> list[bool]:
    """Which of the two masks are right, as truth values of any dtype."""
    got, want = student(n), student.reference(n)
    if not isinstance(got, tuple | list) or len(got) != 2 or not all(isinstance(m, torch.Tensor) for m in got):
        student.wrong("return two tensors: (positive, candidates).")
    return [g.shape == w.shape and torch.equal(g.bool(), w) for g, w in zip(got, want, strict=True)]


# ------------------------------------------------------------------------------------------------------- nt_xent


@worth(6, "nt_xent", "the mean over the 2N anchors of Eq. 1")
def test_nt_xent_values(student: Student, draw: Draw) -> None:
    student.same(draw.unit(6, 8), draw.unit(6, 8), 0.5)
    student.same(draw.unit(9, 4), draw.unit(9, 4), 1.0)


@worth(2, "nt_xent", "the temperature: 0.5 when none is given, any other when it is")
def test_nt_xent_temperature(student: Student, draw: Draw) -> None:
    z1, z2 = draw.unit(5, 6), draw.unit(5, 6)
    student.same(z1, z2)
    student.same(z1, z2, tau=0.07)


@worth(2, "nt_xent", "the lengths of the embeddings do not matter")
def test_nt_xent_scale(student: Student, draw: Draw) -> None:
    lengths = 10.0 ** draw.uniform(5, 1, low=-2, high=3)
    student.same(draw.normal(5, 6) * lengths, draw.normal(5, 6), 0.5)


@worth(2, "nt_xent", "both views count alike, and the order of the images does not matter")
def test_nt_xent_symmetry(student: Student, draw: Draw) -> None:
    z1, z2, order = draw.unit(6, 5), draw.unit(6, 5), draw.permutation(6)
    first = student.same(z1, z2, 0.3)
    for other in (student.same(z2, z1, 0.3), student.same(z1[order], z2[order], 0.3)):
        if not torch.allclose(first, other, rtol=1e-4):
            student.wrong("swapping the views, or reordering the images, changed the loss.")


@worth(4, "nt_xent", "the gradient of both views")
def test_nt_xent_gradient(student: Student, draw: Draw) -> None:
    student.same(draw.normal(5, 7).requires_grad_(), draw.normal(5, 7).requires_grad_(), 0.5, grad=True)


@worth(3, "nt_xent", "temperature 0.01: value and gradient stay finite and right")
def test_nt_xent_cold(student: Student, draw: Draw) -> None:
    z = draw.normal(6, 4).requires_grad_()
    student.same(z, (-z.detach() + 0.1 * draw.normal(6, 4)).requires_grad_(), 0.01, grad=True)


@worth(1, "nt_xent", "two images, float64, memory with gaps; inputs stay as they are")
def test_nt_xent_edges(student: Student, draw: Draw) -> None:
    student.same(draw.unit(2, 3), draw.unit(2, 3), 0.5)
    wide = Scattered(draw.unit(3, 6, dtype=torch.float64))
    student.same(wide, draw.unit(3, 6, dtype=torch.float64), 0.5)
    student.pure(draw.unit(3, 4) * 2, draw.unit(3, 4) * 2, 0.5)


# ---------------------------------------------------------------------------------------------------- prediction


@worth(5, "prediction", "complete, and possible")
def test_prediction(answer: object) -> None:
    assert isinstance(answer, dict), "write the prediction as a dict of plain values."
    taus = (0.02, 0.2, 2.0)
    chosen = {answer.get("best_tau"), answer.get("worst_tau")}
    assert chosen <= set(taus), f"choose both temperatures from {taus}."
    value, why = answer.get("knn_of_best"), answer.get("why")
    possible = isinstance(value, int | float) and 0 <= value <= 1
    assert possible, "knn_of_best is an accuracy: between 0 and 1."
    assert len(str(why or "").split()) >= 5, "why: say it in a sentence."
