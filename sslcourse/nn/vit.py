"""A Vision Transformer (Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words") with timm's parameter names."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from sslcourse.data.masks import upsample_mask
from sslcourse.errors import InputError
from sslcourse.nn.patches import interpolate_pos, keep_visible
from sslcourse.nn.relative import RelativePositionBias

# Table 1 of the paper, and the two smaller ones of DeiT (Touvron et al. 2021): width, depth, heads.
SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}


def attention(
    x: Tensor,
    wqkv: Tensor,
    n_heads: int,
    return_map: bool = False,
    *,
    bias: Tensor | None = None,
    relative: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Multi-head self-attention, softmax(q k^T / sqrt(d)) v in each head, d = D / n_heads (Vaswani et al. 2017, eq. 1).

    Args:
        x: (B, N, D) tokens.
        wqkv: (3D, D), the weight of one linear layer for queries, keys and values, in that order.
        return_map: also return the attention map.
        bias: (3D,) of that layer.
        relative: (n_heads, N, N) or (B, n_heads, N, N), added before the softmax: a bias for each pair of places, or
            -inf where a query may not look.

    Returns:
        (B, N, D), heads side by side, before the output projection; with `return_map` also (B, n_heads, N, N), whose
        rows (one a query) sum to 1.
    """
    if wqkv.shape[0] % (3 * n_heads):
        raise InputError(f"attention cannot split {wqkv.shape[0]} rows of wqkv into q, k, v of {n_heads} heads.")
    b, n, _ = x.shape
    q, k, v = F.linear(x, wqkv, bias).reshape(b, n, 3, n_heads, -1).permute(2, 0, 3, 1, 4)  # each (B, heads, N, d)
    if not return_map:
        mask = None if relative is None else relative.to(q.dtype)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # the same numbers without an N x N map in memory
        return out.transpose(1, 2).reshape(b, n, -1)
    logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    weights = (logits if relative is None else logits + relative).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).reshape(b, n, -1), weights


Stem = Literal["linear", "conv", "hybrid"]


def conv_stem(patch_size: int, in_channels: int, dim: int, hybrid: bool = False) -> nn.Sequential:
    """3x3 convolutions of stride 2, each with batch norm and ReLU, then a 1x1 one: (B, C, H, W) -> (B, dim, H/p, W/p).

    Xiao et al. 2021, "Early Convolutions Help Transformers See Better", section 4: with it a ViT needs far fewer steps.
    `hybrid` adds one of stride 1 and twice the width before the last, so that the tokens are the map of a small
    convolutional network (`ConvNet`): the hybrid of Dosovitskiy et al. 2021, section 3.1.
    """
    halvings = patch_size.bit_length() - 1
    if patch_size != 2**halvings or halvings < 1 or dim % 2**halvings:
        raise InputError(
            f"a stem of convolutions halves its input; patches of {patch_size} px, width {dim} do not fit."
        )
    widths = [in_channels, *(dim // 2**i for i in reversed(range(halvings)))]
    strides = [2] * halvings
    if hybrid:
        widths, strides = [*widths, 2 * dim], [*strides, 1]
    layers: list[nn.Module] = []
    for (before, after), stride in zip(itertools.pairwise(widths), strides, strict=True):
        conv = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], dim, 1))


class PatchEmbed(nn.Module):
    """What makes tokens of patches: (B, C, H, W) -> (B, H/p * W/p, dim).

    `stem` "linear" is one linear layer on every p x p patch, written as a convolution; "conv" and "hybrid" are
    `conv_stem`, which also sees some pixels around the patch.
    """

    def __init__(self, patch_size: int, in_channels: int, dim: int, stem: Stem = "linear") -> None:
        super().__init__()
        self.patch_size, self.overlaps = patch_size, stem != "linear"
        self.proj: nn.Module = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)
        if self.overlaps:
            self.proj = conv_stem(patch_size, in_channels, dim, stem == "hybrid")

    def hide(self, x: Tensor, mask: Tensor) -> Tensor:
        """The images with the pixels of hidden patches, `mask` (B, N), set to 0 where neighbours would see them."""
        if not self.overlaps:
            return x
        return x.masked_fill(upsample_mask(mask.view(len(x), 1, *self.grid(x)), self.patch_size), 0.0)

    def grid(self, x: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of (B, C, H, W)."""
        height, width = x.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise InputError(f"a ViT with patches of {self.patch_size} px cannot cut {height} x {width} px into them.")
        return height // self.patch_size, width // self.patch_size

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """`attention` and its output projection: (B, N, dim) -> (B, N, dim)."""

    def __init__(self, dim: int, n_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos: RelativePositionBias | None = None

    def forward(self, x: Tensor, relative: Tensor | None = None) -> Tensor:
        return self.proj(attention(x, self.qkv.weight, self.n_heads, bias=self.qkv.bias, relative=relative))

    def map(self, x: Tensor, relative: Tensor | None = None) -> Tensor:
        """(B, N, dim) -> (B, n_heads, N, N)."""
        return attention(x, self.qkv.weight, self.n_heads, True, bias=self.qkv.bias, relative=relative)[1]


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, on every token."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned factor a channel on a residual branch, small at first (Touvron et al. 2021, CaiT, eq. 4)."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    `keep` is (2, B, 1, 1): the factor of each branch for each image, which is how stochastic depth drops a branch;
    `relative` the bias of `attention`.
    """

    def __init__(self, dim: int, n_heads: int, mlp_ratio: float, qkv_bias: bool, layer_scale: float | None) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim, eps=1e-6), Attention(dim, n_heads, qkv_bias)
        self.ls1: nn.Module = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=1e-6), Mlp(dim, int(dim * mlp_ratio))
        self.ls2: nn.Module = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)

    def forward(self, x: Tensor, keep: Tensor | None = None, relative: Tensor | None = None) -> Tensor:
        branch = self.ls1(self.attn(self.norm1(x), relative))
        x = x + (branch if keep is None else branch * keep[0])
        branch = self.ls2(self.mlp(self.norm2(x)))
        return x + (branch if keep is None else branch * keep[1])


class ViT(nn.Module):
    """A Vision Transformer without or with a classifier, for images of any size that is a multiple of the patch.

    Args:
        image_size: side, or (height, width), that the position embeddings are stored for; others are interpolated.
        patch_size, in_channels, dim, depth, n_heads, mlp_ratio, qkv_bias: as in the paper.
        n_classes: outputs of the linear head; 0 for none.
        pool: "cls", the normalised CLS token; "avg", the mean of the patch tokens, normalised after it; "mean", the
            mean of normalised patch tokens.
        class_token: whether there is a CLS token.
        registers: number of extra tokens without a place (Darcet et al. 2024, "Vision Transformers Need Registers").
        pos_for_class: whether CLS has a position embedding; False is timm's `no_embed_class`.
        pos: whether there are absolute position embeddings at all.
        rel_pos: a bias for each pair of places in the attention (BEiT): "shared" by all blocks, or of each of the
            "blocks". Needs all patches, so masked ones have to be replaced.
        mask_token: what a mask does. True: masked patches are replaced by a learned token (BEiT); False: they are
            left out of the sequence (MAE).
        layer_scale: initial value of CaiT's factors; None for none.
        drop_path: probability that the last block drops a branch in training, growing linearly with depth.
        interpolate: what resizes position embeddings; a partial of `interpolate_pos`.
        stem: what makes the tokens, see `PatchEmbed`.

    Shape: forward (B, C, H, W) float -> (B, num_features), or (B, n_classes) with a head.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        dim: int = 192,
        depth: int = 12,
        n_heads: int = 3,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        *,
        n_classes: int = 0,
        pool: Literal["cls", "avg", "mean"] = "cls",
        class_token: bool = True,
        registers: int = 0,
        pos_for_class: bool = True,
        pos: bool = True,
        rel_pos: Literal["none", "shared", "blocks"] = "none",
        mask_token: bool = False,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        interpolate: Callable[..., Tensor] = interpolate_pos,
        stem: Stem = "linear",
    ) -> None:
        super().__init__()
        if pool == "cls" and not class_token:
            raise InputError("a ViT without a class token has no CLS to pool; use pool='avg'.")
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.patch_embed = PatchEmbed(patch_size, in_channels, dim, stem)
        self.grid_size = self.patch_embed.grid(torch.empty(1, in_channels, height, width, device="meta"))
        self.num_features, self.pool, self.drop_path, self.interpolate = dim, pool, drop_path, interpolate
        self.stride = patch_size  # pixels of the image below a place of `forward_map`
        self.num_prefix, self.pos_for_class = class_token + registers, class_token and pos_for_class
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if class_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, registers, dim)) if registers else None
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim)) if mask_token else None
        places = torch.zeros(1, self.grid_size[0] * self.grid_size[1] + self.pos_for_class, dim)
        self.pos_embed = cast(nn.Parameter, nn.Parameter(places) if pos else None)
        self.blocks = nn.ModuleList(Block(dim, n_heads, mlp_ratio, qkv_bias, layer_scale) for _ in range(depth))
        table = partial(RelativePositionBias, self.grid_size, n_heads, prefix=self.num_prefix)
        self.rel_pos = table() if rel_pos == "shared" else None
        if rel_pos == "blocks":
            for block in self.blocks:
                cast(Block, block).attn.rel_pos = table()
        self.norm: nn.Module = nn.LayerNorm(dim, eps=1e-6) if pool != "avg" else nn.Identity()
        self.fc_norm: nn.Module = nn.LayerNorm(dim, eps=1e-6) if pool == "avg" else nn.Identity()
        self.head: nn.Module = nn.Linear(dim, n_classes) if n_classes else nn.Identity()
        for name, parameter in self.named_parameters():
            if name.startswith("patch_embed."):
                continue  # PyTorch's start of a convolution, as in DINO's code: 0.02 would leave the patches faint
            if parameter.ndim > 1:  # weights, tokens and positions; norms and layer scales keep their start
                nn.init.trunc_normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def embed(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Images to the tokens that enter the first block: (B, C, H, W) -> (B, num_prefix + N, dim).

        `mask` (B, N) bool, True = hidden: those patches become the mask token, or are left out (see `mask_token`),
        where every image must hide equally many.
        """
        h, w = self.patch_embed.grid(x)
        if mask is not None and mask.shape != (len(x), h * w):
            raise InputError(f"a mask is (B, N), here {(len(x), h * w)} for {h} x {w} patches; got {(*mask.shape,)}.")
        patches = self.patch_embed(x if mask is None else self.patch_embed.hide(x, mask))
        if mask is not None and self.mask_token is not None:
            patches = torch.where(mask[..., None], self.mask_token.to(patches.dtype), patches)
        cls: Tensor | None = self.cls_token
        if self.pos_embed is not None:
            pos = self.interpolate(self.pos_embed, h, w, grid=self.grid_size)
            patches = patches + pos[:, int(self.pos_for_class) :]
            cls = cls + pos[:, :1] if cls is not None and self.pos_for_class else cls
        if mask is not None and self.mask_token is None:
            patches = keep_visible(patches, mask)
        tokens = [patches]
        if self.reg_token is not None:
            tokens.insert(0, self.reg_token.expand(len(x), -1, -1))
        if cls is not None:
            tokens.insert(0, cls.expand(len(x), -1, -1))
        return torch.cat(tokens, dim=1)

    def forward_features(self, x: Tensor, mask: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """(B, num_prefix + N, dim): CLS, registers, patches in reading order, after the final norm (`pool="cls"`).

        `mask` as in `embed`. `generator` (CPU) draws what stochastic depth drops in training; None is the global one,
        as for dropout, which the training loop seeds at every step.
        """
        tokens = self.run_blocks(self.embed(x, mask), self.patch_embed.grid(x), generator)
        return self.norm(tokens)

    def run_blocks(
        self, tokens: Tensor, grid: tuple[int, int] | None = None, generator: Generator | None = None
    ) -> Tensor:
        """All blocks, without the final norm: (B, T, dim) -> (B, T, dim), T tokens in any order.

        `grid`, rows and columns of patches, matters where there are relative positions; None is `grid_size`.
        """
        relative = self.relative(grid or self.grid_size)
        for i, (block, keep) in enumerate(
            zip(self.blocks, self._keep(len(tokens), generator, tokens.device), strict=True)
        ):
            tokens = block(tokens, keep, relative[i])
        return tokens

    def relative(self, grid: tuple[int, int]) -> list[Tensor | None]:
        """The bias of every block for images of rows x columns of patches: (n_heads, T, T), or None without one."""
        shared = None if self.rel_pos is None else self.rel_pos(grid)
        own = [cast(Block, block).attn.rel_pos for block in self.blocks]
        return [shared if table is None else table(grid) for table in own]

    def forward(self, x: Tensor, mask: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self.head(self.pooled(self.forward_features(x, mask, generator)))

    def pooled(self, tokens: Tensor) -> Tensor:
        """What stands for the image among the tokens of `forward_features`, as `pool` says: -> (B, dim)."""
        return tokens[:, 0] if self.pool == "cls" else self.fc_norm(tokens[:, self.num_prefix :].mean(dim=1))

    def forward_map(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The patch tokens of `forward_features` as a map, (B, dim, rows, columns); with a mask needs `mask_token`."""
        tokens = self.forward_features(x, mask)[:, self.num_prefix :]
        return tokens.transpose(1, 2).unflatten(2, self.patch_embed.grid(x))

    def get_intermediate_layers(self, x: Tensor, n: int = 1, norm: bool = True) -> list[Tensor]:
        """The outputs of the last `n` blocks, each (B, num_prefix + N, dim), after the final norm or as they are."""
        outputs, relative = [self.embed(x)], self.relative(self.patch_embed.grid(x))
        for block, bias in zip(self.blocks, relative, strict=True):
            outputs = [*outputs, block(outputs[-1], None, bias)][-n:]
        return [self.norm(tokens) for tokens in outputs] if norm else outputs

    def get_last_attention(self, x: Tensor) -> Tensor:
        """The attention map of the last block, (B, n_heads, T, T) with T = num_prefix + N."""
        tokens, last = self.embed(x), cast(Block, self.blocks[-1])
        relative = self.relative(self.patch_embed.grid(x))
        for block, bias in zip(self.blocks[:-1], relative, strict=False):
            tokens = block(tokens, None, bias)
        return last.attn.map(last.norm1(tokens), relative[-1])

    def _keep(self, b: int, generator: Generator | None, device: torch.device) -> list[Tensor | None]:
        """Stochastic depth (Huang et al. 2016): a (2, B, 1, 1) factor a block, 0 or 1 / (1 - rate); None for all 1."""
        if not (self.training and self.drop_path):
            return [None] * len(self.blocks)
        rate = torch.linspace(0, self.drop_path, len(self.blocks))[:, None, None, None, None]
        uniform = torch.rand(len(self.blocks), 2, b, 1, 1, generator=generator)
        return list(((uniform >= rate) / (1 - rate)).to(device))
