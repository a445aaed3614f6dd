"""Fine-tuning: the layer-wise rates, what is frozen stays frozen, and that it learns and repeats."""

import pytest
import torch
from torch import nn

from sslcourse.data.images import Images
from sslcourse.errors import InputError
from sslcourse.evaluate.finetune import (
    Classifier,
    _train_mode,
    finetune,
    layer_decay_groups,
    linear_head,
    train_last_blocks,
)
from sslcourse.nn.backbones import backbone
from sslcourse.nn.convnet import ConvNet
from sslcourse.nn.vit import ViT


def tiny_vit() -> ViT:
    torch.manual_seed(0)
    return ViT(16, 8, dim=16, depth=3, n_heads=2)


def coloured(n: int, seed: int = 0) -> Images:
    """Class 0 is reddish, class 1 bluish."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    images = torch.randint(0, 120, (n, 3, 16, 16), generator=g)
    images[labels == 0, 0] += 60
    images[labels == 1, 2] += 60
    return Images(images.to(torch.uint8), labels, ["red", "blue"], "colours")


def test_rates_fall_from_the_head_to_the_patches() -> None:
    model = Classifier(tiny_vit(), nn.Linear(16, 2))
    named = [*model.backbone.named_parameters(), *(("head." + n, p) for n, p in model.head.named_parameters())]
    groups = layer_decay_groups(named, 0.5, 0.1)
    scale = {name: g["lr_scale"] for g in groups for name in g["names"]}
    decay = {name: g["weight_decay"] for g in groups for name in g["names"]}
    assert scale["patch_embed.proj.weight"] == scale["pos_embed"] == scale["cls_token"] == 0.5**4
    assert [scale[f"blocks.{i}.mlp.fc1.weight"] for i in range(3)] == [0.5**3, 0.5**2, 0.5]
    assert scale["head.weight"] == scale["norm.bias"] == 1.0
    assert decay["head.weight"] == decay["patch_embed.proj.weight"] == 0.1
    assert decay["pos_embed"] == decay["cls_token"] == decay["norm.weight"] == decay["head.bias"] == 0.0
    assert sorted(scale) == sorted(name for name, _ in named)


@pytest.mark.parametrize("name", ["convnet", "resnet18"])
def test_convolutional_stages_are_layers_too(name: str) -> None:
    groups = layer_decay_groups(backbone(name, 32).named_parameters(), 0.5)
    scales = {g["lr_scale"] for g in groups}
    assert {0.5**k for k in range(1, 5)} <= scales


def test_only_the_last_blocks_learn() -> None:
    vit = tiny_vit()
    train_last_blocks(vit, 1)
    learning = {name for name, p in vit.named_parameters() if p.requires_grad}
    assert learning == {n for n, _ in vit.named_parameters() if n.startswith(("blocks.2.", "norm."))}
    train_last_blocks(vit, 0)
    assert {name for name, p in vit.named_parameters() if p.requires_grad} == {"norm.weight", "norm.bias"}
    train_last_blocks(vit, None)
    assert all(p.requires_grad for p in vit.parameters())
    with pytest.raises(InputError, match="3 blocks"):
        train_last_blocks(vit, 4)


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    net = ConvNet((8, 8), (2, 2))
    train_last_blocks(net, 1)
    before = {name: b.clone() for name, b in net.named_buffers()}
    _train_mode(net)
    net(torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    moved = {name for name, b in net.named_buffers() if not torch.equal(b, before[name])}
    assert moved == {name for name in before if name.startswith("stages.1.")}


@pytest.mark.parametrize("last_blocks", [None, 1])
def test_it_learns_and_leaves_the_backbone_alone(last_blocks: int | None) -> None:
    vit = tiny_vit()
    before = {name: p.clone() for name, p in vit.state_dict().items()}
    result = finetune(vit, coloured(64), coloured(40, 1), epochs=6, batch_size=16, lr=3e-3, last_blocks=last_blocks)
    assert result.value >= 0.9
    assert result.low <= result.value <= result.high
    assert all(torch.equal(p, before[name]) for name, p in vit.state_dict().items())
    assert all(p.requires_grad for p in vit.parameters())


def test_the_same_seed_gives_the_same_number_and_leaves_the_global_generator() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    runs = [finetune(tiny_vit_once(), coloured(32), coloured(20, 1), epochs=1, lr=1e-3, seed=3) for _ in range(2)]
    assert runs[0] == runs[1]
    assert torch.equal(torch.get_rng_state(), state)


def tiny_vit_once() -> ViT:
    with torch.random.fork_rng(devices=[]):
        return tiny_vit()


def test_test_images_play_no_part_in_training() -> None:
    train, test = coloured(32), coloured(20, 1)
    both = Images(torch.cat([test.images, 255 - test.images]), test.labels.repeat(2), test.classes)
    one = finetune(tiny_vit(), train, test, epochs=2, batch_size=16, lr=3e-3)
    two = finetune(tiny_vit(), train, both, epochs=2, batch_size=16, lr=3e-3)
    inverted = finetune(tiny_vit(), train, both.subset(torch.arange(20, 40)), epochs=2, batch_size=16, lr=3e-3)
    assert two.value == pytest.approx((one.value + inverted.value) / 2)


def test_a_head_starts_small_and_normalises_by_training_statistics() -> None:
    torch.manual_seed(0)
    head = linear_head(6, 3)
    x = 5 * torch.randn(64, 6) + 2
    for _ in range(200):
        head(x)
    head.eval()
    assert head[1].weight.abs().max() < 0.05
    torch.testing.assert_close(head[0](x).mean(0), torch.zeros(6), atol=1e-4, rtol=0)


def test_bad_input_is_one_sentence() -> None:
    data = coloured(8)
    unlabelled = Images(data.images, torch.full((8,), -1))
    with pytest.raises(InputError, match="label"):
        finetune(tiny_vit(), unlabelled, data)
    with pytest.raises(InputError, match="epochs"):
        finetune(tiny_vit(), data, data, epochs=0)
    with pytest.raises(InputError, match="decay"):
        layer_decay_groups([], 1.5)
