"""Is the representation collapsing? Four numbers about a batch of embeddings, as pure functions.

A collapsed network gives every image the same vector (complete collapse) or uses a few of its dimensions
(dimensional collapse), and its loss can look fine meanwhile. These numbers do not.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize, pdist

from sslcourse.errors import InputError


class CollapseWarning(UserWarning):
    """The monitors say that the representation has collapsed."""


def feature_std(z: Tensor) -> Tensor:
    """Spread of the directions: sqrt(D) times the mean over dimensions of the std of z / ||z||.

    1 where directions are uniform on the sphere, 0 where all are the same (SimSiam, Chen and He 2021, section 4.1,
    where it is plotted without the factor sqrt(D)).

    Args:
        z: (N, D) embeddings, N >= 2; normalised inside.

    Returns:
        scalar.
    """
    return normalize(_checked(z), dim=1).std(dim=0, correction=0).mean() * z.shape[1] ** 0.5


def rankme(z: Tensor, eps: float = 1e-7) -> Tensor:
    """Effective rank: exp of the entropy of the normalised singular values (RankMe, Garrido et al. 2023, eq. 1-2).

    Between 1 and min(N, D); not centred, as in the paper.

    Args:
        z: (N, D) embeddings, N >= 2.
        eps: added to each probability, the paper's guard for log 0.

    Returns:
        scalar.
    """
    values = torch.linalg.svdvals(_checked(z).float())
    p = values / values.sum().clamp_min(1e-12) + eps
    return torch.exp(-(p * p.log()).sum())


def alignment(x: Tensor, y: Tensor, alpha: float = 2.0) -> Tensor:
    """Mean distance of positive pairs, E ||x - y||^alpha on the unit sphere (Wang and Isola 2020, section 4.1.1).

    0 is perfect; unrelated directions give 2 for alpha = 2.

    Args:
        x, y: (N, D) embeddings of the two views; normalised inside.

    Returns:
        scalar.
    """
    if x.shape != y.shape:
        raise InputError(f"alignment compares pairs of embeddings; got {tuple(x.shape)} and {tuple(y.shape)}.")
    distance = (normalize(_checked(x), dim=1) - normalize(_checked(y), dim=1)).norm(dim=1)
    return distance.pow(alpha).mean()


def uniformity(z: Tensor, t: float = 2.0) -> Tensor:
    """log E exp(-t ||x - y||^2) over pairs x != y on the unit sphere (Wang and Isola 2020, section 4.1.2).

    0 when all directions are the same; -2t for directions far apart in high dimension, lower is more uniform.

    Args:
        z: (N, D) embeddings, N >= 2; normalised inside.
        t: the scale of the kernel.

    Returns:
        scalar.
    """
    squared = pdist(normalize(_checked(z).float(), dim=1)).pow(2)
    return torch.logsumexp(-t * squared, dim=0) - torch.log(torch.tensor(float(len(squared)), device=z.device))


# Below these a run has collapsed. Random initial networks of the course give a spread of 0.2 or more.
MIN_STD, MIN_RANK = 0.05, 1.5


def measure(z: Tensor, positive: Tensor | None = None) -> dict[str, float]:
    """All the numbers for one batch; alignment only where the embeddings of the second view are given.

    Args:
        z: (N, D) embeddings of the first view.
        positive: (N, D) embeddings of the second view.
    """
    z = z.detach().float()
    values = {"feature_std": feature_std(z), "rankme": rankme(z), "uniformity": uniformity(z)}
    if positive is not None:
        values["alignment"] = alignment(z, positive.detach().float())
    return {name: value.item() for name, value in values.items()}


def collapse_warning(values: dict[str, float]) -> str | None:
    """One sentence if the numbers of `measure` say that the representation has collapsed, else None."""
    std, rank = values["feature_std"], values["rankme"]
    if std < MIN_STD:
        return (
            f"COLLAPSE: the embeddings of different images point the same way (feature std {std:.3f}, healthy is near "
            "1); what keeps them apart (negatives, stop-gradient, centring, variance term) is not working."
        )
    if rank < MIN_RANK:
        return (
            f"COLLAPSE: the embeddings use about {rank:.1f} dimension(s) (RankMe); every image is described by the "
            "same one or two numbers."
        )
    return None


def _checked(z: Tensor) -> Tensor:
    if z.ndim != 2 or len(z) < 2:
        raise InputError(f"Embeddings must be (N, D) with N >= 2; got {tuple(z.shape)}.")
    return z
