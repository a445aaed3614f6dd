"""Every protocol on real images: pixels, gradients by hand, random networks and trained runs. Writes RESULTS.md.

    python -m benchmarks.results --cifar10 PATH --clothing10 PATH --coco PATH --davis PATH --run NAME=RUN ...

A PATH is a pack (book/data-format.md) or a folder; each is optional, and RUN is a folder of `sslcourse pretrain`. Only
what is named is evaluated: results are kept in evaluation/DATA.json, one row a representation and protocol. A later
method adds its rows with --run and PATHs alone: of the baselines that are kept already, only the network that the run
started as is measured again, for paired differences; --baselines measures all of them again. `python -m
benchmarks.results` alone writes RESULTS.md and its figure (`results_page`). Samples are small: minutes a set of images
on one core.

    python -m benchmarks.results --clothing10 PATH --continue-from RUN

measures continued pre-training on one's own images: from RUN's weights, from random ones, and RUN as it is.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import results_page
from benchmarks.results_page import KEPT
from sslcourse.errors import InputError
from sslcourse.evaluate.result import Result, to_json

NETWORKS = {"random convnet": "convnet", "random ViT": "vit_mini_patch4"}  # 32 px views, as SimCLR's preset cpu_cifar
BASELINES = ("raw pixels", "HOG", *NETWORKS)


@dataclass(frozen=True)
class Plan:
    """What is asked of a representation on one set of images.

    Attributes:
        protocols: keys of `PROTOCOLS`.
        about: one sentence on the data.
        size: side that images are loaded at; None keeps them.
        side: side of images with dense labels.
        n_train, n_test: sizes of the class-balanced samples; None takes all.
        options: of protocols.
    """

    protocols: tuple[str, ...]
    about: str
    size: int | None = None
    side: int = 96
    n_train: int | None = None
    n_test: int | None = None
    options: dict[str, dict[str, Any]] = field(default_factory=dict)


SWEEP = (1e-4, 1e-2, 1.0)
PLANS = {
    "cifar10": Plan(
        ("knn", "linear", "few_1", "few_10", "clustering", "retrieval", "partial", "finetune", "robustness", "rankme"),
        "CIFAR-10, a copy as JPEG files of quality 75, so not comparable with published numbers.",
        n_train=2000,
        n_test=1000,
        options={
            "linear": {"sweep": SWEEP},
            "few_1": {"sweep": SWEEP},
            "few_10": {"sweep": SWEEP},
            "partial": {"epochs": 5},
            "finetune": {"epochs": 5},
            "robustness": {"sweep": (1e-2,), "severities": (1, 3, 5)},
        },
    ),
    "clothing10": Plan(
        ("knn", "linear", "few_10", "clustering", "retrieval", "copy"),
        "Ten kinds of clothes, photographed by many people; 100 strong edits look for their originals among the test "
        "photos (copy).",
        size=64,
        options={"linear": {"sweep": SWEEP}, "few_10": {"sweep": SWEEP}},
    ),
    "coco": Plan(
        ("segmentation", "detection", "copy"),
        "COCO images with masks: the eight most frequent categories (segmentation), and the eight most frequent things "
        "(detection). So few images teach a detector next to nothing: its column is a check of the code, and its ranks "
        "are noise.",
        options={"detection": {"epochs": 40}},
    ),
    "davis": Plan(
        ("segmentation", "attention", "video"),
        "DAVIS-2016 clips: the moving object against the rest, from frozen maps (segmentation), from the attention of "
        "the class token, and followed from its mask in the first frame (video). The rest is most of a picture and "
        "counts as a class: naming everything so already gets nearly half of the mIoU.",
    ),
}


def measure(name: str, path: str, runs: dict[str, Any], *, again: bool = False) -> None:
    """Evaluate `runs`, and the baselines that have no rows yet (or all of them, `again`), and keep the rows."""
    from sslcourse.commands.data import Data
    from sslcourse.commands.evaluate import encoder_of, untrained_of
    from sslcourse.evaluate.protocols import evaluate_encoder
    from sslcourse.evaluate.tasks import Task

    plan = PLANS[name]
    data = Data(path, plan.size, plan.n_train, plan.n_test)
    task = Task(path, data.labelled_pair, plan.side, plan.n_train, plan.n_test)
    arms: dict[str, Callable[[], Any]] = dict(untrained_of(task))
    arms |= {label: lambda kind=kind: encoder_of(_network(kind), "cpu") for label, kind in NETWORKS.items()}  # type: ignore[misc]
    if not again:
        have = {row["detail"]["representation"] for row in _kept(name)["results"]} - set(map(_start_of, runs.values()))
        arms = {label: make for label, make in arms.items() if label not in have}
    arms |= {label: lambda module=module: encoder_of(module, "cpu") for label, module in runs.items()}  # type: ignore[misc]
    rows, minutes = [], {}
    for label, make in arms.items():
        start = time.perf_counter()
        rows += evaluate_encoder(make(), task, plan.protocols, representation=label, options=plan.options)
        minutes[label] = round((time.perf_counter() - start) / 60, 2)
        print(f"{name}: {label} took {minutes[label]:.1f} min", file=sys.stderr)
    gains = [
        gain
        for label, module in runs.items()
        if (start_label := _start_of(module)) in arms
        for gain in _gains(rows, label, start_label)
    ]
    _keep(name, rows + gains, minutes)


def _network(kind: str) -> Any:
    """A SimCLR module with random weights, for its backbone and its view."""
    from sslcourse import methods
    from sslcourse.methods.simclr import SimCLR

    return methods.build("simclr", replace(SimCLR.PRESETS["cpu_cifar"], backbone=kind))


def _start_of(module: Any) -> str | None:
    """The baseline that a run started as: the same network with random weights."""
    return next((label for label, kind in NETWORKS.items() if kind == getattr(module.config, "backbone", None)), None)


def _gains(rows: Sequence[Result], label: str, start: str) -> list[Result]:
    """What training brought: paired differences to the same network with random weights, and mCE against it."""
    from sslcourse.evaluate.paired import difference, mce_results
    from sslcourse.evaluate.protocols import PROTOCOLS

    by = {(r.detail["protocol"], r.detail["representation"]): r for r in rows}
    pairs = [(by[p, label], by[p, start]) for p, r in by if r == label and (p, start) in by and PROTOCOLS[p].ranks]
    gains = [difference(a, b) for a, b in pairs]
    return gains + [m for a, b in pairs if a.detail["protocol"] == "robustness" for m in mce_results(a, b)]


def _keep(name: str, rows: Sequence[Result], minutes: dict[str, float]) -> None:
    """Add rows to evaluation/NAME.json, in place of older ones of the same representation and protocol."""
    old = _kept(name)
    new = [to_json(r) for r in rows]
    measured = {_key(row) for row in new}
    kept = [row for row in old["results"] if _key(row) not in measured]
    merged = sorted(kept + new, key=lambda row: _place(row["detail"]["representation"]))
    KEPT.mkdir(exist_ok=True)
    record = {"minutes": old["minutes"] | minutes, "results": merged}
    (KEPT / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def _kept(name: str) -> dict[str, Any]:
    path = KEPT / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {"minutes": {}, "results": []}


def _place(label: str) -> int:
    """Baselines come first, in their order."""
    return BASELINES.index(label) if label in BASELINES else len(BASELINES)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row["detail"].get(k) for k in ("protocol", "representation", "minus", "relative_to"))


# --- continued pre-training --------------------------------------------------------------------------------------

STEPS, SEEDS = 150, (0, 1, 2)
ARMS = {"as it is": None, "continued": 1e-3, "from scratch": 4e-3}  # learning rates for a batch of 256


def continued(path: str, start: Path, work: Path) -> None:
    """Pre-train on the images' own domain from the weights of `start` and from random ones, then probe."""
    from sslcourse.commands.data import Data
    from sslcourse.commands.evaluate import encoder_of
    from sslcourse.commands.pretrain import train
    from sslcourse.evaluate.protocols import evaluate_encoder
    from sslcourse.evaluate.tasks import Task
    from sslcourse.train import load_model

    plan = PLANS["clothing10"]
    data = Data(path, plan.size)
    task = Task(path, data.labelled_pair, plan.side)
    source: Any = load_model(start)
    found: dict[str, list[list[Result]]] = {}
    begun = time.perf_counter()
    for arm, lr in ARMS.items():
        for seed in SEEDS if lr else SEEDS[:1]:
            module = source
            if lr:
                settings = replace(source.config.train, steps=STEPS, epochs=1000, lr=lr, seed=seed, warmup_epochs=2)
                folder = work / arm.replace(" ", "-") / f"seed{seed}"
                config = replace(source.config, train=settings)
                if not (folder / "model.safetensors").exists():
                    train(source.name, config, data, folder, init=start if arm == "continued" else None, knn=False)
                module = load_model(folder)
            results = evaluate_encoder(
                encoder_of(module, "cpu"), task, ("knn", "linear", "few_10"), representation=arm, options=plan.options
            )
            found.setdefault(arm, []).append(results)
    _keep("continued", _over_seeds(found), {"all": round((time.perf_counter() - begun) / 60, 2)})


def _over_seeds(found: dict[str, list[list[Result]]]) -> list[Result]:
    """Each arm over its seeds, and the arms that were trained minus the others, in pairs of seeds."""
    from sslcourse.evaluate.paired import difference
    from sslcourse.evaluate.result import seed_interval

    rows: list[Result] = []
    for i, first in enumerate(found["as it is"][0]):
        protocol = first.detail["protocol"]
        group = {"as it is": first}
        for arm, runs in found.items():
            if len(runs) > 1:
                one = seed_interval([run[i].value for run in runs], f"{protocol}, {arm}")
                detail = {"protocol": protocol, "representation": arm, "each_on": first.counted}
                group[arm] = replace(one, detail=detail | one.detail)
        n = group["continued"].n
        constant = replace(seed_interval([first.value] * n), detail=first.detail)
        rows += [*group.values(), difference(group["continued"], constant)]
        rows.append(difference(group["continued"], group["from scratch"]))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__.splitlines()[0])
    for name, plan in PLANS.items():
        parser.add_argument(f"--{name}", metavar="PATH", help=plan.about.split(";")[0])
    parser.add_argument("--run", action="append", default=[], metavar="NAME=RUN", help="a trained run and its name")
    parser.add_argument("--baselines", action="store_true", help="measure baselines again that have rows already")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 2 if RESULTS.md is out of date")
    parser.add_argument("--continue-from", type=Path, metavar="RUN", help="measure continued pre-training from RUN")
    parser.add_argument("--work", type=Path, default=Path("runs/continued"), help="where its runs are kept")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        if args.continue_from is not None:
            if args.clothing10 is None:
                raise InputError("--continue-from needs --clothing10 PATH, the images to go on with.")
            continued(args.clothing10, args.continue_from, args.work)
        else:
            runs = _runs(args.run)
            for name in PLANS:
                if getattr(args, name) is not None:
                    measure(name, getattr(args, name), runs, again=args.baselines)
        kept = results_page.records()
        if not kept:
            raise InputError("nothing has been measured; name images, e.g. --cifar10 PATH.")
        if args.check:
            if results_page.page(kept, PLANS) != results_page.PAGE.read_text(encoding="utf-8"):
                raise InputError("RESULTS.md is out of date: python -m benchmarks.results")
        else:
            results_page.write(kept, PLANS, BASELINES)
    except InputError as error:
        print(f"benchmarks.results: {error}", file=sys.stderr)
        return 2
    return 0


def _runs(named: Sequence[str]) -> dict[str, Any]:
    from sslcourse.train import load_model

    runs = {}
    for item in named:
        name, equals, folder = item.partition("=")
        if not equals or not name or not folder:
            raise InputError(f"--run takes NAME=RUN; got '{item}'.")
        runs[name] = load_model(Path(folder))
    return runs


if __name__ == "__main__":
    raise SystemExit(main())
