r"""KoLeo: push every feature away from its nearest neighbour, so that a batch spreads over the sphere.

    L = -1/N sum_i log min_{j != i} |x_i - x_j|,    x of unit length

Sablayrolles et al. 2019, "Spreading vectors for similarity search", Eq. 3 (after the entropy estimator of Kozachenko
and Leonenko 1987); DINOv2 (Oquab et al. 2023, section 4) adds it with weight 0.1 to the class tokens of each view.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.precision import full_precision


@full_precision
def koleo(x: Tensor, *, eps: float = 1e-8) -> Tensor:
    """KoLeo regulariser of a batch.

    Args:
        x: (N, D) float, N >= 2, L2-normalised inside. The gradient flows to both points of a pair; which one is the
            neighbour is a constant.
        eps: added to every coordinate of the difference and to the distance, so duplicates have a finite loss, about
            -log(eps), and a finite gradient. As in the official code.

    Returns:
        scalar; the lower, the more evenly the points are spread.
    """
    x = _unit(x, eps)
    neighbour = _nearest(x)
    distance = (x - x[neighbour] + eps).norm(dim=1)
    return -(distance + eps).log().mean()


@full_precision
def nearest_neighbor(x: Tensor, eps: float = 1e-8) -> Tensor:
    """(N, D) -> (N,) int64: of each point the other one with the largest cosine."""
    return _nearest(_unit(x, eps))


def _unit(x: Tensor, eps: float) -> Tensor:
    if x.ndim != 2 or len(x) < 2:
        raise InputError(f"koleo needs 2 or more points (N, D), each with a neighbour; got {tuple(x.shape)}.")
    return F.normalize(x, dim=1, eps=eps)


@torch.no_grad()
def _nearest(x: Tensor) -> Tensor:
    cosine = x @ x.T
    return cosine.fill_diagonal_(-2).argmax(dim=1)  # below -1, so that no opposite point ties with the point itself
