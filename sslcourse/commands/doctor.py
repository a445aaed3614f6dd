"""`sslcourse doctor`: what this machine can run, measured where a guess would mislead."""

import importlib.util
import os
import platform
import shutil
import subprocess
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sslcourse import __version__, catalogue
from sslcourse.commands.arguments import parse

# Module -> what it is for; only what a user may do without.
OPTIONAL = {
    "matplotlib": "figures: sslcourse[viz]",
    "jupyter_book": "building the book: sslcourse[course]",
    "nbgrader": "instructors' gradebook: sslcourse[grader]",
    "skimage": "the data set 'photos': sslcourse[course]",
    "tensorboard": "--train.tensorboard",
    "lightly": "speed comparisons: sslcourse[bench]",
}


@dataclass(frozen=True)
class Options:
    """What this machine can run: versions, processors, memory, disk, optional packages, grading sandbox, presets."""

    speed: bool = True
    """Also train the CPU preset's network for a few steps to see how fast it is."""
    json: bool = False
    """Print JSON instead of a table."""


def run(argv: list[str]) -> None:
    options = parse(Options, argv, "doctor")
    facts = {**_software(), **_hardware(), **_packages(), **_sandbox()}
    facts |= _cpu_presets() if options.speed else {}
    facts |= _gpu_presets()
    if options.json:
        import json

        print(json.dumps(facts, indent=1))
        return
    width = max(map(len, facts))
    for name, text in facts.items():
        print(f"{name:<{width}}  {text}")


def _software() -> dict[str, str]:
    import torch

    return {
        "sslcourse": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads",
        "torchvision": _version("torchvision"),
        "timm": _version("timm"),
    }


def _hardware() -> dict[str, str]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {"cores": str(cores), "memory": _memory()}
    home = Path.cwd()
    facts["free disk"] = f"{shutil.disk_usage(home).free / 2**30:.1f} GiB in {home}"
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(i)
            bf16 = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bf16"
            facts[f"GPU {i}"] = f"{device.name}, {device.total_memory / 2**30:.0f} GiB, {bf16}"
    elif torch.backends.mps.is_available():
        facts["GPU"] = "Apple GPU (--device mps)"
    else:
        facts["GPU"] = "none that torch can use"
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    works = torch.cuda.is_available() or compiler is not None
    facts["torch.compile"] = "yes" if works else "no: it needs a C++ compiler (g++ or clang++)"
    return facts


def _memory() -> str:
    """Free and total memory, of the container where it has a limit."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        total, free = (int(lines[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):  # not Linux
        pages = os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}) else 0
        return f"{pages * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB" if pages else "unknown"
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        total, free = min(total, limit), min(free, limit - used)
    except (OSError, ValueError):  # no limit
        pass
    return f"{free / 2**30:.1f} GiB free of {total / 2**30:.1f} GiB"


def _packages() -> dict[str, str]:
    """Which optional packages are there, and what the others would be for."""
    return {
        name: _version(name) if importlib.util.find_spec(name) else f"not installed ({use})"
        for name, use in OPTIONAL.items()
    }


def _version(module: str) -> str:
    try:
        return version({"jupyter_book": "jupyter-book", "skimage": "scikit-image"}.get(module, module))
    except PackageNotFoundError:
        return "not installed"


def _sandbox() -> dict[str, str]:
    """How well student code can be locked away when grading."""
    works = [tool for tool, probe in _PROBES.items() if _succeeds(probe)]
    if works:
        return {"grading sandbox": f"{' and '.join(works)} work"}
    return {
        "grading sandbox": "no bwrap and no user namespaces: grading falls back to resource limits (Linux has both)"
    }


_PROBES = {
    "bwrap": ["bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"],
    "unshare": ["unshare", "--user", "--map-root-user", "--net", "true"],
}


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _cpu_presets() -> dict[str, str]:
    """How long SimCLR's CPU preset takes here, from a few real steps; the others cost about as much."""
    from sslcourse import methods
    from sslcourse.train.config import total_steps

    name = "simclr"
    config = catalogue.method_class(name).PRESETS[catalogue.row(name).presets[0]]
    rate = _images_per_second(methods.build(name, config), config.augment.size, config.train.batch_size)
    steps, _ = total_steps(config.train, 5000)
    minutes = steps * config.train.batch_size / rate / 60
    return {"CPU presets": f"{name} trains on {rate:,.0f} images/s here: {minutes:.1f} minutes for 5,000 images"}


def _images_per_second(module: Any, size: int, batch: int, seconds: float = 3.0) -> float:
    """Augmentation, forward and backward pass; the first step pays for allocations and is not counted."""
    import torch

    from sslcourse.data.rng import step_generator

    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=step_generator(0, 0))
    done, begun = -1, 0.0
    while done < 1 or time.perf_counter() - begun < seconds:
        if done == 0:
            begun = time.perf_counter()
        module(module.views(images, step_generator(0, done + 1)))["loss"].backward()
        done += 1
    return batch * done / (time.perf_counter() - begun)


def _gpu_presets() -> dict[str, str]:
    import torch

    names = sorted({p for row in catalogue.METHODS.values() for p in row.presets if not p.startswith("cpu")})
    if torch.cuda.is_available():
        return {"GPU presets": f"{', '.join(names)}; where memory is short, --train.accumulate 2 halves the need"}
    return {"GPU presets": f"{', '.join(names)} would take days or weeks without a GPU"}
