"""What is SigLIP's bias for? Without it the negatives of the first step drown the positives.

python -m benchmarks.findings.siglip_bias

Each of the N^2 pairs sends its embeddings a gradient of size sigmoid(-z (t cos + b)): here the share of the N positives
among all of that, at the start, where embeddings are random (Zhai et al. 2023, section 3.2).
"""

from typing import Any

import torch
from torch.nn.functional import normalize

from benchmarks.findings.common import Finding, run
from sslcourse.data.rng import step_generator
from sslcourse.losses.clip import siglip_loss

PAIRS, DIM, FACTOR = 256, 64, 10.0
BIASES = (0.0, -5.0, -10.0)


def setting() -> dict[str, Any]:
    """What all arms share."""
    return {"data": "random unit vectors", "pairs": PAIRS, "dim": DIM, "factor": FACTOR}


def measure(seed: int) -> dict[str, float]:
    """Share of the gradient that comes from positives, at each bias."""
    g = step_generator(seed, 0)
    img, txt = (normalize(torch.randn(PAIRS, DIM, generator=g), dim=1) for _ in range(2))
    found = {}
    for bias in BIASES:
        # d loss / d bias adds up the slopes of all pairs with their signs; each alone is a loss of one pair.
        logits = FACTOR * img @ txt.T + bias
        slopes = torch.sigmoid(torch.where(torch.eye(PAIRS, dtype=torch.bool), -logits, logits))
        b = torch.tensor(bias, requires_grad=True)
        (total,) = torch.autograd.grad(siglip_loss(img, txt, FACTOR, b), b)
        signed = (slopes.sum() - 2 * slopes.diagonal().sum()) / PAIRS
        torch.testing.assert_close(total, signed, rtol=1e-3, atol=1e-4)  # these are the slopes of the library's loss
        found[f"b = {bias:g}"] = (slopes.diagonal().sum() / slopes.sum()).item()
    return found


if __name__ == "__main__":
    question = "What share of SigLIP's first gradient comes from the positives, by the bias it starts with?"
    run(Finding("siglip_bias", question, "share of the gradient", "b = -10", setting()), measure)
