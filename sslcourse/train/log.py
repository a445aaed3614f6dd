"""What a run tells: a JSONL file, optional TensorBoard events, a progress bar with images/s and time left."""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslcourse.errors import InputError
from sslcourse.train.checkpoint import LOG, atomic_write

TIMES = frozenset({"seconds", "images_per_second"})  # the only values of a log line that a resumed run changes


class RunLog:
    """Lines of `log.jsonl`, one JSON object each, in the order of their ``step``.

    Args:
        run_dir: the run folder.
        start: steps already taken; lines of later steps (written after the checkpoint that a run resumes from) go.
        tensorboard: also write event files.
        active: False on all processes but the first, which then write nothing.
    """

    def __init__(self, run_dir: Path, start: int = 0, *, tensorboard: bool = False, active: bool = True) -> None:
        self.path, self.active, self.events = run_dir / LOG, active, None
        if not active:
            return
        kept = [line for line in read_log(run_dir) if line["step"] <= start] if start else []
        text = "".join(json.dumps(line) + "\n" for line in kept)
        atomic_write(self.path, lambda file: file.write(text.encode()))
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise InputError(
                    "train.tensorboard=True needs the package tensorboard: pip install tensorboard"
                ) from None
            self.events = SummaryWriter(str(run_dir), purge_step=start + 1)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line and flush it."""
        if not self.active:
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            raise InputError(f"Cannot write {self.path}: {error.strerror or error}.") from error
        if self.events is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self.events.add_scalar(name, value, step)

    def close(self) -> None:
        if self.events is not None:
            self.events.close()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_log(run_dir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a run's `log.jsonl`; an incomplete last line (a run that was killed) is left out.

    Raises:
        InputError: the folder has no log.
    """
    path = Path(run_dir) / LOG
    if not path.is_file():
        raise InputError(f"There is no run log at {path}.")
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


class Progress:
    """A progress bar on a terminal (rich), a line of text every `every` seconds elsewhere, or nothing.

    Args:
        total: steps of the whole run.
        start: steps already taken.
        label: what is being trained.
        active: False shows nothing.
    """

    def __init__(
        self, total: int, start: int = 0, label: str = "", *, active: bool = True, every: float = 15.0
    ) -> None:
        self.total, self.start, self.label, self.active, self.every = total, start, label, active, every
        self.bar: Any = None
        self.begun = self.printed = time.monotonic()
        if active and sys.stderr.isatty():
            self.bar = _rich_bar()
        if self.bar is not None:
            self.task = self.bar.add_task(label, total=total, completed=start, loss="-", rate="-")

    def __enter__(self) -> "Progress":
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self, step: int, loss: float | None = None, rate: float | None = None) -> None:
        """Show that `step` steps are done; `loss` and `rate` (images/s) where they were just measured."""
        if not self.active:
            return
        if self.bar is not None:
            shown = {} if loss is None else {"loss": f"{loss:.4f}", "rate": f"{rate or 0:,.0f}"}
            self.bar.update(self.task, completed=step, **shown)
        elif loss is not None and (step == self.total or time.monotonic() - self.printed >= self.every):
            self.printed = time.monotonic()
            left = (self.printed - self.begun) / max(step - self.start, 1) * (self.total - step)
            print(
                f"{self.label} step {step}/{self.total}  loss {loss:.4f}  {rate or 0:,.0f} images/s  "
                f"{_clock(left)} left",
                file=sys.stderr,
                flush=True,
            )


class Clock:
    """Seconds of a run over all its continuations, and images/s since the last `restart`, reporting left out."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.begun = time.monotonic() - seconds
        self.restart()

    def restart(self) -> None:
        self.images, self.since = 0, time.monotonic()

    def count(self, images: int) -> None:
        self.images += images

    def rate(self) -> float:
        """Images per second."""
        return round(self.images / max(time.monotonic() - self.since, 1e-9), 1)

    def seconds(self) -> float:
        """Wall-clock seconds of the run, evaluation and checkpoints included."""
        return round(time.monotonic() - self.begun, 2)


def _rich_bar() -> Any:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress
    except ImportError:
        return None
    return RichProgress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("{task.fields[rate]} images/s"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(stderr=True),
    )


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
