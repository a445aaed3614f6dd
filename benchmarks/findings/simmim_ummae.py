"""An epoch of UM-MAE against one of SimMIM on the same Swin: processor time and memory.

    python -m benchmarks.findings.simmim_ummae

SimMIM gives a pyramid all patches, with tokens in place of hidden ones. UM-MAE (Li et al. 2022) leaves three
of four out, so that what stays is an image again, and reports about half the time and half the memory. Time is that of
the process for training `STEPS` steps with views, optimiser and all, the two methods in turn; memory the peak of live
tensor bytes in one step. Each is told as a share of the larger of the two.
"""

import time
from dataclasses import replace
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.findings import simclr_common as shared
from benchmarks.findings.common import Finding, run
from benchmarks.harness import peak_bytes
from benchmarks.masked_steps import ROWS
from sslcourse import methods, train
from sslcourse.data import Images, Shapes
from sslcourse.methods.simmim import SimMIM
from sslcourse.methods.ummae import UMMAE

ROUNDS, STEPS, BATCH = 3, 8, 64
ARMS: dict[str, tuple[Any, Any]] = {
    "SimMIM": (SimMIM, SimMIM.PRESETS["cpu_swin"]),
    "UM-MAE": (UMMAE, UMMAE.PRESETS["cpu"]),
}


def setting() -> dict[str, Any]:
    """What all arms share, for the record."""
    return {"backbone": "swin_mini", "size": shared.SIZE, "batch_size": BATCH, "steps": STEPS, "rounds": ROUNDS}


def measure(seed: int) -> dict[str, float]:
    """Time and memory of both methods, for one seed."""
    data = Shapes("train", size=shared.SIZE, seed=seed).as_images(STEPS * BATCH)
    spent: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for i in range(ROUNDS + 1):
        for arm in ARMS:
            seconds = epoch(arm, data, seed)
            if i:  # the first is for warming up
                spent[arm].append(seconds)
    row = next(row for row in ROWS if row.name == "ummae" and row.kind == "memory")
    found = {"time": {arm: median(values) for arm, values in spent.items()}}
    found["memory"] = {"SimMIM": float(peak_bytes(row, 1)[0]), "UM-MAE": float(peak_bytes(row, 0)[0])}
    return {f"{arm}, {what}": own[arm] / max(own.values()) for what, own in found.items() for arm in ARMS}


def epoch(arm: str, data: Images, seed: int) -> float:
    """Seconds of the processor for training one epoch from the start."""
    method, settings = ARMS[arm]
    short = replace(settings.train, steps=STEPS, batch_size=BATCH, seed=seed, monitor_every=10**6)
    settings = replace(settings, backbone="swin_mini", train=short)
    model = methods.build(method, settings)
    with TemporaryDirectory() as folder:
        start = time.process_time()
        train.fit(model, data, settings, folder, progress=False)
        return time.process_time() - start


if __name__ == "__main__":
    question = "How much time and memory does UM-MAE save on a Swin, at equal epochs?"
    run(Finding("simmim_ummae", question, "share of seconds, of bytes", "UM-MAE, time", setting()), measure)
