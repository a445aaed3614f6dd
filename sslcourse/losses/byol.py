r"""BYOL's regression loss: predict the other view's projection, with no negatives at all.

    L = |p1/|p1| - z2/|z2||^2 + |p2/|p2| - z1/|z1||^2 = (2 - 2 cos(p1, z2)) + (2 - 2 cos(p2, z1))

Grill et al. 2020, "Bootstrap your own latent", arXiv:2006.07733, Eq. 2 and the symmetric sum below it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.precision import full_precision


@full_precision
def byol_loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor, *, eps: float = 1e-12) -> Tensor:
    """BYOL's loss of a batch: each prediction against the target's projection of the *other* view.

    Args:
        p1, p2: (N, D) float, predictions of the online network for view 1 and view 2; the gradient flows through them.
        z1, z2: (N, D) float, projections of the target network, which has no predictor; detached.
        eps: the smallest norm that a vector is divided by; a zero vector has cosine 0 with everything. The official JAX
            code amounts to 1e-6.

    Returns:
        scalar in [0, 8], the mean over N of the sum of both directions.
    """
    check_predictions("byol_loss", p1, p2, z1, z2)
    return (regression_loss(p1, z2.detach(), eps=eps) + regression_loss(p2, z1.detach(), eps=eps)).mean()


@full_precision
def regression_loss(p: Tensor, z: Tensor, *, eps: float = 1e-12) -> Tensor:
    """|p/|p| - z/|z||^2 = 2 - 2 cos(p, z) of every row: (N, D), (N, D) -> (N,) in [0, 4]. The sum over D, not the mean.

    Computed from the cosine: the squared difference loses half of the digits where p and z nearly agree.
    """
    return 2 - 2 * cosine(p, z, eps=eps)


def cosine(p: Tensor, z: Tensor, *, eps: float = 1e-12) -> Tensor:
    """Cosine of every row of p with the same row of z: (N, D), (N, D) -> (N,)."""
    return (_unit(p, eps) * _unit(z, eps)).sum(dim=-1)


def _unit(x: Tensor, eps: float) -> Tensor:
    """x / max(|x|, eps), also where |x|^2 would overflow: dividing by a constant first changes no direction."""
    scale = x.detach().abs().amax(dim=-1, keepdim=True).clamp_min(1.0)
    return F.normalize(x / scale, dim=-1, eps=eps)


def check_predictions(name: str, p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> None:
    """Raise InputError unless the four are (N, D) of one shape with N >= 1."""
    shapes = [tuple(x.shape) for x in (p1, p2, z1, z2)]
    if p1.ndim != 2 or len(set(shapes)) > 1 or len(p1) == 0:
        raise InputError(f"{name} needs p1, p2, z1 and z2 of one shape (N, D), N >= 1; got {shapes}.")
    if not all(torch.is_floating_point(x) for x in (p1, p2, z1, z2)):
        raise InputError(f"{name} needs floating-point vectors; got {[x.dtype for x in (p1, p2, z1, z2)]}.")
