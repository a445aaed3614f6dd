"""The EMA of a teacher and LARS on the parameters of a ResNet-18, against lightly's."""

import copy

import torch
from torch import nn

from benchmarks.harness import Pair, Row
from sslcourse.train.optim import LARS, ema_update, param_groups


def _resnet18() -> nn.Module:
    import timm

    torch.manual_seed(0)
    return timm.create_model("resnet18", num_classes=0)


def ema() -> Pair:
    """One EMA step of the parameters, each side on a teacher of its own that starts from the same weights."""
    from lightly.models.utils import update_momentum

    online, ours = _resnet18(), _resnet18()
    with torch.no_grad():
        for p in online.parameters():
            p.mul_(1.1)
    theirs = copy.deepcopy(ours)

    def step() -> list[torch.Tensor]:
        ema_update(online, ours, 0.99, buffers="keep")
        return [p.detach() for p in ours.parameters()]

    def peer_step() -> list[torch.Tensor]:
        update_momentum(online, theirs, m=0.99)
        return [p.detach() for p in theirs.parameters()]

    return step, peer_step


def lars() -> Pair:
    """One LARS step on weights with fixed gradients.

    lightly divides by |g| + weight_decay * |p|, an upper bound of the |g + weight_decay * p| of the MoCo v3 and BYOL codes
    that ours follows, so the two agree only in the limit of no decay. (At exactly 0 lightly does not scale at all.)
    """
    from lightly.utils.lars import LARS as LightlyLARS

    ours = _resnet18()
    generator = torch.Generator().manual_seed(0)
    for p in ours.parameters():
        p.grad = torch.randn(p.shape, generator=generator)
    theirs = copy.deepcopy(ours)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        q.grad = p.grad
    decay = 1e-12
    mine = LARS(param_groups(ours, decay), lr=0.1, momentum=0.9)
    peer = LightlyLARS(param_groups(theirs, decay), lr=0.1, momentum=0.9)

    def step() -> list[torch.Tensor]:
        mine.step()
        return [p.detach() for p in ours.parameters()]

    def peer_step() -> list[torch.Tensor]:
        peer.step()
        return [p.detach() for p in theirs.parameters()]

    return step, peer_step


ROWS = [
    Row("ema", "EMA of ResNet-18", "lightly update_momentum", ema, target=1.5, requires=("lightly",)),
    Row("lars", "LARS step of ResNet-18", "lightly LARS", lars, target=2.0, requires=("lightly",)),
]
