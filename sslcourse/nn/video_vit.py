"""A Vision Transformer for clips: tubelets in, attention over space and time together.

Tubelets: ViViT, Arnab et al. 2021, section 3.2. The rest as in VideoMAE (Tong et al. 2022): no class token, fixed
positions by one sinusoid over all tubelets in order of time, row, column.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.errors import InputError
from sslcourse.nn.patches import keep_visible, tubelet_embed
from sslcourse.nn.positions import sinusoid
from sslcourse.nn.vit import Block


class TubeletEmbed(nn.Module):
    """A linear layer on every tubelet, kept as the 3-D convolution of the official files."""

    def __init__(self, tubelet: int, patch_size: int, dim: int) -> None:
        super().__init__()
        self.tubelet, self.patch_size = tubelet, patch_size
        self.proj = nn.Conv3d(3, dim, (tubelet, patch_size, patch_size), stride=(tubelet, patch_size, patch_size))

    def grid(self, x: Tensor) -> tuple[int, int, int]:
        """Tubelets along time, rows and columns of (B, 3, T, H, W)."""
        t, h, w = x.shape[2:]
        return t // self.tubelet, h // self.patch_size, w // self.patch_size

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, 3, T, H, W) -> (B, N, dim); with a `mask` (B, N) only the tubelets that are not hidden."""
        pixels = tubelet_embed(x, self.tubelet, self.patch_size)
        pixels = pixels if mask is None else keep_visible(pixels, mask)
        return F.linear(pixels, self.proj.weight.permute(0, 2, 3, 4, 1).flatten(1), self.proj.bias)


class VideoViT(nn.Module):
    """A ViT for clips: (B, 3, T, H, W) float -> (B, num_features), the mean of all tokens.

    Args:
        image_size, patch_size: pixels; frames, tubelet: frames.
        dim, depth, n_heads: as in a ViT.
        n_classes: outputs of a linear head; 0 for none.
        norm: "each", tokens are normalised, then averaged (pre-training); "mean", the other way round (fine-tuning).

    An image (B, 3, H, W) is read as a clip in which nothing moves.
    """

    num_prefix = 0

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        frames: int = 16,
        tubelet: int = 2,
        dim: int = 768,
        depth: int = 12,
        n_heads: int = 12,
        mlp_ratio: float = 4.0,
        *,
        n_classes: int = 0,
        norm: Literal["each", "mean"] = "each",
    ) -> None:
        super().__init__()
        if image_size % patch_size or frames % tubelet:
            raise InputError(
                f"clips of {frames} frames of {image_size} px are no whole tubelets of {tubelet} x {patch_size} px."
            )
        self.frames, self.num_features, self.stride = frames, dim, patch_size
        self.grid_size = (frames // tubelet, image_size // patch_size, image_size // patch_size)
        self.patch_embed = TubeletEmbed(tubelet, patch_size, dim)
        self.blocks = nn.ModuleList(Block(dim, n_heads, mlp_ratio, True, None) for _ in range(depth))
        self.norm: nn.Module = nn.LayerNorm(dim, eps=1e-6) if norm == "each" else nn.Identity()
        self.fc_norm: nn.Module = nn.LayerNorm(dim, eps=1e-6) if norm == "mean" else nn.Identity()
        self.head: nn.Module = nn.Linear(dim, n_classes) if n_classes else nn.Identity()
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def embed(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Clips to the tokens that enter the first block, those that `mask` (B, N) bool does not hide: (B, V, dim)."""
        tokens = self.patch_embed(x, mask)
        n = x[0, 0].numel() // (self.patch_embed.tubelet * self.patch_embed.patch_size**2)
        pos = sinusoid(n, self.num_features).to(tokens)[None].expand(len(x), -1, -1)
        return tokens + (pos if mask is None else keep_visible(pos, mask))

    def layers(self, tokens: Tensor, k: int = 1) -> list[Tensor]:
        """The normalised outputs of the last `k` blocks, each (B, V, dim)."""
        outputs: list[Tensor] = []
        for block in self.blocks:
            tokens = block(tokens)
            outputs = [*outputs, tokens][-k:]
        return [self.norm(out) for out in outputs]

    def forward_features(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, 3, T, H, W) -> (B, V, dim) after the last norm."""
        return self.layers(self.embed(x, mask))[0]

    def forward_map(self, x: Tensor) -> Tensor:
        """(B, 3, H, W), or clips, -> the mean over time, (B, dim, rows, columns)."""
        x = self._still(x)
        tokens = self.forward_features(x).unflatten(1, self.patch_embed.grid(x))
        return tokens.mean(dim=1).permute(0, 3, 1, 2)

    def forward_clip(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, num_features)."""
        return self.fc_norm(self.forward_features(x).mean(dim=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.forward_clip(self._still(x)))

    def _still(self, x: Tensor) -> Tensor:
        return x if x.ndim == 5 else x[:, :, None].expand(-1, -1, self.frames, -1, -1)


def video_vit(name: str, image_size: int, frames: int, tubelet: int) -> VideoViT:
    """A `VideoViT` of a ViT's name and sizes."""
    from sslcourse.nn.backbones import VITS

    # Clips are cut into tubelets, without a stem.
    plain = {known: shape for known, shape in VITS.items() if "stem" not in shape}
    if name not in plain:
        raise InputError(f"This method needs a ViT as its backbone ({', '.join(plain)}); got {name!r}.")
    return VideoViT(image_size, frames=frames, tubelet=tubelet, **plain[name])


def unstandardized(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Standardised clips (B, 3, T, H, W) as pixels in [0, 1]."""
    return x * torch.tensor(std, device=x.device).view(3, 1, 1, 1) + torch.tensor(mean, device=x.device).view(
        3, 1, 1, 1
    )
