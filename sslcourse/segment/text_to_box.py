"""A small detector that reads: boxes of what words name, from the features of a frozen CLIP.

The idea of Grounding DINO (Liu et al. 2023) in small. Detection is matching: every query (here a cell of the image's
map) is compared with every token of the text, and the logit of query and token is a scaled dot product. Phrases are
encoded one by one, so that no phrase reads another (section 3.4, "sub-sentence level text feature"). The paper mixes
image and text in six layers each of a transformer; here they meet in the dot product only.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.errors import InputError
from sslcourse.methods.clip import CLIP
from sslcourse.segment.grounded import Grounding, ground_boxes
from sslcourse.segment.resize import resize_longest, to_pixels

LIMITS = {
    "box_threshold": 0.2,
    "text_threshold": 0.15,
    "nms_iou": 0.5,
}  # a small model is less sure than Grounding DINO
SCALE = 2  # the CLIP sees half of the detector's resolution


@dataclass(frozen=True)
class Tokens:
    """T tokens of P phrases: their spelling, features (T, D) of the frozen text tower, and phrase of each (T,)."""

    words: list[str]
    features: Tensor
    phrase: Tensor


class TextToBox(nn.Module):
    """Logits of queries and tokens, and a box for every query.

    Args:
        clip: a trained CLIP with a `ConvNet`; it is frozen and no part of the module or its file.
        image_size: side S in pixels, a multiple of 8; the map has S/8 cells a side.
        dim: width of the space that queries and tokens share.
        hidden: width of the convolutions between CLIP's features and the queries.
    """

    def __init__(self, clip: CLIP, image_size: int = 128, dim: int = 64, hidden: int = 96) -> None:
        super().__init__()
        if not hasattr(clip.backbone, "stages") or image_size % 8:
            raise InputError("the detector reads a CLIP with a convnet, at an image_size that is a multiple of 8.")
        self.clip = (clip.requires_grad_(False).eval(),)  # in a tuple: no part of the module and its checkpoint
        self.image_size, self.grid = image_size, image_size // 8
        stages: Any = clip.backbone.stages
        width = int(stages[-1][0].out_channels + stages[-2][0].out_channels)
        self.trunk = nn.Sequential(
            nn.Conv2d(width, hidden, 1), nn.BatchNorm2d(hidden), nn.SiLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1), nn.BatchNorm2d(hidden), nn.SiLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1), nn.BatchNorm2d(hidden), nn.SiLU(),
        )  # fmt: skip
        self.query, self.box = nn.Conv2d(hidden, dim, 1), nn.Conv2d(hidden, 4, 1)
        self.token = nn.Linear(clip.config.text_dim, dim)
        self.bias = nn.Parameter(torch.tensor(-4.0))  # few queries match a token

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) in 0 .. 255, at most S a side -> (B, D, S/8, S/8): CLIP's last two stages, frozen."""
        clip = self.clip[0].to(images.device)
        view, stages = clip.config.augment, cast(nn.Sequential, clip.backbone.stages)
        mean, std = (images.new_tensor(x, dtype=torch.float32).view(3, 1, 1) for x in (view.mean, view.std))
        x = (images.float() / 255 - mean) / std
        x = F.pad(x, (0, self.image_size - x.shape[-1], 0, self.image_size - x.shape[-2]))
        x = F.avg_pool2d(x, SCALE)
        maps = []
        for stage in stages:
            x = stage(x)
            maps.append(x)
        size = (self.grid, self.grid)
        return torch.cat([F.interpolate(m, size, mode="bilinear", align_corners=False) for m in maps[-2:]], dim=1)

    @torch.no_grad()
    def read(self, phrases: list[str]) -> Tokens:
        """The tokens of phrases, each phrase read by itself; the marks of beginning and end are left out."""
        clip = self.clip[0]
        ids, text, tokenizer = clip.vocabulary(phrases), clip.text, clip.vocabulary.tokenizer()
        x = text.token_embedding(ids) + text.positional_embedding[: ids.shape[1]]
        x = text.ln_final(text.transformer(x))
        place = torch.arange(ids.shape[1], device=ids.device)
        inside = (place > 0) & (place < ids.argmax(dim=1)[:, None])
        words = [tokenizer.decode([i]).strip() for i in ids[inside].tolist()]
        return Tokens(words, x[inside], inside.nonzero()[:, 0])

    def forward(self, features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What Q = (S/8)^2 queries match and where.

        Args:
            features: (B, D, S/8, S/8), see `features`.
            tokens: (T, D'), see `read`.

        Returns:
            logits (B, Q, T); boxes (B, Q, 4) centre x, centre y, width, height as shares of S.
        """
        x = self.trunk(features)
        query = self.query(x).flatten(2).transpose(1, 2)
        token = self.token(tokens)
        logits = query @ token.T / token.shape[1] ** 0.5 + self.bias
        reach = F.softplus(self.box(x)).flatten(2).transpose(1, 2) / self.grid
        y, x_ = torch.meshgrid(*[torch.arange(self.grid, device=x.device)] * 2, indexing="ij")
        middle = (torch.stack([x_, y], dim=-1).flatten(0, 1) + 0.5) / self.grid
        low, high = middle - reach[..., :2], middle + reach[..., 2:]
        return logits, torch.cat([(low + high) / 2, high - low], dim=-1)


@torch.no_grad()
def find_text(model: TextToBox, image: Any, text: str, **limits: Any) -> Grounding:
    """Boxes of what a text names, in pixels of the image, the surest first.

    Args:
        model: a trained `TextToBox`.
        image: what `to_pixels` takes.
        text: phrases, separated by full stops: "red star. blue ring".
        limits: `box_threshold`, `text_threshold` and `nms_iou` of `ground_boxes` in place of `LIMITS`.
    """
    phrases = [phrase.strip().lower() for phrase in text.split(".") if phrase.strip()]
    if not phrases:
        raise InputError("a text to look for has words in it, its phrases separated by full stops.")
    pixels = to_pixels(image)
    small = resize_longest(pixels, model.image_size)
    tokens = model.eval().read(phrases)
    logits, boxes = model(model.features(small[None]), tokens.features)
    side = (model.image_size, model.image_size)
    found = ground_boxes(logits[0], boxes[0], tokens.words, side, **(LIMITS | limits))
    ratio = found.boxes.new_tensor([pixels.shape[2] / small.shape[2], pixels.shape[1] / small.shape[1]] * 2)
    limit = found.boxes.new_tensor([pixels.shape[2], pixels.shape[1]] * 2)
    return Grounding(
        torch.minimum((found.boxes * ratio).clamp_min(0), limit), found.scores, found.phrases, found.queries
    )
