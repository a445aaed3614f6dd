"""What a user waits for before anything happens: importing the library, and the command line's help."""

import subprocess
import sys
from functools import partial

from benchmarks.harness import Pair, Row


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def import_over_torch() -> Pair:
    """The library with what a training script imports of it."""
    ours = "import torch, sslcourse; from sslcourse import data, losses, methods, train"
    return partial(_python, "-c", ours), partial(_python, "-c", "import torch")


def cli_help() -> Pair:
    return partial(_python, "-m", "sslcourse", "--help"), lambda: None


ROWS = [
    Row(
        "import",
        "import sslcourse, data, losses, methods, train",
        "import torch",
        import_over_torch,
        target=1.0,
        kind="seconds",
        check=None,
    ),
    Row("import", "sslcourse --help", "an empty call", cli_help, target=0.5, kind="seconds", check=None),
]
