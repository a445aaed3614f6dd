r"""DINO: a student matches the sharpened and centred output of its own moving average, across views.

    P_t = softmax((t - c) / tt),  P_s = softmax(s / ts),    L = mean over (i < G, v != i) of -sum_k P_t(i) log P_s(v)
    c <- m c + (1 - m) mean_b t

Centering alone drives the teacher to the uniform distribution, sharpening (tt < ts) alone to a single dimension; the
two together hold each other off. Caron et al. 2021, "Emerging properties in self-supervised vision transformers",
arXiv:2104.14294, Eq. 1 to 4, Algorithm 1.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.byol import regression_loss
from sslcourse.losses.precision import full_precision
from sslcourse.losses.swav import sinkhorn
from sslcourse.train.distributed import gather


@full_precision
def dino_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], center: Tensor, ts: float = 0.1, tt: float = 0.04
) -> Tensor:
    """DINO's loss: every student view against the teacher's output for every *other* global view.

    Args:
        student: V tensors (B, K), logits of all crops, global ones first.
        teacher: G <= V tensors (B, K), logits of the global crops in the same order; detached.
        center: (K,) or (1, K), subtracted from the teacher's logits only.
        ts, tt: temperatures of student and teacher, > 0; tt < ts sharpens.

    Returns:
        scalar, the mean over the pairs that are kept and over the batch.
    """
    return distillation_loss(student, [dino_targets(t, center, tt) for t in teacher], ts)


@full_precision
def dino_targets(teacher: Tensor, center: Tensor, tt: float) -> Tensor:
    """softmax((t - c) / tt) without gradient: (..., K) -> (..., K)."""
    _check_temperature(tt)
    return ((teacher.detach() - center.detach()) / tt).softmax(dim=-1)


@full_precision
def sinkhorn_centering(teacher: Tensor, tt: float, n_iter: int = 3) -> Tensor:
    """DINOv2's targets: Sinkhorn on logits / tt in place of the centre (Oquab et al. 2023, section 4; SwAV).

    Args:
        teacher: (N, K) logits of this process; the balance is over the batches of all processes.
        tt: temperature of the teacher, > 0.

    Returns:
        (N, K), rows sum to 1, without gradient.
    """
    _check_temperature(tt)
    return sinkhorn(teacher, tt, n_iter)


@full_precision
def distillation_loss(
    student: Sequence[Tensor], targets: Sequence[Tensor], ts: float = 0.1, *, same_view: bool = False
) -> Tensor:
    """Mean cross-entropy of the student's views with the targets of global views.

    Args:
        student: V tensors (B, K) of logits.
        targets: G tensors (B, K) of probabilities, targets[i] of view i; detached.
        ts: temperature of the student, > 0.
        same_view: also pair a view with its own target. DINOv2 passes lists of different views, which have no such
            pair, and adds the pairs up; times the number of pairs this is its value.
    """
    _check_temperature(ts)
    shapes = {tuple(x.shape) for x in (*student, *targets)}
    pairs = [(i, v) for i in range(len(targets)) for v in range(len(student)) if same_view or i != v]
    if len(shapes) > 1 or not pairs:
        raise InputError(
            f"DINO needs logits (B, K) of one shape and a pair of different views; got {len(student)} student and "
            f"{len(targets)} teacher views of shapes {sorted(shapes)}."
        )
    log_p = [F.log_softmax(s / ts, dim=-1) for s in student]
    terms = [-(targets[i].detach() * log_p[v]).sum(dim=-1).mean() for i, v in pairs]
    return torch.stack(terms).mean()


@full_precision
def unit_distillation_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean squared distance of unit logits over pairs of different views: the MSE arm of DINO's table 7.

    Args:
        student: V tensors (B, K), logits of all crops, global ones first.
        teacher: G <= V tensors (B, K), logits of the global crops in the same order; detached.
    """
    pairs = [(i, v) for i in range(len(teacher)) for v in range(len(student)) if i != v]
    if not pairs:
        raise InputError("unit_distillation_loss needs a pair of different views.")
    return torch.stack([regression_loss(student[v], teacher[i].detach()).mean() for i, v in pairs]).mean()


@torch.no_grad()
@full_precision
def update_center(center: Tensor, t: Tensor, m: float = 0.9) -> Tensor:
    """The next centre, m c + (1 - m) mean of t, after the loss has used the present one (Eq. 4).

    Args:
        center: (K,) or (1, K) or any shape with K values.
        t: (..., K) raw teacher logits of all global views, neither centred nor divided by a temperature. The mean runs
            over everything but K, and over all processes.
        m: in [0, 1].

    Returns:
        a new tensor of the shape of `center`.
    """
    if not 0 <= m <= 1 or center.numel() != t.shape[-1]:
        raise InputError(
            f"update_center needs m in [0, 1] and one centre a logit; got m={m}, {tuple(center.shape)} and "
            f"{tuple(t.shape)}."
        )
    mean = gather(t.flatten(0, -2).mean(dim=0, keepdim=True)).mean(dim=0)
    return m * center + (1 - m) * mean.view(center.shape)


def teacher_temperature(epoch: int, warmup: float, final: float, warmup_epochs: int) -> float:
    """The teacher's temperature at an epoch: `warmup_epochs` values evenly from `warmup` to `final`, then `final`."""
    if epoch >= warmup_epochs:
        return final
    return warmup + (final - warmup) * epoch / max(warmup_epochs - 1, 1)


def _check_temperature(value: float) -> None:
    if not value > 0:
        raise InputError(f"A temperature must be greater than 0; got {value}.")
