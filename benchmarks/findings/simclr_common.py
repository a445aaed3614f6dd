"""What the findings share: data, a run of the preset "cpu" cut short (SimCLR's at first), kNN on frozen features."""

from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor, nn

from sslcourse import methods, train
from sslcourse.data import Images, Shapes
from sslcourse.evaluate import extract_features, knn_accuracy
from sslcourse.methods.simclr import SimCLR

SIZE, TRAIN, TEST = 32, 4000, 1000
STEPS, BATCH = 200, 64
FAST: dict[str, Any] = {"backbone": "convnet_fast"}  # of the later findings; the first ones have "convnet"
METRIC = "kNN accuracy (k = 20)"


def setting() -> dict[str, Any]:
    """What every arm of every SimCLR finding shares, for the record."""
    return {
        "data": "shapes",
        "size": SIZE,
        "train": TRAIN,
        "test": TEST,
        "preset": "cpu",
        "steps": STEPS,
        "batch_size": BATCH,
    }


def images(seed: int) -> tuple[Images, Images]:
    """Training and test images; every seed draws its own, and all arms of a seed share them."""
    bank = Shapes("train", size=SIZE, seed=seed).as_images(TRAIN)
    return bank, Shapes("test", size=SIZE, seed=seed).as_images(TEST)


def config(seed: int, method: Any = SimCLR, *, steps: int = 0, batch: int = 0, **changes: Any) -> Any:
    """The preset "cpu" of a method cut to `STEPS` (or `steps`, if it is given) with other fields changed."""
    preset = method.PRESETS["cpu"]
    changes = {"backbone": "convnet"} | changes  # what the first findings were recorded with
    length = {"steps": steps or STEPS, "batch_size": batch or BATCH, "seed": seed}
    return replace(preset, train=replace(preset.train, **length), **changes)


def untrained(settings: Any, method: Any = SimCLR) -> Any:
    """A network with the initial weights of the seed."""
    return methods.build(method, settings)


def trained(settings: Any, data: Images, method: Any = SimCLR) -> Any:
    """A network after training; initial weights and the order of images depend on the seed only."""
    model = untrained(settings, method)
    with TemporaryDirectory() as folder:
        train.fit(model, data, settings, folder, progress=False)
    return model


def knn(network: nn.Module, data: tuple[Images, Images]) -> float:
    """Share of test images whose class the 20 nearest training images vote for; `network` gives the features."""
    bank, queries = data
    features = [extract_features(network, part) for part in data]
    return knn_accuracy(features[0], bank.labels, features[1], queries.labels).value


class WithHead(nn.Module):
    """The embedding z = g(h) where an evaluation expects a backbone."""

    def __init__(self, model: SimCLR) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.head
        self.num_features = model.config.dim if model.config.head != "none" else model.backbone.num_features

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))
