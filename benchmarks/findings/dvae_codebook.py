"""The vocabulary of a small dVAE and images written in it: the codebook picture of the chapter on BEiT.

python -m benchmarks.findings.dvae_codebook

Trains the discrete VAE on `Shapes` for a minute (preset "cpu" with a larger learning rate) and writes
curves/dvae_codebook.json: every token as the middle of what the decoder paints where all places have that token, the
most frequent first; and four images with what is painted from their likeliest tokens. Pixels are whole numbers from 0
to 255, (height, width, colour).
"""

import json
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmarks.findings.common import FOLDER
from sslcourse import methods, train
from sslcourse.data import Shapes
from sslcourse.data.augment import center_view
from sslcourse.evaluate.reconstruction import unexplained
from sslcourse.methods.dvae import DiscreteVAE

TRAIN, TEST, SHOWN = 4000, 500, 4


@torch.no_grad()
def record(model: DiscreteVAE, images: Tensor) -> dict[str, Any]:
    """What the file holds, of a trained dVAE and uint8 images (B, 3, S, S) that it has not seen."""
    dvae, view = model.eval().backbone, model.config.augment
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (view.mean, view.std))
    ids = dvae.tokenize(center_view(images, view.size))
    counts = torch.bincount(ids.flatten(), minlength=dvae.vocabulary)
    order = counts.argsort(descending=True, stable=True)
    alone = dvae.decode(order.view(-1, 1, 1).expand(-1, 3, 3))  # away from the border, which looks different
    p = dvae.stride
    written, truth = (dvae.decode(ids) * std + mean).clamp(0, 1), images / 255
    everything = torch.ones_like(ids, dtype=torch.bool)
    return {
        "vocabulary": dvae.vocabulary,
        "used": int((counts > 0).sum()),
        "unexplained": round(unexplained(written, truth, everything).mean().item(), 4),
        "patches": _pixels((alone[..., p : 2 * p, p : 2 * p] * std + mean).clamp(0, 1)),
        "images": [_pixels(truth[:SHOWN]), _pixels(written[:SHOWN])],
    }


def _pixels(images: Tensor) -> list[Any]:
    return (255 * images).round().int().permute(0, 2, 3, 1).tolist()


def main() -> None:
    config = DiscreteVAE.PRESETS["cpu"]
    config = replace(config, train=replace(config.train, lr=4e-2))
    size = config.augment.size
    model = methods.build(DiscreteVAE, config)
    with TemporaryDirectory() as folder:
        train.fit(model, Shapes("train", size=size).as_images(TRAIN), config, folder, progress=False)
    found = record(model, Shapes("test", size=size).as_images(TEST).images)
    path = FOLDER / "curves" / "dvae_codebook.json"
    path.write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{found['used']} of {found['vocabulary']} tokens used, unexplained {found['unexplained']}; wrote {path}")


if __name__ == "__main__":
    main()
