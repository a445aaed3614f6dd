"""Adapters for contrastive learning, clustering and self-distillation."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from groups.precision import in_each_precision
from loading import Adapter, Case
from torch import Tensor

from sslcourse.losses import cosine_similarity_matrix, nt_xent, nt_xent_masks
from sslcourse.train.optim import LARS, cosine_ema_schedule, scaled_lr, warmup_cosine

TF_EPS = 1e-6  # tf.math.l2_normalize bounds the squared norm by 1e-12, torch's normalize the norm


def ntxent(case: Case) -> dict[str, Any]:
    tau = case.hyper["T"]

    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        z1, z2 = inputs["z1"], inputs["z2"]
        positive, candidates = nt_xent_masks(len(z1))
        similarity = cosine_similarity_matrix(torch.cat([z1, z2]))
        # The official logits put the positive first and the negatives, in order, behind it.
        rows = [similarity[mask].view(len(similarity), -1) for mask in (positive, candidates & ~positive)]
        loss = nt_xent(z1, z2, tau)
        # Three other libraries on the same inputs: lightly, SupContrast without labels, pytorch-metric-learning.
        others = dict.fromkeys(("lightly", "supcon_nolabel", "pml_ntxent"), loss)
        return {"loss": loss, "logits": torch.cat(rows, dim=1) / tau, **others}

    return in_each_precision(case, outputs)


def simclr_tf_ntxent(case: Case) -> dict[str, Any]:
    tau = case.hyper["T"]

    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        z1, z2 = inputs["hidden"].chunk(2)
        n = len(z1)
        # The loss without normalisation is recorded on embeddings brought back to a moderate size.
        scale = max(case.hyper.get("scale", 1), 1)
        raw1, raw2 = z1 / scale, z2 / scale
        return {
            # The official value is the sum of two means over N, ours one mean over 2N; and it has the shape (1,).
            "loss": 2 * nt_xent(z1, z2, tau, eps=TF_EPS).reshape(1),
            "loss_no_norm": 2 * nt_xent(raw1, raw2, tau, normalize=False).reshape(1),
            "logits_ab": cosine_similarity_matrix(z1, z2) / tau,
            # The official columns are [other view; own view], ours [view1; view2].
            "labels": nt_xent_masks(n)[0][:n].roll(n, dims=1).to(z1.dtype),
        }

    return in_each_precision(case, outputs)


def simclr_tf_lr_schedule(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    peak = scaled_lr(hyper["base_lr"], hyper["train_batch_size"], hyper["learning_rate_scaling"])
    warmup = round(hyper["warmup_epochs"] * hyper["num_examples"] // hyper["train_batch_size"])
    total = hyper["total_steps"]
    steps = range(len(case.expected["out.lr"]))
    return {"out.lr": _float64(warmup_cosine(step, total, warmup, peak) for step in steps)}


def _float64(values: Iterable[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)


def _lars_steps(case: Case, exclude: Callable[[str, Tensor], bool], trust: float, lr: float) -> dict[str, Tensor]:
    """All parameters after each step, as STEP_NAME -> value, with gradients g{STEP}_{NAME} of the case."""
    params = {name.removeprefix("p_"): p.clone() for name, p in case.inputs.items() if name.startswith("p_")}
    # `exclude` by name or shape becomes a parameter group, as a caller of LARS writes it.
    groups = [
        {"params": [p for name, p in params.items() if exclude(name, p) is excluded], "exclude": excluded}
        for excluded in (False, True)
    ]
    optimizer = LARS(
        [group for group in groups if group["params"]],
        lr=lr,
        momentum=case.hyper["momentum"],
        weight_decay=case.hyper["weight_decay"],
        trust_coefficient=trust,
    )
    steps = {int(name[1:].split("_", 1)[0]) for name in case.inputs if name[0] == "g"}
    after: dict[str, Tensor] = {}
    for step in sorted(steps):
        for name, p in params.items():
            p.grad = case.inputs[f"g{step}_{name}"]
        optimizer.step()
        after |= {f"p{step}_{name}": p.clone() for name, p in params.items()}
    return after


def mocov3_lars(case: Case) -> dict[str, Any]:
    trust, lr = case.hyper["trust_coefficient"], case.hyper["lr"]
    ours = _lars_steps(case, lambda name, p: p.ndim <= 1, trust, lr)
    # DINO's LARS leaves out tensors of exactly one dimension, so it adapts scalars.
    dino = _lars_steps(case, lambda name, p: p.ndim == 1, trust, lr)
    return {f"out.{key}": p for key, p in ours.items()} | {f"out_dino.{key}": p for key, p in dino.items()}


def byol_deepmind_lars(case: Case) -> dict[str, Any]:
    # The official code excludes by name: biases are called "b", and everything in a module with "norm" in its name.
    def excluded(name: str, p: Tensor) -> bool:
        module, _, parameter = name.rpartition(".")
        return parameter == "b" or "norm" in module

    after = _lars_steps(case, excluded, case.hyper["eta"], case.hyper["learning_rate"])
    return {f"out.{key}": p for key, p in after.items()}


def byol_deepmind_schedules(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    peak = scaled_lr(hyper["base"], hyper["batch"])
    steps = case.inputs["step"].tolist()
    return {
        "out.tau": _float64(cosine_ema_schedule(k, hyper["K"], hyper["tau0"]) for k in steps),
        "out.lr": _float64(warmup_cosine(k, hyper["K"], hyper["warm"], peak) for k in steps),
    }


ADAPTERS: dict[str, Adapter] = {
    "ntxent": ntxent,
    "simclr_tf_ntxent": simclr_tf_ntxent,
    "simclr_tf_lr_schedule": simclr_tf_lr_schedule,
    "mocov3_lars": mocov3_lars,
    "byol_deepmind_lars": byol_deepmind_lars,
    "byol_deepmind_schedules": byol_deepmind_schedules,
}
