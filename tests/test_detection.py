"""Detection transfer: AP as pycocotools counts it, a detector that learns, a backbone that does not."""

import pytest
import torch
from torch import Tensor, nn

from sslcourse.errors import InputError
from sslcourse.evaluate.detection import BoxData, coco_ap, detection_transfer, shapes_boxes
from sslcourse.evaluate.encoder import Encoder

pytest.importorskip("pycocotools", reason="pycocotools is part of the extra 'course'")


class Edges(nn.Module):
    """Colours and edges of 4 x 4 blocks; one batch norm, to see that it stays as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(48)

    def forward_map(self, x: Tensor) -> Tensor:
        return self.norm(nn.functional.pixel_unshuffle(x, 4))


def squares(n: int, seed: int = 0) -> BoxData:
    """One bright square on dark ground, red (0) or blue (1)."""
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 40, (n, 3, 32, 32), generator=g, dtype=torch.uint8)
    boxes, labels = [], []
    for i in range(n):
        size = int(torch.randint(8, 15, (1,), generator=g))
        x, y = torch.randint(0, 32 - size, (2,), generator=g).tolist()
        images[i, 2 * (i % 2), y : y + size, x : x + size] = 230
        boxes.append(torch.tensor([[x, y, x + size, y + size]]).float())
        labels.append(torch.tensor([i % 2]))
    return BoxData(images, boxes, labels, ["red", "blue"], "squares")


def as_found(data: BoxData) -> list[dict[str, Tensor]]:
    return [
        {"boxes": b, "scores": torch.ones(len(b)), "labels": c} for b, c in zip(data.boxes, data.labels, strict=True)
    ]


def test_perfect_detections_score_one_and_a_shift_costs_the_strict_thresholds() -> None:
    data = squares(8)
    scores, draws = coco_ap(data, as_found(data))
    assert scores == {"AP": 1.0, "AP50": 1.0, "AP75": 1.0}
    assert draws.unique().tolist() == [1.0]
    shifted = [one | {"boxes": one["boxes"] + torch.tensor([2.0, 0.0, 2.0, 0.0])} for one in as_found(data)]
    scores, draws = coco_ap(data, shifted)
    assert scores["AP50"] == 1.0
    assert scores["AP75"] < 1.0
    assert 0 < draws.quantile(0.025) <= scores["AP"] <= draws.quantile(0.975) < 1
    wrong = [one | {"labels": 1 - one["labels"]} for one in as_found(data)]
    assert coco_ap(data, wrong)[0]["AP"] == 0.0


def test_nothing_found_is_zero() -> None:
    data = squares(4)
    nothing = [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0).long()}] * 4
    scores, draws = coco_ap(data, nothing)
    assert scores == {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}
    assert draws.unique().tolist() == [0.0]


def test_a_detector_learns_on_a_frozen_map() -> None:
    net = Edges().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    encoder = Encoder(net, mean=(0.1, 0.1, 0.1), std=(0.3, 0.3, 0.3))
    result = detection_transfer(encoder, squares(48), squares(16, 1), epochs=20, batch_size=8)
    assert result.detail["AP50"] > 0.5
    assert result.low <= result.value <= result.high
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.norm.training


def test_finetuning_trains_a_copy() -> None:
    net = Edges()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    result = detection_transfer(Encoder(net), squares(8), squares(4, 1), epochs=1, batch_size=4, finetune=True)
    assert result.detail["finetune"]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_boxes_of_the_embedded_world_and_bad_input() -> None:
    data = shapes_boxes("train", 5, 32)
    assert len(data) == 5
    assert all((b[:, 2:] > b[:, :2]).all() for b in data.boxes)
    assert len(data.rows(torch.tensor([3, 1]))) == 2
    empty = BoxData(data.images, [torch.zeros(0, 4)] * 5, [torch.zeros(0).long()] * 5, data.classes, "empty")
    with pytest.raises(InputError, match="at least one box"):
        detection_transfer(Encoder(Edges()), empty, data)
    with pytest.raises(InputError, match="boxes and labels"):
        BoxData(data.images, data.boxes[:2], data.labels, data.classes, "short")
