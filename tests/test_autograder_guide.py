"""The authoring guide, followed to the letter in a copy of the course: its exercise grades, its self-test is clean."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autograder.answers import COURSE

LAB = "00_warmup"
FILES = {  # step of the guide -> the file that its blocks are appended to
    1: f"solutions/{LAB}/{LAB}.py",
    2: "sslcourse/hints/lab00.toml",
    3: "autograder/checks/lab00.py",
    4: "autograder/checks/mutants/lab00.py",
    5: "autograder/checks/mutants/lab00.py",
}


def blocks() -> dict[int, str]:
    """The code that each step of the guide shows."""
    guide = (COURSE / "autograder" / "README.md").read_text().split("## A new exercise")[1]
    steps = re.split(r"^\*\*(\d)\. ", guide, flags=re.M)[1:]
    code = r"^```\w+\n(.*?)^```"
    return {
        int(number): "\n\n".join(re.findall(code, text, flags=re.M | re.S))
        for number, text in zip(steps[::2], steps[1::2], strict=True)
    }


def test_every_step_names_the_file_that_it_changes() -> None:
    guide = (COURSE / "autograder" / "README.md").read_text().split("## A new exercise")[1]
    assert list(blocks()) == list(FILES)
    for file in list(FILES.values())[:4]:
        assert (COURSE / file).is_file()
        assert f"`{file.removeprefix('autograder/')}`" in guide


@pytest.mark.slow
def test_the_new_exercise_of_the_guide_grades(tmp_path: Path) -> None:
    for folder in ("sslcourse", "autograder", "solutions", "labs"):
        shutil.copytree(COURSE / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(COURSE / "nbgrader_config.py", tmp_path)
    for step, code in blocks().items():
        with (tmp_path / FILES[step]).open("a") as file:
            file.write(f"\n\n{code}")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> str:
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("autograder.labs")
    assert "def alignment" in (tmp_path / "labs" / LAB / f"{LAB}.ipynb").read_text()
    found = run("autograder.cli", "selftest", LAB, "--mutations", "20")
    assert "wrong answers rejected and named: 28/28, right answers accepted: 10/10" in found
