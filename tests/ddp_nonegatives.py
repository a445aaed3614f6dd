"""What tests/test_nonegatives_ddp.py runs, as one process and under torchrun: every method whose step looks at the
images of all processes, with networks without batch norm, and the run folders."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from train_helpers import images

from sslcourse import methods
from sslcourse.data.augment import Augment
from sslcourse.nn.vit import ViT
from sslcourse.train import fit
from sslcourse.train.config import TrainConfig
from sslcourse.train.distributed import gather, rank, world_size

CROPS: dict[str, Any] = {"n_local": 1, "local": Augment(8, blur=0.0)}
HEAD: dict[str, Any] = {"hidden": 16, "bottleneck": 8, "prototypes": 12, "m": 0.9, "freeze": 0.1, "warm": 0.5} | CROPS
CONFIGS: dict[str, dict[str, Any]] = {
    "barlow_twins": {"hidden": 8, "dim": 8},
    "swav": {"hidden": 8, "dim": 8, "prototypes": 12, "queue": 16, "queue_from": 0.3} | CROPS,
    "deepcluster": {"clusters": 6, "pca": 8},
    "deepcluster_v2": {"hidden": 8, "dim": 8, "prototypes": (5, 4)} | CROPS,
    "dino": HEAD,
    "ibot": HEAD,
    "dinov2": HEAD | {"koleo": 0.0},  # at the start its value is rounding; `regulariser` has it on its own
    "msn": {"hidden": 16, "dim": 8, "prototypes": 12, "ratio": 0.5, "m": 0.9} | CROPS,
}


def config(name: str) -> Any:
    train = TrainConfig(
        epochs=2, batch_size=16, optimizer="sgd", lr=2.0, warmup_epochs=0, accelerator="cpu", log_every=1
    )
    return methods.get(name).Config(augment=Augment(16, blur=0.0), train=train, **CONFIGS[name])


def is_norm(layer: nn.Module) -> bool:
    return isinstance(layer, nn.BatchNorm1d)


def build(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vit = ViT(16, 4, dim=16, depth=1, n_heads=2, mask_token=name in ("ibot", "dinov2"))
        module: Any = methods.get(name)(config(name), encoder=vit)
        if hasattr(module, "projector"):
            module.projector = nn.Linear(16, 8)
        if name == "msn":  # its head's batch norm would see half a batch
            for network in (module.student, module.teacher):
                network["head"].mlp = nn.Sequential(*(layer for layer in network["head"].mlp if not is_norm(layer)))
    return module


def regulariser(folder: Path) -> None:
    """DINOv2's KoLeo of the same 8 class tokens, a slice in each process, and its gradient; into folder/koleo.pt."""
    method: Any = methods.get("dinov2")(
        replace(config("dinov2"), koleo=0.1), encoder=ViT(16, 4, dim=16, depth=1, n_heads=2, mask_token=True)
    )
    tokens = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    mine = tokens.chunk(world_size(), dim=1)[rank()].clone().requires_grad_()
    loss = method.regulariser(mine[0], mine[1])
    loss.backward()
    gradient = gather(mine.grad.transpose(0, 1)) / world_size()  # type: ignore[union-attr]  # DDP averages
    if rank() == 0:
        torch.save({"loss": loss.detach(), "gradient": gradient, "processes": world_size()}, folder / "koleo.pt")


if __name__ == "__main__":
    for name in CONFIGS:
        fit(build(name), images(), config(name), Path(sys.argv[1]) / name, progress=False)
    regulariser(Path(sys.argv[1]))
