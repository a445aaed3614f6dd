"""Where is the object? Saliency maps without labels, a batch at a time, for DiLo's copy-and-paste.

- `border_contrast`: how far the colour of a pixel is from the colours at the border of the image, which is mostly
  background (the boundary prior of Wei et al. 2012 in its simplest form);
- `robust_background`: the same prior on superpixels, where a region counts as background only if much of its outline
  lies on the border (Zhu, Liang, Wei, Sun 2014, "Saliency optimization from robust background detection");
- `SaliencyNet`: a small network that learns from masks, for comparison with what needs none.

All give (B, 1, H, W) in [0, 1]. DiLo (Zhao et al. 2021, table 2) compares such methods.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.lab import rgb_to_lab
from sslcourse.errors import InputError


def border_contrast(x: Tensor, width: int = 2) -> Tensor:
    """Mahalanobis distance in Lab from the colours of the border, per image scaled to [0, 1].

    Args:
        x: (B, 3, H, W) uint8, or float in [0, 1].
        width: of the border in pixels.
    """
    lab = _lab(x)
    rim = torch.ones(lab.shape[2:], dtype=torch.bool, device=lab.device)
    rim[width:-width, width:-width] = False
    border = lab[:, :, rim].mT  # (B, P, 3)
    mean = border.mean(dim=1, keepdim=True)
    centred = border - mean
    covariance = centred.mT @ centred / border.shape[1] + 4.0 * torch.eye(3, device=lab.device)  # 2 Lab units of noise
    offset = lab.flatten(2).mT - mean
    distance = (offset * torch.linalg.solve(covariance, offset.mT).mT).sum(dim=2).clamp_min(0).sqrt()
    return _unit_range(distance.view(len(x), 1, *x.shape[2:]))


def superpixels(lab: Tensor, grid: int = 8, iterations: int = 5, compactness: float = 10.0) -> Tensor:
    """SLIC (Achanta et al. 2012), k-means in colour and place that starts from a grid: (B, 3, H, W) -> (B, H, W) int64.

    Args:
        lab: Lab colours.
        grid: the image is cut into about grid x grid superpixels.
        iterations: of k-means.
        compactness: Lab units that one grid step in place is worth; high makes squares.
    """
    b, _, height, width = lab.shape
    step = max(height, width) / grid
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([y, x]).to(lab) * (compactness / step)
    points = torch.cat([lab, place.expand(b, -1, -1, -1)], dim=1).flatten(2).mT  # (B, HW, 5)
    rows, columns = (((torch.arange(grid) + 0.5) * n / grid).long() for n in (height, width))
    centres = points[:, (rows[:, None] * width + columns).flatten().to(lab.device)]
    for _ in range(iterations):
        near = _nearest(points, centres)
        sums, counts = _sums(points, near, grid**2)
        centres = torch.where(counts[:, :, None] > 0, sums / counts.clamp_min(1)[:, :, None], centres)
    return _nearest(points, centres).view(b, height, width)


def robust_background(
    x: Tensor, grid: int = 8, *, sigma_color: float = 10.0, sigma_place: float = 0.25, mu: float = 0.1
) -> Tensor:
    """Saliency from robust background detection (Zhu et al. 2014), per image scaled to [0, 1].

    On superpixels p with mean Lab colours, d_app their difference and d_geo the shortest path of such differences
    between neighbours:

        Area(p) = sum_i exp(-d_geo(p, i)^2 / 2 sigma^2),  Len(p) = the same over superpixels at the border   (Eq. 2-4)
        BndCon(p) = Len(p) / sqrt(Area(p)),  w_bg = 1 - exp(-BndCon^2 / 2)                                   (Eq. 5, 7)
        wCtr(p) = sum_i d_app(p, i) w_spa(p, i) w_bg(i)                                                      (Eq. 6)
        minimise  sum w_bg s^2 + sum wCtr (s - 1)^2 + sum_ij w_ij (s_i - s_j)^2                               (Eq. 9)

    Args:
        x: (B, 3, H, W) uint8, or float in [0, 1].
        grid: superpixels on a side.
        sigma_color: Lab units within which two superpixels belong together (the paper: 5 to 15).
        sigma_place: distance, as a part of the image's side, at which contrast counts.
        mu: smallest weight between neighbours.
    """
    lab = _lab(x)
    b, _, height, width = lab.shape
    n = grid**2
    label = superpixels(lab, grid)
    place = torch.stack(torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij"))
    values = torch.cat([lab, place.to(lab).expand(b, -1, -1, -1)], dim=1).flatten(2).mT
    sums, counts = _sums(values, label.flatten(1), n)
    mean = sums / counts.clamp_min(1)[:, :, None]
    exists = counts > 0
    color = torch.cdist(mean[:, :, :3], mean[:, :, :3])
    touching = _adjacency(label, n)
    at_border = touching.new_zeros(b, n)
    for edge in (label[:, 0], label[:, -1], label[:, :, 0], label[:, :, -1]):
        at_border.scatter_(1, edge, True)
    joined = touching | (at_border[:, :, None] & at_border[:, None])  # the border is one: background surrounds objects
    path = color.masked_fill(~joined, torch.inf)
    path.diagonal(dim1=1, dim2=2).zero_()
    for k in range(n):  # Floyd and Warshall
        path = torch.minimum(path, path[:, :, k, None] + path[:, None, k])
    alike = torch.exp(-path.pow(2) / (2 * sigma_color**2)) * exists[:, None]
    connected = (alike * at_border[:, None]).sum(2) / alike.sum(2).clamp_min(1e-8).sqrt()
    background = 1 - torch.exp(-connected.pow(2) / 2)
    near = torch.exp(-torch.cdist(mean[:, :, 3:], mean[:, :, 3:]).pow(2) / (2 * sigma_place**2))
    contrast = (color * near * (background * exists)[:, None]).sum(2)
    contrast = contrast / contrast.amax(1, keepdim=True).clamp_min(1e-8)
    smooth = (torch.exp(-color.pow(2) / (2 * sigma_color**2)) + mu) * touching
    system = torch.diag_embed(smooth.sum(2) + background + contrast + 1e-6) - smooth
    saliency = torch.linalg.solve(system, contrast)
    return _unit_range(saliency.gather(1, label.flatten(1)).view(b, 1, height, width))


class SaliencyNet(nn.Module):
    """A small fully convolutional network, (B, 3, H, W) uint8 or float in [0, 1] -> (B, 1, H, W) in [0, 1].

    `fit` teaches it from masks, as the learned saliency networks of DiLo's table were taught on other data.
    """

    def __init__(self, width: int = 16, *, seed: int = 0) -> None:
        super().__init__()
        dilations = (1, 2, 4, 8, 1)
        widths = [3, *[width] * len(dilations)]
        with torch.random.fork_rng(devices=[]):  # initialisers draw from the global generator; it is put back
            torch.manual_seed(seed)
            layers = [
                nn.Sequential(nn.Conv2d(a, b, 3, padding=d, dilation=d, bias=False), nn.BatchNorm2d(b), nn.ReLU())
                for a, b, d in zip(widths[:-1], widths[1:], dilations, strict=True)
            ]
            self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 1))

    def logits(self, x: Tensor) -> Tensor:
        """(B, 1, H, W)."""
        return self.layers(_unit(x) - 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x).sigmoid()

    def fit(self, x: Tensor, mask: Tensor, *, steps: int = 200, batch: int = 32, seed: int = 0) -> "SaliencyNet":
        """Train on images (N, 3, H, W) and masks (N, 1, H, W) bool; the order depends on `seed` only."""
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        self.train()
        for _ in range(steps):
            at = torch.randint(len(x), (batch,), generator=generator).to(x.device)
            loss = F.binary_cross_entropy_with_logits(self.logits(x[at]), mask[at].float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return self.eval()


METHODS = {"border": border_contrast, "rbd": robust_background}


def _adjacency(label: Tensor, n: int) -> Tensor:
    """(B, n, n) bool: superpixels with neighbouring pixels, without the diagonal."""
    touching = torch.zeros(len(label), n * n, dtype=torch.bool, device=label.device)
    for a, b in ((label[:, :-1], label[:, 1:]), (label[:, :, :-1], label[:, :, 1:])):
        touching.scatter_(1, (a * n + b).flatten(1), True)
    touching = touching.view(-1, n, n)
    touching = touching | touching.mT
    touching.diagonal(dim1=1, dim2=2).fill_(False)
    return touching


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    return torch.cdist(points, centres).argmin(dim=2)


def _sums(values: Tensor, label: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Sum of `values` (B, P, C) over the pixels of each of n labels (B, P), and their number: (B, n, C), (B, n)."""
    sums = values.new_zeros(len(values), n, values.shape[2])
    sums.scatter_add_(1, label[:, :, None].expand_as(values), values)
    counts = values.new_zeros(len(values), n).scatter_add_(1, label, torch.ones_like(values[:, :, 0]))
    return sums, counts


def _unit(x: Tensor) -> Tensor:
    return x.float() / 255 if x.dtype == torch.uint8 else x


def _lab(x: Tensor) -> Tensor:
    if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < 8:
        raise InputError(f"saliency needs images (B, 3, H, W) of 8 pixels or more; got {tuple(x.shape)}.")
    return rgb_to_lab(_unit(x))


def _unit_range(saliency: Tensor) -> Tensor:
    low, high = saliency.amin(dim=(1, 2, 3), keepdim=True), saliency.amax(dim=(1, 2, 3), keepdim=True)
    return (saliency - low) / (high - low).clamp_min(1e-8)
