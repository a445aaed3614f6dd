"""The process that runs a student's code. It holds no checks, no reference and no verdict.

A zygote imports torch once, locks itself up, then forks one fresh process an exercise. Parent and child speak over a
socket (`autograder.wire`): load these cells, call that function with these tensors, give me its value, its gradient
and what it did to its arguments. Only this file, `wire.py`, `warm.py`
and `confine.py` exist inside the sandbox.
"""

import builtins
import contextlib
import functools
import io
import json
import linecache
import os
import random
import shutil
import signal
import socket
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from autograder import confine, warm, wire

OUTPUT_LIMIT = 16 << 10
CELL = "<cell "  # the file name of a student's cell in a traceback: "<cell nt_xent>"


class Capped(io.TextIOBase):
    """Standard output of the student: the first 16 KB are kept, the rest is counted and forgotten."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.room = OUTPUT_LIMIT
        self.dropped = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        kept = text[: self.room]
        if kept:
            self.parts.append(kept)
        self.room -= len(kept)
        self.dropped += len(text) - len(kept)
        return len(text)

    def take(self) -> str:
        """What was written since the last call."""
        text = "".join(self.parts) + (f"\n... {self.dropped:,} more characters" if self.dropped else "")
        self.__init__()  # type: ignore[misc]
        return text


class ImportGuard:
    """Refuses the libraries that hold the answers."""

    def __init__(self, banned: list[str]) -> None:
        self.banned = set(banned)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] in self.banned:
            raise ImportError(f"'{name}' is not available while grading: the exercise asks for your own code.")


@functools.cache
def loaded() -> dict[str, list[str]]:
    """The modules there are, by their top-level name. The zygote looks, once: a fork would copy every page it sees."""
    found: dict[str, list[str]] = {}
    for name in sys.modules:
        found.setdefault(name.split(".")[0], []).append(name)
    return found


class NoShell:
    """`get_ipython()` of a process without IPython: whatever a cell asks of it does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


class Remote:
    """A function that lives on the trusted side; calling it crosses the wire, gradients included."""

    def __init__(self, server: "Server", key: str) -> None:
        self._server, self._key = server, key
        self.__name__ = key

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        inputs = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.requires_grad]
        if inputs and torch.is_grad_enabled():
            return _RemoteGrad.apply(self, args, kwargs, *inputs)
        return self._server.ask({"callback": self._key, "args": list(args), "kwargs": kwargs})["value"]


class _RemoteGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, remote: Remote, args: tuple[Any, ...], kwargs: dict[str, Any], *inputs: Tensor) -> Any:
        reply = remote._server.ask({"callback": remote._key, "args": list(args), "kwargs": kwargs, "grad": True})
        ctx.server, ctx.token, ctx.count = remote._server, reply.get("token"), len(inputs)
        value, ctx.deep = reply["value"], reply.get("deep", [])
        several = isinstance(value, list | tuple)
        results = list(value) if several else [value]
        ctx.mark_non_differentiable(*[r for i, r in enumerate(results) if isinstance(r, Tensor) and i not in ctx.deep])
        return tuple(results) if several else value

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        wanted = [grads[i].contiguous() for i in ctx.deep]
        reply = ctx.server.ask({"vjp": ctx.token, "grad": wanted})
        return None, None, None, *reply["value"][: ctx.count]


class Refused(Exception):
    """The trusted side refused a call; its sentence is shown as it is."""


def cotangent(value: Tensor) -> Tensor:
    """The fixed direction in which both sides differentiate a result that is not a scalar."""
    if value.ndim == 0:
        return torch.ones_like(value)
    ramp = torch.arange(1, value.numel() + 1, dtype=torch.float64)
    return torch.cos(ramp).to(value.dtype).reshape(value.shape)


def gradients(value: Any, inputs: list[Tensor]) -> list[Tensor | None]:
    """d(sum of value * cotangent) / d(each input); None where the value does not depend on it."""
    outputs = [v for v in leaves(value) if isinstance(v, Tensor) and v.requires_grad]
    if not outputs or not inputs:
        return [None] * len(inputs)
    return list(torch.autograd.grad(outputs, inputs, [cotangent(v) for v in outputs], allow_unused=True))


def leaves(value: Any, depth: int = 0) -> list[Any]:
    if depth < 4 and isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item, depth + 1)]
    if depth < 4 and isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item, depth + 1)]
    return [value]


def describe(error: BaseException) -> dict[str, Any]:
    """The error as plain data: its type, message, and the last line of the student's cells that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if f.filename.startswith(CELL)]
    if isinstance(error, SyntaxError) and (error.filename or "").startswith(CELL):
        cell, line, text = error.filename, error.lineno, error.text
    elif mine:
        cell, line, text = mine[-1].filename, mine[-1].lineno, mine[-1].line
    else:
        cell, line, text = "", 0, ""
    try:
        message = str(error)[:2000]
    except Exception:
        message = ""
    return {
        "type": type(error).__name__[:100],
        "message": message,
        "cell": (cell or "").removeprefix(CELL).rstrip(">"),
        "line": int(line or 0),
        "text": str(text or "").strip()[:200],
    }


class Server:
    """Answers one trusted client until it hangs up."""

    def __init__(self, sock: socket.socket, device: str = "cpu") -> None:
        self.sock, self.pid, self.device = sock, os.getpid(), device
        self.module = types.ModuleType("student")
        self.objects: dict[str, Any] = {}
        self.output = Capped()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """A call back to the trusted side, in the middle of serving one of its calls."""
        wire.send(self.sock, request)
        reply = wire.receive(self.sock)
        if "refused" in reply:
            raise Refused(reply["refused"])
        reply["value"] = self.localise(reply.get("value"))
        return reply

    def localise(self, value: Any) -> Any:
        """Replace references by what they stand for: objects of this process, or functions of the other side."""
        if isinstance(value, wire.Ref):
            return self.objects[value.key] if value.key in self.objects else Remote(self, value.key)
        if isinstance(value, Tensor) and self.device != "cpu":
            return value.detach().to(self.device).requires_grad_(value.requires_grad)
        if isinstance(value, list):
            return [self.localise(v) for v in value]
        if isinstance(value, tuple):
            return tuple(self.localise(v) for v in value)
        if isinstance(value, dict):
            return {k: self.localise(v) for k, v in value.items()}
        return value

    def serve(self) -> None:
        while True:
            try:
                request = wire.receive(self.sock)
            except wire.WireError:
                return
            reply = self.answer(request)
            if os.getpid() != self.pid:  # the student's code forked, and this is the copy
                os._exit(0)
            reply["output"] = self.output.take()
            reply["threads"] = threading.active_count()
            try:
                wire.send(self.sock, reply)
            except wire.Closed:
                return
            except wire.WireError as error:
                wire.send(self.sock, {"error": {"type": "TooLarge", "message": f"it returned {error}"}, "output": ""})

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            with contextlib.redirect_stdout(self.output), contextlib.redirect_stderr(self.output):
                return getattr(self, f"do_{request['op']}")(request)
        except BaseException as error:
            return {"error": describe(error)}

    def do_load(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run cells in one fresh module; `offers` are names that stand for functions of the trusted side."""
        sys.meta_path.insert(0, ImportGuard(request["banned"]))
        for name in [m for top in (*request["banned"], "__main__") for m in loaded().get(top, ())]:
            del sys.modules[name]  # what is loaded already would be imported past the guard
        sys.modules["student"] = self.module
        builtins.get_ipython = NoShell  # type: ignore[attr-defined]
        builtins.display = print  # type: ignore[attr-defined]
        names = self.module.__dict__
        for name in request["offers"]:
            names[name] = Remote(self, name)
        for cell, source in request["cells"]:
            filename = f"{CELL}{cell}>"
            linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
            exec(compile(source, filename, "exec", dont_inherit=True), names)
        return {"value": [k for k, v in names.items() if callable(v) and not isinstance(v, Remote)]}

    def do_run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run one more cell in the same module: a public check, whose assertion message is for the student."""
        exec(compile(request["source"], f"<check {request['cell']}>", "exec", dont_inherit=True), self.module.__dict__)
        return {"value": None}

    def do_call(self, request: dict[str, Any]) -> dict[str, Any]:
        """Call a function, class, object or method; say what came out and what happened on the way."""
        target = self.objects.get(request["target"], self.module.__dict__.get(request["target"]))
        if target is None:
            raise NameError(f"name '{request['target']}' is not defined")
        owner = target
        for part in filter(None, request.get("method", "").split(".")):
            target = getattr(target, part)
        args, kwargs = self.localise(request["args"]), self.localise(request["kwargs"])
        given = [a for a in leaves([args, kwargs]) if isinstance(a, Tensor)]
        before = [a.detach().clone() for a in given]
        if request.get("seed") is not None:
            torch.manual_seed(request["seed"])
            random.seed(request["seed"])
        state = torch.get_rng_state()
        seen: dict[str, Any] = {}
        with watched(owner, request.get("watch") or (), seen):
            value = target(*args, **kwargs)
        reply: dict[str, Any] = {
            "drew": not torch.equal(torch.get_rng_state(), state),
            "changed": any(not same_tensor(a, b) for a, b in zip(given, before, strict=True)),
        }
        if request.get("grad"):
            reply["grads"] = gradients(value, [a for a in given if a.requires_grad])
            if isinstance(owner, nn.Module):
                named = dict(owner.named_parameters())
                grads = gradients(value, [p for p in named.values() if p.requires_grad])
                trained = [k for k, p in named.items() if p.requires_grad]
                reply["parameter_grads"] = dict(zip(trained, grads, strict=True))
        if request.get("after"):
            reply["after"] = given
        reply["seen"] = seen
        reply["value"] = self.keep(value) if request.get("keep") else value
        return reply

    def keep(self, value: Any) -> wire.Ref:
        key = f"#{len(self.objects)}"
        self.objects[key] = value
        return wire.Ref(key)

    def do_state(self, request: dict[str, Any]) -> dict[str, Any]:
        """The state dict of a module, after loading one when given."""
        module = self.objects[request["target"]]
        if request.get("load") is not None:
            module.load_state_dict(request["load"])
        return {"value": {k: v.detach() for k, v in module.state_dict().items()}}

    def do_info(self, request: dict[str, Any]) -> dict[str, Any]:
        """What a module is made of: its parameters with shape and whether they train, its submodules with type."""
        module = self.objects[request["target"]]
        parameters = {k: [list(p.shape), p.requires_grad] for k, p in module.named_parameters()}
        children = {k: type(m).__name__ for k, m in module.named_modules()}
        return {"value": {"parameters": parameters, "modules": children, "training": module.training}}


@contextlib.contextmanager
def watched(module: Any, names: Iterable[str], seen: dict[str, Any]) -> Iterator[None]:
    """Keep in `seen` what the submodules of these names put out while the block runs."""

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: seen.__setitem__(name, output)

    hooks = [module.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def same_tensor(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a.detach(), b, rtol=0, atol=0, equal_nan=True)


def _child(sock: socket.socket, options: dict[str, Any]) -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    gpu = options["device"] != "cpu"
    names = ("data_mb", "cpu_s", "processes", "file_mb")
    confine.limits(**{name: options[name] for name in names}, shared=gpu)
    if options["filter"] and not confine.system_calls(read_only=options["read_only"]):
        return  # it held for the probe, so this cannot be; no student's code runs without it
    if options["files_of_python"]:
        confine.python_files([*options["readable"], os.devnull])
    Server(sock, options["device"]).serve()


def _lock(options: dict[str, Any], held: list[str]) -> dict[str, Any]:
    uid = confine.drop_root(options["uid"])
    abi = confine.landlock(options["readable"], options["writable"]) if options["landlock"] else 0
    read_only = options["read_only"] = options["files_of_python"] and options["device"] == "cpu"
    confine.filter_program(read_only)  # made here once, for all forks
    probe = os.fork()
    if probe == 0:
        os._exit(0 if options["filter"] and confine.system_calls(read_only=read_only) else 1)
    filtered = os.waitstatus_to_exitcode(os.waitpid(probe, 0)[1]) == 0
    options["filter"] = filtered
    return {"namespaces": held, "unprivileged": uid, "landlock": abi, "seccomp": filtered}


def _sweep(folder: str) -> None:
    """Empty the scratch folder, so that no exercise finds what another one left."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


def main() -> None:
    """The zygote: ``python -c ... <options as JSON>``; the control socket is the inherited descriptor `fd`."""
    options = json.loads(sys.argv[1])
    confine.die_with_parent()
    held = confine.namespaces(options["scratch"]) if options["namespaces"] else options["held"]
    control = socket.socket(fileno=options["fd"])
    warm.warm_up(options["trains"], options["many"])
    loaded()
    confine.forget_elsewhere(options["paths"])
    confine.seccomp()
    os.chdir(options["scratch"])
    layers = _lock(options, held)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    wire.send(control, {"ready": layers, "python": sys.version.split()[0], "torch": torch.__version__})
    while True:
        command, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not command:
            return
        if command == b"F" and options["spawn"]:  # this process is the worker, and there is no other
            wire.send(control, {"pid": os.getpid()})
            control.close()
            return _child(socket.socket(fileno=descriptors[0]), options)
        if command == b"F":
            pid = os.fork()
            if pid == 0:
                control.close()
                try:
                    _child(socket.socket(fileno=descriptors[0]), options)
                finally:
                    os._exit(0)
            os.close(descriptors[0])
            wire.send(control, {"pid": pid})
        elif command == b"K":
            confine.kill_descendants()
            _sweep(options["scratch"])
            wire.send(control, {"killed": True})
