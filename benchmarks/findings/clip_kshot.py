"""How many labelled images is a name worth? The shipped CLIP by words against linear probes on its own features.

python -m benchmarks.findings.clip_kshot

Twenty pairs of colour and shape that the model never saw together. A seed draws the labelled images and the test
images; the k images of a class are among the 2k (Radford et al. 2021, section 3.1.5 and figure 6).
"""

from typing import Any

from benchmarks.findings import clip_common as common
from benchmarks.findings.common import Finding, run
from sslcourse.data.captioned import HELD_OUT, PAIRS, combinations
from sslcourse.evaluate.captions import TEMPLATES
from sslcourse.evaluate.kshot import k_per_class
from sslcourse.evaluate.linear import linear_probe

SHOTS = (1, 2, 4, 8, 16)
POOL = 2000  # labelled images to draw from, about 100 a class
L2 = (0.01,)  # one value for all k: a single image a class leaves none to choose it on


def setting() -> dict[str, Any]:
    """What all arms share."""
    return common.setting() | {"classes": len(HELD_OUT), "pool": POOL, "l2": L2[0], "trained here": "linear probes"}


def measure(seed: int) -> dict[str, float]:
    """Accuracy of words and of probes on k images of every class, on the same test images."""
    pool, test = (combinations(split, n, common.SIZE, seed) for split, n in (("train", POOL), ("test", common.TEST)))
    x, z = common.embed(pool.images), common.embed(test.images)
    y, t = common.unseen(pool.labels), common.unseen(test.labels)
    found = {"words": common.words_accuracy(z, t, [PAIRS[i] for i in sorted(HELD_OUT)], TEMPLATES)}
    for k in SHOTS:
        rows = k_per_class(y, k, seed)
        found[f"{k}-shot"] = linear_probe(x[rows], y[rows], z, t, sweep=L2).value
    return found | {"all labels": linear_probe(x, y, z, t, sweep=L2).value}


if __name__ == "__main__":
    question = "How many labelled images of a class does a linear probe need to match the words?"
    run(Finding("clip_kshot", question, "accuracy, 20 classes", "words", setting()), measure)
