"""What students get: the labs, a wheel with the library and the machinery of `sslcourse check`, small weights, a guide.

Never part of it: `autograder/checks/` and `solutions/`.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from autograder.answers import COURSE
from sslcourse.errors import InputError

_GUIDE = """# Labs of sslcourse

    python3 -m venv .venv
    .venv/bin/pip install -r requirements.txt
    .venv/bin/jupyter lab labs

On Windows the programs are in .venv\\Scripts. Start with labs/00_warmup/00_warmup.ipynb: it also says how labs work.
Before you hand in, run

    .venv/bin/sslcourse check labs/00_warmup/00_warmup.ipynb

It runs the checks that you see in the notebook, each exercise alone, as the grader will, and says what would cost
points. Hand in the .ipynb file.
"""


def build_wheel(folder: Path, course: Path = COURSE) -> Path:
    """Build the wheel of the project into `folder`."""
    command = [sys.executable, "-m", "uv", "build", "--wheel", "--quiet", "--out-dir", str(folder), str(course)]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise InputError(f"the wheel could not be built:\n{(done.stdout + done.stderr)[-1500:]}")
    return wheels[0]


def build(target: Path, course: Path = COURSE) -> Path:
    """Write the students' zip."""
    labs = sorted((course / "labs").glob("*/*.ipynb"))
    if not labs:
        raise InputError(f"{course / 'labs'} holds no lab: run `make labs`.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder), course)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for lab in labs:
                archive.write(lab, lab.relative_to(course))
            for weights in sorted((course / "weights").glob("*.safetensors")):  # labs start from them: `zoo.weights`
                archive.write(weights, weights.relative_to(course))
            archive.write(wheel, wheel.name)
            archive.writestr("requirements.txt", f"./{wheel.name}[viz]\njupyterlab\nipywidgets\n")
            archive.writestr("README.md", _GUIDE)
    return target
