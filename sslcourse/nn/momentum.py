"""What a method with a slow second encoder keeps beside the network that is trained: the copy, a queue of its keys."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from sslcourse.errors import InputError
from sslcourse.losses.moco import queue_enqueue

M = TypeVar("M", bound=nn.Module)


def frozen_copy(module: M) -> M:
    """A copy with the same weights that no gradient trains; `train.optim.ema_update` moves it."""
    return copy.deepcopy(module).requires_grad_(False)


class KeyQueue(nn.Module):
    """The last `size` keys, as buffers, so that a checkpoint holds them (MoCo, He et al. 2020, Section 3.2).

    Attributes:
        keys: (size, dim) float unit vectors; random ones until real keys have replaced them, as in the paper.
        ptr: () int64, where the next batch is written.
    """

    keys: Tensor
    ptr: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 0:
            raise InputError(f"A queue has 0 or more keys; got {size}.")
        self.register_buffer("keys", nn.functional.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("ptr", torch.zeros((), dtype=torch.int64))

    def push(self, keys: Tensor) -> None:
        """Overwrite the oldest keys by (B, dim) new ones; of a batch that is larger than the queue only the last."""
        if len(self.keys):
            self.ptr.copy_(queue_enqueue(self.keys, self.ptr, keys[-len(self.keys) :]))
