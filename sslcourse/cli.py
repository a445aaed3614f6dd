"""The command line: finds the command, runs it, and turns bad input into one sentence and exit code 2.

Only the command that is asked for is imported, so `sslcourse --help` needs no torch. Results go to standard output,
progress and messages to standard error. Exit codes: 0 done, 1 a bug of ours (with its traceback) or a failed check,
2 bad input, 130 Ctrl-C. SSLCOURSE_DEBUG=1 shows the traceback of bad input, too.
"""

import errno
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from sslcourse import __version__
from sslcourse.errors import InputError, unknown

# Each is a module of sslcourse.commands with `run(argv) -> int | None`.
COMMANDS = {
    "list": "the methods of the course: paper, presets, chapter, lab",
    "pretrain": "pre-train a method on a dataset, a folder or a pack of images",
    "eval": "evaluate a run with kNN and linear probes, beside raw pixels and random weights",
    "compare": "pre-train and evaluate several methods over several seeds, one table",
    "zeroshot": "classify images by words, with a picture of the scores",
    "segment": "masks of an image for points, boxes or everything in it",
    "reconstruct": "let a trained masked method paint the hidden part of an image",
    "check": "check a lab notebook before handing it in",
    "attention": "draw where a ViT looks in an image, and its patches as colours",
    "curate": "keep the images of a pool that are no copies and resemble a curated set",
    "pack": "pack a folder of images into one file that loads fast",
    "doctor": "what this machine can run",
}
_MODULES = {"list": "list_methods", "eval": "evaluate"}  # the others are called like their command


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = os.environ.get("SSLCOURSE_DEBUG", "") not in ("", "0")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = _dispatch(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("sslcourse: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None or debug:
            raise
        print(f"sslcourse: {sentence}", file=sys.stderr)
        return 2


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"sslcourse {__version__}")
        return 0
    name = argv[0]
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    module = import_module(f"sslcourse.commands.{_MODULES.get(name, name)}")
    return module.run(argv[1:]) or 0


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: sslcourse COMMAND ...",
            "",
            "Learn self-supervised learning and vision foundation models by building them.",
            "",
            *lines,
            "",
            "sslcourse COMMAND --help explains a command, sslcourse --version prints the version.",
        ]
    )


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Warnings for the user as one line; where in our code it was raised is of no use to them."""
    name = "" if issubclass(category, UserWarning) else f"{category.__name__}: "
    print(f"sslcourse: {name}{message}", file=sys.stderr)


def _sentence(error: Exception) -> str | None:
    """What the user did or has to do, in one sentence; None for an error that is a bug of ours."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        where = f": {error.filename}" if error.filename is not None else ""
        advice = {
            errno.ENOSPC: "; free some space or choose another folder",
            errno.EACCES: "; choose a folder you may write to, or change its permissions",
            errno.EROFS: "; choose another folder",
        }
        return f"{error.strerror}{where}{advice.get(error.errno, '')}"
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return "out of memory; use a smaller --train.batch-size, or --train.accumulate 2 to split each batch"
    return None


if __name__ == "__main__":
    sys.exit(main())
