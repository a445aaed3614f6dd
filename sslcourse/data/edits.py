"""Strong edits of photos, as people make when they re-post them: the queries of copy detection.

After the "strong" attacks of Copydays (Douze et al. 2009, "Evaluation of GIST descriptors for web-scale image search",
section 5.1): crops, heavy compression, tilt, perspective, paint, blur and grey, a collage, a caption with a mirror.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.data.color import luma
from sslcourse.data.corruptions import jpeg
from sslcourse.data.images import Images
from sslcourse.data.resample import gaussian_blur, resized_crop
from sslcourse.data.rng import mix, step_generator
from sslcourse.errors import InputError, unknown


def edit(x: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Edit every image of a batch, each in its own way.

    Args:
        x: (B, 3, H, W) uint8.
        kind: a key of `EDITS`.
        generator: a CPU generator.

    Returns:
        (B, 3, H, W) uint8.
    """
    if kind not in EDITS:
        raise unknown("edit", kind, EDITS)
    if x.ndim != 4 or x.shape[1] != 3 or x.dtype != torch.uint8 or min(x.shape[2:]) < 16:
        raise InputError(f"edit takes (B, 3, H, W) uint8 images of 16 px or more; got {x.dtype} {tuple(x.shape)}.")
    out = EDITS[kind](x.float() / 255, generator)
    return (out.clamp(0, 1) * 255).round().to(torch.uint8)


def copy_queries(images: Images, n: int, *, seed: int = 0) -> tuple[Images, list[str]]:
    """Every edit of `n` images, chosen with `seed`; the set itself is the database, the rest of it distracts.

    Returns:
        (len(EDITS) * n queries, whose label is the position of the original in `images`; the kind of each).
    """
    if not 1 <= n <= len(images):
        raise InputError(f"copy_queries edits 1 to {len(images)} images; got n={n}.")
    rows = torch.randperm(len(images), generator=step_generator(seed, 0))[:n].sort().values
    edited = [edit(images.images[rows].cpu(), k, step_generator(mix(seed, 1), i)) for i, k in enumerate(EDITS)]
    kinds = [kind for kind in EDITS for _ in range(n)]
    return Images(torch.cat(edited), rows.repeat(len(EDITS)), [], f"{images.name} edited"), kinds


def crop(x: Tensor, g: torch.Generator) -> Tensor:
    """A fifth to a third of the area, enlarged to the whole image."""
    b, _, h, w = x.shape
    side = (0.2 + 0.15 * torch.rand(b, generator=g)).sqrt()
    height, width = (side * h).round(), (side * w).round()
    u = torch.rand(2, b, generator=g)
    boxes = torch.stack([((h - height) * u[0]).floor(), ((w - width) * u[1]).floor(), height, width], dim=1)
    if h == w:
        return resized_crop(x, boxes.to(x.device), h)
    return _warp(x, _box_corners(boxes, h, w))


def compress(x: Tensor, g: torch.Generator) -> Tensor:
    """Half the side, JPEG quality 5, enlarged again."""
    small = F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True)
    return F.interpolate(jpeg(small, 5.0, g).clamp(0, 1), x.shape[2:], mode="bilinear")


def tilt(x: Tensor, g: torch.Generator) -> Tensor:
    """Turned by 15 to 45 degrees either way, on white."""
    angle = (15 + 30 * torch.rand(len(x), generator=g)) * torch.where(torch.rand(len(x), generator=g) < 0.5, -1, 1)
    radians, aspect = angle * math.pi / 180, x.shape[3] / x.shape[2]
    cos, sin = radians.cos(), radians.sin()
    rows = [torch.stack([cos, -sin / aspect, cos * 0], 1), torch.stack([sin * aspect, cos, cos * 0], 1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
    return 1 - F.grid_sample(1 - x, grid.to(x.device), align_corners=False)  # outside the image 1 - x is 0


def perspective(x: Tensor, g: torch.Generator) -> Tensor:
    """Seen from the side: the four corners move inwards by up to a quarter."""
    return _warp(x, _CORNERS * (1 - 0.5 * torch.rand(len(x), 4, 2, generator=g)))


def paint(x: Tensor, g: torch.Generator) -> Tensor:
    """Twelve thick strokes of random colours."""
    b, _, h, w = x.shape
    y, c = torch.meshgrid(torch.arange(h).float(), torch.arange(w).float(), indexing="ij")
    ends = torch.rand(12, 2, 2, b, generator=g)
    colours = torch.rand(12, b, 3, generator=g)
    out = x.clone()
    for (start, end), colour in zip(ends, colours, strict=True):
        (y0, x0), (y1, x1) = ((v * torch.tensor([[h], [w]])).unbind(0) for v in (start, end))
        dy, dx = (y1 - y0)[:, None, None], (x1 - x0)[:, None, None]
        py, px = y - y0[:, None, None], c - x0[:, None, None]
        along = ((py * dy + px * dx) / (dy * dy + dx * dx).clamp_min(1)).clamp(0, 1)
        near = torch.hypot(py - along * dy, px - along * dx) <= max(1.5, w / 40)
        out = torch.where(near[:, None].to(x.device), colour[:, :, None, None].to(x.device), out)
    return out


def blur_grey(x: Tensor, g: torch.Generator) -> Tensor:
    """Out of focus, without colour."""
    sigma = max(x.shape[2:]) / 60
    width = 2 * min(max(1, round(3 * sigma)), min(x.shape[2:]) - 1) + 1
    blurred = gaussian_blur(x, torch.full((len(x),), sigma, device=x.device), width)
    return luma(blurred).expand_as(x)


def collage(x: Tensor, g: torch.Generator) -> Tensor:
    """Half as large, somewhere on a canvas of one colour."""
    b = len(x)
    scale = 0.4 + 0.2 * torch.rand(b, generator=g)
    place = (2 * torch.rand(2, b, generator=g) - 1) * (1 - scale)
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale
    theta[:, 0, 2], theta[:, 1, 2] = -place[0] / scale, -place[1] / scale
    grid = F.affine_grid(theta, list(x.shape), align_corners=False).to(x.device)
    small = F.grid_sample(x, grid, align_corners=False)
    inside = (grid.abs() <= 1).all(dim=3)[:, None]
    return torch.where(inside, small, torch.rand(b, 3, 1, 1, generator=g).to(x.device))


def caption(x: Tensor, g: torch.Generator) -> Tensor:
    """Mirrored in a dark frame, with a yellow bar that holds a line of dark letters."""
    h, w = x.shape[2:]
    top, left = h // 8, w // 8
    out = torch.full_like(x, 0.08)
    inner = F.interpolate(x.flip(3), (h - 2 * top, w - 2 * left), mode="bilinear", antialias=True)
    out[:, :, top : h - top, left : w - left] = inner
    bar = max(3, h // 10)
    starts = (torch.rand(len(x), generator=g) * (h - bar)).long().tolist()
    dot = max(1, bar // 7)
    for image, start in zip(out, starts, strict=True):
        image[:, start : start + bar] = torch.tensor([0.95, 0.85, 0.1], device=x.device)[:, None, None]
        letters = torch.rand(5, w // dot - 2, generator=g) < 0.5
        letters[:, 3::4] = False  # three columns a letter, one between letters
        ink = letters.repeat_interleave(dot, 0).repeat_interleave(dot, 1)[: bar - 1, : w - dot].to(x.device)
        image[:, start + 1 : start + 1 + ink.shape[0], dot : dot + ink.shape[1]] *= ~ink
    return out


# Corners in the coordinates of grid_sample: upper left, upper right, lower left, lower right; x, y.
_CORNERS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])


def _box_corners(boxes: Tensor, h: int, w: int) -> Tensor:
    """(B, 4, 2) corners of boxes (B, 4) top, left, height, width in pixels."""
    top, left, height, width = boxes.unbind(1)
    x0, x1, y0, y1 = 2 * left / w - 1, 2 * (left + width) / w - 1, 2 * top / h - 1, 2 * (top + height) / h - 1
    return torch.stack([torch.stack(p, dim=1) for p in ((x0, y0), (x1, y0), (x0, y1), (x1, y1))], dim=1)


def _warp(x: Tensor, corners: Tensor) -> Tensor:
    """Stretch the quadrilateral with these `corners` (B, 4, 2) to the whole image, by the homography between them."""
    b, _, h, w = x.shape
    source, target = _CORNERS.expand(b, 4, 2), corners
    ones, zeros = torch.ones(b, 4), torch.zeros(b, 4)
    sx, sy, tx, ty = source[..., 0], source[..., 1], target[..., 0], target[..., 1]
    # Two equations a corner in the eight unknowns of the homography, whose last entry is 1.
    row_x = torch.stack([sx, sy, ones, zeros, zeros, zeros, -sx * tx, -sy * tx], dim=2)
    row_y = torch.stack([zeros, zeros, zeros, sx, sy, ones, -sx * ty, -sy * ty], dim=2)
    system, right = torch.cat([row_x, row_y], dim=1), torch.cat([tx, ty], dim=1)[..., None]
    matrix = torch.cat([torch.linalg.solve(system, right)[..., 0], torch.ones(b, 1)], dim=1).view(b, 3, 3)
    ys, xs = ((torch.arange(n) + 0.5) / n * 2 - 1 for n in (h, w))
    points = torch.stack([xs.expand(h, w), ys[:, None].expand(h, w), torch.ones(h, w)], dim=2).view(-1, 3)
    mapped = points @ matrix.mT
    grid = (mapped[..., :2] / mapped[..., 2:]).view(b, h, w, 2)
    return F.grid_sample(x, grid.to(x.device), padding_mode="border", align_corners=False)


EDITS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "crop": crop,
    "compress": compress,
    "tilt": tilt,
    "perspective": perspective,
    "paint": paint,
    "blur_grey": blur_grey,
    "collage": collage,
    "caption": caption,
}
