"""The one training loop: every method, on a CPU, a GPU or many processes, goes through `fit`."""

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from sslcourse import methods
from sslcourse.data.rng import mix, step_generator
from sslcourse.errors import InputError
from sslcourse.train.checkpoint import Run
from sslcourse.train.config import TrainConfig, check, to_dict, total_steps
from sslcourse.train.log import Clock, Progress, RunLog, read_log
from sslcourse.train.monitor import CollapseWarning, collapse_warning, measure
from sslcourse.train.setup import make_fabric, make_optimizer, private_rng, set_lr, stop_signals

_ORDER, _NOISE = 1, 2  # streams of random numbers beside the views': the order of images, dropout inside a model


def fit(
    method: str | nn.Module,
    data: Any,
    config: Any,
    run_dir: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: bool = True,
    eval_data: tuple[Any, Any] | None = None,
) -> dict[str, Any]:
    """Pre-train a method; everything about the run is written into `run_dir`.

    The order of images, the views, the schedules and the noise of step s depend on (seed, s) only, so a run that
    stops and resumes gives the same bits as one that never stopped. With several processes (torchrun, or
    ``train.devices``) each takes a slice of the same batch and the same views; plain batch-norm statistics stay those
    of the slice.

    Args:
        method: a name of the catalogue, built from `config` with weights that depend on ``config.train.seed`` only,
            or a method module, trained in place.
        data: `Images` or `ImageStream`.
        config: the method's `Config`.
        run_dir: a folder for config.json, log.jsonl, checkpoint.pt and model.safetensors; made if missing.
        resume: go on from the checkpoint in `run_dir`.
        progress: show a progress bar (plain lines where there is no terminal).
        eval_data: (bank, queries), two labelled `Images` for kNN every ``train.eval_every`` epochs and at the end.

    Returns:
        the last line of the log: step, epoch, loss, lr, the monitors, "knn", "images_per_second", "seconds".

    Raises:
        InputError: settings, files or data that cannot be used, or a loss that is no longer finite.
        SystemExit: code 130 after Ctrl-C, once the step is finished and its checkpoint written.
    """
    train: TrainConfig = config.train
    fabric = make_fabric(train)
    fabric.launch()
    check(train, len(data), fabric.world_size)
    total, per_epoch = total_steps(train, len(data))
    module: Any = methods.build(method, config) if isinstance(method, str) else method
    if hasattr(module, "prepare"):
        module.prepare(data)
    run = Run.open(run_dir, module.name, to_dict(config), resume=resume, fabric=fabric)

    if train.channels_last:
        module.to(memory_format=torch.channels_last)
    if train.compile:
        module.compile()
    model, optimizer = fabric.setup(module, make_optimizer(module, train, fabric.device))
    start, seconds = run.restore(module, optimizer) if resume else (0, 0.0)
    first = fabric.is_global_zero

    with ExitStack() as stack:
        stack.enter_context(private_rng(fabric.device))
        stop = stack.enter_context(stop_signals())
        log = stack.enter_context(RunLog(run.dir, start, tensorboard=train.tensorboard, active=first))
        bar = stack.enter_context(Progress(total, start, module.name, active=progress and first))
        clock = Clock(seconds)
        module.train()
        for step, images, known in _batches(module, data, train, start, total, per_epoch, fabric):
            lr = set_lr(optimizer, train, step, total, per_epoch)
            with _memory_advice(train):
                out = _step(fabric, model, module, optimizer, images, known, train, step)
            if hasattr(module, "after_step"):
                module.after_step(step, total)
            clock.count(train.batch_size)
            done = step + 1
            due = _due(train, done, total, per_epoch, evaluates=eval_data is not None)
            stops = done < total and _agreed(fabric, stop.is_set(), "log" in due)

            if due or stops:  # reading the loss waits for the device, so not at every step
                loss = _finite(out["loss"], done, train, run)
                bar.update(done, loss, clock.rate())
            else:
                bar.update(done)
            if due - {"save"}:
                line = {"epoch": done / per_epoch, "loss": loss, "lr": lr, "images_per_second": clock.rate()}
                line |= _monitor(fabric, out) if "monitor" in due else {}
                line |= _knn(module, eval_data) if "eval" in due else {}
                log.write(done, line | {"seconds": clock.seconds()})
            if "save" in due or stops:
                run.save(module, optimizer, done, clock.seconds())
            if stops:
                run.say(f"Stopped after step {done} of {total}; {run.how_to_resume()}")
                raise SystemExit(130)
            if due:
                clock.restart()
    run.finish(module)
    return read_log(run.dir)[-1]


def _batches(
    module: Any, data: Any, train: TrainConfig, start: int, total: int, per_epoch: int, fabric: Any
) -> Iterator[tuple[int, Tensor, dict[str, Any]]]:
    """(step, this process's uint8 images, what is known beside them) for the steps start, ..., total - 1.

    `Images` live on the device.
    """
    data = data.to(fabric.device) if hasattr(data, "to") else data
    order = {"seed": mix(train.seed, _ORDER), "device": fabric.device}
    if fabric.world_size > 1:  # of every accumulated part of the batch, one slice for each process
        parts = torch.arange(train.batch_size).view(train.accumulate, fabric.world_size, -1)
        order["rows"] = parts[:, fabric.global_rank].flatten()
    step = start
    while step < total:
        epoch, skip = divmod(step, per_epoch)
        shown = module.epoch_data(data, epoch) if hasattr(module, "epoch_data") else data
        batches = shown.batches(train.batch_size, epoch=epoch, start=skip, **order)
        for images, labels, indices in islice(batches, total - step):
            yield step, images, {"labels": labels, "indices": indices, "progress": step / total}
            step += 1


def _step(
    fabric: Any,
    model: Any,
    module: Any,
    optimizer: Any,
    images: Tensor,
    known: dict[str, Any],
    train: TrainConfig,
    step: int,
) -> dict[str, Tensor]:
    """One optimiser step on this process's images; the output of the last accumulated part.

    Of what is `known` about the images, a method is shown what it asks for by its attribute `uses`.
    """
    rank, world = fabric.global_rank, fabric.world_size
    torch.manual_seed(mix(train.seed, _NOISE, step, rank))  # for dropout; nothing else draws from the global generator
    generator = step_generator(train.seed, step, rank=rank, world=world)
    parts = images.chunk(train.accumulate)
    shown = {name: _per_part(known[name], images.device, len(parts)) for name in getattr(module, "uses", ())}
    for i, part in enumerate(parts):
        views = module.views(part, generator)
        if train.channels_last:
            views = [v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for v in views]
        with fabric.no_backward_sync(model, enabled=i + 1 < len(parts)) if world > 1 else nullcontext():
            out = model(views, **{name: values[i] for name, values in shown.items()})
            fabric.backward(out["loss"] / len(parts))
    if hasattr(module, "after_backward"):
        module.after_backward(known["progress"])
    if train.clip_grad > 0:
        fabric.clip_gradients(model, optimizer, max_norm=train.clip_grad)
    optimizer.step()
    optimizer.zero_grad()
    return out


def _per_part(value: Any, device: torch.device, n: int) -> Any:
    """What each of `n` parts of a batch is shown: its rows of a tensor, or the number itself."""
    return value.to(device).chunk(n) if isinstance(value, Tensor) else [value] * n


@contextmanager
def _memory_advice(train: TrainConfig) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"The device ran out of memory with batch_size {train.batch_size} in {train.accumulate} part(s); raise "
            "train.accumulate, lower train.batch_size, or use a smaller view or backbone."
        ) from error


def _due(train: TrainConfig, done: int, total: int, per_epoch: int, *, evaluates: bool) -> set[str]:
    """What there is to do beside training after `done` steps; everything after the last one."""
    every = {"log": train.log_every, "monitor": train.monitor_every, "save": train.checkpoint_every}
    if evaluates:
        every["eval"] = train.eval_every * per_epoch or total
    return {name for name, period in every.items() if done % period == 0 or done == total}


def _agreed(fabric: Any, stop: bool, ask: bool) -> bool:
    """Whether any process was told to stop; several processes ask one another only when `ask`, at the same step."""
    if fabric.world_size == 1:
        return stop
    return ask and fabric.strategy.reduce_boolean_decision(stop, all=False)


def _finite(loss: Tensor, done: int, train: TrainConfig, run: Run) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise InputError(
            f"The loss is {value} after step {done}: try a lower learning rate (train.lr={train.lr}), a longer warm-up "
            f"or precision 32-true. {run.kept()}"
        )
    return value


def _monitor(fabric: Any, out: dict[str, Tensor]) -> dict[str, float]:
    """The collapse monitors on the embeddings of all processes, with a warning where they say so."""
    pair = [out[key].detach() for key in ("embedding", "positive") if key in out]
    if fabric.world_size > 1:
        pair = [fabric.all_gather(z).flatten(0, 1) for z in pair]
    values = measure(*pair) if pair else {}
    message = collapse_warning(values) if values else None
    if message is not None and fabric.is_global_zero:
        warnings.warn(message, CollapseWarning, stacklevel=3)
    return values


def _knn(module: Any, eval_data: tuple[Any, Any] | None) -> dict[str, float]:
    """Accuracy of kNN on frozen features, k = 20; every process computes it, so none waits for another."""
    from sslcourse.evaluate import extract_features, knn_accuracy

    assert eval_data is not None
    bank, queries = eval_data
    augment = module.config.augment
    view = {"size": augment.size, "mean": augment.mean, "std": augment.std}
    features = [extract_features(module.backbone, part, **view) for part in (bank, queries)]
    return {"knn": knn_accuracy(features[0], bank.labels, features[1], queries.labels).value}
