"""Two processes (gloo, CPU) give the loss and the gradient of one."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sslcourse.errors import InputError
from sslcourse.losses import info_nce, nt_xent
from sslcourse.train.distributed import gather, rank, world_size

N, D = 8, 5


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(D, 6), nn.Tanh(), nn.Linear(6, 4))


def views() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(N, D, generator=generator), torch.randn(N, D, generator=generator)


def whole_batch_loss(model: nn.Module, x1: Tensor, x2: Tensor, tile: int | None) -> Tensor:
    """Every process computes the loss of the whole batch."""
    return nt_xent(gather(model(x1)), gather(model(x2)), 0.2, tile=tile)


def own_anchors_loss(model: nn.Module, x1: Tensor, x2: Tensor, tile: int | None) -> Tensor:
    """Every process computes the loss of its own queries, against the keys of all."""
    q, k = model(x1), model(x2)
    everyone = gather(k)
    own = torch.arange(len(q)) + rank() * len(q)
    others = torch.stack([everyone[torch.arange(len(everyone)) != i] for i in own.tolist()])
    return info_nce(q, everyone[own], others, 0.2)


def in_two_processes(index: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=index, world_size=2)
    results = {}
    mine = slice(index * N // 2, (index + 1) * N // 2)
    x1, x2 = (x[mine] for x in views())
    for name, loss_of, tile in CASES:
        model = DistributedDataParallel(network())
        loss = loss_of(model, x1, x2, tile)
        loss.backward()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        results[name] = (mean / 2, [p.grad for p in model.parameters()])
    x = torch.arange(4.0).view(2, 2) + 10 * index
    results["gathered"] = gather(x.T)
    results["world"] = (rank(), world_size())
    try:
        gather(torch.zeros(3 + index, 2))
    except InputError as error:
        results["unequal"] = str(error)
    torch.save(results, f"{folder}/{index}.pt")
    dist.destroy_process_group()


CASES = [
    ("whole", whole_batch_loss, None),
    ("tiled", whole_batch_loss, 3),
    ("own", own_anchors_loss, None),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of the two processes found."""
    folder: Path = tmp_path_factory.mktemp("processes")
    mp.spawn(in_two_processes, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{index}.pt") for index in (0, 1)]


@pytest.mark.parametrize(("name", "loss_of", "tile"), CASES, ids=[case[0] for case in CASES])
def test_loss_and_gradient_are_those_of_one_process(results: list[dict], name: str, loss_of, tile: int | None) -> None:
    model = network()
    loss = loss_of(model, *views(), tile)
    loss.backward()
    for process in results:
        theirs, gradients = process[name]
        torch.testing.assert_close(theirs, loss.detach())
        for p, gradient in zip(model.parameters(), gradients, strict=True):
            torch.testing.assert_close(gradient, p.grad)


def test_the_parts_come_in_the_order_of_the_ranks(results: list[dict]) -> None:
    x = torch.arange(4.0).view(2, 2)
    for process in results:
        assert process["gathered"].equal(torch.cat([x.T, x.T + 10]))
    assert [process["world"] for process in results] == [(0, 2), (1, 2)]


def test_unequal_batches_are_refused_in_every_process(results: list[dict]) -> None:
    for process in results:
        assert "[(3, 2), (4, 2)]" in process["unequal"]


def test_alone_nothing_happens() -> None:
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    assert gather(x) is x
    assert (rank(), world_size()) == (0, 1)


def test_detaching_the_others_would_give_another_gradient() -> None:
    """What `gather` is there to prevent: the comparison above notices it."""
    model, frozen = network(), network()
    x1, x2 = views()
    half = N // 2
    z1, z2 = (torch.cat([model(x[:half]), frozen(x[half:]).detach()]) for x in (x1, x2))
    nt_xent(z1, z2, 0.2).backward()
    whole = copy.deepcopy(frozen)
    nt_xent(whole(x1), whole(x2), 0.2).backward()
    assert not torch.allclose(next(model.parameters()).grad, next(whole.parameters()).grad, rtol=1e-2)
