"""What the findings without negatives share: sketches, crops of them, and a run with its log.

On the default scenes colour and light are what a view says most reliably of another. A method that nothing forces to
tell images apart learns those, and so little of the shapes that its kNN accuracy does not say whether it works. On
sketches, ink on paper, shapes are what there is to learn.
"""

from collections.abc import Callable
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from benchmarks.findings import simclr_common as shared
from sslcourse import methods, train
from sslcourse.data import Images, Shapes
from sslcourse.data.augment import Augment
from sslcourse.nn.convnet import ConvNet
from sslcourse.nn.vit import ViT
from sslcourse.train.log import read_log

VIEW = Augment(shared.SIZE, scale=(0.5, 1.0), jitter_p=0.0, gray=0.0, blur=0.0)
STEPS, LR = 300, 4e-3
VIT_STEPS, VIT_LR = 600, 6e-3  # of the findings on patches: a ViT is slower
EVERY = 10  # steps between two points of a curve


def small_convnet() -> ConvNet:
    """Half the channels of `convnet_fast` and a third of its work, where a seed has many trainings."""
    return ConvNet((16, 32, 64, 128), (2, 2, 2, 1))


def small_vit(**changes: Any) -> ViT:
    """Two blocks on a grid of 4 x 4 patches."""
    return ViT(**({"image_size": shared.SIZE, "patch_size": 8, "dim": 64, "depth": 2, "n_heads": 4} | changes))


def hybrid(**changes: Any) -> ViT:
    """`small_vit` on the map of a small convolutional network, without which these minutes are too short for it."""
    return small_vit(**({"stem": "hybrid", "pool": "mean", "mask_token": True} | changes))


def setting(**own: Any) -> dict[str, Any]:
    """What every arm shares, for the record; `own` takes the place of what a finding changes."""
    network = "convnet, 16 to 128 channels"
    sketches = {"data": "shapes, sketch", "crops": list(VIEW.scale), "steps": STEPS, "lr": LR, "backbone": network}
    return shared.setting() | sketches | own


def images(seed: int) -> tuple[Images, Images]:
    """Training and test sketches; every seed draws its own, and all arms of a seed share them."""
    parts = (("train", shared.TRAIN), ("test", shared.TEST))
    bank, queries = (Shapes(part, size=shared.SIZE, seed=seed, preset="sketch").as_images(n) for part, n in parts)
    return bank, queries


def vit_setting(**own: Any) -> dict[str, Any]:
    """`setting` of the findings on patches."""
    network = "vit, 2 blocks of width 64 on a convnet of 16 to 128 channels"
    return setting(**({"backbone": network, "steps": VIT_STEPS, "lr": VIT_LR} | own))


def vit_config(method: str, seed: int, *, steps: int = 0, **changes: Any) -> Any:
    """`config` of the findings on patches."""
    settings = config(method, seed, lr=VIT_LR, **changes)
    return replace(settings, train=replace(settings.train, steps=steps or VIT_STEPS))


def config(method: str, seed: int, *, lr: float = LR, **changes: Any) -> Any:
    """A method's preset "cpu" cut to the findings' length, on crops alone, with other fields changed."""
    own = {"backbone": "convnet_fast", "augment": VIEW} | changes
    settings = shared.config(seed, methods.get(method), **own)
    return replace(settings, train=replace(settings.train, steps=STEPS, lr=lr, log_every=EVERY, monitor_every=EVERY))


def build(method: str, settings: Any, encoder: Callable[[], nn.Module] | None = None) -> Any:
    """A network with the initial weights of the seed; `encoder` makes what takes the place of its backbone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.train.seed)
        return methods.get(method)(settings, *([] if encoder is None else [encoder()]))


def trained(model: Any, data: Images) -> tuple[Any, list[dict[str, Any]]]:
    """The network after training and the lines of its log; the order of images depends on the seed only."""
    settings = model.config
    with TemporaryDirectory() as folder:
        train.fit(model, data, settings, folder, progress=False)
        return model, read_log(folder)
