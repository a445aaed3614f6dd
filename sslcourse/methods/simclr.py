"""SimCLR: pull two views of one image together, push all other images of the batch away.

Chen, Kornblith, Norouzi, Hinton 2020, "A simple framework for contrastive learning of visual representations",
arXiv:2002.05709, algorithm 1:

    for a batch of N images:
        two random views of every image                          -> `views`
        h = f(view)           the representation, kept           -> `backbone`
        z = g(h)              the projection, thrown away        -> `head`
        loss = NT-Xent(z1, z2, tau) over all 2N views            -> `forward`
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.views import two_views
from sslcourse.errors import InputError, unknown
from sslcourse.losses.infonce import nt_xent
from sslcourse.nn.backbones import backbone
from sslcourse.nn.heads import projection_head
from sslcourse.train.config import TrainConfig
from sslcourse.train.distributed import gather


class SimCLR(nn.Module):
    """SimCLR with any backbone of `sslcourse.nn.backbones`.

    Attributes:
        backbone: (B, 3, size, size) -> (B, num_features), what is kept.
        head: (B, num_features) -> (B, dim).
    """

    name: ClassVar[str] = "simclr"

    @dataclass(frozen=True)
    class Config:
        """Settings of SimCLR."""

        backbone: str = "resnet50"
        """Network f whose output h is the representation; see sslcourse.nn.backbones."""
        head: Literal["mlp", "linear", "none"] = "mlp"
        """Network g before the loss: one hidden layer, a linear map, or nothing (the paper's figure 8)."""
        hidden: int = 2048
        """Width of the hidden layer of the head."""
        dim: int = 128
        """Width of the embedding z that the loss compares."""
        tau: float = 0.1
        """Temperature; the lower, the more the hardest negatives count."""
        tile: int = 0
        """Rows of similarities computed at a time, for batches of thousands of images; 0 computes all at once."""
        augment: Augment = field(default_factory=lambda: Augment(224))
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: nn.Module | None = None) -> None:
        """`encoder` takes the place of the backbone that `config` names; it has `num_features`."""
        super().__init__()
        if not config.tau > 0:
            raise InputError(f"simclr needs a temperature above 0; got tau={config.tau}.")
        self.config = config
        self.backbone = backbone(config.backbone, config.augment.size) if encoder is None else encoder
        width: Any = self.backbone.num_features
        if config.head == "none":
            self.head: nn.Module = nn.Identity()
        elif config.head in ("linear", "mlp"):
            layers = 1 if config.head == "linear" else 2
            self.head = projection_head(width, config.hidden, config.dim, layers=layers, last_bn=True)
        else:
            raise unknown("head", config.head, ["mlp", "linear", "none"])

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> two (B, 3, size, size) float views, t(x) and t'(x) with t, t' ~ T."""
        return list(two_views(images, partial(self.config.augment, generator=generator)))

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch, over the embeddings of all processes.

        Both views go through the network as one batch, so batch-norm statistics span both.
        """
        z1, z2 = self.head(self.backbone(torch.cat(views))).chunk(2)
        loss = nt_xent(gather(z1), gather(z2), self.config.tau, tile=self.config.tile or None)
        return {"loss": loss, "embedding": z1, "positive": z2}


_CPU = SimCLR.Config(
    backbone="convnet_fast",
    hidden=256,
    tau=0.2,
    # Colour is random in `Shapes` and would tell images apart at no effort, so the views change it strongly; the crops
    # are nearly whole, since the outline of the whole object is what is to be learned.
    augment=Augment(32, scale=(0.8, 1.0), jitter=(0.8, 0.8, 0.8, 0.5), jitter_p=1.0, gray=0.4, blur=0.0, solarize=0.3),
    # Small batches: in the same time, more steps are worth more than more negatives.
    train=TrainConfig(steps=600, batch_size=64, optimizer="adamw", lr=8e-3, weight_decay=1e-3, warmup_epochs=1),
)
SimCLR.PRESETS = {
    # Half a minute on 2 CPU cores for `Shapes` at 32 px.
    "cpu": _CPU,
    # The same for its sketches ("shapes:sketch"): ink on paper has no colour to distort, so the crops do it.
    "cpu_sketch": replace(
        _CPU,
        augment=Augment(32, scale=(0.5, 1.0), jitter_p=0.0, gray=0.0, blur=0.0),
        train=replace(_CPU.train, lr=4e-3),
    ),
    # A few minutes on 2 CPU cores for CIFAR-10: strong crops, jitter at half strength, no blur.
    "cpu_cifar": replace(
        _CPU,
        backbone="convnet",
        augment=Augment(32, scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), blur=0.0),
        train=replace(_CPU.train, steps=600, batch_size=128, lr=4e-3),
    ),
    # Appendix B.9 (tau 0.5, no blur, jitter at half strength) with the optimiser settings of the official README: LARS,
    # lr 1.0 x batch / 256, weight decay 1e-4.
    "cifar10_resnet18": SimCLR.Config(
        backbone="resnet18",
        hidden=512,
        tau=0.5,
        tile=1024,
        augment=Augment(32, jitter=(0.4, 0.4, 0.4, 0.1), blur=0.0),
        train=TrainConfig(epochs=1000, batch_size=512, optimizer="lars", lr=1.0, weight_decay=1e-4, warmup_epochs=10),
    ),
    # Sections 2.2 and 2.3, appendix A: batch 4096, LARS at lr 0.3 x batch / 256 = 4.8, weight decay 1e-6, tau 0.1.
    "imagenet_resnet50": SimCLR.Config(
        tile=1024,
        train=TrainConfig(epochs=100, batch_size=4096, optimizer="lars", lr=0.3, weight_decay=1e-6, warmup_epochs=10),
    ),
    # The ViT baseline: AdamW and the schedule that MoCo v3 (Chen, Xie, He 2021, section 5.1) trains its ViTs with.
    "vit_small": SimCLR.Config(
        backbone="vit_small_patch16",
        tau=0.2,
        tile=1024,
        train=TrainConfig(
            epochs=300, batch_size=1024, optimizer="adamw", lr=1.5e-4, weight_decay=0.1, warmup_epochs=40
        ),
    ),
}
