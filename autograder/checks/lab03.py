"""Hidden checks of lab 3 (SimCLR and MoCo): one property each. Inputs are new for every student and hand-in."""

from collections.abc import Callable

import torch
from torch import Tensor

from autograder.compare import Fresh
from autograder.rubric import Draw, worth
from autograder.student import Student
from autograder.wire import Scattered

# ---------------------------------------------------------------------------------------- cosine_similarity_matrix


@worth(1, "cosine_similarity_matrix", "every row of a with every row of b; b=None compares a with itself")
def test_cosine_values(student: Student, draw: Draw) -> None:
    student.same(draw.normal(5, 8) * 3, draw.normal(7, 8))
    student.same(draw.normal(6, 4) * 2)


@worth(1, "cosine_similarity_matrix", "the length of a vector does not matter, however large or small")
def test_cosine_scale(student: Student, draw: Draw) -> None:
    lengths = torch.tensor([1e-4, 1.0, 300.0, 1e4])[:, None]
    student.same(draw.normal(4, 6) * lengths, draw.normal(3, 6) * 50)


@worth(1, "cosine_similarity_matrix", "the gradient reaches both inputs")
def test_cosine_gradient(student: Student, draw: Draw) -> None:
    student.same(draw.normal(3, 5).requires_grad_(), draw.normal(4, 5).requires_grad_(), grad=True)


@worth(1, "cosine_similarity_matrix", "rows of zeros, float64, memory with gaps; inputs stay as they are")
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


@worth(3, "two_views", "two calls of t, both on x")
def test_two_views_values(student: Student, draw: Draw) -> None:
    student.same(draw.normal(3, 3, 5, 7), noise(draw))


@worth(2, "two_views", "the views differ from each other and from x")
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


# ------------------------------------------------------------------------------------------------ nt_xent_masks


@worth(2, "nt_xent_masks", "the positives: the other view of the same image")
def test_masks_positive(student: Student, draw: Draw) -> None:
    n = draw.integer(4, 9)
    if not _masks(student, n)[0]:
        student.wrong("positives: row i wants column i + n, row i + n wants column i.")


@worth(1, "nt_xent_masks", "the candidates: everybody but the view itself")
def test_masks_candidates(student: Student, draw: Draw) -> None:
    n = draw.integer(4, 9)
    if not _masks(student, n)[1]:
        student.wrong("candidates: all but the view itself, the positive included.")


@worth(1, "nt_xent_masks", "type bool, for one image and for an odd number")
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


@worth(4, "nt_xent", "the mean over the 2N anchors of Eq. 1")
def test_nt_xent_values(student: Student, draw: Draw) -> None:
    student.same(draw.unit(6, 8), draw.unit(6, 8), 0.5)
    student.same(draw.unit(9, 4), draw.unit(9, 4), 1.0)


@worth(1, "nt_xent", "the temperature: 0.5 when none is given, any other when it is")
def test_nt_xent_temperature(student: Student, draw: Draw) -> None:
    z1, z2 = draw.unit(5, 6), draw.unit(5, 6)
    student.same(z1, z2)
    student.same(z1, z2, tau=0.07)


@worth(1, "nt_xent", "the lengths of the embeddings do not matter")
def test_nt_xent_scale(student: Student, draw: Draw) -> None:
    lengths = 10.0 ** draw.uniform(5, 1, low=-2, high=3)
    student.same(draw.normal(5, 6) * lengths, draw.normal(5, 6), 0.5)


@worth(1, "nt_xent", "both views count alike, and the order of the images does not matter")
def test_nt_xent_symmetry(student: Student, draw: Draw) -> None:
    z1, z2, order = draw.unit(6, 5), draw.unit(6, 5), draw.permutation(6)
    first = student.same(z1, z2, 0.3)
    for other in (student.same(z2, z1, 0.3), student.same(z1[order], z2[order], 0.3)):
        if not torch.allclose(first, other, rtol=1e-4):
            student.wrong("swapping the views, or reordering the images, changed the loss.")


@worth(3, "nt_xent", "the gradient of both views")
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


# --------------------------------------------------------------------------------------------------- ema_update


def weights(draw: Draw, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """The tensors of a small network."""
    return [draw.normal(3, 4, dtype=dtype), draw.normal(5, dtype=dtype), draw.normal(2, 1, 3, 3, dtype=dtype)]


@worth(4, "ema_update", "every tensor of target moves, in place")
def test_ema_values(student: Student, draw: Draw) -> None:
    student.same(weights(draw), weights(draw), 0.9, after=True)
    student.same(weights(draw), weights(draw), 0.25, after=True)


@worth(1, "ema_update", "m = 0 makes a copy, m = 1 changes nothing")
def test_ema_extremes(student: Student, draw: Draw) -> None:
    for m in (0.0, 1.0):
        student.same(weights(draw), weights(draw), m, after=True)


@worth(2, "ema_update", "no gradient is recorded, and online stays as it is")
def test_ema_gradient(student: Student, draw: Draw) -> None:
    online = [w.requires_grad_() for w in weights(draw)]
    student.same(online, weights(draw), 0.99, after=True)


@worth(1, "ema_update", "integers are copied; float64")
def test_ema_types(student: Student, draw: Draw) -> None:
    online, target = (
        [draw.normal(4, dtype=torch.float64), draw.integers(0, 99, 3), draw.integers(100, 199, 1)[0]] for _ in range(2)
    )
    student.same(online, target, 0.5, after=True)


# ------------------------------------------------------------------------------------------------ queue_enqueue


@worth(4, "queue_enqueue", "the batch overwrites the rows from ptr on, and nothing else")
def test_queue_values(student: Student, draw: Draw) -> None:
    student.same(draw.unit(12, 5), 4, draw.unit(4, 5), after=True)
    student.same(draw.unit(9, 3), 0, draw.unit(2, 3), after=True)


@worth(3, "queue_enqueue", "a batch that the end of the queue splits, also one as large as the queue")
def test_queue_wraps(student: Student, draw: Draw) -> None:
    student.same(draw.unit(7, 4), 5, draw.unit(4, 4), after=True)
    student.same(draw.unit(6, 4), 2, draw.unit(6, 4), after=True)


@worth(2, "queue_enqueue", "the pointer it returns is a row of the queue")
def test_queue_pointer(student: Student, draw: Draw) -> None:
    for ptr in (0, 4, 8):
        student.same(draw.unit(12, 3), ptr, draw.unit(4, 3))


@worth(1, "queue_enqueue", "keys are stored with length 1")
def test_queue_normalised(student: Student, draw: Draw) -> None:
    student.same(draw.unit(8, 4), 3, draw.normal(3, 4) * 7, after=True)


@worth(1, "queue_enqueue", "no gradient enters the queue")
def test_queue_gradient(student: Student, draw: Draw) -> None:
    student.same(draw.unit(8, 4), 1, draw.unit(3, 4).requires_grad_(), after=True)


@worth(1, "queue_enqueue", "a batch of one, float64; the keys stay as they are")
def test_queue_edges(student: Student, draw: Draw) -> None:
    keys = draw.normal(1, 6, dtype=torch.float64)
    student.same(draw.unit(3, 6, dtype=torch.float64), 2, Scattered(keys), after=True)
    student.same(draw.unit(4, 6), 1, draw.normal(2, 6) * 3, after=True)


# -------------------------------------------------------------------------------------------------- moco_logits


@worth(4, "moco_logits", "the positive in column 0, the keys of the queue behind it")
def test_moco_logits_values(student: Student, draw: Draw) -> None:
    student.same(draw.unit(5, 6), draw.unit(5, 6), draw.unit(11, 6), 1.0)
    student.same(draw.unit(4, 6), draw.unit(4, 6), draw.unit(4, 6), 1.0)


@worth(2, "moco_logits", "the temperature divides all of them; 0.07 when none is given")
def test_moco_logits_temperature(student: Student, draw: Draw) -> None:
    q, k, queue = draw.unit(3, 5), draw.unit(3, 5), draw.unit(8, 5)
    for tau in (0.01, 0.5):
        student.same(q, k, queue, tau)
    student.same(q, k, queue)


@worth(1, "moco_logits", "the lengths of queries and keys do not matter")
def test_moco_logits_scale(student: Student, draw: Draw) -> None:
    student.same(draw.normal(4, 5) * 9, draw.normal(4, 5) * 0.1, draw.unit(7, 5), 0.2)


@worth(2, "moco_logits", "the gradient of the queries")
def test_moco_logits_gradient(student: Student, draw: Draw) -> None:
    student.same(draw.normal(4, 5).requires_grad_(), draw.unit(4, 5), draw.unit(7, 5), 0.2, grad=True)


@worth(2, "moco_logits", "no gradient for keys and queue")
def test_moco_logits_detached(student: Student, draw: Draw) -> None:
    q, k, queue = (draw.unit(n, 5).requires_grad_() for n in (4, 4, 7))
    only_these(student, 1, q, k, queue, 0.2)


@worth(1, "moco_logits", "one query, an empty queue, float64; inputs stay as they are")
def test_moco_logits_edges(student: Student, draw: Draw) -> None:
    student.same(draw.unit(1, 3, dtype=torch.float64), draw.unit(1, 3, dtype=torch.float64),
                 Scattered(draw.unit(5, 3, dtype=torch.float64)), 0.5)  # fmt: skip
    student.same(draw.unit(2, 3), draw.unit(2, 3), torch.zeros(0, 3), 0.5)
    student.pure(draw.normal(3, 4), draw.normal(3, 4), draw.unit(6, 4), 0.5)


def only_these(student: Student, trained: int, *args: object) -> None:
    """The gradient of the first `trained` tensors is right, and no other tensor has one."""
    student.same(*args, grad=True)
    grads = student.records[-1].outcome.grads or []
    if any(g is not None for g in grads[trained:]):
        student.wrong("a gradient reaches what comes from the key encoder: nothing trains it; detach it.")


# --------------------------------------------------------------------------------------------- symmetric_moco_v3


@worth(3, "symmetric_moco_v3", "both directions, negatives from the batch")
def test_symmetric_values(student: Student, draw: Draw) -> None:
    student.same(*(draw.unit(5, 6) for _ in range(4)), 0.5)


@worth(1, "symmetric_moco_v3", "the temperature, in the softmax and in front; 0.2 when none is given")
def test_symmetric_temperature(student: Student, draw: Draw) -> None:
    z = [draw.unit(4, 5) for _ in range(4)]
    for tau in (0.05, 1.5):
        student.same(*z, tau)
    student.same(*z)


@worth(1, "symmetric_moco_v3", "the lengths do not matter")
def test_symmetric_scale(student: Student, draw: Draw) -> None:
    student.same(*(draw.normal(4, 5) * s for s in (0.1, 8.0, 3.0, 0.5)), 0.5)


@worth(2, "symmetric_moco_v3", "the gradient reaches the queries, and not the keys")
def test_symmetric_gradient(student: Student, draw: Draw) -> None:
    only_these(student, 2, *(draw.unit(4, 5).requires_grad_() for _ in range(4)), 0.5)


@worth(1, "symmetric_moco_v3", "temperature 0.01, two images, float64; inputs stay as they are")
def test_symmetric_edges(student: Student, draw: Draw) -> None:
    student.same(*(draw.unit(6, 4) for _ in range(4)), 0.01)
    student.same(*(draw.unit(2, 3, dtype=torch.float64) for _ in range(4)), 0.3)
    student.pure(*(draw.normal(3, 4) for _ in range(4)), 0.5)


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
