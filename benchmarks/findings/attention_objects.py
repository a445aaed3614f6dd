"""Does the class token look at the object? DINO, a supervised DeiT and random weights (DINO's figure 4, right).

    SSLCOURSE_PACKS=FOLDER python -m benchmarks.findings.attention_objects

The Jaccard index of the object with 60 % of the attention of the best head, on scenes of `Shapes` and, with the same
networks, on photographs: things in COCO and DAVIS, of the packs in FOLDER. Both networks are trained on sketches with
the same crops for equally many steps of equally many images; the scenes are sketches, too.
"""

import os
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.findings import nonegatives_common as common
from benchmarks.findings.common import Finding, run
from benchmarks.real_masks import objects
from sslcourse.data import Shapes
from sslcourse.errors import InputError
from sslcourse.evaluate.attention import attention_jaccard
from sslcourse.evaluate.dense_data import squash
from sslcourse.evaluate.encoder import Encoder
from sslcourse.methods.deit import DeiT
from sslcourse.nn.vit import ViT

SIDE, SCENES, THINGS, SHARE = 64, 300, 150, 0.05  # SHARE of the image that a thing covers at least
PACKS = ("coco/coco.zip", "davis/davis.zip")


class Supervised(DeiT):
    """DeiT with the ViT of the other arms and the distillation token that it has no teacher for."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.backbone = network(registers=1)
        self.head, self.distilled = (torch.nn.Linear(self.backbone.num_features, config.classes) for _ in range(2))
        self.distilled.requires_grad_(False)


def setting() -> dict[str, Any]:
    """What all arms share, for the record."""
    return common.vit_setting(side=SIDE, scenes=SCENES, things=THINGS)


def network(**changes: Any) -> ViT:
    """The untrained ViT of all arms."""
    return common.hybrid(**{"pool": "cls"} | changes)


@cache
def photographs() -> tuple[Tensor, Tensor]:
    """Things in photographs, (N, 3, SIDE, SIDE) uint8 and (N, SIDE, SIDE) bool, as many of each pack."""
    folder, images, masks = os.environ.get("SSLCOURSE_PACKS"), [], []
    if not folder:
        raise InputError("SSLCOURSE_PACKS has to name the folder that holds coco/coco.zip and davis/davis.zip.")
    for pack in PACKS:
        large = (pair for pair in objects(str(Path(folder) / pack)) if float(pair[1].float().mean()) > SHARE)
        for image, mask in islice(large, THINGS // len(PACKS)):
            images.append(squash(image, SIDE))
            masks.append(F.interpolate(mask[None, None].float(), (SIDE, SIDE), mode="area")[0, 0] > 0.5)
    return torch.stack(images), torch.stack(masks)


def networks(seed: int) -> dict[str, ViT]:
    """The trained networks and the untrained one."""
    data = common.images(seed)[0]
    settings = common.vit_config("dino", seed)
    self_supervised = common.build("dino", settings, network)
    untrained = common.build("dino", settings, network)
    preset = DeiT.PRESETS["cpu"]
    labelled = replace(preset, augment=settings.augment, drop_path=0.0, train=settings.train)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        supervised = Supervised(labelled)
    trained = {"DINO": self_supervised, "DeiT": supervised}
    found = {arm: common.trained(model, data)[0].backbone for arm, model in trained.items()}
    return found | {"untrained": untrained.backbone}


def measure(seed: int) -> dict[str, float]:
    """Mean Jaccard index of every network on scenes and on photographs, for one seed."""
    scenes = Shapes("test", size=SIDE, seed=seed, preset="sketch").batch(range(SCENES))
    sets = {"scenes": (scenes.image, scenes.masks[:, 0]), "photographs": photographs()}
    return {
        f"{arm}, {name}": attention_jaccard(Encoder(vit), *images).value
        for arm, vit in networks(seed).items()
        for name, images in sets.items()
    }


if __name__ == "__main__":
    question = "Does DINO's class token look at objects more than a supervised ViT's?"
    metric = "Jaccard index of the best head's attention (60 % of the mass) with the object"
    run(Finding("attention_objects", question, metric, "DINO, scenes", setting()), measure)
