"""Linear probe: can a linear map read the class from frozen features?

    min over W, b of   mean_i CE(W s(x_i) + b, y_i) + l2 / 2 ||W||^2,      s(x) = (x - mean) / std

`fit_linear` sees training features only: mean and std are theirs, and the strength of the regularisation (L-BFGS) or
the learning rate (SGD) is chosen on a validation part of them. Test features first appear in `linear_probe`, after the
probe is fixed. L-BFGS solves the convex problem (the protocol of CLIP, Radford et al. 2021, appendix A.3); SGD follows
MoCo and MAE: momentum 0.9, cosine schedule, no weight decay, standardised features as MAE's batch norm without affine
(He et al. 2021, appendix A.1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.rng import step_generator
from sslcourse.errors import InputError, unknown
from sslcourse.evaluate.features import extract_features
from sslcourse.evaluate.result import Result, accuracy

L2 = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
_VALIDATION = 0.2  # of the training images


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe: everything in it comes from training features.

    Attributes:
        mean, std: (D,) standardisation.
        weight: (n_cls, D); bias: (n_cls,).
        detail: how it was fitted, plain JSON values.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor
    detail: dict[str, Any] = field(default_factory=dict)

    def __call__(self, x: Tensor) -> Tensor:
        """(N, D) features -> (N, n_cls) logits."""
        return F.linear((x.float() - self.mean) / self.std, self.weight, self.bias)


def fit_linear(
    x: Tensor,
    y: Tensor,
    *,
    solver: Literal["lbfgs", "sgd"] = "lbfgs",
    sweep: Sequence[float] | None = None,
    n_cls: int | None = None,
    epochs: int = 100,
    batch_size: int = 256,
    max_iter: int = 200,
    seed: int = 0,
) -> LinearProbe:
    """Fit a linear classifier; its one hyperparameter is chosen on a fifth of the data, then all of it is used.

    Args:
        x: (N, D) float training features.
        y: (N,) int64 classes, 0 .. n_cls - 1.
        solver: "lbfgs" sweeps l2, "sgd" sweeps the learning rate (all of them are trained at once).
        sweep: values to choose from; `L2` or `LEARNING_RATES` by default. A single value is taken without a sweep.
        n_cls: number of classes; the largest label + 1 by default.
        epochs, batch_size: of SGD.
        max_iter: most iterations of L-BFGS for one value of l2.
        seed: of the validation split and of SGD's batches.

    Raises:
        InputError: shapes that do not match, NaN features, labels out of range, an unknown solver.
    """
    if solver not in ("lbfgs", "sgd"):
        raise unknown("solver", solver, ["lbfgs", "sgd"])
    n_cls = _check(x, y, n_cls)
    x, y = x.detach().float(), y.to(x.device)
    values = tuple(sweep if sweep is not None else L2 if solver == "lbfgs" else LEARNING_RATES)
    if not values or min(values) < 0:
        raise InputError(f"A linear probe needs one value or more to sweep, none below 0; got {values}.")

    def solve(x: Tensor, y: Tensor, values: Sequence[float]) -> Tensor:
        if solver == "lbfgs":
            return _lbfgs(x, y, n_cls, values, max_iter)
        return _sgd(x, y, n_cls, values, epochs, batch_size, seed)

    held_out = _validation_split(y, seed) if len(values) > 1 else torch.zeros_like(y, dtype=torch.bool)
    chosen, best_accuracy = values[len(values) // 2], None  # where there is nothing to choose by
    if held_out.any():
        mean, std = _moments(x[~held_out])
        heads = solve((x[~held_out] - mean) / std, y[~held_out], values)
        logits = _with_one((x[held_out] - mean) / std) @ heads
        best, best_accuracy = _best(logits, y[held_out])
        chosen = values[best]

    mean, std = _moments(x)
    head = solve((x - mean) / std, y, [chosen])[0]
    detail = {
        "solver": solver,
        "sweep": list(values),
        "l2" if solver == "lbfgs" else "lr": chosen,
        "validation_accuracy": best_accuracy,
        "n_train": len(x),
        "seed": seed,
    }
    if solver == "sgd":
        detail |= {"epochs": epochs, "batch_size": batch_size}
    return LinearProbe(mean, std, head[:-1].T.contiguous(), head[-1], detail)


def linear_probe_features(backbone: nn.Module, train: Any, test: Any, **view: Any) -> tuple[Tensor, Tensor]:
    """What a linear probe sees of images: features of the frozen backbone, standardised by those of training alone.

    The backbone is in eval mode meanwhile and no gradient is kept; views are centred, never augmented. `fit_linear`
    standardises once more, which then changes nothing.

    Args:
        backbone: (B, 3, size, size) float -> (B, D).
        train, test: `Images`, or (N, 3, H, W) uint8.
        view: `size`, `mean`, `std`, `batch_size` and `device` of `extract_features`.

    Returns:
        (N, D) and (M, D) float32; a constant feature becomes 0.

    Raises:
        InputError: as `extract_features`.
    """
    x, q = (extract_features(backbone, data, **view) for data in (train, test))
    mean, std = _moments(x)
    return (x - mean) / std, (q - mean) / std


def linear_probe(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    name: str = "linear",
    **options: Any,
) -> Result:
    """Top-1 accuracy of `fit_linear` on test features, with its 95 % interval over the test images.

    Args:
        train_x, train_y: (N, D) and (N,), all that the probe is fitted on.
        test_x, test_y: (M, D) and (M,). A class that the training set lacks can only be wrong.
        options: those of `fit_linear`.
    """
    if test_x.shape[:1] != test_y.shape or len(test_y) == 0 or test_x.shape[1:] != train_x.shape[1:]:
        raise InputError(
            f"A linear probe needs test features of the width of the training features and one label each; got "
            f"{tuple(test_x.shape)} with labels {tuple(test_y.shape)}, and {tuple(train_x.shape)} for training."
        )
    if not bool(test_x.isfinite().all()):
        raise InputError("A linear probe needs finite test features; found NaN or infinity.")
    probe = fit_linear(train_x, train_y, **options)
    return accuracy(name, probe(test_x), test_y, {"protocol": "linear", **probe.detail})


def _lbfgs(x: Tensor, y: Tensor, n_cls: int, values: Sequence[float], max_iter: int) -> Tensor:
    """(len(values), D + 1, n_cls) solutions, the bias in the last row.

    Solved from the strongest regularisation to the weakest, each from the solution before: a few iterations apiece.
    """
    x = _with_one(x)
    head = x.new_zeros(x.shape[1], n_cls, requires_grad=True)
    solutions: dict[float, Tensor] = {}
    for l2 in sorted(set(values), reverse=True):
        optimizer = torch.optim.LBFGS(
            [head], max_iter=max_iter, tolerance_grad=1e-6, tolerance_change=1e-9, line_search_fn="strong_wolfe"
        )

        def objective(l2: float = l2, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            with torch.enable_grad():
                loss = F.cross_entropy(x @ head, y) + l2 / 2 * head[:-1].square().sum()
                loss.backward()
            return loss

        optimizer.step(objective)
        solutions[l2] = head.detach().clone()
    return torch.stack([solutions[l2] for l2 in values])


@torch.no_grad()
def _sgd(x: Tensor, y: Tensor, n_cls: int, values: Sequence[float], epochs: int, batch_size: int, seed: int) -> Tensor:
    """As `_lbfgs`, one head a learning rate; all see the same batches, so they train in one matrix product."""
    x = _with_one(x)
    heads = x.new_zeros(x.shape[1], len(values), n_cls)
    velocity = torch.zeros_like(heads)
    lr = x.new_tensor(values)[:, None]
    steps = math.ceil(len(x) / batch_size)
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=step_generator(seed, epoch)).to(x.device)
        for step, index in enumerate(order.split(batch_size)):
            xb = x[index]
            error = (xb @ heads.flatten(1)).unflatten(1, (len(values), n_cls)).softmax(dim=2)
            # The gradient of the cross-entropy is softmax - one-hot.
            error[torch.arange(len(index), device=x.device), :, y[index]] -= 1
            gradient = xb.T @ error.flatten(1) / len(index)
            velocity.mul_(0.9).add_(gradient.view_as(heads))
            heads -= lr * (0.5 + 0.5 * math.cos(math.pi * (epoch + step / steps) / epochs)) * velocity
    return heads.transpose(0, 1)


def _best(logits: Tensor, y: Tensor) -> tuple[int, float]:
    """The most accurate of (heads, N, n_cls) logits, the one with the lowest loss among equals; and its accuracy."""
    # Diverged learning rates give NaN logits, whose argmax is a class all the same: they count as wrong.
    right = (logits.argmax(dim=2) == y) & logits.isfinite().all(dim=2)
    accuracy = right.double().mean(dim=1)
    loss = F.cross_entropy(logits.movedim(2, 1), y.expand(len(logits), -1), reduction="none").mean(dim=1)
    best = int(loss.nan_to_num(torch.inf).masked_fill(accuracy < accuracy.max(), torch.inf).argmin())
    return best, accuracy[best].item()


def _with_one(x: Tensor) -> Tensor:
    """Append a constant feature, whose weight is the bias."""
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature; a constant feature gets 1 and so stays 0."""
    mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
    return mean, torch.where(std > 1e-6 * mean.abs().clamp_min(1e-6), std, torch.ones_like(std))


def _validation_split(y: Tensor, seed: int) -> Tensor:
    """(N,) bool: a fifth of each class, at least one; a class of one image stays in training."""
    held_out = torch.zeros(len(y), dtype=torch.bool)
    order = torch.randperm(len(y), generator=step_generator(seed, 0))
    labels = y.cpu()[order]
    for c in labels.unique():
        members = order[labels == c]
        if len(members) > 1:
            held_out[members[: max(1, int(_VALIDATION * len(members)))]] = True
    return held_out.to(y.device)


def _check(x: Tensor, y: Tensor, n_cls: int | None) -> int:
    if x.ndim != 2 or not x.is_floating_point() or y.shape != x.shape[:1] or y.is_floating_point() or len(x) == 0:
        got = f"{x.dtype} {tuple(x.shape)} and {y.dtype} {tuple(y.shape)}"
        raise InputError(f"A linear probe needs float features (N, D) and one integer label each; got {got}.")
    if not bool(x.isfinite().all()):
        raise InputError("A linear probe needs finite features; found NaN or infinity: did the training diverge?")
    low, high = int(y.min()), int(y.max())
    if low < 0 or (n_cls is not None and high >= n_cls):
        raise InputError(f"Linear probe labels must be 0 .. {(n_cls or high + 1) - 1}; found {low} .. {high}.")
    return high + 1 if n_cls is None else n_cls
