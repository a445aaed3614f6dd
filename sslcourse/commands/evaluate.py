"""`sslcourse eval RUN`: one table of a run beside raw pixels, its own random initialisation and other runs."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
    "shift", "segmentation", "depth", "detection", "attention", "video", "action", "zero_shot", "open_set", "temporal",
    "tubes", "diagnostics", "spread", "rankme", "uniformity", "alignment", "pair_auc", "cka",
]  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Of protocols."""

    k: int = 20
    """Neighbours that vote in kNN."""
    T: float = 0.07
    """Temperature of kNN's weighted vote."""
    vote: Literal["weighted", "plain"] = "weighted"
    """Whether nearer neighbours count more in kNN."""
    solver: Literal["lbfgs", "sgd"] = "lbfgs"
    """How the linear probe is fitted: exactly, or as the papers train it."""
    last_blocks: int = 1
    """Blocks that partial fine-tuning trains."""
    head: Literal["linear", "conv"] = "linear"
    """What reads segmentation and depth from the feature map: one linear layer, or a small convolution before it."""
    detector: Literal["frozen", "finetuned"] = "frozen"
    """Whether detection leaves the network as it is, or trains it, too."""


@dataclass(frozen=True)
class Options:
    """Evaluate a frozen run; the table is printed and kept beside the run as eval.json and eval.png.

    Besides every number with its interval, the table has the paired difference of the run to everything it is compared
    with, on the same test images.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder, or its model.safetensors."""
    protocol: tuple[Name, ...] = ("knn", "linear")
    """How to evaluate. On features: kNN votes, a linear probe, with 1 % or 10 % of the labels, clustering, retrieval.
    Trained: fine-tuning, or of the last blocks only (partial). On images: copy detection, robustness to corruptions,
    domain shift. With labels that shapes, and partly coco.zip and davis.zip, have: segmentation, depth, detection,
    attention, video (objects followed), action, zero_shot and open_set (unknown actions), temporal and tubes (when and
    where an action is). Without a task: diagnostics, that is spread, rankme, uniformity, alignment, pair_auc, cka."""
    against: tuple[Path, ...] = ()
    """Other runs to compare with on the same test images."""
    data: str | None = None
    """A dataset by name, a folder or a pack, with labels and a test split; what the run was trained on by default."""
    n_train: int | None = None
    """Use a class-balanced sample of so many training images."""
    n_test: int | None = None
    """Use a class-balanced sample of so many test images."""
    data_size: int | None = None
    """Side in pixels to load images at; what suits the run by default."""
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
    settings: tyro.conf.OmitArgPrefixes[Settings] = field(default_factory=Settings)


def run(argv: list[str]) -> None:
    options = parse(Options, argv, "eval")

    from sslcourse.evaluate.paired import with_comparisons
    from sslcourse.evaluate.protocols import evaluate_encoder, without_result
    from sslcourse.evaluate.result import Result, print_results, save_results
    from sslcourse.train import load_model

    runs = {str(path): load_model(path) for path in (options.run, *options.against)}
    if len(runs) < 1 + len(options.against):
        raise InputError("--against needs other runs than the one that is evaluated, each once.")
    first: Any = runs[str(options.run)]
    folder = _folder(options.run)
    device = pick_device(options.device)
    data = _data(options, folder, first.config.augment.size)
    task = task_of(data, first, side=options.data_size, seed=options.seed)

    names = [first.name] if len(runs) == 1 else list(runs)
    arms: dict[str, Callable[[], Any]] = baselines_of(task, first, device) if options.baselines else {}
    references = list(arms)
    arms |= {name: _later(module, device) for name, module in zip(names, runs.values(), strict=True)}
    protocols, settings = expanded(options.protocol), settings_of(options.settings)
    caches = {name: _folder(Path(run)) / "features" for name, run in zip(names, runs, strict=True) if options.cache}
    results: list[Result] = []
    for name, make in arms.items():
        print(f"sslcourse: evaluating {name} ...", file=sys.stderr)
        keep = caches.get(name)  # baselines cost less than their files
        results += evaluate_encoder(make(), task, protocols, representation=name, options=settings, cache=keep)
    for name in without_result(protocols, results):
        print(f"sslcourse: {name} has no result: none of these networks suits it.", file=sys.stderr)
    if not results:
        raise InputError("no protocol has a result; see `sslcourse eval --help` for the others.")

    results.sort(key=lambda r: protocols.index(r.detail["protocol"]))
    table = with_comparisons(results, names, references)
    title = f"{options.run} on {task.source}"
    print_results(table, title)
    out = options.out or folder / "eval.json"
    save_results(table, out)
    draw(results, out, title, references)


def draw(results: Sequence[Any], out: Path, title: str, baselines: Sequence[str]) -> None:
    """The figures beside OUT.json: the values, the order that each protocol gives, the similarities of pairs."""
    from sslcourse.evaluate.figure import plot_histograms, plot_ranking, plot_results
    from sslcourse.evaluate.protocols import PROTOCOLS

    try:
        plot_results(results, out.with_suffix(".png"), title=title, baselines=baselines)
        names = {r.detail["representation"] for r in results}
        if sum(PROTOCOLS[p].ranks for p in {r.detail["protocol"] for r in results}) > 1 and len(names) > 1:
            plot_ranking(results, out.with_name(f"{out.stem}-ranking.png"), title=title, baselines=baselines)
        if any("edges" in r.kept for r in results):
            plot_histograms(results, out.with_name(f"{out.stem}-pairs.png"), title=title)
    except InputError as error:  # the figure is a bonus; the numbers are there
        print(f"sslcourse: no figure: {error}", file=sys.stderr)


def expanded(names: Sequence[str]) -> list[str]:
    """Protocols as asked for, each once, "diagnostics" as what it stands for."""
    from sslcourse.evaluate.protocols import DIAGNOSTICS

    return list(dict.fromkeys(p for name in names for p in (DIAGNOSTICS if name == "diagnostics" else (name,))))


def settings_of(options: Settings) -> dict[str, dict[str, Any]]:
    """What the options say about protocols, by protocol."""
    dense = {"head": options.head}
    return {
        "knn": {"k": options.k, "T": options.T, "weighted": options.vote == "weighted"},
        "linear": {"solver": options.solver},
        "partial": {"last_blocks": options.last_blocks},
        "segmentation": dense,
        "depth": dense,
        "detection": {"finetune": options.detector == "finetuned"},
    }


def encoder_of(module: Any, device: str) -> Any:
    """The backbone of a method with the view it was trained on."""
    from sslcourse.evaluate.encoder import Encoder

    seen = module.config.augment
    return Encoder(module.backbone, seen.size, seen.mean, seen.std, device)


def _later(module: Any, device: str) -> Callable[[], Any]:
    return lambda: encoder_of(module, device)


def baselines_of(task: Any, module: Any, device: str) -> dict[str, Callable[[], Any]]:
    """What needs no training: pixels, gradients, and the network of `module` with random weights."""
    from sslcourse import methods

    return {
        **untrained_of(task),
        RANDOM: lambda: encoder_of(methods.build(module.name, module.config), device),
    }


def untrained_of(task: Any) -> dict[str, Callable[[], Any]]:
    """What needs no network: raw pixels, and histograms of gradients."""
    from sslcourse.evaluate.baselines import hog_encoder, pixel_encoder

    images = task.labelled[0] if task.pack is None else task.photos()
    side = min(PIXEL_SIDE, *_side(images))
    return {PIXELS: lambda: pixel_encoder(images, size=side), HOG: lambda: hog_encoder(size=side)}


def task_of(data: Any, module: Any, *, side: int | None = None, seed: int = 0) -> Any:
    """The `Task` on `data` (a `commands.data.Data`) for a network like that of `module`.

    Args:
        side: side in pixels of images with dense labels; that of the module's view, or more, by default.
    """
    from sslcourse.evaluate.encoder import patch_side
    from sslcourse.evaluate.tasks import Task, whole_side

    patch = patch_side(module.backbone)
    view, least = side or module.config.augment.size, 64 if data.name == "shapes" else 96
    side = whole_side(view, least, patch if isinstance(patch, int) else max(patch))
    return Task(data.name, data.labelled_pair, side, data.n_train, data.n_test, seed)


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


def _folder(run: Path) -> Path:
    return run if run.is_dir() else run.parent


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
