"""Projection and prediction heads: what stands between the backbone and the loss, and is thrown away afterwards."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sslcourse.errors import InputError


def projection_head(
    in_features: int,
    hidden: int = 2048,
    out: int = 128,
    *,
    layers: int = 2,
    bn: bool = True,
    last_bn: bool = False,
    last_affine: bool = True,
    last_bias: bool = True,
    hidden_bias: bool = False,
) -> nn.Sequential:
    """A multi-layer perceptron: (linear, batch norm, ReLU) x (layers - 1), then linear, then maybe batch norm.

    The heads of the papers are settings of it; `D` is the width of the backbone:

    ==================  =================================================================================
    SimCLR              ``projection_head(D, D, 128)`` in the text (section 2.1: one hidden layer); its code has batch
                        norm in it and, in the last layer too, ``last_bn=True``. "linear" of its figure 8 is
                        ``layers=1``; "none" is `nn.Identity`.
    MoCo v1             ``projection_head(D, 0, 128, layers=1)``
    MoCo v2             ``projection_head(D, D, 128, bn=False)`` (section 3: "2-layer MLP head, hidden layer 2048-d")
    MoCo v3 projector   ``projection_head(D, 4096, 256, layers=3, last_bn=True, last_affine=False)``
    MoCo v3 predictor   ``projection_head(256, 4096, 256, layers=2, last_bn=True, last_affine=False)``
    the same, ResNet    2 layers in both; the predictor ends with ``last_bias=False`` in place of the batch norm
    BYOL                ``projection_head(D, 4096, 256)``, its predictor ``projection_head(256, 4096, 256)``, both with
                        ``hidden_bias=True``, which changes nothing but the names in a checkpoint
    SimSiam             ``projection_head(D, D, 2048, layers=3, last_bn=True, last_affine=False)``, its predictor
                        ``projection_head(2048, 512, 2048)``
    Barlow Twins        ``projection_head(D, 8192, 8192, layers=3, last_bias=False)``
    SwAV                ``projection_head(D, 2048, 128)``
    ==================  =================================================================================

    A linear layer followed by batch norm has no bias, which the norm would remove.

    Args:
        in_features: width D of what comes in.
        hidden: width of the hidden layers; unused when ``layers=1``.
        out: width of the embedding.
        layers: number of linear layers, >= 1.
        bn: batch norm after each hidden linear layer.
        last_bn: batch norm after the last linear layer.
        last_affine: whether that norm has a scale and a shift.
        last_bias: whether the last linear layer has a bias where no batch norm follows.
        hidden_bias: whether the hidden ones have a bias although batch norm follows (checkpoints of BYOL do).

    Shape: (B, in_features) -> (B, out).
    """
    if layers < 1 or in_features < 1 or out < 1 or (layers > 1 and hidden < 1):
        raise InputError(
            f"projection_head needs layers >= 1 and widths >= 1; got {in_features=}, {hidden=}, {out=}, {layers=}."
        )
    modules: list[nn.Module] = []
    width = in_features
    for _ in range(layers - 1):
        modules.append(nn.Linear(width, hidden, bias=hidden_bias or not bn))
        if bn:
            modules.append(nn.BatchNorm1d(hidden))
        modules.append(nn.ReLU(inplace=True))
        width = hidden
    modules.append(nn.Linear(width, out, bias=last_bias and not last_bn))
    if last_bn:
        modules.append(nn.BatchNorm1d(out, affine=last_affine))
    return nn.Sequential(*modules)


class SimplicialEmbedding(nn.Module):
    """Softmax over groups of values (Lavoie et al. 2022, "Simplicial embeddings", eq. 1): (B, D) -> (B, D).

    Args:
        group: values in a group; D is a multiple of it.
        tau: temperature, > 0.
    """

    def __init__(self, group: int = 4, tau: float = 0.1) -> None:
        super().__init__()
        if group < 1 or not tau > 0:
            raise InputError(f"SimplicialEmbedding needs group >= 1 and tau > 0; got {group=}, {tau=}.")
        self.group, self.tau = group, tau

    def forward(self, x: Tensor) -> Tensor:
        return (x.unflatten(1, (-1, self.group)) / self.tau).softmax(dim=2).flatten(1)


class WithHidden(nn.Module):
    """A backbone's output beside the first layer of several heads, each of unit length (what LooC++ keeps).

    Shape: (B, 3, H, W) -> (B, num_features), the width of the backbone plus those of the layers.
    """

    def __init__(self, inner: nn.Module, heads: nn.ModuleList) -> None:
        super().__init__()
        self.inner, self.heads = inner, heads
        width: Any = inner.num_features
        self.num_features = width + sum(head[0].out_features for head in heads)  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x)
        return torch.cat([normalize(part, dim=1) for part in (h, *(head[:2](h) for head in self.heads))], dim=1)  # type: ignore[index]
