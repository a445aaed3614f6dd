"""Are many small crops worth their pixels? SwAV with and without multi-crop (Caron et al. 2020, section 3.4).

    python -m benchmarks.findings.multi_crop

The arms are named by their crops. At an equal number of pixels: two of 32 px have 2,048, two of 24 px and three of
16 px have 1,920. Two of 32 px and the small ones have 2,816, two of 24 px alone 1,152.
"""

from dataclasses import replace
from typing import Any

from benchmarks.findings import nonegatives_common as common
from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import METRIC, knn

SMALL = replace(common.VIEW, size=16, scale=(0.2, 0.6))
ARMS: dict[str, tuple[int, int]] = {
    "2 x 32": (32, 0),
    "2 x 24": (24, 0),
    "2 x 24 + 3 x 16": (24, 3),
    "2 x 32 + 3 x 16": (32, 3),
}


def setting() -> dict[str, Any]:
    """What all arms share."""
    return common.setting(method="swav", small=[SMALL.size, *SMALL.scale])


def measure(seed: int) -> dict[str, float]:
    """kNN accuracy of every set of crops, on whole images of 32 px, for one seed."""
    data, found = common.images(seed), {}
    for arm, (size, n_local) in ARMS.items():
        views = {"augment": replace(common.VIEW, size=size), "local": SMALL, "n_local": n_local}
        model = common.build("swav", common.config("swav", seed, **views), common.small_convnet)
        found[arm] = knn(common.trained(model, data[0])[0].backbone, data)
    return found


if __name__ == "__main__":
    question = "Do small crops help SwAV at an equal number of pixels?"
    run(Finding("multi_crop", question, METRIC, "2 x 32", setting()), measure)
