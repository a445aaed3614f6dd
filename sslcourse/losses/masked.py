"""Losses of masked modelling: what is hidden is compared, what was visible is not.

Masks are bool (or 0 and 1), True = hidden. Each loss averages over all hidden entries of the batch, so images that
hide more count more; where nothing is hidden at all, over everything, which makes the method an autoencoder.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.precision import full_precision


@full_precision
def mae_loss(pred: Tensor, patches: Tensor, mask: Tensor, norm_pix: bool = False) -> Tensor:
    """Mean squared error of the pixels of hidden patches (MAE, He et al. 2021, section 3, "reconstruction target").

    Args:
        pred, patches: (B, N, p*p*C).
        mask: (B, N).
        norm_pix: compare with `normalize_patches(patches)`.

    Returns:
        Scalar.
    """
    target = normalize_patches(patches) if norm_pix else patches
    return masked_mean((pred - target).square().mean(dim=-1), mask)


def normalize_patches(patches: Tensor, eps: float = 1e-6) -> Tensor:
    """Every patch minus its mean over its standard deviation, (x - mean) / sqrt(var + eps), var with n - 1."""
    mean, var = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
    return (patches - mean) / (var + eps).sqrt()


def normalize_tubelets(tubelets: Tensor, channels: int = 3, eps: float = 1e-6) -> Tensor:
    """VideoMAE's targets: every tubelet and colour channel by itself, (x - mean) / (std + eps), std with n - 1.

    Args:
        tubelets: (B, N, t*p*p*C) of pixels in [0, 1], channels last (`tubelet_embed`).
    """
    x = tubelets.unflatten(-1, (-1, channels))
    mean, std = x.mean(dim=-2, keepdim=True), x.var(dim=-2, keepdim=True).sqrt()
    return ((x - mean) / (std + eps)).flatten(-2)


@full_precision
def beit_loss(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of the visual tokens of hidden patches (BEiT, Bao et al. 2021, equation 2).

    Args:
        logits: (B, N, vocabulary).
        tokens: (B, N) or (B, h, w) int64, what the tokenizer says.
        mask: (B, N) or (B, h, w).
    """
    entropy = F.cross_entropy(logits.transpose(1, 2), tokens.flatten(1), reduction="none")
    return masked_mean(entropy, mask.flatten(1))


@full_precision
def simmim_l1(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error of hidden pixels (SimMIM, Xie et al. 2021, equation 1; 1e-5 in the count as in its code).

    Args:
        pred, target: (B, C, H, W).
        mask: (B, h, w) on a grid of tokens, H = h * p and W = w * p.
    """
    factors = [a // b for a, b in zip(target.shape[2:], mask.shape[1:], strict=True)]
    if [f * n for f, n in zip(factors, mask.shape[1:], strict=True)] != list(target.shape[2:]):
        raise InputError(f"simmim_l1 cannot spread a mask {(*mask.shape,)} over images {(*target.shape,)}.")
    hidden = mask.repeat_interleave(factors[0], 1).repeat_interleave(factors[1], 2)[:, None].to(pred.dtype)
    hidden = torch.where(hidden.any(), hidden, 1.0)
    return ((pred - target).abs() * hidden).sum() / ((hidden.sum() + 1e-5) * target.shape[1])


@full_precision
def maskfeat_loss(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of the features of hidden patches (MaskFeat, Wei et al. 2021, section 3.1).

    Args:
        pred: (B, N, D).
        target: (B, N, D), features of the *whole* image; no gradient goes there.
        mask: (B, N) or of any shape of N entries an image.
    """
    return masked_mean((pred - target.detach()).square().mean(dim=-1), mask.flatten(1))


@full_precision
def umt_align_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of unit vectors, 2 - 2 cos (Unmasked Teacher, Li et al. 2023, section 3.2).

    Args:
        student, teacher: (K, B, V, D), K layers of the V visible tokens; normalised here. No gradient to the teacher.
    """
    if student.shape != teacher.shape:
        raise InputError(
            f"umt_align_loss compares the same layers and visible tokens; got {(*student.shape,)} and "
            f"{(*teacher.shape,)}."
        )
    student, teacher = F.normalize(student, dim=-1), F.normalize(teacher.detach(), dim=-1)
    return (student - teacher).square().sum(dim=-1).mean()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of (B, N) values where the (B, N) mask is True; of all of them where it is nowhere."""
    if values.shape != mask.shape:
        raise InputError(f"a mask of shape {(*mask.shape,)} does not belong to {(*values.shape,)} patches.")
    weight = mask.to(values.dtype)
    weight = torch.where(weight.any(), weight, 1.0)
    return (values * weight).sum() / weight.sum()
