"""Dense transfer: what do the places of a frozen feature map say about the pixels under them?

A linear layer (or one hidden 3 x 3 convolution) on the frozen map, enlarged to the image: class maps are scored by
mIoU, depth by the share of variance explained and the RMSE. Maps are computed once and standardised by training
statistics; the head alone is trained (DINOv2, Oquab et al. 2023, section 7.4, "linear").
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.rng import mix, step_generator
from sslcourse.errors import InputError, unknown
from sslcourse.evaluate.dense_data import IGNORE, DenseData
from sslcourse.evaluate.encoder import Encoder
from sslcourse.evaluate.result import Result
from sslcourse.evaluate.segmentation import confusion_matrix, iou_of_classes
from sslcourse.train.optim import warmup_cosine

Head = Literal["linear", "conv"]
HIDDEN = 64  # channels of the small head


def segmentation_probe(
    encoder: Encoder, train: DenseData, test: DenseData, *, head: Head = "linear", steps: int = 500, seed: int = 0
) -> Result:
    """mIoU of class maps predicted from frozen maps, with a bootstrap interval over the test images.

    Args:
        train, test: class maps with `IGNORE` where there is no label.
        head: a linear layer, or a 3 x 3 convolution of 64 channels in front of it.
        steps: of AdamW on the head, batches of 16 images.
        seed: of the head and its batches.
    """
    n_classes = _check(train, test, values=False)
    model, maps = _fit(encoder, train, test, n_classes, head, steps, seed)
    confusions = []
    for part, target in zip(maps.split(64), test.target.split(64), strict=True):
        pred = _enlarged(model, part, target.shape[1:]).argmax(dim=1)
        confusions += [confusion_matrix(p, t, n_classes, IGNORE) for p, t in zip(pred, target, strict=True)]
    each = torch.stack(confusions)
    iou = iou_of_classes(each.sum(dim=0))
    counts = _resamples(len(each), seed)
    drawn = (counts @ each.double().flatten(1)).view(-1, n_classes, n_classes)
    draws = iou_of_classes(drawn).nanmean(dim=1)
    low, high = _ends(draws)
    detail = {
        "protocol": "segmentation",
        "head": head,
        "steps": steps,
        "seed": seed,
        "n_train": len(train),
        "pixel_accuracy": (each.sum(dim=0).diagonal().sum() / each.sum()).item(),
        "iou": {name: value for name, value in zip(train.classes, iou.tolist(), strict=True) if value == value},
    }
    return Result("segmentation", iou.nanmean().item(), low, high, len(test), "images", detail, {"draws": draws})


def depth_probe(
    encoder: Encoder, train: DenseData, test: DenseData, *, head: Head = "linear", steps: int = 500, seed: int = 0
) -> Result:
    """Share of the depth's variance explained (R^2) from frozen maps, with an interval over the test images.

    0 is what the mean depth of the test pixels would reach; RMSE in `detail`. Arguments as in `segmentation_probe`,
    with float targets, NaN where there is none.
    """
    _check(train, test, values=True)
    model, maps = _fit(encoder, train, test, 1, head, steps, seed)
    sums = []
    for part, target in zip(maps.split(64), test.target.split(64), strict=True):
        pred = _enlarged(model, part, target.shape[1:])[:, 0]
        known = target.isfinite()
        y = target.double().where(known, 0.0)
        error = (pred.double() - y).square().where(known, 0.0)
        sums.append(torch.stack([v.sum(dim=(1, 2)) for v in (known.double(), y, y.square(), error)], dim=1))
    each = torch.cat(sums)  # (N, 4): pixels, sum y, sum y^2, squared error
    score = _explained(each.sum(dim=0))
    draws = _explained(_resamples(len(each), seed) @ each)
    low, high = _ends(draws)
    total = each.sum(dim=0)
    detail = {
        "protocol": "depth",
        "head": head,
        "steps": steps,
        "seed": seed,
        "n_train": len(train),
        "rmse": (total[3] / total[0]).sqrt().item(),
    }
    return Result("depth", score.item(), low, high, len(test), "images", detail, {"draws": draws})


def _fit(
    encoder: Encoder, train: DenseData, test: DenseData, outputs: int, head: Head, steps: int, seed: int
) -> tuple[nn.Module, Tensor]:
    """The trained head and the standardised maps of the test images."""
    if head not in ("linear", "conv"):
        raise unknown("dense head", head, ["linear", "conv"])
    maps = encoder.maps(train.images)
    if not bool(maps.isfinite().all()):
        raise InputError("The feature maps hold NaN or infinity; did the training diverge?")
    mean, std = maps.mean(dim=(0, 2, 3), keepdim=True), maps.std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-6)
    maps = (maps - mean) / std
    with torch.random.fork_rng(devices=[]):  # initialisers draw from the global generator
        torch.manual_seed(mix(seed, 2))
        model = _head(head, maps.shape[1], outputs)
    _train(model, maps, train.target, steps, seed)
    return model.eval(), (encoder.maps(test.images) - mean) / std


def _head(head: Head, dim: int, outputs: int) -> nn.Module:
    if head == "linear":
        return nn.Conv2d(dim, outputs, 1)
    return nn.Sequential(nn.Conv2d(dim, HIDDEN, 3, padding=1), nn.ReLU(), nn.Conv2d(HIDDEN, outputs, 1))


def _train(model: nn.Module, maps: Tensor, target: Tensor, steps: int, seed: int) -> None:
    batch = min(16, len(maps))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=1e-4)
    for step in range(steps):
        epoch, start = divmod(step * batch, len(maps) // batch * batch)
        index = torch.randperm(len(maps), generator=step_generator(seed, epoch))[start : start + batch]
        optimizer.param_groups[0]["lr"] = warmup_cosine(step + 1, steps + 1, steps // 20, 1e-2)
        optimizer.zero_grad(set_to_none=True)
        out = F.interpolate(model(maps[index]), target.shape[1:], mode="bilinear", align_corners=False)
        loss = _loss(out, target[index])
        if loss.requires_grad:
            loss.backward()
            optimizer.step()


def _loss(out: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy or squared error over the pixels that have a target; 0 where none has."""
    if target.is_floating_point():
        known = target.isfinite()
        return (out[:, 0][known] - target[known]).square().sum() / known.sum().clamp_min(1)
    known = target != IGNORE
    return F.cross_entropy(out, target, ignore_index=IGNORE, reduction="sum") / known.sum().clamp_min(1)


@torch.no_grad()
def _enlarged(model: nn.Module, maps: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(model(maps), size, mode="bilinear", align_corners=False)


def _explained(sums: Tensor) -> Tensor:
    """R^2 from (..., 4) sums over pixels: count, y, y^2, squared error."""
    count, y, square, error = sums.unbind(-1)
    spread = (square - y * y / count.clamp_min(1)).clamp_min(1e-12)
    return 1 - error / spread


def _resamples(n: int, seed: int, times: int = 1000) -> Tensor:
    """(times, n) float64: how often each image is drawn in a bootstrap sample."""
    index = torch.randint(n, (times, n), generator=step_generator(mix(seed, 3), 0))
    return torch.zeros(times, n, dtype=torch.float64).scatter_add_(1, index, torch.ones(times, n, dtype=torch.float64))


def _ends(values: Tensor) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles."""
    low, high = values.double().quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def _check(train: DenseData, test: DenseData, *, values: bool) -> int:
    for data in (train, test):
        if data.target.is_floating_point() != values:
            raise InputError(f"{data.name}: {'depth needs float' if values else 'segmentation needs integer'} targets.")
        known = data.target.isfinite() if values else data.target != IGNORE
        if not bool(known.any()):
            raise InputError(f"{data.name}: no pixel has a target.")
    if train.classes != test.classes:
        raise InputError("Training and test maps need the same classes.")
    return len(train.classes)
