"""Losses and optimisers give on a GPU what they give on a CPU; the CPU half runs everywhere, so nothing here rots."""

import copy

import pytest
import torch
from torch import Tensor, nn

from sslcourse.losses import info_nce, nt_xent
from sslcourse.train.optim import LARS, ema_update, param_groups

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
GPU = pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])
DEVICE = pytest.mark.parametrize("device", ["cpu", GPU])


def views(n: int, d: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    z1 = torch.randn(n, d, generator=generator)
    return z1, z1 + torch.randn(n, d, generator=generator)


def value_and_gradients(loss, z1: Tensor, z2: Tensor, autocast: bool = False) -> list[Tensor]:
    leaves = [z1.detach().requires_grad_(), z2.detach().requires_grad_()]
    with torch.autocast(z1.device.type, torch.bfloat16, enabled=autocast):  # which a loss keeps out
        value = loss(*leaves)
    return [x.detach().cpu().double() for x in (value, *torch.autograd.grad(value, leaves))]


LOSSES = {
    "nt_xent": lambda a, b: nt_xent(a, b, 0.1),
    "nt_xent tiled": lambda a, b: nt_xent(a, b, 0.1, tile=100),
    "info_nce": lambda a, b: info_nce(a, b, b.roll(1, 0), 0.1),
}


@DEVICE
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("autocast", [False, True])
def test_losses_equal_float64_on_a_cpu(name: str, device: str, autocast: bool) -> None:
    z1, z2 = views(150)
    exact = value_and_gradients(LOSSES[name], z1.double(), z2.double())
    ours = value_and_gradients(LOSSES[name], z1.to(device), z2.to(device), autocast)
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


@DEVICE
def test_tiles_bound_the_memory(device: str) -> None:
    if device == "cpu":
        pytest.skip("the peak on a CPU is a row of the benchmark table")
    peaks = []
    for tile in (None, 256):
        z1, z2 = (z.to(device) for z in views(4096, 128))
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
        value_and_gradients(lambda a, b, tile=tile: nt_xent(a, b, 0.1, tile=tile), z1, z2)
        peaks.append(torch.cuda.max_memory_allocated() - base)
    assert peaks[1] < 0.1 * peaks[0], [f"{p / 2**20:.0f} MiB" for p in peaks]


@DEVICE
def test_lars_and_ema_take_the_steps_of_a_cpu(device: str) -> None:
    def trained(where: str) -> list[Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            online = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
        online, x = online.to(where), torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1)).to(where)
        target = copy.deepcopy(online)
        optimizer = LARS(param_groups(online, 1e-3), lr=0.5, trust_coefficient=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            online(x).square().mean().backward()
            optimizer.step()
            ema_update(online, target, 0.9)
        return [t.detach().cpu() for t in target.state_dict().values()]

    for ours, theirs in zip(trained(device), trained("cpu"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
