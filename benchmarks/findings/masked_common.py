"""What the findings on masked methods beside others share: images that they learn from, a short run, two questions.

All arms have a ViT of four blocks of width 128 with 16 tokens an image, which a stem of convolutions makes: with linear
patches these runs would have to be many times as long. Frozen features are the map of tokens, 4 x 4 places, and
fine-tuning starts from the same. Fine-tuning has fewer labels than the linear probe: with as many, random weights are
nearly always right on sketches after it, which leaves no room.
"""

from dataclasses import replace
from typing import Any

from torch import nn

from benchmarks.findings import simclr_common as shared
from benchmarks.findings.mae_common import Places
from sslcourse import methods
from sslcourse.data import Images, Shapes
from sslcourse.data.subset import balanced_order
from sslcourse.evaluate import extract_features, linear_probe
from sslcourse.evaluate.finetune import finetune
from sslcourse.methods.mae import VIEW

BACKBONE, SIZE = "vit_mini_conv8", 32
LABELLED, FEW = 500, 100
STEPS, BATCH, EPOCHS = 200, 32, 30


def setting(**own: Any) -> dict[str, Any]:
    """What every arm shares, for the record."""
    images = {"size": SIZE, "train": shared.TRAIN, "test": shared.TEST, "labels": {"linear": LABELLED, "tuned": FEW}}
    return images | {"backbone": BACKBONE, "preset": "cpu", "steps": STEPS, "batch_size": BATCH} | own


def images(seed: int, world: str = "sketch") -> tuple[Images, Images]:
    """Training and test images; every seed draws its own, and all arms of a seed share them."""
    bank = Shapes("train", size=SIZE, seed=seed, preset=world).as_images(shared.TRAIN)
    return bank, Shapes("test", size=SIZE, seed=seed, preset=world).as_images(shared.TEST)


def config(seed: int, name: str, *, preset: Any = "cpu", train: Any = None, **changes: Any) -> Any:
    """A preset of a method with `BACKBONE` and `STEPS`; other fields as given, those of its `train` in a dictionary."""
    preset = methods.get(name).PRESETS[preset]
    short = replace(preset.train, **({"steps": STEPS, "batch_size": BATCH, "seed": seed} | (train or {})))
    short = replace(short, monitor_every=10**6)
    return replace(preset, **({"train": short, "backbone": BACKBONE} | changes))


def trained(name: str, settings: Any, data: Images) -> nn.Module:
    """The backbone after training; initial weights, images and views depend on the seed only."""
    return shared.trained(settings, data, methods.get(name)).backbone


def untrained(name: str, settings: Any) -> nn.Module:
    """The backbone with the initial weights of the seed."""
    return shared.untrained(settings, methods.get(name)).backbone


def linear(backbone: nn.Module, data: tuple[Images, Images]) -> float:
    """Accuracy of a linear probe with `LABELLED` labels, on the map of a ViT or the vector of another network."""
    network = Places(backbone) if hasattr(backbone, "forward_map") else backbone  # type: ignore[arg-type]
    bank, test = labelled(data[0], LABELLED), data[1]
    x, q = (extract_features(network, part) for part in (bank, test))
    return linear_probe(x, bank.labels, q, test.labels, max_iter=50).value


def tuned(backbone: nn.Module, data: tuple[Images, Images], seed: int) -> float:
    """Accuracy after training everything with `FEW` labels."""
    weak = replace(VIEW, size=SIZE, scale=(0.6, 1.0))
    options: dict[str, Any] = {"epochs": EPOCHS, "batch_size": 50, "lr": 5e-4, "layer_decay": 1.0, "augment": weak}
    few = labelled(data[0], FEW)
    return finetune(Places(backbone), few, data[1], seed=seed, **options).value  # type: ignore[arg-type]


def labelled(bank: Images, n: int) -> Images:
    """The training images that have labels, every class equally often."""
    return bank.subset(balanced_order(bank.labels)[:n])
