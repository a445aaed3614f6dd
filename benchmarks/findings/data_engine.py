"""Does SAM's data engine pay? The shipped tiny SAM meets sketches, which it was not trained on, in five rounds.

python -m benchmarks.findings.data_engine

Every round has scenes of its own. After each but the last the model is trained on all masks that were collected so far;
the other arms collect from the same scenes with a model that stays as it was. A time is in minutes of the simulated
annotator an object (`segment.engine.Annotator` says what a click is assumed to take).
"""

from collections.abc import Iterator
from dataclasses import asdict
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.findings.common import Finding, run
from sslcourse.segment.engine import Annotator, Round, Stage, run_stage
from sslcourse.segment.files import load_tiny
from sslcourse.segment.sam import Sam
from sslcourse.segment.scenes import SceneMasks, draw_scenes
from sslcourse.segment.scoring import click_ious
from sslcourse.segment.training import SamTraining
from sslcourse.train import fit
from sslcourse.train.config import TrainConfig

PRESET = "sketch"
ROUNDS: dict[str, Stage] = {
    "1 assisted": "assisted",
    "2 assisted": "assisted",
    "3 assisted": "assisted",
    "4 semi-automatic": "semi-automatic",
    "5 automatic": "automatic",
}
SCENES, STEPS, BATCH, TEST = 32, 60, 8, 40
HOW = Annotator(good=0.8, confident=0.75, stable=0.85)
START = 1000  # scenes from here on; the seeds lie side by side


def scenes_of(seed: int) -> list[SceneMasks]:
    """The scenes of every round."""
    first = START + seed * SCENES * len(ROUNDS)
    return [draw_scenes(SCENES, presets=(PRESET,), start=first + i * SCENES) for i in range(len(ROUNDS))]


def retrain(model: Sam, collected: list[SceneMasks], seed: int) -> None:
    """Some steps on everything that was collected, in place: wholes only, as nobody was asked for parts."""
    data = SceneMasks(torch.cat([some.images for some in collected]), collected[0].n_objects)
    data = data[(data.images[:, 3] > 0).flatten(1).any(dim=1)]
    times = TrainConfig(
        epochs=10**3, steps=STEPS, batch_size=min(BATCH, len(data)), optimizer="adamw", lr=0.032, weight_decay=0.01,
        warmup_epochs=0.0, clip_grad=1.0, channels_last=False, accelerator="cpu", monitor_every=10**9, seed=seed,
    )  # fmt: skip
    training = SamTraining(
        SamTraining.Config(encoder="conv", prompts=2, rounds=2, share=(1.0, 1e-6, 1e-6), train=times)
    )
    training.sam = model
    with TemporaryDirectory() as folder:
        fit(training, data, training.config, folder, progress=False)
    model.eval()


def rounds(seed: int, learns: bool) -> Iterator[tuple[str, Round, Sam]]:
    """Every round of the engine: its name, what it brought, and the model that brought it."""
    model = load_tiny()
    collected: list[SceneMasks] = []
    for i, ((name, stage), scenes) in enumerate(zip(ROUNDS.items(), scenes_of(seed), strict=True)):
        found = run_stage(model, scenes, stage, HOW)
        yield name, found, model
        collected.append(found.collected)
        if learns and i < len(ROUNDS) - 1:
            retrain(model, collected, seed + 100 * i)


def measure(seed: int) -> dict[str, float]:
    """IoU of the collected masks and annotator's minutes an object, round by round, and one click on unseen scenes."""
    unseen = draw_scenes(TEST, "test", presets=(PRESET,), start=TEST * seed)
    values = {}
    for arm, learns in (("retrained", True), ("left alone", False)):
        for name, found, model in rounds(seed, learns):
            values[f"{arm}, {name}: IoU"] = found.iou
            values[f"{arm}, {name}: minutes"] = found.seconds / 60 / found.objects
            values[f"{arm}, {name}: masks"] = found.masks / found.objects
            if learns or name == next(iter(ROUNDS)):
                values[f"{arm}, {name}: unseen"] = float(click_ious(model, unseen)[0].mean())
    return values


def setting() -> dict[str, Any]:
    return {"preset": PRESET, "scenes": SCENES, "steps": STEPS, "batch": BATCH, "test": TEST, "annotator": asdict(HOW)}


if __name__ == "__main__":
    question = (
        "What do rounds of annotating with a model, and training it on that, do to quality and to the time it takes?"
    )
    metric = "IoU, share of objects with a mask, or minutes an object"
    run(Finding("data_engine", question, metric, "left alone, 1 assisted: IoU", setting()), measure)
