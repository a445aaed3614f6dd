"""MobileSAM: a small encoder that copies the teacher's embedding (decoupled), or learns masks with a decoder (coupled).

All arms start from the same untrained encoder and the teacher's decoder. Coupled training moves both through SAM's own
loss. A step of it costs several times as much, so it stops after as many
seconds of process time. python -m benchmarks.findings.mobile_distillation
"""

import tempfile
import time
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

STEPS, SCENES, TEST, START = 120, 160, 24, 10000


def _trained(training: Any, data: SceneMasks, seed: int, steps: int) -> float:
    """Train in place; the seconds of process time that it took."""
    config = replace(training.config, train=replace(training.config.train, steps=steps, epochs=9, seed=seed))
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        fit(training, data, config, Path(folder), progress=False)
    return time.process_time() - start


def _coupled(student: Sam, data: SceneMasks, seed: int, steps: int) -> tuple[Sam, float]:
    training = SamTraining(replace(SamTraining.PRESETS["cpu"], rounds=1))
    training.sam = student
    seconds = _trained(training, data, seed, steps)
    return training.sam.eval(), seconds


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
    seconds = _trained(decoupled, data, seed, STEPS)
    cost = _coupled(_student(seed), data, seed, 3)[1] / 3  # of a step
    equal_time, _ = _coupled(_student(seed), data, seed, max(2, round(seconds / cost)))
    models = {
        "teacher": load_tiny(),
        "decoupled": decoupled.sam.eval(),
        "coupled, as many seconds": equal_time,
        "untrained encoder": _student(seed).eval(),
    }
    return {name: float(box_ious(model, test).mean()) for name, model in models.items()}


def setting() -> dict[str, Any]:
    return {"steps": STEPS, "scenes": SCENES, "test": TEST}


if __name__ == "__main__":
    question = "Does a small encoder learn faster from the teacher's embedding or from masks?"
    run(Finding("mobile_distillation", question, "IoU of wholes for a box", "decoupled", setting()), measure)
