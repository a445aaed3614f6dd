"""What a check file is made of: functions that are worth points, and hidden inputs that nobody can guess.

A check is a pytest function that looks at one property of one exercise::

    @worth(4, "nt_xent", "stays finite at temperature 0.01")
    def test_nt_xent_cold(student, draw):
        student.same(draw.normal(8, 16), draw.normal(8, 16), 0.01)

`student` calls the student's function in its sandbox, `draw` makes inputs from a secret, `answer` is the typed
prediction. Ask for what you need by name, as in pytest.
"""

import functools
import hashlib
import hmac
import importlib
import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor

from sslcourse.errors import InputError

_F = TypeVar("_F", bound=Callable[..., None])


@dataclass(frozen=True)
class Check:
    """One property of one exercise."""

    name: str
    exercise: str
    points: float
    title: str
    run: Callable[..., None]

    @functools.cached_property
    def needs(self) -> tuple[str, ...]:
        """The names of the arguments that the check asks for."""
        return tuple(inspect.signature(self.run).parameters)


def worth(points: float, exercise: str, title: str) -> Callable[[_F], _F]:
    """Mark a check: it earns `points` of `exercise` for the property that `title` names to the student."""

    def mark(function: _F) -> _F:
        name = getattr(function, "__name__", "check")
        function.__check__ = Check(name, exercise, points, title, function)  # type: ignore[attr-defined]
        return function

    return mark


def collect(module: ModuleType) -> list[Check]:
    """The checks of a module in the order of its file."""
    found = [getattr(value, "__check__", None) for value in vars(module).values()]
    return [check for check in found if isinstance(check, Check)]


@dataclass(frozen=True)
class Wrong:
    """A known-wrong answer: one edit of the solution, and the hint for the student who wrote it."""

    exercise: str
    name: str
    old: str
    new: str
    hint: str

    def source(self, solution: str) -> str:
        """The solution's cell with the mistake in it."""
        if solution.count(self.old) != 1:
            raise InputError(f"wrong answer {self.exercise}/{self.name}: its text is not exactly once in the solution.")
        return solution.replace(self.old, self.new)


@dataclass(frozen=True)
class Right:
    """Another right answer, which every check must accept."""

    exercise: str
    name: str
    source: str


def import_checks(lab: str) -> ModuleType | None:
    """The hidden checks of a lab ("03_simclr_moco" -> autograder/checks/lab03.py); None where there are none."""
    return _import(f"autograder.checks.lab{lab[:2]}")


def import_answers(lab: str) -> ModuleType | None:
    """The known-wrong and other right answers of a lab (autograder/checks/mutants/lab03.py)."""
    return _import(f"autograder.checks.mutants.lab{lab[:2]}")


def _import(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and name.startswith(error.name):
            return None
        raise InputError(f"{place(error)}: {type(error).__name__}: {error}. Nothing was graded.") from error


def place(error: Exception) -> str:
    """File and line of the course's own checks, or known answers, in which an error arose."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"a bug in the checks at {Path(error.filename).name}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "checks" in Path(f.filename).parts[-3:]]
    last = (ours or frames)[-1]
    return f"a bug in the checks at {Path(last.filename).name}, line {last.lineno}"


# ---------------------------------------------------------------------------------------------------- hidden inputs


class Draw:
    """Hidden inputs: the same for the same secret, student, check and answer; different for anybody else.

    Because the answer itself goes into the key, an input that leaks is of no use in the next hand-in either.
    """

    def __init__(self, secret: str, *parts: str) -> None:
        digest = hmac.new(secret.encode(), "\x1f".join(parts).encode(), hashlib.sha256).digest()
        self._generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self._generator, dtype=torch.float64).to(dtype)

    def unit(self, n: int, d: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """n directions in d dimensions, of length 1: a missing normalisation then costs only its own property."""
        return torch.nn.functional.normalize(self.normal(n, d, dtype=torch.float64), dim=1).to(dtype)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform float32 numbers in [low, high)."""
        return low + (high - low) * torch.rand(shape, generator=self._generator)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Uniform int64 numbers in [low, high)."""
        return torch.randint(low, high, shape, generator=self._generator)

    def integer(self, low: int, high: int) -> int:
        """One integer in [low, high)."""
        return int(self.integers(low, high, 1))

    def generator(self) -> torch.Generator:
        """A CPU generator at the start of its sequence; every run of a check starts it there."""
        return torch.Generator().manual_seed(self.integer(0, 1 << 31))

    def permutation(self, n: int) -> Tensor:
        """A random order of 0 .. n - 1, never the identity for n > 1."""
        order = torch.randperm(n, generator=self._generator)
        return order.roll(1) if n > 1 and torch.equal(order, torch.arange(n)) else order


def answers_of(module: ModuleType | None, kind: type) -> list[Any]:
    """The `Wrong` or `Right` entries of a module of known answers, in order."""
    if module is None:
        return []
    entries = [item for value in vars(module).values() if isinstance(value, list) for item in value]
    return [item for item in entries if isinstance(item, kind)]
