"""How many negatives count? The temperature chooses: the entropy of InfoNCE's weights over random negatives.

python -m benchmarks.findings.effective_negatives

The gradient of InfoNCE weighs negative j by p_j = softmax(s_j / tau). exp(entropy of p) is the number of negatives that
an equally weighted set would have to have; here as a share of all of them.
"""

from typing import Any

import torch
from torch.nn.functional import normalize

from benchmarks.findings.common import Finding, run
from sslcourse.data.rng import step_generator

NEGATIVES, DIM, ANCHORS = 255, 32, 256
TAUS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def setting() -> dict[str, Any]:
    """What all arms share."""
    return {"data": "random unit vectors", "negatives": NEGATIVES, "dim": DIM, "anchors": ANCHORS}


def measure(seed: int) -> dict[str, float]:
    """Effective negatives as a share of all, mean over anchors, at each temperature."""
    g = step_generator(seed, 0)
    anchors, negatives = (normalize(torch.randn(n, DIM, generator=g), dim=1) for n in (ANCHORS, NEGATIVES))
    found = {}
    for tau in TAUS:
        log_p = (anchors @ negatives.T / tau).log_softmax(dim=1)
        found[f"tau {tau:g}"] = ((-log_p.exp() * log_p).sum(dim=1).exp().mean() / NEGATIVES).item()
    return found


if __name__ == "__main__":
    question = "What share of the negatives does InfoNCE look at, by temperature?"
    run(Finding("effective_negatives", question, "effective negatives / negatives", "tau 0.1", setting()), measure)
