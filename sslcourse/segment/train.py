"""`python -m sslcourse.segment.train sam`: makes the small models that come with the course.

Each is trained on scenes of `Shapes` in at most a quarter of an hour on 2 CPU cores, then scored on scenes that it has
not seen.
"""

import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from sslcourse import methods
from sslcourse.commands.arguments import parse
from sslcourse.segment.files import save_tiny
from sslcourse.segment.sam import Sam
from sslcourse.segment.scenes import SceneMasks, draw_scenes
from sslcourse.segment.scoring import box_ious, click_ious
from sslcourse.train import fit

PARTS = ("whole", "emblem", "dot")


@dataclass(frozen=True)
class Options:
    """Train a small segmenter on scenes of Shapes and write it in half precision."""

    kind: Annotated[Literal["sam"], tyro.conf.Positional]
    """What to train."""
    out: Path = Path("weights/tiny_sam.safetensors")
    """The file to write."""
    scenes: int = 2000
    """Scenes to train on."""
    epochs: int = 6
    """Passes over them."""
    presets: tuple[str, ...] = ("captions",)
    """Settings of Shapes that the scenes are drawn with, in turn."""
    test: int = 200
    """Held-out scenes to score on."""
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


def train_sam(options: Options, folder: Path) -> Sam:
    """The tiny SAM, trained through the one loop."""
    from sslcourse.segment.training import SamTraining

    preset = SamTraining.PRESETS["cpu"]
    config = replace(preset, train=replace(preset.train, epochs=options.epochs, seed=options.seed))
    training = methods.build(SamTraining, config)
    data = draw_scenes(options.scenes, presets=options.presets)
    resume = (folder / "checkpoint.pt").exists()
    fit(training, data, config, folder, resume=resume)
    return training.sam.eval()


def main(argv: list[str]) -> None:
    options = parse(Options, argv, "segment.train")
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        model = train_sam(options, options.run or Path(temporary))
    seconds = time.perf_counter() - start
    told = f"--scenes {options.scenes} --epochs {options.epochs} --presets {' '.join(options.presets)}"
    command = f"python -m sslcourse.segment.train {options.kind} {told} --seed {options.seed}"
    save_tiny(model, options.out, {"image_size": 128, "dim": 64, "encoder": "conv"}, command)
    held_out = draw_scenes(options.test, "test", presets=options.presets)
    table = scores(model, held_out, clicks=3)
    print(json.dumps({"seconds": round(seconds), "scores": table}, indent=2))


if __name__ == "__main__":
    from sslcourse.errors import InputError

    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"sslcourse: {error}", file=sys.stderr)
        sys.exit(2)
