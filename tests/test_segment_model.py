"""SAM's parts, prompting and automatic masks: limits, slow twins, an analytic model with known answers, bad input."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.segment.automatic import SMALL, AutomaticMasks, Thresholds
from sslcourse.segment.bounds import bounds_of
from sslcourse.segment.build import build_hq_sam, build_sam, build_tiny_sam
from sslcourse.segment.family_scoring import box_overlap
from sslcourse.segment.files import load_tiny
from sslcourse.segment.grids import crop_boxes, point_grid
from sslcourse.segment.image_encoder import ImageEncoder, window_partition, window_unpartition
from sslcourse.segment.mask_decoder import dynamic_multimask, select_single
from sslcourse.segment.mask_prompts import box_of
from sslcourse.segment.masks import stability_score
from sslcourse.segment.predictor import Predictor
from sslcourse.segment.prompts import PromptEncoder, fourier_point_embed
from sslcourse.segment.resize import fit_longest, to_pixels
from sslcourse.segment.sam import Sam
from sslcourse.segment.scenes import draw_scenes
from sslcourse.segment.tiny_vit import TinyViT, decoupled_distill


@pytest.fixture(scope="module")
def model() -> Sam:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_tiny_sam(64, 32).eval()


@pytest.fixture
def predictor(model: Sam) -> Predictor:
    image = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    return Predictor(model).set_image(image)


def test_places_are_told_by_sines_of_pixel_centres() -> None:
    G = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    found = fourier_point_embed(torch.tensor([3.0, 1.0]), (4, 8), G)
    cx, cy = 2 * 3.5 / 8 - 1, 2 * 1.5 / 4 - 1
    for k in range(5):
        angle = 2 * math.pi * (cx * float(G[0, k]) + cy * float(G[1, k]))
        assert found[k].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert found[5 + k].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_prompts_become_tokens() -> None:
    encoder = PromptEncoder(16, 4, 32)
    points, labels = torch.rand(2, 3, 2) * 32, torch.tensor([[1, 0, 1], [1, 1, -1]])
    boxes = torch.tensor([[0.0, 0, 31, 31], [4, 4, 9, 9]])
    assert encoder(points, labels)[0].shape == (2, 4, 16)  # a padding token closes the points
    assert encoder(None, None, boxes)[0].shape == (2, 2, 16)
    assert encoder(points, labels, boxes)[0].shape == (2, 5, 16)
    sparse, dense = encoder()
    assert sparse.shape == (1, 0, 16)
    assert dense.shape == (1, 16, 4, 4)
    # A padding point has no place.
    moved = points.clone()
    moved[1, 2] += 5
    torch.testing.assert_close(encoder(points, labels)[0], encoder(moved, labels)[0])
    with pytest.raises(InputError, match="labels of points"):
        encoder(points, labels + 3)
    with pytest.raises(InputError, match="given together"):
        encoder(points)
    with pytest.raises(InputError, match="equally many"):
        encoder(points, labels, boxes[:1])
    with pytest.raises(InputError, match="low-resolution"):
        encoder(masks=torch.zeros(1, 1, 8, 8))


def test_windows_come_back() -> None:
    x = torch.randn(2, 7, 10, 3)
    windows, padded = window_partition(x, 4)
    assert windows.shape == (2 * 2 * 3, 4, 4, 3)
    assert padded == (8, 12)
    assert torch.equal(window_unpartition(windows, padded, (7, 10)), x)


def test_the_order_of_points_does_not_matter(model: Sam) -> None:
    embedding = model.encode(torch.randn(1, 3, 64, 64))
    points, labels = torch.rand(1, 4, 2) * 64, torch.tensor([[1, 0, 1, 0]])
    order = torch.tensor([2, 0, 3, 1])
    one = model.decode(embedding, points, labels)
    other = model.decode(embedding, points[:, order], labels[:, order])
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_prompts_at_once_are_prompts_one_by_one(model: Sam) -> None:
    images = torch.randn(3, 3, 64, 64)
    embedding = model.encode(images)
    points, labels = torch.rand(3, 2, 2) * 64, torch.ones(3, 2)
    together = model.decode(embedding, points, labels)
    for i in range(3):
        alone = model.decode(model.encode(images[i : i + 1]), points[i : i + 1], labels[i : i + 1])
        torch.testing.assert_close(together[0][i], alone[0][0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together[1][i], alone[1][0], atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="3 image embeddings, 2 sets"):
        model.decode(embedding, points[:2], labels[:2])


def test_one_mask_of_four() -> None:
    masks = torch.randn(2, 4, 6, 6)
    iou = torch.tensor([[0.9, 0.1, 0.8, 0.2], [0.1, 0.3, 0.2, 0.7]])
    assert torch.equal(select_single(masks, iou, 2)[0][:, 0], torch.stack([masks[0, 2], masks[1, 3]]))
    assert torch.equal(select_single(masks, iou, 3)[0], masks[:, :1])
    masks[0, 0] = 40.0
    masks[1, 0] = 0.0  # not stable
    chosen, score = dynamic_multimask(masks, iou)
    assert torch.equal(chosen[:, 0], torch.stack([masks[0, 0], masks[1, 3]]))
    torch.testing.assert_close(score[:, 0], torch.tensor([0.9, 0.7]))


def test_the_family_differs_in_architecture() -> None:
    with torch.device("meta"):
        plain, hq, mobile = build_tiny_sam(), build_tiny_sam(hq=True), build_tiny_sam(encoder="mobile")
        big, big_hq = build_sam("vit_b"), build_hq_sam("vit_b")
    assert isinstance(plain.image_encoder, ImageEncoder)
    assert isinstance(mobile.image_encoder, TinyViT)
    new = {key.split(".")[1] for key in hq.state_dict().keys() - plain.state_dict().keys()}
    assert new == {"hf_token", "hf_mlp", "compress_vit_feat", "embedding_encoder", "embedding_maskfeature"}
    # Tiny models have the parts of the published ones.
    for tiny, published in ((plain, big), (hq, big_hq)):
        names = {".".join(key.split(".")[:2]) for key in tiny.state_dict()}
        assert names == {".".join(key.split(".")[:2]) for key in published.state_dict()}
    with pytest.raises(InputError, match="vit_b"):
        build_sam("vit_x")


def test_distillation_trains_the_student_only() -> None:
    teacher, student = ImageEncoder(32, 16, 16, 1, 2, window=2, global_blocks=(0,), out_channels=8), TinyViT(
        32, (8, 8, 8, 8), (1, 1, 1, 1), (1, 1, 1, 1), (2, 2, 2, 2), out_channels=8
    )  # fmt: skip
    teacher.train()
    images = torch.randn(2, 3, 32, 32)
    loss = decoupled_distill(student, teacher, images)
    expected = ((student(images) - teacher(images)) ** 2).mean()
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert teacher.training
    assert all(p.grad is None for p in teacher.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())


# Prompting on one image


def test_prompts_on_borders_and_contradictions(predictor: Predictor) -> None:
    corners = [[0, 0], [70, 40], [70, 0], [0, 40]]
    found = predictor.predict(points=corners, labels=[1, 1, 0, 0])
    assert found.masks.shape == (3, 40, 70)
    assert found.masks.dtype == torch.bool
    assert found.iou.shape == (3,)
    both = predictor.predict(points=[[10, 10], [10, 10]], labels=[1, 0])
    assert both.iou.isfinite().all()
    flat = predictor.predict(boxes=[5, 5, 5, 5], multimask=False)  # a box of no extent
    assert flat.masks.shape == (1, 40, 70)
    again = predictor.predict(points=[[10, 10]], masks=found.low_res[:1], multimask=False)
    assert again.low_res.shape == (1, 32, 32)


def test_many_prompts_are_single_prompts(predictor: Predictor) -> None:
    points = torch.tensor([[[10.0, 20.0]], [[60.0, 5.0]]])
    together = predictor.predict(points=points, logits=True)
    for i in range(2):
        alone = predictor.predict(points=points[i], logits=True)
        torch.testing.assert_close(together.masks[i], alone.masks, atol=1e-3, rtol=1e-3)
    assert torch.equal(together.masks > 0, predictor.predict(points=points).masks)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({}, "needs a prompt"),
        ({"points": [[71, 5]]}, "outside the image of 70 x 40"),
        ({"points": [[5, -1]]}, "outside the image"),
        ({"points": [[5, float("nan")]]}, "finite"),
        ({"points": [[5, 5]], "labels": [2]}, "1 include, 0 exclude"),
        ({"points": [[5, 5]], "labels": [1, 1]}, "one number a point"),
        ({"labels": [1]}, "needs a prompt"),
        ({"boxes": [9, 9, 3, 3]}, "x1 <= x2"),
        ({"boxes": [1, 2, 3]}, "shape"),
        ({"points": "here"}, "numbers of the shape"),
        ({"points": [[5, 5]], "boxes": [[1, 1, 2, 2]]}, "all of one prompt"),
    ],
)
def test_a_wrong_prompt_is_one_sentence(predictor: Predictor, prompt: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        predictor.predict(**prompt)
    assert str(error.value).count(". ") == 0


def test_a_prompt_before_an_image(model: Sam) -> None:
    with pytest.raises(InputError, match="set_image comes before"):
        Predictor(model).predict(points=[[1, 1]])


def test_images_of_every_kind(model: Sam, tmp_path: Any) -> None:
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    expected = to_pixels(rgb)
    assert torch.equal(to_pixels(tmp_path / "a.png"), expected)
    assert torch.equal(to_pixels(expected), expected)
    assert torch.equal(to_pixels(rgb.astype(np.uint16) * 257), expected)
    assert torch.equal(to_pixels(rgb / 255.0), expected)
    clear = np.concatenate([rgb, np.zeros((9, 7, 1), np.uint8)], axis=2)
    assert (to_pixels(clear) == 255).all()  # transparency is laid over white
    assert to_pixels(rgb[..., 0]).shape == (3, 9, 7)
    for size in ((1, 1), (1, 300), (300, 1), (9, 7)):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        found = Predictor(model).set_image(image).predict(points=[[0, 0]])
        assert found.masks.shape == (3, *size)
    for bad, message in (
        (rgb.astype(np.int32), "uint8, uint16 or float"),
        (rgb * 2.0, "lies in"),
        (rgb[..., :2], "or"),
        (np.zeros((0, 4, 3), np.uint8), "an image as an array"),
        (torch.zeros(4, 4), "as a tensor"),
        (tmp_path / "none.png", "no image file"),
    ):
        with pytest.raises(InputError, match=message):
            to_pixels(bad)
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="not a readable image"):
        to_pixels(tmp_path / "b.png")


def test_a_huge_image(model: Sam) -> None:
    image = torch.zeros(3, 40, 10_000, dtype=torch.uint8)
    image[:, 10:30, 4000:6000] = 255
    predictor = Predictor(model).set_image(image)
    assert predictor.input_size == fit_longest(40, 10_000, 64) == (1, 64)
    assert predictor.predict(points=[[5000, 20]]).masks.shape == (3, 40, 10_000)
    with pytest.raises(InputError, match="up to 4096 px"):
        AutomaticMasks(predictor)(image)


# Automatic masks with a model whose answers are known


class Discs:
    """Answers a point with the disc it is in (and, as second and third mask, with noise of a low score)."""

    def __init__(self, discs: list[tuple[float, float, float]]) -> None:
        self.discs, self.calls = discs, 0
        self.origin, self.size = (0, 0), (0, 0)

    def set_image(self, pixels: Tensor) -> None:
        self.size = (int(pixels.shape[1]), int(pixels.shape[2]))
        # The red and green channels of the test image are the place of the pixel.
        self.origin = (int(pixels[0, 0, 0]), int(pixels[1, 0, 0]))

    def mask(self, disc: tuple[float, float, float]) -> Tensor:
        y, x = torch.meshgrid(torch.arange(self.size[0]), torch.arange(self.size[1]), indexing="ij")
        x, y = x + self.origin[0], y + self.origin[1]
        return disc[2] - torch.hypot(x - disc[0], y - disc[1])  # the distance from the rim, in pixels

    def predict_low_res(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        masks, scores = [], []
        for x, y in points[:, 0].tolist():
            hits = [d for d in self.discs if math.hypot(x + self.origin[0] - d[0], y + self.origin[1] - d[1]) < d[2]]
            best = self.mask(hits[0]) * 50 if hits else torch.full(self.size, -9.0)
            masks.append(torch.stack([best, torch.zeros(self.size)]))
            scores.append([0.95 if hits else 0.1, 0.5])
        return torch.stack(masks), torch.tensor(scores)

    def upscale(self, low_res: Tensor) -> Tensor:
        return low_res


def places(height: int, width: int) -> Tensor:
    """An image whose red is x and whose green is y."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)]).to(torch.uint8)


DISCS = [(30.0, 30.0, 15.0), (90.0, 40.0, 20.0), (60.0, 100.0, 12.0)]


@pytest.mark.parametrize("at_once", [1, 7, 64])
def test_every_object_is_found_once_and_exactly(at_once: int) -> None:
    model = Discs(DISCS)
    image = places(130, 120)
    found = AutomaticMasks(model, points_per_side=16, points_per_batch=at_once)(image)
    assert model.calls == math.ceil(256 / at_once)
    expected = {tuple((model.mask(disc) > 0).flatten().tolist()) for disc in DISCS}
    assert {tuple(record.mask.flatten().tolist()) for record in found} == expected
    assert len(found) == 3
    for record in found:
        assert record.area == int(record.mask.sum())
        assert record.predicted_iou == pytest.approx(0.95)
        assert record.stability_score > 0.9
        x, y = record.point
        (disc,) = [d for d in DISCS if torch.equal(record.mask, model.mask(d) > 0)]
        assert math.hypot(x - disc[0], y - disc[1]) < disc[2]
        x1, y1, w, h = record.bbox
        assert record.mask[:, int(x1)].any()
        assert record.mask[:, int(x1 + w)].any()
        assert record.mask[int(y1)].any()
        assert record.mask[int(y1 + h)].any()


def test_crops_find_what_the_grid_misses() -> None:
    small = (100.0, 103.0, 8.0)  # between the points of the image's grid, under one of the first crop's
    image = places(250, 240)
    coarse = AutomaticMasks(Discs([small]), points_per_side=4)
    assert coarse(image) == []
    with_crops = AutomaticMasks(Discs([small]), points_per_side=4, crop_layers=1)
    found = with_crops(image)
    assert len(found) == 1
    assert torch.equal(found[0].mask, _disc(image, small))


def _disc(image: Tensor, disc: tuple[float, float, float]) -> Tensor:
    model = Discs([disc])
    model.set_image(image)
    return model.mask(disc) > 0


def test_thresholds_and_small_regions() -> None:
    image = places(130, 120)
    assert AutomaticMasks(Discs(DISCS), 16, limits=Thresholds(pred_iou=0.96))(image) == []
    assert AutomaticMasks(Discs(DISCS), 16, limits=Thresholds(stability=0.999))(image) == []
    assert len(AutomaticMasks(Discs(DISCS), 16, min_region=20)(image)) == 3
    nothing = AutomaticMasks(Discs([]), 8)(image)
    assert nothing == []


def test_grids() -> None:
    assert point_grid(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    boxes, layers = crop_boxes((100, 150), 1)
    assert boxes[0].tolist() == [0, 0, 150, 100]
    assert layers.tolist() == [0, 1, 1, 1, 1]
    covered = torch.zeros(100, 150, dtype=torch.bool)
    for x1, y1, x2, y2 in boxes[1:].tolist():
        covered[y1:y2, x1:x2] = True
    assert covered.all()
    with pytest.raises(InputError, match="at least one point"):
        point_grid(0)
    with pytest.raises(InputError, match="leave layer"):
        AutomaticMasks(Discs([]), 2, crop_layers=2, crop_points_scale=2)(places(10, 10))


class WithoutBounds:
    """A predictor whose masks are all enlarged."""

    def __init__(self, predictor: Predictor) -> None:
        self.set_image, self.upscale = predictor.set_image, predictor.upscale
        self.predict_low_res = predictor.predict_low_res


@pytest.mark.parametrize("size", [(128, 128), (300, 200), (40, 60)])
def test_what_cannot_stay_is_not_enlarged_and_nothing_changes(size: tuple[int, int]) -> None:
    predictor = Predictor(load_tiny())
    scene = draw_scenes(1, "test", presets=("multi",)).images[0, :3]
    image = torch.nn.functional.interpolate(scene[None].float(), size, mode="bilinear")[0].byte()
    seen: list[int] = []

    def watched(low_res: Tensor) -> Tensor:
        seen.append(len(low_res))
        return Predictor.upscale(predictor, low_res)

    predictor.upscale = watched  # type: ignore[method-assign]
    for limits in (SMALL, replace(SMALL, pred_iou=0.0, nms=0.4)):
        seen.clear()
        found = AutomaticMasks(predictor, 8, limits=limits)(image)
        judged = sum(seen) - len(found)
        assert len(found) > 1
        assert judged < 3 * 64 / 2
        assert found == AutomaticMasks(WithoutBounds(predictor), 8, limits=limits)(image)


@given(st.integers(0, 10**6), st.sampled_from([(9, 7), (33, 40), (64, 48), (130, 35)]))
@settings(max_examples=40, deadline=None)
def test_bounds_hold_boxes_and_stability(seed: int, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    small = torch.nn.functional.avg_pool2d(torch.randn(6, 24, 20, generator=generator), 5, stride=1) * 9 - 1
    large = torch.nn.functional.interpolate(small[None], size, mode="bilinear", align_corners=False)[0]
    bounds, exact = bounds_of(small, size), box_of(large > 0)
    sure, there = bounds.inner.any(dim=1), exact.any(dim=1)
    assert (bounds.inner[sure, :2] >= exact[sure, :2]).all()
    assert (bounds.inner[sure, 2:] <= exact[sure, 2:]).all()
    assert (bounds.outer[there, :2] <= exact[there, :2]).all()
    assert (bounds.outer[there, 2:] >= exact[there, 2:]).all()
    assert (bounds.stability >= stability_score(large)).all()
    for box in exact:
        assert (box_overlap(exact, box)[bounds.repeat(box, 0.5)] > 0.5).all()


def test_bounds_are_tight_where_the_enlargement_is_strong() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    disc = (20 - torch.hypot(x - 30, y - 34))[None]
    bounds = bounds_of(disc, (512, 512))
    large = torch.nn.functional.interpolate(disc[None], (512, 512), mode="bilinear", align_corners=False)[0]
    exact = box_of(large > 0)
    assert bounds.repeat(exact[0] + torch.tensor([6.0, -4, 6, -4]), 0.7).all()
    assert not bounds.repeat(exact[0] + 60, 0.7).any()
    assert bounds.stability[0] == pytest.approx(float(stability_score(large)[0]), abs=0.3)
