"""SupCon in tiles, hard negatives without loops, and what DenseCL costs on top of MoCo."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Pair, Row, gradients
from sslcourse import methods
from sslcourse.data.rng import step_generator
from sslcourse.losses import hcl_reweighted, in_batch_similarities, mochi_draws, mochi_mix, supcon_out

N, DIM, CLASSES, TAU, TILE = 2048, 128, 100, 0.1, 256


def _labelled(n: int = N) -> tuple[Tensor, Tensor]:
    """Two views of n embeddings, (n, 2, DIM), and their labels."""
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, 2, DIM, generator=g), torch.randint(CLASSES, (n,), generator=g)


def _tiled(z: Tensor, y: Tensor) -> Callable[[], Any]:
    return lambda: gradients(lambda z: supcon_out(z, y, TAU, tile=TILE), z)


def supcon_against_pml() -> Pair:
    from pytorch_metric_learning.losses import SupConLoss

    z, y = _labelled()
    loss, both = SupConLoss(TAU), y.repeat_interleave(2)
    return _tiled(z, y), lambda: gradients(lambda z: loss(z.flatten(0, 1), both), z)


def supcon_matrix(z: Tensor, y: Tensor) -> Tensor:
    """The form of the authors' code: the whole (2N, 2N) matrix, masks, exp, log, a mean over the positives."""
    rows = F.normalize(torch.cat(z.unbind(1)), dim=1)
    labels = y.repeat(2)
    logits = rows @ rows.T / TAU
    logits = logits - logits.max(dim=1, keepdim=True).values.detach()
    others = 1 - torch.eye(len(rows))
    positives = (labels[:, None] == labels).float() * others
    log_p = logits - (logits.exp() * others).sum(dim=1, keepdim=True).log()
    return -((positives * log_p).sum(dim=1) / positives.sum(dim=1)).mean()


def supcon_against_matrix() -> Pair:
    z, y = _labelled()
    return _tiled(z, y), lambda: gradients(lambda z: supcon_matrix(z, y), z)


def hcl_loop(pos: Tensor, neg: Tensor, beta: float = 1.0, tau_plus: float = 0.1) -> Tensor:
    """HCL one anchor at a time."""
    losses = []
    for p, n in zip(pos, neg, strict=True):
        e = (n / 0.5).exp()
        weight = e.pow(beta)
        hard = (weight * e).sum() / weight.mean()
        ng = (hard - tau_plus * len(n) * (p / 0.5).exp()) / (1 - tau_plus)
        ng = ng.clamp_min(len(n) * torch.tensor(-2.0).exp())
        losses.append(-torch.log((p / 0.5).exp() / ((p / 0.5).exp() + ng)))
    return torch.stack(losses).mean()


def hcl_against_loop() -> Pair:
    g = torch.Generator().manual_seed(0)
    z1 = torch.randn(256, DIM, generator=g)
    pos, neg = in_batch_similarities(z1, z1 + torch.randn(256, DIM, generator=g))
    return lambda: gradients(hcl_reweighted, pos, neg), lambda: gradients(hcl_loop, pos, neg)


def mochi_against_loop() -> Pair:
    g = torch.Generator().manual_seed(0)
    q, keys = (F.normalize(torch.randn(n, DIM, generator=g), dim=1) for n in (256, 16384))
    draws = mochi_draws(len(q), 1024, 256, 64, g)

    # One matrix product on both sides: rows of another one differ in the last bit, and so in the order of the hardest.
    def similarity() -> Tensor:
        return q @ keys.T

    def loop() -> Tensor:
        made = []
        for i, (row, similar) in enumerate(zip(q, similarity(), strict=True)):
            hard = keys[similar.topk(1024).indices]
            pairs = zip(draws.i[i], draws.j[i], draws.alpha[i], strict=True)
            between = [a * hard[j] + (1 - a) * hard[k] for j, k, a in pairs]
            towards = [b * row + (1 - b) * hard[j] for j, b in zip(draws.with_query[i], draws.beta[i], strict=True)]
            made.append(F.normalize(torch.stack(between + towards), dim=1))
        return torch.stack(made)

    return lambda: mochi_mix(q, keys[similarity().topk(1024, dim=1).indices], draws), loop


def densecl_against_moco() -> Pair:
    """A training step without the optimiser: two views, forward, backward, the same ResNet-50 at 224 px."""
    images = torch.randint(256, (8, 3, 256, 256), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)

    def step(name: str) -> Callable[[], Any]:
        preset = methods.get(name).PRESETS["imagenet_resnet50"]
        module = methods.build(name, replace(preset, queue=4096))

        def run() -> None:
            module.zero_grad()
            module(module.views(images, step_generator(0, 0)))["loss"].backward()
            module.after_step(0, 100)

        return run

    return step("densecl"), step("moco_v2")


PML = "pytorch-metric-learning SupConLoss"
MATRIX = "SupContrast's form"
SUPCON = f"SupCon forward + backward, N = {N}, 2 views, D = {DIM}"

ROWS = [
    Row("supcon-2048", SUPCON, PML, supcon_against_pml, target=6.0, requires=("pytorch_metric_learning",)),
    Row("supcon-2048", SUPCON, MATRIX, supcon_against_matrix, target=6.0),
    Row(
        "supcon-2048",
        "its peak memory",
        PML,
        supcon_against_pml,
        target=0.25,
        kind="memory",
        requires=("pytorch_metric_learning",),
    ),
    Row("supcon-2048", "its peak memory", MATRIX, supcon_against_matrix, target=0.25, kind="memory"),
    Row("hcl-512", "HCL forward + backward, 512 anchors", "one anchor at a time", hcl_against_loop, target=6.0),
    Row("mochi-256", "MoCHi, 256 queries, 320 negatives each", "one at a time", mochi_against_loop, target=6.0),
    Row(
        "densecl-step",
        "a DenseCL step, ResNet-50, 8 images of 224 px",
        "a MoCo v2 step",
        densecl_against_moco,
        target=0.95,
        check=None,
    ),
]
