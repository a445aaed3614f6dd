"""Small trained models that come with the repository, so that a chapter or a lab can start from one.

They lie in the folder weights/ of a checkout, outside the wheel; `make weights` trains and writes them again. A program
that was installed without a checkout finds them in the folder that SSLCOURSE_WEIGHTS names, beside the notebook that
asks, or in a folder weights/ above it, as the students' hand-out has them.
"""

import json
import os
import sys
from pathlib import Path

from sslcourse.errors import InputError, unknown
from sslcourse.train.checkpoint import MODEL, atomic_write

SHIPPED = {  # and what trains them
    "clip_shapes": "sslcourse pretrain clip --data captions --out runs/clip_shapes",
    "mae_shapes": "sslcourse pretrain mae --preset pictures --out runs/mae_shapes",
    "tiny_sam": "python -m sslcourse.segment.train sam",
    "tiny_mobilesam": "python -m sslcourse.segment.train mobilesam",
    "tiny_hqsam": "python -m sslcourse.segment.train hqsam",
    "tiny_fastsam": "python -m sslcourse.segment.train fastsam",
    "tiny_grounded": "python -m sslcourse.segment.train grounded",
    "tiny_matting": "python -m sslcourse.segment.train matting",
}


def shipped(name: str) -> Path:
    """Where the weights of that name lie; `train.load_model` reads the CLIP and the MAE, `segment.load_tiny` the SAM.

    Raises:
        InputError: an unknown name, or no such file here, with the command that makes it.
    """
    if name not in SHIPPED:
        raise unknown("shipped weights:", name, SHIPPED)
    here = Path.cwd()
    above = [folder / "weights" for folder in (here, *here.parents[:2])]  # a lab runs two folders below the hand-out's
    folders = [Path(__file__).parents[2] / "weights", here, *above]
    if given := os.environ.get("SSLCOURSE_WEIGHTS"):
        folders.insert(0, Path(given))
    for folder in folders:
        if (folder / f"{name}.safetensors").is_file():
            return folder / f"{name}.safetensors"
    raise InputError(
        f"the weights '{name}' come with the repository and the hand-out (weights/{name}.safetensors) and are not "
        f"here: put the file beside your notebook, or train them in minutes with `{SHIPPED[name]}` and set "
        "SSLCOURSE_WEIGHTS to their folder."
    )


def write_half(run: str | os.PathLike[str], path: str | os.PathLike[str]) -> int:
    """Write the weights of a run in float16, with what rebuilds the model; the size of the file in bytes.

    Whole numbers stay as they are, and loading widens the others again.
    """
    from safetensors import safe_open
    from safetensors.torch import save

    source = Path(run) / MODEL
    if not source.is_file():
        raise InputError(f"There is no trained model at {source}.")
    with safe_open(source, framework="pt") as opened:
        about = json.loads((opened.metadata() or {}).get("sslcourse", "{}"))
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a dict)
    narrow = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
    data = save(narrow, {"sslcourse": json.dumps(about)})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    atomic_write(Path(path), lambda file: file.write(data))
    return len(data)


if __name__ == "__main__":
    print(f"{sys.argv[2]}: {write_half(*sys.argv[1:3]):,} bytes")
