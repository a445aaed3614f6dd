"""Hidden checks of lab 0 (warm-up): one property each."""

import torch
from torch import Tensor

from autograder.compare import Step
from autograder.rubric import Draw, worth
from autograder.student import Student
from autograder.wire import Scattered


@worth(6, "split_heads", "every number lands in its head")
def test_heads_values(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 5, 12), 3)


@worth(2, "split_heads", "one head, and as many heads as numbers")
def test_heads_extremes(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 3, 4), 1)
    student.same(draw.normal(2, 3, 4), 4)


@worth(2, "split_heads", "integers, float64, memory with gaps")
def test_heads_types(student: Student, draw: Draw) -> None:
    student.same(draw.integers(0, 99, 1, 4, 6), 2)
    student.same(Scattered(draw.normal(3, 2, 6, dtype=torch.float64)), 3)


@worth(2, "split_heads", "the gradient; the input stays as it is")
def test_heads_gradient(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 3, 4).requires_grad_(), 2, grad=True)
    student.pure(draw.normal(2, 3, 4), 2)


@worth(8, "pairwise_dot", "every row of a with every row of b, in each batch")
def test_dot_values(student: Student, draw: Draw) -> None:
    student.same(draw.normal(3, 4, 5), draw.normal(3, 6, 5))


@worth(2, "pairwise_dot", "sets of one, vectors of one number, float64")
def test_dot_edges(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 1, 5), draw.normal(2, 1, 5))
    student.same(draw.normal(1, 3, 1, dtype=torch.float64), draw.normal(1, 2, 1, dtype=torch.float64))


@worth(2, "pairwise_dot", "memory with gaps; inputs stay as they are")
def test_dot_memory(student: Student, draw: Draw) -> None:
    student.same(Scattered(draw.normal(2, 3, 4)), draw.normal(2, 5, 4))
    student.pure(draw.normal(2, 3, 4), draw.normal(2, 2, 4))


@worth(2, "pairwise_dot", "the gradient of both")
def test_dot_gradient(student: Student, draw: Draw) -> None:
    student.same(draw.normal(2, 3, 4).requires_grad_(), draw.normal(2, 2, 4).requires_grad_(), grad=True)


@worth(5, "row_cosine", "the value, row by row")
def test_row_cosine_values(student: Student, draw: Draw) -> None:
    student.same(draw.normal(6, 4), draw.normal(6, 4))
    student.same(draw.normal(4, 4), draw.normal(4, 4))


@worth(3, "row_cosine", "the lengths do not matter, however large or small")
def test_row_cosine_scale(student: Student, draw: Draw) -> None:
    lengths = torch.tensor([1e-4, 1.0, 1e4])[:, None]
    student.same(draw.normal(3, 5) * lengths, draw.normal(3, 5) * 20)


@worth(3, "row_cosine", "rows of zeros: 0, and a finite gradient")
def test_row_cosine_zero(student: Student, draw: Draw) -> None:
    a, b = draw.normal(4, 3), draw.normal(4, 3)
    a[1], b[2] = 0, 0
    student.same(a, b)
    got = student.outcome(a.requires_grad_(), b.requires_grad_(), grad=True)
    if not all(isinstance(g, Tensor) and bool(g.isfinite().all()) for g in got.grads or [None]):
        student.wrong("the gradient at a row of zeros is missing or not finite.")


@worth(3, "row_cosine", "the gradient of both, float64; inputs stay as they are")
def test_row_cosine_gradient(student: Student, draw: Draw) -> None:
    a, b = (draw.normal(3, 4, dtype=torch.float64).requires_grad_() for _ in range(2))
    student.same(a, b, grad=True)
    student.pure(draw.normal(3, 4), draw.normal(3, 4))


def weights(draw: Draw, dim: int, classes: int) -> dict[str, Tensor]:
    return {"linear.weight": draw.normal(classes, dim), "linear.bias": draw.normal(classes)}


@worth(8, "LinearProbe", "logits: weights times features plus bias")
def test_probe_forward(student: Student, draw: Draw) -> None:
    student.same_object(4, 3, load=weights(draw, 4, 3), steps=[Step(args=(draw.normal(5, 4),))])


@worth(4, "LinearProbe", "the gradient reaches weight and bias")
def test_probe_gradient(student: Student, draw: Draw) -> None:
    student.same_object(4, 3, load=weights(draw, 4, 3), steps=[Step(args=(draw.normal(5, 4),), grad=True)])


@worth(6, "LinearProbe", "training_step returns the mean loss before the step")
def test_probe_loss(student: Student, draw: Draw) -> None:
    batch = (draw.normal(6, 4), draw.integers(0, 3, 6), 0.1)
    student.same_object(4, 3, load=weights(draw, 4, 3), steps=[Step("training_step", batch)])


@worth(8, "LinearProbe", "one step of gradient descent on every parameter")
def test_probe_step(student: Student, draw: Draw) -> None:
    batch = (draw.normal(6, 4), draw.integers(0, 3, 6), 0.3)
    steps = [Step("training_step", batch), Step("state_dict")]
    student.same_object(4, 3, load=weights(draw, 4, 3), steps=steps)


@worth(4, "LinearProbe", "four steps in a row, on other batches")
def test_probe_steps(student: Student, draw: Draw) -> None:
    batches = [(draw.normal(5, 4), draw.integers(0, 3, 5), lr) for lr in (0.5, 0.1, 0.2, 1.0)]
    steps = [Step("training_step", b) for b in batches]
    student.same_object(4, 3, load=weights(draw, 4, 3), steps=[*steps, Step("state_dict")])


@worth(5, "prediction", "complete, and possible")
def test_prediction(answer: object) -> None:
    assert isinstance(answer, dict), "write the prediction as a dict of plain values."
    value = answer.get("accuracy")
    possible = isinstance(value, int | float) and 0 <= value <= 1
    assert possible, "an accuracy lies between 0 and 1."
    assert answer.get("shuffled") in ("better", "equal", "worse"), "shuffled: better, equal or worse."
    assert len(str(answer.get("why") or "").split()) >= 5, "why: say it in a sentence."
