"""Centering against sharpening: DINO's figure 7 in miniature.

python -m benchmarks.findings.dino_centering

The teacher's targets carry information where single ones are sharp and their mean over images is not:
(H(mean) - mean of H) / ln K, the mean divergence of a target from the mean target. It is 0 in both kinds of collapse:
one prototype for all images (both entropies 0), or the uniform distribution for all (both ln K).
"""

import math
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.findings import simclr_common as shared
from benchmarks.findings.common import Finding, run
from sslcourse import methods, train
from sslcourse.data import Images
from sslcourse.data.augment import Augment
from sslcourse.data.rng import step_generator
from sslcourse.methods.dino import DINO
from sslcourse.nn.vit import ViT

SHARP, FLAT = 0.04, 1.0
ARMS: dict[str, tuple[float, str]] = {
    "both": (SHARP, "mean"),
    "sharpening only": (SHARP, "none"),
    "centering only": (FLAT, "mean"),
    "neither": (FLAT, "none"),
}
EVERY = 10  # steps between two points of a curve
VIT: dict[str, Any] = {"patch_size": 8, "dim": 48, "depth": 2, "n_heads": 3}
MILD: dict[str, Any] = {"jitter": (0.4, 0.4, 0.2, 0.1), "gray": 0.0, "blur": 0.0}
# Crops that a network of this size can match, and without the two warm-ups, which would hide what collapses.
CHANGES: dict[str, Any] = {
    "hidden": 96, "bottleneck": 32, "prototypes": 64, "m": 0.95, "freeze": 0.0, "n_local": 2,
    "augment": Augment(32, scale=(0.5, 1.0), **MILD), "local": Augment(16, scale=(0.2, 0.6), **MILD),
}  # fmt: skip


class Watched(DINO):
    """DINO with a small ViT that keeps the entropies of its teacher's targets on one view of some test images."""

    view: Tensor
    curve: list[tuple[int, float, float]]

    def network(self) -> nn.Module:
        return ViT(self.config.augment.size, **VIT)

    def after_step(self, step: int, total_steps: int) -> None:
        super().after_step(step, total_steps)
        if step % EVERY == 0 or step == total_steps - 1:
            self.curve.append((step, *entropies(self.answers(self.view))))

    @torch.no_grad()
    def answers(self, view: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, K): the teacher's targets; the centre stays where it is."""
        self.eval()
        p = self.targets(self.teacher["head"](self.backbone(view)), self.config.tt)
        self.train()
        return p


def entropies(p: Tensor) -> tuple[float, float]:
    """Mean entropy of the rows of p (B, K), and the entropy of the mean row, in nats."""
    p = p.double()
    return float(_entropy(p).mean()), float(_entropy(p.mean(dim=0)))


def config(seed: int, tt: float = SHARP, method: Any = DINO, **changes: Any) -> Any:
    """The settings of one run of DINO, or of a method built on it."""
    settings = shared.config(seed, method, tt=tt, tt_start=tt, **CHANGES | changes)
    return replace(settings, train=replace(settings.train, lr=2e-3, batch_size=shared.BATCH // 2))


def watched(seed: int, tt: float, centering: str, data: tuple[Images, Images], **changes: Any) -> Watched:
    """A run with its curve; initial weights, images and crops depend on the seed only."""
    settings = config(seed, tt, centering=centering, **changes)
    model: Watched = methods.build(Watched, settings)
    model.view = settings.augment(data[1].images[:256], generator=step_generator(seed, 0))
    model.curve = []
    with TemporaryDirectory() as folder:
        train.fit(model, data[0], settings, folder, progress=False)
    return model


def information(model: Watched) -> float:
    """(H(mean) - mean H) / ln K at the end of the run."""
    single, mean = model.curve[-1][1:]
    return max(0.0, mean - single) / math.log(model.config.prototypes)


def measure(seed: int) -> dict[str, float]:
    """Information in the teacher's targets of test images as a share of ln K, for one seed."""
    data = shared.images(seed)
    return {arm: information(watched(seed, *setting, data)) for arm, setting in ARMS.items()}


def setting() -> dict[str, Any]:
    """What all arms share, for the record."""
    own = {"preset": "cpu, with a ViT of 2 blocks", "batch_size": shared.BATCH // 2, "prototypes": 64, "n_local": 2}
    return shared.setting() | own


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp_min(1e-12).log()).sum(dim=-1)


if __name__ == "__main__":
    question = "Does DINO's teacher need centering, sharpening or both to say something about Shapes?"
    metric = "information in the targets, share of ln K"
    run(Finding("dino_centering", question, metric, "both", setting()), measure)
