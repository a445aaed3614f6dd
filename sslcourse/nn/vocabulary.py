"""A vocabulary that travels with the weights: what reads a text, and what it was trained on, cannot come apart."""

from collections.abc import Iterable, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from sslcourse.data.tokenizer import BPETokenizer
from sslcourse.errors import InputError

_BASE = 514  # ids of a vocabulary without merges: the bytes, twice, and the two marks


class Vocabulary(nn.Module):
    """A byte-pair encoding whose merges are a buffer, so that a checkpoint holds them.

    Args:
        size: most ids it can have.
        context_length: ids of a text, start and end included.
    """

    merges: Tensor

    def __init__(self, size: int, context_length: int) -> None:
        super().__init__()
        if size < _BASE:
            raise InputError(f"a byte-level vocabulary has at least {_BASE} ids; got {size}.")
        self.size, self.context_length = size, context_length
        self._kept: tuple[Tensor, Tensor] | None = None  # ids of all captions; where those of each image begin
        self.register_buffer("merges", torch.full((size - _BASE, 2), -1, dtype=torch.int32))

    def learn(self, texts: Iterable[str]) -> None:
        """Learn the merges from texts (`BPETokenizer.train`)."""
        found = torch.tensor(BPETokenizer.train(texts, self.size).merges, dtype=torch.int32).view(-1, 2)
        self.merges.fill_(-1)[: len(found)] = found.to(self.merges.device)

    def tokenizer(self) -> BPETokenizer:
        """The tokenizer of what has been learned."""
        return BPETokenizer(self.merges[self.merges[:, 0] >= 0].tolist())

    def forward(self, texts: str | Sequence[str], *, truncate: bool = False) -> Tensor:
        """(B, context_length) ids of texts; one that is too long is cut where `truncate`, else an `InputError`."""
        return self.tokenizer()(texts, self.context_length, truncate=truncate).to(self.merges.device)

    def keep(self, captions: Sequence[Sequence[str]]) -> None:
        """Turn the captions of N images into ids once, cut where they are too long, for `draw`."""
        start = torch.tensor([0, *map(len, captions)]).cumsum(0)
        ids = self.tokenizer()(list(chain.from_iterable(captions)), self.context_length, truncate=True)
        self._kept = ids, start

    def draw(self, indices: Tensor, u: Tensor) -> Tensor:
        """Ids of one caption an image.

        Args:
            indices: (B,) int64, which images.
            u: (B,) float in [0, 1): which of the captions of each.

        Returns:
            (B, context_length) int64, on the device of `indices`.
        """
        if self._kept is None:
            raise InputError("there are no captions to learn from yet: call prepare(data) first, as fit does.")
        ids, start = self._kept = self._kept[0].to(indices.device), self._kept[1].to(indices.device)
        first, end = start[indices], start[indices + 1]
        return ids[first + ((end - first) * u).long()]
