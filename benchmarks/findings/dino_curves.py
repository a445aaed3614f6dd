"""The curves behind `dino_centering`, for the explorer of chapter 6: a run for each teacher temperature and centering.

python -m benchmarks.findings.dino_curves

Writes curves/dino_centering.json: entropies of single targets and of the mean target over the training, and for the
four arms of the finding what the teacher answers to some test images at the end.
"""

import json
from typing import Any

from benchmarks.findings import dino_centering as finding
from benchmarks.findings import simclr_common as shared
from benchmarks.findings.common import FOLDER

TTS = (0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 1.0)
SHOWN = 12  # images whose answers are kept


def record(seed: int = 0) -> dict[str, Any]:
    """All runs of one seed as plain values."""
    data = shared.images(seed)
    names = {setting: arm for arm, setting in finding.ARMS.items()}
    runs: dict[str, list[list[list[float]]]] = {"mean": [], "none": []}
    answers, steps, model = {}, [], None
    for centering, curves in runs.items():
        for tt in TTS:
            model = finding.watched(seed, tt, centering, data)
            steps = [step for step, _, _ in model.curve]
            curves.append([[round(point[i], 3) for point in model.curve] for i in (1, 2)])
            print(f"tt {tt}, centering {centering}: {curves[-1][0][-1]:.2f} of {curves[-1][1][-1]:.2f}", flush=True)
            if (arm := names.get((tt, centering))) is not None:
                rows = model.answers(model.view[:SHOWN])
                answers[arm] = [[round(p, 3) for p in row] for row in rows.tolist()]
    assert model is not None
    config = model.config
    return {
        "k": config.prototypes,
        "ts": config.ts,
        "start": finding.SHARP,
        "tts": list(TTS),
        "steps": steps,
        "runs": {name: [{"single": a, "mean": b} for a, b in curves] for name, curves in runs.items()},
        "answers": answers,
    }


if __name__ == "__main__":
    path = FOLDER / "curves" / "dino_centering.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record(), separators=(",", ":")) + "\n", encoding="utf-8")
    print("wrote", path)
