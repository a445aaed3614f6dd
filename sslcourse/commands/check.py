"""`sslcourse check LAB.ipynb`: the grader's own machinery on the checks that students may see."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sslcourse.commands.arguments import parse
from sslcourse.errors import InputError


@dataclass(frozen=True)
class Options:
    """Run the public checks of a lab and say what would stop it from being graded. Exit code 1 if something would."""

    notebook: Annotated[Path, tyro.conf.Positional]
    """The lab with your answers, such as labs/03_simclr_moco/03_simclr_moco.ipynb."""


def run(argv: list[str]) -> int:
    options = parse(Options, argv, "check")
    if options.notebook.suffix != ".ipynb" or not options.notebook.is_file():
        raise InputError(f"{options.notebook} is not a notebook; name the .ipynb file of a lab.")
    try:
        from autograder import print_check
    except ImportError:
        raise InputError("check needs the grader, which is not installed: pip install 'sslcourse[grader]'.") from None
    return 0 if print_check(options.notebook) else 1
