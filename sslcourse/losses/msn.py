"""MSN: a masked view is assigned to the prototypes of the whole one, and all prototypes are used.

Assran, Caron, Misra, Bojanowski, Bordes, Vincent, Joulin, Rabbat, Ballas 2022, "Masked Siamese networks for
label-efficient learning", arXiv:2204.07141, equation 1.
"""

from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.precision import full_precision
from sslcourse.train.distributed import gather


@full_precision
def msn_loss(anchors: Tensor, targets: Tensor, tau: float = 0.1, weight: float = 1.0) -> Tensor:
    """Cross-entropy of anchors and targets, minus `weight` times the entropy of the mean prediction ("me-max").

        L = 1/(MB) sum_im H(p+_i, p_im) - weight H(p),    p_im = softmax(a_im / tau),    p = 1/(MB) sum_im p_im

    The second term is what keeps all images from one prototype: neither a centre nor Sinkhorn is needed. It is of the
    batch of all processes.

    Args:
        anchors: (M, B, K), cosines of M anchor views of every image with K prototypes.
        targets: (B, K), sharpened assignments of the target views, rows that sum to 1; no gradient flows to them.

    Returns:
        Scalar; the smallest possible one is -weight log K.
    """
    if anchors.ndim != 3 or anchors.shape[1:] != targets.shape:
        raise InputError(f"msn_loss needs anchors (M, B, K) and targets (B, K); got {(*anchors.shape,)} and "
                         f"{(*targets.shape,)}.")  # fmt: skip
    if tau <= 0:
        raise InputError(f"msn_loss needs a temperature tau > 0; got {tau}.")
    log_p = (anchors / tau).log_softmax(dim=-1)
    entropy = -(targets.detach() * log_p).sum(dim=-1).mean()
    mean = gather(log_p.exp().mean(dim=(0, 1))[None]).mean(dim=0)
    spread = -(mean * mean.clamp_min(1e-12).log()).sum()
    return entropy - weight * spread
