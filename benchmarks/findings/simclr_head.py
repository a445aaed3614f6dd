"""Does a head that is thrown away help, and which layer is better? SimCLR, section 4.2, in miniature.

python -m benchmarks.findings.simclr_head
"""

from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import METRIC, SIZE, TEST, TRAIN, WithHead, config, images, knn, trained

STEPS = 200


def measure(seed: int) -> dict[str, float]:
    """kNN accuracy on h for three heads, and on z = g(h) for the two-layer one, for one seed."""
    data = images(seed)
    mlp, linear, none = (trained(config(seed, STEPS, head=head), data[0]) for head in ("mlp", "linear", "none"))
    return {
        "two layers, h": knn(mlp.backbone, data),
        "two layers, z": knn(WithHead(mlp), data),
        "linear, h": knn(linear.backbone, data),
        "none, h": knn(none.backbone, data),
    }


if __name__ == "__main__":
    run(
        Finding(
            name="simclr_head",
            question="Does SimCLR's projection head help on Shapes, and is h or z the better representation?",
            metric=METRIC,
            baseline="two layers, h",
            setting={"preset": "cpu", "steps": STEPS, "data": "shapes", "size": SIZE, "train": TRAIN, "test": TEST},
        ),
        measure,
    )
