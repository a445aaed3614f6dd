"""What a check holds in its hands: the student's function, bound to one exercise and run in a sandboxed worker."""

import contextlib
import socket
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor

from autograder import wire
from autograder.compare import (
    Lost,
    Outcome,
    Part,
    Record,
    Script,
    Step,
    after_difference,
    difference,
    fresh_copy,
    gradient_difference,
    run_here,
    sentence,
)
from autograder.notebook import clean
from autograder.sandbox import Zygote

_MAX_HELD = 1 << 25  # numbers that answered call-backs may keep on this side until their gradient is asked for


@dataclass
class Setup:
    """What a worker loads before the first call of an exercise."""

    cells: list[tuple[str, str]]
    offers: dict[str, Callable[..., Any]] = field(default_factory=dict)
    banned: tuple[str, ...] = ("sslcourse", "autograder", "solutions")


class Worker:
    """One forked process with the student's cells in it. Started on first use, and again after it died."""

    def __init__(self, zygote: Zygote, setup: Setup) -> None:
        self.zygote, self.setup = zygote, setup
        self.sock: socket.socket | None = None
        self.output = ""  # what the cells printed while loading
        self.broken = Outcome()  # the error of cells that do not even run
        self.deaths = 0
        self.spent = 0.0  # seconds that its calls have taken so far
        self._graphs: dict[str, tuple[list[Tensor], list[Tensor]]] = {}  # results with a gradient, inputs
        self._held = self._tokens = 0

    def start(self) -> Outcome:
        """Fork and load; the outcome holds the error if the cells do not even run."""
        if self.sock is not None or self.broken.error:
            return self.broken
        self.sock = self.zygote.fork()
        outcome, reply = self._request(
            {
                "op": "load",
                "cells": [list(cell) for cell in self.setup.cells],
                "offers": list(self.setup.offers),
                "banned": list(self.setup.banned),
            },
            {},
        )
        self.output = clean(reply.get("output", ""), 16 << 10)
        self.broken = Outcome(error=outcome.error)
        return self.broken

    def run_cell(self, name: str, source: str) -> Outcome:
        """Run one more cell in the worker (public checks)."""
        failed = self.start()
        return failed if failed.error else self._request({"op": "run", "cell": name, "source": source}, {})[0]

    def call(self, target: str, args: Any, kwargs: Any, *, grad: bool = False, **more: Any) -> Outcome:
        """Call `target` with copies of the arguments; callables among them answer from this side.

        `more` goes to the worker as it is: `method` (dotted name), `seed` (of the global generator), `keep` (return a
        handle instead of the value).
        """
        failed = self.start()
        if failed.error:
            return failed
        callbacks: dict[str, Callable[..., Any]] = {}

        def by_handle(value: Any) -> Any:
            if isinstance(value, wire.Ref | Tensor | wire.Scattered) or not callable(value):
                if isinstance(value, list | tuple):
                    return type(value)(by_handle(v) for v in value)
                if isinstance(value, dict):
                    return {k: by_handle(v) for k, v in value.items()}
                return value
            key = f"@{len(callbacks)}"
            callbacks[key] = value
            return wire.Ref(key)

        a, k = by_handle(list(fresh_copy(args))), by_handle(fresh_copy(kwargs))
        request = {"op": "call", "target": target, "args": a, "kwargs": k, "grad": grad, **more}
        return self._request(request, callbacks)[0]

    def play(self, name: str, script: Script) -> Outcome:
        """Make an object of the student's class and do with it what the script says."""
        init = []
        for argument in script.init:
            if isinstance(argument, Part):
                part = self.call("nn", argument.args, {}, method=argument.name, keep=True)
                if part.error:
                    return part
                argument = part.value
            init.append(argument)
        made = self.call(name, init, script.options, keep=True)
        if made.error or not isinstance(made.value, wire.Ref):
            return made if made.error else Outcome(error={"type": "TypeError", "message": f"{name} is not a class"})
        key, results = made.value.key, []
        if script.load is not None:
            loaded = self.state(made.value, script.load)
            if loaded.error:
                return loaded
        for step in script.steps:
            done = self.call(key, step.args, {}, grad=step.grad, method=step.method, watch=list(step.watch))
            if done.error:
                return done
            extra = [done.parameter_grads] * step.grad + [done.seen] * bool(step.watch)
            results.append([done.value, *extra] if extra else done.value)
        return Outcome(value=results)

    def state(self, target: wire.Ref, load: dict[str, Tensor] | None = None) -> Outcome:
        """The state dict of a module in the worker, after loading one when given."""
        return self._request({"op": "state", "target": target.key, "load": load}, {})[0]

    def info(self, target: wire.Ref) -> Outcome:
        """Parameters (shape, trains), submodules (type) and mode of a module in the worker."""
        return self._request({"op": "info", "target": target.key}, {})[0]

    def _request(self, request: dict[str, Any], callbacks: dict[str, Any]) -> tuple[Outcome, dict[str, Any]]:
        start, limits = time.monotonic(), self.zygote.limits
        seconds = min(limits.call_s, limits.exercise_s - self.spent)
        if seconds <= 0:
            return self._died("Timeout", f"all calls together took longer than {limits.exercise_s:g} s"), {}
        deadline = start + seconds
        try:
            assert self.sock is not None
            wire.send(self.sock, request, deadline)
            while True:
                reply = wire.receive(self.sock, deadline)
                if not isinstance(reply, dict):
                    raise wire.WireError("a reply that is not a reply")
                if "callback" not in reply and "vjp" not in reply:
                    return _outcome(reply), reply
                wire.send(self.sock, self._serve(reply, callbacks), deadline)
        except wire.Late:
            return self._died("Timeout", f"it ran longer than {seconds:.3g} s and was stopped"), {}
        except wire.Closed:
            return self._died(
                "ProcessDied", "its process ended: os._exit, sys.exit, too much memory or too much CPU time"
            ), {}
        except wire.WireError as error:
            return self._died(
                "ProtocolError", f"its process sent {error}; does your code fork or write to sockets?"
            ), {}
        finally:
            self.spent += time.monotonic() - start

    def _serve(self, ask: dict[str, Any], callbacks: dict[str, Any]) -> dict[str, Any]:
        """Answer a call-back: an offered reference, a callable argument, or the gradient of an earlier answer."""
        try:
            if "vjp" in ask:
                value, inputs = self._graphs.pop(ask["vjp"])
                self._held -= _numbers(value, inputs)
                return {"value": list(torch.autograd.grad(value, inputs, list(ask["grad"]), allow_unused=True))}
            function = callbacks.get(ask["callback"]) or self.setup.offers.get(ask["callback"])
            if function is None:
                return {"refused": f"'{str(ask['callback'])[:60]}' is not offered to this exercise"}
            args, kwargs = ask["args"], ask["kwargs"]
            if not _modest([args, kwargs]) or self._held > _MAX_HELD:
                return {"refused": "a call with inputs of this size, or so many calls, are not answered while grading"}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = function(*args, **kwargs)
            results = list(value) if isinstance(value, list | tuple) else [value]
            deep = [i for i, r in enumerate(results) if isinstance(r, Tensor) and r.requires_grad]
            if not ask.get("grad") or not deep:
                return {"value": value}
            inputs = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.requires_grad]
            self._tokens += 1
            token = str(self._tokens)
            self._graphs[token] = ([results[i] for i in deep], inputs)
            self._held += _numbers(*self._graphs[token])
            return {"value": fresh_copy(value, leaf=Tensor.detach), "token": token, "deep": deep}
        except Exception as error:
            return {"refused": f"{type(error).__name__}: {str(error)[:300]}"}

    def _died(self, name: str, message: str) -> Outcome:
        self.deaths += 1
        self.close()
        return Outcome(error={"type": name, "message": message, "line": 0})

    def close(self) -> None:
        """End the process and everything that it started."""
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.close()
            self.zygote.reap()
        self.sock, self._held = None, 0
        self._graphs.clear()


def _numbers(results: list[Tensor], inputs: list[Tensor]) -> int:
    """What a remembered call-back weighs, in numbers; its graph holds a few times as much."""
    return 1024 + sum(t.numel() for t in [*results, *inputs])


def _modest(value: Any) -> bool:
    """Whether trusted code may compute on this: a student's process must not make the grader allocate gigabytes."""
    if isinstance(value, Tensor):
        return value.numel() <= 1 << 18 and all(n <= 1 << 10 for n in value.shape)
    if isinstance(value, list | tuple):
        return all(_modest(v) for v in value)
    if isinstance(value, dict):
        return all(_modest(v) for v in value.values())
    return not isinstance(value, int) or abs(value) <= 1 << 10


def _outcome(reply: dict[str, Any]) -> Outcome:
    error = reply.get("error")
    if error is not None and not isinstance(error, dict):
        raise wire.WireError("a reply that is not a reply")
    grads, named, seen, after = (reply.get(k) for k in ("grads", "parameter_grads", "seen", "after"))
    if error is not None:
        line = error.get("line")
        error = {k: clean(error.get(k, ""), 2000 if k == "message" else 100) for k in ("type", "message", "text")}
        error["line"] = line if type(line) is int and 0 < line < 1 << 20 else 0
    return Outcome(
        value=reply.get("value"),
        error=error,
        grads=grads if isinstance(grads, list) else None,
        parameter_grads=named if isinstance(named, dict) else None,
        seen=seen if isinstance(seen, dict) else None,
        after=[t for t in after if isinstance(t, Tensor)] if isinstance(after, list) else None,
        changed=reply.get("changed") is True,
        drew=reply.get("drew") is True,
    )


class Student:
    """The student's answer to one exercise, as a check sees it."""

    def __init__(self, worker: Worker, exercise: str, reference: Callable[..., Any]) -> None:
        self.worker, self.exercise, self.reference = worker, exercise, reference
        self.records: list[Record] = []
        self.check = ""

    def outcome(
        self, *args: Any, grad: bool = False, after: bool = False, seed: int | None = None, **kwargs: Any
    ) -> Outcome:
        """Call the student's function; an exception in it loses the property."""
        if args and isinstance(args[0], Script):
            outcome = self.worker.play(self.exercise, args[0])
        else:
            outcome = self.worker.call(self.exercise, args, kwargs, grad=grad, after=after, seed=seed)
        failed = outcome.error is not None
        self.records.append(Record(self.check, args, kwargs, grad, outcome, failed, after=after))
        if outcome.error is not None:
            raise Lost(sentence(outcome.error))
        return outcome

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.outcome(*args, **kwargs).value

    def same(self, *args: Any, grad: bool = False, after: bool = False, **kwargs: Any) -> Any:
        """The student's function and the reference agree on these arguments: type, shape, dtype, value, gradient.

        With `after` also in what the tensors among the arguments hold afterwards, for a function that works in place.
        """
        want = run_here(self.reference, args, kwargs, grad)
        if want.error is not None:
            raise ValueError(f"the reference of {self.exercise} fails on this input: {want.error['message']}")
        got = self.outcome(*args, grad=grad, after=after, **kwargs)
        wrong = difference(got.value, want.value)
        if wrong is None and after:
            wrong = after_difference(got.after, want.after)
        if wrong is None and grad:
            wrong = gradient_difference(got.grads or [], want.grads or [])
        if wrong is not None:
            self.wrong(wrong)
        return got.value

    def same_object(
        self, *init: Any, load: dict[str, Tensor] | None = None, steps: Sequence[Step] = (), **options: Any
    ) -> None:
        """An object of the student's class does the same, step by step, as one of the reference class.

        Args:
            init, options: arguments of the constructor, by place and by name; a `Part` stands for a module.
            load: weights for both, by the names that the exercise prescribes.
            steps: what is done with the object.
        """
        self.same(Script(init, load, tuple(steps), options))

    def pure(self, *args: Any, **kwargs: Any) -> None:
        """The call leaves its inputs and the global random state as they were."""
        got = self.outcome(*args, **kwargs)
        self.records[-1].side_effects = True
        if got.changed:
            self.wrong("it changed its input in place: write x = x / y, not x /= y.")
        if got.drew:
            self.wrong("it drew from the global random generator: use what you are given.")

    def wrong(self, message: str) -> NoReturn:
        """Lose the property because of the last call."""
        if self.records:
            self.records[-1].failed = True
        raise Lost(message)
