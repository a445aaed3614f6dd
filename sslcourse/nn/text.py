"""The text tower of CLIP and SigLIP, and the transformer that CLIP's towers are made of, with the official names.

Radford et al. 2021, section 2.4: a GPT-2 that reads up to 77 tokens. A token sees those before it only, so the one at
the end of the text has seen all of it and stands for the text.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.errors import InputError

Activation = Callable[[Tensor], Tensor]


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), within 0.021 of GELU (Hendrycks and Gimpel 2016, section 2): what OpenAI's CLIP uses."""
    return x * torch.sigmoid(1.702 * x)


class LayerNorm(nn.LayerNorm):
    """A layer norm whose weights stay in float32 when the rest is float16: it computes in theirs, returns in `x`'s."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with the parameter names of `nn.MultiheadAttention`.

    `causal`: no look ahead, unless `forward` is given a (N, N) `mask` that is added to the scores in its place.
    """

    def __init__(self, dim: int, n_heads: int, causal: bool) -> None:
        super().__init__()
        if dim % n_heads:
            raise InputError(f"a width of {dim} cannot be split into {n_heads} heads.")
        self.n_heads, self.causal = n_heads, causal
        self.in_proj_weight, self.in_proj_bias = (
            nn.Parameter(torch.empty(3 * dim, dim)),
            nn.Parameter(torch.zeros(3 * dim)),
        )
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        b, n, _ = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.reshape(b, n, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal and mask is None)
        return self.out_proj(out.transpose(1, 2).reshape(b, n, -1))


class Mlp(nn.Module):
    """Two linear layers, four times as wide between them."""

    def __init__(self, dim: int, act: Activation) -> None:
        super().__init__()
        self.c_fc, self.c_proj, self.act = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim), act

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.act(self.c_fc(x)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, dim: int, n_heads: int, causal: bool, act: Activation, eps: float) -> None:
        super().__init__()
        self.ln_1, self.attn = LayerNorm(dim, eps=eps), Attention(dim, n_heads, causal)
        self.ln_2, self.mlp = LayerNorm(dim, eps=eps), Mlp(dim, act)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """`depth` blocks, (B, N, dim) -> (B, N, dim), initialised as section 2.5 of the paper says of GPT-2's."""

    def __init__(
        self, dim: int, depth: int, n_heads: int, *, causal: bool = False, act: Activation = F.gelu, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(dim, n_heads, causal, act, eps) for _ in range(depth))
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                residual = name.endswith(
                    ("out_proj.weight", "c_proj.weight")
                )  # what is added up over 2 * depth branches
                wide = 2 if name.endswith("c_fc.weight") else 1
                nn.init.normal_(parameter, std=(wide * dim) ** -0.5 * ((2 * depth) ** -0.5 if residual else 1))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class TextTransformer(nn.Module):
    """Token ids to one vector a text.

    Args:
        vocab_size: number of token ids.
        context_length: most tokens a text can have; shorter rows are read as they are.
        dim, depth, n_heads: of the transformer.
        out: width of the embedding.
        causal: whether a token sees only those before it (CLIP) or all (SigLIP).
        pool: the token that stands for the text: "eot", the first with the largest id (CLIP's end mark); "last"
            (SigLIP, whose texts are padded to full length); "first".
        proj_bias: whether the last linear layer has a bias.
        act: activation; `quick_gelu` for OpenAI's files, which do not say so.
        eps: of the layer norms.

    Shape: (B, L) integer ids, L <= context_length -> (B, out) float, not normalised.
    """

    def __init__(
        self,
        vocab_size: int = 49_408,
        context_length: int = 77,
        dim: int = 512,
        depth: int = 12,
        n_heads: int = 8,
        out: int = 512,
        *,
        causal: bool = True,
        pool: Literal["eot", "last", "first"] = "eot",
        proj_bias: bool = False,
        act: Activation = F.gelu,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.context_length, self.pool = context_length, pool
        self.token_embedding = nn.Embedding(vocab_size, dim)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, dim))
        self.transformer = Transformer(dim, depth, n_heads, causal=causal, act=act, eps=eps)
        self.ln_final = LayerNorm(dim, eps=eps)
        self.proj = nn.Linear(dim, out, bias=proj_bias)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.proj.weight, std=dim**-0.5)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask`: (L, L) float, added to the attention's scores in place of the causal mask."""
        if tokens.ndim != 2 or tokens.is_floating_point() or not 0 < tokens.shape[1] <= self.context_length:
            raise InputError(
                f"a text tower reads (B, L) token ids, L <= {self.context_length}; got {tuple(tokens.shape)} "
                f"{tokens.dtype}: shorten the texts or let the tokenizer truncate them."
            )
        dtype = self.proj.weight.dtype
        x = self.token_embedding(tokens).to(dtype) + self.positional_embedding[: tokens.shape[1]].to(dtype)
        x = self.ln_final(self.transformer(x, mask))
        if self.pool == "eot":
            at = tokens.argmax(dim=1)  # the first, where the mark occurs more than once
        else:
            at = torch.full((len(x),), 0 if self.pool == "first" else x.shape[1] - 1, device=x.device)
        return self.proj(x[torch.arange(len(x), device=x.device), at])


def interpolate_text_pos(pos: Tensor, length: int) -> Tensor:
    """Resize the positions of a text tower to another context length: (L, D) -> (length, D), linear."""
    if len(pos) == length:
        return pos
    resized = F.interpolate(pos.T[None].float(), size=length, mode="linear", align_corners=False, antialias=False)
    return resized[0].T.to(pos.dtype)
