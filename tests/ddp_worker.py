"""What tests/test_train_ddp.py runs, as one process and under torchrun: train Tiny and leave the run folders."""

import sys
from dataclasses import replace
from pathlib import Path

from train_helpers import Tiny, images, tiny_config

from sslcourse import methods
from sslcourse.train import fit

PARTS = (1, 2)


def train(folder: Path) -> None:
    """One run for each number of accumulated parts."""
    for accumulate in PARTS:
        config = tiny_config(accumulate=accumulate, accelerator="cpu", log_every=1, optimizer="lars", lr=10.0)
        config = replace(config, dropout=0.0)  # dropout differs between processes, as it should
        fit(methods.build(Tiny, config), images(), config, folder / str(accumulate), progress=False)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
