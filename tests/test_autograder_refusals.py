"""What cannot be graded is refused before anything starts: one sentence, exit code 2."""

import os
import sys
from pathlib import Path

import pytest

from autograder import batch, cli, gradescope, practice
from autograder.answers import COURSE
from autograder.sandbox import Zygote
from autograder.secret import course_secret
from sslcourse.errors import InputError

LAB = "00_warmup"
RELEASED = COURSE / "labs" / LAB / f"{LAB}.ipynb"
EMPTY = RELEASED.read_text()


@pytest.fixture(scope="module")
def zygote():
    with Zygote(trains=True) as zygote:
        yield zygote


@pytest.fixture
def one_zygote(zygote: Zygote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zygote, "close", lambda: None)
    monkeypatch.setattr(batch, "Zygote", lambda *args, **kwargs: zygote)


def words_of(code: int, capsys: pytest.CaptureFixture[str]) -> str:
    assert code == 2
    error = capsys.readouterr().err
    assert error.startswith("autograder: ")
    assert error.count("\n") == 1, "one sentence"
    return error


def test_a_folder_without_notebooks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no notebook" in words_of(cli.main(["grade", str(tmp_path)]), capsys)


@pytest.mark.usefixtures("one_zygote")
def test_a_lab_without_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ada.ipynb").write_text(EMPTY)
    monkeypatch.setattr("autograder.grader.import_checks", lambda lab: None)
    message = words_of(cli.main(["grade", str(tmp_path), "--lab", LAB]), capsys)
    assert "has no checks: write autograder/checks/lab00.py" in message


@pytest.mark.usefixtures("one_zygote")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("import torch\n", "import torch\n1 / 0\n", "line 4: ZeroDivisionError"),
        ("def test_heads_values(", "def test_heads_values((", "SyntaxError"),
        (
            "student.same(draw.normal(2, 5, 12), 3)",
            "student.same(draw.normall(2, 5, 12), 3)",
            "line 14: AttributeError",
        ),
        ("student.same(draw.normal(2, 5, 12), 3)", "student.same(draw.normal(2, 5, 12), 5)", "line 14: ValueError"),
        ("@worth(6, ", "@worth(60, ", "worth 66 points, its cell says 12"),
        ('"split_heads", "every number', '"split_head", "every number', "worth 6 points, its cell says 12"),
    ],
)
def test_a_bug_in_the_checks_stops_the_batch_with_file_and_line(
    old: str, new: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (COURSE / "autograder" / "checks" / "lab00.py").read_text()
    assert old in text
    folder = tmp_path / "checks"
    folder.mkdir()
    (folder / "lab00.py").write_text(text.replace(old, new, 1))
    for name in [n for n in sys.modules if n.startswith("autograder.checks.lab00")]:
        monkeypatch.delitem(sys.modules, name)
    import autograder.checks

    monkeypatch.setattr(autograder.checks, "__path__", [str(folder), *autograder.checks.__path__])
    (tmp_path / "ada.ipynb").write_text(EMPTY)
    message = words_of(cli.main(["grade", str(tmp_path / "ada.ipynb"), "--lab", LAB]), capsys)
    assert said in message
    if "line" in said or "Syntax" in said:
        assert "lab00.py" in message
        assert "Nothing was graded" in message


def test_a_copy_of_the_library_that_pip_installed_is_hidden_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradescope's setup installs the wheel; the answers in it are out of reach by either of two ways to it."""
    from autograder import sandbox

    (tmp_path / "real" / "sslcourse").mkdir(parents=True)
    (tmp_path / "real" / "torch").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setattr("site.getsitepackages", lambda: [str(tmp_path / "link")])
    ways = {str(tmp_path / way / "sslcourse") for way in ("real", "link")}
    assert ways <= set(sandbox._hidden())
    seen = sandbox._readable()
    assert not ways & set(seen)
    assert str(tmp_path / "link" / "torch") in seen


@pytest.mark.parametrize("option", ["--sandbox", "--at-least"])
def test_an_unknown_sandbox_level(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ada.ipynb").write_text(EMPTY)
    message = words_of(cli.main(["grade", str(tmp_path), option, "bubblewarp"]), capsys)
    assert "unknown sandbox level 'bubblewarp'; did you mean 'bubblewrap'?" in message


def test_a_sandbox_below_the_configured_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSLCOURSE_SECRET", "of the test")
    (tmp_path / "ada.ipynb").write_text(EMPTY)
    message = words_of(cli.main(["grade", str(tmp_path), "--graded", "--sandbox", "limits"]), capsys)
    assert "needs sandbox level 'landlock' or better, and 'limits' was asked for" in message


def test_no_notebook_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--jobs 0: at least one" in words_of(cli.main(["grade", str(tmp_path), "--jobs", "0"]), capsys)


def test_an_old_bubblewrap_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "bwrap"
    tool.write_text("#!/bin/sh\necho 'bwrap: Unknown option --as-pid-1' >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(InputError, match=r"bubblewrap is too old \(bwrap: Unknown option --as-pid-1\)"):
        Zygote("bubblewrap")


def test_a_machine_without_any_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`graded` refuses below its level and says what is missing; practice warns."""
    from autograder import sandbox

    def start(self: Zygote, level: str) -> None:
        if level != "limits":
            raise sandbox.SandboxError("not on this machine")
        self.protection = sandbox.Protection(level, {})

    monkeypatch.setattr(Zygote, "_start", start)
    monkeypatch.setenv("SSLCOURSE_SECRET", "of the test")
    (tmp_path / "ada.ipynb").write_text(EMPTY)
    message = words_of(cli.main(["grade", str(tmp_path), "--graded"]), capsys)
    assert "no sandbox at level 'landlock'" in message
    assert "bubblewrap: not on this machine; landlock: not on this machine" in message
    with Zygote() as zygote:
        found = str(practice.Practice("lab", sandbox="limits", missing=zygote.protection.missing))
        assert "not closed on this machine: bubblewrap: not on this machine" in found
        assert zygote.protection.missing == ["bubblewrap: not on this machine", "landlock: not on this machine"]


def test_a_lab_for_a_gpu_on_a_machine_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="graded on 'cuda', and this machine has no GPU"):
        Zygote(device="cuda")


def test_a_secret_is_needed_for_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSLCOURSE_SECRET", raising=False)
    monkeypatch.delenv("SSLCOURSE_SECRET_FILE", raising=False)
    with pytest.raises(InputError, match="course secret"):
        course_secret("graded")
    assert course_secret("practice")


def test_bad_command_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["grade", str(tmp_path)]) == 2
    assert cli.main(["grade", str(tmp_path / "nobody.ipynb")]) == 2
    assert cli.main(["grade", str(RELEASED), "--lab", "00_warmpu"]) == 2
    errors = capsys.readouterr().err
    assert "there is no notebook" in errors
    assert "does not exist" in errors
    assert "did you mean '00_warmup'" in errors


def test_the_gradescope_zip_needs_its_lab(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        gradescope.build("99_none", tmp_path / "x.zip", "secret")
