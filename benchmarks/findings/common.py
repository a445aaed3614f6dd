"""A finding: one question, several arms, the same seeds in every arm, and a JSON file that a chapter reads.

Within one seed all arms share images, initial weights, order and (where the arm does not change them) random numbers,
so what is compared is the difference within a seed. The file holds the raw values of every run; means and intervals
are computed from them wherever they are shown.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sslcourse.evaluate.result import Result, seed_interval

FOLDER = Path(__file__).parent
Measure = Callable[[int], dict[str, float]]


@dataclass
class Finding:
    """The recorded runs of one experiment.

    Attributes:
        name: file name without .json.
        question: what was asked, one sentence.
        metric: what each value is, with its unit.
        baseline: the arm that differences are taken to.
        setting: what all arms share, plain JSON values.
        seeds: one entry a repetition.
        arms: arm -> one value a seed, in the order of `seeds`.
        seconds: what all arms of one seed took, in the order of `seeds`.
        clock: of `seconds`: "wall" in early records, which a busy machine makes longer; since then "CPU", the time of
            all threads together, an upper bound of what a quiet machine takes.
    """

    name: str
    question: str
    metric: str
    baseline: str
    setting: dict[str, Any]
    seeds: list[int] = field(default_factory=list)
    arms: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    clock: str = "wall"

    def mean(self, arm: str) -> Result:
        """Mean of an arm over seeds with its 95 % t interval."""
        return seed_interval(self.arms[arm], arm)

    def difference(self, arm: str, baseline: str | None = None) -> Result:
        """Mean paired difference to the baseline, `arm - baseline` within each seed, with its 95 % t interval."""
        base = self.baseline if baseline is None else baseline
        pairs = zip(self.arms[arm], self.arms[base], strict=True)
        return seed_interval([a - b for a, b in pairs], f"{arm} - {base}")

    @staticmethod
    def load(path: str | Path) -> "Finding":
        return Finding(**json.loads(Path(path).read_text(encoding="utf-8")))

    def add(self, seed: int, values: dict[str, float], seconds: float, folder: Path = FOLDER) -> Path:
        """One more repetition and its CPU seconds, written at once: a run that is stopped keeps what it has."""
        self.clock = "CPU"
        self.seeds.append(seed)
        self.seconds.append(round(seconds, 1))
        for arm, value in values.items():
            self.arms.setdefault(arm, []).append(round(value, 4))
        return self.save(folder)

    def save(self, folder: Path = FOLDER) -> Path:
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return path


def run(finding: Finding, measure: Measure, argv: Sequence[str] | None = None) -> Finding:
    """Command line of every script: run `measure(seed) -> {arm: value}` for each seed and record it.

    ``--seeds 5`` repetitions; ``--out FOLDER`` writes elsewhere, for a try that should not replace the record.
    """
    parser = argparse.ArgumentParser(description=finding.question)
    parser.add_argument("--seeds", type=int, default=5, help="repetitions (default 5)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for the JSON file")
    args = parser.parse_args(argv)
    for seed in range(args.seeds):
        start = time.process_time()
        values = measure(seed)
        path = finding.add(seed, values, time.process_time() - start, args.out)
        print(f"seed {seed}: " + ", ".join(f"{arm} {value:.3f}" for arm, value in values.items()), flush=True)
    for arm in finding.arms:
        mean, gap = finding.mean(arm), finding.difference(arm)
        print(f"{arm:>24}: {mean.value:.3f} {mean.interval}   to baseline {gap.value:+.3f} {gap.interval}")
    print("wrote", path)
    return finding
