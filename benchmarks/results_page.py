"""RESULTS.md and its figure, from what `benchmarks.results` and its neighbours have kept. No number is typed.

`python -m benchmarks.results` writes both; with --check it says whether the page is what the records say.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import compared, masked, real_masks
from benchmarks import methods as trained
from sslcourse.evaluate.result import Result, from_json

if TYPE_CHECKING:
    from benchmarks.results import Plan

HERE = Path(__file__).parent
KEPT, PAGE, FIGURE = HERE / "evaluation", HERE / "RESULTS.md", HERE / "ranking.png"
INTRODUCTION = """# Results on photographs and on Shapes

Written by `python -m benchmarks.results` from the records beside it; no number here is typed.

- [One representation under every protocol](#one-representation-under-every-protocol): photographs, frozen and trained.
- [Continued pre-training on one's own images](#continued-pre-training-on-ones-own-images)
- [Every method on Shapes](#every-method-on-shapes-with-its-preset-for-a-cpu), five trainings of each.
- [Masked methods on Shapes](#masked-methods-on-shapes): what is recorded of them.
- [Every method on photographs](#every-method-on-photographs-a-minute-each), a short training of each.
- [Masks for a box or a click](#masks-for-a-box-or-a-click): tiny SAMs and what learned nothing.

Elsewhere: whether findings of the papers show in miniature, in [FINDINGS.md](FINDINGS.md); speed and memory against
other libraries, in [SPEED.md](SPEED.md).

**Intervals** are 95 %, and n says over what. *Images, originals, objects*: how far the number of this one network may
be from its number on more of them (Wilson's for shares, the bootstrap for most others); it says nothing on another
training. *Seeds, subsets*: Student's t over trainings, or over draws of the labelled images. Differences are paired: of
the same images, or of the same seeds.

## One representation under every protocol

Pixels, gradients by hand (HOG), two networks with random weights, and SimCLR on the first of these two, trained *once*,
on 20,000 images of CIFAR-10 without labels. So `cifar10` is its own domain, and the others are transfer. Samples are
small and networks tiny, and fine-tuning is cut short: the tables show how protocols differ, not how good a method can
be. A further method adds a row to every table with `--run NAME=RUN` and the PATHs.

```
sslcourse pretrain simclr --preset cpu_cifar --data PATH/cifar10 --n-train 20000 --out RUN
python -m benchmarks.results --cifar10 PATH/cifar10 --clothing10 PATH/clothing10 --coco PATH/coco.zip \\
    --davis PATH/davis.zip --run SimCLR=RUN
python -m benchmarks.results --clothing10 PATH/clothing10 --continue-from RUN
```
"""
TRAINED_ON = {"n_labels": "labels", "n_bank": "images", "n_train": "images"}  # what a protocol's detail may say


def records() -> dict[str, dict[str, Any]]:
    """What has been kept, by the name of its file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(KEPT.glob("*.json"))}


def page(kept: dict[str, dict[str, Any]], plans: "dict[str, Plan]") -> str:
    """RESULTS.md: a table a set of images and what training brought; continued training; all methods; masks."""
    parts = [INTRODUCTION, f"![{ranking(kept, plans)[1]}]({FIGURE.name})", ""]
    for name, plan in plans.items():
        if name in kept:
            parts += section(name, plan, kept[name])
    if "continued" in kept:
        parts += continued_section(kept["continued"])
    if any(trained.FOLDER.glob("*.json")):
        parts += trained.section()
    if any(masked.FOLDER.glob("*.json")):
        parts += masked.section()
    parts += compared.section()
    if "masks" in kept:
        parts += real_masks.section(kept["masks"])
    return "\n".join(parts).rstrip() + "\n"


def section(name: str, plan: "Plan", record: dict[str, Any]) -> list[str]:
    """One set of images: what each protocol asks and on how much, the tables, and the paired differences."""
    from sslcourse.evaluate.protocols import PROTOCOLS

    results = [from_json(row) for row in record["results"]]
    models = [r for r in results if "minus" not in r.detail and "relative_to" not in r.detail]
    lines = [f"### {name}", "", plan.about, ""]
    lines += ["| protocol | asks | number | trained on | interval over |", "|---|---|---|---|---|"]
    for p in plan.protocols:
        found = [r for r in models if r.detail["protocol"] == p]
        over = ", ".join(dict.fromkeys(r.counted for r in found))
        number = PROTOCOLS[p].measure + ("" if PROTOCOLS[p].ranks else " (more is not better)")
        lines.append(f"| {p} | {PROTOCOLS[p].about} | {number} | {_trained_on(found, plan.n_train)} | {over} |")
    lines.append("")
    labels = list(dict.fromkeys(r.detail["representation"] for r in models))
    for protocols in _batched(plan.protocols, 5):
        lines += ["| | " + " | ".join(protocols) + " |", "|---" * (len(protocols) + 1) + "|"]
        for label in labels:
            lines.append(f"| {label} | " + " | ".join(_cell(models, p, label) for p in protocols) + " |")
        lines.append("")
    gains = [r for r in results if "minus" in r.detail or "relative_to" in r.detail]
    if gains:
        lines += ["What training brought, in pairs of the same test images or subsets:", ""]
        lines += ["| | value | 95 % interval | n |", "|---|---|---|---|"]
        lines += [f"| {r.name} | {_value(r)} | {r.interval} | {r.counted} |" for r in gains]
        lines.append("")
        if any(r.detail["protocol"] == "mce" for r in gains):
            lines += ["(mce: the mean ratio of the errors under corruption; below 1 is better.)", ""]
    return [*lines, f"{sum(record['minutes'].values()):.1f} minutes of wall time, one thread.", ""]


def _trained_on(found: Sequence[Result], n_train: int | None) -> str:
    """On how much, and for how long, a protocol trains; empty where it trains nothing."""
    details = [r.detail for r in found]
    count = next((f"{d[key]} {what}" for key, what in TRAINED_ON.items() for d in details if key in d), "")
    if not count and n_train and any("clean_accuracy" in d for d in details):  # a probe whose detail does not count
        count = f"{n_train} images"
    length = next((f", {d[key]} {key}" for key in ("epochs", "steps") for d in details if d.get(key)), "")
    return count + length


def continued_section(record: dict[str, Any]) -> list[str]:
    """The same network after more training, on the images that it is to know, and its two alternatives."""
    from benchmarks.results import SEEDS, STEPS

    results = [from_json(row) for row in record["results"]]
    lines = [
        "## Continued pre-training on one's own images",
        "",
        f"SimCLR trained on CIFAR-10, then for {STEPS} steps on the training photos of clothing10 without their labels "
        f"(continued), the same {STEPS} steps from random weights (from scratch), and not at all (as it is). Seeds "
        f"{', '.join(map(str, SEEDS))} set the order of the further training. *As it is* is one network: its interval "
        "is over images or subsets, and in differences it counts as a constant. The same by hand: `sslcourse pretrain "
        f"simclr --preset cpu_cifar --init RUN --data PATH/clothing10 --data-size 64 --train.steps {STEPS} --train.lr "
        "1e-3 --train.warmup-epochs 2`.",
        "",
        "| | value | 95 % interval | n |",
        "|---|---|---|---|",
    ]
    lines += [f"| {r.name} | {_value(r)} | {r.interval} | {r.counted} |" for r in results]
    return [*lines, "", f"{sum(record['minutes'].values()):.1f} minutes of wall time, one thread.", ""]


def _value(r: Result) -> str:
    return f"{r.value:+.3f}" if "minus" in r.detail else f"{r.value:.3f}"


def _batched(items: Sequence[str], n: int) -> list[Sequence[str]]:
    return [items[i : i + n] for i in range(0, len(items), n)]


def _cell(models: Sequence[Result], protocol: str, label: str) -> str:
    found = [r for r in models if (r.detail["protocol"], r.detail["representation"]) == (protocol, label)]
    return f"{found[0].value:.3f} {found[0].interval}" if found else "does not apply"


def ranking(kept: dict[str, dict[str, Any]], plans: "dict[str, Plan]") -> tuple[list[Result], str]:
    """What the figure of ranks shows, and its description."""
    from sslcourse.evaluate.protocols import PROTOCOLS

    shown, best, orders = [], {}, []
    for name in [name for name in plans if name in kept]:
        results = [from_json(row) for row in kept[name]["results"]]
        for r in results:
            if "minus" not in r.detail and PROTOCOLS.get(r.detail["protocol"], None) is not None:
                shown.append(replace(r, detail=r.detail | {"data": name}))
        for protocol in plans[name].protocols:
            of = [r for r in results if r.detail["protocol"] == protocol and "minus" not in r.detail]
            if PROTOCOLS[protocol].ranks and len(of) > 1:
                order = [r.detail["representation"] for r in sorted(of, key=lambda r: -r.value)]
                best[f"{protocol} on {name}"] = order[0]
                if len(order) == len({r.detail["representation"] for r in results}):
                    orders.append(tuple(order))
    winners = dict.fromkeys(best.values())
    said = "; ".join(f"{w} is first in {', '.join(p for p, v in best.items() if v == w)}" for w in winners)
    return shown, (
        f"Rank of every representation under every protocol, by its number alone: {len(set(orders))} different orders "
        f"in the {len(orders)} protocols that suit all of them. {said}. Neighbours in rank may differ by less than "
        "their intervals."
    )


def write(kept: dict[str, dict[str, Any]], plans: "dict[str, Plan]", baselines: tuple[str, ...]) -> None:
    """The page and the figure."""
    from sslcourse.evaluate.figure import plot_ranking

    title = "The same representations, ranked by every protocol"
    plot_ranking(ranking(kept, plans)[0], FIGURE, title=title, baselines=baselines)
    PAGE.write_text(page(kept, plans), encoding="utf-8")
