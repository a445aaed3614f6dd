"""The augmentations of SimCLR's figure 4 on one photo, each alone.

from sslcourse.viz.augmentations import show_augmentations
show_augmentations(load("photos").images[4])
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslcourse.data.color import color_jitter, luma
from sslcourse.data.resample import gaussian_blur, random_boxes, resized_crop
from sslcourse.errors import InputError
from sslcourse.losses.deepcluster import sobel

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def augmentations(photo: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """One example of each augmentation (SimCLR, Chen et al. 2020, figure 4), by name.

    Args:
        photo: (3, H, W) uint8, 16 px or more on a side; its central square is used.
        generator: CPU generator.

    Returns:
        name -> (3, S, S) uint8, S the shorter side; the first is the square itself.
    """
    if photo.ndim != 3 or len(photo) != 3 or photo.dtype != torch.uint8 or min(photo.shape[1:]) < 16:
        raise InputError(f"augmentations needs a (3, H, W) uint8 photo of 16 px or more; got {tuple(photo.shape)}.")
    side = min(photo.shape[1:])
    top, left = (photo.shape[1] - side) // 2, (photo.shape[2] - side) // 2
    x = photo[None, :, top : top + side, left : left + side].float() / 255

    def crop(flip: bool) -> Tensor:
        box = random_boxes(1, side, side, scale=(0.15, 0.4), ratio=(3 / 4, 4 / 3), generator=generator)
        return resized_crop(x, box, side, torch.tensor([flip]))

    jitter = torch.tensor([[0.9, 1.2, 1.3, 0.35]])  # brightness, contrast, saturation; hue by 126 degrees
    turns = 1 + int(torch.randint(3, (1,), generator=generator))
    hole = x.clone()
    corner = (torch.rand(2, generator=generator) * (side - side // 3)).long().tolist()
    hole[:, :, corner[0] : corner[0] + side // 3, corner[1] : corner[1] + side // 3] = 0.5
    edges = sobel(x).norm(dim=1, keepdim=True)
    made = {
        "original": x,
        "crop and resize": crop(False),
        "crop, resize, flip": crop(True),
        "colour drop": luma(x).expand(-1, 3, -1, -1),
        "colour jitter": color_jitter(x, jitter, torch.arange(4)[None]),
        f"rotate {90 * turns}\N{DEGREE SIGN}": x.rot90(turns, dims=(2, 3)),
        "cutout": hole,
        "Gaussian noise": x + 0.15 * torch.randn(x.shape, generator=generator),
        "Gaussian blur": gaussian_blur(x, torch.tensor([side / 60]), 2 * (side // 20) + 1),
        "Sobel filter": (edges / edges.max().clamp_min(1e-6)).expand(-1, 3, -1, -1),
    }
    return {name: (view[0].clamp(0, 1) * 255).round().to(torch.uint8) for name, view in made.items()}


def show_augmentations(photo: Tensor, seed: int = 0) -> "Figure":
    """A grid of `augmentations`, five in a row."""
    from sslcourse.viz.scenes import grid

    made = augmentations(photo, torch.Generator().manual_seed(seed))
    return grid(list(made.values()), columns=5, titles=list(made))
