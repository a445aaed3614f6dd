"""What a representation has to beat besides its own random initialisation: the pixels themselves."""

from torch import Tensor

from sslcourse.data.images import Images
from sslcourse.errors import InputError


def pixel_features(train: Images, test: Images) -> tuple[Tensor, Tensor]:
    """Raw pixels as features: flattened, minus the mean image of `train`.

    Without the centring every cosine is near 1, since all images share a large mean, and kNN is a few points worse.

    Returns:
        (N, 3HW) and (M, 3HW) float32.
    """
    if train.images.shape[1:] != test.images.shape[1:]:
        shapes = f"{tuple(train.images.shape[1:])} and {tuple(test.images.shape[1:])}"
        raise InputError(f"Pixels can only be compared at one size; train and test images are {shapes}.")
    bank, queries = (part.images.flatten(1).float() / 255 for part in (train, test))
    mean = bank.mean(dim=0)
    return bank - mean, queries - mean
