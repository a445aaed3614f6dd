"""Two towers that meet: CLIP (Radford et al. 2021, section 2.4), its Vision Transformer, and SigLIP's image tower."""

import math
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.errors import InputError
from sslcourse.nn.patches import interpolate_pos
from sslcourse.nn.text import Activation, Attention, LayerNorm, Transformer
from sslcourse.nn.vit import Mlp, ViT


class CLIPViT(nn.Module):
    """CLIP's Vision Transformer: a norm before the first block, no bias in the patches, a projection at the end.

    Args:
        image_size: side that the positions are stored for; they are interpolated for others.
        patch_size, dim, depth, n_heads: as in a ViT.
        out: width of the embedding, `num_features`.
        pool: "cls", the class token; "avg", the mean of the patches.
        norm_after_pool: whether the last norm follows the pooling; the same for "cls".
        act, eps: as in `TextTransformer`.

    Shape: (B, 3, H, W) standardised float -> (B, out), not normalised.
    """

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 32,
        dim: int = 768,
        depth: int = 12,
        n_heads: int = 12,
        out: int = 512,
        *,
        pool: Literal["cls", "avg"] = "cls",
        norm_after_pool: bool = False,
        act: Activation = F.gelu,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        side = image_size // patch_size
        if image_size % patch_size or not side:
            raise InputError(f"patches of {patch_size} px do not tile an image of {image_size} px.")
        self.grid_size, self.patch_size, self.num_features = (side, side), patch_size, out
        self.pool, self.norm_after_pool = pool, norm_after_pool
        self.conv1 = nn.Conv2d(3, dim, patch_size, stride=patch_size, bias=False)
        self.class_embedding = nn.Parameter(dim**-0.5 * torch.randn(dim))
        self.positional_embedding = nn.Parameter(dim**-0.5 * torch.randn(side**2 + 1, dim))
        self.ln_pre = LayerNorm(dim, eps=eps)
        self.transformer = Transformer(dim, depth, n_heads, act=act, eps=eps)
        self.ln_post = LayerNorm(dim, eps=eps)
        self.proj = nn.Linear(dim, out, bias=False)
        nn.init.normal_(self.proj.weight, std=dim**-0.5)

    def embed(self, x: Tensor) -> Tensor:
        """Images to the tokens that enter the first block, the class token first: (B, 3, H, W) -> (B, 1 + N, dim)."""
        if x.shape[-2] % self.patch_size or x.shape[-1] % self.patch_size:
            raise InputError(f"patches of {self.patch_size} px do not tile {x.shape[-2]} x {x.shape[-1]} px.")
        x = self.conv1(x.to(self.conv1.weight.dtype))
        h, w = x.shape[-2:]
        pos = interpolate_pos(self.positional_embedding[None], h, w, grid=self.grid_size, antialias=True).to(x.dtype)
        patches = x.flatten(2).transpose(1, 2)
        cls = self.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        return self.ln_pre(torch.cat([cls, patches], dim=1) + pos)

    def forward(self, x: Tensor) -> Tensor:
        x = self.transformer(self.embed(x))
        if not self.norm_after_pool:
            x = self.ln_post(x)
        pooled = x[:, 0] if self.pool == "cls" else x[:, 1:].mean(dim=1)
        return self.proj(self.ln_post(pooled) if self.norm_after_pool else pooled)


class MapHead(nn.Module):
    """Multi-head attention pooling: one learned query asks all tokens (Zhai et al. 2022, "Scaling ViTs").

    Shape: (B, N, dim) -> (B, dim). Parameter names are timm's.
    """

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.latent = nn.Parameter(dim**-0.5 * torch.randn(1, 1, dim))
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.norm, self.mlp = nn.LayerNorm(dim, eps=1e-6), Mlp(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, dim = x.shape
        q = self.q(self.latent).reshape(1, 1, self.n_heads, -1).transpose(1, 2).expand(b, -1, -1, -1)
        k, v = self.kv(x).reshape(b, n, 2, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        x = self.proj(F.scaled_dot_product_attention(q, k, v).reshape(b, dim))
        return x + self.mlp(self.norm(x))


class SigLIPViT(ViT):
    """SigLIP's image tower: a ViT without a class token whose normalised tokens a `MapHead` pools."""

    def __init__(self, image_size: int = 224, patch_size: int = 16, dim: int = 768, depth: int = 12, n_heads: int = 12):
        super().__init__(image_size, patch_size, dim=dim, depth=depth, n_heads=n_heads, pool="avg", class_token=False)
        self.norm, self.fc_norm = nn.LayerNorm(dim, eps=1e-6), nn.Identity()
        self.attn_pool = MapHead(dim, n_heads)

    def forward(self, x: Tensor, mask: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        return self.attn_pool(self.forward_features(x, mask, generator))


class CLIP(nn.Module):
    """An image tower and a text tower with the numbers that their similarities are scaled with.

    Args:
        visual: (B, 3, H, W) -> (B, D), with `num_features` = D.
        text: (B, L) -> (B, D).
        logit_scale: start of the learned logarithm of the scale.
        logit_bias: start of the learned bias (SigLIP); None for none.
    """

    def __init__(
        self,
        visual: nn.Module,
        text: nn.Module,
        *,
        logit_scale: float = math.log(1 / 0.07),
        logit_bias: float | None = None,
    ) -> None:
        super().__init__()
        self.visual, self.text = visual, text
        self.logit_scale = nn.Parameter(torch.tensor(logit_scale))
        self.logit_bias = None if logit_bias is None else nn.Parameter(torch.tensor(logit_bias))

    def encode_image(self, x: Tensor, *, normalize: bool = False) -> Tensor:
        """(B, 3, H, W) standardised float -> (B, D)."""
        z = self.visual(x)
        return F.normalize(z, dim=1) if normalize else z

    def encode_text(self, tokens: Tensor, *, normalize: bool = False) -> Tensor:
        """(B, L) token ids -> (B, D)."""
        z = self.text(tokens)
        return F.normalize(z, dim=1) if normalize else z

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Logits of every image with every text, (B, T): scale * cosine, plus the bias where there is one."""
        img, txt = self.encode_image(x, normalize=True), self.encode_text(tokens, normalize=True)
        logits = self.logit_scale.exp() * img @ txt.T
        return logits if self.logit_bias is None else logits + self.logit_bias


def to_half(model: nn.Module) -> nn.Module:
    """CLIP's mixed precision, in place: matrices and kernels in float16; norms, embeddings and positions in float32."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.half()
        elif isinstance(module, Attention):
            for name in ("in_proj_weight", "in_proj_bias"):
                parameter = cast(nn.Parameter, getattr(module, name))
                parameter.data = parameter.data.half()
    return model
