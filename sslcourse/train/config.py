"""What the training loop needs to know, and how a configuration becomes JSON and comes back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, Literal, TypeVar, get_type_hints

from sslcourse.errors import InputError, unknown

T = TypeVar("T")


@dataclass(frozen=True)
class TrainConfig:
    """How long, how fast and on what a method is trained. The same for every method."""

    epochs: int = 100
    """Passes over the data; the learning-rate schedule ends with the last one."""
    steps: int = 0
    """Stop after so many optimiser steps where `epochs` would take more; 0 sets no limit."""
    batch_size: int = 256
    """Images per optimiser step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Parts that a batch is split into, one after the other, to save memory; negatives come from one part only."""
    optimizer: Literal["sgd", "adamw", "lars"] = "sgd"
    """Update rule; LARS is for batches of thousands of images."""
    lr: float = 0.06
    """Learning rate for a batch of 256 images; it is multiplied by batch_size / 256."""
    final_lr: float = 0.0
    """What `lr` has fallen to at the last step, before the same multiplication."""
    warmup_epochs: float = 10.0
    """Epochs of linear warm-up from 0, before the cosine; it never takes more than half of the run."""
    weight_decay: float = 1e-4
    """Weight decay of matrices and kernels; biases and normalisation layers have none."""
    momentum: float = 0.9
    """Momentum of SGD and LARS."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's two moments."""
    clip_grad: float = 0.0
    """Largest gradient norm; longer gradients are scaled down to it. 0 leaves them alone."""
    seed: int = 0
    """Seed of the initial weights, the order of the images and the views."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """Number format; auto is bf16-mixed on a GPU that has it, else 32-true. 16-mixed is for older GPUs."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device; auto takes a GPU if there is one."""
    devices: int = 1
    """Processes on this machine, one per device; under torchrun its own count is used."""
    channels_last: bool = True
    """Keep images as (height, width, channel) in memory, which convolutions like better."""
    compile: bool = False
    """Compile the forward pass with torch.compile: a minute at the start, faster steps on a GPU."""
    log_every: int = 10
    """Steps between lines of log.jsonl."""
    monitor_every: int = 50
    """Steps between measurements of collapse (feature spread, effective rank, alignment, uniformity)."""
    eval_every: int = 0
    """Epochs between kNN evaluations when evaluation data is given; 0 evaluates after the last epoch only."""
    checkpoint_every: int = 500
    """Steps between checkpoints; one is always written at the end and on Ctrl-C."""
    tensorboard: bool = False
    """Also write TensorBoard event files into the run folder (needs the package tensorboard)."""


# What may change between a run and its continuation: where it runs and what it reports, not what it computes.
_WHERE = ("precision", "accelerator", "devices", "channels_last", "compile")
_REPORT = ("log_every", "monitor_every", "eval_every", "checkpoint_every", "tensorboard")
FREE_ON_RESUME = frozenset(f"train.{name}" for name in _WHERE + _REPORT)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values (tuples become lists)."""
    return _plain(asdict(config))


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """The inverse of `to_dict`: build the (nested) dataclass `cls` from JSON values.

    Raises:
        InputError: a key that `cls` does not have.
    """
    hints = get_type_hints(cls)
    kwargs: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            raise unknown(f"setting in {where}", key, hints)
        kind = hints[key]
        if is_dataclass(kind) and isinstance(kind, type):
            value = from_dict(kind, value, f"{where}.{key}")
        kwargs[key] = _tuples(value) if isinstance(value, list) else value
    return cls(**kwargs)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The settings that differ, as ``"train.lr: 0.1 before, 0.2 now"``; `FREE_ON_RESUME` is left out."""
    found = []
    for key in sorted({*old, *new}):
        name, before, now = f"{prefix}{key}", old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += differences(before, now, f"{name}.")
        elif before != now and name not in FREE_ON_RESUME:
            found.append(f"{name}: {before} before, {now} now")
    return found


def check(config: TrainConfig, n_images: int, n_processes: int) -> None:
    """Refuse settings that cannot be trained with.

    Raises:
        InputError: an empty run, a batch of 1, larger than the dataset, or one that does not divide evenly.
    """
    batch, parts = config.batch_size, config.accumulate * n_processes
    if config.accumulate < 1 or config.epochs < 1 or config.steps < 0:
        raise InputError("Training needs accumulate >= 1, epochs >= 1 and steps >= 0.")
    if config.lr <= 0:
        raise InputError(f"The learning rate must be above 0; got lr={config.lr}.")
    if batch % parts:
        raise InputError(
            f"batch_size {batch} cannot be split evenly over {n_processes} process(es) x "
            f"accumulate={config.accumulate}; use a multiple of {parts}."
        )
    if batch // parts < 2:
        raise InputError(
            f"batch_size {batch} leaves {batch // parts} image per forward pass; batch statistics and contrastive "
            f"losses need at least 2, so use batch_size >= {2 * parts}."
        )
    if batch > n_images:
        raise InputError(
            f"batch_size {batch} is larger than the dataset ({n_images} images); use a smaller batch_size."
        )
    for name in ("log_every", "monitor_every", "checkpoint_every"):
        if getattr(config, name) < 1:
            raise InputError(f"{name} must be at least 1 step; got {getattr(config, name)}.")


def total_steps(config: TrainConfig, n_images: int) -> tuple[int, int]:
    """(optimiser steps of the whole run, steps of one epoch); the last incomplete batch of an epoch is dropped."""
    per_epoch = n_images // config.batch_size
    total = config.epochs * per_epoch
    return min(total, config.steps or total), per_epoch


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
