"""Several processes that train as one: the batch of all of them, with the gradient that one process would have.

A contrastive loss compares a view with every other view of the batch, so it needs the embeddings of all processes.
PyTorch's own all-gather returns them without a gradient; detaching the others', or keeping only one's own part of the
gradient, trains with a gradient that depends on the number of processes. `gather` does not.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from sslcourse.errors import InputError


def world_size() -> int:
    """How many processes train together; 1 where no process group is initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0; 0 where no process group is initialised."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gather(x: Tensor) -> Tensor:
    """The tensors of all processes, one after the other in the order of their ranks, differentiable.

    Backward sums what the losses of all processes send back to each part. With `DistributedDataParallel`, which
    averages parameter gradients over W processes, the gradient is that of the mean of the W losses:

    - the same loss of the gathered batch in every process gives the loss and the gradient of one process;
    - so do losses over each process's own anchors, against the gathered batch.

    Args:
        x: (N, ...), of the same shape and dtype in every process.

    Returns:
        (W * N, ...); `x` itself where one process trains alone.

    Raises:
        InputError: in every process, if the shapes differ.
    """
    if world_size() == 1:
        return x
    _check_equal_shapes(x)
    return _Gather.apply(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        total = grad_output.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]


def _check_equal_shapes(x: Tensor) -> None:
    """Raise the same error everywhere: a process that went on alone would wait for the others for ever."""
    mine = torch.tensor(x.shape, device=x.device)
    theirs = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(theirs, mine)
    shapes = [tuple(shape.tolist()) for shape in theirs]
    if len(set(shapes)) > 1:
        raise InputError(
            f"gather needs one shape in all processes; ranks 0, 1, ... have {shapes}: drop the last, incomplete batch."
        )
