"""Bad input to the loop: one clear sentence, and nothing half-written."""

import errno
import json
import os
from dataclasses import replace

import pytest
import torch
from train_helpers import Tiny, images, tiny_config

from sslcourse import methods
from sslcourse.errors import InputError
from sslcourse.train import fit, from_dict, load_model, to_dict
from sslcourse.train.checkpoint import atomic_write
from sslcourse.train.log import RunLog


def run(path, config=None, *, resume=False, module=None, data=None, **train):
    config = config or tiny_config(**train)
    return fit(module or methods.build(Tiny, config), data or images(), config, path, resume=resume, progress=False)


def leftovers(path):
    return [name for name in os.listdir(path) if name.startswith(".")]


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    run(tmp_path / "run", epochs=1)
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    with pytest.raises(InputError, match=r"already holds a run; resume it .*--resume.*another folder"):
        run(tmp_path / "run", epochs=1)
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


def test_there_has_to_be_something_to_resume(tmp_path):
    with pytest.raises(InputError, match="no run to resume"):
        run(tmp_path / "nothing", resume=True)
    assert not (tmp_path / "nothing").exists()


def test_other_settings_are_named(tmp_path):
    run(tmp_path / "run", epochs=1)
    other = replace(tiny_config(epochs=1, lr=0.3), tau=0.2)
    with pytest.raises(InputError, match=r"tau: 0.5 before, 0.2 now; train.lr: 0.1 before, 0.3 now"):
        run(tmp_path / "run", other, resume=True)


def test_another_method_is_named(tmp_path):
    run(tmp_path / "run", epochs=1)

    class Other(Tiny):
        name = "other"

    with pytest.raises(InputError, match=r"holds a run of 'tiny'.*as 'other'"):
        run(tmp_path / "run", resume=True, epochs=1, module=methods.build(Other, tiny_config(epochs=1)))


def foreign(path):
    torch.save({"weights": torch.zeros(2)}, path)


def of_another_method(path):
    state = torch.load(path, weights_only=True)
    torch.save(state | {"method": "byol"}, path)


def of_another_shape(path):
    state = torch.load(path, weights_only=True)
    state["model"]["backbone.0.weight"] = torch.zeros(3)
    torch.save(state, path)


def with_code(path):
    torch.save({"format": Tiny}, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "cannot be read as a checkpoint"),
        (lambda path: path.write_bytes(b""), "cannot be read as a checkpoint"),
        (with_code, "cannot be read as a checkpoint"),
        (foreign, "not a checkpoint of sslcourse"),
        (of_another_method, "a checkpoint of 'byol', not of 'tiny'"),
        (of_another_shape, "does not fit this model: .*backbone.0.weight"),
    ],
)
def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path, damage, message):
    run(tmp_path / "run", epochs=1)
    damage(tmp_path / "run" / "checkpoint.pt")
    log = (tmp_path / "run" / "log.jsonl").read_text()
    with pytest.raises(InputError, match=message):
        run(tmp_path / "run", resume=True, epochs=1)
    assert (tmp_path / "run" / "log.jsonl").read_text() == log


def test_a_damaged_config_is_refused(tmp_path):
    run(tmp_path / "run", epochs=1)
    (tmp_path / "run" / "config.json").write_text('{"method": "ti')
    with pytest.raises(InputError, match=r"is not the config.json of a run"):
        run(tmp_path / "run", resume=True, epochs=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 128}, r"larger than the dataset \(64 images\)"),
        ({"batch_size": 1}, "1 image per forward pass"),
        ({"batch_size": 16, "accumulate": 16}, "1 image per forward pass"),
        ({"batch_size": 16, "accumulate": 3}, "cannot be split evenly"),
        ({"epochs": 0}, "epochs >= 1"),
        ({"lr": 0.0}, "learning rate"),
        ({"log_every": 0}, "log_every"),
        ({"optimizer": "adamv"}, "did you mean 'adamw'"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "run", **settings)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_run_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot make the run folder"):
        run(tmp_path / "file" / "run")


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    class Diverging(Tiny):
        def after_step(self, step, total_steps):
            if step == 5:
                self.backbone[0].weight.data.fill_(torch.nan)

    module = methods.build(Diverging, tiny_config())
    with pytest.raises(InputError, match=r"The loss is nan after step 8.*last good checkpoint"):
        run(tmp_path / "run", module=module, checkpoint_every=4)
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 4
    assert all(value.isfinite().all() for value in state["model"].values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    """The loss of a step is computed before its update: it can be finite when the weights no longer are."""

    class Diverging(Tiny):
        def after_step(self, step, total_steps):
            if step == 7:
                self.backbone[0].weight.data.fill_(torch.inf)

    module = methods.build(Diverging, tiny_config())
    with pytest.raises(InputError, match="weights are no longer finite after step 8"):
        run(tmp_path / "run", module=module, checkpoint_every=4)
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 4


def full_disk(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    def fill_the_disk(self, step, total_steps):
        if step == 5:
            monkeypatch.setattr(os, "fsync", full_disk)

    class Unlucky(Tiny):
        after_step = fill_the_disk

    module = methods.build(Unlucky, tiny_config())
    with pytest.raises(InputError, match=r"checkpoint.pt: No space left on device. The file written before"):
        run(tmp_path / "run", module=module, checkpoint_every=4)
    assert leftovers(tmp_path / "run") == []
    monkeypatch.undo()
    run(tmp_path / "run", resume=True, checkpoint_every=4)


def test_atomic_write_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "value"
    atomic_write(path, lambda file: file.write(b"old"))

    def half(file):
        file.write(b"ne")
        raise OSError(errno.EROFS, "Read-only file system")

    with pytest.raises(InputError, match="Read-only file system"):
        atomic_write(path, half)
    with pytest.raises(ZeroDivisionError):
        atomic_write(path, lambda file: 1 / 0)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["value"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_log_that_cannot_be_written(tmp_path):
    log = RunLog(tmp_path)
    os.unlink(log.path)
    os.symlink("/dev/full", log.path)
    with pytest.raises(InputError, match="No space left on device"):
        log.write(1, {"loss": 1.0})


def test_a_model_file_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="no trained model"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load_model(tmp_path)
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="not written by sslcourse"):
        load_model(tmp_path)


def test_a_config_survives_json_and_unknown_keys_are_named():
    config = tiny_config(lr=0.3, betas=(0.9, 0.95))
    values = json.loads(json.dumps(to_dict(config)))
    assert from_dict(Tiny.Config, values) == config
    values["train"]["bach_size"] = 3
    with pytest.raises(InputError, match=r"config.train 'bach_size'; did you mean 'batch_size'"):
        from_dict(Tiny.Config, values)
