"""Every protocol by its name, from a small network to a result with an interval, a table and two figures."""

import dataclasses
from pathlib import Path
from typing import get_args

import pytest
import torch

from sslcourse.data.images import Images
from sslcourse.data.shapes import Shapes
from sslcourse.errors import InputError
from sslcourse.evaluate.baselines import hog_encoder, pixel_encoder
from sslcourse.evaluate.encoder import Encoder
from sslcourse.evaluate.figure import plot_ranking, plot_results
from sslcourse.evaluate.protocols import DIAGNOSTICS, ENCODERS, FEATURES, PROTOCOLS, evaluate_encoder, without_result
from sslcourse.evaluate.result import Result
from sslcourse.evaluate.tasks import Task, whole_side
from sslcourse.nn.convnet import ConvNet
from sslcourse.nn.vit import ViT

# What makes each protocol last a second.
QUICK = {
    "linear": {"sweep": [1e-2]},
    "few_1": {"sweep": [1e-2], "subsets": 2},
    "few_10": {"sweep": [1e-2], "subsets": 2},
    "finetune": {"epochs": 1},
    "partial": {"epochs": 1},
    "copy": {"n": 3},
    "robustness": {"kinds": ["contrast"], "severities": (1, 5), "sweep": [1e-2]},
    "shift": {"sweep": [1e-2]},
    "segmentation": {"steps": 5},
    "depth": {"steps": 5},
    "detection": {"epochs": 1, "batch_size": 4},
}


def world(n: int = 30, m: int = 12) -> Task:
    def classes() -> tuple[Images, Images]:
        return Shapes("train", 32).as_images(n), Shapes("test", 32).as_images(m)

    return Task("shapes", classes, 32, n, m)


@pytest.fixture(scope="module")
def task() -> Task:
    return world()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(ViT(32, 8, dim=16, depth=2, n_heads=2), 32)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_gives_a_number_with_n_and_interval(name: str, encoder: Encoder, task: Task) -> None:
    if name == "detection":
        pytest.importorskip("pycocotools", reason="pycocotools is part of the extra 'course'")
    before = {key: value.clone() for key, value in encoder.backbone.state_dict().items()}
    (result,) = evaluate_encoder(encoder, task, [name], representation="vit", options=QUICK)
    assert result.low <= result.value <= result.high
    assert result.n >= 2
    assert result.name == f"{name}, vit"
    assert (result.detail["protocol"], result.detail["representation"]) == (name, "vit")
    assert all(torch.equal(value, before[key]) for key, value in encoder.backbone.state_dict().items())


def test_the_command_line_knows_every_protocol() -> None:
    from sslcourse.commands.evaluate import Name

    assert set(get_args(Name)) == {*PROTOCOLS, "diagnostics"}
    assert set(DIAGNOSTICS) < set(PROTOCOLS)
    assert not set(FEATURES) & set(ENCODERS)


def test_what_a_network_cannot_do_is_left_out(task: Task) -> None:
    net = Encoder(ConvNet((8, 8), (2, 2)), 32)
    assert evaluate_encoder(net, task, ["attention"], representation="convnet") == []
    for baseline in (pixel_encoder(task.labelled[0], size=32), hog_encoder(size=32)):
        found = evaluate_encoder(baseline, task, ["finetune", "knn"], representation="baseline")
        assert [r.detail["protocol"] for r in found] == ["knn"]
        assert without_result(["finetune", "knn"], found) == ["finetune"]


def test_an_unknown_protocol_is_one_sentence(encoder: Encoder, task: Task) -> None:
    with pytest.raises(InputError, match="did you mean 'segmentation'"):
        evaluate_encoder(encoder, task, ["segmentaton"], representation="vit")


@pytest.mark.parametrize("part", ["maps", "depths", "objects", "followed", "boxes", "clips", "shifted"])
def test_data_that_lacks_the_labels_is_one_sentence(part: str) -> None:
    images = Images(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.zeros(4, dtype=torch.long))
    with pytest.raises(InputError, match="photos does not have"):
        getattr(Task("photos", lambda: (images, images)), part)


def test_features_are_kept_between_calls(encoder: Encoder, task: Task, tmp_path: Path) -> None:
    first = evaluate_encoder(encoder, task, ["knn"], representation="vit", cache=tmp_path)
    calls: list[int] = []
    handle = encoder.backbone.register_forward_hook(lambda *_: calls.append(1))
    again = evaluate_encoder(encoder, task, ["knn"], representation="vit", cache=tmp_path)
    handle.remove()
    assert again == first
    assert calls == []


def test_sides_suit_every_patch() -> None:
    assert [whole_side(view, 64) for view in (32, 64, 96, 100)] == [64, 64, 96, 112]
    assert [whole_side(view, 64, 14) for view in (32, 70, 224)] == [70, 70, 224]


def test_figures_of_several_protocols(tmp_path: Path) -> None:
    results = [
        Result(f"{p}, {r}", v, v - 0.05, v + 0.05, 50, "images", {"protocol": p, "representation": r})
        for p, values in {
            "knn": (0.3, 0.5),
            "linear": (0.6, 0.5),
            "copy": (0.9, 0.2),
            "depth": (0.1, 0.12),
            "video": (0.4, 0.5),
        }.items()
        for r, v in zip(("raw pixels", "simclr"), values, strict=True)
    ]
    plot_results(results, tmp_path / "dots.png", title="shapes", baselines=("raw pixels",))
    plot_ranking(results, tmp_path / "ranks.png", title="shapes", baselines=("raw pixels",))
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in tmp_path.iterdir())
    odd = [dataclasses.replace(results[0], low=float("nan"), high=float("nan"))]
    plot_ranking(odd, tmp_path / "one.png")
