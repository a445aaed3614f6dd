"""Adapters for masked image and video modelling."""

from loading import Adapter, Case
from torch import Tensor

from sslcourse.train.optim import LARS


def mae_lars(case: Case) -> dict[str, Tensor]:
    params = {key.split("/")[0]: x.clone() for key, x in case.inputs.items() if key.endswith("/init")}
    settings = ("lr", "weight_decay", "momentum", "trust_coefficient")
    optimizer = LARS(list(params.values()), **{name: case.hyper[name] for name in settings})
    steps = range(case.hyper["steps"])
    for step in steps:
        for name, p in params.items():
            p.grad = case.inputs[f"{name}/grad{step}"]
        optimizer.step()
    # The recording kept one tensor a parameter, so each of its `after` values is the one after the last step.
    return {f"{name}/after{step}": p for step in steps for name, p in params.items()}


ADAPTERS: dict[str, Adapter] = {"mae_lars": mae_lars}
