"""Automatic masks with the tiny SAM: against a loop that keeps run lengths of every batch, and a time budget."""

import itertools
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from benchmarks.harness import Pair, Row
from sslcourse.data.shapes import Shapes
from sslcourse.errors import InputError
from sslcourse.segment.automatic import SMALL, AutomaticMasks
from sslcourse.segment.files import load_tiny
from sslcourse.segment.grids import point_grid
from sslcourse.segment.predictor import Predictor
from sslcourse.zoo.weights import shipped

SIDE, POINTS, BATCH = 512, 32, 64


def _image() -> Tensor:
    return Shapes("test", SIDE, preset="captions").batch([0]).image[0]


def loop_rle(masks: Tensor) -> list[dict[str, Any]]:
    """Run lengths of masks (B, H, W), mask by mask from the changes of the whole batch."""
    _, h, w = masks.shape
    flat = masks.permute(0, 2, 1).flatten(1)
    change = (flat[:, 1:] ^ flat[:, :-1]).nonzero()
    out = []
    for i in range(len(flat)):
        at = change[change[:, 0] == i, 1]
        edges = torch.cat([at.new_zeros(1), at + 1, at.new_tensor([h * w])])
        counts = [] if flat[i, 0] == 0 else [0]
        out.append({"size": [h, w], "counts": counts + (edges[1:] - edges[:-1]).tolist()})
    return out


def loop_mask(rle: dict[str, Any]) -> Tensor:
    """A mask, run by run."""
    h, w = rle["size"]
    mask, at, value = torch.zeros(h * w, dtype=torch.bool), 0, False
    for count in rle["counts"]:
        mask[at : at + count] = value
        at, value = at + count, not value
    return mask.view(w, h).T


def loop_everything(predictor: Predictor, image: Tensor) -> Tensor:
    """Every batch of points: masks of the size of the image, filters, run lengths; at the end NMS and masks again."""
    predictor.set_image(image)
    points = point_grid(POINTS) * torch.tensor([SIDE, SIDE])
    rles: list[dict[str, Any]] = []
    boxes, scores = [], []
    for batch in points.split(BATCH):
        low, iou = predictor.predict_low_res(batch[:, None], torch.ones(len(batch), 1, dtype=torch.long))
        logits, score = predictor.upscale(low).flatten(0, 1), iou.flatten()
        keep = score > SMALL.pred_iou
        logits, score = logits[keep], score[keep]
        inner, outer = (logits > 1.0).sum((1, 2)), (logits > -1.0).sum((1, 2))
        keep = inner / outer >= SMALL.stability
        masks, score = logits[keep] > 0, score[keep]
        rows, columns = masks.any(2), masks.any(1)
        sides = [[r.nonzero() for r in axis] for axis in (columns, rows)]
        found = [
            [int(x[0]), int(y[0]), int(x[-1]), int(y[-1])] if len(x) else [0, 0, 0, 0]
            for x, y in itertools.zip_longest(*sides)
        ]
        boxes.append(torch.tensor(found, dtype=torch.float32).view(-1, 4))
        scores.append(score)
        rles += loop_rle(masks)
    all_boxes, all_scores = torch.cat(boxes), torch.cat(scores)
    keep = batched_nms(all_boxes, all_scores, torch.zeros(len(all_boxes)), SMALL.nms)
    return torch.stack([loop_mask(rles[i]) for i in keep.tolist()])


def _ours() -> AutomaticMasks:
    return AutomaticMasks(Predictor(load_tiny()), POINTS, BATCH, limits=SMALL)


def against_a_loop() -> Pair:
    ours, predictor, image = _ours(), Predictor(load_tiny()), _image()
    return lambda: torch.stack([found.mask for found in ours(image)]), lambda: loop_everything(predictor, image)


def budget() -> Pair:
    ours, image = _ours(), _image()
    return lambda: ours(image), lambda: None


ENCODED = 256  # px: at SAM's 1,024 a round of the ViT-H takes minutes on a CPU


def encoder_of_the_teacher() -> Pair:
    """MobileSAM's image encoder beside that of its teacher, both as published, with random weights."""
    from sslcourse.segment.build import build_encoder
    from sslcourse.segment.tiny_vit import TinyViT

    small, large = TinyViT(ENCODED).eval(), build_encoder("vit_h", ENCODED).eval()
    x = torch.randn(1, 3, ENCODED, ENCODED, generator=torch.Generator().manual_seed(0))

    def forward(model: torch.nn.Module) -> Tensor:
        with torch.no_grad():
            return model(x)

    return lambda: forward(small), lambda: forward(large)


ENCODER = Row(
    "sam-encoder",
    f"MobileSAM's TinyViT on one image of {ENCODED} px",
    "SAM's ViT-H",
    encoder_of_the_teacher,
    target=10.0,
    check=None,
)
ROWS = [
    ENCODER,
    Row(
        "sam-auto",
        f"automatic masks, {POINTS} x {POINTS} points, {SIDE} px, tiny SAM",
        "a loop, RLE a batch",
        against_a_loop,
        target=3.0,
    ),
    Row(
        "sam-everything",
        f"automatic masks of a {SIDE} px image with the tiny SAM",
        "nothing",
        budget,
        target=2.0,
        kind="seconds",
        check=None,
    ),
]
try:
    shipped("tiny_sam")
except InputError:  # not trained yet: there is nothing to measure
    ROWS = [ENCODER]
