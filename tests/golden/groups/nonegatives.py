"""Adapters for BYOL, SimSiam, SwAV and DeepCluster."""

from functools import partial
from typing import Any

import torch
from groups.moco import Stub
from groups.precision import in_each_precision
from loading import Adapter, Case
from torch import Tensor, nn

from sslcourse.losses.byol import byol_loss, regression_loss
from sslcourse.losses.simsiam import simsiam_loss
from sslcourse.losses.swav import sinkhorn
from sslcourse.methods.byol import BYOL
from sslcourse.methods.simsiam import SimSiam
from sslcourse.zoo import nonegatives as readers

JAX_EPS = 1e-6  # the official JAX code bounds the squared norm by 1e-12


class StubWithHead(Stub):
    """The backbone of the recordings with the linear layer at its end."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__(width)
        self.fc = nn.Linear(width, out)
        self.num_features = out

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(super().forward(x))


def byol_loss_lucidrains(case: Case) -> dict[str, Any]:
    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        p1, p2, z1, z2 = (inputs[name] for name in ("p1", "p2", "z1", "z2"))
        return {"loss": byol_loss(p1, p2, z1, z2), "per_sample": regression_loss(p1, z2) + regression_loss(p2, z1)}

    return in_each_precision(case, outputs)


def byol_deepmind_loss(case: Case) -> dict[str, Any]:
    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        p1, p2, z1, z2 = (inputs[name] for name in ("p1", "p2", "z1", "z2"))
        one, other = regression_loss(p1, z2, eps=JAX_EPS), regression_loss(p2, z1, eps=JAX_EPS)
        return {"loss": byol_loss(p1, p2, z1, z2, eps=JAX_EPS).reshape(1), "per_sample": one + other}

    return in_each_precision(case, outputs)


def byol_full_module(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    config = BYOL.Config(hidden=hyper["hidden"], dim=hyper["projection_size"], m=hyper["beta"])
    model = BYOL(config, StubWithHead(hyper["width"], case.state["net.fc.bias"].shape[0]))
    model.load_state_dict(readers.byol_pytorch(case.state, model))
    out = model([case.inputs["x"], case.inputs["view2"]])
    out["loss"].backward()
    model.after_step(0, 1)  # the momentum of step 0 of the schedule is beta
    gradients = gradients_of(case, readers.byol_pytorch, model, "net.", "online_encoder.net.")
    return {"out.loss": out["loss"]} | gradients | state_after(case, readers.byol_pytorch, model)


def simsiam_case(case: Case) -> dict[str, Any]:
    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": simsiam_loss(*(inputs[name] for name in ("p1", "p2", "z1", "z2")))}

    return in_each_precision(case, outputs)


def simsiam_full_module(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    config = SimSiam.Config(dim=hyper["dim"], bottleneck=hyper["pred_dim"])
    model = SimSiam(config, Stub(hyper["width"]))
    model.load_state_dict(readers.simsiam(case.state, model))
    out = model([case.inputs["x1"], case.inputs["x2"]])
    out["loss"].backward()
    values = {"loss": out["loss"], "p1": out["p1"], "p2": out["p2"], "z1": out["embedding"], "z2": out["positive"]}
    results = {f"out.{name}": value for name, value in values.items()}
    return results | gradients_of(case, readers.simsiam, model) | state_after(case, readers.simsiam, model)


def swav_sinkhorn(case: Case) -> dict[str, Any]:
    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        codes = sinkhorn(inputs["scores"], case.hyper["epsilon"], case.hyper["iterations"])
        return {"codes": codes, "loss": 0 * codes.sum()}  # the recording puts 0 where its other cases have a loss

    return in_each_precision(case, outputs)


def gradients_of(case: Case, reader: Any, model: nn.Module, old: str = "", new: str = "") -> dict[str, Any]:
    """Our gradients under the official names; `old` is another official prefix for what is called `new`, too."""
    named = dict(model.named_parameters())
    listed = {key: value for key, value in case.expected.items() if key.startswith("grad_param.")}
    rounding = 1e-5 * max(value.abs().max() for value in listed.values())
    results: dict[str, Any] = {}
    for key, official in listed.items():
        name = key.removeprefix("grad_param.")
        full = new + name.removeprefix(old) if old and name.startswith(old) else name
        (ours,) = reader({full: torch.zeros(1)}, model)
        results[key] = named[ours].grad
        if official.abs().max() < rounding:  # a bias that batch norm removes: its gradient is 0 but for rounding
            results[key] = partial(_below, named[ours].grad, rounding)
    return results


def _below(ours: Tensor, bound: Tensor, official: Tensor) -> None:
    assert ours.shape == official.shape
    assert ours.abs().max() < bound, f"{ours.abs().max()} where {bound} is rounding"


def state_after(case: Case, reader: Any, model: nn.Module, prefix: str = "state_after/") -> dict[str, Any]:
    """A comparison of our state with the official one, under each official name."""
    listed = {key.removeprefix(prefix): value for key, value in case.expected.items() if key.startswith(prefix)}
    official, ours = reader(listed, model), model.state_dict()
    assert official.keys() == ours.keys()

    def compare(name: str, _: Tensor) -> None:
        for key in reader({name: listed[name]}, model):
            if key in official:  # a bias that the reader folds into batch norm is compared there
                torch.testing.assert_close(ours[key], official[key], rtol=1e-4, atol=1e-5)

    return {prefix + name: partial(compare, name) for name in listed}


ADAPTERS: dict[str, Adapter] = {
    "byol_loss_lucidrains": byol_loss_lucidrains,
    "byol_deepmind_loss": byol_deepmind_loss,
    "byol_full_module_lucidrains": byol_full_module,
    "simsiam_loss": simsiam_case,
    "simsiam_full_module": simsiam_full_module,
    "swav_sinkhorn": swav_sinkhorn,
}
MASKED: dict[str, Adapter] = {}
