"""Two processes give the loss, the gradients and so the weights of one."""

import os
import subprocess
import sys
from pathlib import Path

import ddp_worker
import pytest
import torch

from sslcourse.train import read_log

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of the same runs by one process and by two."""
    folder = tmp_path_factory.mktemp("ddp")
    ddp_worker.train(folder / "one")
    path = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [sys.executable, *launch, ddp_worker.__file__, str(folder / "two")],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("accumulate", ddp_worker.PARTS)
def test_two_processes_equal_one(runs, accumulate):
    one, two = (read_log(runs / n / str(accumulate)) for n in ("one", "two"))
    for key in ("loss", "feature_std", "rankme", "uniformity", "alignment"):
        pairs = [(a[key], b[key]) for a, b in zip(one, two, strict=True) if key in a]
        assert pairs
        assert [b for _, b in pairs] == pytest.approx([a for a, _ in pairs], rel=2e-5)
    assert one[-1]["loss"] < one[0]["loss"] - 0.02  # the weights moved, so equal losses mean equal gradients
    a, b = (
        torch.load(runs / n / str(accumulate) / "checkpoint.pt", weights_only=True)["model"] for n in ("one", "two")
    )
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_processes_stop_together_and_resume_to_the_same_bits(runs):
    whole, parts = (torch.load(runs / "two" / name / "checkpoint.pt", weights_only=True) for name in ("1", "stopped"))
    assert parts["step"] == whole["step"]
    torch.testing.assert_close(parts["model"], whole["model"], rtol=0, atol=0)
    steps = [[line["step"] for line in read_log(runs / "two" / name)] for name in ("1", "stopped")]
    assert steps[0] == steps[1]
