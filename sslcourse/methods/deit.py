"""DeiT: the supervised baseline, a ViT that learns from labels and strong mixing, and from a teacher if there is one.

Touvron, Cord, Douze, Massa, Sablayrolles, Jegou 2020, "Training data-efficient image transformers & distillation
through attention", arXiv:2012.12877:

    for a batch of N labelled images:
        a random view, mixed with that of another image by mixup or CutMix          -> `views`
        the class token's classifier learns the mixed, smoothed labels              -> `forward`
        the distillation token's classifier learns what a convolutional network,
        the teacher, says of the mixed view (hard: its first choice; section 4)     -> `forward`
    at the end the two classifiers vote                                             -> `predict`

A convolutional network of one's own as the teacher: `--backbone convnet` trains one, `--teacher RUN` names it.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.mixing import beta_share, mixup_cutmix
from sslcourse.data.rng import shard_rows
from sslcourse.errors import InputError, unknown
from sslcourse.losses.deit import KINDS, deit_distillation
from sslcourse.methods.simclr import SimCLR
from sslcourse.nn.backbones import VITS, backbone
from sslcourse.nn.vit import ViT
from sslcourse.train.config import TrainConfig


class DeiT(nn.Module):
    """DeiT, or any other backbone with the same supervised training.

    Attributes:
        backbone: what is kept; a ViT has a further token, the distillation token, after the class token.
        head: (B, num_features) -> (B, classes), of the class token.
        distilled: the same of the distillation token.
    """

    name: ClassVar[str] = "deit"
    uses: ClassVar[tuple[str, ...]] = ("labels",)

    @dataclass(frozen=True)
    class Config:
        """Settings of DeiT."""

        backbone: str = "vit_small_patch16"
        """Network; see sslcourse.nn.backbones. The distillation token needs a ViT."""
        classes: int = 1000
        """Number of classes."""
        teacher: str = ""
        """Run folder of a trained `deit` that teaches, say with a convolutional backbone; none by default."""
        distill: Literal["hard", "soft"] = "hard"
        """Learn the teacher's first choice, or its probabilities at temperature 3."""
        smoothing: float = 0.1
        """Probability that the labels give to all classes together."""
        mixup: float = 0.8
        """Alpha of mixup's Beta distribution; 0 for no mixup."""
        cutmix: float = 1.0
        """Alpha of CutMix's; it takes turns with mixup. 0 for no CutMix."""
        drop_path: float = 0.1
        """Stochastic depth of a ViT."""
        augment: Augment = field(default_factory=lambda: Augment(224, jitter=(0.4, 0.4, 0.4, 0.0), gray=0.0, blur=0.0))
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.classes < 2 or not 0 <= config.smoothing < 1 or min(config.mixup, config.cutmix) < 0:
            raise InputError(f"deit needs 2 or more classes, smoothing in [0, 1), mixing >= 0; got {config}.")
        if config.distill not in KINDS:
            raise unknown("distill", config.distill, KINDS)
        if config.teacher and config.backbone not in VITS:
            raise InputError(f"The distillation token needs a ViT; got the backbone {config.backbone} and a teacher.")
        self.config = config
        vit = {"registers": 1, "drop_path": config.drop_path} if config.backbone in VITS else {}
        self.backbone = backbone(config.backbone, config.augment.size, **vit)
        width: Any = self.backbone.num_features
        self.head, self.distilled = nn.Linear(width, config.classes), nn.Linear(width, config.classes)
        self.distilled.requires_grad_(bool(config.teacher))
        self._teacher: list[Any] = []  # in a list, so that it is no part of the checkpoint

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> mixed views, and (B, B): how much of each image is in each view."""
        c, total = self.config, shard_rows(len(images), generator)[0]
        x, share = c.augment(images, generator=generator), torch.eye(len(images), device=images.device)
        kinds: list[Any] = [(a, kind) for a, kind in ((c.mixup, "mixup"), (c.cutmix, "cutmix")) if a]
        pick, middle = int(torch.randint(2, (), generator=generator)), torch.rand(total, 2, generator=generator)
        if not kinds:
            return [x, share]
        alpha, kind = kinds[pick % len(kinds)]
        lam = float(beta_share(alpha, generator=generator))
        return list(mixup_cutmix(x, share, lam, torch.arange(len(x)).flip(0), kind, center=middle[: len(x)]))

    def forward(self, views: list[Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Loss of a batch with labels (B,)."""
        c, (x, share) = self.config, views
        if bool((labels < 0).any()) or bool((labels >= c.classes).any()):
            raise InputError(f"deit needs a label below classes={c.classes} for every image.")
        token, distilled = self.tokens(x)
        goal = (share @ (F.one_hot(labels, c.classes) * (1 - c.smoothing) + c.smoothing / c.classes)).float()
        loss = F.cross_entropy(self.head(token).float(), goal)
        if c.teacher and self.training:
            loss = 0.5 * loss + 0.5 * deit_distillation(self.distilled(distilled), self.teach(x), c.distill)
        return {"loss": loss, "embedding": token}

    def tokens(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The class token's and the distillation token's features, (B, num_features) each."""
        if not isinstance(self.backbone, ViT):
            features = self.backbone(x)
            return features, features
        tokens = self.backbone.forward_features(x)
        return tokens[:, 0], tokens[:, 1]

    @torch.no_grad()
    def teach(self, x: Tensor) -> Tensor:
        """The teacher's log-probabilities (B, classes) of standardised views."""
        if not self._teacher:
            from sslcourse.train.checkpoint import load_model

            found: Any = load_model(self.config.teacher)
            if found.name != self.name or found.config.classes != self.config.classes:
                raise InputError(f"{self.config.teacher} is no run of deit with {self.config.classes} classes.")
            self._teacher.append(found.to(x.device).eval())
        return self._teacher[0].predict(x).log()

    def predict(self, x: Tensor) -> Tensor:
        """(B, 3, size, size) standardised views -> (B, classes), the mean of both classifiers' probabilities."""
        token, distilled = self.tokens(x)
        own = self.head(token).float().softmax(dim=1)
        return (own + self.distilled(distilled).float().softmax(dim=1)) / 2 if self.config.teacher else own


_SKETCH = SimCLR.PRESETS["cpu_sketch"]
DeiT.PRESETS = {
    # For sketches. Mixed images want more epochs than a minute has.
    "cpu": DeiT.Config(
        "vit_mini_conv8",
        10,
        mixup=0.0,
        cutmix=0.0,
        augment=_SKETCH.augment,
        train=replace(_SKETCH.train, steps=400, lr=1e-3),
    ),
    # Table 9: AdamW, lr 5e-4 x batch / 512, batch 1024, weight decay 0.05, 5 of 300 epochs of warm-up.
    "vit_small": DeiT.Config(
        train=TrainConfig(300, batch_size=1024, optimizer="adamw", lr=2.5e-4, weight_decay=0.05, warmup_epochs=5)
    ),
}
