"""A labelled set of images of one size, resident in memory, and the batches a training loop draws from it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from sslcourse.data.rng import step_generator
from sslcourse.errors import InputError

Batch = tuple[Tensor, Tensor, Tensor]  # images (B, 3, H, W) uint8, labels (B,), indices (B,)


@dataclass(frozen=True)
class Images:
    """Images as one uint8 tensor, which fits on the device whole for the datasets of the course.

    Attributes:
        images: (N, 3, H, W) uint8.
        labels: (N,) int64, -1 where an image has no label.
        classes: class names; `labels` index into it.
        name: what to call the set in tables.
        captions: for each image the sentences that describe it, at least one; empty for a set without captions.
    """

    images: Tensor
    labels: Tensor
    classes: list[str] = field(default_factory=list)
    name: str = "images"
    captions: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[1] != 3:
            shape = tuple(self.images.shape)
            raise InputError(f"Images holds uint8 (N, 3, H, W); got {self.images.dtype} {shape}.")
        if self.labels.shape != self.images.shape[:1]:
            raise InputError(f"Images got {len(self.images)} images but {len(self.labels)} labels.")
        if self.captions and len(self.captions) != len(self.images):
            raise InputError(f"Images got {len(self.images)} images but captions of {len(self.captions)}.")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.images[i], self.labels[i]

    def subset(self, index: Tensor) -> Self:
        """The images at `index` (int64 positions or a bool mask), in that order."""
        chosen = torch.arange(len(self))[index.cpu()].tolist() if self.captions else []
        captions = [self.captions[i] for i in chosen]
        return replace(self, images=self.images[index], labels=self.labels[index], captions=captions)

    def to(self, device: torch.device | str) -> Self:
        """The same set on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

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
        """Yield (images, labels, indices); the order depends on (seed, epoch) only.

        `start` leaves out that many batches, to continue in the middle of an epoch; `rows` (int64 positions in a batch)
        are those that this process wants of every batch when several share it.
        """
        for index in batch_indices(
            len(self), batch_size, seed=seed, epoch=epoch, shuffle=shuffle, drop_last=drop_last, start=start, rows=rows
        ):
            at = index.to(self.images.device)
            images, labels = self.images[at], self.labels[at]
            if device is not None:
                images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            yield images, labels, index


def batch_indices(
    n: int,
    batch_size: int,
    *,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    drop_last: bool = True,
    start: int = 0,
    rows: Tensor | None = None,
) -> list[Tensor]:
    """Positions of the images of each batch of an epoch over `n` images, with the arguments of `Images.batches`."""
    order = torch.randperm(n, generator=step_generator(seed, epoch)) if shuffle else torch.arange(n)
    order = order[start * batch_size : n - n % batch_size if drop_last else n]
    batches = [index for index in order.split(batch_size) if len(index)]
    return batches if rows is None else [index[rows[rows < len(index)]] for index in batches]
