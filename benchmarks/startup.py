"""What a user waits for before anything happens: importing the library, and the command line's help."""

import subprocess
import sys
from functools import partial

from benchmarks.harness import Pair, Row


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def import_over_torch() -> Pair:
    everything = "import torch, sslcourse, sslcourse.losses, sslcourse.train, sslcourse.data"
    return partial(_python, "-c", everything), partial(_python, "-c", "import torch")


def import_alone() -> Pair:
    return partial(_python, "-c", "import torch, sslcourse"), partial(_python, "-c", "import torch")


def cli_help() -> Pair:
    return partial(_python, "-m", "sslcourse", "--help"), lambda: None


ROWS = [
    Row("import", "import sslcourse", "import torch", import_alone, target=1.0, kind="seconds", check=None),
    Row("import", "sslcourse --help", "a budget", cli_help, target=0.5, kind="seconds", check=None),
]
