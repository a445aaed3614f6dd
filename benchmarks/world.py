"""What the default `Shapes` asks of a learner: how fast it is drawn, and what four kinds of features get out of it.

    python -m benchmarks.world             # writes benchmarks/world.json; on two cores four minutes

The default was tuned, then frozen, so that raw pixels and random weights do not solve it (kNN at most 0.50 and 0.35)
and the network of the CPU presets, trained with labels, does (at least 0.95 in at most two minutes on two cores).
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sslcourse.data import Augment, Shapes
from sslcourse.evaluate import extract_features, knn_accuracy, pixel_features
from sslcourse.evaluate.finetune import finetune
from sslcourse.evaluate.result import Result, seed_interval
from sslcourse.nn.convnet import ConvNet

BANK, TEST, SEEDS = 5000, 5000, (0, 1, 2)
LABELLED, EPOCHS, LR = 30_000, 4, 3e-3


def rate(size: int, n: int = 512, rounds: int = 7) -> list[float]:
    """Images a second of `rounds` rounds, each of `n` other scenes."""
    world, seconds = Shapes("train", size), []
    for i in range(rounds + 1):  # the first round warms up
        start = time.perf_counter()
        world.batch(range(i * n, (i + 1) * n))
        seconds.append(time.perf_counter() - start)
    return [n / s for s in seconds[1:]]


def network(seed: int) -> ConvNet:
    """The CPU presets' network with the random weights of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ConvNet()


def over_seeds(measure: Callable[[int], float], name: str) -> dict[str, Any]:
    """Mean, 95 % interval over the seeds, and the values."""
    values = [measure(seed) for seed in SEEDS]
    return plain(seed_interval(values, name)) | {"values": values}


def plain(result: Result) -> dict[str, Any]:
    return {key: getattr(result, key) for key in ("value", "low", "high", "n", "over")}


def main() -> None:
    bank, test = Shapes("train", 32).as_images(BANK), Shapes("test", 32).as_images(TEST)
    labelled = Shapes("train", 32).as_images(LABELLED)
    whole = Augment(32, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter_p=0.0, gray=0.0, blur=0.0)
    seconds = []

    def random_knn(seed: int) -> float:
        features = [extract_features(network(seed), part) for part in (bank, test)]
        return knn_accuracy(features[0], bank.labels, features[1], test.labels).value

    def supervised(seed: int) -> float:
        start = time.perf_counter()
        settings = {"epochs": EPOCHS, "lr": LR, "layer_decay": 1.0, "augment": whole, "seed": seed}
        found = finetune(network(seed), labelled, test, **settings).value
        seconds.append(time.perf_counter() - start)
        print(f"supervised, seed {seed}: {found:.3f} after {seconds[-1]:.0f} s", flush=True)
        return found

    known, asked = pixel_features(bank, test)
    pixels = knn_accuracy(known, bank.labels, asked, test.labels)
    record: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "bank": BANK,
        "test": TEST,
        "labelled": LABELLED,
        "epochs": EPOCHS,
        "images_per_second": {f"{s} px": {"median": statistics.median(r := rate(s)), "min": min(r)} for s in (32, 64)},
        "knn, raw pixels": plain(pixels),
        "knn, random weights": over_seeds(random_knn, "random weights"),
        "trained with labels": over_seeds(supervised, "supervised"),
    }
    record["seconds of training with labels"] = seconds
    out = Path(__file__).with_suffix(".json")
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1), "\nwritten to", out.name)


if __name__ == "__main__":
    main()
