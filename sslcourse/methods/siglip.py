"""SigLIP: CLIP without the softmax. Every pair of the batch is a yes-or-no question of its own.

Zhai et al. 2023, "Sigmoid loss for language image pre-training", arXiv:2303.15343, algorithm 1:

    for a batch of N images with a caption each:
        x, y as in CLIP; the text tower sees all of the text      -> `text_tower`
        loss = -1/N sum_ij log sigmoid(+-(exp(t) cos(x_i, y_j) + b)) -> `loss`

It starts at exp(t) = 10, b = -10: of the N^2 pairs nearly all are negatives, and b says so from the first step on.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from sslcourse.losses.clip import siglip_loss
from sslcourse.methods.clip import CLIP
from sslcourse.nn.text import TextTransformer


class SigLIP(CLIP):
    """SigLIP; the attributes are those of `CLIP`, and `logit_bias`, what is added to the logits, learned."""

    name: ClassVar[str] = "siglip"
    temperature: ClassVar[float] = 0.1

    @dataclass(frozen=True)
    class Config(CLIP.Config):
        """Settings of SigLIP."""

        bias: float = -10.0
        """Start of what is added to the scaled cosines."""

    PRESETS: ClassVar[dict[str, Config]]  # type: ignore[assignment]

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.logit_bias = nn.Parameter(torch.tensor(float(config.bias)))

    def text_tower(self, c: CLIP.Config) -> TextTransformer:
        """Every token sees all others, padding included, and the last one stands for the text."""
        return TextTransformer(
            c.vocab_size,
            c.context_length,
            c.text_dim,
            c.text_depth,
            c.text_heads,
            c.dim,
            causal=False,
            pool="last",
            proj_bias=True,
        )

    def loss(self, img: Tensor, txt: Tensor) -> Tensor:
        """SigLIP's loss of N pairs of embeddings (N, dim)."""
        return siglip_loss(img, txt, self.logit_scale.exp(), self.logit_bias, tile=self.config.tile or None)

    def after_step(self, step: int, total_steps: int) -> None:
        """Nothing: the factor of a sigmoid is not limited."""


def _of(config: CLIP.Config, **changes: object) -> SigLIP.Config:
    """CLIP's settings with some changes."""
    return SigLIP.Config(**({name: getattr(config, name) for name in config.__dataclass_fields__} | changes))


_CPU, _BASE = CLIP.PRESETS["cpu"], CLIP.PRESETS["vit_base_patch16"]
SigLIP.PRESETS = {
    # Minutes on 2 CPU cores for the captioned scenes at 32 px.
    "cpu": _of(_CPU),
    # Section 4: batches of 32 thousand pairs, texts of 64 tokens, AdamW with a fast second moment.
    "vit_base_patch16": _of(
        _BASE,
        context_length=64,
        vocab_size=32_000,
        train=replace(_BASE.train, lr=1e-3 * 256 / 32_768, weight_decay=1e-4, betas=(0.9, 0.95)),
    ),
}
