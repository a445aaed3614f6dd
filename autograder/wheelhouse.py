"""`make wheelhouse`: every package of the students' hand-out in one folder, to install a classroom without a network.

    python -m autograder.wheelhouse                                    for this system and this Python
    python -m autograder.wheelhouse --system windows --python 3.12     for others: linux, macos (Apple silicon), windows

The versions are those of requirements.lock, each file is checked against its hash, and at the end the installation is
resolved from the folder alone: a wheelhouse that lacks a package is never handed out.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from autograder import handout
from autograder.answers import COURSE
from sslcourse.errors import InputError, unknown

MACOS = "14.0"  # the oldest that torch has wheels for; uv would look for wheels of an older one
# System -> uv's name for it, pip's name for its wheels.
SYSTEMS = {
    "linux": ("x86_64-manylinux_2_28", ["manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64"]),
    "macos": ("aarch64-apple-darwin", [f"macosx_{MACOS.replace('.', '_')}_arm64"]),
    "windows": ("x86_64-pc-windows-msvc", ["win_amd64"]),
}
PYTHONS = ("3.11", "3.12", "3.13")
_GUIDE = """

Without a network
-----------------
Everything is in this folder. Instead of the second line above:

    .venv/bin/pip install --no-index --find-links . -r requirements.txt

The packages are for {about}.
"""


def run(command: list[str], what: str) -> str:
    """A program's output.

    Raises:
        InputError: it failed; the message ends with what it said.
    """
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"MACOSX_DEPLOYMENT_TARGET": MACOS})
    if done.returncode:
        raise InputError(f"{what}:\n{(done.stdout + done.stderr).strip()[-1500:]}")
    return done.stdout


def target(system: str, python: str) -> tuple[list[str], list[str]]:
    """What uv and what pip have to be told about a system and a Python; nothing for "" and "", which is this one.

    Raises:
        InputError: an unknown system or Python, or one without the other.
    """
    if not system and not python:
        return [], []
    if not system or not python:
        raise InputError("name both, --system and --python, or neither for this machine.")
    if system not in SYSTEMS:
        raise unknown("system", system, SYSTEMS)
    if python not in PYTHONS:
        raise unknown("Python version", python, PYTHONS)
    platform, tags = SYSTEMS[system]
    for_pip = ["--python-version", python, "--implementation", "cp"]
    for tag in tags:
        for_pip += ["--platform", tag]
    return ["--python-platform", platform, "--python-version", python], for_pip


def lock(folder: Path, for_uv: list[str], course: Path = COURSE) -> Path:
    """`requirements.txt` in `folder`: what the hand-out needs, at the versions and hashes of requirements.lock."""
    path = folder / "requirements.txt"
    with tempfile.TemporaryDirectory() as place:
        notebook = Path(place) / "notebook.in"
        notebook.write_text("jupyterlab\n")
        command = [sys.executable, "-m", "uv", "pip", "compile", "-q", str(course / "pyproject.toml"), str(notebook)]
        command += ["--extra", "viz", "-c", str(course / "requirements.lock"), "--generate-hashes", "--no-header"]
        command += ["--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "-o", str(path), *for_uv]
        run(command, "the versions of the packages could not be found")
    return path


def build(folder: Path, system: str = "", python: str = "", course: Path = COURSE) -> int:
    """Fill `folder` with the hand-out and every package that it needs; their size in bytes.

    Raises:
        InputError: an unknown system, no network, or a package without a wheel for it.
    """
    for_uv, for_pip = target(system, python)
    if folder.exists() and any(folder.iterdir()) and not (folder / "requirements.txt").is_file():
        raise InputError(f"{folder} holds other files; name an empty folder, or one that this command made.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as place:
        zipfile.ZipFile(handout.build(Path(place) / "labs.zip", course)).extractall(folder)
    requirements = lock(folder, for_uv, course)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    run([*command, "-r", str(requirements), "-d", str(folder), *for_pip], "not every package could be downloaded")
    wheel = next(folder.glob("sslcourse-*.whl"))
    version, digest = wheel.name.split("-")[1], hashlib.sha256(wheel.read_bytes()).hexdigest()
    with requirements.open("a") as file:
        file.write(f"sslcourse=={version} --hash=sha256:{digest}\n")
    python, system = python or ".".join(map(str, sys.version_info[:2])), system or sys.platform
    with (folder / "README.md").open("a") as file:
        file.write(_GUIDE.format(about=f"Python {python} on {system}"))
    check = [sys.executable, "-m", "uv", "pip", "compile", "-q", "--offline", "--no-index", "--find-links", str(folder)]
    run([*check, str(requirements), *for_uv], "the folder is not complete")
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main(argv: list[str] | None = None) -> int:
    """Command line; exit code 2 when the folder could not be filled."""
    parser = argparse.ArgumentParser(prog="python -m autograder.wheelhouse", description=__doc__.split("\n")[0])
    parser.add_argument("--system", default="", help="linux, macos or windows; this machine's by default")
    parser.add_argument("--python", default="", help="3.11, 3.12 or 3.13; this one's by default")
    parser.add_argument("--out", type=Path, default=Path("dist/wheelhouse"), help="folder, emptied first")
    args = parser.parse_args(argv)
    try:
        size = build(args.out, args.system, args.python)
    except InputError as error:
        print(f"wheelhouse: {error}", file=sys.stderr)
        return 2
    packages = len(list(args.out.glob("*.whl")))
    print(f"{args.out}: {packages} packages, {size / 1e9:.1f} GB; README.md in it says how to install them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
