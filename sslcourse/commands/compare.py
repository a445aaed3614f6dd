"""`sslcourse compare`: several methods, several seeds, one table. Every finished run is kept and never repeated."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sslcourse import catalogue
from sslcourse.commands.arguments import parse
from sslcourse.commands.evaluate import (
    HOG,
    PIXELS,
    RANDOM,
    Name,
    Settings,
    draw,
    encoder_of,
    expanded,
    pick_device,
    settings_of,
    task_of,
    untrained_of,
)
from sslcourse.errors import InputError, unknown

VERSION = 1  # of scores.json; raise it when a protocol begins to give other numbers


@dataclass(frozen=True)
class Options:
    """Pre-train and evaluate methods over several seeds, beside raw pixels, HOG and random initialisation.

    Runs live in OUT/METHOD/seedN. The same command goes on where an interrupted one stopped. The table is printed and
    kept as OUT/compare.json and OUT/compare.png. Differences are paired: over the seeds, which decide the weights that
    a run starts from, or over the test images where there is one seed.
    """

    methods: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Methods of `sslcourse list`."""
    data: str = "shapes"
    """A dataset by name, a folder or a pack, with labels and a test split."""
    preset: str | None = None
    """Preset of every method; each method's first one by default."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of the runs; the interval is over them."""
    protocol: tuple[Name, ...] = ("knn",)
    """How to evaluate; `sslcourse eval --help` says what each is."""
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
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    settings: tyro.conf.OmitArgPrefixes[Settings] = field(default_factory=Settings)


def run(argv: list[str]) -> None:
    options = parse(Options, argv, "compare")
    presets = _presets(options)

    from sslcourse.evaluate.protocols import PROTOCOLS
    from sslcourse.evaluate.result import Result, print_results, save_results

    arms = list(_arms(options, presets))
    found: dict[str, list[dict[str, Result]]] = {}
    for i, (label, folder, data, make) in enumerate(arms, 1):
        print(f"sslcourse: {folder.relative_to(options.out)} ({i} of {len(arms)})", file=sys.stderr)
        found.setdefault(label, []).append(_results(options, label, folder, data, make))

    names = [p for p in expanded(options.protocol) if any(p in row for rows in found.values() for row in rows)]
    if not names:
        raise InputError(f"no protocol has a result on {options.data} for these methods.")
    table: list[Result] = []
    shown: list[Result] = []
    for protocol in names:
        one = {label: _aggregated(label, rows, protocol) for label, rows in found.items() if protocol in rows[0]}
        shown += one.values()
        table += [*one.values(), *_differences(one, presets, PROTOCOLS[protocol].ranks)]
    title = f"{options.data}, seeds {', '.join(map(str, options.seeds))}"
    print_results(table, title)
    save_results(table, options.out / "compare.json")
    draw(shown, options.out / "compare.json", title, [label for label in found if label not in presets])


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


# label, folder, data, () -> (task, encoder)
Arm = tuple[str, Path, Any, Callable[[], tuple[Any, Any]]]


def _arms(options: Options, presets: dict[str, str]) -> Iterator[Arm]:
    """Everything to evaluate: pixels and HOG, random weights once for each kind of backbone, then the methods."""
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
    first = next(iter(configs))
    for label, folder in ((PIXELS, "pixels"), (HOG, "hog")):
        yield label, options.out / folder, configs[first][1], partial(_untrained, label, first, *configs[first])
    for (backbone, size), name in reversed(kinds.items()):
        config, data = configs[name]
        label = RANDOM if len(kinds) == 1 else f"{RANDOM} ({backbone}, {size} px)"
        for seed in options.seeds:
            make = partial(methods.build, name, configured(config, seed, None))
            folder_of_seed = options.out / f"random-{backbone}-{size}" / f"seed{seed}"
            yield label, folder_of_seed, data, partial(_network, make, data, options)
    for name, (config, data) in configs.items():
        for seed in options.seeds:
            folder_of_seed, seeded = options.out / name / f"seed{seed}", configured(config, seed, None)
            make = partial(_trained, name, seeded, data, folder_of_seed)
            yield name, folder_of_seed, data, partial(_network, make, data, options)


def _untrained(label: str, name: str, config: Any, data: Any) -> tuple[Any, Any]:
    """Pixels or HOG, as the arms of `sslcourse eval`; a method only says which sizes suit it."""
    from sslcourse import methods

    task = task_of(data, methods.build(name, config))
    return task, untrained_of(task)[label]()


def _network(make: Callable[[], Any], data: Any, options: Options) -> tuple[Any, Any]:
    module = make()
    return task_of(data, module), encoder_of(module, pick_device(options.device))


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


def _results(
    options: Options, label: str, folder: Path, data: Any, make: Callable[[], tuple[Any, Any]]
) -> dict[str, Any]:
    """The result of each protocol for one arm and seed, kept in FOLDER/scores.json."""
    from sslcourse.evaluate.protocols import evaluate_encoder
    from sslcourse.train.checkpoint import write_json

    task, encoder = make()  # also checks that a kept run is the one that is asked for
    settings = settings_of(options.settings)
    path = folder / "scores.json"
    key = {"version": VERSION, "data": data.to_dict(), "settings": settings}
    kept = _read(path, key)
    missing = [protocol for protocol in expanded(options.protocol) if protocol not in kept]
    if missing:
        new = evaluate_encoder(encoder, task, missing, representation=label, options=settings)
        kept |= {r.detail["protocol"]: r for r in new}
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"key": key, "results": [_row(r) for r in kept.values()]})
    return {protocol: kept[protocol] for protocol in expanded(options.protocol) if protocol in kept}


def _row(result: Any) -> dict[str, Any]:
    """A result and what its paired comparison needs, as plain JSON values."""
    from sslcourse.evaluate.result import to_json

    names = ("each", "draws", "jackknife")
    return to_json(result) | {"kept": {name: result.kept[name].tolist() for name in names if name in result.kept}}


def _read(path: Path, key: dict[str, Any]) -> dict[str, Any]:
    """The kept results by protocol; none where the file is of other data or settings, or cannot be read."""
    import torch

    from sslcourse.evaluate.result import from_json

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["key"] != key:
            return {}
        results = []
        for row in found["results"]:
            tensors = {name: torch.tensor(values, dtype=torch.float64) for name, values in row.pop("kept").items()}
            results.append(replace(from_json(row), kept=tensors))
        return {r.detail["protocol"]: r for r in results}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # evaluated again


def _aggregated(label: str, rows: list[dict[str, Any]], protocol: str) -> Any:
    """Mean over seeds with its t interval; the result itself, over what the protocol observes, where there is one."""
    from sslcourse.evaluate.result import seed_interval

    if len(rows) == 1:
        return replace(rows[0][protocol], name=f"{protocol}, {label}")
    result = seed_interval([row[protocol].value for row in rows], f"{protocol}, {label}")
    each_on = rows[0][protocol].counted
    return replace(result, detail={"protocol": protocol, "representation": label, "each_on": each_on, **result.detail})


def _differences(group: dict[str, Any], methods: Iterable[str], ranks: bool) -> Iterator[Any]:
    """Every method minus the baselines and the methods before it, in pairs of seeds, or of test images."""
    from sslcourse.evaluate.paired import difference
    from sslcourse.evaluate.result import seed_interval

    if not ranks:
        return  # of numbers that do not say who is better, a difference says nothing
    done: list[str] = []
    for name in [name for name in methods if name in group]:
        for other in [label for label in group if label not in methods] + done:
            a, b = group[name], group[other]
            if a.over == "seeds" and b.over != "seeds":  # pixels have no seeds: the same number for each
                b = replace(seed_interval([b.value] * a.n, b.name), detail=b.detail)
            yield difference(a, b)
        done.append(name)
