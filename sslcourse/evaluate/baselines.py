"""What a representation has to beat besides its own random initialisation: the pixels themselves."""

from typing import Any

from torch import Tensor, nn

from sslcourse.evaluate.features import extract_features


def pixel_features(train: Any, test: Any, *, size: int | None = None) -> tuple[Tensor, Tensor]:
    """Raw pixels in [0, 1] as features: flattened, minus the mean image of `train`.

    Without the centring every cosine is near 1, since all images share a large mean.

    Args:
        train, test: `Images` or `ImageStream`.
        size: side in pixels that images are brought to; None keeps their shorter side.

    Returns:
        (N, 3 size^2) and (M, 3 size^2) float32.
    """
    raw = nn.Flatten()
    bank, queries = (
        extract_features(raw, part, size=size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)) for part in (train, test)
    )
    mean = bank.mean(dim=0)
    return bank - mean, queries - mean
