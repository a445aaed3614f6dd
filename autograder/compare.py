"""Outcomes of calls, what distinguishes two of them, and which known mistake explains one.

No sentence made here contains an input, an expected value or the size of an error: those would give a hidden test away.
"""

import copy
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from autograder import wire
from autograder.notebook import clean
from autograder.worker import describe, gradients, leaves, same_tensor, watched

_NUMBER = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?\d+[eE][-+]?\d+|\d{5,}")


class Lost(Exception):
    """A property that does not hold; the message is the student's feedback."""


class Fresh:
    """An argument that is made anew for every run: a transform with a state, a module. Crosses the wire by handle."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


@dataclass(frozen=True)
class Step:
    """One thing done with an object: call a method ("" calls the object itself), or read its "state_dict"."""

    method: str = ""
    args: tuple[Any, ...] = ()
    grad: bool = False  # also the gradient of every parameter, of the result times a fixed direction
    watch: tuple[str, ...] = ()  # also what the submodules of these names put out


@dataclass(frozen=True)
class Part:
    """A constructor's argument that is a module of torch.nn: each side builds its own, and `load` sets its weights."""

    name: str
    args: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Script:
    """What a check does with an object of the student's class; its value is the list of the steps' results."""

    init: tuple[Any, ...] = ()
    load: dict[str, Tensor] | None = None  # weights that the checks choose
    steps: tuple[Step, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)  # arguments of the constructor, by name


@dataclass
class Outcome:
    """What one call did: its value or its error; on request gradients and what tensors it was given now hold."""

    value: Any = None
    error: dict[str, Any] | None = None
    grads: list[Tensor | None] | None = None
    parameter_grads: dict[str, Tensor | None] | None = None
    seen: dict[str, Any] | None = None
    after: list[Tensor] | None = None
    changed: bool = False
    drew: bool = False


@dataclass
class Record:
    """One judged call, kept so that known-wrong answers can be tried on the same hidden input."""

    check: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    grad: bool
    outcome: Outcome
    failed: bool
    side_effects: bool = False
    after: bool = False


def fresh_copy(value: Any, *, leaf: Callable[[Tensor], Any] = lambda t: t) -> Any:
    """A deep copy for one run: tensors cloned with their gradient flag, `Fresh` arguments made."""
    if isinstance(value, wire.Scattered):
        return wire.Scattered(value.tensor.detach().clone().requires_grad_(value.tensor.requires_grad))
    if isinstance(value, Tensor):
        return leaf(value.detach().clone().requires_grad_(value.requires_grad))
    if isinstance(value, Fresh):
        return value.make()
    if isinstance(value, torch.Generator):
        return torch.Generator().manual_seed(value.initial_seed())
    if isinstance(value, list | tuple):
        return type(value)(fresh_copy(v, leaf=leaf) for v in value)
    if isinstance(value, dict):
        return {k: fresh_copy(v, leaf=leaf) for k, v in value.items()}
    return copy.copy(value)


def run_here(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], grad: bool) -> Outcome:
    """One call of trusted code (the reference, a known-wrong answer) on its own copy of the arguments."""
    if args and isinstance(args[0], Script):
        return _play_here(function, args[0])
    a, k = _unscatter(fresh_copy(args)), _unscatter(fresh_copy(kwargs))
    given = [t for t in leaves([list(a), k]) if isinstance(t, Tensor)]
    before = [t.detach().clone() for t in given]
    state = torch.get_rng_state()
    outcome = Outcome()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome.value = function(*a, **k)
        outcome.changed = any(not same_tensor(t, b) for t, b in zip(given, before, strict=True))
        outcome.after = given
        if grad:
            outcome.grads = gradients(outcome.value, [t for t in given if t.requires_grad])
    except Exception as error:
        outcome.error = describe(error)
    outcome.drew = not torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(state)
    return outcome


def _play_here(make: Callable[..., Any], script: Script) -> Outcome:
    outcome = Outcome(value=[])
    state = torch.get_rng_state()
    try:
        init = [getattr(nn, a.name)(*a.args) if isinstance(a, Part) else a for a in script.init]
        thing = make(*init, **script.options)
        if script.load is not None:
            thing.load_state_dict(fresh_copy(script.load))
        for step in script.steps:
            target = getattr(thing, step.method) if step.method else thing
            seen: dict[str, Any] = {}
            with watched(thing, step.watch, seen):
                value = target(*_unscatter(fresh_copy(step.args)))
            extra: list[Any] = []
            if step.grad:
                named = {k: p for k, p in thing.named_parameters() if p.requires_grad}
                extra.append(dict(zip(named, gradients(value, list(named.values())), strict=True)))
            extra += [seen] * bool(step.watch)
            outcome.value.append(fresh_copy([value, *extra] if extra else value))
    except Exception as error:
        outcome.error = describe(error)
    torch.set_rng_state(state)
    return outcome


def _unscatter(value: Any) -> Any:
    if isinstance(value, wire.Scattered):
        t = value.tensor
        return torch.stack([t.detach(), t.detach()], dim=-1)[..., 0].requires_grad_(t.requires_grad)
    if isinstance(value, list | tuple):
        return type(value)(_unscatter(v) for v in value)
    if isinstance(value, dict):
        return {k: _unscatter(v) for k, v in value.items()}
    return value


# ---------------------------------------------------------------------------------------------------- sentences


def difference(got: Any, want: Any, what: str = "it returned") -> str | None:
    """The first thing that distinguishes `got` from `want`, as a sentence without values; None when they agree."""
    if isinstance(want, Tensor):
        return _tensor_difference(got, want, what)
    if isinstance(want, tuple | list):
        if not isinstance(got, tuple | list) or len(got) != len(want):
            return f"{what} {kind(got)}; expected {kind(want)}."
        names = ("first", "second", "third", "fourth")
        for i, (g, w) in enumerate(zip(got, want, strict=True)):
            place = names[i] if i < 4 else f"{i + 1}th"
            if sentence := difference(g, w, f"as its {place} result it returned"):
                return sentence
        return None
    if isinstance(want, dict):
        if not isinstance(got, dict) or got.keys() != want.keys():
            return f"{what} {kind(got)}; expected a dict with the keys {sorted(map(str, want))}."
        return next((s for k in want if (s := difference(got[k], want[k], f"under {k!r} it returned"))), None)
    if isinstance(want, float):
        if isinstance(got, bool) or not isinstance(got, float | int):
            return f"{what} {kind(got)}; expected a float."
        close = math.isclose(got, want, rel_tol=1e-4, abs_tol=1e-6) or (math.isnan(got) and math.isnan(want))
        return None if close else f"{what} a float, but not the right one."
    if type(got) is not type(want):
        return f"{what} {kind(got)}; expected {kind(want)}."
    return None if got == want else f"{what} {kind(got)}, but not the right one."


def _tensor_difference(got: Any, want: Tensor, what: str) -> str | None:
    if got is None:
        return f"{what} None: does every path through your function end in `return`?"
    if not isinstance(got, Tensor):
        return f"{what} {kind(got)}; expected a torch.Tensor of shape {tuple(want.shape)}."
    if got.shape != want.shape:
        return f"{what} shape {tuple(got.shape)}; expected {tuple(want.shape)}."
    if got.dtype != want.dtype:
        why = ", as the input asks for" if want.is_floating_point() else ""
        return f"{what} {got.dtype}; expected {want.dtype}{why}."
    if not got.dtype.is_floating_point:
        return None if torch.equal(got, want) else f"{what} a tensor of the right shape with wrong entries."
    if bool(want.isfinite().all()) and not bool(got.isfinite().all()):
        return f"{what} {'NaN' if bool(got.isnan().any()) else 'inf'} where the answer is finite."
    loose = {torch.float64: (1e-7, 1e-9), torch.float32: (2e-4, 2e-5)}.get(got.dtype, (2e-2, 2e-2))
    close = torch.allclose(got.detach(), want.detach(), rtol=loose[0], atol=loose[1], equal_nan=True)
    return None if close else f"{what} a tensor of the right shape and dtype with wrong values."


def kind(value: Any) -> str:
    """What a value is, without what it holds."""
    if value is None:
        return "None"
    if isinstance(value, wire.Foreign):
        return f"a {clean(value.type_name, 200)}"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def sentence(error: dict[str, Any]) -> str:
    """A student's exception as feedback: type, message, and the line of their cell; numbers that could be inputs go."""
    name, line = error.get("type", "Error"), error.get("line", 0)
    message = _NUMBER.sub("#", " ".join(str(error.get("message", "")).split()))[:300]
    where = f" (line {line} of your cell: {str(error['text'])[:80]})" if line and error.get("text") else ""
    if name == "NotImplementedError" and (not where or "raise NotImplementedError" in where):  # torch raises it, too
        return "this function still raises NotImplementedError: it is not written yet."
    if name == "NameError":
        message += ". The grader runs this cell alone: put imports and helper functions into it"
    return f"your code stopped with {name}: {message}{where}."


def after_difference(got: list[Tensor] | None, want: list[Tensor] | None) -> str | None:
    """The first tensor among the arguments that holds something else after the call than it should."""
    if len(got or []) != len(want or []):
        return "what it was given is no longer there after the call."
    for i, (g, w) in enumerate(zip(got or [], want or [], strict=True)):
        if sentence := difference(g, w, f"after the call, tensor {i + 1} of its arguments is"):
            return sentence
        if g.requires_grad and not w.requires_grad:
            return "it writes numbers that carry a gradient into a tensor that has none: detach them, or use no_grad."
    return None


def gradient_difference(got: list[Tensor | None], want: list[Tensor | None]) -> str | None:
    if len(got) != len(want):
        return "the value is right, but its gradient is missing."
    for g, w in zip(got, want, strict=True):
        if w is not None and g is None:
            return "the value is right, but no gradient reaches an input: is there a .detach(), .item() or no_grad?"
        if w is None:
            continue
        if difference(g, w) is not None:
            finite = isinstance(g, Tensor) and bool(g.isfinite().all())
            return f"the value is right, but its gradient is {'wrong' if finite else 'not finite'}."
    return None


# ---------------------------------------------------------------------------------------------------- diagnosis


def reproduces(record: Record, function: Callable[..., Any]) -> float:
    """How well a known-wrong answer explains one call: 1 the same result, 0.1 the same kind of error, 0 not."""
    theirs = record.outcome
    ours = run_here(function, record.args, record.kwargs, record.grad)
    if theirs.error or ours.error:
        same = theirs.error and ours.error and theirs.error.get("type") == ours.error["type"]
        return 0.1 if same else 0.0
    if record.side_effects and theirs.drew and ours.drew:  # both rolled other dice, so their values cannot agree
        return 1.0
    if difference(theirs.value, ours.value) is not None:
        return 0.0
    if record.grad and gradient_difference(theirs.grads or [], ours.grads or []) is not None:
        return 0.0
    if record.after and after_difference(theirs.after, ours.after) is not None:
        return 0.0
    if record.side_effects and (theirs.changed, theirs.drew) != (ours.changed, ours.drew):
        return 0.0
    return 1.0


def diagnose(records: list[Record], wrong: dict[str, Callable[..., Any]]) -> dict[str, str]:
    """For every failed check the known-wrong answer that behaves like the student's, if there is one.

    A wrong answer counts only when it reproduces a failed call; among those, the one that explains most calls of the
    exercise, the right ones included, comes first.
    """
    failed = [r for r in records if r.failed]
    if not failed:
        return {}
    scores: dict[str, list[float]] = {}
    for name, function in wrong.items():
        if any(reproduces(r, function) == 1.0 for r in failed[:8]):
            scores[name] = [reproduces(r, function) for r in records]
    ranked = sorted(scores, key=lambda n: -sum(scores[n]))
    found: dict[str, str] = {}
    for name in ranked:
        for record, score in zip(records, scores[name], strict=True):
            if record.failed and score > 0:
                found.setdefault(record.check, name)
    return found
