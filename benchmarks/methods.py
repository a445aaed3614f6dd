"""Does a method learn on `Shapes` with its preset "cpu"? kNN after training, with random weights, and on raw pixels.

    python -m benchmarks.methods rotation supcon         # five trainings each, written to benchmarks/trained/NAME.json
    python -m benchmarks.methods byol --world sketch     # on another setting of `Shapes`
    python -m benchmarks.methods --table                 # what has been recorded, as Markdown

All seeds share the scenes; a seed sets the initial weights, the order of images and the views. `seconds` are CPU
seconds of one thread: on two cores a training takes about half as long.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.findings.common import Finding
from sslcourse import methods, train
from sslcourse.catalogue import METHODS
from sslcourse.data import Images, Shapes
from sslcourse.evaluate import extract_features, knn_accuracy
from sslcourse.evaluate.result import Result
from sslcourse.train.config import to_dict

FOLDER = Path(__file__).parent / "trained"
TRAIN, TEST = 4000, 1000
RANDOM, PIXELS = "random init", "raw pixels"
OTHERS = {"pseudo_label", "mixmatch", "uda", "fixmatch"}  # learn from a few labels; kNN is not their question


@cache
def images(size: int, world: str = "default") -> tuple[Images, Images]:
    """Training and test scenes of this size."""
    bank, queries = (Shapes(split, size=size, preset=world) for split in ("train", "test"))
    return bank.as_images(TRAIN), queries.as_images(TEST)


def knn(module: Any, bank: Images, queries: Images) -> float:
    """Accuracy of the 20 nearest training images in the features that the method keeps."""
    augment = module.config.augment
    view = {"size": augment.size, "mean": augment.mean, "std": augment.std}
    features = [extract_features(module.backbone, part, **view) for part in (bank, queries)]
    return knn_accuracy(features[0], bank.labels, features[1], queries.labels).value


@cache
def pixels(size: int, world: str = "default") -> float:
    """The same on the pixels."""
    bank, queries = images(size, world)
    flat = [part.images.flatten(1).float() for part in (bank, queries)]
    return knn_accuracy(flat[0], bank.labels, flat[1], queries.labels).value


def measure(name: str, seed: int, world: str = "default") -> tuple[dict[str, float], float]:
    """kNN accuracy of the trained and the untrained method and of pixels; CPU seconds of the training."""
    preset = methods.get(name).PRESETS["cpu"]
    config = replace(preset, train=replace(preset.train, seed=seed))
    data = images(config.augment.size, world)
    module = methods.build(name, config)
    untrained = knn(module, *data)
    start = time.process_time()
    with TemporaryDirectory() as folder:
        train.fit(module, data[0], config, folder, progress=False)
    seconds = time.process_time() - start
    return {name: knn(module, *data), RANDOM: untrained, PIXELS: pixels(config.augment.size, world)}, seconds


def record(name: str, seeds: int, folder: Path = FOLDER, world: str = "default") -> Finding:
    """Train with the seeds 0, 1, ... and write the result after each of them."""
    config = to_dict(methods.get(name).PRESETS["cpu"])
    data = "shapes" if world == "default" else f"shapes:{world}"
    setting = {"data": data, "train": TRAIN, "test": TEST, "preset": "cpu", "config": config}
    found = Finding(name, f"Does {name} learn on Shapes?", "kNN accuracy (k = 20)", RANDOM, setting)
    folder.mkdir(exist_ok=True)
    for seed in range(seeds):
        values, seconds = measure(name, seed, world)
        found.add(seed, values, seconds, folder)
        print(f"{name}, seed {seed}: {values}, {seconds:.0f} s", flush=True)
    return found


def table(folder: Path = FOLDER) -> str:
    """What is recorded: mean, 95 % interval over seeds, and the paired differences."""
    rows = [
        "| method | data | kNN accuracy | above random init | above raw pixels | CPU seconds |",
        "| --- | --- | --- | --- | --- | ---: |",
    ]
    for path in sorted(folder.glob("*.json")):
        found = Finding.load(path)
        cells = [_cell(found.mean(found.name)), *(_cell(found.difference(found.name, b)) for b in (RANDOM, PIXELS))]
        cells = [f"`{found.name}`", f"`{found.setting['data']}`", *cells, f"{statistics.median(found.seconds):.0f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def unrecorded(folder: Path = FOLDER) -> list[str]:
    """Methods of parts 1 to 6 and 9 that train on images, with a preset for a CPU and without a record."""
    known = {path.stem for path in folder.glob("*.json")} | OTHERS
    rows = [row for row in METHODS.values() if row.part <= 6 or row.part == 9]
    return [row.name for row in rows if "cpu" in row.presets and row.name not in known]


def section(folder: Path = FOLDER) -> list[str]:
    """Of RESULTS.md: the table and what it says."""
    records = [Finding.load(path) for path in sorted(folder.glob("*.json"))]
    counts = sorted({len(found.seeds) for found in records})
    below = [f"`{found.name}`" for found in records if not found.difference(found.name, PIXELS).low > 0]
    return [
        "## Every method on Shapes, with its preset for a CPU",
        "",
        "`python -m benchmarks.methods NAME...` (`--world sketch` where the data are `shapes:sketch`): "
        f"{' or '.join(map(str, counts))} trainings of each on {TRAIN} scenes without labels (SupCon: with labels), "
        f"then the 20 nearest of them for each of {TEST} others. Mean and 95 % interval over the seeds, which share "
        "the scenes; then, paired by seed, what training adds to the same network with random weights and to raw "
        "pixels. CPU seconds are the median training's, of one thread. It is no ranking: worlds, networks and "
        "lengths differ from row to row, and a sketch is easier for all, random weights included.",
        "",
        "Methods without negatives train on "
        "sketches: one training of each on the default world, with SimCLR's views, ended below pixels. We did not find "
        "out what their features hold there; that colour and light, easy to match, are most of it is a guess. "
        "Colorization trains where the colour of an object belongs to its class in 95 % of the scenes; what it keeps "
        "sees lightness only.",
        "",
        f"Without a record: {', '.join(f'`{name}`' for name in unrecorded(folder))}. In trainings of one seed, with "
        "several rates and views, none of their presets came clearly above its baselines in this time.",
        "",
        table(folder),
        "",
        *([f"Not above raw pixels: {', '.join(below)}.", ""] if below else []),
    ]


def _cell(result: Result) -> str:
    return f"{result.value:.3f} {result.interval}"


def command(
    about: str,
    names: str,
    folder: Path,
    world: str | None,
    record: Callable[..., Finding],
    table: Callable[[Path], str],
) -> None:
    """The command line of this script and of `benchmarks.masked`; `world` None: the one that a preset is for."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("methods", nargs="*", help=names)
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each (default 5)")
    parser.add_argument("--out", type=Path, default=folder, help="folder for the JSON files")
    parser.add_argument("--world", default=world, help=f"preset of Shapes (default: {world or 'of the method'})")
    parser.add_argument("--table", action="store_true", help="print what is recorded")
    options = parser.parse_args()
    for name in options.methods:
        record(name, options.seeds, options.out, options.world)
    if options.table:
        print(table(options.out))


if __name__ == "__main__":
    command(str(__doc__), "names of methods that have a preset 'cpu'", FOLDER, "default", record, table)
