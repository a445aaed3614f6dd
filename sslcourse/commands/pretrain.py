"""`sslcourse pretrain METHOD`: every setting of the method is an option, its defaults come from a preset."""

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sslcourse import catalogue
from sslcourse.commands.arguments import choose_preset, parse, with_config
from sslcourse.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from sslcourse.commands.data import Data

DATA = "data.json"  # in the run folder: which images the run saw, for `eval` and --resume


@dataclass(frozen=True)
class Options:
    """Pre-train on images; only methods that are made for labels see them. Settings, log and weights go to a folder."""

    preset: str | None = None
    """Named settings to start from; `sslcourse list` shows them, the first is the default."""
    data: str = "shapes"
    """A dataset by name, a folder of images, or a pack."""
    out: Path | None = None
    """The run folder; runs/METHOD by default."""
    resume: bool = False
    """Go on with the run in --out; it gives the same bits as one that never stopped."""
    init: Path | None = None
    """Start from the weights of another run: its folder or its model.safetensors."""
    seed: int | None = None
    """Short for --train.seed."""
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None
    """Short for --train.accelerator."""
    n_train: int | None = None
    """Train on a class-balanced sample of so many images; all by default."""
    n_test: int | None = None
    """Evaluate on a class-balanced sample of so many images; all by default."""
    data_size: int | None = None
    """Side in pixels to load images at; what suits the method's view by default."""
    knn: bool = True
    """Evaluate by kNN at the end (and every --train.eval-every epochs) where the data has labels and a test split."""


def run(argv: list[str]) -> None:
    if not argv or argv[0].startswith("-"):
        _usage(argv)
        return
    name = argv[0]
    preset = choose_preset(name, argv[1:])
    options: Any = parse(with_config(Options, preset), argv[1:], f"pretrain {name}")

    from sslcourse.commands.data import data_for

    config = configured(options.config, options.seed, options.device)
    if note := missing_teacher(name, options.preset or catalogue.row(name).presets[0], config):
        print(f"sslcourse: {note}", file=sys.stderr)
    out = options.out or Path("runs") / name
    data = data_for(config, options.data, options.data_size, options.n_train, options.n_test)
    last, n_test = train(name, config, data, out, resume=options.resume, init=options.init, knn=options.knn)
    if int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))) > 0:
        return  # one process reports
    if "knn" in last:
        from sslcourse.evaluate.result import print_results, share_result

        print_results([share_result(f"kNN of {name}", last["knn"], n_test)], f"{out} on {options.data}")
    print(f"sslcourse: the trained model is in {out}; next: {_evaluation(data, out)}", file=sys.stderr)


def _evaluation(data: "Data", out: Path) -> str:
    """The command that evaluates a run; one on clips needs a protocol for clips and data that has its labels."""
    from sslcourse.commands.data import ClipData
    from sslcourse.data.load import zip_in

    command = f"sslcourse eval {out}"
    if not isinstance(data, ClipData):
        return command
    if zip_in(Path(data.name)):
        return f"{command} --protocol video"
    return f"{command}{'' if data.name == 'shapes' else ' --data shapes'} --protocol action"


def configured(config: Any, seed: int | None, device: str | None) -> Any:
    """`config` with another seed and device, where they are given."""
    changes = {"seed": seed, "accelerator": device}
    given = {key: value for key, value in changes.items() if value is not None}
    return replace(config, train=replace(config.train, **given))


def missing_teacher(method: str, preset: str, config: Any) -> str:
    """What stands in for the teacher that a paper's preset has no file of, in a sentence; "" where nothing does."""
    cls = catalogue.method_class(method)
    stand_in, before = getattr(cls, "stand_in", ""), cls.PRESETS[preset]
    other = getattr(config, "target", "") != getattr(before, "target", "")  # a target that was asked for
    if not stand_in or preset.startswith("cpu") or config.teacher or other:
        return ""
    how = "--target teacher --teacher RUN" if hasattr(config, "target") else "--teacher RUN"
    return f"the preset {preset} lacks the paper's teacher, {stand_in}; name a trained one with {how}."


def train(
    name: str,
    config: Any,
    data: "Data",
    out: Path,
    *,
    resume: bool = False,
    init: Path | None = None,
    knn: bool = True,
) -> tuple[dict[str, Any], int]:
    """`train.fit` on `data`, which the run folder remembers; the last line of the log and the number of test images."""
    from sslcourse.train import fit
    from sslcourse.train.checkpoint import CONFIG, write_json

    if resume:
        check_same_data(out, data)
    new = not (out / CONFIG).exists()
    images = data.load("train")
    pair = data.labelled_pair_or_none(images) if knn else None
    method: Any = name if init is None else _initialised(name, config, init)
    try:
        last = fit(method, images, config, out, resume=resume, eval_data=pair)
    finally:  # after Ctrl-C, too; not where `fit` refused to start
        if new and (out / CONFIG).exists():
            write_json(out / DATA, data.to_dict())
    return last, len(pair[1]) if pair else 0


def read_data(run_dir: Path) -> dict[str, Any] | None:
    """What `train` remembered of the images, as the arguments of `Data`; None for a run that has no such file."""
    path = run_dir / DATA
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {key: found[key] for key in ("name", "size", "n_train", "n_test")}
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is not a file that sslcourse wrote; name the images with --data.") from None


def check_same_data(out: Path, data: "Data") -> None:
    """Raise an `InputError` where the run in `out` was trained on other images."""
    before, now = read_data(out) or {}, data.to_dict()
    trained_on = ("name", "size", "n_train")  # the test images do not touch the weights
    changed = [
        f"{key}: {before[key]} before, {now[key]} now" for key in trained_on if before and before[key] != now[key]
    ]
    if changed:
        raise InputError(f"The run in {out} was trained on other images ({'; '.join(changed)}).")


def _initialised(name: str, config: Any, path: Path) -> "nn.Module":
    """A method that starts from the weights of another run; only the backbone's where that is another method.

    A backbone often has a copy, a teacher or a target, that starts as its equal: all of them get the weights.
    """
    from sslcourse import methods
    from sslcourse.train import load_model
    from sslcourse.train.checkpoint import load_weights

    source: Any = load_model(path)
    module: Any = methods.build(name, config)
    if source.name == name:
        load_weights(module, source.state_dict(), path)
        return module
    twins = [part for part in module.modules() if _equal(part, module.backbone)]
    for part in twins:
        load_weights(part, source.backbone.state_dict(), path)
    return module


def _equal(a: "nn.Module", b: "nn.Module") -> bool:
    """Whether two networks are of one kind and have the same weights."""
    import torch

    if type(a) is not type(b):
        return False
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def _usage(argv: list[str]) -> None:
    """What there is to pre-train, for `pretrain --help`."""
    names = catalogue.available()
    if not argv or argv[0] not in ("-h", "--help"):
        raise InputError(f"pretrain needs the name of a method first: {', '.join(names)}.")
    print("usage: sslcourse pretrain METHOD [--preset NAME] [--data DATA] [--out RUN] [--SETTING VALUE ...]\n")
    for name in names:
        row = catalogue.METHODS[name]
        print(f"  {name:<14} {row.title} ({row.paper}); presets: {', '.join(row.presets)}")
    print("\nsslcourse pretrain METHOD --help explains every setting of a method.")
    print("SAM and its family have a training of their own: python -m sslcourse.segment.train --help.")
