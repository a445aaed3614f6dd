"""NT-Xent forward and backward: the tiled one-pass form against the peers' and against plain cross-entropy."""

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Pair, Row, gradients
from sslcourse.losses import nt_xent

TAU = 0.5
TILE = 256


def _views(n: int, d: int = 128) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    z1 = torch.randn(n, d, generator=generator)
    return z1, z1 + torch.randn(n, d, generator=generator)


def _tiled(z1: Tensor, z2: Tensor) -> Tensor:
    return nt_xent(z1, z2, TAU, tile=TILE)


def against_lightly() -> Pair:
    from lightly.loss import NTXentLoss

    z1, z2 = _views(2048)
    loss = NTXentLoss(TAU)
    return lambda: gradients(_tiled, z1, z2), lambda: gradients(loss, z1, z2)


def against_pml() -> Pair:
    from pytorch_metric_learning.losses import SupConLoss

    z1, z2 = _views(2048)
    image = torch.arange(len(z1)).repeat(2)
    loss = SupConLoss(TAU)
    return lambda: gradients(_tiled, z1, z2), lambda: gradients(lambda a, b: loss(torch.cat([a, b]), image), z1, z2)


def plain_cross_entropy(z1: Tensor, z2: Tensor) -> Tensor:
    """The textbook form: the (2N, 2N) logits, -inf on the diagonal, cross-entropy with the partner as the class."""
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    logits = (z @ z.T / TAU).fill_diagonal_(-torch.inf)
    return F.cross_entropy(logits, torch.arange(len(z)).roll(len(z1)))


def against_plain() -> Pair:
    z1, z2 = _views(8192)
    return lambda: gradients(_tiled, z1, z2), lambda: gradients(plain_cross_entropy, z1, z2)


LIGHTLY = ("lightly NTXentLoss", against_lightly)
PML = ("pytorch-metric-learning SupConLoss", against_pml)
SPEED = "NT-Xent forward + backward, N = 2048, D = 128"

ROWS = [
    Row("ntxent-2048", SPEED, *LIGHTLY, target=4.0, requires=("lightly",)),
    Row("ntxent-2048", SPEED, *PML, target=6.0, requires=("pytorch_metric_learning",)),
    Row("ntxent-2048", "its peak memory", *LIGHTLY, target=0.25, kind="memory", requires=("lightly",)),
    Row("ntxent-2048", "its peak memory", *PML, target=0.25, kind="memory", requires=("pytorch_metric_learning",)),
    Row(
        "ntxent-8192-mem",
        "NT-Xent peak memory, N = 8192",
        "plain cross-entropy",
        against_plain,
        target=0.10,
        kind="memory",
    ),
]
