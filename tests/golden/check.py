"""Compares the library with the numbers of the official implementations.

    python tests/golden/check.py DIR [DIR ...] [--only 'ntxent*'] [--adapted]

Runs every case of any folder of golden cases, nested group folders included, prints each mismatch with its largest
error and at the end `N passed, M failed, K skipped`, subcases counted one by one. Exit code 0 only if none failed. A
case without an adapter has failed, unless `--adapted` leaves those out.

An adapter takes a `Case` and returns a dictionary with a value for every key of `case.expected` (more does no harm:
variants of a case may list less). A value is a tensor, or a function of the official tensor that raises AssertionError
where ours cannot be compared number by number (masks from another random stream are judged by their counts, for
instance). Keys that start with "extra." are compared with that path of the JSON. An adapter raises `Skip` for what the
machine lacks.
"""

import argparse
import math
import re
import sys
import traceback
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:0] = [
    str(HERE),
    str(HERE.parents[1]),
]  # run as a script, from anywhere, with or without the package installed

from loading import Adapter, Case, Skip, find, load  # noqa: E402

BF16 = 2.0**-8  # the relative error of one rounding to bfloat16


@dataclass(frozen=True)
class Verdict:
    """What became of a subcase."""

    case: str
    outcome: str  # "passed", "failed" or "skipped"
    messages: tuple[str, ...] = ()


def check(case: Case, adapter: Adapter) -> Verdict:
    """Run one subcase and compare everything that the official code returned."""
    try:
        ours = adapter(case)
    except Skip as reason:
        return Verdict(case.label, "skipped", (str(reason),))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        return Verdict(case.label, "failed", (f"{type(error).__name__} at {place}: {error}",))
    expected = {key: value for key, value in case.expected.items() if not _is_input(case, key)}
    messages = [_problem(case, key, ours[key], value) for key, value in expected.items() if key in ours]
    messages += [f"{key}: not returned" for key in expected if key not in ours]
    extras = {key: value for key, value in ours.items() if key.startswith("extra.")}
    messages += [_extra_problem(key, value, _at(case.info, key)) for key, value in extras.items()]
    if not expected and not extras:
        messages.append("nothing was compared")
    problems = tuple(message for message in messages if message)
    return Verdict(case.label, "failed" if problems else "passed", problems)


def _is_input(case: Case, key: str) -> bool:
    return case.group == "clip-sam" and key in case.inputs.read


def _problem(case: Case, key: str, ours: Any, official: Tensor) -> str:
    """What is wrong with one result; empty if nothing is."""
    if callable(ours):
        try:
            ours(official)
        except AssertionError as error:
            return f"{key}: {error}"
        return ""
    ours = torch.as_tensor(ours).detach()
    if ours.shape != official.shape:
        return f"{key}: shape {tuple(ours.shape)}, official {tuple(official.shape)}"
    if not official.is_floating_point():
        wrong = int((ours.to(official.dtype) != official).sum())
        return f"{key}: {wrong} of {official.numel()} values differ" if wrong else ""
    ours, official = ours.double(), official.double()
    if key in case.nonfinite:
        if not ours.isfinite().all():
            return f"{key}: not finite (neither is the official result, but ours has to be)"
        twin = case.expected.get(re.sub(r"^(out|grad)\.", r"\g<1>64.", key))
        if twin is None or twin is case.expected[key] or not twin.isfinite().all():
            return ""
        official = twin.double()
    return _distance(key, ours, official, _allowed(case, key, official))


def _distance(key: str, ours: Tensor, official: Tensor, allowed: Tensor) -> str:
    """Compare finite entries within `allowed`, infinities exactly; where the official entry is NaN ours is finite."""
    nan, inf = official.isnan(), official.isinf()
    if not ours[nan].isfinite().all() or not (ours[inf] == official[inf]).all() or ours[~nan & ~inf].isnan().any():
        return f"{key}: NaN or inf in other places than the official result"
    error = (ours - official).abs().where(~nan & ~inf, 0.0)
    excess = error - allowed
    if not error.numel() or excess.max() <= 0:
        return ""
    worst = int(excess.argmax())
    scale = official.abs().where(~nan & ~inf, 0.0).max()
    return (
        f"{key}: largest error {error.max():.3g} where entries reach {scale:.3g}; "
        f"{int((excess > 0).sum())} of {error.numel()} outside, e.g. {ours.flatten()[worst]:.6g} "
        f"against {official.flatten()[worst]:.6g}"
    )


def _allowed(case: Case, key: str, official: Tensor) -> Tensor:
    """The error that is let pass at each entry.

    float32 values: rtol 1e-4, atol 1e-5, or what the JSON hints. float64: 1e-10, or its hint, of the largest entry.
    Gradients: 1e-3 of their largest entry (1e-9 in float64). bfloat16: the official run rounds intermediates as large
    as the largest output it lists (logits), and such an error is relative in a probability and hence in a gradient.
    """
    finite = official.where(official.isfinite(), 0.0).abs()
    largest = finite.max() if finite.numel() else finite.sum()
    role = key.split(".", 1)[0]
    gradient = key in case.gradients
    if role.endswith("_bf16"):
        outputs = [v for k, v in case.expected.items() if k.startswith("out.") and v.is_floating_point() and v.numel()]
        rounding = 2 * BF16 * max(1.0, *(float(v.abs().max()) for v in outputs), 0.0)
        return torch.full_like(official, rounding * (float(largest) if gradient else 1.0))
    if role.endswith("64"):
        relative = 1e-9 if gradient else _hinted(case.hint, "float64", "rtol", 1e-10)
        return torch.full_like(official, relative * float(largest) + 1e-14)
    if gradient:
        return torch.full_like(official, 1e-3 * float(largest) + 1e-7)
    return _hinted(case.hint, "float32", "atol", 1e-5) + _hinted(case.hint, "float32", "rtol", 1e-4) * finite


def _hinted(hint: str | dict[str, Any], precision: str, name: str, default: float) -> float:
    """A tolerance out of the JSON: a dictionary, or a sentence such as "float32: rtol 1e-5, atol 1e-6; float64 ..."."""
    if isinstance(hint, dict):
        return float(hint.get(name, default))
    clause = next((c for c in hint.split(";") if c.strip().startswith(precision)), "")
    found = re.search(rf"{name} ([0-9.]+(?:e-?[0-9]+)?)", clause)
    return float(found.group(1)) if found else default


def _at(info: dict[str, Any], path: str) -> Any:
    """The entry of the JSON at a dotted path."""
    node: Any = info
    for part in path.split("."):
        node = node[int(part)] if isinstance(node, list) else node[part]
    return node


def _extra_problem(key: str, ours: Any, official: Any) -> str:
    """Compare nested JSON values: numbers to float32 accuracy, everything else exactly."""
    if isinstance(official, dict) and isinstance(ours, dict) and ours.keys() == official.keys():
        return next(filter(None, (_extra_problem(f"{key}.{k}", ours[k], v) for k, v in official.items())), "")
    if isinstance(official, list) and isinstance(ours, list | tuple) and len(ours) == len(official):
        parts = (_extra_problem(f"{key}.{i}", a, b) for i, (a, b) in enumerate(zip(ours, official, strict=True)))
        return next(filter(None, parts), "")
    numbers = isinstance(official, float) and isinstance(ours, int | float)
    equal = math.isclose(ours, official, rel_tol=1e-4, abs_tol=1e-5) if numbers else ours == official
    return "" if equal else f"{key}: {ours!r}, official {official!r}"


def run(folders: list[Path], only: str = "*", adapted: bool = False) -> list[Verdict]:
    """The verdict on every subcase below `folders` whose case name matches `only`."""
    from adapters import ADAPTERS

    verdicts = []
    for folder in folders:
        for path, meta in find(folder):
            if not fnmatch(meta["name"], only):
                continue
            cases = load(path, meta)
            adapter = ADAPTERS[cases[0].group].get(meta["name"]) if cases else None
            if adapter is None:
                missing = () if adapted else [Verdict(case.label, "failed", ("no adapter",)) for case in cases]
                verdicts.extend(missing)
            else:
                verdicts.extend(check(case, adapter) for case in cases)
    return verdicts


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare the library with official numbers.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders of golden cases")
    parser.add_argument("--only", default="*", metavar="NAME", help="names of cases, with * and ? (default: all)")
    parser.add_argument("--adapted", action="store_true", help="leave out cases that have no adapter yet")
    args = parser.parse_args(argv)
    for folder in args.folders:
        if not folder.is_dir():
            print(f"no such folder: {folder}")
            return 2
    torch.manual_seed(0)  # modules are built with random weights before the official ones are loaded
    verdicts = run(args.folders, args.only, args.adapted)
    for verdict in verdicts:
        for message in verdict.messages:
            print(f"{verdict.outcome.upper():8}{verdict.case}: {message}")
    counts = {name: sum(v.outcome == name for v in verdicts) for name in ("passed", "failed", "skipped")}
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    if not verdicts:
        print("no golden cases found")
    return 0 if verdicts and not counts["failed"] else 1


if __name__ == "__main__":
    sys.exit(main())
