"""`sslcourse compare`: several methods, several seeds, one table. Every finished run is kept and never repeated."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sslcourse import catalogue
from sslcourse.commands.arguments import parse
from sslcourse.commands.evaluate import PIXELS, RANDOM, evaluate_arm
from sslcourse.errors import InputError, unknown


@dataclass(frozen=True)
class Options:
    """Pre-train and evaluate methods over several seeds, beside raw pixels and random initialisation.

    Runs live in OUT/METHOD/seedN. The same command goes on where an interrupted one stopped. The table is printed and
    kept as OUT/compare.json and OUT/compare.png.
    """

    methods: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Methods of `sslcourse list`."""
    data: str = "shapes"
    """A dataset by name, a folder or a pack, with labels and a test split."""
    preset: str | None = None
    """Preset of every method; each method's first one by default."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of the runs; the interval is over them."""
    protocol: tuple[Literal["knn", "linear"], ...] = ("knn",)
    """How to evaluate: kNN votes, a linear probe."""
    out: Path = Path("runs/compare")
    """Folder of the runs and the table."""
    epochs: int | None = None
    """Train for so many epochs in place of the preset's."""
    n_train: int | None = None
    """Use a class-balanced sample of so many training images."""
    n_test: int | None = None
    """Use a class-balanced sample of so many test images."""
    data_size: int | None = None
    """Side in pixels to load images at; what suits the methods' views by default."""
    k: int = 20
    """Neighbours that vote in kNN."""
    T: float = 0.07
    """Temperature of kNN's weighted vote."""
    solver: Literal["lbfgs", "sgd"] = "lbfgs"
    """How the linear probe is fitted: exactly, or as the papers train it."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""


def run(argv: list[str]) -> None:
    options = parse(Options, argv, "compare")
    presets = _presets(options)

    from sslcourse.evaluate.figure import plot_results
    from sslcourse.evaluate.result import print_results, save_results

    arms = list(_arms(options, presets))
    scores: dict[str, list[dict[str, float]]] = {}
    for i, (label, folder, data, make) in enumerate(arms, 1):
        print(f"sslcourse: {folder.relative_to(options.out)} ({i} of {len(arms)})", file=sys.stderr)
        scores.setdefault(label, []).append(_scores(options, label, folder, data, make))

    n_test = len(arms[0][2].labelled_pair()[1])
    results = [
        _result(label, rows, protocol, n_test) for protocol in options.protocol for label, rows in scores.items()
    ]
    title = f"{options.data}: {n_test} test images, seeds {', '.join(map(str, options.seeds))}"
    print_results(results, title)
    save_results(results, options.out / "compare.json")
    try:
        grey = [label for label in scores if label == PIXELS or label.startswith(RANDOM)]
        plot_results(results, options.out / "compare.png", title=title, baselines=grey)
    except InputError as error:
        print(f"sslcourse: no figure: {error}", file=sys.stderr)


def _presets(options: Options) -> dict[str, str]:
    """The preset of every method, all names checked before anything is trained (and before torch is imported)."""
    if len(set(options.seeds)) < len(options.seeds) or not options.seeds:
        raise InputError(f"--seeds needs different numbers; got {' '.join(map(str, options.seeds)) or 'none'}.")
    if not options.methods:
        raise InputError(f"compare needs at least one method: {', '.join(catalogue.available())}.")
    chosen = {}
    for name in options.methods:
        presets = catalogue.row(name).presets
        if options.preset is not None and options.preset not in presets:
            raise unknown(f"preset of {name}", options.preset, presets)
        chosen[name] = options.preset or presets[0]
    return chosen


Arm = tuple[str, Path, Any, Callable[[], Any]]  # label, folder, data, what makes the method (None for pixels)


def _arms(options: Options, presets: dict[str, str]) -> Iterator[Arm]:
    """Everything to evaluate: raw pixels, random weights once for each kind of backbone, then the methods."""
    from sslcourse import methods
    from sslcourse.commands.data import Data, source_size
    from sslcourse.commands.pretrain import configured

    configs = {}
    for name, preset in presets.items():
        config = configured(catalogue.method_class(name).PRESETS[preset], None, options.device)
        if options.epochs is not None:
            config = replace(config, train=replace(config.train, epochs=options.epochs))
        size = options.data_size or source_size(options.data, config.augment.size)
        configs[name] = config, Data(options.data, size, options.n_train, options.n_test)

    kinds = {(config.backbone, config.augment.size): name for name, (config, _) in reversed(configs.items())}
    first = configs[next(iter(configs))]
    yield PIXELS, options.out / "pixels", first[1], lambda: None
    for (backbone, size), name in reversed(kinds.items()):
        config, data = configs[name]
        label = RANDOM if len(kinds) == 1 else f"{RANDOM} ({backbone}, {size} px)"
        for seed in options.seeds:
            seeded = configured(config, seed, None)
            folder = options.out / f"random-{backbone}-{size}" / f"seed{seed}"
            yield label, folder, data, partial(methods.build, name, seeded)
    for name, (config, data) in configs.items():
        for seed in options.seeds:
            folder, seeded = options.out / name / f"seed{seed}", configured(config, seed, None)
            yield name, folder, data, partial(_trained, name, seeded, data, folder)


def _trained(name: str, config: Any, data: Any, folder: Path) -> Any:
    """The trained method in `folder`: as it is, resumed, or trained from the start."""
    from sslcourse.commands.pretrain import check_same_data, train
    from sslcourse.train import load_model, to_dict
    from sslcourse.train.checkpoint import CONFIG, MODEL
    from sslcourse.train.config import differences

    started = (folder / CONFIG).exists()
    if (folder / MODEL).exists():
        check_same_data(folder, data)
        changed = differences(to_dict(load_model(folder).config), to_dict(config))
        if changed:
            raise InputError(f"{folder} was trained with other settings ({'; '.join(changed)}); choose another --out.")
    else:
        try:
            train(name, config, data, folder, resume=started, knn=False)
        except SystemExit:
            print("sslcourse: the same compare command goes on from here.", file=sys.stderr)
            raise
    return load_model(folder)


def _scores(options: Options, label: str, folder: Path, data: Any, make: Callable[[], Any]) -> dict[str, float]:
    """Value of each protocol for one arm and seed, kept in FOLDER/scores.json."""
    from sslcourse.train.checkpoint import write_json

    module = make()  # also checks that a kept run is the one that is asked for
    key = {"data": data.to_dict(), "k": options.k, "T": options.T, "solver": options.solver}
    path = folder / "scores.json"
    kept = _read(path)
    scores = kept["scores"] if kept.get("key") == key else {}
    missing = [protocol for protocol in options.protocol if protocol not in scores]
    if missing:
        train, test = data.labelled_pair()
        results = evaluate_arm(label, module, train, test, missing, options)
        scores |= {r.detail["protocol"]: r.value for r in results}
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"key": key, "scores": scores})
    return scores


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # evaluated again


def _result(label: str, rows: list[dict[str, float]], protocol: str, n_test: int) -> Any:
    """Mean over seeds with its t interval; over the test images where there is one value only."""
    from sslcourse.evaluate.result import seed_interval, share_result

    values = [row[protocol] for row in rows]
    name = f"{protocol}, {label}"
    result = seed_interval(values, name) if len(values) > 1 else share_result(name, values[0], n_test)
    return replace(result, detail={"protocol": protocol, "representation": label, "values": values})
