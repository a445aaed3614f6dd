"""Files of a run: written whole or not at all, read without running code."""

import io
import json
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from sslcourse import __version__
from sslcourse.errors import InputError
from sslcourse.train.config import differences, from_dict

CHECKPOINT, CONFIG, LOG, MODEL = "checkpoint.pt", "config.json", "log.jsonl", "model.safetensors"
_FORMAT = 1
_KEYS = {"format", "method", "step", "seconds", "model", "optimizer"}


def atomic_write(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, then rename it over `path`.

    A reader, a crash or a full disk therefore meets the old file or the new one, never a part of one.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    temporary: str | None = None
    try:
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # a temporary file is its owner's alone
        os.replace(temporary, path)
    except OSError as error:
        kept = " The file written before it is untouched." if path.exists() else ""
        raise InputError(f"Cannot write {path}: {error.strerror or error}.{kept}") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def _umask() -> int:
    """The process's mask of new files' permissions, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    atomic_write(path, lambda file: file.write((json.dumps(value, indent=2) + "\n").encode()))


@dataclass(frozen=True)
class Run:
    """A run folder. Only the first of several processes writes."""

    dir: Path
    method: str
    config: dict[str, Any]
    writes: bool = True

    @classmethod
    def open(cls, run_dir: str | os.PathLike[str], method: str, config: dict[str, Any], *, resume: bool, fabric: Any):
        """Make the folder of a new run, or check that the run in it can be resumed with this method and config.

        Raises:
            InputError: a folder that holds a run already (new), none or another one (resume), or cannot be written.
        """
        run = cls(Path(run_dir), method, config, fabric.is_global_zero)
        run._check_resume() if resume else run._check_new()
        fabric.barrier()  # every process has looked before the first one writes
        if run.writes:
            try:
                run.dir.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"Cannot make the run folder {run.dir}: {error.strerror or error}.") from error
            write_json(run.dir / CONFIG, {"method": method, "config": config, "sslcourse": __version__})
        return run

    def _check_new(self) -> None:
        if any((self.dir / name).exists() for name in (CONFIG, CHECKPOINT)):
            raise InputError(f"{self.dir} already holds a run; {self.how_to_resume()}, or choose another folder.")

    def _check_resume(self) -> None:
        path = self.dir / CONFIG
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            before, method = saved["config"], saved["method"]
        except OSError:
            raise InputError(f"There is no run to resume in {self.dir} (it has no {CONFIG}).") from None
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path} is not the {CONFIG} of a run.") from None
        if method != self.method:
            raise InputError(f"{self.dir} holds a run of '{method}', which cannot be resumed as '{self.method}'.")
        changed = differences(before, self.config)
        if changed:
            raise InputError(f"{self.dir} cannot be resumed with other settings ({'; '.join(changed)}).")

    def save(self, module: nn.Module, optimizer: Any, step: int, seconds: float) -> None:
        """Write everything the run needs to go on after `step` steps. There is no random state to save.

        Raises:
            InputError: the weights are not finite, or the file cannot be written; the checkpoint before it stays.
        """
        if not self.writes:
            return
        state = module.state_dict()
        if not all(bool(t.isfinite().all()) for t in state.values() if t.is_floating_point()):
            raise InputError(f"The weights are no longer finite after step {step}: lower train.lr. {self.kept()}")
        content = {
            "format": _FORMAT,
            "method": self.method,
            "step": step,
            "seconds": seconds,
            "model": state,
            "optimizer": optimizer.optimizer.state_dict(),
        }
        buffer = io.BytesIO()  # torch.save hides the reason of a failed write; a plain write of bytes names it
        torch.save(content, buffer)
        atomic_write(self.dir / CHECKPOINT, lambda file: file.write(buffer.getbuffer()))

    def restore(self, module: nn.Module, optimizer: Any) -> tuple[int, float]:
        """Load the checkpoint into `module` and `optimizer`; (steps taken, seconds used). (0, 0) if there is none."""
        path = self.dir / CHECKPOINT
        if not path.exists():
            return 0, 0.0
        state = load(path, self.method)
        load_weights(module, state["model"], path)
        optimizer.optimizer.load_state_dict(state["optimizer"])
        return state["step"], state["seconds"]

    def finish(self, module: nn.Module) -> None:
        """Write the trained weights (backbone, head and buffers) as safetensors, with what rebuilds them."""
        from safetensors.torch import save as to_bytes

        if not self.writes:
            return
        tensors = {key: value.detach().cpu().contiguous().clone() for key, value in module.state_dict().items()}
        about = {"method": self.method, "config": self.config, "version": __version__}
        data = to_bytes(tensors, {"sslcourse": json.dumps(about)})  # one entry: safetensors writes several in any order
        atomic_write(self.dir / MODEL, lambda file: file.write(data))

    def how_to_resume(self) -> str:
        return f"resume it with the same command and --resume (train.fit(..., {str(self.dir)!r}, resume=True))"

    def kept(self) -> str:
        """A sentence about the last checkpoint."""
        kept = (self.dir / CHECKPOINT).exists()
        return f"The last good checkpoint, in {self.dir}, is kept." if kept else "No checkpoint was written yet."

    def say(self, text: str) -> None:
        if self.writes:
            print(text, file=sys.stderr, flush=True)


def load(path: Path, method: str) -> dict[str, Any]:
    """Read what `Run.save` wrote, tensors on the CPU, with ``weights_only=True`` (no code in the file is run).

    Raises:
        InputError: no such file, a truncated one, one that `Run.save` did not write, or one of another method.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"There is no checkpoint at {path}.") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
        raise InputError(
            f"{path} cannot be read as a checkpoint (truncated, or not one of sslcourse); "
            "put back an undamaged copy, or start again in another run folder."
        ) from None
    if not isinstance(state, dict) or not state.keys() >= _KEYS:
        raise InputError(f"{path} is not a checkpoint of sslcourse; resume needs the checkpoint.pt of a run folder.")
    if state["format"] != _FORMAT:
        raise InputError(f"{path} has checkpoint format {state['format']}; this version reads {_FORMAT}.")
    if state["method"] != method:
        raise InputError(f"{path} is a checkpoint of '{state['method']}', not of '{method}'.")
    return state


def load_weights(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load `state` into `model`, every key and shape matching.

    Raises:
        InputError: naming the first key that does not fit.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = next(line.strip() for line in [*str(error).splitlines()[1:], str(error)] if line.strip())
        raise InputError(f"{path} does not fit this model: {reason}") from None


def load_model(path: str | os.PathLike[str]) -> nn.Module:
    """The method that a run trained, with its weights, in eval mode on the CPU.

    Args:
        path: a run folder, or its `model.safetensors`.

    Raises:
        InputError: no such file, a damaged one, or one without the metadata of sslcourse.
    """
    from safetensors import SafetensorError, safe_open

    from sslcourse import methods

    file = Path(path) / MODEL if Path(path).is_dir() else Path(path)
    if not file.is_file():
        hint = " (the run has not finished; resume it)" if file.with_name(CHECKPOINT).exists() else ""
        raise InputError(f"There is no trained model at {file}{hint}.")
    try:
        with safe_open(file, framework="pt") as opened:
            about = json.loads((opened.metadata() or {}).get("sslcourse", "{}"))
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as safetensors: {error}") from None
    if "method" not in about or "config" not in about:
        raise InputError(f"{file} was not written by sslcourse (its metadata names no method and config).")
    cls = methods.get(about["method"])
    module = methods.build(cls, from_dict(cls.Config, about["config"], str(file)))
    load_weights(module, tensors, file)
    return module.eval()
