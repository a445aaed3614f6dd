"""DeiT: what the distillation token learns from the teacher (Touvron et al. 2020, arXiv:2012.12877, section 4)."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError, unknown
from sslcourse.losses.precision import full_precision

KINDS = ("hard", "soft")


@full_precision
def deit_distillation(
    student: Tensor, teacher: Tensor, kind: Literal["hard", "soft"] = "hard", temperature: float = 3.0
) -> Tensor:
    """Cross-entropy with the teacher's first choice (eq. 3), or with its probabilities at a temperature (eq. 2).

    Args:
        student: (B, classes) logits.
        teacher: (B, classes) logits or log-probabilities, detached.
        kind: "hard" or "soft".
        temperature: of both sides when soft, > 0; its square multiplies the loss, which keeps the size of the gradient.

    Returns:
        scalar, the mean over the batch. Soft, it is eq. 2's divergence plus the teacher's entropy, a constant.
    """
    if student.ndim != 2 or student.shape != teacher.shape or not temperature > 0:
        raise InputError(
            f"deit_distillation needs logits (B, classes) of one shape and a temperature above 0; got "
            f"{tuple(student.shape)}, {tuple(teacher.shape)} and {temperature}."
        )
    if kind not in KINDS:
        raise unknown("distill", kind, KINDS)
    teacher = teacher.detach()
    if kind == "hard":
        return F.cross_entropy(student, teacher.argmax(dim=1))
    return temperature**2 * F.cross_entropy(student / temperature, (teacher / temperature).softmax(dim=1))
