"""MixMatch: guess the labels of what has none from two views, sharpen the guess, then mix everything with everything.

Berthelot et al. 2019, "MixMatch: a holistic approach to semi-supervised learning", arXiv:1905.02249, algorithm 1:

    for a batch of N images, of which every `one_in`-th has a label:
        two weak views of every image                                                    -> `views`
        guess q = sharpen(mean of the predictions for both views)                        -> `forward`
        shuffle all views and mix each with its partner, labels and guesses alike        -> `forward`
        loss = cross-entropy of the labelled + weight x squared error of the others      -> `forward`
"""

from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.data.mixing import beta_share, mixup_cutmix
from sslcourse.data.rng import shard_rows
from sslcourse.losses.consistency import guess_labels, mixmatch_loss
from sslcourse.methods.fixmatch import FixMatch


class MixMatch(FixMatch):
    """MixMatch: two weak views, whose guessed labels and pixels are mixed with one another (algorithm 1)."""

    name: ClassVar[str] = "mixmatch"
    strong: ClassVar[bool] = False

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Two weak views, and what the mixing draws: (B, 2, 2), a random order and a Beta share for every view."""
        total, mine = shard_rows(len(images), generator)
        order = torch.rand(total, 2, generator=generator)
        share = beta_share(self.config.alpha, total, 2, generator=generator)
        draws = torch.stack([order, share.maximum(1 - share)], dim=1)[mine]  # nearer to the image itself (Eq. 9)
        return [*super().views(images, generator), draws.to(images.device)]

    def forward(self, views: list[Tensor], labels: Tensor, indices: Tensor) -> dict[str, Tensor]:
        """Loss of a batch: cross-entropy of the labelled, squared error of the others, all of them mixed."""
        known = self.known(labels, indices)
        with torch.no_grad():
            guess = guess_labels([self.head(self.backbone(x)).float() for x in views[:2]], self.config.temperature)
        target = torch.where(known[:, None], F.one_hot(labels.clamp_min(0), self.config.classes).to(guess), guess)
        rows = torch.cat([known.nonzero()[:, 0], (~known).nonzero()[:, 0]])
        x, y = torch.cat([view[rows] for view in views[:2]]), target[rows].repeat(2, 1)
        first = torch.cat([known[rows], known[rows]]).argsort(descending=True, stable=True)  # the labelled come first
        order, share = (views[2][rows, k].T.flatten()[first] for k in range(2))
        mixed, y = mixup_cutmix(x[first], y[first], share.to(x.dtype), order.argsort())
        h = self.backbone(mixed)
        weight = self.config.weight * self.risen.item()
        return {
            "loss": mixmatch_loss(self.head(h).float(), y, 2 * int(known.sum()), weight),
            "embedding": h[: len(known)],
        }


MixMatch.PRESETS = {k: replace(c, weight=75.0, ramp=0.4) for k, c in FixMatch.PRESETS.items()}
