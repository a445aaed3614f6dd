"""Sets too large for memory: worker processes decode and resize, nothing else; batches look like those of `Images`."""

import os
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sslcourse.data.decode import Size, Source, pixels
from sslcourse.data.images import Batch, Images, batch_indices
from sslcourse.data.rng import step_generator
from sslcourse.errors import InputError

_TRIES = 100  # broken files in a row before the stream gives up


class ImageStream:
    """The images of a source at `index`, decoded when a batch asks for them.

    A broken file is replaced by the next readable one of the set, so that batches keep their size, and the first
    epoch ends with one warning that counts such files.

    Args:
        source: images, not decoded.
        index: (N,) int64 positions in `source` that make up the set.
        size: (height, width) that every image is brought to: short side resized, centre-cropped.
        workers: decoding processes; None for one a core, at most 16; 0 decodes in this process.
    """

    def __init__(self, source: Source, index: Tensor, size: Size, *, workers: int | None = None) -> None:
        self.source, self.index, self.size = source, index, size
        self.workers = min(16, os.cpu_count() or 1) if workers is None else workers
        self.labels = source.labels[index].long()
        self.classes, self.name = list(source.classes), source.name
        self._broken: set[int] = set()  # found and not warned about yet
        self._warned: set[int] = set()

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return pixels(self.source.open(int(self.index[i])), self.size), self.labels[i]

    def subset(self, index: Tensor) -> "ImageStream":
        """The images at `index` (int64 positions or a bool mask), in that order."""
        return ImageStream(self.source, self.index[index], self.size, workers=self.workers)

    def batches(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        device: torch.device | str | None = None,
        shuffle: bool = True,
        drop_last: bool = True,
        start: int = 0,
        rows: Tensor | None = None,
    ) -> Iterator[Batch]:
        """Yield (images, labels, indices) as `Images.batches` does, with its arguments.

        What `start` and `rows` leave out is not decoded either.
        """
        order = batch_indices(
            len(self), batch_size, seed=seed, epoch=epoch, shuffle=shuffle, drop_last=drop_last, start=start, rows=rows
        )
        loader = DataLoader(
            _Decoder(self),
            batch_sampler=[asked.tolist() for asked in order],
            num_workers=min(self.workers, len(order)),
            pin_memory=device is not None and torch.device(device).type == "cuda",
            generator=step_generator(seed, epoch),  # otherwise DataLoader draws from the global generator
        )
        try:
            for asked, (images, labels, index) in zip(order, loader, strict=True):
                self._note_broken(asked, index)
                if device is not None:
                    images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
                yield images, labels, index
        finally:  # also where the caller takes no more batches than it needs
            self._warn_broken()

    def read(self, index: Tensor) -> Images:
        """The images at `index` (int64 positions) in memory."""
        stream = self.subset(index)
        images, labels, _ = next(iter(stream.batches(len(stream), shuffle=False)))
        return Images(images, labels, self.classes, self.name)

    def _note_broken(self, asked: Tensor, got: Tensor) -> None:
        if (got < 0).any():
            raise InputError(f"{self.name}: {_TRIES} files in a row are not readable images.")
        self._broken |= {int(i) for i in asked[asked != got]} - self._warned

    def _warn_broken(self) -> None:
        if not self._broken:
            return
        first = ", ".join(self.source.describe(int(self.index[i])) for i in sorted(self._broken)[:3])
        warnings.warn(
            f"{self.name}: {len(self._broken)} files are not readable images and were replaced by others: {first}",
            stacklevel=3,
        )
        self._warned |= self._broken
        self._broken = set()


class _Decoder(Dataset[tuple[Tensor, Tensor, int]]):
    """What a worker runs: position -> (image, label, position)."""

    def __init__(self, stream: ImageStream) -> None:
        self.stream = stream

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, int]:
        n = len(self.stream)
        for k in range(min(_TRIES, n)):
            j = (i + k) % n
            try:
                return *self.stream[j], j
            except Exception:  # whatever a broken file makes a decoder raise
                continue
        return torch.zeros(3, *self.stream.size, dtype=torch.uint8), torch.tensor(-1), -1
