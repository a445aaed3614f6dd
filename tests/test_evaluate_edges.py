"""Every protocol at its edges: what is fitted sees no test image, and odd data gets the right value or one sentence."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sslcourse.data.images import Images
from sslcourse.errors import InputError
from sslcourse.evaluate.encoder import Encoder
from sslcourse.evaluate.protocols import ENCODERS, FEATURES
from sslcourse.evaluate.result import Result
from sslcourse.evaluate.tasks import Task
from sslcourse.nn.convnet import ConvNet
from sslcourse.nn.vit import ViT

QUICK: dict[str, dict[str, Any]] = {
    "linear": {"sweep": [1e-2]},
    "few_1": {"sweep": [1e-2], "subsets": 2},
    "few_10": {"sweep": [1e-2], "subsets": 2},
    "finetune": {"epochs": 1},
    "partial": {"epochs": 1},
    "robustness": {"kinds": ["contrast", "gaussian_noise"], "severities": (3,), "sweep": [1e-2]},
    "shift": {"sweep": [1e-2]},
}
DIAGNOSES = ("spread", "rankme", "uniformity", "pair_auc")
TASKS = [name for name in FEATURES if name not in DIAGNOSES]


def blobs(n: int, seed: int = 0, classes: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    centres = 5 * torch.eye(8)[:classes]
    return centres[y] + torch.randn(n, 8, generator=g), y


def run(name: str, x: Tensor, y: Tensor, q: Tensor, q_y: Tensor) -> Result:
    return FEATURES[name].run(x, y, q, q_y, **QUICK.get(name, {}))


@pytest.mark.parametrize("name", TASKS)
def test_few_images_a_bank_smaller_than_k_and_a_class_without_test_images(name: str) -> None:
    x, y = blobs(9)
    q, q_y = blobs(4, 1)
    kept = q_y < 2  # class 2 has no test image
    result = run(name, x, y, q[kept], q_y[kept])
    assert 0 <= result.low <= result.value <= result.high <= 1
    assert result.value >= (0.5 if name == "knn" else 0.6)


@pytest.mark.parametrize("name", TASKS)
def test_one_class_is_always_right(name: str) -> None:
    x, _ = blobs(12)
    q, _ = blobs(5, 1)
    result = run(name, x, torch.zeros(12).long(), q, torch.zeros(5).long())
    assert result.value == 1.0


@pytest.mark.parametrize("name", ["knn", "linear", "few_10"])
def test_a_class_that_training_lacks_can_only_be_wrong(name: str) -> None:
    x, y = blobs(300)
    q, q_y = blobs(12, 1)
    q_y[:4] = 7
    assert run(name, x, y, q, q_y).value == pytest.approx(8 / 12)


@pytest.mark.parametrize("which", [0, 2])
@pytest.mark.parametrize("name", FEATURES)
def test_nan_features_are_one_sentence(name: str, which: int) -> None:
    data = [*blobs(20), *blobs(10, 1)]
    if which == 0 and name in DIAGNOSES:
        return  # training features play no part there
    data[which] = data[which].clone()
    data[which][3, 2] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        run(name, *data)


@pytest.mark.parametrize("name", ["knn", "linear", "retrieval"])
def test_the_score_of_a_test_image_does_not_depend_on_the_others(name: str) -> None:
    x, y = blobs(60)
    q, q_y = blobs(30, 1)
    q = q + 3 * torch.randn(30, 8, generator=torch.Generator().manual_seed(2))  # some are wrong
    other = q.clone()
    other[15:] = 1000 * torch.randn(15, 8, generator=torch.Generator().manual_seed(3)) + 500
    a, b = (run(name, x, y, test, q_y).kept["each"][:15] for test in (q, other))
    assert torch.equal(a, b)
    assert 0 < a.mean() < 1


def world(spoiled: bool) -> Task:
    g = torch.Generator().manual_seed(0)
    made = []
    for n in (24, 12):
        labels = torch.arange(n) % 2
        images = torch.randint(40, 216, (n, 3, 32, 32), generator=g)
        images[labels == 0, 0] += 25
        made.append(Images(images.to(torch.uint8), labels, ["a", "b"]))
    train, test = made
    if spoiled:
        test.images[6:] = 255 - test.images[6:] // 3
    task = Task("shapes", lambda: (train, test), 32, 24, 12)
    if spoiled:
        vars(task)["objects"] = _spoiled(*task.objects)
        vars(task)["clips"] = (task.clips[0], _clips(task.clips[1]))
        first, photos, sketches = task.shifted
        vars(task)["shifted"] = (first, photos, Images(_invert(sketches.images), sketches.labels, sketches.classes))
    return task


def _invert(images: Tensor) -> Tensor:
    return torch.cat([images[:6], 255 - images[6:]])


def _spoiled(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    return _invert(images), torch.cat([masks[:6], ~masks[6:]])


def _clips(clips: Any) -> Any:
    return type(clips)(_invert(clips.video), *(getattr(clips, f) for f in clips.__dataclass_fields__ if f != "video"))


@pytest.fixture(scope="module")
def worlds() -> tuple[Task, Task]:
    return world(False), world(True)


@pytest.mark.parametrize("name", ["finetune", "partial", "robustness", "shift", "attention", "action", "alignment"])
def test_what_is_trained_sees_no_test_image(name: str, worlds: tuple[Task, Task]) -> None:
    """Spoiling half of the test images changes nothing about the others."""
    torch.manual_seed(0)
    encoder = Encoder(ViT(32, 8, dim=16, depth=2, n_heads=2), 32)
    results = [ENCODERS[name].run(encoder, task, **QUICK.get(name, {})) for task in worlds]
    a, b = (r.kept["each"] for r in results)
    assert torch.equal(a[:6], b[:6])
    assert len(a) == 12


def test_batch_norm_keeps_what_training_left(worlds: tuple[Task, Task]) -> None:
    """A network in training mode is evaluated with its stored statistics by every protocol on images."""
    torch.manual_seed(0)
    net = ConvNet((8, 8), (2, 2)).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for name in ("robustness", "shift", "action", "alignment", "cka"):
        ENCODERS[name].run(Encoder(net, 32), worlds[0], **QUICK.get(name, {}))
        assert net.training
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items()), name
