"""MobileSAM: a small encoder that copies the teacher's embedding (decoupled), or learns masks with a decoder (coupled).

All arms start from the same untrained encoder and the teacher's decoder. Coupled training moves both through SAM's own
loss. A step of it costs 3.2 times as much (0.36 against 0.11 seconds of one thread), so it takes a third of the steps.

    python -m benchmarks.findings.mobile_distillation
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.findings.common import Finding, run
from sslcourse.segment.build import build_tiny_sam
from sslcourse.segment.family import MobileTraining
from sslcourse.segment.files import load_tiny
from sslcourse.segment.sam import Sam
from sslcourse.segment.scenes import SceneMasks, draw_scenes
from sslcourse.segment.scoring import box_ious
from sslcourse.segment.training import SamTraining
from sslcourse.train import fit

STEPS, COUPLED_STEPS, SCENES, TEST, START = 120, 40, 160, 24, 10000


def _trained(training: Any, data: SceneMasks, seed: int, steps: int) -> Sam:
    config = replace(training.config, train=replace(training.config.train, steps=steps, epochs=9, seed=seed))
    with tempfile.TemporaryDirectory() as folder:
        fit(training, data, config, Path(folder), progress=False)
    return training.sam.eval()


def _student(seed: int) -> Sam:
    """An untrained small encoder before the teacher's decoder; the same for a seed."""
    teacher = load_tiny()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student = build_tiny_sam(128, 64, encoder="mobile")
    student.prompt_encoder.load_state_dict(teacher.prompt_encoder.state_dict())
    student.mask_decoder.load_state_dict(teacher.mask_decoder.state_dict())
    return student


def measure(seed: int) -> dict[str, float]:
    """Mean IoU of wholes for their boxes."""
    data = draw_scenes(SCENES, start=START + SCENES * seed)
    test = draw_scenes(TEST, "test", start=TEST * seed)
    decoupled = MobileTraining(MobileTraining.PRESETS["cpu"], load_tiny())
    decoupled.sam.load_state_dict(_student(seed).state_dict())
    coupled = SamTraining(replace(SamTraining.PRESETS["cpu"], rounds=1))
    coupled.sam = _student(seed)
    models = {
        "teacher": load_tiny(),
        "decoupled": _trained(decoupled, data, seed, STEPS),
        "coupled, as many seconds": _trained(coupled, data, seed, COUPLED_STEPS),
        "untrained encoder": _student(seed).eval(),
    }
    return {name: float(box_ious(model, test).mean()) for name, model in models.items()}


def setting() -> dict[str, Any]:
    return {"steps": STEPS, "coupled_steps": COUPLED_STEPS, "scenes": SCENES, "test": TEST}


if __name__ == "__main__":
    question = "Does a small encoder learn faster from the teacher's embedding or from masks?"
    run(Finding("mobile_distillation", question, "IoU of wholes for a box", "decoupled", setting()), measure)
