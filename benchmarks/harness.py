"""How a row of the benchmark table is measured.

A row compares two callables that compute the same thing, ours and a peer's. Their results are compared first: a fast
wrong answer is no speed-up. Then they run in turn, A B A B, so that whatever else the machine does falls on both; every
round gives one ratio, and the table shows the median and the range of the rounds. Nothing is claimed in seconds, which
belong to a machine, but the start-up of the command line, which is a budget.

    def prepare() -> Pair:              # imports the peer, builds the inputs
        from peer import slow
        x = torch.randn(100)
        return lambda: fast(x), lambda: slow(x)

    ROWS = [Row("fast", "fast(x)", "peer", prepare, target=2.0, requires=("peer",))]

Put that into a module of this package; `python -m benchmarks fast` finds it. `prepare` has to be a function of the
module (or a `functools.partial` of one): memory is measured in fresh processes that import it by name.
"""

import gc
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

Side = Callable[[], Any]
Pair = tuple[Side, Side]  # ours, theirs
Kind = Literal["speed", "memory", "seconds"]

ROUND_SECONDS = 0.2  # a round repeats a short call until it lasts about this long


def assert_close(ours: Any, theirs: Any) -> None:
    """The default equality check: two tensors, or two equally nested lists of them, agree to float32 accuracy."""
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: what the command line calls it; rows against several peers share a name.
        what: one phrase: the task and its size.
        peer: what it is compared with.
        prepare: returns the two callables (ours, theirs), ready to run.
        target: the ratio to reach: at least this for "speed", at most this for the other kinds.
        kind: "speed": their seconds / our seconds. "memory": our peak bytes / their peak bytes. "seconds": our seconds
            minus theirs (a budget).
        check: raises AssertionError where the results of the two differ; None where there is nothing to compare.
        requires: modules that have to be importable.
        device: "cuda" for a row that needs a GPU.
    """

    name: str
    what: str
    peer: str
    prepare: Callable[[], Pair]
    target: float
    kind: Kind = "speed"
    check: Callable[[Any, Any], None] | None = assert_close
    requires: tuple[str, ...] = ()
    device: Literal["cpu", "cuda"] = "cpu"


@dataclass(frozen=True)
class Outcome:
    """What became of a row: the median of its rounds and their range, or the reason why there is none."""

    row: Row
    value: float | None = None
    low: float | None = None
    high: float | None = None
    detail: str = ""
    failed: bool = False

    @property
    def status(self) -> Literal["pass", "short", "skipped", "failed"]:
        if self.value is None:
            return "failed" if self.failed else "skipped"
        reached = self.value >= self.row.target if self.row.kind == "speed" else self.value <= self.row.target
        return "pass" if reached else "short"


def run(row: Row, rounds: int = 7) -> Outcome:
    """Measure one row, or say what is missing."""
    missing = [module for module in row.requires if find_spec(module) is None]
    if missing:
        return Outcome(row, detail=f"{', '.join(missing)} not installed: pip install 'sslcourse[bench]'")
    if row.device == "cuda" and not torch.cuda.is_available():
        return Outcome(row, detail="needs a CUDA device")
    try:
        return _measure(row, rounds)
    except Exception as error:  # the other rows are still worth measuring
        return Outcome(row, detail=f"{type(error).__name__}: {error}", failed=True)


def _measure(row: Row, rounds: int) -> Outcome:
    ours, theirs = row.prepare()
    if row.check is not None:
        row.check(ours(), theirs())
    if row.kind == "memory":
        del ours, theirs
        return _memory(row)
    return _time(row, ours, theirs, rounds)


def _time(row: Row, ours: Side, theirs: Side, rounds: int) -> Outcome:
    """Time both sides in turn; the equality check has warmed them up once, finding the repeats does it again."""
    repeats = [max(1, round(ROUND_SECONDS / max(_seconds(side, 1), 1e-9))) for side in (ours, theirs)]
    a: list[float] = []
    b: list[float] = []
    for _ in range(rounds):
        a.append(_seconds(ours, repeats[0]))
        b.append(_seconds(theirs, repeats[1]))
    pairs = zip(a, b, strict=True)
    values = [y / x if row.kind == "speed" else x - y for x, y in pairs]
    detail = f"{_readable(statistics.median(a))} against {_readable(statistics.median(b))}"
    return Outcome(row, statistics.median(values), min(values), max(values), detail)


def _seconds(side: Side, repeats: int) -> float:
    """Mean wall-clock seconds of one call, the garbage collector kept out of it."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(repeats):
            side()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / repeats
    finally:
        gc.enable()


def _readable(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _memory(row: Row) -> Outcome:
    """Compare the peaks of live tensor bytes during one call, each side in a process of its own."""
    ours, ours_rss = _in_fresh_process(row, 0)
    theirs, theirs_rss = _in_fresh_process(row, 1)
    ratio = ours / theirs
    detail = f"{ours / 2**20:.1f} MiB against {theirs / 2**20:.1f} MiB"
    rss = f"; RSS +{ours_rss / 2**20:.0f} against +{theirs_rss / 2**20:.0f} MiB"
    return Outcome(row, ratio, ratio, ratio, detail + rss)  # deterministic: no range


def _in_fresh_process(row: Row, side: int) -> tuple[int, int]:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler reports a missing GPU as an error
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_bytes, (row, side))


def peak_bytes(row: Row, side: int) -> tuple[int, int]:
    """(peak of live tensor bytes, growth of the resident set) in one call of one side; the inputs are not counted."""
    call = row.prepare()[side]
    if row.device == "cuda":
        call()  # libraries allocate their workspaces in the first call
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - base, 0
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        before = _resident(reset=True)
        call()
        grown = _resident() - before
    live = peak = 0
    events = recorded.profiler.kineto_results.events()  # the only place that keeps every allocation and release
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak, grown


def _resident(reset: bool = False) -> int:
    """Peak resident bytes of this process since the last reset; 0 where the system does not tell (only Linux does)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")  # getrusage's peak would include that of the parent process
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def gradients(loss: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """Forward and backward: (loss, d loss / d input, ...), what a row on a loss function runs and compares."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    value = loss(*leaves)
    return value.detach(), *torch.autograd.grad(value, leaves)
