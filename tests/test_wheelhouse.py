"""`make wheelhouse` without the network: what is asked of uv and pip, and what a finished folder holds."""

import subprocess
import sys
from pathlib import Path

import pytest

from autograder import handout, wheelhouse
from sslcourse.errors import InputError


@pytest.mark.parametrize(("system", "python"), [("windows", ""), ("", "3.12"), ("amiga", "3.12"), ("linux", "3.9")])
def test_system_and_python_have_to_be_known(system: str, python: str) -> None:
    with pytest.raises(InputError):
        wheelhouse.target(system, python)


def test_every_system_has_names_for_both_programs() -> None:
    for system in wheelhouse.SYSTEMS:
        for_uv, for_pip = wheelhouse.target(system, "3.12")
        assert for_uv[-1] == "3.12"
        assert "--platform" in for_pip
    assert wheelhouse.target("", "") == ([], [])


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(InputError, match="holds other files"):
        wheelhouse.build(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years"


def test_folder_holds_labs_packages_and_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for the wheel and the two programs that need the network."""
    commands: list[list[str]] = []

    def answer(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if "-o" in command:
            Path(command[command.index("-o") + 1]).write_text("numpy==2.0 --hash=sha256:00\n")
        return subprocess.CompletedProcess(command, 0, "", "")

    def wheel(folder: Path, course: Path) -> Path:
        path = folder / "sslcourse-0.1.0-py3-none-any.whl"
        path.write_bytes(b"wheel")
        return path

    monkeypatch.setattr(subprocess, "run", answer)
    monkeypatch.setattr(handout, "build_wheel", wheel)
    folder = tmp_path / "wheelhouse"
    for _ in range(2):  # its own folder it may fill again
        assert wheelhouse.build(folder, "windows", "3.12") > 0
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert lines[0].startswith("numpy==")
    assert lines[1].startswith("sslcourse==0.1.0 --hash=sha256:")
    assert (folder / "labs/00_warmup/00_warmup.ipynb").is_file()
    guide = (folder / "README.md").read_text()
    assert "--no-index" in guide
    assert "Python 3.12 on windows" in guide
    compile_, download, check = commands[:3]
    assert "requirements.lock" in " ".join(compile_)
    assert "win_amd64" in download
    assert "--require-hashes" in download
    assert "--offline" in check
    assert not any("solutions" in str(p) or "checks" in str(p) for p in folder.rglob("*"))


def test_a_failing_program_is_told_in_one_error() -> None:
    with pytest.raises(InputError, match=r"no luck:\nreason"):
        wheelhouse.run([sys.executable, "-c", "import sys; print('reason'); sys.exit(1)"], "no luck")
