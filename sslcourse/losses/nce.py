r"""Noise-contrastive estimation, and what a contrastive loss says about mutual information.

NCE (Gutmann and Hyvarinen 2010) learns an unnormalised density by telling its data from noise: with s = log p_model and
M noise samples for each data point, the probability that a point x is data is sigmoid( s(x) - log(M p_noise(x)) ), so

    L = -log sigmoid( s(x) - log M p_n(x) ) - sum_{m=1..M} log( 1 - sigmoid( s(x_m) - log M p_n(x_m) ) )

InfoNCE is its ranking relative. With N pairs (x_i, y_i) and a critic f (van den Oord et al. 2018, Sec. 2.3),

    I(X; Y) >= log N - L_InfoNCE = log N + mean_i ( f(x_i, y_i) - logsumexp_j f(x_i, y_j) ),

which is tight for f = log p(y|x) / p(y) as N grows, and never exceeds log N (Poole et al. 2019).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.precision import full_precision


@full_precision
def nce(pos: Tensor, neg: Tensor, log_noise_pos: Tensor | float, log_noise_neg: Tensor | float) -> Tensor:
    """Binary NCE (Gutmann and Hyvarinen 2010, Eq. 8, with M noise samples for each data point).

    Args:
        pos: (A,) float, log p_model of the data points (a score, if the normaliser is a parameter in it).
        neg: (A, M) float, log p_model of the noise samples, M >= 1.
        log_noise_pos: log p_noise of the data points, (A,) or a number: log(1/n) for uniform noise over n instances.
        log_noise_neg: log p_noise of the noise samples, (A, M) or a number.

    Returns:
        scalar, mean over the A data points, noise terms summed.
    """
    if pos.ndim != 1 or neg.ndim != 2 or len(neg) != len(pos) or neg.shape[1] == 0:
        raise InputError(f"nce needs pos (A,) and neg (A, M); got {tuple(pos.shape)} and {tuple(neg.shape)}.")
    log_m = math.log(neg.shape[1])
    is_data = F.softplus(-(pos - log_noise_pos - log_m))
    is_noise = F.softplus(neg - log_noise_neg - log_m).sum(dim=1)
    return (is_data + is_noise).mean()


@full_precision
def mi_lower_bound(scores: Tensor) -> Tensor:
    """The InfoNCE bound on mutual information, log N - L_InfoNCE (van den Oord et al. 2018, Sec. 2.3).

    Args:
        scores: (N, N) float, f(x_i, y_j) of N independent pairs; the diagonal holds the pairs.

    Returns:
        scalar, in nats; at most log N.
    """
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or len(scores) < 2:
        raise InputError(f"mi_lower_bound needs (N, N) scores with N >= 2; got {tuple(scores.shape)}.")
    labels = torch.arange(len(scores), device=scores.device)
    return math.log(len(scores)) - F.cross_entropy(scores, labels)
