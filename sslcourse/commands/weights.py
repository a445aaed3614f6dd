"""What a command that looks at images reads its network from: a run folder, or a published checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslcourse.evaluate.encoder import Encoder


def load_encoder(weights: Path, model: str | None, device: str = "auto") -> "Encoder":
    """The frozen network of a run of ours, or of an official file of `model`, with the view that it was trained on.

    Args:
        weights: a run folder (or the model.safetensors in it); with `model` the file as it was published.
        model: a name of `sslcourse.zoo`, None for a run.
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        InputError: a file or run that is not there or does not fit.
    """
    from sslcourse import zoo
    from sslcourse.commands.evaluate import pick_device
    from sslcourse.evaluate.encoder import Encoder
    from sslcourse.train import load_model
    from sslcourse.zoo.entries import ENTRIES

    if model is not None:
        backbone, entry = zoo.load(model, weights), ENTRIES[model]
        return Encoder(backbone, entry.image_size, entry.mean, entry.std, pick_device(device), 32)
    module: Any = load_model(weights)
    view = module.config.augment
    return Encoder(module.backbone, view.size, view.mean, view.std, pick_device(device), 32)
