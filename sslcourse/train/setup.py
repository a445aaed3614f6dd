"""What `fit` needs before its first step: device and precision, optimiser, learning rate, signals, random state."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import nn

from sslcourse.errors import InputError, unknown
from sslcourse.train.config import TrainConfig
from sslcourse.train.optim import LARS, param_groups, scaled_lr, warmup_cosine


def make_fabric(train: TrainConfig) -> Any:
    """Lightning Fabric with the devices and the precision of `train`; under torchrun with torchrun's processes."""
    try:
        from lightning.fabric import Fabric
    except ImportError:
        from lightning_fabric import Fabric  # the same code in its own, smaller package

    accelerator = train.accelerator
    if accelerator == "auto":
        mps = torch.backends.mps.is_available()
        accelerator = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise InputError("train.accelerator is cuda, but this machine has no CUDA device; use auto or cpu.")
    precision: Any = train.precision
    if precision == "auto":
        bf16 = accelerator == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16-mixed" if bf16 else "32-true"
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", train.devices))
    nodes = int(os.environ.get("WORLD_SIZE", devices)) // devices
    strategy = "ddp" if devices * nodes > 1 else "auto"
    return Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=strategy, precision=precision)


def make_optimizer(module: nn.Module, train: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """The optimiser that `train` names, in torch's fused form where the device has it."""
    groups = param_groups(module, train.weight_decay)
    fused = device.type in ("cuda", "cpu")
    if train.optimizer == "sgd":
        # The fused kernel starts all momenta in one step, so it cannot take parameters that stand still at first.
        fused = fused and not hasattr(module, "after_backward")
        return torch.optim.SGD(groups, lr=train.lr, momentum=train.momentum, fused=fused)
    if train.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=train.lr, betas=train.betas, fused=fused)
    if train.optimizer == "lars":
        return LARS(groups, lr=train.lr, momentum=train.momentum)
    raise unknown("optimizer", train.optimizer, ["sgd", "adamw", "lars"])


def set_lr(optimizer: Any, train: TrainConfig, step: int, total: int, per_epoch: int) -> float:
    """Set and return the learning rate of `step`: linear warm-up, cosine, both scaled by batch_size / 256.

    Source: Goyal et al. 2017 (linear scaling and warm-up), Loshchilov and Hutter 2017 (cosine).
    """
    warmup = min(round(train.warmup_epochs * per_epoch), total // 2)
    base, final = (scaled_lr(lr, train.batch_size) for lr in (train.lr, train.final_lr))
    lr = warmup_cosine(step, total, warmup, base, final)
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """While open, Ctrl-C (or SIGTERM, what clusters send) sets the event that is yielded; a second one interrupts."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main thread only
        yield event
        return

    def request(signum: int, frame: FrameType | None) -> None:
        event.set()
        signal.signal(signum, previous[signum])

    previous: dict[int, Any] = {s: signal.signal(s, request) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)


@contextmanager
def private_rng(device: torch.device) -> Iterator[None]:
    """Put the global random state back at the end; dropout inside a model draws from it, and `fit` seeds every step."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
