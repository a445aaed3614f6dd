"""The EMA of a teacher and LARS on the parameters of a ResNet-18, against lightly's."""

import copy
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.harness import Pair, Row
from sslcourse.train.optim import LARS, ema_update, param_groups

M = 0.99  # momentum of the EMA


def _resnet18() -> nn.Module:
    import timm

    torch.manual_seed(0)
    return timm.create_model("resnet18", num_classes=0)


def _ema_pair(peer_update: Callable[[nn.Module, nn.Module], None]) -> Pair:
    """One EMA step of the parameters, each side on a teacher of its own that starts from the same weights."""
    online, ours = _resnet18(), _resnet18()
    with torch.no_grad():
        for p in online.parameters():
            p.mul_(1.1)
    theirs = copy.deepcopy(ours)

    def step() -> list[torch.Tensor]:
        ema_update(online, ours, M, buffers="keep")
        return [p.detach() for p in ours.parameters()]

    def peer_step() -> list[torch.Tensor]:
        peer_update(online, theirs)
        return [p.detach() for p in theirs.parameters()]

    return step, peer_step


def ema_lightly() -> Pair:
    """lightly 1.6 has left the loop, too: it multiplies and adds with torch._foreach."""
    from lightly.models.utils import update_momentum

    return _ema_pair(lambda online, target: update_momentum(online, target, m=M))


def ema_loop() -> Pair:
    """The loop over parameters that lightly had up to 1.5 and most codes have."""

    def loop(online: nn.Module, target: nn.Module) -> None:
        for o, t in zip(online.parameters(), target.parameters(), strict=True):
            t.data = t.data * M + o.data * (1.0 - M)

    return _ema_pair(loop)


def lars() -> Pair:
    """One LARS step on weights with fixed gradients.

    lightly divides by |g| + weight_decay * |p|, where MoCo v3, BYOL and we divide by |g + weight_decay * p|, so the two
    agree only in the limit of no decay. (At exactly 0 lightly does not scale at all.)
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
    Row("ema", "EMA of ResNet-18", "lightly update_momentum", ema_lightly, target=1.5, requires=("lightly",)),
    Row("ema", "EMA of ResNet-18", "loop over parameters", ema_loop, target=1.5),
    Row("lars", "LARS step of ResNet-18", "lightly LARS", lars, target=2.0, requires=("lightly",)),
]
