"""Centres, Sinkhorn, queues, memories and correlations are those of all processes: two train as one."""

import os
import subprocess
import sys
from pathlib import Path

import ddp_nonegatives
import pytest
import torch

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of the same runs by one process and by two."""
    folder = tmp_path_factory.mktemp("ddp")
    path = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for command, name in (([], "one"), (launch, "two")):
        done = subprocess.run(
            [sys.executable, *command, ddp_nonegatives.__file__, str(folder / name)],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", ddp_nonegatives.CONFIGS)
def test_two_processes_equal_one(runs: Path, name: str) -> None:
    one, two = (torch.load(runs / part / name / "checkpoint.pt", weights_only=True)["model"] for part in ("one", "two"))
    start = ddp_nonegatives.build(name).state_dict()
    moved = [key for key in start if start[key].shape == one[key].shape and not torch.equal(start[key], one[key])]
    assert len(moved) > len(start) / 2  # equal weights mean something only where they have moved
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=2e-5, msg=lambda text, key=key: f"{key}: {text}")


def test_koleo_looks_for_neighbours_on_all_processes(runs: Path) -> None:
    """The official code looks among a GPU's own images: half of these neighbours would be others."""
    one, two = (torch.load(runs / part / "koleo.pt", weights_only=True) for part in ("one", "two"))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert float(one["gradient"].norm()) > 0
    for key in ("loss", "gradient"):
        torch.testing.assert_close(two[key], one[key], rtol=1e-5, atol=1e-6)
