"""Hard negatives: made of others (MoCHi) on MoCo v2, or weighed by hardness (HCL) on SimCLR.

Kalantidis, Sariyildiz, Pion, Weinzaepfel, Larlus 2020, "Hard negative mixing for contrastive learning",
arXiv:2010.01028; Robinson, Chuang, Sra, Jegelka 2021, "Contrastive learning with hard negative samples",
arXiv:2010.04592. Both change one line of the method that they build on:

    MoCHi: append s1 mixtures of two of the n_hard hardest keys, and s2 of one and the query     -> `own_negatives`
    HCL:   replace the sum over negatives by a debiased one with weights exp(beta s / tau)       -> `forward`
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sslcourse.data.rng import shard_rows
from sslcourse.errors import InputError
from sslcourse.losses.negatives import MoCHiDraws, hcl_reweighted, in_batch_similarities, mochi_draws, mochi_mix
from sslcourse.methods.moco import MoCo, MoCoV2
from sslcourse.methods.simclr import SimCLR
from sslcourse.train.distributed import gather


class MoCHi(MoCo):
    """MoCo v2 with synthetic hard negatives."""

    name: ClassVar[str] = "mochi"

    @dataclass(frozen=True)
    class Config(MoCo.Config):
        """Settings of MoCHi, on top of MoCo's."""

        n_hard: int = 1024
        """How many of the most similar keys of the queue are mixed."""
        s1: int = 1024
        """Negatives made of two hard ones."""
        s2: int = 128
        """Negatives made of a hard one and less than one half of the query."""

    PRESETS: ClassVar[dict[str, Any]]

    def __init__(self, config: "MoCHi.Config", encoder: nn.Module | None = None) -> None:
        super().__init__(config, encoder)
        if not 1 <= config.n_hard <= config.queue or min(config.s1, config.s2) < 0:
            raise InputError(f"mochi needs 1 <= n_hard <= queue; got {config.n_hard} and {config.queue}.")

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """MoCo's, and which hard negatives are mixed in which proportion."""
        config: Any = self.config
        views = super().views(images, generator)
        total, mine = shard_rows(len(images), generator)
        draws = mochi_draws(total, config.n_hard, config.s1, config.s2, generator)
        return [*views, *(d[mine].to(images.device) for d in draws)]

    def own_negatives(self, q: Tensor, draws: list[Tensor]) -> Tensor:
        """(B, s1 + s2, dim) unit vectors without gradient."""
        config: Any = self.config
        with torch.no_grad():
            q = normalize(q.to(self.queue.keys.dtype), dim=1)
            hardest = (q @ self.queue.keys.T).topk(config.n_hard, dim=1).indices
        return mochi_mix(q, self.queue.keys[hardest], MoCHiDraws(*draws))


class HCL(SimCLR):
    """SimCLR with debiased negatives weighed by their hardness."""

    name: ClassVar[str] = "hcl"

    @dataclass(frozen=True)
    class Config(SimCLR.Config):
        """Settings of HCL, on top of SimCLR's."""

        beta: float = 1.0
        """Concentration on the hard negatives; 0 weighs all the same."""
        tau_plus: float = 0.1
        """Expected share of negatives that are of the anchor's own class; 0 corrects nothing."""

    PRESETS: ClassVar[dict[str, Any]]

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch, over the embeddings of all processes."""
        config: Any = self.config
        z1, z2 = self.head(self.backbone(torch.cat(views))).chunk(2)
        pos, neg = in_batch_similarities(gather(z1), gather(z2))
        loss = hcl_reweighted(pos, neg, config.tau, config.beta, config.tau_plus)
        return {"loss": loss, "embedding": z1, "positive": z2}


def _settings(config: Any) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


MoCHi.PRESETS = {
    "cpu": MoCHi.Config(**_settings(MoCoV2.PRESETS["cpu"]), n_hard=64, s1=32, s2=8),
    # Table 1: 200 epochs of ImageNet as MoCo v2, MoCHi (1024, 1024, 128).
    "imagenet_resnet50": MoCHi.Config(**_settings(MoCoV2.PRESETS["imagenet_resnet50"])),
}
_CIFAR = HCL.Config(**_settings(SimCLR.PRESETS["cifar10_resnet18"]))
HCL.PRESETS = {
    "cpu": HCL.Config(**_settings(SimCLR.PRESETS["cpu"])),
    # Section 5.1 and appendix, with a ResNet-18: batch 256, tau 0.5, Adam at 1e-3, weight decay 1e-6, 400 epochs.
    "cifar10_resnet18": replace(
        _CIFAR,
        train=replace(_CIFAR.train, epochs=400, batch_size=256, optimizer="adamw", lr=1e-3, weight_decay=1e-6),
    ),
}
