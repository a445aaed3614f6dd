"""Words against labels under shift: the same frozen features, classified by names or by a probe on photographs.

python -m benchmarks.findings.clip_shift_words

Probes on more and more labelled photographs give the line of accuracies that one expects under shift, on the logit axes
(Taori et al. 2020). "Expected" is that line at the accuracy of the words on photographs; the words minus that are their
effective robustness. Fitting a probe to one distribution costs the large CLIP robustness under others (Radford et al.
2021, section 3.3). The small one knows names with a colour only, and a sketch has none: its words fall below the line.
"""

from typing import Any

from benchmarks.findings import clip_common as common
from benchmarks.findings.common import Finding, run
from sslcourse.data.captioned import CLASSES, PAIRS
from sslcourse.data.rng import mix
from sslcourse.evaluate.captions import TEMPLATES
from sslcourse.evaluate.kshot import k_per_class
from sslcourse.evaluate.linear import fit_linear
from sslcourse.evaluate.robustness import fit_logit_line
from sslcourse.evaluate.zeroshot import zero_shot_weights

POOL, SHOTS, L2 = 2000, (4, 16, 64), (0.01,)


def setting() -> dict[str, Any]:
    """What all arms share."""
    return common.setting() | {
        "classes": len(CLASSES),
        "trained here": "linear probes on photographs",
        "pool": POOL,
        "shots": list(SHOTS),
        "l2": L2[0],
    }


def measure(seed: int) -> dict[str, float]:
    """Accuracy of shape by words and by probes, on photographs and under each shift."""
    pool = common.single("train", POOL, mix(seed, 1))
    tests = {name: common.single("test", common.TEST, seed, **knobs) for name, knobs in common.SHIFTS.items()}
    labels, x = tests["photo"].labels, common.embed(pool.images)
    z = {name: common.embed(test.images) for name, test in tests.items()}
    names = zero_shot_weights(common.model().text, PAIRS, TEMPLATES)
    found = {f"{name}: words": common.shape_accuracy(img, labels, names) for name, img in z.items()}
    probes = []
    for k in SHOTS:
        rows = k_per_class(pool.labels, k, seed)
        probe = fit_linear(x[rows], pool.labels[rows], sweep=L2)
        probes.append({name: common.accuracy(probe(img), labels) for name, img in z.items()})
    found |= {f"{name}: probe": accuracy for name, accuracy in probes[-1].items()}
    for name in list(common.SHIFTS)[1:]:
        known, shifted = ([common.inside(p[of]) for p in probes] for of in ("photo", name))
        line = fit_logit_line(known, shifted)
        found[f"{name}: expected"] = line(common.inside(found["photo: words"])).item()
    return found


if __name__ == "__main__":
    question = "Do words keep more under shift than a probe of the same accuracy on the same features?"
    run(Finding("clip_shift_words", question, "accuracy, 10 shapes", "photo: words", setting()), measure)
