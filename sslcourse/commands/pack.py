"""`sslcourse pack FOLDER`: a folder of images becomes two files that load fast (book/data-format.md)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sslcourse.commands.arguments import parse


@dataclass(frozen=True)
class Options:
    """Pack a folder of images (FOLDER/CLASS/*, or FOLDER/*, or either below train/ and test/) into one file.

    `sslcourse pretrain METHOD --data OUT` reads it. Files that are no images are skipped and counted.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """The images."""
    out: Path | None = None
    """Folder to write; FOLDER-pack by default."""
    size: int | None = None
    """Shrink images to this short side in pixels; smaller ones stay. All stay as they are by default."""
    quality: int = 90
    """JPEG quality of images that have to be encoded, 1 to 95."""
    test_fraction: float = 0.2
    """Share of every class to keep for testing, where the folder has no split of its own."""
    seed: int = 0
    """Seed of that split."""


def run(argv: list[str]) -> None:
    options = parse(Options, argv, "pack")

    from sslcourse.data.packs import pack

    folder = options.folder.resolve()
    out = options.out or folder.with_name(f"{folder.name}-pack")
    packed = pack(
        folder,
        out,
        size=options.size,
        quality=options.quality,
        test_fraction=options.test_fraction,
        seed=options.seed,
    )
    n, n_test = len(packed), 0 if packed.is_test is None else int(packed.is_test.sum())
    classes = len(packed.source.classes)
    print(f"{out}: {n - n_test} training and {n_test} test images, {classes} classes; use it with --data {out}")
