"""Features of a frozen backbone: the only thing most protocols ever see of a pre-trained network."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sslcourse.data.augment import MEAN, STD, Triple, center_view
from sslcourse.data.images import Images
from sslcourse.errors import InputError


def extract_features(
    backbone: nn.Module,
    data: Images | Tensor,
    *,
    size: int | None = None,
    batch_size: int = 512,
    device: torch.device | str | None = None,
    mean: Triple = MEAN,
    std: Triple = STD,
) -> Tensor:
    """Features of every image of `data`, in its order.

    The backbone is in eval mode meanwhile, so its batch norm uses the stored statistics and changes none of them, and
    no gradient is kept. Each of its modules gets the mode back that it had.

    Args:
        backbone: (B, 3, size, size) float -> (B, D).
        data: `Images`, anything else with its `batches`, or (N, 3, H, W) uint8 images.
        size: side of the view, the shorter side resized to it and the centre cut out; None keeps the shorter side.
        batch_size: images in one forward pass.
        device: where to compute; where the backbone's parameters are by default. The backbone is moved there.
        mean, std: standardisation of the three channels, the one the backbone was trained with.

    Returns:
        (N, D) float32 on the device.

    Raises:
        InputError: no images, or a backbone that does not return (B, D).
    """
    if device is None:
        parameter = next(backbone.parameters(), None)
        device = torch.device("cpu") if parameter is None else parameter.device
    backbone.to(device)
    features = []
    with frozen(backbone), torch.inference_mode():
        for images in _batches(data, batch_size, device):
            out = backbone(center_view(images, size or min(images.shape[-2:]), mean, std))
            if not isinstance(out, Tensor) or out.shape[:1] != images.shape[:1] or out.ndim != 2:
                got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
                raise InputError(f"A backbone has to return features (B, D); {type(backbone).__name__} returned {got}.")
            features.append(out.float())
    if not features:
        raise InputError("There are no images to extract features of.")
    return torch.cat(features)  # outside inference mode, so a probe may save it for its backward pass


def _batches(data: Images | Tensor, batch_size: int, device: torch.device | str) -> Iterator[Tensor]:
    if isinstance(data, Tensor):
        yield from (images.to(device) for images in data.split(batch_size) if len(images))
        return
    for images, _, _ in data.batches(batch_size, device=device, shuffle=False, drop_last=False):
        yield images


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Eval mode inside, then every submodule as it was (a frozen teacher inside a training model stays in eval)."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training
