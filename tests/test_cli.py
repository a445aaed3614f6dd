"""The command line as its users meet it: in a pipe, with typos, with broken files, with Ctrl-C and a full disk."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sslcourse import catalogue
from sslcourse.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
# Seconds on one core: 64 digits, two steps.
TINY = ["--data", "digits", "--n-train", "64", "--n-test", "40", "--train.batch-size", "32", "--device", "cpu"]
Done = tuple[Path, int, str, str]


def start(*argv: str, cwd: Path) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sslcourse", *argv]
    return subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A folder with a finished run, `run`; the exit code, standard output and standard error of the command."""
    folder = tmp_path_factory.mktemp("cli")
    argv = ["pretrain", "simclr", *TINY, "--train.steps", "2", "--out", "run", "--seed", "3"]
    process = start(*argv, cwd=folder)
    out, err = process.communicate(timeout=240)
    return folder, process.returncode, out, err


@pytest.fixture
def here(done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder beside a link to the finished run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(done[0] / "run")
    return tmp_path


# --- help and the catalogue --------------------------------------------------------------------------------------


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; from sslcourse.cli import main\n"
        "assert main(['--help']) == 0 and main([]) == 0 and main(['--version']) == 0\n"
        "heavy = {'torch', 'numpy', 'tyro', 'rich', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert name in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(SystemExit):  # tyro's way to end after its help
        main([command, "--help"])
    out = capsys.readouterr().out
    assert f"usage: sslcourse {command}" in out


def test_every_setting_of_a_method_is_an_option_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pretrain", "simclr", "--preset", "cifar10_resnet18", "--help"])
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--tau FLOAT Temperature" in out
    assert "--train.epochs INT Passes over the data" in out
    assert "--augment.size INT" in out
    assert "(default: resnet18)" in out  # the preset's, not the class's


def test_list_as_table_json_and_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    table = capsys.readouterr().out
    for row in catalogue.METHODS.values():
        assert re.search(rf"^ *{row.part}  {row.name} ", table, re.MULTILINE)
    assert table.count("own training") == sum(row.code is None for row in catalogue.METHODS.values())
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["name"] == next(iter(catalogue.METHODS))
    assert main(["list", "--markdown"]) == 0
    assert capsys.readouterr().out == catalogue.markdown()


def test_a_reader_that_closes_the_pipe_is_no_error() -> None:
    command = f"'{sys.executable}' -m sslcourse list --json | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# --- pretrain, eval, compare -------------------------------------------------------------------------------------


def test_pretrain_leaves_a_run_and_prints_a_table(done: Done) -> None:
    folder, code, out, err = done
    assert code == 0, err
    files = {"config.json", "data.json", "log.jsonl", "checkpoint.pt", "model.safetensors"}
    assert {p.name for p in (folder / "run").iterdir()} == files
    config = json.loads((folder / "run" / "config.json").read_text())["config"]
    assert (config["train"]["seed"], config["train"]["accelerator"], config["train"]["steps"]) == (3, "cpu", 2)
    assert "40 images" in out
    assert re.search(r"\[0\.\d{3}, [01]\.\d{3}\]", out)  # the interval
    assert "next: sslcourse eval run" in err
    assert "step 2/2" in err


def test_what_pretrain_on_clips_names_next_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for video in ("a", "b"):
        (tmp_path / "frames" / video).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (40, 40), (30 * i, 0, 0)).save(tmp_path / "frames" / video / f"{i}.jpg")
    short = ["--train.steps", "1", "--train.batch-size", "2", "--device", "cpu"]
    assert main(["pretrain", "videomae", "--data", "frames", "--out", "run", *short]) == 0
    (named,) = re.findall(r"next: sslcourse (.*)", capsys.readouterr().err)
    assert named == "eval run --data shapes --protocol action"
    assert main([*named.split(), "--n-train", "24", "--n-test", "16", "--no-baselines", "--device", "cpu"]) == 0
    assert "action" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "then"), [("shapes", "--protocol action"), ("davis.zip", "--protocol video")])
def test_clips_are_evaluated_by_what_has_their_labels(name: str, then: str, tmp_path: Path) -> None:
    from sslcourse.commands.data import ClipData
    from sslcourse.commands.pretrain import _evaluation

    (tmp_path / "davis.zip").touch()
    data = ClipData(name if name == "shapes" else str(tmp_path / name))
    assert _evaluation(data, Path("run")) == f"sslcourse eval run {then}"


def test_eval_prints_one_table_and_keeps_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "run", "--device", "cpu", "--out", "result.json"]) == 0
    table = capsys.readouterr().out
    rows = json.loads((here / "result.json").read_text())
    baselines = ("raw pixels", "HOG", "random init")
    names = [
        f"{p}, {r}"
        for p in ("knn", "linear")
        for r in (*baselines, "simclr", *(f"simclr - {other}" for other in baselines))
    ]
    assert [row["name"] for row in rows] == names
    value = {row["name"]: row["value"] for row in rows}
    for p in ("knn", "linear"):
        assert value[f"{p}, simclr - HOG"] == pytest.approx(value[f"{p}, simclr"] - value[f"{p}, HOG"])
    for row in rows:
        assert row["low"] <= row["value"] <= row["high"]
        assert row["n"] == 40
        assert row["name"] in table
        assert f"{row['value']:.3f}" in table
    assert rows[0]["detail"]["n_bank"] == 64  # the images that the run was trained on
    assert (here / "result.png").read_bytes().startswith(b"\x89PNG")


def test_eval_on_other_data_without_baselines(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [
        "eval",
        "run/model.safetensors",
        "--data",
        "digits",
        "--n-train",
        "30",
        "--n-test",
        "20",
        "--protocol",
        "knn",
    ]
    argv += ["--no-baselines", "--k", "5", "--vote", "plain", "--out", "other.json", "--device", "cpu"]
    assert main(argv) == 0
    (row,) = json.loads((here / "other.json").read_text())
    assert (row["n"], row["detail"]["k"], row["detail"]["n_bank"]) == (20, 5, 30)
    assert (row["detail"]["vote"], row["detail"]["T"]) == ("plain", None)


def test_settings_reach_their_protocols() -> None:
    from inspect import signature

    from sslcourse.commands.evaluate import Settings, settings_of
    from sslcourse.evaluate.dense import depth_probe, segmentation_probe
    from sslcourse.evaluate.detection import detection_transfer
    from sslcourse.evaluate.finetune import finetune
    from sslcourse.evaluate.knn import knn_accuracy
    from sslcourse.evaluate.linear import fit_linear

    takes = {
        "knn": knn_accuracy, "linear": fit_linear, "partial": finetune, "segmentation": segmentation_probe,
        "depth": depth_probe, "detection": detection_transfer,
    }  # fmt: skip
    chosen = settings_of(Settings(vote="plain", solver="sgd", last_blocks=2, head="conv", detector="finetuned"))
    assert set(chosen) == set(takes)
    assert all(set(options) <= set(signature(takes[name]).parameters) for name, options in chosen.items())
    assert (chosen["knn"]["weighted"], chosen["partial"], chosen["detection"]) == (
        False, {"last_blocks": 2}, {"finetune": True},
    )  # fmt: skip


def test_eval_against_another_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "twin").symlink_to(here / "run")
    argv = ["eval", "run", "--against", "twin", "--no-baselines", "--device", "cpu", "--protocol", "knn", "diagnostics"]
    assert main([*argv, "--out", "pair.json"]) == 0
    out, err = capsys.readouterr()
    rows = json.loads((here / "pair.json").read_text())
    gap = next(row for row in rows if row["name"] == "knn, run - twin")
    assert (gap["value"], gap["low"], gap["high"], gap["n"]) == (0, 0, 0, 40)
    asked = ("knn", "spread", "rankme", "uniformity", "alignment", "pair_auc", "cka")
    assert [row["detail"]["protocol"] for row in rows if row["detail"]["representation"] == "twin"] == list(asked)
    assert all(row["n"] >= 2 and row["low"] <= row["value"] <= row["high"] for row in rows)
    assert "rankme, run - twin" not in out  # more dimensions are not better
    assert (here / "pair-pairs.png").read_bytes().startswith(b"\x89PNG")
    assert "no figure" not in err


def test_compare_keeps_finished_runs(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    from sslcourse.methods.simclr import SimCLR

    small = SimCLR.Config(backbone="convnet", hidden=16, augment=SimCLR.PRESETS["cpu"].augment)
    small = small.__class__(**{**vars(small), "train": small.train.__class__(steps=1, batch_size=16)})
    monkeypatch.setattr(SimCLR, "PRESETS", {**SimCLR.PRESETS, "cpu": small})
    argv = ["compare", "simclr", "--data", "digits", "--n-train", "32", "--n-test", "20", "--out", "cmp"]
    argv += ["--seeds", "0", "1", "--device", "cpu"]
    assert main(argv) == 0
    first = capsys.readouterr().out
    table = json.loads((here / "cmp" / "compare.json").read_text())
    rows = {row["detail"]["representation"]: row for row in table if "minus" not in row["detail"]}
    assert set(rows) == {"raw pixels", "HOG", "random init", "simclr"}
    gaps = {row["detail"]["minus"]: row for row in table if "minus" in row["detail"]}
    assert set(gaps) == {"raw pixels", "HOG", "random init"}
    pairs = [a - b for a, b in zip(*(rows[r]["detail"]["values"] for r in ("simclr", "random init")), strict=True)]
    assert gaps["random init"]["detail"]["values"] == pytest.approx(pairs)
    assert (gaps["raw pixels"]["n"], gaps["raw pixels"]["over"]) == (2, "seeds")
    assert rows["simclr"]["detail"]["each_on"] == "20 images"
    assert (rows["simclr"]["n"], rows["simclr"]["over"]) == (2, "seeds")
    assert (rows["raw pixels"]["n"], rows["raw pixels"]["over"]) == (20, "images")
    assert (rows["random init"]["n"], len(rows["random init"]["detail"]["values"])) == (2, 2)
    assert (here / "cmp" / "compare.png").stat().st_size > 1000

    trained = (here / "cmp" / "simclr" / "seed1" / "model.safetensors").stat().st_mtime_ns
    # Further protocols: evaluated, not trained again.
    assert main([*argv, "--protocol", "knn", "linear", "rankme"]) == 0
    assert (here / "cmp" / "simclr" / "seed1" / "model.safetensors").stat().st_mtime_ns == trained
    assert "linear, simclr" in capsys.readouterr().out
    assert main(argv) == 0
    assert capsys.readouterr().out == first

    assert main([*argv, "--epochs", "7"]) == 2
    assert "was trained with other settings (train.epochs: 100 before, 7 now)" in capsys.readouterr().err
    assert main([*argv, "--n-train", "48"]) == 2
    assert "trained on other images (n_train: 32 before, 48 now)" in capsys.readouterr().err


def test_init_starts_from_another_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch
    from safetensors.torch import load_file

    argv = ["pretrain", "simclr", *TINY, "--train.steps", "1", "--train.lr", "1e-12", "--train.warmup-epochs", "0"]
    assert main([*argv, "--init", "run", "--out", "next", "--no-knn"]) == 0
    a, b = (load_file(here / name / "model.safetensors") for name in ("run", "next"))
    weights = [key for key in a if key.endswith("weight")]
    assert weights
    for key in weights:
        torch.testing.assert_close(a[key], b[key], atol=1e-6, rtol=1e-4)
    assert main([*argv, "--init", "run", "--out", "wider", "--dim", "7"]) == 2
    assert "does not fit this model" in capsys.readouterr().err
    assert not (here / "wider").exists()

    # Another method takes the backbone, and so does its teacher.
    argv[1] = "byol"
    assert main([*argv, "--init", "run", "--out", "other", "--no-knn"]) == 0
    c = load_file(here / "other" / "model.safetensors")
    for key in (key for key in weights if key.startswith("backbone.")):
        torch.testing.assert_close(c[key], a[key], atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(c[f"target.{key}"], a[key], atol=1e-6, rtol=1e-4)


def test_ctrl_c_leaves_a_run_that_resumes(tmp_path: Path, monkeypatch, capsys) -> None:
    argv = ["pretrain", "simclr", *TINY, "--train.steps", "4000", "--out", "run", "--no-knn", "--train.log-every", "1"]
    process = start(*argv, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "log.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert (tmp_path / "run" / "checkpoint.pt").exists()
    assert json.loads((tmp_path / "run" / "data.json").read_text())["n_train"] == 64
    monkeypatch.chdir(tmp_path)
    assert main([*argv[:3], "shapes", *argv[4:], "--resume"]) == 2
    assert "was trained on other images (name: digits before, shapes now" in capsys.readouterr().err


# --- bad input: one sentence, code 2, nothing left behind --------------------------------------------------------

PRETRAIN = ("pretrain", "simclr", *TINY, "--out", "new")
BAD = {
    "command": (("pretrian",), "unknown command 'pretrian'; did you mean 'pretrain'?"),
    "no method": (("pretrain",), "needs the name of a method first: .*simclr"),
    "method": (("pretrain", "simclear"), "unknown method 'simclear'; did you mean 'simclr'?"),
    "method of other commands": (
        ("pretrain", "sam"),
        r"SAM \(part 11, Segment Anything\) has a training of its own: python -m sslcourse.segment.train sam trains "
        r"it, sslcourse segment IMAGE --point x,y uses it",
    ),
    "preset": (("pretrain", "simclr", "--preset", "cpuu"), "unknown preset of simclr 'cpuu'; did you mean 'cpu'?"),
    "preset=": (("pretrain", "simclr", "--preset=cpuu"), "unknown preset of simclr 'cpuu'; did you mean 'cpu'?"),
    "option": ((*PRETRAIN, "--train.epoch", "3"), "--train.epoch, 3; did you mean --train.epochs?"),
    "number": ((*PRETRAIN, "--train.epochs", "ten"), "--train.epochs: .*'ten'"),
    "choice": ((*PRETRAIN, "--train.optimizer", "adam"), "'adam' .*'sgd', 'adamw', 'lars'"),
    "dataset": (("pretrain", "simclr", "--data", "digit", "--out", "new"), "'digit'; did you mean 'digits'"),
    "path": (("pretrain", "simclr", "--data", "/no/such", "--out", "new"), "no file or folder /no/such"),
    "batch of 1": ((*PRETRAIN, "--train.batch-size", "1"), "need at least 2"),
    "batch too large": ((*PRETRAIN, "--train.batch-size", "65"), "larger than the dataset"),
    "temperature": ((*PRETRAIN, "--tau", "0"), "temperature above 0"),
    "learning rate": ((*PRETRAIN, "--train.lr", "-1"), "must be above 0"),
    "backbone": ((*PRETRAIN, "--backbone", "resnet8"), "unknown backbone 'resnet8'; did you mean 'resnet18'"),
    "no run to resume": ((*PRETRAIN, "--resume"), "no run to resume in new"),
    "a run is there": ((*PRETRAIN, "--out", "run"), "run already holds a run"),
    "other settings": ((*PRETRAIN, "--out", "run", "--resume", "--tau", "0.9"), "tau: 0.2 before, 0.9 now"),
    "init": ((*PRETRAIN, "--init", "nothing"), "no trained model at nothing"),
    "out is a file": ((*PRETRAIN, "--out", "file"), "file"),
    "out cannot be made": ((*PRETRAIN, "--out", "/proc/new"), "/proc/new"),
    "no run": (("eval", "nothing"), "no trained model at nothing"),
    "truncated": (("eval", "truncated.safetensors", "--data", "digits"), "cannot be read as safetensors"),
    "not a model": (("eval", "file", "--data", "digits"), "cannot be read as safetensors"),
    "no data named": (("eval", "alone.safetensors"), "name the images with --data"),
    "no test split": (("eval", "run", "--data", "photos"), "no split 'test'"),
    "k": (("eval", "run", "--k", "0", "--device", "cpu"), "k=0"),
    "protocol": (("eval", "run", "--protocol", "knnn"), "'knnn'"),
    "against itself": (("eval", "run", "--against", "run"), "needs other runs"),
    "against nothing": (("eval", "run", "--against", "nothing"), "no trained model at nothing"),
    "labels": (
        ("eval", "run", "--protocol", "depth", "--device", "cpu", "--no-baselines"),
        "digits does not have depth",
    ),
    "device": (("eval", "run", "--device", "mps"), "--device mps: this machine has none"),
    "nothing to compare": (("compare",), "at least one method"),
    "compare a typo": (("compare", "simclr", "simclear"), "did you mean 'simclr'"),
    "seeds": (("compare", "simclr", "--seeds", "1", "1"), "different numbers; got 1 1"),
    "notebook": (("check", "file"), "file is not a notebook"),
    "pack": (("pack", "nothing"), "nothing is not a folder"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv, sentence = BAD[case]
    if case == "device":
        import torch

        if torch.backends.mps.is_available():
            pytest.skip("this machine has that device")
    (here / "file").write_text("hello")
    model = (here / "run" / "model.safetensors").read_bytes()
    (here / "truncated.safetensors").write_bytes(model[: len(model) // 2])
    (here / "alone.safetensors").write_bytes(model)
    before = sorted(here.iterdir())
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("sslcourse: ")
    assert re.search(sentence, last), last
    assert "Traceback" not in err
    assert sorted(here.iterdir()) == before


def test_a_full_disk_is_one_sentence_and_leaves_no_pieces(tmp_path: Path, monkeypatch, capsys) -> None:
    """A limit on the size of files stands in for the full disk: the write of the checkpoint fails half-way."""
    monkeypatch.chdir(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        assert main(["pretrain", "simclr", *TINY, "--train.steps", "1", "--out", "run", "--no-knn"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("sslcourse: Cannot write run/checkpoint.pt: File too large")
    assert {p.name for p in (tmp_path / "run").iterdir()} <= {"config.json", "data.json", "log.jsonl"}


def test_errors_of_the_system_are_sentences_and_bugs_keep_their_traceback(monkeypatch, capsys) -> None:
    from sslcourse.commands import list_methods

    def fail(error: BaseException):
        def run(argv: list[str]) -> None:
            raise error

        monkeypatch.setattr(list_methods, "run", run)
        return main(["list"])

    assert fail(OSError(28, "No space left on device", "runs/a")) == 2
    assert capsys.readouterr().err == (
        "sslcourse: No space left on device: runs/a; free some space or choose another folder\n"
    )
    assert fail(PermissionError(13, "Permission denied", "x")) == 2
    assert "Permission denied: x; choose a folder you may write to" in capsys.readouterr().err
    assert fail(MemoryError()) == 2
    assert "smaller --train.batch-size" in capsys.readouterr().err
    assert fail(KeyboardInterrupt()) == 130
    with pytest.raises(ZeroDivisionError):
        fail(ZeroDivisionError())
    monkeypatch.setenv("SSLCOURSE_DEBUG", "1")
    with pytest.raises(OSError, match="No space"):
        fail(OSError(28, "No space left on device"))


def test_warnings_are_one_line(monkeypatch, capsys) -> None:
    import warnings

    from sslcourse.commands import list_methods

    monkeypatch.setattr(list_methods, "run", lambda argv: warnings.warn("skipped 3 files", stacklevel=1))
    assert main(["list"]) == 0
    assert capsys.readouterr().err == "sslcourse: skipped 3 files\n"


# --- pack and doctor ---------------------------------------------------------------------------------------------


def test_pack_writes_what_load_reads(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np
    from PIL import Image

    from sslcourse.data.load import load

    for c in ("cat", "dog"):
        (here / "pets" / c).mkdir(parents=True)
        for i in range(5):
            pixels = np.full((20, 30, 3), 20 * i, dtype=np.uint8)
            Image.fromarray(pixels).save(here / "pets" / c / f"{i}.png")
    (here / "pets" / "dog" / "broken.png").write_bytes(b"not an image")
    assert main(["pack", "pets", "--size", "16"]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"8 training and 2 test images, 2 classes", out)
    assert "skipped 1 file" in err
    assert len(load(here / "pets-pack", "train")) == 8


def test_doctor_says_what_runs_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--no-speed", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {"python", "torch", "cores", "memory", "free disk", "grading sandbox", "GPU presets"} <= set(facts)
    assert main(["doctor"]) == 0
    assert re.search(r"CPU presets +simclr trains on [\d,]+ images/s here", capsys.readouterr().out)
