r"""Barlow Twins: make the cross-correlation of two views the identity, so features agree and do not repeat each other.

    C_ij = sum_b z1_bi z2_bj / (|z1_i| |z2_j|),    L = sum_i (1 - C_ii)^2 + lambda sum_i sum_{j != i} C_ij^2

with features centred over the batch. Zbontar et al. 2021, "Barlow Twins: self-supervised learning via redundancy
reduction", arXiv:2103.03230, Eq. 1 and 2, Algorithm 1.
"""

from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.precision import full_precision


@full_precision
def cross_correlation(z1: Tensor, z2: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Correlation over the batch of every feature of z1 with every feature of z2: (N, D), (N, D) -> (D, D) in [-1, 1].

    `eps` is added to the variances, as batch norm does; a feature that is constant has correlation 0, not NaN.
    """
    if z1.ndim != 2 or z1.shape != z2.shape or len(z1) < 2:
        raise InputError(
            f"cross_correlation needs two (N, D) tensors with N >= 2; got {tuple(z1.shape)} and {tuple(z2.shape)}."
        )
    a, b = (_standardised(z, eps) for z in (z1, z2))
    return a.T @ b / len(a)


@full_precision
def barlow_twins_loss(z1: Tensor, z2: Tensor, lambd: float = 0.0051, *, eps: float = 1e-5) -> Tensor:
    """Barlow Twins' loss of a batch.

    Args:
        z1, z2: (N, D) float, projections of the two views, standardised inside, N >= 2.
        lambd: weight of the redundancy term, >= 0; the paper's value is 0.0051.
        eps: added to the variances.

    Returns:
        scalar >= 0, a sum over the entries of C (it grows with D).
    """
    if lambd < 0:
        raise InputError(f"barlow_twins_loss got lambd={lambd}: the weight of the redundancy term is 0 or more.")
    c = cross_correlation(z1, z2, eps=eps)
    diagonal = c.diagonal()
    return (1 - diagonal).square().sum() + lambd * (c.square().sum() - diagonal.square().sum())


def _standardised(z: Tensor, eps: float) -> Tensor:
    centred = z - z.mean(dim=0)
    return centred * (centred.square().mean(dim=0) + eps).rsqrt()
