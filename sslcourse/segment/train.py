"""`python -m sslcourse.segment.train KIND`: makes the small models of SAM's family that come with the course.

Each is trained on scenes of `Shapes` in at most a quarter of an hour on 2 CPU cores. The tiny SAM comes first: the
others start from it, or from the small CLIP. `python -m benchmarks.shipped` scores them.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import nn

from sslcourse import methods
from sslcourse.commands.arguments import parse
from sslcourse.errors import InputError
from sslcourse.segment.files import load_tiny, save_tiny
from sslcourse.segment.sam import Sam
from sslcourse.segment.scenes import SceneMasks, draw_scenes
from sslcourse.segment.scoring import box_ious, click_ious
from sslcourse.train import fit

PARTS = ("whole", "emblem", "dot")
LEGS = ("cpu", "cpu_clicks", "cpu_clicks_end")  # of the tiny SAM's training


@dataclass(frozen=True)
class Options:
    """Train a small segmenter on scenes of Shapes and write it in half precision."""

    kind: Annotated[Literal["sam", "mobilesam", "hqsam", "fastsam", "grounded", "matting"], tyro.conf.Positional]
    """What to train."""
    out: Path | None = None
    """The file to write; weights/tiny_KIND.safetensors by default."""
    scenes: int | None = None
    """Scenes to train on; 2,000 for sam (three times as many in all), 1,200 for the others."""
    epochs: int | None = None
    """Passes over them; the preset's by default."""
    clicks: bool = True
    """Of sam: go on afterwards on as many other scenes, with up to four answers to a prompt."""
    start: Path | None = None
    """Of sam: go on from the model in this file, with the clicks alone; from nothing by default."""
    teacher: Path | None = None
    """Of mobilesam, hqsam and matting: the SAM to start from; the tiny SAM that comes with the course by default."""
    presets: tuple[str, ...] = ("captions",)
    """Settings of Shapes that the scenes are drawn with, in turn; grounded takes captions."""
    test: int = 200
    """Held-out scenes to score a SAM on."""
    seed: int = 0
    """Seed of the weights, the order and the prompts."""
    threads: int = 2
    """CPU threads."""
    run: Path | None = None
    """Folder of the run, to resume it; a temporary one by default."""


def scores(model: Sam, scenes: SceneMasks, clicks: int = 1) -> dict[str, dict[str, float]]:
    """Mean IoU of wholes, emblems and dots: one click (best of three, and the model's choice), more clicks, a box."""
    table = {}
    for part, name in enumerate(PARTS):
        oracle, chosen = click_ious(model, scenes, part, clicks)
        table[name] = {
            "n": len(oracle),
            "one click, best of three": round(float(oracle.mean()), 4),
            "one click, chosen": round(float(chosen[:, 0].mean()), 4),
            f"{clicks} clicks": round(float(chosen[:, -1].mean()), 4),
            "box": round(float(box_ious(model, scenes, part).mean()), 4),
        }
    return table


def _with(preset: Any, options: Options) -> Any:
    """A training's preset with the seed and the number of epochs that were asked for."""
    length = {} if options.epochs is None else {"epochs": options.epochs}
    return replace(preset, train=replace(preset.train, seed=options.seed, **length))


def _scenes(options: Options, leg: int = 0) -> SceneMasks:
    """The scenes of a leg of the training, each leg's its own."""
    n = options.scenes or 0
    return draw_scenes(n, presets=options.presets, start=leg * n)


def _fit(training: nn.Module, data: SceneMasks, config: Any, folder: Path) -> None:
    fit(training, data, config, folder, resume=(folder / "checkpoint.pt").exists())


def train_sam(options: Options, folder: Path) -> nn.Module:
    """The tiny SAM: first one answer to a prompt and one correction, then, on other scenes, up to three corrections.

    With `start` only the corrections are learned, on further scenes.
    """
    from sslcourse.segment.training import SamTraining

    training = methods.build(SamTraining, _with(SamTraining.PRESETS["cpu"], options))
    legs = list(enumerate(LEGS[: 1 + 2 * options.clicks]))
    if options.start is not None:
        if not options.clicks:
            raise InputError("--start goes on with clicks: leave --no-clicks out.")
        try:
            training.sam.load_state_dict(load_tiny(options.start).state_dict())
        except RuntimeError:
            raise InputError(f"{options.start} is not a tiny SAM, which --start goes on from.") from None
        legs = [(leg + 2, name) for leg, name in legs[1:]]  # 0 to 2 are the scenes that the model has seen
    for leg, name in legs:
        training.config = _with(SamTraining.PRESETS[name], options)
        data = _scenes(options, leg)
        _fit(training, data, training.config, folder / name)
    return training.sam


def _from_teacher(name: str) -> Callable[[Options, Path], nn.Module]:
    """Trainings that start from a trained SAM."""

    def train(options: Options, folder: Path) -> nn.Module:
        from sslcourse.segment.family import HQTraining, MobileTraining
        from sslcourse.segment.matting_training import MattingTraining

        kind: Any = {"mobilesam": MobileTraining, "hqsam": HQTraining, "matting": MattingTraining}[name]
        config = _with(kind.PRESETS["cpu"], options)
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            training = kind(config, load_tiny(options.teacher))
        _fit(training, _scenes(options), config, folder)
        return training.net if name == "matting" else training.sam

    return train


def train_fastsam(options: Options, folder: Path) -> nn.Module:
    """One pass for everything."""
    from sslcourse.segment.fastsam_training import FastTraining

    config = _with(FastTraining.PRESETS["cpu"], options)
    training = methods.build(FastTraining, config)
    _fit(training, _scenes(options), config, folder)
    return training.net


def train_grounded(options: Options, folder: Path) -> nn.Module:
    """Words to boxes, on the features of the small CLIP."""
    from sslcourse.segment.grounded_training import GroundedTraining, draw_named
    from sslcourse.train.checkpoint import load_model
    from sslcourse.zoo.weights import shipped

    config = _with(GroundedTraining.PRESETS["cpu"], options)
    clip: Any = load_model(shipped("clip_shapes"))
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        training = GroundedTraining(config, clip)
    _fit(training, draw_named(options.scenes or 0), config, folder)
    return training.net


_TINY = {"image_size": 128, "dim": 64}
KINDS: dict[str, tuple[Callable[[Options, Path], nn.Module], dict[str, Any]]] = {  # and what `build_small` is told
    "sam": (train_sam, _TINY | {"encoder": "conv"}),
    "mobilesam": (_from_teacher("mobilesam"), _TINY | {"encoder": "mobile"}),
    "hqsam": (_from_teacher("hqsam"), _TINY | {"encoder": "conv", "hq": True}),
    "fastsam": (train_fastsam, {"kind": "fastsam"}),
    "grounded": (train_grounded, {"kind": "grounded"}),
    "matting": (_from_teacher("matting"), {"kind": "matting", **_TINY, "encoder": "conv"}),
}


def main(argv: list[str]) -> None:
    options = parse(Options, argv, "segment.train")
    if options.scenes is None:
        options = replace(options, scenes=2000 if options.kind == "sam" else 1200)
    torch.set_num_threads(options.threads)
    train, settings = KINDS[options.kind]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        model = train(options, options.run or Path(temporary)).eval()
    seconds = time.perf_counter() - start
    out = options.out or Path(f"weights/tiny_{options.kind}.safetensors")
    given = {name: getattr(options, name) for name in ("start", "scenes", "epochs", "seed")}
    told = " ".join(f"--{name} {value}" for name, value in given.items() if value is not None)
    save_tiny(model, out, settings, f"python -m sslcourse.segment.train {options.kind} {told}")
    report: dict[str, Any] = {"seconds": round(seconds), "file": str(out)}
    if isinstance(model, Sam):
        report["scores"] = scores(model, draw_scenes(options.test, "test", presets=options.presets), clicks=3)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"sslcourse: {error}", file=sys.stderr)
        sys.exit(2)
