"""Detection transfer: can a small detector find and name objects on the map of a frozen network?

A one-level FCOS (Tian et al. 2019; torchvision's) on a 1 x 1 projection of the last map: small, so that what it finds
is owed to the representation. Scored by COCO's AP, through pycocotools.
"""

import contextlib
import io
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sslcourse.data.rng import mix, step_generator
from sslcourse.data.zips import CocoPack
from sslcourse.errors import InputError
from sslcourse.evaluate.dense_data import squash
from sslcourse.evaluate.encoder import Encoder, dense_features, patch_side, resize_to_multiple
from sslcourse.evaluate.result import Result
from sslcourse.train.optim import warmup_cosine

WIDTH = 64  # channels of the projection and of the detector's convolutions
SHOWN = 0.2  # objects of which less shows are not asked for


@dataclass(frozen=True)
class BoxData:
    """Images with boxes.

    Attributes:
        images: (N, 3, H, W) uint8.
        boxes: N tensors (K, 4) float x1 y1 x2 y2 in pixels.
        labels: N tensors (K,) int64.
        classes: names of the classes.
        name: what to call the set in tables.
    """

    images: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    classes: list[str]
    name: str

    def __post_init__(self) -> None:
        n = len(self.images)
        if n == 0 or len(self.boxes) != n or len(self.labels) != n:
            raise InputError(f"BoxData needs boxes and labels for each of {n} images.")

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, index: Tensor) -> "BoxData":
        """The images at `index`."""
        at = index.tolist()
        boxes, labels = [self.boxes[i] for i in at], [self.labels[i] for i in at]
        return BoxData(self.images[index], boxes, labels, self.classes, self.name)


def shapes_boxes(split: str, n: int, size: int = 64, *, preset: str = "multi", seed: int = 0) -> BoxData:
    """Scenes of `Shapes` with the boxes of the objects that show."""
    from sslcourse.data.shapes import CLASSES, Shapes

    scenes = Shapes(split, size, seed, preset=preset).batch(range(n))
    there = (scenes.kinds >= 0) & (scenes.visible >= SHOWN)
    boxes = [b[t] for b, t in zip(scenes.boxes, there, strict=True)]
    labels = [k[t] for k, t in zip(scenes.kinds, there, strict=True)]
    return BoxData(scenes.image, boxes, labels, list(CLASSES), "shapes")


def coco_boxes(pack: CocoPack, size: int = 96, *, n_classes: int = 8) -> BoxData:
    """COCO images that have a mask, squashed to one size, with the boxes of the `n_classes` most frequent things."""
    items = [pack[i] for i in pack.with_masks]
    things = [[s for s in item.segments if s.is_thing and not s.is_crowd] for item in items]
    counts = torch.bincount(torch.tensor([s.category_id for kept in things for s in kept]), minlength=256)
    chosen = counts.sort(descending=True, stable=True).indices[: min(n_classes, int((counts > 0).sum()))].tolist()
    images, boxes, labels = [], [], []
    for item, kept in zip(items, things, strict=True):
        found = [s for s in kept if s.category_id in chosen]
        height, width = item.image.shape[1:]
        scale = torch.tensor([size / width, size / height, size / width, size / height])
        corners = [(s.box[0], s.box[1], s.box[0] + s.box[2], s.box[1] + s.box[3]) for s in found]
        images.append(squash(item.image, size))
        boxes.append(torch.tensor(corners, dtype=torch.float32).view(-1, 4) * scale)
        labels.append(torch.tensor([chosen.index(s.category_id) for s in found], dtype=torch.long))
    return BoxData(torch.stack(images), boxes, labels, [pack.categories[c] for c in chosen], "coco")


def detection_transfer(
    encoder: Encoder,
    train: BoxData,
    test: BoxData,
    *,
    finetune: bool = False,
    epochs: int = 12,
    batch_size: int = 16,
    lr: float = 2e-3,
    seed: int = 0,
) -> Result:
    """COCO AP (mean over IoU 0.50 to 0.95) of a small detector, with a bootstrap interval over the test images.

    `detail` has AP50 and AP75.

    Args:
        encoder: its backbone stays frozen and in eval mode; with `finetune` a copy of it is trained at a tenth of `lr`.
        epochs, batch_size, lr: of AdamW on the detector.
        seed: of the detector and its batches.

    Raises:
        InputError: pycocotools is not installed, or no box to learn from or to find.
    """
    if not any(len(b) for b in train.boxes) or not any(len(b) for b in test.boxes):
        raise InputError("Detection needs at least one box for training and one for testing.")
    if train.classes != test.classes:
        raise InputError("Training and test boxes need the same classes.")
    _pycocotools()
    with torch.random.fork_rng(devices=[]):  # initialisers draw from the global generator
        torch.manual_seed(mix(seed, 4))
        model = _detector(encoder, train, finetune)
        _train(model, train, encoder.where, epochs, batch_size, lr, seed)
    found = _detect(model, test.images, encoder.where, batch_size)
    scores, draws = coco_ap(test, found, seed=seed)
    low, high = draws.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    detail = {
        "protocol": "detection",
        "finetune": finetune,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "n_train": len(train),
        "seed": seed,
        **scores,
    }
    return Result("detection", scores["AP"], low, high, len(test), "images", detail, {"draws": draws})


def coco_ap(
    truth: BoxData, found: Sequence[dict[str, Tensor]], *, seed: int = 0, n_boot: int = 200
) -> tuple[dict[str, float], Tensor]:
    """AP, AP50 and AP75 of detections, and (n_boot,) APs of bootstrap samples of the images.

    Args:
        found: for every image "boxes" (K, 4) x1 y1 x2 y2, "scores" (K,) and "labels" (K,).
    """
    coco, evaluation = _pycocotools()
    ground, result = coco(), []
    ground.dataset = _coco_dataset(truth)
    for i, one in enumerate(found):
        for box, score, label in zip(_xywh(one["boxes"]), one["scores"].tolist(), one["labels"].tolist(), strict=True):
            result.append({"image_id": i, "category_id": label + 1, "bbox": box, "score": score})
    if not result:
        return {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}, torch.zeros(n_boot, dtype=torch.float64)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports every step
        ground.createIndex()
        e = evaluation(ground, ground.loadRes(result), "bbox")
        e.params.areaRng, e.params.areaRngLbl, e.params.maxDets = [[0, 1e10]], ["all"], [100]
        e.evaluate()
        e.accumulate()
        precision = e.eval["precision"]
        per_image = np.array(e.evalImgs, dtype=object).reshape(len(truth.classes), len(truth))
        draws = []
        generator = step_generator(mix(seed, 5), 0)
        for _ in range(n_boot):
            e.evalImgs = (
                per_image[:, torch.randint(len(truth), (len(truth),), generator=generator).numpy()].ravel().tolist()
            )
            e.accumulate()
            draws.append(_mean_ap(e.eval["precision"]))
    scores = {"AP": _mean_ap(precision), "AP50": _mean_ap(precision[0]), "AP75": _mean_ap(precision[5])}
    return scores, torch.tensor(draws, dtype=torch.float64)


class _Map(nn.Module):
    """The projected map of a backbone, as torchvision's detectors want it."""

    def __init__(self, backbone: nn.Module, dim: int, frozen: bool) -> None:
        super().__init__()
        self.backbone, self.frozen, self.out_channels = backbone, frozen, WIDTH
        self.project = nn.Conv2d(dim, WIDTH, 1)
        self.norm = nn.GroupNorm(1, dim)  # maps of different networks have different scales

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = dense_features(self.backbone, x)
        return {"0": self.project(self.norm(maps))}

    def train(self, mode: bool = True) -> "_Map":
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self


def _detector(encoder: Encoder, data: BoxData, finetune: bool) -> Any:
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.fcos import FCOS, FCOSHead

    patch = patch_side(encoder.backbone)
    patch = patch if isinstance(patch, int) else max(patch)
    # torchvision resizes images and boxes together, so places of the map stay where the boxes say.
    height, width = resize_to_multiple(data.images[:1], patch).shape[2:]
    maps = encoder.maps(data.images[:1])
    stride = height // maps.shape[2]
    backbone = deepcopy(encoder.backbone).requires_grad_(finetune)
    n_classes = len(data.classes)
    model = FCOS(
        _Map(backbone, maps.shape[1], frozen=not finetune),
        n_classes,
        min_size=min(height, width),
        max_size=max(height, width),
        image_mean=list(encoder.mean),
        image_std=list(encoder.std),
        anchor_generator=AnchorGenerator(((stride,),), ((1.0,),)),
        head=FCOSHead(WIDTH, 1, n_classes, num_convs=2),
        score_thresh=0.05,
        size_divisible=32 if patch == 1 else patch,
    )
    return model.to(encoder.where)


def _train(model: Any, data: BoxData, device: torch.device, epochs: int, batch_size: int, lr: float, seed: int) -> None:
    inner = {id(p) for p in model.backbone.backbone.parameters()}
    groups = [
        {"params": [p for p in model.parameters() if id(p) not in inner], "scale": 1.0},
        {"params": [p for p in model.parameters() if id(p) in inner and p.requires_grad], "scale": 0.1},
    ]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, weight_decay=1e-4)
    batch_size = min(batch_size, len(data))
    per_epoch = len(data) // batch_size
    model.train()
    for step in range(epochs * per_epoch):
        epoch, at = divmod(step, per_epoch)
        order = torch.randperm(len(data), generator=step_generator(seed, epoch))
        index = order[at * batch_size : (at + 1) * batch_size].tolist()
        images = [data.images[i].to(device).float() / 255 for i in index]
        targets = [{"boxes": data.boxes[i].to(device), "labels": data.labels[i].to(device)} for i in index]
        for group in optimizer.param_groups:
            group["lr"] = group["scale"] * warmup_cosine(step + 1, epochs * per_epoch + 1, per_epoch, lr)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(model(images, targets).values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()


@torch.no_grad()
def _detect(model: Any, images: Tensor, device: torch.device, batch_size: int) -> list[dict[str, Tensor]]:
    model.eval()
    found: list[dict[str, Tensor]] = []
    for part in images.split(batch_size):
        out = model([image.to(device).float() / 255 for image in part])
        found += [{name: value.cpu() for name, value in one.items()} for one in out]
    return found


def _coco_dataset(data: BoxData) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for i, (boxes, labels) in enumerate(zip(data.boxes, data.labels, strict=True)):
        for box, label in zip(_xywh(boxes), labels.tolist(), strict=True):
            area = box[2] * box[3]
            one = {"image_id": i, "category_id": label + 1, "bbox": box, "area": area, "iscrowd": 0}
            annotations.append(one | {"id": len(annotations) + 1})  # pycocotools takes the id 0 for "no match"
    return {
        "info": {},
        "images": [{"id": i} for i in range(len(data))],
        "annotations": annotations,
        "categories": [{"id": c + 1, "name": name} for c, name in enumerate(data.classes)],
    }


def _xywh(boxes: Tensor) -> list[list[float]]:
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()


def _mean_ap(precision: "np.ndarray[Any, Any]") -> float:
    """Mean over thresholds, recalls and the classes that occur, which -1 marks as absent."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else 0.0


def _pycocotools() -> tuple[Any, Any]:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise InputError("COCO's AP needs pycocotools: pip install 'sslcourse[course]'.") from None
    return COCO, COCOeval
