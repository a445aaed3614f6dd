"""One way to ask any model of images and words: ours, and the official ones of `zoo.load`."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sslcourse.data.preprocess import clip_preprocess
from sslcourse.data.tokenizer import BPETokenizer
from sslcourse.errors import InputError
from sslcourse.zoo.entries import ENTRIES
from sslcourse.zoo.load import load
from sslcourse.zoo.weights import SHIPPED, shipped

_BATCH = 256  # images at a time


@dataclass(frozen=True)
class WordModel:
    """A model of images and words, in eval mode.

    Attributes:
        name: what to call it in tables.
        prepare: image -> (3, size, size) float.
        image: (B, 3, size, size) -> (B, D).
        text: B texts -> (B, D); `InputError` for one that is too long, unless they are cut.
        scale, bias: of the cosines, as the model learned them; no bias means that classes compete in a softmax.
    """

    name: str
    prepare: Callable[[Image.Image], Tensor]
    image: Callable[[Tensor], Tensor]
    text: Callable[[list[str]], Tensor]
    scale: float
    bias: float | None = None

    @torch.no_grad()
    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        """Images of any sizes -> (N, D)."""
        prepared = torch.stack([self.prepare(image) for image in images])
        return torch.cat([self.image(part) for part in prepared.split(_BATCH)])

    def probabilities(self, cosines: Tensor) -> Tensor:
        """(N, C) cosines -> (N, C): a softmax over the classes, or SigLIP's answers to C questions of their own."""
        logits = self.scale * cosines
        return logits.softmax(dim=1) if self.bias is None else (logits + self.bias).sigmoid()


def word_model(
    name: str | os.PathLike[str] = "clip_shapes",
    path: str | os.PathLike[str] | None = None,
    *,
    truncate: bool = False,
) -> WordModel:
    """A model that can be asked in words.

    Args:
        name: weights that come with the repository ("clip_shapes"); a run of clip or siglip, by its folder or its
            model.safetensors; or an official CLIP of `zoo.ENTRIES`, with `path`.
        path: the official file of that name.
        truncate: cut texts that are too long.

    Raises:
        InputError: a model without words, files that are not there, an official tokenizer that is not installed.
    """
    if str(name) in ENTRIES:
        return _official(str(name), path, truncate)
    from sslcourse.train.checkpoint import load_model

    module: Any = load_model(shipped(str(name)) if str(name) in SHIPPED else Path(name))
    if not hasattr(module, "encode_text"):
        raise InputError(f"{name} is a run of {module.name}, which knows no words; clip and siglip do.")
    view, bias = module.config.augment, getattr(module, "logit_bias", None)
    return WordModel(
        name=module.name,
        prepare=lambda image: clip_preprocess(image, view.size, view.mean, view.std),
        image=module.encode_image,
        text=lambda texts: module.encode_text(texts, truncate=truncate),
        scale=module.logit_scale.exp().item(),
        bias=None if bias is None else bias.item(),
    )


def _official(name: str, path: str | os.PathLike[str] | None, truncate: bool) -> WordModel:
    entry, model = ENTRIES[name], load(name, path)
    if not hasattr(model, "encode_text") or name.startswith("siglip"):
        words = "has a tokenizer of its own that is not part of this course" if "siglip" in name else "knows no words"
        raise InputError(f"{name} {words}; OpenAI's and open_clip's CLIPs can be asked.")
    clip: Any = model
    tokenizer = BPETokenizer.official()
    return WordModel(
        name=name,
        prepare=lambda image: clip_preprocess(image, entry.image_size, entry.mean, entry.std),
        image=clip.encode_image,
        text=lambda texts: clip.encode_text(tokenizer(texts, clip.text.context_length, truncate=truncate)),
        scale=clip.logit_scale.exp().item(),
    )
