"""Pictures of masks."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.data.shapes.sample import hsv_to_rgb

_GOLDEN_ANGLE = 0.618034  # of a turn: neighbouring masks get distant hues


def overlay(image: Tensor, masks: Tensor, opacity: float = 0.45) -> Tensor:
    """Masks in colours over an image, the largest below, each with a bright outline.

    Args:
        image: (3, H, W) uint8.
        masks: (K, H, W) bool.
        opacity: of the colours.

    Returns:
        (3, H, W) uint8.
    """
    canvas = image.float()
    hues = torch.arange(len(masks), dtype=torch.float64) * _GOLDEN_ANGLE % 1
    colours = torch.from_numpy(hsv_to_rgb(hues.numpy(), 0.8, 1.0)).float() * 255
    for i in masks.flatten(1).sum(dim=1).argsort(descending=True).tolist():
        mask, colour = masks[i], colours[i][:, None, None]
        canvas = torch.where(mask, canvas * (1 - opacity) + colour * opacity, canvas)
        eroded = -F.max_pool2d(-mask.float()[None, None], 3, 1, 1)[0, 0] > 0.5
        canvas = torch.where(mask & ~eroded, colour * 0.6 + 102, canvas)
    return canvas.round().clamp(0, 255).to(torch.uint8)
