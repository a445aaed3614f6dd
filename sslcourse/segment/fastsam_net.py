"""FastSAM's first half in small: one pass of a convolutional network finds all objects of an image and their masks.

Zhao et al. 2023, "Fast Segment Anything", section 3.1, with the mask branch of YOLACT (Bolya et al. 2019, section 3):
every cell of the map may be the middle of an object and gives a score, the four distances to the sides of its box and
the coefficients of its mask; the prototypes that they combine are shared by all. A pyramid has a level for large and
small objects; here every cell answers once for each part (whole, emblem, dot), which are nested and of such sizes.

No prompt goes in. `find_all` gives everything, and `fastsam.select_by_prompt` chooses: the time does not grow with the
number of prompts.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.errors import InputError
from sslcourse.segment.fastsam import proto_masks
from sslcourse.segment.resize import resize_longest, to_pixels
from sslcourse.segment.sam import MEAN, STD
from sslcourse.segment.scenes import N_PARTS

STRIDE, FINE = 8, 2  # of the map of answers, and of the prototypes


def _block(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.SiLU(inplace=True))


class Answers(NamedTuple):
    """What Q cells say of B images: scores (logits), boxes x1 y1 x2 y2 in pixels, coefficients; and the prototypes."""

    scores: Tensor  # (B, Q)
    boxes: Tensor  # (B, Q, 4)
    coef: Tensor  # (B, Q, k)
    proto: Tensor  # (B, k, S/2, S/2)


class FastNet(nn.Module):
    """All objects at once: (B, 3, S, S) standardised -> `Answers` of Q = 3 (S/8)^2 cells, part by part.

    Args:
        image_size: side S in pixels, a multiple of 16.
        width: channels at stride 2; four times as many at the coarsest.
        n_proto: prototypes k.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, image_size: int = 128, width: int = 16, n_proto: int = 16) -> None:
        super().__init__()
        if image_size % 16:
            raise InputError(f"FastSAM needs an image_size that is a multiple of 16; got {image_size}.")
        self.image_size, self.n_proto = image_size, n_proto
        c = width
        self.down = nn.ModuleList(
            [_block(3, c, 2), _block(c, 2 * c, 2), _block(2 * c, 4 * c, 2), _block(4 * c, 4 * c, 2)]
        )
        self.deep = nn.Sequential(_block(4 * c, 4 * c), _block(4 * c, 4 * c))
        self.up = nn.ModuleList([_block(8 * c, 4 * c), _block(6 * c, 2 * c), _block(3 * c, 2 * c)])
        self.head = nn.Sequential(_block(4 * c, 4 * c), nn.Conv2d(4 * c, N_PARTS * (5 + n_proto), 1))
        self.proto = nn.Conv2d(2 * c, n_proto, 1)
        last = self.head[1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        with torch.no_grad():
            last.bias.view(N_PARTS, -1)[:, 0] = -4.0  # few cells are the middle of an object (Lin et al. 2017, 3.3)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def preprocess(self, images: Tensor) -> Tensor:
        """Standardise and pad below and on the right: (..., 3, h, w) in 0 .. 255 -> (..., 3, S, S)."""
        height, width = images.shape[-2:]
        if max(height, width) > self.image_size:
            raise InputError(f"images of {height} x {width} px do not fit into {self.image_size} px.")
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        return F.pad(x, (0, self.image_size - width, 0, self.image_size - height))

    def forward(self, x: Tensor) -> Answers:
        maps = []
        for block in self.down:
            x = block(x)
            maps.append(x)
        x = self.deep(x)
        fine: list[Tensor] = []
        for block, beside in zip(self.up, reversed(maps[:-1]), strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), beside], dim=1))
            fine.append(x)
        raw = self.head(fine[0]).unflatten(1, (N_PARTS, -1)).flatten(3).transpose(2, 3).flatten(1, 2)  # (B, Q, 5 + k)
        middle = cell_middles(self.image_size // STRIDE, raw.device).repeat(N_PARTS, 1)
        reach = F.softplus(raw[..., 1:5]) * STRIDE
        boxes = torch.cat([middle - reach[..., :2], middle + reach[..., 2:]], dim=-1)
        return Answers(raw[..., 0], boxes, raw[..., 5:], self.proto(fine[-1]))


def cell_middles(grid: int, device: torch.device | str = "cpu") -> Tensor:
    """(grid^2, 2) x y in pixels of the middles of the cells, in reading order."""
    y, x = torch.meshgrid(torch.arange(grid, device=device), torch.arange(grid, device=device), indexing="ij")
    return (torch.stack([x, y], dim=-1).flatten(0, 1) + 0.5) * STRIDE


class Everything(NamedTuple):
    """All objects of an image, the surest first: masks (n, H, W) bool, boxes (n, 4) in its pixels, scores (n,)."""

    masks: Tensor
    boxes: Tensor
    scores: Tensor


@torch.no_grad()
def find_all(model: FastNet, image: Any, *, score: float = 0.3, nms_iou: float = 0.5, most: int = 100) -> Everything:
    """Everything in an image, in one pass.

    Args:
        model: a trained `FastNet`.
        image: what `to_pixels` takes.
        score: cells below it are no objects.
        nms_iou: of boxes that overlap more, the surest stays.
        most: at most so many objects.
    """
    from torchvision.ops import nms  # torchvision takes seconds to import, which a click or a box does not need

    pixels = to_pixels(image)
    height, width = (int(n) for n in pixels.shape[1:])
    small = resize_longest(pixels, model.image_size)
    found = model.eval()(model.preprocess(small.to(model.mean.device))[None])
    scores, boxes = found.scores[0].sigmoid(), found.boxes[0]
    sure = (scores > score).nonzero().flatten()
    sure = sure[nms(boxes[sure], scores[sure], nms_iou)][:most]
    boxes, side = boxes[sure].clamp(0, model.image_size), (model.image_size, model.image_size)
    masks = proto_masks(found.coef[0, sure], found.proto[0], boxes, side)[:, : small.shape[1], : small.shape[2]]
    if masks.shape[1:] != (height, width) and len(masks):
        masks = F.interpolate(masks.float()[:, None], (height, width), mode="bilinear")[:, 0] > 0.5
    ratio = boxes.new_tensor([width / small.shape[2], height / small.shape[1]] * 2)
    return Everything(masks.reshape(-1, height, width), boxes * ratio, scores[sure])
