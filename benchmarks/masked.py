"""Does a masked method learn on `Shapes`, with a preset for CPUs? Linear probe and fine-tuning, against no training.

    python -m benchmarks.masked mae simmim           # five trainings each, written to trained_masked/NAME.json
    python -m benchmarks.masked simmim:cpu_swin      # another preset than the shortest
    python -m benchmarks.masked --table              # what has been recorded, as Markdown

A record that is there and of the same setting is continued, not made again. What a masked method learns stands in its
patch tokens, and a mean over all of them loses where they were: frozen features and what fine-tuning starts from are
the tokens averaged to 16 places, 4 x 4 of an image, 4 x 2 x 2 of a clip. All arms see the same few labels. Pixels
cannot be fine-tuned: what stands for them is the better of a linear probe and kNN on the pixels of the same images.
`seconds` are CPU seconds of one thread for everything that one seed takes.
"""

import statistics
import time
from copy import deepcopy
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.findings.common import Finding
from benchmarks.findings.mae_common import Places
from benchmarks.methods import PIXELS, RANDOM, command
from sslcourse import methods, train
from sslcourse.catalogue import METHODS
from sslcourse.data import Images, Shapes
from sslcourse.data.augment import center_view
from sslcourse.data.clips import clip_view, load_clips
from sslcourse.data.subset import balanced_order
from sslcourse.evaluate import extract_features, knn_accuracy, linear_probe
from sslcourse.evaluate.finetune import finetune
from sslcourse.evaluate.reconstruction import unexplained
from sslcourse.evaluate.result import Result
from sslcourse.methods.mae import VIEW
from sslcourse.train.config import to_dict

FOLDER = Path(__file__).parent / "trained_masked"
SHORT = ("cpu_sketch", "cpu")  # the first of these that a method has is its preset here
TRAIN, TEST, LABELLED = 4000, 1000, 200
CLIPS, TEST_CLIPS = 1500, 500
TUNING: dict[str, Any] = {"epochs": 40, "batch_size": 50, "lr": 2e-3, "layer_decay": 1.0}
CLIP_TUNING = TUNING | {"epochs": 20, "standardized": True}  # a clip costs as much as eight images
PARTS = (7, 8, 13)  # of the course, those on masked images and clips
CROP = 0.6  # smallest part of an image that fine-tuning sees
TRAINED = "trained"
LINEAR, TUNED, KNN = "linear", "fine-tuned", "kNN"
CLAIMS = ("a linear probe gains", "fine-tuning gains", "fine-tuning is above pixels")  # in the order of `gains`
ERROR = "unexplained"  # of the dVAE: squared error of what it paints; 1 is the mean colour of each image


class Standardized(Places):
    """Places whose numbers are standardised over the batch, as before the linear layer of MAE's probe (He et al. 2021,
    appendix A.1). What a network says of two clips differs little, and a head that starts anew needs long to see it.
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__(backbone)
        self.norm = nn.BatchNorm1d(self.num_features, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


@cache
def images(size: int, world: str, frames: int = 0) -> tuple[Images, Images, Images]:
    """All training scenes, the few with labels, test scenes; for `frames` clips, labelled with their motion."""
    data: list[Images] = []
    for split, n, clips in (("train", TRAIN, CLIPS), ("test", TEST, TEST_CLIPS)):
        still = None if frames else Shapes(split, size=size, preset=world).as_images(n)
        data.append(still or load_clips("shapes", split, size=size, frames=frames, n=clips))
    few = data[0].subset(balanced_order(data[0].labels)[:LABELLED])
    return data[0], few, data[1]


def frozen_exams(features: list[Tensor], few: Images, test: Images) -> dict[str, float]:
    """Accuracies of a linear probe and of the 20 nearest labelled images."""
    x, q = features
    probe = linear_probe(x, few.labels, q, test.labels, max_iter=50)
    return {LINEAR: probe.value, KNN: knn_accuracy(x, few.labels, q, test.labels).value}


def exams(module: Any, few: Images, test: Images, seed: int) -> dict[str, float]:
    """Accuracies of a network frozen and fine-tuned; it is left as it is."""
    augment, clips = module.config.augment, few.images.ndim == 5
    network = Places(deepcopy(module.backbone))
    view = {"size": augment.size, "mean": augment.mean, "std": augment.std}
    found = frozen_exams([extract_features(network, part, **view) for part in (few, test)], few, test)
    weak: Any = replace(VIEW, **view, scale=(CROP, 1.0), flip=augment.flip)
    if clips:
        network, weak = Standardized(network.backbone), partial(clip_view, augment=weak)
    how = {key: value for key, value in (CLIP_TUNING if clips else TUNING).items() if key != "standardized"}
    return found | {TUNED: finetune(network, few, test, augment=weak, seed=seed, **how, **view).value}


@torch.no_grad()
def painted(module: Any, few: Images, test: Images, seed: int) -> dict[str, float]:
    """Squared error of what a dVAE makes of test images from their tokens, as a share of their mean colours'."""
    augment, dvae = module.config.augment, module.backbone.eval()
    x = center_view(test.images, augment.size, augment.mean, augment.std)
    pred = dvae.decode(dvae.tokenize(x))
    dvae.train()
    return {ERROR: unexplained(pred, x, torch.ones(len(x), 1, 1, dtype=torch.bool), pooled=True).mean().item()}


@cache
def pixels(size: int, world: str, frames: int = 0) -> dict[str, float]:
    """What the pixels alone say."""
    _, few, test = images(size, world, frames)
    return frozen_exams([part.images.flatten(1).float() / 255 for part in (few, test)], few, test)


def measure(name: str, preset: str, seed: int, world: str) -> tuple[dict[str, float], float]:
    """Every arm of one seed, and its CPU seconds."""
    config = methods.get(name).PRESETS[preset]
    config = replace(config, train=replace(config.train, seed=seed))
    about = (config.augment.size, world, getattr(config, "frames", 0))
    data, few, test = images(*about)
    start = time.process_time()
    module, exam = methods.build(name, config), painted if name == "dvae" else exams
    arms = {RANDOM: exam(module, few, test, seed)}
    with TemporaryDirectory() as folder:
        train.fit(module, data, config, folder, progress=False)
    arms[TRAINED] = exam(module, few, test, seed)
    seconds = time.process_time() - start
    if name != "dvae":
        arms[PIXELS] = pixels(*about)
    return {f"{arm}, {e}": arms[arm][e] for e in arms[TRAINED] for arm in arms if e in arms[arm]}, seconds


def record(name: str, seeds: int, folder: Path = FOLDER, world: str | None = None) -> Finding:
    """Train NAME or NAME:PRESET with the seeds that its record lacks, and write it after each of them.

    A preset for sketches is trained on these where `world` is None, others on the default one.
    """
    method, _, preset = name.partition(":")
    preset = preset or next(short for short in SHORT if short in methods.get(method).PRESETS)
    world = world or ("sketch" if preset.endswith("_sketch") else "default")
    config = methods.get(method).PRESETS[preset]
    clips = hasattr(config, "frames")
    setting = {"data": f"shapes:{world}", "train": TRAIN, "test": TEST, "labelled": LABELLED}
    setting |= {"data": "shapes, clips", "train": CLIPS, "test": TEST_CLIPS} if clips else {}
    setting |= {} if method == "dvae" else {"fine-tuning": (CLIP_TUNING if clips else TUNING) | {"crop": CROP}}
    setting |= {"preset": preset, "config": to_dict(config)}
    metric = "share of the squared error of mean colours" if method == "dvae" else "accuracy"
    key = method if preset in SHORT else f"{method}_{preset.removeprefix('cpu_')}"
    exam = ERROR if method == "dvae" else LINEAR
    found = Finding(key, f"Does {method} learn on Shapes?", metric, f"{RANDOM}, {exam}", setting)
    folder.mkdir(exist_ok=True)
    if (folder / f"{key}.json").exists() and Finding.load(folder / f"{key}.json").setting == setting:
        found = Finding.load(folder / f"{key}.json")
    for seed in range(len(found.seeds), seeds):
        values, seconds = measure(method, preset, seed, world)
        found.add(seed, values, seconds, folder)
        print(f"{key}, seed {seed}: {values}, {seconds:.0f} s", flush=True)
    return found


def gains(found: Finding) -> list[Result]:
    """What training has to bring: frozen and tuned against no training, and tuned against the better on pixels."""
    pixel = max((f"{PIXELS}, {exam}" for exam in (LINEAR, KNN)), key=lambda arm: found.mean(arm).value)
    pairs = [(LINEAR, f"{RANDOM}, {LINEAR}"), (TUNED, f"{RANDOM}, {TUNED}"), (TUNED, pixel)]
    return [found.difference(f"{TRAINED}, {exam}", other) for exam, other in pairs]


def short(folder: Path = FOLDER) -> dict[str, list[str]]:
    """What a record does not show, its interval holding 0 or being below it: the names of the records, by claim."""
    missing: dict[str, list[str]] = {}
    for found in map(Finding.load, sorted(folder.glob("*.json"))):
        if found.name != "dvae":
            for claim, gain in zip(CLAIMS, gains(found), strict=True):
                missing.setdefault(claim, []).extend([found.name] if not gain.low > 0 else [])
    return {claim: names for claim, names in missing.items() if names}


def table(folder: Path = FOLDER) -> str:
    """What is recorded: means, 95 % intervals over seeds, and the paired differences."""
    heads = ("record", "data", LINEAR, "above random init", TUNED, "above random init", "above pixels", "CPU seconds")
    rows = [f"| {' | '.join(heads)} |", "| --- | --- | --- | --- | --- | --- | --- | ---: |"]
    for found in map(Finding.load, sorted(folder.glob("*.json"))):
        if found.name == "dvae":
            continue
        frozen, tuned, pixel = gains(found)
        values = (found.mean(f"{TRAINED}, {LINEAR}"), frozen, found.mean(f"{TRAINED}, {TUNED}"), tuned, pixel)
        cells = [f"`{found.name}`", f"`{found.setting['data']}`", *(f"{r.value:.3f} {r.interval}" for r in values)]
        rows.append(f"| {' | '.join([*cells, f'{statistics.median(found.seconds):.0f}'])} |")
    return "\n".join(rows)


def section(folder: Path = FOLDER) -> list[str]:
    """Of RESULTS.md: the table and what it says, and what the dVAE paints."""
    lines = ["## Masked methods on Shapes", ""]
    for path in folder.glob("dvae.json"):
        found = Finding.load(path)
        error = found.mean(f"{TRAINED}, {ERROR}")
        lines += [
            f"The dVAE (`python -m benchmarks.masked dvae`), trained on {TRAIN} scenes, paints {TEST} "
            f"others from their tokens with {error.value:.3f} {error.interval} of the squared error that painting each "
            f"in its mean colour would make; {len(found.seeds)} trainings, 95 % interval.",
            "",
        ]
    exams = [found for path in sorted(folder.glob("*.json")) if (found := Finding.load(path)).name != "dvae"]
    tuned = {f.name: f.setting["fine-tuning"] for f in exams if "clips" in f.setting["data"]}
    plain = [f"`{name}`" for name, how in tuned.items() if "standardized" not in how]
    if exams:
        lines += [
            f"`python -m benchmarks.masked NAME...`: trainings without labels on {TRAIN} scenes, or on {CLIPS} clips "
            f"whose motion is asked for, then exams with {LABELLED} labels: a linear probe on the frozen tokens of 16 "
            f"places, and fine-tuning ({TUNING['epochs']} epochs; of clips {CLIP_TUNING['epochs']}, with the network's "
            "outputs standardised over the batch). Mean and 95 % interval over the seeds; then, paired by seed, what "
            "training adds to the same network with random weights in the same exam, and what the fine-tuned network "
            "has above pixels: the better of a linear probe and kNN on the pixels of the same labelled images, which "
            "cannot be fine-tuned. CPU seconds are of one thread, for one seed with all of its exams.",
            "",
            table(folder),
            "",
        ]
    if plain:
        lines += [f"Fine-tuned without that layer: {', '.join(plain)}.", ""]
    for claim, names in short(folder).items():
        lines += [f"That {claim} does not show for {', '.join(f'`{name}`' for name in names)}.", ""]
    rows = [row for row in METHODS.values() if row.code and row.part in PARTS]
    missing = [f"`{row.name}`" for row in rows if not (folder / f"{row.name}.json").exists()]
    return [*lines, f"Without a record: {', '.join(missing)}.", ""] if missing else lines


if __name__ == "__main__":
    command(str(__doc__), "names of methods, or NAME:PRESET", FOLDER, None, record, table)
