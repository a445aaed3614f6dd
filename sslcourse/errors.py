"""The one error for bad input: a sentence that says what, where and what to do.

Library functions raise it, the command line prints it and exits with code 2. Anything else that reaches the
command line is a bug of ours and keeps its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Something the caller gave cannot be used; the message is one clear sentence."""


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """An `InputError` for a name that is not in `known`, with the nearest known name as a suggestion.

    >>> str(unknown("method", "simclear", ["simclr", "byol"]))
    "unknown method 'simclear'; did you mean 'simclr'? Known: byol, simclr"
    """
    options = sorted(known)
    near = get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return InputError(f"unknown {kind} '{name}'{hint} Known: {', '.join(options)}")
