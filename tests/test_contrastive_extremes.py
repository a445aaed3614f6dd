"""Every loss of parts 1 to 4 at the edges: low temperature, huge and equal embeddings, lone classes, bfloat16."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse import losses as L

Y = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3])  # 2 is alone in its class
QUEUE = F.normalize(torch.randn(12, 16, generator=torch.Generator().manual_seed(9)), dim=1)
IDX = torch.tensor([[1, 0, 3, 2]]).repeat(2, 1)


def moco(q: Tensor, k: Tensor, tau: float) -> Tensor:
    logits, labels = L.moco_logits(q, k, QUEUE, tau)
    return F.cross_entropy(logits, labels)


def hcl(z1: Tensor, z2: Tensor, tau: float) -> Tensor:
    return L.hcl_reweighted(*L.in_batch_similarities(z1, z2), tau)


def cells(z: Tensor) -> Tensor:
    return z.view(2, 4, -1)


TEMPERED: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "nt_xent": lambda a, b, tau: L.nt_xent(a, b, tau),
    "nt_xent, tiled": lambda a, b, tau: L.nt_xent(a, b, tau, tile=3),
    "nt_xent_pairs": lambda a, b, tau: L.nt_xent_pairs(a, Y, tau),
    "info_nce": lambda a, b, tau: L.info_nce(a, b, tau=tau),
    "info_nce, queue": lambda a, b, tau: L.info_nce(a, b, QUEUE, tau),
    "hcl": hcl,
    "moco": moco,
    "moco_v3": lambda a, b, tau: L.symmetric_moco_v3(a, b, b.detach(), a.detach(), tau),
    "supcon_out": lambda a, b, tau: L.supcon_out(torch.stack([a, b], 1), Y, tau),
    "supcon_out, one view": lambda a, b, tau: L.supcon_out(a[:, None], Y, tau),
    "supcon_in": lambda a, b, tau: L.supcon_in(torch.stack([a, b], 1), Y, tau),
    "dense": lambda a, b, tau: L.dense_info_nce(cells(a), cells(b), IDX, QUEUE, tau),
    "looc": lambda a, b, tau: L.looc_loss(a[None], b.detach()[None, None], QUEUE[None], tau),
    "soft_nearest_neighbor": lambda a, b, tau: L.soft_nearest_neighbor(a, Y, tau),
    "uda": lambda a, b, tau: L.uda_consistency(a, b, tau, 0.0),
}
PLAIN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "n_pair": lambda a, b: L.n_pair(a, b, 0.0),
    "batch_hard_triplet": lambda a, b: L.batch_hard_triplet(a, Y),
    "triplet": lambda a, b: L.triplet(a, Y, mining="semi_hard"),
    "lifted_structured": lambda a, b: L.lifted_structured(a, Y),
    "margin_pairs": lambda a, b: L.margin_pairs(a, Y),
    "mi_lower_bound": lambda a, b: L.mi_lower_bound(a @ b.T),
    "nce": lambda a, b: L.nce(a[:, 0], b, 0.0, 0.0),
    "fixmatch": lambda a, b: L.fixmatch_consistency(a, b, 0.0),
    "pseudo_label": lambda a, b: L.pseudo_label_loss(a, 0.0),
}
EVERY = {name: (lambda a, b, f=f: f(a, b, 0.01)) for name, f in TEMPERED.items()} | PLAIN


def pair(kind: str = "random") -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    a = torch.randn(8, 16, generator=g)
    b = a + torch.randn(8, 16, generator=g)
    if kind == "huge":
        return 1e4 * a, 1e4 * b
    if kind == "equal":
        return a[:1].repeat(8, 1), a[:1].repeat(8, 1)
    return (a, -a) if kind == "opposite" else (a, b)


@pytest.mark.parametrize("kind", ["random", "huge", "equal", "opposite"])
@pytest.mark.parametrize("name", EVERY)
def test_value_and_gradient_are_finite(name: str, kind: str) -> None:
    a, b = (z.requires_grad_() for z in pair(kind))
    value = EVERY[name](a, b)
    assert value.isfinite()
    for gradient in torch.autograd.grad(value, (a, b), allow_unused=True):
        assert gradient is None or gradient.isfinite().all()


@pytest.mark.parametrize("name", [*TEMPERED, *PLAIN])
def test_bfloat16_costs_what_rounding_the_input_costs(name: str) -> None:
    """The loss widens its input: the same numbers in bfloat16 and in float32 give the same value, in float32."""
    loss = (lambda a, b: TEMPERED[name](a, b, 0.2)) if name in TEMPERED else PLAIN[name]
    half = [z.bfloat16() for z in pair()]
    if name == "mi_lower_bound":
        half = [(half[0] @ half[1].T)]  # its input is a matrix of scores, rounded by whoever made it
        loss = L.mi_lower_bound
        wide = [half[0].float()]
    else:
        wide = [z.float() for z in half]
    value = loss(*half)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(*wide), rtol=2e-2 if name in ("moco",) else 1e-5, atol=1e-5)
    if name != "mi_lower_bound":
        torch.testing.assert_close(value, loss(*pair()), rtol=0.03, atol=0.03)
