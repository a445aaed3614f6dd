"""DeiT's distillation, DINO's arm without probabilities and Beta shares, each against an independent slow form."""

import math

import pytest
import torch

from sslcourse.data.mixing import beta_share
from sslcourse.errors import InputError
from sslcourse.losses.deit import deit_distillation
from sslcourse.losses.dino import unit_distillation_loss


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def probabilities(logits: list[float], t: float) -> list[float]:
    powers = [math.exp(x / t) for x in logits]
    return [p / sum(powers) for p in powers]


def test_distillation_equals_the_loop() -> None:
    student, teacher = randn(5, 4), 3 * randn(5, 4, seed=1)
    hard = soft = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        hard -= math.log(probabilities(s, 1.0)[t.index(max(t))]) / 5
        pairs = zip(probabilities(t, 3.0), probabilities(s, 3.0), strict=True)
        soft -= 9 * sum(p * math.log(q) for p, q in pairs) / 5
    assert deit_distillation(student, teacher).item() == pytest.approx(hard, abs=1e-6)
    assert deit_distillation(student, teacher, "soft").item() == pytest.approx(soft, abs=1e-6)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_distillation_trains_the_student_only(kind) -> None:
    student, teacher = randn(3, 4).requires_grad_(), randn(3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: deit_distillation(s, teacher, kind), (student,))
    student.grad = None
    deit_distillation(student, teacher, kind).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_soft_distillation_is_lowest_at_the_teacher() -> None:
    teacher = randn(6, 4)
    student = teacher.clone().requires_grad_()
    deit_distillation(student, teacher, "soft").backward()
    torch.testing.assert_close(student.grad, torch.zeros(6, 4, dtype=torch.float64), atol=1e-6, rtol=0)


def test_distillation_says_what_is_wrong() -> None:
    with pytest.raises(InputError, match="one shape"):
        deit_distillation(randn(2, 3), randn(2, 4))
    with pytest.raises(InputError, match="temperature"):
        deit_distillation(randn(2, 3), randn(2, 3), "soft", 0.0)
    with pytest.raises(InputError, match="hard"):
        deit_distillation(randn(2, 3), randn(2, 3), "hrd")  # type: ignore[arg-type]


def test_unit_distillation_equals_the_loop_and_leaves_out_equal_views() -> None:
    student, teacher = [randn(3, 5, seed=v) for v in range(4)], [randn(3, 5, seed=9), randn(3, 5, seed=8)]
    total, pairs = 0.0, 0
    for i, t in enumerate(teacher):
        for v, s in enumerate(student):
            if i != v:
                pairs += 1
                for a, b in zip(s, t, strict=True):
                    total += float(((a / a.norm() - b / b.norm()) ** 2).sum()) / 3
    assert unit_distillation_loss(student, teacher).item() == pytest.approx(total / pairs, abs=1e-6)
    with pytest.raises(InputError, match="different views"):
        unit_distillation_loss(student[:1], teacher[:1])


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_beta_shares_have_the_moments_of_beta(alpha) -> None:
    share = beta_share(alpha, 40_000, generator=torch.Generator().manual_seed(0))
    assert ((share >= 0) & (share <= 1)).all()
    assert share.mean().item() == pytest.approx(0.5, abs=0.01)
    assert share.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)
    assert beta_share(alpha, generator=torch.Generator().manual_seed(0)).shape == ()
