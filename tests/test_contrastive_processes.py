"""Whole methods of parts 2 to 4 in two processes (gloo, CPU): views, loss, gradient and queue are those of one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sslcourse import methods
from sslcourse.data.rng import step_generator

N = 8
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "simclr": ("simclr", {}),
    "simclr, tiled": ("simclr", {"tile": 3}),
    "hcl": ("hcl", {}),
    "supcon, L_out": ("supcon", {}),
    "supcon, L_out, tiled": ("supcon", {"tile": 3}),
    "supcon, L_in": ("supcon", {"loss": "in"}),
    "moco_v1": ("moco_v1", {"queue": 32}),
    "moco_v1 without a queue": ("moco_v1", {"queue": 0}),
    "moco_v3": ("moco_v3", {}),
    "mochi": ("mochi", {"queue": 32, "n_hard": 8}),
    "densecl": ("densecl", {"queue": 32, "grid": 2}),
    "dilo": ("dilo", {"queue": 32, "background": "gray"}),
    "looc": ("looc", {"queue": 32}),
    "instance_discrimination": ("instance_discrimination", {"images": 64, "negatives": 16}),
    "cmc": ("cmc", {"images": 64, "negatives": 16}),
}


def built(case: str) -> nn.Module:
    """The method with batch norm at its running statistics, which do not depend on the number of processes."""
    name, settings = CASES[case]
    preset = methods.get(name).PRESETS["cpu"]
    module = methods.build(name, replace(preset, augment=replace(preset.augment, size=16), **settings))
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.eval()
    return module


def inputs() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    images = torch.randint(256, (N, 3, 20, 20), generator=g, dtype=torch.uint8)
    return {"images": images, "labels": torch.arange(N) % 3, "indices": torch.randperm(64, generator=g)[:N]}


def step(case: str, rank: int, world: int) -> dict[str, Any]:
    mine = slice(rank * N // world, (rank + 1) * N // world)
    known = {key: value[mine] for key, value in inputs().items()}
    module = built(case)
    model = DistributedDataParallel(module, find_unused_parameters=True) if world > 1 else module
    views = module.views(known["images"], step_generator(0, 0, rank=rank, world=world))
    out = model(views, **{key: known[key] for key in getattr(module, "uses", ())})
    out["loss"].backward()
    loss = out["loss"].detach().clone()
    if world > 1:
        dist.all_reduce(loss)
    memory = {key: value for key, value in module.state_dict().items() if "queue" in key or "memories" in key}
    gradients = {key: p.grad for key, p in module.named_parameters() if p.grad is not None}
    return {"loss": loss / world, "gradients": gradients, "memory": memory}


def in_two_processes(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save({case: step(case, rank, 2) for case in CASES}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes found."""
    folder: Path = tmp_path_factory.mktemp("processes")
    mp.spawn(in_two_processes, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one(results: list[dict[str, Any]], case: str) -> None:
    one = step(case, 0, 1)
    assert one["gradients"]
    for process in results:
        found = process[case]
        torch.testing.assert_close(found["loss"], one["loss"], rtol=1e-5, atol=1e-6)
        assert found["gradients"].keys() == one["gradients"].keys()
        for key, gradient in one["gradients"].items():
            scale = float(gradient.abs().max())
            torch.testing.assert_close(found["gradients"][key], gradient, rtol=1e-3, atol=2e-4 * scale, msg=key)
        torch.testing.assert_close(found["memory"], one["memory"], rtol=1e-5, atol=1e-5)
