"""Why do CLIP's images and texts lie apart? They start in two cones, and a low temperature leaves them there.

python -m benchmarks.findings.modality_gap

Two small random towers map the same latents to two cones of the sphere (Liang et al. 2022, "Mind the gap"). They are
trained with CLIP's loss at a fixed temperature; the gap is half the distance between the means of the two modalities.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from benchmarks.findings.common import Finding, run
from sslcourse.data.rng import mix, step_generator
from sslcourse.losses.clip import clip_loss

PAIRS, LATENT, WIDTH, DIM, STEPS, LR = 128, 16, 64, 32, 300, 3e-3
TAUS = (0.01, 0.07, 0.5, 1.0)


def setting() -> dict[str, Any]:
    """What all arms share."""
    return {"data": "random latents", "pairs": PAIRS, "latent": LATENT, "dim": DIM, "steps": STEPS, "lr": LR}


def measure(seed: int) -> dict[str, float]:
    """Half the distance between the means of images and texts, before and after training at each temperature."""
    latents = torch.randn(PAIRS, LATENT, generator=step_generator(seed, 0))
    before = _towers(seed)
    found = {"before training": _gap(*(tower(latents) for tower in before))}
    for tau in TAUS:
        towers = _towers(seed)
        optimizer = torch.optim.Adam([p for tower in towers for p in tower.parameters()], LR)
        for _ in range(STEPS):
            loss = clip_loss(*(tower(latents) for tower in towers), -torch.tensor(tau).log())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found[f"tau {tau:g}"] = _gap(*(tower(latents) for tower in towers))
    return found


def _towers(seed: int) -> list[nn.Module]:
    """Two random networks; their biases, drawn as the weights are, set their cones apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, 1))
        towers = [nn.Sequential(nn.Linear(LATENT, WIDTH), nn.ReLU(), nn.Linear(WIDTH, DIM)) for _ in range(2)]
        for tower in towers:
            nn.init.normal_(tower[2].bias, std=0.5)  # type: ignore[arg-type]
    return list(towers)


@torch.no_grad()
def _gap(img: Tensor, txt: Tensor) -> float:
    return ((normalize(img, dim=1).mean(dim=0) - normalize(txt, dim=1).mean(dim=0)).norm() / 2).item()


if __name__ == "__main__":
    question = "How far do images and texts stay apart, by the temperature?"
    run(Finding("modality_gap", question, "distance between the means / 2", "tau 0.07", setting()), measure)
