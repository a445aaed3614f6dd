"""How much of the push goes to negatives of the anchor's own class? The temperature decides that, too.

python -m benchmarks.findings.false_negatives

Handwritten digits (scikit-learn), compared by the cosine of their centred pixels: every anchor meets negatives drawn
without labels, so about a tenth of them are of its own class. InfoNCE pushes negative j in proportion to
p_j = softmax(s_j / tau); here is the share of p that falls on the anchor's own class.
"""

from typing import Any

import torch
from torch.nn.functional import normalize

from benchmarks.findings.common import Finding, run
from sslcourse.data.rng import step_generator

NEGATIVES, ANCHORS = 255, 512
TAUS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def setting() -> dict[str, Any]:
    """What all arms share."""
    return {"data": "scikit-learn digits, centred pixels", "classes": 10, "negatives": NEGATIVES, "anchors": ANCHORS}


def measure(seed: int) -> dict[str, float]:
    """Share of InfoNCE's push that same-class negatives get, mean over anchors; and their share among the negatives."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32), torch.tensor(digits.target)
    z = normalize(x - x.mean(dim=0), dim=1)
    g = step_generator(seed, 0)
    order = torch.stack([torch.randperm(len(z), generator=g)[: NEGATIVES + 1] for _ in range(ANCHORS)])
    anchor, negatives = order[:, 0], order[:, 1:]
    similarity = torch.einsum("ad,and->an", z[anchor], z[negatives])
    false = y[negatives] == y[anchor, None]
    found = {"equal shares": false.float().mean().item()}
    for tau in TAUS:
        p = torch.softmax(similarity / tau, dim=1)
        found[f"tau {tau:g}"] = (p * false).sum(dim=1).mean().item()
    return found


if __name__ == "__main__":
    question = "Which share of InfoNCE's push hits negatives of the anchor's own class, by temperature?"
    metric = "share of the push on false negatives"
    run(Finding("false_negatives", question, metric, "equal shares", setting()), measure)
