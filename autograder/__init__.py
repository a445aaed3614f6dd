"""The graders' side of sslcourse: intake, sandbox, worker, checks, reports and front ends.

`check_notebook(path)` is what `sslcourse check` calls; `print_check(path)` prints its result.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name in ("check_notebook", "print_check"):  # on first use: they need torch
        from autograder import practice

        return getattr(practice, name)
    raise AttributeError(f"module 'autograder' has no attribute {name!r}")
