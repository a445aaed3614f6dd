"""`sslcourse eval RUN`: one table of a run beside raw pixels and its own random initialisation."""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sslcourse.commands.arguments import parse
from sslcourse.errors import InputError

PIXELS, HOG, RANDOM = "raw pixels", "HOG", "random init"
PIXEL_SIDE = 64  # raw pixels of larger images are resized: they are a baseline, not a memory test

# The keys of `evaluate.protocols.PROTOCOLS`, which a test compares: importing that would make --help wait for torch.
Name = Literal[
    "knn", "linear", "few_1", "few_10", "clustering", "retrieval", "finetune", "partial", "copy", "robustness",
    "shift", "segmentation", "depth", "detection", "attention", "video", "action", "open_set", "temporal", "tubes",
]  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Evaluate a frozen run; the table is printed and kept beside the run as eval.json and eval.png."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder, or its model.safetensors."""
    protocol: tuple[Name, ...] = ("knn", "linear")
    """How to evaluate. On features: kNN votes, a linear probe, with 1 % or 10 % of the labels, clustering, retrieval.
    Trained: fine-tuning, or of the last block only (partial). On images: copy detection, robustness to corruptions,
    domain shift. With labels that shapes, and partly coco.zip and davis.zip, have: segmentation, depth, detection,
    attention, video (objects followed), action, open_set, temporal and tubes (when, and where, an action is)."""
    data: str | None = None
    """A dataset by name, a folder or a pack, with labels and a test split; what the run was trained on by default."""
    n_train: int | None = None
    """Use a class-balanced sample of so many training images."""
    n_test: int | None = None
    """Use a class-balanced sample of so many test images."""
    data_size: int | None = None
    """Side in pixels to load images at; what suits the run by default."""
    k: int = 20
    """Neighbours that vote in kNN."""
    T: float = 0.07
    """Temperature of kNN's weighted vote."""
    solver: Literal["lbfgs", "sgd"] = "lbfgs"
    """How the linear probe is fitted: exactly, or as the papers train it."""
    baselines: bool = True
    """Also evaluate raw pixels, histograms of gradients and the same network with random weights."""
    seed: int = 0
    """Of everything that is drawn: subsets, batches, edits, noise."""
    cache: bool = True
    """Keep the features in RUN/features, by a hash of weights and pixels, so that they are computed once."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    out: Path | None = None
    """Where to write the table as JSON, and the figure with the suffix .png beside it; RUN/eval.json by default."""


def run(argv: list[str]) -> None:
    options = parse(Options, argv, "eval")

    from sslcourse import methods
    from sslcourse.evaluate.baselines import hog_encoder, pixel_encoder
    from sslcourse.evaluate.figure import plot_ranking, plot_results
    from sslcourse.evaluate.protocols import evaluate_encoder, without_result
    from sslcourse.evaluate.result import Result, print_results, save_results
    from sslcourse.train import load_model

    module: Any = load_model(options.run)
    folder = options.run if options.run.is_dir() else options.run.parent
    task = _task(options, folder, module.config.augment.size)
    arms: dict[str, Any] = {module.name: lambda: _encoder(module, options)}
    if options.baselines:
        images = task.labelled[0] if task.pack is None else task.photos()
        side = min(PIXEL_SIDE, *_side(images))
        arms = {
            PIXELS: lambda: pixel_encoder(images, size=side),
            HOG: lambda: hog_encoder(size=side),
            RANDOM: lambda: _encoder(methods.build(module.name, module.config), options),
            **arms,
        }
    settings: dict[str, dict[str, Any]] = {
        "knn": {"k": options.k, "T": options.T},
        "linear": {"solver": options.solver},
    }
    cache = folder / "features" if options.cache else None
    results: list[Result] = []
    for name, make in arms.items():
        print(f"sslcourse: evaluating {name} ...", file=sys.stderr)
        keep = cache if name == module.name else None  # baselines cost less than their files
        results += evaluate_encoder(make(), task, options.protocol, representation=name, options=settings, cache=keep)
    for name in without_result(options.protocol, results):
        print(f"sslcourse: {name} has no result: none of these networks suits it.", file=sys.stderr)
    if not results:
        raise InputError("no protocol has a result; see `sslcourse eval --help` for the others.")

    results.sort(key=lambda r: options.protocol.index(r.detail["protocol"]))
    title = f"{options.run} on {task.source}"
    print_results(results, title)
    out = options.out or folder / "eval.json"
    save_results(results, out)
    try:
        grey = (PIXELS, HOG, RANDOM)
        plot_results(results, out.with_suffix(".png"), title=title, baselines=grey)
        if len(options.protocol) > 1 and len(arms) > 1:
            plot_ranking(results, out.with_name(f"{out.stem}-ranking.png"), title=title, baselines=grey)
    except InputError as error:  # the figure is a bonus; the numbers are there
        print(f"sslcourse: no figure: {error}", file=sys.stderr)


def _encoder(module: Any, options: Options) -> Any:
    """The backbone of a method with the view it was trained on."""
    from sslcourse.evaluate.encoder import Encoder

    seen = module.config.augment
    return Encoder(module.backbone, seen.size, seen.mean, seen.std, pick_device(options.device))


def _task(options: Options, folder: Path, view: int) -> Any:
    from sslcourse.evaluate.leakage import warn_of_leakage
    from sslcourse.evaluate.tasks import Task, whole_side

    data = _data(options, folder, view)

    def classes() -> tuple[Any, Any]:
        train, test = data.labelled_pair()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warn_of_leakage(train, test)
        return train, test

    side = whole_side(options.data_size or view, 64 if data.name == "shapes" else 96)
    return Task(data.name, classes, side, data.n_train, data.n_test, options.seed)


def evaluate_arm(name: str, module: Any, train: Any, test: Any, protocols: Any, options: Any) -> list[Any]:
    """Results of one representation: the backbone of a method, or raw pixels where `module` is None."""
    from sslcourse.evaluate.baselines import pixel_features
    from sslcourse.evaluate.features import extract_features
    from sslcourse.evaluate.protocols import evaluate

    features: tuple[Any, Any]
    if module is None:
        side = min(PIXEL_SIDE, *_side(train))
        features = pixel_features(train, test, size=side)
    else:
        seen = module.config.augment
        view = {"size": seen.size, "mean": seen.mean, "std": seen.std, "device": pick_device(options.device)}
        features = (
            extract_features(module.backbone, train, **view),
            extract_features(module.backbone, test, **view),
        )
    arguments = {"knn": {"k": options.k, "T": options.T}, "linear": {"solver": options.solver}}
    return evaluate(features, (train.labels, test.labels), protocols, representation=name, options=arguments)


def pick_device(name: str) -> str:
    """ "auto" as a device that is there.

    Raises:
        InputError: a device that is not there.
    """
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there[name]:
        raise InputError(f"--device {name}: this machine has none; use auto or cpu.")
    return name


def _side(data: Any) -> tuple[int, int]:
    """(height, width) of `Images` or an `ImageStream`."""
    return tuple(data.images.shape[-2:]) if hasattr(data, "images") else data.size


def _data(options: Options, folder: Path, view: int) -> Any:
    from sslcourse.commands.data import Data, source_size
    from sslcourse.commands.pretrain import read_data

    seen = read_data(folder) or {}
    name = options.data or seen.get("name")
    if name is None:
        raise InputError(f"{folder} does not say what it was trained on; name the images with --data.")
    if options.data is None or options.data == seen.get("name"):
        size = options.data_size or seen.get("size")
        return Data(name, size, options.n_train or seen.get("n_train"), options.n_test or seen.get("n_test"))
    return Data(name, options.data_size or source_size(name, view), options.n_train, options.n_test)
