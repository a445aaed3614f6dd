"""data2vec and MSN: what they may see, what is compared, what keeps them from collapse, that they learn."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse import methods
from sslcourse.data.load import load
from sslcourse.data.rng import step_generator
from sslcourse.errors import InputError
from sslcourse.losses.msn import msn_loss
from sslcourse.methods.data2vec import Data2Vec
from sslcourse.methods.msn import MSN
from sslcourse.nn.patches import patchify
from sslcourse.nn.vit import ViT
from sslcourse.train import fit


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def short(name: str, steps: int = 40, **changes: Any) -> Any:
    config = methods.get(name).PRESETS["cpu"]
    train = replace(config.train, steps=steps, batch_size=32, lr=2e-3, warmup_epochs=0.5, monitor_every=10)
    return replace(config, train=train, **changes)


@pytest.fixture(scope="module")
def images() -> Any:
    return load("shapes", "train", size=32, n=320)


# --- MSN -------------------------------------------------------------------------------------------------------------


def test_msn_loss_is_the_paper_s_equation_and_its_gradient_is_right() -> None:
    anchors, targets = numbers(3, 4, 5).requires_grad_(), numbers(4, 5, seed=1).softmax(dim=1)
    entropy, mean = 0.0, torch.zeros(5, dtype=torch.float64)
    for view in anchors.detach():
        for logits, target in zip(view, targets, strict=True):
            p = (logits / 0.1).exp() / (logits / 0.1).exp().sum()
            entropy += -float((target * p.log()).sum()) / 12
            mean += p / 12
    expected = entropy + 0.7 * float((mean * mean.log()).sum())
    loss = msn_loss(anchors, targets, 0.1, 0.7)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert torch.autograd.gradcheck(lambda a: msn_loss(a, targets, 0.5, 0.7), (anchors,), rtol=1e-3, atol=1e-5)


def test_msn_loss_is_smallest_where_every_prototype_has_its_images() -> None:
    sure = 30 * torch.eye(4)[None]
    assert float(msn_loss(sure, torch.eye(4))) == pytest.approx(-torch.tensor(4.0).log().item(), abs=1e-5)
    same = torch.zeros(4, 4)
    same[:, 0] = 1.0
    assert float(msn_loss(30 * same[None], same)) == pytest.approx(0.0, abs=1e-5)  # collapsed: no better than this
    far = (1e4 * numbers(2, 3, 4)).requires_grad_()
    msn_loss(far, torch.eye(4, dtype=torch.float64)[:3], 0.01).backward()
    assert far.grad is not None
    assert far.grad.isfinite().all()


def test_msn_s_anchor_knows_nothing_of_hidden_patches(images: Any) -> None:
    module = methods.build("msn", short("msn", ratio=0.5, n_local=2))
    *crops, mask = module.views(images.images[:4], step_generator(0, 0))
    assert [crop.shape[-1] for crop in crops] == [32, 32, 16, 16]
    assert mask.sum(dim=1).tolist() == [8] * 4
    crops[1].requires_grad_()
    out = module([*crops, mask])
    assert out["embedding"].shape == (4, 128)
    (gradient,) = torch.autograd.grad(out["loss"], crops[1])
    assert torch.equal(patchify(gradient, 8).abs().amax(dim=2) > 0, ~mask)
    assert not out["positive"].requires_grad


def test_msn_without_its_entropy_term_lets_images_share_a_prototype(images: Any, tmp_path: Any) -> None:
    in_use = {}
    for weight in (1.0, 0.0):
        config = short("msn", weight=weight, prototypes=16, m=0.9)
        module = methods.build("msn", config)
        fit(module, images, config, tmp_path / str(weight), progress=False)
        with torch.no_grad():
            x = module.eval().views(images.images, step_generator(0, 0))[0]
            p = (module.student["head"](module.student["backbone"](x)) / config.tau).softmax(dim=1).mean(dim=0)
        in_use[weight] = float((-(p * p.log()).sum()).exp())
    assert in_use[1.0] > 10 > 4 > in_use[0.0], in_use  # of 16 prototypes: exp of the entropy of the mean prediction


# --- data2vec --------------------------------------------------------------------------------------------------------


def test_data2vec_targets_are_the_mean_of_standardised_blocks(images: Any) -> None:
    module = methods.build("data2vec", short("data2vec", top=3))
    x, mask = module.views(images.images[:4], step_generator(0, 0))
    assert mask.sum(dim=1).tolist() == [38] * 4  # 0.6 of 64 patches, rounded down
    teacher: ViT = module.target
    tokens, outputs = teacher.embed(x), []
    for block in teacher.blocks:
        tokens = block(tokens)
        outputs.append(tokens[:, 1:] - tokens[:, 1:].mean(-1, keepdim=True))
    slow = sum(o / (o.square().mean(-1, keepdim=True) + 1e-5).sqrt() for o in outputs[1:]) / 3
    torch.testing.assert_close(module.contextual_targets(x), slow, rtol=1e-4, atol=1e-5)


def test_data2vec_compares_hidden_patches_that_the_student_cannot_see(images: Any) -> None:
    module = methods.build("data2vec", short("data2vec"))
    x, mask = module.views(images.images[:4], step_generator(0, 0))
    out = module([x, mask])
    error = F.smooth_l1_loss(out["pred"], out["target"], beta=2.0, reduction="none").mean(dim=2)
    torch.testing.assert_close(out["loss"], error[mask].mean())
    assert not out["target"].requires_grad
    hidden = mask.view(4, 8, 8).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    seen = module.backbone.forward_features(torch.where(hidden, 9.0, x), mask)
    torch.testing.assert_close(seen, module.backbone.forward_features(x, mask))
    old = module.target.norm.weight.clone()
    with torch.no_grad():
        module.backbone.norm.weight.add_(1.0)
    module.after_step(0, 100)
    torch.testing.assert_close(module.target.norm.weight, old + 0.01)


@pytest.mark.parametrize("name", ["msn", "data2vec"])
def test_they_learn_on_shapes_in_seconds(name: str, images: Any, tmp_path: Any) -> None:
    # data2vec's teacher stands still, so that its loss cannot fall by a collapse; MSN's moves: its floor is -log K.
    config = short(name, steps=40, **({"m": 1.0} if name == "data2vec" else {"m": 0.9, "prototypes": 16}))
    module = methods.build(name, config)
    views = module.views(images.images[:64], step_generator(0, 0))
    before = module(views)["loss"].detach()
    fit(module, images, config, tmp_path / "run", progress=False)
    assert module.train()(views)["loss"] < before - 0.1 * before.abs()


@pytest.mark.parametrize(
    ("cls", "bad", "why"),
    [
        (MSN, {"sharpen": 0.2}, "0 < sharpen < tau"),
        (MSN, {"ratio": 1.0}, "ratio in"),
        (Data2Vec, {"m": 1.5}, "m in"),
        (Data2Vec, {"top": 9}, "1 to 4 blocks"),
        (Data2Vec, {"ratio": 1.5}, "ratio"),
    ],
)
def test_wrong_settings_are_named(cls: Any, bad: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        cls(replace(cls.PRESETS["cpu"], **bad))


@pytest.mark.parametrize("cls", [MSN, Data2Vec])
def test_every_preset_builds(cls: Any) -> None:
    for config in cls.PRESETS.values():
        assert cls(config).backbone.num_features > 0


def test_msn_loss_names_shapes_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="anchors"):
        msn_loss(torch.zeros(4, 5), torch.zeros(4, 5))
    with pytest.raises(InputError, match="tau > 0"):
        msn_loss(torch.zeros(1, 4, 5), torch.zeros(4, 5), tau=0.0)
