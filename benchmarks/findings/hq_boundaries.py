"""Does the HQ token sharpen outlines? A frozen tiny SAM beside the same SAM with a freshly trained HQ token.

Both answer the same tight boxes. IoU hardly sees a rim of one pixel; boundary IoU sees nothing else. A third arm spends
the same steps on SAM's own decoder, with its own loss, so that more training is not taken for a better token.
python -m benchmarks.findings.hq_boundaries
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.findings.common import Finding, run
from sslcourse.segment.family import HQTraining
from sslcourse.segment.family_scoring import boundary_ious
from sslcourse.segment.files import load_tiny
from sslcourse.segment.sam import Sam
from sslcourse.segment.scenes import SceneMasks, draw_scenes
from sslcourse.segment.training import SamTraining
from sslcourse.train import fit

STEPS, BATCH, SCENES, TEST, WIDTH, START = 60, 8, 160, 30, 1, 8000


def _train(training: SamTraining, data: SceneMasks, seed: int) -> Sam:
    config = replace(training.config, train=replace(training.config.train, steps=STEPS, epochs=9, seed=seed))
    with tempfile.TemporaryDirectory() as folder:
        fit(training, data, config, Path(folder), progress=False)
    return training.sam.eval()


def decoder_alone(seed: int, data: SceneMasks) -> Sam:
    """SAM's own decoder, trained on for as many steps from as few prompts; the encoder is frozen."""
    config = replace(SamTraining.PRESETS["cpu"], rounds=1)
    training = SamTraining(replace(config, train=replace(config.train, lr=0.008)))
    training.sam.load_state_dict(load_tiny().state_dict())
    training.sam.image_encoder.requires_grad_(False)
    encoder = training.sam.image_encoder
    encoder.train = lambda mode=True: encoder  # type: ignore[method-assign,assignment]
    encoder.eval()
    for module in encoder.modules():
        module.training = False
    return _train(training, data, seed)


def hq_token(seed: int, data: SceneMasks) -> Sam:
    """The HQ token and its features, everything else frozen."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        training = HQTraining(HQTraining.PRESETS["cpu"], load_tiny())
    return _train(training, data, seed)


def measure(seed: int) -> dict[str, float]:
    """IoU and boundary IoU of wholes and emblems for their boxes, of scenes that a seed has to itself."""
    data = draw_scenes(SCENES, start=START + SCENES * seed)
    test = draw_scenes(TEST, "test", start=TEST * seed)
    models = {
        "SAM": load_tiny(),
        "SAM, decoder trained on": decoder_alone(seed, data),
        "HQ-SAM": hq_token(seed, data),
    }
    values: dict[str, float] = {}
    for name, model in models.items():
        both = [boundary_ious(model, test, part, WIDTH) for part in (0, 1)]
        values[f"{name}: IoU"] = float(torch.cat([iou for iou, _ in both]).mean())
        values[f"{name}: boundary IoU"] = float(torch.cat([rim for _, rim in both]).mean())
    return values


def setting() -> dict[str, Any]:
    return {"steps": STEPS, "batch": BATCH, "scenes": SCENES, "test": TEST, "width": WIDTH}


if __name__ == "__main__":
    question = "Does an HQ token on a frozen SAM improve outlines more than areas, and more than training on does?"
    run(Finding("hq_boundaries", question, "IoU for a box", "SAM: boundary IoU", setting()), measure)
