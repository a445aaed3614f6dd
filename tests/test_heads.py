"""Heads and backbones: the layers the papers have, shapes, and refusals."""

import pytest
import torch
from torch import nn

from sslcourse.errors import InputError
from sslcourse.nn.backbones import backbone
from sslcourse.nn.heads import projection_head


def kinds(module: nn.Module) -> list[str]:
    return [type(m).__name__ for m in module]


def test_simclr_head_has_batch_norm_behind_both_layers():
    head = projection_head(32, 32, 16, last_bn=True)
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert head[0].bias is None
    assert head[3].bias is None


def test_moco_v2_head_has_none():
    head = projection_head(32, 32, 16, bn=False)
    assert kinds(head) == ["Linear", "ReLU", "Linear"]
    assert head[0].bias is not None
    assert head[2].bias is not None


def test_moco_v3_projector_ends_in_a_plain_norm():
    head = projection_head(32, 64, 16, layers=3, last_bn=True, last_affine=False)
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    assert head[-1].weight is None


def test_one_layer_is_linear():
    head = projection_head(4, 0, 2, layers=1)
    x = torch.randn(3, 4)
    torch.testing.assert_close(head(2 * x) - head(0 * x), 2 * (head(x) - head(0 * x)))


@pytest.mark.parametrize("bad", [{"layers": 0}, {"out": 0}, {"hidden": 0}])
def test_impossible_heads_are_refused(bad):
    with pytest.raises(InputError, match="projection_head"):
        projection_head(4, **bad)


@pytest.mark.parametrize(
    ("name", "size"),
    [("convnet", 32), ("resnet18", 32), ("resnet18", 96), ("vit_mini_patch4", 32), ("vit_tiny_patch16", 32)],
)
def test_backbones_map_images_to_features(name, size):
    net = backbone(name, size).eval()
    with torch.no_grad():
        assert net(torch.randn(2, 3, size, size)).shape == (2, net.num_features)


def test_small_images_get_the_small_stem():
    small, large = backbone("resnet18", 32), backbone("resnet18", 224)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert small.eval().forward_features(x).shape[-1] == 4  # 32 / 8: three strided stages only
        assert large.eval().forward_features(x).shape[-1] == 1


def test_a_vit_takes_other_sizes_by_interpolation():
    net = backbone("vit_tiny_patch16", 64).eval()
    with torch.no_grad():
        assert net(torch.randn(1, 3, 32, 32)).shape == (1, net.num_features)


def test_bad_backbones_are_refused():
    with pytest.raises(InputError, match="did you mean 'resnet50'"):
        backbone("resnet5O")
    with pytest.raises(InputError, match="40"):
        backbone("vit_small_patch16", 40)
    with pytest.raises(InputError, match="8 pixels"):
        backbone("convnet", 4)
