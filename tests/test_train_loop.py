"""The loop: resume gives the same bits, randomness is private, schedules are followed, the log says what happened."""

import json
import os
import signal
import sys

import pytest
import torch
from train_helpers import Tiny, images, tiny_config

from sslcourse import methods
from sslcourse.train import fit, load_model, read_log
from sslcourse.train.log import TIMES, Progress
from sslcourse.train.optim import warmup_cosine


def run(tmp_path, name="run", *, resume=False, module=None, data=None, eval_data=None, **train):
    config = tiny_config(**train)
    module = module or methods.build(Tiny, config)
    out = fit(module, data or images(), config, tmp_path / name, resume=resume, progress=False, eval_data=eval_data)
    return module, out


def interrupting(config, at, action):
    """A Tiny whose step number `at` ends with `action`."""

    class Interrupted(Tiny):
        def after_step(self, step, total_steps):
            super().after_step(step, total_steps)
            if step + 1 == at:
                action(self)

    return methods.build(Interrupted, config)


def checkpoint(path):
    state = torch.load(path / "checkpoint.pt", weights_only=True)
    return {key: state[key] for key in ("step", "model", "optimizer")}


def log_without_times(path):
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read_log(path)]


def assert_same_run(a, b):
    torch.testing.assert_close(checkpoint(a), checkpoint(b), rtol=0, atol=0)
    assert log_without_times(a) == log_without_times(b)
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lars"])
def test_ctrl_c_leaves_a_run_that_resumes_to_the_same_bits(tmp_path, capsys, optimizer):
    settings = {"optimizer": optimizer, "epochs": 3}
    run(tmp_path, "whole", **settings)
    module = interrupting(tiny_config(**settings), 5, lambda m: os.kill(os.getpid(), signal.SIGINT))
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, "parts", module=module, **settings)
    assert stopped.value.code == 130
    assert signal.getsignal(signal.SIGINT) is handler
    assert "--resume" in capsys.readouterr().err
    assert checkpoint(tmp_path / "parts")["step"] == 5
    run(tmp_path, "parts", resume=True, **settings)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_killed_run_resumes_from_its_last_checkpoint_to_the_same_bits(tmp_path):
    def die(module):
        raise KeyError("killed")

    run(tmp_path, "whole", checkpoint_every=3)
    module = interrupting(tiny_config(), 8, die)
    with pytest.raises(KeyError):
        run(tmp_path, "parts", module=module, checkpoint_every=3)
    assert read_log(tmp_path / "parts")[-1]["step"] == 6
    with open(tmp_path / "parts" / "log.jsonl", "a") as file:
        file.write('{"step": 7, "lo')  # the line that was being written
    run(tmp_path, "parts", resume=True, checkpoint_every=3)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_resume_before_the_first_checkpoint_starts_again_and_after_the_last_step_changes_nothing(tmp_path):
    run(tmp_path, "whole")
    os.makedirs(tmp_path / "parts")
    (tmp_path / "parts" / "config.json").write_bytes((tmp_path / "whole" / "config.json").read_bytes())
    run(tmp_path, "parts", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    before = (tmp_path / "whole" / "log.jsonl").read_text()
    _, out = run(tmp_path, "whole", resume=True)
    assert (tmp_path / "whole" / "log.jsonl").read_text() == before
    assert out == json.loads(before.splitlines()[-1])


def test_reports_may_change_between_a_run_and_its_continuation(tmp_path):
    module = interrupting(tiny_config(), 4, lambda m: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        run(tmp_path, module=module)
    _, out = run(tmp_path, resume=True, log_every=1, checkpoint_every=100)
    assert [line["step"] for line in read_log(tmp_path / "run")] == [2, 4, *range(5, 13)]
    assert out["step"] == 12


def test_the_seed_decides_everything_and_the_global_generator_is_left_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run(tmp_path, "a")
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    run(tmp_path, "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")
    run(tmp_path, "c", seed=1)
    assert read_log(tmp_path / "a")[-1]["loss"] != read_log(tmp_path / "c")[-1]["loss"]


def test_the_learning_rate_warms_up_per_step_and_follows_the_cosine(tmp_path):
    run(tmp_path, log_every=1, epochs=4, warmup_epochs=1.5, lr=0.8, final_lr=0.16)
    lines = read_log(tmp_path / "run")
    expected = [warmup_cosine(step, 16, 6, 0.8 / 16, 0.16 / 16) for step in range(16)]
    assert [line["lr"] for line in lines] == pytest.approx(expected)


@pytest.mark.parametrize(("limit", "taken"), [(6, 6), (100, 12)])
def test_steps_limit_the_epochs(tmp_path, limit, taken):
    module, out = run(tmp_path, steps=limit)
    assert out["step"] == taken
    assert module.steps_seen == taken


class Averaging(Tiny):
    """A loss that is a mean over images, without random views: its gradient can be accumulated exactly."""

    def views(self, images, generator):
        return [images.float() / 255]

    def forward(self, views):
        z = self.backbone(views[0])
        return {"loss": (z - 1).pow(2).mean(), "embedding": z}


def test_accumulated_parts_give_the_gradient_of_the_whole_batch(tmp_path):
    whole, _ = run(tmp_path, "whole", module=methods.build(Averaging, tiny_config()))
    parts, _ = run(tmp_path, "parts", module=methods.build(Averaging, tiny_config()), accumulate=4)
    torch.testing.assert_close(whole.state_dict(), parts.state_dict(), rtol=1e-4, atol=1e-6)


def test_clipping_shortens_the_step(tmp_path):
    start = methods.build(Tiny, tiny_config()).backbone[0].weight
    free, _ = run(tmp_path, "free", steps=2, warmup_epochs=0, momentum=0.0)
    clipped, _ = run(tmp_path, "clipped", steps=2, warmup_epochs=0, momentum=0.0, clip_grad=1e-4)
    moved = [(m.backbone[0].weight - start).norm() for m in (free, clipped)]
    assert 0 < moved[1] < 1e-4 < moved[0]


def test_a_run_folder_holds_what_is_needed_to_use_the_model(tmp_path, monkeypatch):
    module, out = run(tmp_path, eval_data=(images(64), images(32, seed=1)))
    assert sorted(os.listdir(tmp_path / "run")) == ["checkpoint.pt", "config.json", "log.jsonl", "model.safetensors"]
    assert out["knn"] > 0.8  # the classes differ in mean colour
    assert {
        "loss",
        "lr",
        "feature_std",
        "rankme",
        "alignment",
        "uniformity",
        "images_per_second",
        "epoch",
    } <= out.keys()
    monkeypatch.setattr(methods, "get", {"tiny": Tiny}.__getitem__)
    for path in (tmp_path / "run", tmp_path / "run" / "model.safetensors"):
        loaded = load_model(path)
        assert not loaded.training
        assert loaded.config == module.config
        torch.testing.assert_close(loaded.state_dict(), module.state_dict(), rtol=0, atol=0)


def test_knn_is_evaluated_every_so_many_epochs_and_at_the_end(tmp_path):
    run(tmp_path, eval_data=(images(), images(seed=1)), eval_every=2, log_every=100)
    assert [(line["step"], "knn" in line) for line in read_log(tmp_path / "run")] == [
        (4, False),
        (8, True),
        (12, True),
    ]


def test_tensorboard_gets_the_same_numbers(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(tmp_path, tensorboard=True)
    events = accumulator.EventAccumulator(str(tmp_path / "run")).Reload()
    shown = {event.step: event.value for event in events.Scalars("loss")}
    assert shown == pytest.approx({line["step"]: line["loss"] for line in read_log(tmp_path / "run")}, rel=1e-6)


def test_progress_is_lines_of_text_without_a_terminal(capsys):
    with Progress(10, label="tiny", every=0.0) as progress:
        progress.update(4)
        progress.update(5, 1.25, 1234.0)
    text = capsys.readouterr().err
    assert "step 5/10" in text
    assert "loss 1.2500" in text
    assert "1,234 images/s" in text
    assert "left" in text


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress(10, label="tiny") as progress:
        progress.update(5, 1.25, 1234.0)
        assert progress.bar.tasks[0].completed == 5
        assert progress.bar.tasks[0].fields == {"loss": "1.2500", "rate": "1,234"}
