"""CLIP: language supervises. An image has to find its caption among those of the batch, and a caption its image.

Radford et al. 2021, "Learning transferable visual models from natural language supervision", arXiv:2103.00020,
figure 3:

    for a batch of N images with a caption each:
        a random crop of every image                              -> `views`
        x = W_i f(image),  y = W_t g(caption)                     -> `backbone` and `image_proj`, `text`
        loss = symmetric cross-entropy of exp(t) cos(x_i, y_j)    -> `forward`
        t at most log 100                                         -> `after_step`

Data must have captions (`Images.captions`); where an image has several, each step draws one. Then
`zero_shot_weights(model.encode_text, classes)` makes a classifier of words.
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.rng import shard_rows
from sslcourse.errors import InputError
from sslcourse.losses.clip import clamp_log_scale, clip_loss
from sslcourse.nn.backbones import backbone
from sslcourse.nn.text import TextTransformer
from sslcourse.nn.vocabulary import Vocabulary
from sslcourse.train.config import TrainConfig
from sslcourse.train.distributed import gather

# The paper crops and does nothing else; colours are in the captions.
_CROP: dict[str, Any] = {"scale": (0.9, 1.0), "flip": 0.0, "jitter_p": 0.0, "gray": 0.0, "blur": 0.0}


class CLIP(nn.Module):
    """CLIP with any backbone of `sslcourse.nn.backbones` and a byte-pair encoding learned from the captions.

    Attributes:
        backbone: (B, 3, size, size) -> (B, num_features).
        image_proj: (B, num_features) -> (B, dim).
        text: (B, context_length) ids -> (B, dim).
        vocabulary: texts -> ids; kept with the weights.
        logit_scale: logarithm of the factor of the cosines, learned.
    """

    name: ClassVar[str] = "clip"
    uses: ClassVar[tuple[str, ...]] = ("indices",)
    temperature: ClassVar[float] = 0.07  # at the start, section 2.5

    @dataclass(frozen=True)
    class Config:
        """Settings of CLIP."""

        backbone: str = "vit_base_patch16"
        """Network f; see sslcourse.nn.backbones."""
        dim: int = 512
        """Width of the embedding that image and text share."""
        text_dim: int = 512
        """Width of the text transformer g."""
        text_depth: int = 12
        """Its layers."""
        text_heads: int = 8
        """Its attention heads."""
        context_length: int = 77
        """Tokens of a text, start and end included; longer captions are cut."""
        vocab_size: int = 49_408
        """Most tokens of the vocabulary that is learned from the captions."""
        tile: int = 0
        """Rows of similarities computed at a time, for batches of thousands of images; 0 computes all at once."""
        augment: Augment = field(default_factory=lambda: Augment(224, **_CROP))
        """The random view; its size is the side of the images that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone(config.backbone, config.augment.size)
        width: Any = self.backbone.num_features
        self.image_proj = nn.Linear(width, config.dim, bias=False)
        nn.init.normal_(self.image_proj.weight, std=width**-0.5)
        self.text = self.text_tower(config)
        self.vocabulary = Vocabulary(config.vocab_size, config.context_length)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / self.temperature)))

    def text_tower(self, c: Config) -> TextTransformer:
        """Causal, pooled at the end mark."""
        return TextTransformer(c.vocab_size, c.context_length, c.text_dim, c.text_depth, c.text_heads, c.dim)

    def prepare(self, data: Any) -> None:
        """Learn the vocabulary from the captions of `data` and turn them into ids."""
        captions = getattr(data, "captions", [])
        if not captions or not all(captions):
            raise InputError(f"{self.name} learns from captions, and this data has none; train on --data captions.")
        self.vocabulary.learn(text for texts in captions for text in texts)
        self.vocabulary.keep(captions)

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """(B, 3, H, W) uint8 -> (B, 3, size, size) float, and (B,) float in [0, 1), which says which caption."""
        view = self.config.augment(images, generator=generator)
        total, mine = shard_rows(len(images), generator)
        return [view, torch.rand(total, generator=generator)[mine].to(images.device)]

    def forward(self, views: list[Tensor], indices: Tensor) -> dict[str, Tensor]:
        """Loss of a batch, over the pairs of all processes."""
        img = self.encode_image(views[0])
        txt = self.text(self.vocabulary.draw(indices, views[1]))
        return {"loss": self.loss(gather(img), gather(txt)), "embedding": img, "positive": txt}

    def loss(self, img: Tensor, txt: Tensor) -> Tensor:
        """CLIP's loss of N pairs of embeddings (N, dim)."""
        return clip_loss(img, txt, self.logit_scale, tile=self.config.tile or None)

    def after_step(self, step: int, total_steps: int) -> None:
        """Keep the factor at 100 or less (section 2.5)."""
        clamp_log_scale(self.logit_scale)

    def encode_image(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) standardised float -> (B, dim) of unit length."""
        return F.normalize(self.image_proj(self.backbone(x)), dim=1)

    def encode_text(self, texts: str | list[str], *, truncate: bool = False) -> Tensor:
        """B texts -> (B, dim) of unit length; one that is too long is cut where `truncate`, else an `InputError`."""
        return F.normalize(self.text(self.vocabulary(texts, truncate=truncate)), dim=1)


CLIP.PRESETS = {
    # Minutes on 2 CPU cores for the captioned scenes at 32 px.
    "cpu": CLIP.Config(
        backbone="convnet",
        dim=128,
        text_dim=64,
        text_depth=2,
        text_heads=4,
        context_length=32,
        vocab_size=1024,
        augment=Augment(32, **(_CROP | {"flip": 0.5})),
        train=TrainConfig(epochs=12, batch_size=128, optimizer="adamw", lr=4e-3, weight_decay=0.05, warmup_epochs=1),
    ),
    # Section 2.5 and tables 18 to 20: 32 epochs of 400 million pairs at 5e-4, a warm-up of 2000 steps.
    "vit_base_patch16": CLIP.Config(
        tile=4096,
        train=TrainConfig(32, 0, 32_768, 1, "adamw", 4e-6, weight_decay=0.2, betas=(0.9, 0.98), warmup_epochs=0.16),
    ),
}
