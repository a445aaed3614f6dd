"""`sslcourse curate --pool FOLDER --curated FOLDER`: the images of a pool worth training on (DINOv2, section 3)."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sslcourse.commands.arguments import parse
from sslcourse.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from sslcourse.evaluate.encoder import Encoder


@dataclass(frozen=True)
class Options:
    """Keep the images of an uncurated pool that are no copies of one another and resemble a curated set.

    Every image is embedded; of each group of copies in the pool one stays, unless it is a copy of a held-out image;
    then the nearest neighbours of each curated image are kept, or images of the clusters that curated ones fall into.
    OUT/images has the kept ones (linked, or copied where links do not work) for `sslcourse pretrain --data OUT/images`,
    OUT/kept.txt lists them. No file of the pool is touched.
    """

    pool: Path
    """Folder of images to choose from."""
    curated: Path
    """Folder of images that show what is wanted."""
    weights: Path
    """The network that embeds: a run folder of `sslcourse pretrain`; or, with --model, the official file of it."""
    model: str | None = None
    """The published model that --weights holds, for example dinov2_vit_small_patch14."""
    out: Path = Path("curated")
    """Folder to make."""
    held_out: Path | None = None
    """Folder of test images; copies of them are left out of the pool, so that nothing is evaluated on what was seen."""
    copies: float = 0.6
    """Images of the pool with a cosine above this are copies; depends on the network, look at what it joins."""
    held_out_copies: float = 0.45
    """The same between the pool and the held-out images."""
    k: int = 4
    """Neighbours kept for each curated image; with --per-cluster the curated images that make a cluster count."""
    per_cluster: int = 0
    """Take so many images from every cluster of the pool that curated images fall into, for small curated sets; 0 takes
    neighbours."""
    seed: int = 0
    """Of the clustering and the choice."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""


def run(argv: list[str]) -> None:
    options = parse(Options, argv, "curate")

    from sslcourse.commands.weights import load_encoder
    from sslcourse.data.curate import curate_by_retrieval, near_copies, retrieval_dedup

    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise InputError(f"{options.out} is there already; choose another --out.")
    if min(options.k, options.per_cluster + 1) < 1:
        raise InputError(f"--k is at least 1 and --per-cluster at least 0; got {options.k} and {options.per_cluster}.")
    encoder = load_encoder(options.weights, options.model, options.device)
    files, pool = embed(options.pool, encoder)
    _, curated = embed(options.curated, encoder)
    unique = retrieval_dedup(pool, options.copies)
    copies = len(files) - int(unique.sum())
    if options.held_out is not None:
        unique &= ~near_copies(pool, embed(options.held_out, encoder)[1], options.held_out_copies)
        if not unique.any():
            raise InputError(f"every image of {options.pool} is a copy of a held-out one; raise --held-out-copies.")
    candidates = unique.nonzero().flatten()
    kept = curate_by_retrieval(curated, pool[candidates], options.k, options.per_cluster, seed=options.seed)
    names = [files[i] for i in candidates[kept].tolist()]
    if not names:
        raise InputError(f"no cluster holds {options.k} curated images; lower --k or use --per-cluster 0.")
    write(options.pool, names, options.out)
    tested = f", {len(files) - copies - len(candidates)} of held-out images" if options.held_out else ""
    print(
        f"{options.out}: {len(names)} of {len(files)} images kept; left out {copies} copies{tested} and "
        f"{len(candidates) - len(names)} that are far from {options.curated}."
    )


def embed(folder: Path, encoder: "Encoder") -> tuple[list[Path], "Tensor"]:
    """The readable images under a folder, and their features (N, D) on the CPU."""
    import torch

    from sslcourse.data.folder import read_folder
    from sslcourse.data.stream import ImageStream

    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}.")
    source, side = read_folder(folder).source, encoder.size or 224
    print(f"sslcourse: embedding {len(source)} images of {folder} ...", file=sys.stderr)
    stream = ImageStream(source, torch.arange(len(source)), (side, side), workers=0)
    found = [
        (index, encoder(images))
        for images, _, index in stream.batches(encoder.batch_size, shuffle=False, drop_last=False)
    ]
    features = torch.cat([x.cpu() for _, x in found])
    # The stream puts another image in the place of a broken file: each image counts once.
    rows = {place: row for row, place in enumerate(torch.cat([index for index, _ in found]).tolist())}
    return [Path(source.files[place]) for place in rows], features[list(rows.values())]


def write(pool: Path, files: list[Path], out: Path) -> None:
    """OUT/images with the files at the places they have in the pool, and OUT/kept.txt."""
    out.mkdir(parents=True, exist_ok=True)
    for file in files:
        place = out / "images" / file.relative_to(pool)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, place)
        except OSError:  # another disk, or one without links
            shutil.copy2(file, place)
    (out / "kept.txt").write_text("".join(f"{file}\n" for file in files))
