"""How the commands read their arguments: typed dataclasses through tyro, methods and presets by name."""

import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import field, make_dataclass
from io import StringIO
from typing import Annotated, Any, TypeVar

from sslcourse import catalogue
from sslcourse.errors import InputError, unknown

T = TypeVar("T")


def parse(options: type[T], argv: Sequence[str], command: str) -> T:
    """Read `argv` into the dataclass `options`; --help prints and ends the program.

    Raises:
        InputError: an unknown option, a missing or unusable value.
    """
    import tyro

    program, complaint = f"sslcourse {command}", StringIO()
    try:
        with redirect_stderr(complaint):
            return tyro.cli(options, args=list(argv), prog=program, config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as ending:
        if not ending.code:
            raise
        raise InputError(f"{_sentence(complaint.getvalue())} See {program} --help.") from None


def with_config(base: type[T], config: Any) -> type[T]:
    """The dataclass `base` with a further field `config`, whose settings become options of their own.

    Its defaults are those of `config`, a preset: ``--tau 0.5 --train.epochs 10`` change single settings of it.
    """
    import tyro

    flat: Any = Annotated[type(config), tyro.conf.arg(name="")]  # --tau, not --config.tau
    cls = make_dataclass(base.__name__, [("config", flat, field(default=config))], bases=(base,), frozen=True)
    cls.__doc__ = base.__doc__
    return cls


def choose_preset(method: str, argv: Sequence[str]) -> Any:
    """The preset that `argv` names with --preset, or the method's first one.

    It has to be known before the other options, since their defaults are its settings.

    Raises:
        InputError: unknown, before torch is imported.
    """
    presets = catalogue.row(method).presets
    name = _value(argv, "--preset") or presets[0]
    if name not in presets:
        raise unknown(f"preset of {method}", name, presets)
    return catalogue.method_class(method).PRESETS[name]


def _sentence(box: str) -> str:
    """What tyro complains of in its box of several lines, and the option it takes the user to mean, as a sentence."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    rows = [line.strip("│ ") for line in plain.splitlines() if not line.startswith(("╭", "╰"))]
    if not plain.startswith("╭"):  # without box characters the title is a row, with a rule below
        rows = rows[2:]
    ends = [i for i, row in enumerate(rows) if _is_rule(row)] or [len(rows)]
    what = " ".join(rows[: ends[0]]).strip(" .")
    guess = rows[ends[0] + 1 : ends[0] + 3]
    near = f"; did you mean {guess[1].split()[0].rstrip(',')}?" if guess[:1] == ["Perhaps you meant:"] else "."
    return f"{what}{near}"


def _is_rule(row: str) -> bool:
    return len(row) > 9 and set(row) <= {"─", "-"}


def _value(argv: Sequence[str], option: str) -> str | None:
    """The last value that `argv` gives `option`, as ``--option value`` or ``--option=value``."""
    found = None
    for i, text in enumerate(argv):
        if text == option and i + 1 < len(argv):
            found = argv[i + 1]
        elif text.startswith(f"{option}="):
            found = text.partition("=")[2]
    return found
