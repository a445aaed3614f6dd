"""`sslcourse eval RUN`: one table of a run beside raw pixels and its own random initialisation."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sslcourse.commands.arguments import parse
from sslcourse.errors import InputError

PIXELS, RANDOM = "raw pixels", "random init"
PIXEL_SIDE = 64  # raw pixels of larger images are resized: they are a baseline, not a memory test


@dataclass(frozen=True)
class Options:
    """Evaluate a frozen run; the table is printed and kept beside the run as eval.json and eval.png."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder, or its model.safetensors."""
    protocol: tuple[Literal["knn", "linear"], ...] = ("knn", "linear")
    """How to evaluate: kNN votes, a linear probe."""
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
    """Also evaluate raw pixels and the same network with random weights."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    out: Path | None = None
    """Where to write the table as JSON, and the figure with the suffix .png beside it; RUN/eval.json by default."""


def run(argv: list[str]) -> None:
    options = parse(Options, argv, "eval")

    from sslcourse import methods
    from sslcourse.evaluate.figure import plot_results
    from sslcourse.evaluate.result import Result, print_results, save_results
    from sslcourse.train import load_model

    module: Any = load_model(options.run)
    folder = options.run if options.run.is_dir() else options.run.parent
    data = _data(options, folder, module.config.augment.size)
    train, test = data.labelled_pair()
    arms: dict[str, Any] = {module.name: module}
    if options.baselines:
        arms = {PIXELS: None, RANDOM: methods.build(module.name, module.config), **arms}
    results: list[Result] = []
    for name, arm in arms.items():
        print(f"sslcourse: evaluating {name} ...", file=sys.stderr)
        results += evaluate_arm(name, arm, train, test, options.protocol, options)

    results.sort(key=lambda r: options.protocol.index(r.detail["protocol"]))
    title = f"{options.run} on {train.name}: {len(train)} training and {len(test)} test images"
    print_results(results, title)
    out = options.out or folder / "eval.json"
    save_results(results, out)
    try:
        plot_results(results, out.with_suffix(".png"), title=title, baselines=(PIXELS, RANDOM))
    except InputError as error:  # the figure is a bonus; the numbers are there
        print(f"sslcourse: no figure: {error}", file=sys.stderr)


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
