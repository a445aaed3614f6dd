"""What the findings on masked autoencoders share: a small MAE, a short run, and what is asked of its encoder."""

from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.findings import simclr_common as shared
from sslcourse import methods, train
from sslcourse.data import Images
from sslcourse.evaluate import extract_features, knn_accuracy, linear_probe
from sslcourse.methods.mae import MAE
from sslcourse.nn.backbones import VITS
from sslcourse.nn.vit import ViT

STEPS, BATCH, LABELLED = 800, 32, 2000
VIT: dict[str, Any] = {"dim": 64, "depth": 2, "n_heads": 4}
FINE, COARSE = "vit_mini_patch4", "vit_mini_patch8"  # 64 patches an image, or 16 where several networks are trained
DECODER: dict[str, Any] = {"decoder_dim": 48, "decoder_depth": 1, "decoder_heads": 4}


class Small(MAE):
    """MAE with an encoder of two blocks and a decoder of one."""

    def __init__(self, config: MAE.Config) -> None:
        shape = VIT | {"patch_size": VITS[config.backbone]["patch_size"], "mask_token": config.encoder_mask_tokens}
        super().__init__(config, ViT(config.augment.size, **shape))


class Places(nn.Module):
    """A network whose representation keeps the places: the mean of its tokens in each of 16, one after the other."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone, self.num_features = backbone, 16 * backbone.num_features

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            return F.adaptive_avg_pool2d(self.backbone.forward_map(x), 4).flatten(1)
        tokens = self.backbone.forward_features(x).unflatten(1, self.backbone.patch_embed.grid(x))
        return F.adaptive_avg_pool3d(tokens.movedim(-1, 1), (4, 2, 2)).flatten(1)


def setting(backbone: str) -> dict[str, Any]:
    """What every arm shares, for the record."""
    own = {"preset": "cpu, smaller", "steps": STEPS, "batch_size": BATCH, "labelled": LABELLED}
    return shared.setting() | own | {"encoder": {"patch_size": VITS[backbone]["patch_size"]} | VIT, "decoder": DECODER}


def config(seed: int, backbone: str, **changes: Any) -> MAE.Config:
    """The preset "cpu" with a smaller network and a shorter run; other fields as given.

    Of `backbone` only the size of its patches is taken.
    """
    preset = MAE.PRESETS["cpu"]
    short = replace(preset.train, steps=STEPS, batch_size=BATCH, lr=1.6e-2, seed=seed, monitor_every=10**6)
    own: dict[str, Any] = {"train": short, "target": "pixels", "backbone": backbone}
    return replace(preset, **(own | DECODER | changes))


def trained(settings: MAE.Config, data: Images) -> Small:
    """A network after training; initial weights, images and views depend on the seed only."""
    model: Small = methods.build(Small, settings)
    with TemporaryDirectory() as folder:
        train.fit(model, data, settings, folder, progress=False)
    return model


def exams(model: MAE, data: tuple[Images, Images]) -> dict[str, float]:
    """Accuracy on test images by kNN and by a linear probe on `LABELLED` images, on the frozen map of tokens."""
    bank, queries = data
    x, q = (extract_features(Places(model.backbone), part) for part in data)
    few = slice(LABELLED)
    probe = linear_probe(x[few], bank.labels[few], q, queries.labels, max_iter=25)
    return {"kNN": knn_accuracy(x, bank.labels, q, queries.labels).value, "linear": probe.value}
