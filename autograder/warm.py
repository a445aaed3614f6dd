"""What the zygote does once, so that neither its start nor a student's first call is slow."""

import ctypes
import gc
import importlib
import re
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_ANONYMOUS = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0\s*(?:\[heap\])?$")
_MADV_COLLAPSE = 25


class NoCompiler(types.ModuleType):
    """Stands for torch's compiler. Every optimiser imports it, which takes seconds, to call two that do nothing
    outside of compiled code; whoever asks for anything else gets the real one."""

    def disable(self, function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        """The function as it is: there is nothing to keep from compiling it."""
        return function

    def graph_break(self, *_: Any, **__: Any) -> None:
        """Nothing is traced."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def warm_up(trains: bool, many: bool = False) -> None:
    """Do once what is slow the first time, so that no student's first call pays for it. On the CPU: a process that has
    used CUDA cannot be forked.

    Args:
        trains: also make optimisers.
        many: also make forks cheaper, which takes a second.
    """
    torch.set_num_threads(1)
    sys.modules["torch._dynamo"] = torch._dynamo = NoCompiler("torch._dynamo")
    probe = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU())
    out = nn.functional.normalize(probe(torch.zeros(2, 4)))
    torch.autograd.grad(out, list(probe.parameters()), torch.ones_like(out), allow_unused=True)
    for optimizer in (torch.optim.SGD, torch.optim.AdamW) if trains else ():
        step = optimizer(probe.parameters(), lr=0.0)
        nn.functional.cross_entropy(probe(torch.zeros(2, 4)), torch.zeros(2, dtype=torch.long)).backward()
        step.step()
    leaf = torch.ones(2, 4, requires_grad=True)
    torch.logsumexp(torch.einsum("id,jd->ij", leaf, leaf), dim=1).sum().backward()
    gc.collect()
    gc.freeze()  # or the first collection in a fork copies every page that it looks at
    if many:
        huge_pages()


def huge_pages() -> None:
    """Gather what this process has allocated into pages of 2 MB, where the kernel can (Linux 6.1): a fork then copies a
    few hundred entries of the page table instead of 80,000, and its end frees as few."""
    size, libc = 2 << 20, ctypes.CDLL(None)
    try:
        with open("/proc/self/maps") as maps:
            found = [_ANONYMOUS.match(line) for line in maps]
    except OSError:
        return
    for start, end in [(int(m[1], 16), int(m[2], 16)) for m in found if m]:
        first, last = -(-start // size) * size, end // size * size
        if first < last:
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_COLLAPSE)
