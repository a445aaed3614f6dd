"""What the findings on masked autoencoders share: a small MAE, a short run, and what is asked of its encoder."""

from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

from sslcourse import methods, train
from sslcourse.data import Images
from sslcourse.methods.mae import MAE
from sslcourse.nn.vit import ViT

STEPS, BATCH = 300, 64
VIT: dict[str, Any] = {"patch_size": 4, "dim": 64, "depth": 3, "n_heads": 4, "pool": "mean"}
DECODER: dict[str, Any] = {"decoder_dim": 48, "decoder_depth": 1, "decoder_heads": 4}


class Small(MAE):
    """MAE with an encoder of three blocks whose representation is the mean of the patch tokens."""

    def __init__(self, config: MAE.Config) -> None:
        super().__init__(config, ViT(config.augment.size, **VIT, mask_token=config.encoder_mask_tokens))


def config(seed: int, **changes: Any) -> MAE.Config:
    """The preset "cpu" with a smaller network and a shorter run; other fields as given."""
    preset = MAE.PRESETS["cpu"]
    short = replace(preset.train, steps=STEPS, batch_size=BATCH, lr=8e-3, seed=seed)
    return replace(preset, **({"train": short, "target": "pixels"} | DECODER | changes))


def trained(settings: MAE.Config, data: Images) -> MAE:
    """A network after training; initial weights, images and views depend on the seed only."""
    model: MAE = methods.build(Small, settings)
    with TemporaryDirectory() as folder:
        train.fit(model, data, settings, folder, progress=False)
    return model
