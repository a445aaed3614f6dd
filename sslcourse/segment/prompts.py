r"""SAM's prompt encoder: points, boxes and masks become tokens and a dense map.

Kirillov et al. 2023, "Segment Anything", section 3 and appendix A. A place c in [0, 1]^2 is told by random Fourier
features (Tancik et al. 2020): with a fixed matrix G of normal numbers,

    e(c) = [ sin(2 pi (2c - 1) G), cos(2 pi (2c - 1) G) ].

What a point says (include, exclude, a corner of a box, nothing) is a learned vector added to that.
"""

import math

import torch
from torch import Tensor, nn

from sslcourse.errors import InputError
from sslcourse.segment.image_encoder import LayerNorm2d

# What a point says. A box is its two corners.
PADDING, EXCLUDE, INCLUDE, TOP_LEFT, BOTTOM_RIGHT = -1, 0, 1, 2, 3


def fourier_embed(c: Tensor, G: Tensor) -> Tensor:
    """Places in [0, 1]^2 to Fourier features: (..., 2) x y -> (..., 2F), sines first."""
    angle = 2 * math.pi * ((2 * c - 1).to(G.dtype) @ G)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def fourier_point_embed(xy: Tensor, size: tuple[int, int], G: Tensor) -> Tensor:
    """Fourier features of pixels: [sin, cos](2 pi (2c - 1) G), c = ((x + 0.5) / W, (y + 0.5) / H).

    Args:
        xy: (..., 2) column and row of a pixel; its centre is half a pixel further.
        size: (H, W) of the image in pixels.
        G: (2, F) the fixed random matrix, first row for x.

    Returns:
        (..., 2F) in [-1, 1].
    """
    height, width = size
    return fourier_embed((xy + 0.5) / xy.new_tensor([width, height]), G)


def grid_embed(h: int, w: int, G: Tensor) -> Tensor:
    """Fourier features of the centres of h x w cells: (1, 2F, h, w)."""
    y, x = torch.meshgrid(torch.arange(h, device=G.device), torch.arange(w, device=G.device), indexing="ij")
    return fourier_point_embed(torch.stack([x, y], dim=-1).to(G.dtype), (h, w), G).permute(2, 0, 1)[None]


class RandomFourier(nn.Module):
    """The fixed matrix G, kept in the checkpoint."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, n_frequencies: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, n_frequencies))


class PromptEncoder(nn.Module):
    """Prompts of N objects to sparse tokens (N, T, dim) and a dense map (N or 1, dim, g, g).

    Args:
        dim: width of the tokens and of the image embedding, even.
        grid: side g of the image embedding.
        image_size: side of the padded model input in pixels, which points and boxes are given in.
        mask_channels: width inside the mask branch; a mask prompt is (N, 1, 4g, 4g) logits.
    """

    def __init__(self, dim: int = 256, grid: int = 64, image_size: int = 1024, mask_channels: int = 16) -> None:
        super().__init__()
        self.dim, self.grid, self.image_size = dim, grid, image_size
        self.pe_layer = RandomFourier(dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed, self.no_mask_embed = nn.Embedding(1, dim), nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, 2, stride=2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, stride=2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, dim, 1),
        )

    @property
    def G(self) -> Tensor:
        return self.pe_layer.positional_encoding_gaussian_matrix

    def dense_pe(self) -> Tensor:
        """(1, dim, g, g): the places of the image embedding."""
        return grid_embed(self.grid, self.grid, self.G)

    def embed_points(self, points: Tensor, labels: Tensor) -> Tensor:
        """(N, T, 2) x y in pixels of the model input, (N, T) labels -1 .. 3 -> (N, T, dim).

        A point of label -1 (`PADDING`) has no place; 2 and 3 are the corners of a box.
        """
        size = (self.image_size, self.image_size)
        place = fourier_point_embed(points, size, self.G) * (labels >= 0)[..., None]
        kinds = torch.cat([e.weight for e in (self.not_a_point_embed, *self.point_embeddings)])
        return place + kinds[labels.long() + 1]

    def embed_masks(self, masks: Tensor) -> Tensor:
        """(N, 1, 4g, 4g) logits -> (N, dim, g, g)."""
        side = 4 * self.grid
        if masks.ndim != 4 or masks.shape[1:] != (1, side, side):
            raise InputError(f"a mask prompt is (N, 1, {side}, {side}) low-resolution logits; got {(*masks.shape,)}.")
        return self.mask_downscaling(masks)

    def forward(
        self,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Tokens in the order points, padding or box corners; and the dense map.

        Without a box a padding point closes the list of points. Without points and boxes there are no tokens (T = 0);
        without a mask the dense map is one learned vector everywhere, with N = 1 for all objects.

        Args:
            points, labels: (N, P, 2) x y and (N, P), 1 include, 0 exclude, -1 no point; both or neither.
            boxes: (N, 4) x1 y1 x2 y2.
            masks: (N, 1, 4g, 4g) logits of an earlier prediction.
        """
        if (points is None) != (labels is None):
            raise InputError("points and labels are given together: (N, P, 2) and (N, P).")
        places: list[Tensor] = []
        kinds: list[Tensor] = []
        if points is not None and labels is not None:
            if points.shape[:-1] != labels.shape or points.shape[-1] != 2:
                raise InputError(f"points are (N, P, 2), labels (N, P); got {(*points.shape,)} and {(*labels.shape,)}.")
            _check_labels(labels)
            places, kinds = [points], [labels]
            if boxes is None:
                places.append(points.new_zeros(len(points), 1, 2))
                kinds.append(labels.new_full((len(points), 1), PADDING))
        if boxes is not None:
            places.append(boxes.reshape(-1, 2, 2))
            corners = torch.tensor([TOP_LEFT, BOTTOM_RIGHT], device=boxes.device)
            kinds.append(corners.to(kinds[0].dtype if kinds else corners.dtype).expand(len(places[-1]), 2))
        n = {len(x) for x in (*places, *([] if masks is None else [masks]))}
        if len(n) > 1:
            raise InputError(f"points, boxes and masks prompt for equally many objects; got {sorted(n)}.")
        count = n.pop() if n else 1
        if places:
            sparse = self.embed_points(torch.cat(places, dim=1), torch.cat(kinds, dim=1))
        else:
            sparse = self.G.new_zeros(count, 0, self.dim)
        if masks is not None:
            return sparse, self.embed_masks(masks)
        return sparse, self.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(1, -1, self.grid, self.grid)


def _check_labels(labels: Tensor) -> None:
    known = (labels == PADDING) | (labels == EXCLUDE) | (labels == INCLUDE)
    corners = (labels == TOP_LEFT) | (labels == BOTTOM_RIGHT)
    if not bool((known | corners).all()):
        raise InputError(f"labels of points are 1 include, 0 exclude, -1 no point; got {labels.unique().tolist()}.")
