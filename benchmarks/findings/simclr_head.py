"""Does a head that is thrown away help, and which layer is better? SimCLR, section 4.2, in miniature.

python -m benchmarks.findings.simclr_head
"""

from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import METRIC, WithHead, config, images, knn, setting, trained


def measure(seed: int) -> dict[str, float]:
    """kNN accuracy on h with and without a head, and on z = g(h), for one seed."""
    data = images(seed)
    with_head, without = (trained(config(seed, head=head), data[0]) for head in ("mlp", "none"))
    return {
        "head, h": knn(with_head.backbone, data),
        "head, z": knn(WithHead(with_head), data),
        "no head, h": knn(without.backbone, data),
    }


if __name__ == "__main__":
    question = "Does SimCLR's projection head help on Shapes, and is h or z the better representation?"
    run(Finding("simclr_head", question, METRIC, "head, h", setting()), measure)
