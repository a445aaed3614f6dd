r"""SimSiam's negative cosine: BYOL's loss without a second network; the stop-gradient alone keeps it from collapse.

    L = D(p1, sg(z2)) / 2 + D(p2, sg(z1)) / 2,    D(p, z) = -cos(p, z)

Chen and He 2020, "Exploring simple Siamese representation learning", arXiv:2011.10566, Eq. 1, 3 and 4. The value is
that of `byol_loss` of the same vectors, / 4 - 1.
"""

from torch import Tensor

from sslcourse.losses.byol import check_predictions, cosine
from sslcourse.losses.precision import full_precision


@full_precision
def simsiam_loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor, *, stop_gradient: bool = True) -> Tensor:
    """SimSiam's loss of a batch (Algorithm 1).

    Args:
        p1, p2: (N, D) float, predictor outputs of view 1 and view 2.
        z1, z2: (N, D) float, projector outputs of the same network; detached.
        stop_gradient: False lets the gradient flow into z1 and z2, too: the collapse of the paper's figure 2.

    Returns:
        scalar in [-1, 1], the mean over N and both directions.
    """
    check_predictions("simsiam_loss", p1, p2, z1, z2)
    if stop_gradient:
        z1, z2 = z1.detach(), z2.detach()
    return -0.5 * (cosine(p1, z2, eps=1e-8) + cosine(p2, z1, eps=1e-8)).mean()
