"""Reads golden cases: `NAME.json` beside `NAME.safetensors`, in any of the three formats that the groups use.

contrastive   a case has subcases; tensors are called SUB/ROLE.NAME, with the roles in, out, grad, out64, grad64,
              out_bf16, grad_bf16, ..., or SUB/state/KEY for state dicts
masked        one subcase; the JSON gives each tensor a role: input, output, gradient or state
clip-sam      one subcase; inputs and outputs are not told apart: what an adapter does not read is what it has to return
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor


class Inputs(dict[str, Tensor]):
    """The tensors an adapter may read; remembers which ones it did."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__(tensors)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return super().__getitem__(name)


@dataclass(frozen=True)
class Case:
    """One subcase: what went into the official code, under which hyperparameters, and what came out.

    Attributes:
        group: "contrastive", "masked" or "clip-sam".
        name: the case, as its file is called.
        id: the subcase; empty in the groups that have none.
        hyper: the hyperparameters of the JSON (of the subcase where it has its own).
        inputs: tensors by name, without the prefix of subcase and role.
        expected: official results by the key that the adapter has to return: "out.loss", "grad.z1", "out64.loss",
            "state_after/KEY" (contrastive), or the plain name of the tensor (masked, clip-sam).
        states: state dicts by their prefix, "state" for the official one.
        gradients: the keys of `expected` that hold gradients.
        nonfinite: the keys of `expected` where the official code gave NaN or inf by a defect.
        info: the subcase's JSON where there are subcases, else the whole JSON.
        folder: where the case lies (clip-sam).
    """

    group: str
    name: str
    id: str
    hyper: dict[str, Any]
    inputs: Inputs
    expected: dict[str, Tensor]
    states: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    gradients: frozenset[str] = frozenset()
    nonfinite: frozenset[str] = frozenset()
    info: dict[str, Any] = field(default_factory=dict)
    hint: str | dict[str, Any] = ""
    folder: Path | None = None

    def sibling(self, name: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The hyperparameters and tensors of another case of the same folder, whose weights this one uses."""
        path = None if self.folder is None else self.folder / f"{name}.json"
        if path is None or not path.with_suffix(".safetensors").is_file():
            return None
        return json.loads(path.read_text())["hyperparameters"], load_file(path.with_suffix(".safetensors"))

    @property
    def state(self) -> dict[str, Tensor]:
        """The official state dict."""
        return self.states.get("state", {})

    @property
    def label(self) -> str:
        return "/".join(part for part in (self.group, self.name, self.id) if part)


Adapter = Callable[[Case], dict[str, Any]]


class Skip(Exception):
    """Raised by an adapter that cannot run here, with the reason."""


def group_of(meta: dict[str, Any]) -> str | None:
    """Which format a JSON is written in; None if it is no golden case."""
    if "name" not in meta or "variant" not in meta:
        return None
    if "subcases" in meta:
        return "contrastive"
    return "clip-sam" if "kind" in meta else "masked"


def find(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every case below `folder`, as (path of the JSON, its content), in order of the paths."""
    for path in sorted(folder.rglob("*.json")):
        meta = json.loads(path.read_text())
        if isinstance(meta, dict) and group_of(meta):
            yield path, meta


def load(path: Path, meta: dict[str, Any]) -> list[Case]:
    """The subcases of one case."""
    file = path.with_suffix(".safetensors")
    tensors = load_file(file) if file.exists() else {}
    group = group_of(meta)
    if group == "contrastive":
        return [_contrastive(meta, sub, tensors) for sub in meta["subcases"]]
    return [_masked(meta, tensors) if group == "masked" else _clip_sam(meta, tensors, path.parent)]


def _contrastive(meta: dict[str, Any], sub: dict[str, Any], tensors: dict[str, Tensor]) -> Case:
    inputs: dict[str, Tensor] = {}
    expected: dict[str, Tensor] = {}
    states: dict[str, dict[str, Tensor]] = {}
    prefix = sub["id"] + "/"
    for full, tensor in tensors.items():
        if not full.startswith(prefix):
            continue
        key = full.removeprefix(prefix)
        head = key.split(".", 1)[0]
        if "/" in head:  # state/KEY, state_after/KEY, student/KEY, ...
            state = head.split("/", 1)[0]
            if state.endswith("after"):
                expected[key] = tensor
            else:
                states.setdefault(state, {})[key.removeprefix(state + "/")] = tensor
        elif head == "in":
            inputs[key.removeprefix("in.")] = tensor
        else:
            expected[key] = tensor
    return Case(
        group="contrastive",
        name=meta["name"],
        id=sub["id"],
        hyper=sub["hyper"],
        inputs=Inputs(inputs),
        expected=expected,
        states=states,
        gradients=frozenset(key for key in expected if key.startswith("grad")),
        nonfinite=frozenset(key.removeprefix(prefix) for key in sub.get("nonfinite", [])),
        info=sub,
        hint=meta.get("tolerance_hint", ""),
    )


def _masked(meta: dict[str, Any], tensors: dict[str, Tensor]) -> Case:
    roles = {key: meta["tensors"].get(key, {}).get("role", "") for key in tensors}
    return Case(
        group="masked",
        name=meta["name"],
        id="",
        hyper=meta["hyperparameters"],
        inputs=Inputs({key: t for key, t in tensors.items() if roles[key] == "input"}),
        expected={key: t for key, t in tensors.items() if roles[key] in ("output", "gradient")},
        states=_states({key: t for key, t in tensors.items() if roles[key] not in ("input", "output", "gradient")}),
        gradients=frozenset(key for key, role in roles.items() if role == "gradient"),
        nonfinite=frozenset(meta.get("nonfinite", [])),
        info=meta,
        hint=meta.get("tolerance", ""),
    )


def _clip_sam(meta: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> Case:
    plain = {key: t for key, t in tensors.items() if not key.startswith("state")}
    return Case(
        group="clip-sam",
        name=meta["name"],
        id="",
        hyper=meta["hyperparameters"],
        inputs=Inputs(plain),
        expected=plain,  # less what the adapter reads
        states=_states({key: t for key, t in tensors.items() if key.startswith("state")}),
        gradients=frozenset(key for key in plain if any(part.startswith("grad") for part in key.split("/"))),
        nonfinite=frozenset(meta.get("nonfinite", [])),
        info=meta,
        hint=meta.get("tolerance", ""),
        folder=folder,
    )


def _states(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Split at the first "/": state/KEY belongs to the state dict "state"."""
    states: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        state, _, name = key.partition("/")
        states.setdefault(state, {})[name] = tensor
    return states
