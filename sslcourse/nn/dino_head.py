"""The heads of DINO, iBOT and DINOv2: an MLP to a narrow unit vector, then its cosines with K prototypes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.errors import InputError


class Prototypes(nn.Module):
    """g v / |v| times the input: a linear layer without bias whose rows have the length g ("weight normalisation").

    The parameters have the names of the official checkpoints, weight_g (out, 1) and weight_v (out, in).
    """

    def __init__(self, dim: int, out: int, learn_length: bool) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(out, 1), requires_grad=learn_length)
        self.weight_v = nn.Parameter(torch.empty(out, dim))
        nn.init.kaiming_uniform_(self.weight_v, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight_g * self.weight_v / self.weight_v.norm(dim=1, keepdim=True))


class DINOHead(nn.Module):
    """DINO's projection head (Caron et al. 2021, section 3.1 and appendix C): (..., in_dim) -> (..., out_dim).

    Args:
        in_dim: width of the backbone.
        out_dim: number K of prototypes.
        hidden: width of the hidden layers.
        bottleneck: width of the unit vector that is compared with the prototypes.
        n_layers: linear layers up to the bottleneck, >= 1; the prototypes come on top.
        bn: batch norm before each GELU; DINO does without.
        norm_last_layer: keep the prototypes at length 1, so outputs are cosines; steadier for large models. DINOv2
            lets the length be learned.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        hidden: int = 2048,
        bottleneck: int = 256,
        n_layers: int = 3,
        *,
        bn: bool = False,
        norm_last_layer: bool = True,
    ) -> None:
        super().__init__()
        if min(in_dim, out_dim, hidden, bottleneck, n_layers) < 1:
            raise InputError(f"DINOHead needs widths and layers >= 1; got {in_dim=}, {out_dim=}, {n_layers=}.")
        layers: list[nn.Module] = []
        width = in_dim
        for _ in range(n_layers - 1):
            layers += [nn.Linear(width, hidden), *([nn.BatchNorm1d(hidden)] if bn else []), nn.GELU()]
            width = hidden
        self.mlp = nn.Sequential(*layers, nn.Linear(width, bottleneck))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = Prototypes(bottleneck, out_dim, learn_length=not norm_last_layer)

    def bottleneck(self, x: Tensor) -> Tensor:
        """(..., in_dim) -> unit vectors (..., bottleneck)."""
        x = self.mlp(x)
        return F.normalize(x, dim=-1, eps=1e-6 if x.dtype == torch.float16 else 1e-12)

    def forward(self, x: Tensor) -> Tensor:
        return self.last_layer(self.bottleneck(x))


class IBOTHead(DINOHead):
    """iBOT's head: one MLP, prototypes for the class token and others, or the same, for patches (section 3.2).

    Args:
        patch_out_dim: prototypes of the patches; None shares those of the class token, which the paper finds best.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        hidden: int = 2048,
        bottleneck: int = 256,
        n_layers: int = 3,
        *,
        patch_out_dim: int | None = None,
        norm_last_layer: bool = True,
    ) -> None:
        super().__init__(in_dim, out_dim, hidden, bottleneck, n_layers, norm_last_layer=norm_last_layer)
        self.last_layer2 = self.last_layer
        if patch_out_dim is not None:
            self.last_layer2 = Prototypes(bottleneck, patch_out_dim, learn_length=not norm_last_layer)

    def forward_tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1 + N, in_dim), the class token first -> (B, out_dim) and (B, N, patch_out_dim)."""
        x = self.bottleneck(tokens)
        return self.last_layer(x[:, 0]), self.last_layer2(x[:, 1:])
