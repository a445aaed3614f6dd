"""What keeps a teacher from saying the same of all images: a moving mean that is subtracted, or Sinkhorn."""

from typing import Literal

import torch
from torch import Tensor, nn

from sslcourse.errors import unknown
from sslcourse.losses.dino import dino_targets, sinkhorn_centering, update_center

Centering = Literal["mean", "sinkhorn", "none"]
KINDS = ("mean", "sinkhorn", "none")


class Targets(nn.Module):
    """Logits of a teacher (..., K) to targets (..., K), rows that sum to 1, without gradient.

    In training mode the centre then moves, so the next call uses the mean up to this one.

    Args:
        k: number of prototypes.
        kind: "mean" subtracts the centre (DINO), "sinkhorn" balances the batch of all processes (DINOv2), "none" does
            neither.
        m: momentum of the centre.

    Attributes:
        center: (k,).
    """

    center: Tensor

    def __init__(self, k: int, kind: Centering = "mean", m: float = 0.9) -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown("centering", kind, KINDS)
        self.kind, self.m = kind, m
        self.register_buffer("center", torch.zeros(k))

    @torch.no_grad()
    def forward(self, logits: Tensor, tt: float) -> Tensor:
        if self.kind == "sinkhorn":
            return sinkhorn_centering(logits.flatten(0, -2), tt).view_as(logits)
        targets = dino_targets(logits, self.center, tt)
        if self.training and self.kind == "mean":
            self.center.copy_(update_center(self.center, logits, self.m))
        return targets
