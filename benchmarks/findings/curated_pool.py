"""Does curation of a polluted pool help? SimSiam on the pool, and on what resembles a few curated images.

    python -m benchmarks.findings.curated_pool

Three in four images of the pool are of another kind. The embeddings for the retrieval come from the network that was
trained on the whole pool; nobody looks at a label. As in DINOv2 (section 3), the nearest images of the pool to every
curated one are kept, each once. All arms take equally many steps.
"""

from dataclasses import replace
from typing import Any

import torch

from benchmarks.findings import nonegatives_common as common
from benchmarks.findings import simclr_common as shared
from benchmarks.findings import simsiam_collapse as simsiam
from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import METRIC, knn
from sslcourse.data import Images, Shapes
from sslcourse.data.curate import curate_by_retrieval
from sslcourse.evaluate import extract_features

CLEAN, CURATED, NEAREST = 0.25, 100, 16  # share of sketches in the pool; curated images, neighbours of each


def setting() -> dict[str, Any]:
    """What all arms share."""
    own = {"method": "simsiam", "clean": CLEAN, "curated": CURATED, "nearest": NEAREST, "pollution": "multi"}
    return simsiam.setting() | own


def pool(seed: int) -> tuple[Images, int]:
    """Sketches, then scenes with several objects and every background; and how many of them are sketches."""
    clean = int(CLEAN * shared.TRAIN)
    parts = (("sketch", clean), ("multi", shared.TRAIN - clean))
    both = [Shapes("train", size=shared.SIZE, seed=seed, preset=preset).as_images(n) for preset, n in parts]
    images, labels = torch.cat([part.images for part in both]), torch.full((shared.TRAIN,), -1)
    return replace(both[0], images=images, labels=labels), clean


def measure(seed: int) -> dict[str, float]:
    """kNN accuracy on sketches after training on each choice of images, for one seed."""
    data, (whole, clean) = common.images(seed), pool(seed)
    curated = Shapes("val", size=shared.SIZE, seed=seed, preset="sketch").as_images(CURATED)

    def trained(chosen: Images) -> Any:
        return common.trained(simsiam.network(seed), chosen)[0].backbone

    on_pool = trained(whole)
    queries, bank = (extract_features(on_pool, part) for part in (curated, whole))
    kept = curate_by_retrieval(queries, bank, NEAREST)
    drawn = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))[: len(kept)]
    chosen = {"random": drawn, "curated": kept, "all sketches": torch.arange(clean)}
    networks = {"pool": on_pool} | {arm: trained(whole.subset(index)) for arm, index in chosen.items()}
    accuracy = {arm: knn(network, data) for arm, network in networks.items()}
    return accuracy | {"sketches among the curated": float((kept < clean).float().mean())}


if __name__ == "__main__":
    question = "Does choosing from a polluted pool by retrieval raise the accuracy of SimSiam?"
    run(Finding("curated_pool", question, METRIC, "pool", setting()), measure)
