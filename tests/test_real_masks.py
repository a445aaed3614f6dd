"""The table of masks for boxes and clicks: what it is compared with finds what is easy, and its page is a table."""

import pytest
import torch
from torch import Tensor

from benchmarks import real_masks
from sslcourse.evaluate.result import mean_result, to_json
from sslcourse.segment.scoring import iou_of


@pytest.fixture
def easy() -> tuple[Tensor, Tensor]:
    """A red disc on a blue ground, with some noise: (3, 64, 80) uint8 and its mask."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(80), indexing="ij")
    mask = torch.hypot(x - 45.0, y - 30.0) < 14
    image = torch.where(mask, torch.tensor([210, 40, 40])[:, None, None], torch.tensor([40, 60, 190])[:, None, None])
    noise = torch.randint(-12, 13, (3, 64, 80), generator=torch.Generator().manual_seed(0))
    return (image + noise).to(torch.uint8), mask


@pytest.mark.parametrize("who", real_masks.BASELINES["box"])
def test_a_box_around_an_easy_object(who: str, easy: tuple[Tensor, Tensor]) -> None:
    image, mask = easy
    found = real_masks.BASELINES["box"][who](image, torch.tensor([31.0, 16, 59, 44]))
    assert found.shape == mask.shape
    assert found.dtype == torch.bool
    assert iou_of(found, mask) > (0.7 if who == "the box itself" else 0.81)  # the box itself: 0.75


@pytest.mark.parametrize("who", real_masks.BASELINES["click"])
def test_a_click_on_an_easy_object(who: str, easy: tuple[Tensor, Tensor]) -> None:
    image, mask = easy
    found = real_masks.BASELINES["click"][who](image, torch.tensor([45.0, 30.0]))
    assert found[30, 45]
    assert not (found & ~mask).sum() > 0.1 * mask.sum()
    assert who == "SLIC" or iou_of(found, mask) > 0.85  # a superpixel is only a part of it


def test_the_section_has_a_row_for_everybody() -> None:
    scores = torch.tensor([0.25, 0.75])
    rows = [
        mean_result("", scores + i / 10, "objects", {"data": data, "by": by, "prompt": prompt})
        for prompt, answer in (("box", "GrabCut"), ("click", "SLIC"))
        for i, by in enumerate(("tiny SAM", answer))
        for data in ("COCO", "DAVIS")
    ]
    cost = real_masks.encoders(rounds=1)
    assert 2 < cost["tiny SAM"]["million"] / cost["tiny MobileSAM"]["million"] < 5
    lines = real_masks.section({"minutes": 1.0, "encoders": cost, "results": [to_json(r) for r in rows]})
    assert "| box | COCO, 2 objects | DAVIS, 2 objects |" in lines
    assert sum(line.startswith("| tiny SAM | 0.500 [") for line in lines) == 2
    assert sum(line.startswith("| GrabCut | 0.600 [") for line in lines) == 1


def test_scenes_are_objects_too() -> None:
    image, mask = next(real_masks.objects("sketch"))
    assert image.shape == (3, 128, 128)
    assert mask.any()
