"""What becomes of rotation in h and in z: not augmented, augmented, or left out in a space of its own (LooC)?

    python -m benchmarks.findings.looc_rotation

Xiao et al. 2021, section 4: a linear probe says which way the object is turned, of four. A network that was told to
ignore rotation cannot know; LooC's space that leaves it out of the augmentations can, and so can the h below it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.findings import simclr_common as common
from benchmarks.findings.common import Finding, run
from benchmarks.findings.simclr_common import FAST, config, trained, untrained
from sslcourse.data import Images, Shapes
from sslcourse.data.pretext import rotation_batch
from sslcourse.evaluate import extract_features
from sslcourse.evaluate.linear import fit_linear
from sslcourse.methods.looc import LooC
from sslcourse.methods.moco import MoCoV2

PRESET = "rotation"
L2 = 1e-3
STEPS, BATCH, MOMENTUM = 300, 64, 0.9


class Turning(MoCoV2):
    """MoCo v2 with random quarter turns of both views."""

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """MoCo's, the first two turned."""
        x_q, x_k, order = super().views(images, generator)
        return [*(self.turned(x, generator) for x in (x_q, x_k)), order]

    def turned(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 3, S, S), every image by its own number of quarter turns."""
        turns = torch.randint(4, (len(x),), generator=generator)
        return rotation_batch(x)[0].unflatten(0, (4, len(x)))[turns, torch.arange(len(x))]


def setting() -> dict[str, Any]:
    """What all arms share."""
    length = {"steps": STEPS, "batch_size": BATCH, "m": MOMENTUM, "train": common.TRAIN // 2}
    return common.setting() | FAST | length | {"shapes": PRESET, "probe": "linear", "l2": L2}


def probe(network: nn.Module, head: nn.Module | None, data: tuple[Images, Images]) -> float:
    """Accuracy of a linear probe for the orientation, on h or on z = head(h)."""
    x, y = (extract_features(network, part) for part in data)
    if head is not None:
        head.eval()
        with torch.no_grad():
            x, y = (nn.functional.normalize(head(h), dim=1) for h in (x, y))
    fitted = fit_linear(x, data[0].labels, sweep=(L2,))
    return (fitted(y).argmax(dim=1) == data[1].labels).float().mean().item()


def measure(seed: int) -> dict[str, float]:
    """Accuracy of the probe on the h and z of each training, for one seed; chance is 1/4."""
    train, test = (Shapes(split, size=common.SIZE, seed=seed, preset=PRESET) for split in ("train", "test"))
    data = train.as_images(common.TRAIN // 2), test.as_images(common.TEST)
    length: dict[str, Any] = {"steps": STEPS, "batch": BATCH, "m": MOMENTUM, **FAST}
    found: dict[str, float] = {}
    for arm, method in {"no turns": MoCoV2, "turns": Turning}.items():
        model = trained(config(seed, MoCoV2, **length), data[0], method)
        found |= {f"{arm}: h": probe(model.backbone, None, data), f"{arm}: z": probe(model.backbone, model.head, data)}
    model = trained(config(seed, LooC, augmentations=("rotation",), **length), data[0], LooC)
    found["LooC: h"] = probe(model.backbone, None, data)
    for space, head in zip(("all", "rotation"), model.heads, strict=True):
        found[f"LooC: z_{space}"] = probe(model.backbone, head, data)
    return found | {"untrained: h": probe(untrained(config(seed, MoCoV2, **length), MoCoV2).backbone, None, data)}


if __name__ == "__main__":
    question = "What do h and z know of rotation when it is an augmentation, is none, or is left out of one space?"
    run(Finding("looc_rotation", question, "accuracy of a linear probe for the turn", "turns: h", setting()), measure)
