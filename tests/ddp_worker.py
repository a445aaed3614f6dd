"""What tests/test_train_ddp.py runs, as one process and under torchrun: train Tiny and leave the run folders."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from train_helpers import Tiny, images, tiny_config

from sslcourse import methods
from sslcourse.train import fit

PARTS = (1, 2)


class Stopped(Tiny):
    """One of two processes is told to stop in the middle; both have to stop after the same step."""

    def after_step(self, step: int, total_steps: int) -> None:
        super().after_step(step, total_steps)
        if step == 4 and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGTERM)


def config(accumulate: int) -> Tiny.Config:
    made = tiny_config(accumulate=accumulate, accelerator="cpu", log_every=1, optimizer="lars", lr=10.0)
    return replace(made, dropout=0.0)  # dropout differs between processes, as it should


def train(folder: Path) -> None:
    """One run for each number of accumulated parts."""
    for accumulate in PARTS:
        c = config(accumulate)
        fit(methods.build(Tiny, c), images(), c, folder / str(accumulate), progress=False)


def stop_and_resume(folder: Path) -> None:
    """The run of one part, interrupted."""
    c = config(1)
    code = None
    try:
        fit(methods.build(Stopped, c), images(), c, folder, progress=False)
    except SystemExit as stopped:
        code = stopped.code
    if code != 130:
        raise RuntimeError(f"The run was to stop with code 130, not {code}.")
    fit(methods.build(Tiny, c), images(), c, folder, resume=True, progress=False)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
    stop_and_resume(Path(sys.argv[1]) / "stopped")
