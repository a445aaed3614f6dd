"""All image methods on real photographs: `sslcourse compare` with the CPU presets, cut short, and its table.

    python -m benchmarks.compared PATH/cifar10-small PATH/clothing10      # half an hour; goes on where it stopped

Writes benchmarks/compared/PACK.json, from which `python -m benchmarks.results` makes a section of RESULTS.md.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.methods import OTHERS as FEW_LABELS
from sslcourse import methods
from sslcourse.catalogue import METHODS

FOLDER = Path(__file__).parent / "compared"
EPOCHS = 4
# These need captions, clips, masks, or labels on a part of the images.
OTHERS = {"clip", "siglip", "sam", "videomae", "maskfeat_video", "unmasked_teacher", "dvae"} | FEW_LABELS
PLAIN = ("raw pixels", "HOG")


def names() -> list[str]:
    """The methods that train on images alone, or on images and labels, and have a preset for a CPU."""
    return [name for name, row in METHODS.items() if "cpu" in row.presets and name not in OTHERS]


def command(data: str, out: str) -> list[str]:
    """What a reader types."""
    options = ["--preset", "cpu", "--data", data, "--seeds", "0", "--epochs", str(EPOCHS), "--out", out]
    return ["sslcourse", "compare", *names(), *options]


def own() -> set[str]:
    """The names of the differences to random weights of a method's own network and size."""
    presets = {name: methods.get(name).PRESETS["cpu"] for name in names()}
    return {f"knn, {name} - random init ({c.backbone}, {c.augment.size} px)" for name, c in presets.items()}


def record(data: Path, runs: Path) -> Path:
    """Run the comparison on a pack and keep of its results what the table shows."""
    out, start = runs / data.name, time.monotonic()
    subprocess.run([sys.executable, "-m", *command(str(data), str(out))], check=True)
    rows = json.loads((out / "compare.json").read_text(encoding="utf-8"))
    kept = [{key: row[key] for key in ("name", "value", "low", "high", "n", "over")} for row in rows]
    wanted = [row for row in kept if " - " not in row["name"] or row["name"] in own()]
    path = FOLDER / f"{data.name}.json"
    FOLDER.mkdir(exist_ok=True)
    seconds = round(time.monotonic() - start)
    found = {"command": command(f"PATH/{data.name}", f"runs/{data.name}"), "seconds": seconds, "rows": wanted}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return path


def section(folder: Path = FOLDER) -> list[str]:
    """Of RESULTS.md: one line a method, one column a pack."""
    packs = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    if not packs:
        return []
    columns = {pack: _cells(found["rows"]) for pack, found in packs.items()}
    labels = list(dict.fromkeys(label for cells in columns.values() for label in cells))
    first = next(iter(packs.values()))
    sizes = "; ".join(f"`{pack}`: {found['rows'][0]['n']} test images" for pack, found in packs.items())
    return [
        "## Every method on photographs, a minute each",
        "",
        f"Every preset for a CPU, trained *once* for {EPOCHS} epochs on the training photographs of a pack, so 30 to "
        "120 steps: a test that all of them run on real images, and a baseline to beat, no ranking. The presets are "
        "made for scenes of `Shapes` and, where they say so, for its sketches without colour. kNN accuracy, k = 20, "
        f"95 % interval over test images ({sizes}); below it, paired by image, what the training adds to the same "
        "network with random weights. Methods with labels: SupCon and DeiT.",
        "",
        "| | " + " | ".join(f"{pack}: accuracy | above random init" for pack in packs) + " |",
        "|---|" + "---|---|" * len(packs),
        *(f"| {label} | " + " | ".join(c.get(label, " | ") for c in columns.values()) + " |" for label in labels),
        "",
        "```",
        " ".join(first["command"]),
        "```",
        "",
        "Wall time on 2 busy cores: "
        + ", ".join(f"{found['seconds'] / 60:.0f} min ({pack})" for pack, found in packs.items())
        + ".",
        "",
    ]


def _cells(rows: list[dict[str, Any]]) -> dict[str, str]:
    """label -> its accuracy and what it adds, as two cells."""
    values = {row["name"].removeprefix("knn, "): row for row in rows}
    gains = {name.split(" - ")[0]: row for name, row in values.items() if " - " in name}
    found = {}
    for label, row in values.items():
        if " - " not in label:
            shown = f"`{label}`" if label in METHODS else label
            found[shown] = f"{_number(row)} | {_number(gains[label], '+') if label in gains else ''}"
    return found


def _number(row: dict[str, Any], sign: str = "") -> str:
    return f"{row['value']:{sign}.3f} [{row['low']:{sign}.3f}, {row['high']:{sign}.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path, help="packs or folders of images with labels and a test split")
    parser.add_argument("--runs", type=Path, default=Path("runs/compared"), help="folder of the runs")
    options = parser.parse_args()
    for data in options.data:
        print("wrote", record(data, options.runs))


if __name__ == "__main__":
    main()
