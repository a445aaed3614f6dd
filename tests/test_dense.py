"""Dense probes: maps of every backbone, learning from places, ignored pixels, frozen backbones, attention masks."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslcourse.errors import InputError
from sslcourse.evaluate.attention import attention_jaccard, attention_masks
from sslcourse.evaluate.dense import depth_probe, segmentation_probe
from sslcourse.evaluate.dense_data import IGNORE, DenseData, rows, shapes_classes, shapes_depth, split_rows
from sslcourse.evaluate.encoder import Encoder, class_attention, dense_features, resize_to_multiple
from sslcourse.nn.backbones import backbone
from sslcourse.nn.convnet import ConvNet
from sslcourse.nn.vit import ViT


class Blocks(nn.Module):
    """Colours of 4 x 4 blocks: a representation whose maps are easy to know."""

    def forward_map(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 4)


def halves(n: int, seed: int = 0) -> DenseData:
    """A bright half on one side, class 1; a tenth of the pixels without a label."""
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (n, 3, 16, 16), generator=g)
    target = torch.zeros(n, 16, 16, dtype=torch.long)
    for i in range(n):
        side = slice(0, 8) if i % 2 else slice(8, 16)
        images[i, :, :, side] += 120
        target[i, :, side] = 1
    target[torch.rand(n, 16, 16, generator=g) < 0.1] = IGNORE
    return DenseData(images.to(torch.uint8), target, ["dark", "bright"], "halves")


@pytest.mark.parametrize("name", ["convnet", "vit_mini_patch4"])
def test_maps_pool_to_the_features(name: str) -> None:
    net = backbone(name, 32).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    maps = dense_features(net, x)
    assert maps.shape[:2] == (2, net.num_features)
    assert maps.shape[2] == maps.shape[3] > 1
    if name != "vit_mini_patch4":
        torch.testing.assert_close(maps.mean((2, 3)), net(x))


def test_vit_places_stand_where_their_patches_are() -> None:
    vit = ViT(32, 8, dim=16, depth=1, n_heads=2, registers=2).eval()
    x = torch.zeros(1, 3, 24, 40)
    assert dense_features(vit, x).shape == (1, 16, 3, 5)
    tokens = vit.forward_features(x)[:, 3:]
    assert torch.equal(dense_features(vit, x)[0, :, 1, 2], tokens[0, 1 * 5 + 2])


def test_a_backbone_without_maps_is_one_sentence() -> None:
    with pytest.raises(InputError, match="no feature map"):
        dense_features(nn.Flatten(), torch.zeros(1, 3, 8, 8))
    with pytest.raises(InputError, match="class token"):
        Encoder(ConvNet()).attention(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_who_stands_for_the_image_is_whose_attention_is_shown(pool: Any) -> None:
    vit = ViT(16, 8, dim=16, depth=1, n_heads=2, pool=pool, registers=1).eval()
    x = torch.randn(3, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    looks = class_attention(vit, x)
    whole = vit.get_last_attention(x)
    rows = whole[:, :, 0] if pool == "cls" else torch.stack([whole[:, :, 2 + i] for i in range(6)]).mean(dim=0)
    torch.testing.assert_close(looks, rows[:, :, 2:].unflatten(2, (2, 3)))


def test_sides_become_multiples_of_the_patch() -> None:
    images = torch.randint(256, (2, 3, 30, 45), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert resize_to_multiple(images, 8).shape == (2, 3, 32, 48)
    assert resize_to_multiple(images, 15) is images


@pytest.mark.parametrize("head", ["linear", "conv"])
def test_segmentation_learns_what_the_map_shows(head: str) -> None:
    result = segmentation_probe(Encoder(Blocks()), halves(24), halves(10, 1), head=head)  # type: ignore[arg-type]
    assert result.value > 0.93
    assert result.low <= result.value <= result.high
    assert result.detail["iou"].keys() == {"dark", "bright"}
    again = segmentation_probe(Encoder(Blocks()), halves(24), halves(10, 1), head=head)  # type: ignore[arg-type]
    assert again == result


def test_labels_of_ignored_pixels_change_nothing() -> None:
    train, test = halves(8), halves(4, 1)
    images = train.images.clone()
    result = segmentation_probe(Encoder(Blocks()), train, test, steps=5)
    masked = DenseData(images, train.target.clone(), train.classes, train.name)
    masked.target[masked.target == IGNORE] = IGNORE
    assert segmentation_probe(Encoder(Blocks()), masked, test, steps=5) == result
    nothing = DenseData(images, torch.full_like(train.target, IGNORE), train.classes, train.name)
    with pytest.raises(InputError, match="no pixel"):
        segmentation_probe(Encoder(Blocks()), nothing, test)


def test_the_backbone_and_the_test_set_stay_out_of_the_training() -> None:
    net = ConvNet((8, 8), (2, 2)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    train, test = halves(8), halves(6, 1)
    inverted = DenseData(255 - test.images, test.target, test.classes, test.name)
    both = DenseData(torch.cat([test.images, inverted.images]), test.target.repeat(2, 1, 1), test.classes, "both")
    correct = []
    for data in (test, inverted, both):
        result = segmentation_probe(Encoder(net), train, data, steps=5)
        correct.append(result.detail["pixel_accuracy"])
    assert correct[2] == pytest.approx((correct[0] + correct[1]) / 2)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(m.training for m in net.modules())


def test_depth_is_explained_by_a_map_that_shows_it() -> None:
    data = halves(16)
    near = torch.where(data.target == IGNORE, torch.nan, data.target.float())
    depth = DenseData(data.images, near, [], "depth")
    result = depth_probe(Encoder(Blocks()), rows(depth, torch.arange(10)), rows(depth, torch.arange(10, 16)))
    assert result.value > 0.9
    assert result.detail["rmse"] < 0.15
    noise = DenseData(data.images.flip(0), near, [], "noise")
    assert depth_probe(Encoder(Blocks()), noise, depth, steps=20).value < 0.5
    with pytest.raises(InputError, match="float"):
        depth_probe(Encoder(Blocks()), data, data)


def test_targets_of_the_embedded_world() -> None:
    data = shapes_classes("train", 6, 32)
    assert data.target.unique().max() <= 10
    assert (data.target > 0).any(dim=2).any(dim=1).all()
    depth = shapes_depth("train", 6, 32)
    values = depth.target[depth.target.isfinite()]
    assert 0 <= values.min() < values.max() <= 1
    train, test = split_rows(10, 0.3)
    assert (len(train), len(test)) == (7, 3)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(10))


def test_attention_masks_hold_the_mass_with_the_fewest_patches() -> None:
    attention = torch.tensor([[[[0.5, 0.2], [0.2, 0.1]]]])
    assert attention_masks(attention, 0.6).tolist() == [[[[True, True], [False, False]]]]
    assert attention_masks(attention, 0.5).sum() == 1
    assert attention_masks(attention, 1.0).all()
    assert attention_masks(torch.rand(2, 3, 4, 4), 0.6).any(dim=3).any(dim=2).all()
    with pytest.raises(InputError, match="mass"):
        attention_masks(attention, 0.0)


def test_attention_jaccard_takes_the_best_head() -> None:
    vit = ViT(16, 8, dim=16, depth=1, n_heads=2)
    data = halves(6)
    result = attention_jaccard(Encoder(vit), data.images, data.target == 1)
    assert 0 < result.value <= 1
    assert result.detail["one_head"] <= result.value
    assert result.low <= result.value <= result.high
