"""SimCLR: what its forward computes, that it learns, and that the monitors see when its negatives are taken away."""

from dataclasses import replace

import pytest
import torch

from sslcourse import catalogue, methods
from sslcourse.data.load import load
from sslcourse.data.rng import step_generator
from sslcourse.errors import InputError
from sslcourse.evaluate import extract_features, knn_accuracy
from sslcourse.losses.infonce import nt_xent_loop
from sslcourse.methods.simclr import SimCLR
from sslcourse.train import CollapseWarning, fit, read_log

CPU = SimCLR.PRESETS["cpu"]


SIDE = 24  # pixels; learning takes seconds


def cpu(head="mlp", **train):
    settings = {"warmup_epochs": 0.5, "log_every": 5, "monitor_every": 5}
    view = replace(CPU.augment, size=SIDE)
    return replace(CPU, head=head, augment=view, train=replace(CPU.train, **(settings | train)))


@pytest.fixture(scope="module")
def shapes():
    return load("shapes", "train", size=SIDE, n=1280), load("shapes", "test", size=SIDE, n=400)


def accuracy(backbone, sets):
    bank, queries = (extract_features(backbone, part) for part in sets)
    return knn_accuracy(bank, sets[0].labels, queries, sets[1].labels).value


def test_views_are_two_different_draws_and_the_same_for_one_seed(shapes):
    module = methods.build(SimCLR, cpu())
    x = shapes[0].images[:8]
    a, b = module.views(x, step_generator(3, 5))
    assert a.shape == b.shape == (8, 3, SIDE, SIDE)
    assert (a - b).abs().flatten(1).amax(1).min() > 0.1
    torch.testing.assert_close([a, b], module.views(x, step_generator(3, 5)), rtol=0, atol=0)
    assert not torch.equal(a, module.views(x, step_generator(3, 6))[0])


@pytest.mark.parametrize("head", ["mlp", "linear", "none"])
@pytest.mark.parametrize("tile", [0, 4])
def test_the_loss_is_nt_xent_of_both_views_in_one_forward(shapes, head, tile):
    config = replace(cpu(head), tile=tile)
    module = methods.build(SimCLR, config)
    views = module.views(shapes[0].images[:6], step_generator(0, 0))
    out = module(views)
    z1, z2 = module.head(module.backbone(torch.cat(views))).chunk(2)
    torch.testing.assert_close(out["loss"], nt_xent_loop(z1, z2, config.tau), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out["embedding"], z1)
    torch.testing.assert_close(out["positive"], z2)
    assert z1.shape[1] == (config.dim if head != "none" else module.backbone.num_features)
    out["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="did you mean 'linear'"):
        SimCLR(replace(CPU, head="linaer"))
    with pytest.raises(InputError, match="temperature"):
        SimCLR(replace(CPU, tau=0.0))
    with pytest.raises(InputError, match="backbone"):
        SimCLR(replace(CPU, backbone="convnext"))


@pytest.mark.parametrize("name", SimCLR.PRESETS)
def test_every_preset_builds(name):
    config = SimCLR.PRESETS[name]
    with torch.device("meta"):
        module = SimCLR(config)
        assert module.backbone.num_features > 0
    assert config.train.epochs >= 10


def test_the_catalogue_knows_it():
    assert methods.get("simclr") is SimCLR
    assert catalogue.METHODS["simclr"].presets == tuple(SimCLR.PRESETS)


def test_it_learns_on_shapes_in_seconds(shapes, tmp_path):
    # Views of the whole image: the finding simclr_augmentation shows that they learn fastest on `Shapes`.
    config = cpu(steps=80)
    config = replace(config, augment=replace(config.augment, scale=(1.0, 1.0), ratio=(1.0, 1.0)))
    module = methods.build(SimCLR, config)
    before = accuracy(module.backbone, shapes)
    out = fit(module, shapes[0], config, tmp_path / "run", progress=False, eval_data=shapes)
    losses = [line["loss"] for line in read_log(tmp_path / "run")]
    assert losses[-1] < losses[0] - 0.2
    assert out["knn"] > before + 0.10
    assert out["feature_std"] > 0.5
    assert out["alignment"] < 1.5


class NoNegatives(SimCLR):
    """Attraction only: the safeguard of contrastive learning is gone, and one point is the best answer."""

    def forward(self, views):
        out = super().forward(views)
        z1, z2 = (torch.nn.functional.normalize(out[key], dim=1) for key in ("embedding", "positive"))
        return out | {"loss": (z1 - z2).pow(2).sum(1).mean()}


def test_without_negatives_it_collapses_and_the_monitor_says_so(shapes, tmp_path):
    config = cpu("linear", steps=40)
    module = methods.build(NoNegatives, config)
    module.head = torch.nn.Linear(module.backbone.num_features, 16)  # batch norm would be another safeguard
    with pytest.warns(CollapseWarning, match="COLLAPSE"):
        out = fit(module, shapes[0], config, tmp_path / "run", progress=False)
    assert out["feature_std"] < 0.05
    assert out["loss"] < 0.01  # and the loss looks perfect
