"""Starts the zygote inside the strongest sandbox that this machine offers, and says which one it is.

Levels, best first: `bubblewrap` (a file system of its own, read-only; no network; own process table), `landlock`
(namespaces where allowed, files outside Python hidden by the kernel, no network, another user when root), `limits`
(bounded memory, CPU time, processes; another user when root). All levels add a system-call filter where libseccomp is.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import site
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslcourse.errors import InputError, unknown

# `autograder.wire` needs torch and is imported where it is used: the zygote starts while this process imports torch.

LEVELS = ("bubblewrap", "landlock", "limits")
_INSIDE = ("wire.py", "confine.py", "warm.py", "worker.py")
_SYSTEM = (
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/alternatives",
)
_DEVICES = ("/proc", "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random", "/sys/devices/system/cpu")
_START_S = 120.0


class SandboxError(Exception):
    """A sandbox level that this machine does not offer; the sentence says why."""


@dataclass(frozen=True)
class Limits:
    """What one exercise may use."""

    call_s: float = 10.0  # wall clock of one call
    exercise_s: float = 40.0  # wall clock of all calls of one exercise
    cpu_s: int = 60  # CPU seconds of one exercise
    data_mb: int = 2048  # memory beyond what torch itself takes
    file_mb: int = 16  # one file in the scratch folder; none can be written at the level `limits`
    processes: int = 256  # of this user; forking is forbidden outright where the system-call filter works


@dataclass
class Protection:
    """What really protects this run; printed and recorded with every grade."""

    level: str
    layers: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"namespaces {'+'.join(self.layers.get('namespaces') or []) or 'none'}"]
        abi = self.layers.get("landlock")
        parts.append(f"landlock {'v' + str(abi) if abi else 'none'}")
        parts.append(f"system-call filter {'on' if self.layers.get('seccomp') else 'off'}")
        parts.append(f"runs as {'an unprivileged user' if self.layers.get('unprivileged') else 'root'}")
        return f"{self.level} ({', '.join(parts)})"

    @property
    def recorded(self) -> str:
        """The same, and why it is nothing better."""
        return "".join([str(self), *(f"; not {reason}" for reason in self.missing)])


class Zygote:
    """A warm process, locked up, that forks a fresh worker for each exercise. Use as a context manager.

    Args:
        level: one of `LEVELS`, or "best".
        limits: what one exercise may use.
        at_least: the weakest level that will do.
        trains: the lab's answers make optimisers; have one ready.
        many: hundreds of exercises will be run: start a little later, fork faster.
        spawn: start a whole new process for each exercise instead of a fork; seconds each, but CUDA needs it.
        device: where the student's code gets its tensors.

    Raises:
        InputError: this machine has no such sandbox, or no such device.
    """

    def __init__(
        self,
        level: str = "best",
        limits: Limits | None = None,
        *,
        at_least: str = "limits",
        trains: bool = False,
        many: bool = False,
        spawn: bool = False,
        device: str = "cpu",
    ) -> None:
        if level != "best" and level not in LEVELS:
            raise unknown("sandbox level", level, ["best", *LEVELS])
        if at_least not in LEVELS:
            raise unknown("sandbox level", at_least, LEVELS)
        if level != "best" and LEVELS.index(level) > LEVELS.index(at_least):
            raise InputError(
                f"this run needs sandbox level '{at_least}' or better, and '{level}' was asked for: "
                f"leave --sandbox out, or say --at-least {level}."
            )
        if device != "cpu" and not _has_gpu():
            raise InputError(f"this lab is graded on '{device}', and this machine has no GPU that PyTorch can use.")
        self.limits, self.trains, self.many, self.device = limits or Limits(), trains, many, device
        self.spawn, self.used = spawn or device != "cpu", False
        self.home = Path(tempfile.mkdtemp(prefix="sslcourse-grader-"))
        self.process: subprocess.Popen[bytes] | None = None
        self.control: socket.socket | None = None
        self.spare: socket.socket | None = None  # to a worker that was forked ahead
        self.owed = 0  # replies of the zygote that have not been read
        wanted = LEVELS if level == "best" else (level,)
        missing: list[str] = []
        for name in wanted:
            try:
                self._start(name)
            except SandboxError as error:
                missing.append(f"{name}: {error}")
                self._stop()
                continue
            self.protection.missing = missing
            if LEVELS.index(self.protection.level) > LEVELS.index(at_least):
                break
            return
        self.close()
        wanted_level = at_least if level == "best" else level
        raise InputError(f"this machine offers no sandbox at level '{wanted_level}': {'; '.join(missing)}")

    def _start(self, level: str) -> None:
        self.level, self.used = level, False
        self.home.chmod(0o755)
        code, scratch = self.home / "code" / "autograder", self.home / "scratch"
        code.mkdir(parents=True, exist_ok=True)
        (code / "__init__.py").touch()
        for name in _INSIDE:
            shutil.copy(Path(__file__).with_name(name), code / name)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        scratch.chmod(0o777)
        ours, theirs = socket.socketpair()
        options = self._options(level, theirs.fileno())
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "" if self.device == "cpu" else os.environ.get("CUDA_VISIBLE_DEVICES", "0"),
            "PYTHONHASHSEED": "0",
            "LC_ALL": "C.UTF-8",
        }
        boot = "import sys; sys.path.insert(0, sys.argv.pop(1)); from autograder.worker import main; main()"
        python = [sys.executable, "-P", "-s", "-B", "-c", boot, str(code.parent), json.dumps(options)]
        log = open(self.home / "start.log", "wb")  # noqa: SIM115 - handed to the child
        with contextlib.closing(theirs), log:
            self.process = subprocess.Popen(
                [*(self._bubblewrap(environment) if level == "bubblewrap" else []), *python],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(options["fd"],),
                start_new_session=True,  # Ctrl-C is for the grader, which then ends this process
            )
        self.control = ours
        from autograder import wire

        try:
            ready = wire.receive(ours, time.monotonic() + _START_S)["ready"]
        except (wire.WireError, KeyError, TypeError):
            self.process.kill()
            self.process.wait()
            tail = (self.home / "start.log").read_text(errors="replace").strip().splitlines()[-1:]
            reason = (tail[0] if tail else "the worker did not start")[:300]
            if reason.startswith("bwrap: Unknown option"):
                raise SandboxError(f"bubblewrap is too old ({reason}); version 0.6 or newer is needed") from None
            raise SandboxError(reason + (_advice() if reason.startswith("bwrap") else "")) from None
        self.protection = Protection(level, ready)
        if level == "landlock" and not (ready["landlock"] and (ready["landlock"] >= 4 or "net" in ready["namespaces"])):
            raise SandboxError("the kernel has no Landlock (Linux 5.13 or newer) or the network cannot be closed")

    def _options(self, level: str, fd: int) -> dict[str, Any]:
        root = os.getuid() == 0
        return {
            "fd": fd,
            "scratch": str(self.home / "scratch"),
            "namespaces": level == "landlock",
            "held": ["files", "net", "ipc", "pid", "proc"] if level == "bubblewrap" else [],
            "landlock": level != "limits",
            "filter": True,
            "uid": 61184 + os.getpid() % 1000 if root and _reachable_by_others() and level != "bubblewrap" else 0,
            "paths": [*_roots(), str(self.home / "code")],
            "readable": [*_readable(), *_DEVICES, str(self.home / "code")],
            "writable": [str(self.home / "scratch"), "/dev/null", *_gpu_files(self.device)],
            "files_of_python": level == "limits",
            "trains": self.trains,
            "many": self.many,
            "spawn": self.spawn,
            "device": self.device,
            "data_mb": self.limits.data_mb,
            "cpu_s": self.limits.cpu_s,
            "file_mb": 0 if level == "limits" else self.limits.file_mb,
            "processes": self.limits.processes if root else self.limits.processes + 4096,
        }

    def _bubblewrap(self, environment: dict[str, str]) -> list[str]:
        tool = shutil.which("bwrap")
        if tool is None:
            raise SandboxError("bwrap is not installed (Debian and Ubuntu: apt install bubblewrap)")
        args = [tool, "--unshare-all", "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]
        args += ["--uid", "65534", "--gid", "65534", "--proc", "/proc", "--dev", "/dev"]
        args += ["--tmpfs", "/tmp"]
        for device in _gpu_files(self.device):
            args += ["--dev-bind", device, device]
        for path in _roots():
            args += ["--ro-bind-try", path, path]
        args += ["--ro-bind-try", "/sys/devices/system/cpu", "/sys/devices/system/cpu"]
        for path in _hidden():
            if any(Path(path).is_relative_to(root) for root in _roots()):
                args += ["--tmpfs", path]
        args += ["--ro-bind", sys.prefix, sys.prefix, "--ro-bind", str(self.home / "code"), str(self.home / "code")]
        for path in _hidden():
            if Path(path).is_relative_to(sys.prefix):
                args += ["--tmpfs", path]
        args += ["--size", str(64 << 20), "--tmpfs", str(self.home / "scratch")]
        for path in ("/dev", "/tmp", "/"):
            args += ["--remount-ro", path]
        args += ["--chdir", "/"]
        for key, value in environment.items():
            args += ["--setenv", key, value]
        return [*args, "--"]

    def fork(self) -> socket.socket:
        """A socket to a fresh worker; whatever the previous one left behind was killed before that one was forked."""
        from autograder import wire

        if self.spawn and self.used:
            self._restart()
        for attempt in (0, 1):
            try:
                if self.spare is None:
                    self._prepare()
                while self.owed:
                    assert self.control is not None
                    wire.receive(self.control, time.monotonic() + 20)
                    self.owed -= 1
            except (wire.WireError, OSError):
                if attempt:
                    raise
                self._restart()
                continue
            ours, self.spare, self.used = self.spare, None, True
            assert ours is not None
            return ours
        raise AssertionError("unreachable")

    def reap(self) -> None:
        """Kill the worker and everything that it started, then fork the next one; `fork` waits for both."""
        if self.spawn:
            return self._stop()
        try:
            self._prepare()
        except OSError:
            self._restart()

    def _prepare(self) -> None:
        """Ask for the end of every worker, and for a new one."""
        if not self.spawn:
            self._command(b"K")
        ours, theirs = socket.socketpair()
        with contextlib.closing(theirs):
            self._command(b"F", theirs.fileno())
        self.spare = ours

    def _command(self, byte: bytes, *descriptors: int) -> None:
        assert self.control is not None
        self.control.settimeout(10)
        socket.send_fds(self.control, [byte], list(descriptors))
        self.owed += 1

    def _restart(self) -> None:
        self._stop()
        self._start(self.level)

    def _stop(self) -> None:
        for end in (self.control, self.spare):
            if end is not None:
                end.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.control = self.spare = self.process = None
        self.owed = 0

    def close(self) -> None:
        """End the zygote and remove its folder."""
        self._stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> "Zygote":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _gpu_files(device: str) -> list[str]:
    return [] if device == "cpu" else sorted(str(p) for p in Path("/dev").glob("nvidia*"))


def _advice() -> str:
    restricted = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if restricted.exists() and restricted.read_text().strip() == "1":
        return " (Ubuntu 24.04 forbids user namespaces: sysctl kernel.apparmor_restrict_unprivileged_userns=0)"
    if Path("/.dockerenv").exists():
        return " (Docker's default seccomp profile forbids it: run with --security-opt seccomp=unconfined)"
    return ""


def _roots() -> list[str]:
    """Where Python, torch and the system libraries lie."""
    places = [sys.prefix, sys.base_prefix, sys.exec_prefix, sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")]
    places += [os.path.realpath(p) for p in places] + [str(Path(os.path.realpath(sys.executable)).parent)]
    places += [p for p in site.getsitepackages() if os.path.isdir(p)]
    found = sorted({*_SYSTEM, *(p for p in places if p != "/")})
    return [p for p in found if os.path.exists(p)]


def _hidden() -> list[str]:
    """What holds answers: the library, the grader, the course they were cloned with, and copies that pip installed."""
    course = Path(__file__).resolve().parent.parent
    found = [course / name for name in ("sslcourse", "autograder", "solutions", "labs", "tests")]
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}:
        for folder in {Path(place), Path(os.path.realpath(place))}:  # a link to it is another way in
            found += [folder / "sslcourse", folder / "autograder"]
    return sorted({str(p) for p in found if p.is_dir()})


def _readable() -> list[str]:
    """`_roots()` with the hidden folders cut out."""
    hidden = [Path(p) for p in _hidden()]
    out: list[str] = []

    def add(path: Path) -> None:
        if any(h == path or path.is_relative_to(h) for h in hidden):
            return
        if path.is_dir() and any(h.is_relative_to(path) for h in hidden):
            for entry in path.iterdir():
                add(entry)
        else:
            out.append(str(path))

    for root in _roots():
        add(Path(root))
    return sorted(set(out))


def _reachable_by_others() -> bool:
    """Whether another user can read this Python: not when it lies in a private home folder."""
    torch = importlib.util.find_spec("torch")
    places = [torch.origin if torch and torch.origin else os.__file__, os.__file__, sys.executable]
    files = [Path(os.path.realpath(file)) for file in places]
    return all(
        file.stat().st_mode & stat.S_IROTH and all(p.stat().st_mode & stat.S_IXOTH for p in file.parents)
        for file in files
    )
