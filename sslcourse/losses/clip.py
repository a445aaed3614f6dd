r"""CLIP and SigLIP: an image has to find its caption, and a caption its image, among all pairs of a batch.

With unit vectors x_i (image) and y_j (text) of N pairs,

    CLIP     L = -1/(2N) sum_i [ log softmax_j(s x_i.y_j)_i + log softmax_j(s x_j.y_i)_i ],   s = exp(log_scale) <= 100
    SigLIP   L = -1/N sum_ij log sigmoid( z_ij (t x_i.y_j + b) ),   z_ij = 1 for i = j, else -1

CLIP: Radford et al. 2021, arXiv:2103.00020, figure 3 and section 2.5. SigLIP: Zhai et al. 2023, arXiv:2303.15343, eq. 1
and algorithm 1, where t = exp(t') starts at 10 and b at -10: without that bias the N^2 - N negatives of the start drown
the N positives. CLIP's softmax needs all pairs before it is known; SigLIP's terms are independent, so they can be
summed in pieces, on any number of processes.

The functions take whole batches; `clip_loss_local` and `siglip_loss_local` are the parts of one process of several.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.precision import full_precision

MAX_SCALE = 100.0  # CLIP, section 2.5: logits are never scaled by more, which keeps the training stable


@full_precision
def clip_loss(
    img: Tensor,
    txt: Tensor,
    log_scale: Tensor | float,
    *,
    max_scale: float = MAX_SCALE,
    normalize: bool = True,
    tile: int | None = None,
) -> Tensor:
    """The symmetric cross-entropy of CLIP (figure 3): row i of the one belongs to row i of the other.

    Args:
        img: (N, D) float image embeddings, L2-normalised inside.
        txt: (N, D) float text embeddings, in the same order.
        log_scale: the learned logarithm of 1 / temperature, one number; exponentiated inside.
        max_scale: the largest factor; where it is reached, log_scale gets no gradient.
        normalize: False for embeddings that have unit length already.
        tile: None: the readable form with (N, N) logits. An integer: the same value and gradient from `tile` rows at a
            time, O(N * tile) memory, with the gradient computed in the forward pass; not differentiable twice.

    Returns:
        scalar, mean over both directions and N pairs; 0 for a single pair, which has nothing to be mistaken for.

    Raises:
        InputError: shapes or dtypes that make no pairs, `tile` < 1, a second derivative of the tiled form.
    """
    _check_pairs("clip_loss", img, txt)
    scale = _scale("clip_loss", log_scale, max_scale, img)
    img, txt = _unit(img, txt) if normalize else (img, txt)
    if tile is not None:
        _check_tile("clip_loss", tile)
        return _TiledCLIP.apply(img, txt, scale, tile)
    logits = scale * img @ txt.T
    pair = torch.arange(len(img), device=img.device)
    return (F.cross_entropy(logits, pair) + F.cross_entropy(logits.T, pair)) / 2


@torch.no_grad()
def clamp_log_scale(log_scale: Tensor, max_scale: float = MAX_SCALE) -> Tensor:
    """Clamp the learned logarithm, in place, so that the scale lies in [1, max_scale]: after every optimiser step."""
    return log_scale.clamp_(0, math.log(max_scale))


def gather_negatives(parts: Sequence[Tensor], rank: int) -> tuple[Tensor, Tensor]:
    """The candidates of all processes, and where among them those of process `rank` stand.

    Args:
        parts: (N, D) embeddings of processes 0, 1, ... in this order, whoever finished first.
        rank: whose rows are matched.

    Returns:
        candidates (W * N, D), nothing detached; labels (N,) int64, the row of each own one: rank * N, rank * N + 1, ...
    """
    if not 0 <= rank < len(parts) or any(part.shape != parts[0].shape for part in parts):
        shapes = [tuple(part.shape) for part in parts]
        raise InputError(f"gather_negatives needs equal parts and a rank among them; got {shapes} and rank {rank}.")
    n = len(parts[0])
    return torch.cat(list(parts)), torch.arange(rank * n, (rank + 1) * n, device=parts[0].device)


@full_precision
def clip_loss_local(
    img: Tensor,
    txt: Tensor,
    all_img: Tensor,
    all_txt: Tensor,
    labels: Tensor,
    log_scale: Tensor | float,
    *,
    max_scale: float = MAX_SCALE,
    normalize: bool = True,
) -> Tensor:
    """CLIP's loss of one process's N pairs against the M of all: N x M logits twice instead of M x M.

    The mean over processes is `clip_loss` of the whole batch. With `train.distributed.gather`, whose backward sums what
    all processes send, so is the gradient that DistributedDataParallel averages; detached candidates lose a part of it.

    Args:
        img, txt: (N, D) own embeddings.
        all_img, all_txt: (M, D) those of all processes, own ones included.
        labels: (N,) int64, where the own ones stand among all (`gather_negatives`).
        log_scale, max_scale, normalize: as in `clip_loss`.

    Returns:
        scalar, mean over both directions and the N own pairs.
    """
    _check_pairs("clip_loss_local", img, txt)
    _check_candidates("clip_loss_local", img, all_txt, labels)
    _check_candidates("clip_loss_local", txt, all_img, labels)
    scale = _scale("clip_loss_local", log_scale, max_scale, img)
    if normalize:
        img, txt, all_img, all_txt = _unit(img, txt, all_img, all_txt)
    to_text = F.cross_entropy(scale * img @ all_txt.T, labels)
    to_image = F.cross_entropy(scale * txt @ all_img.T, labels)
    return (to_text + to_image) / 2


@full_precision
def siglip_loss(
    img: Tensor,
    txt: Tensor,
    t: Tensor | float = 10.0,
    b: Tensor | float = -10.0,
    *,
    normalize: bool = True,
    tile: int | None = None,
) -> Tensor:
    """SigLIP's loss (eq. 1): each of the N^2 pairs is a yes-or-no question of its own.

    Args:
        img, txt: (N, D) float embeddings, L2-normalised inside; row i of the one belongs to row i of the other.
        t: the factor of the similarities, > 0; a method learns its logarithm and passes exp(t').
        b: what is added to them; learned.
        normalize: False for embeddings that have unit length already.
        tile: as in `clip_loss`.

    Returns:
        scalar, the sum over N^2 pairs divided by N (not by N^2).

    Raises:
        InputError: as `clip_loss`.
    """
    _check_pairs("siglip_loss", img, txt)
    labels = torch.arange(len(img), device=img.device)
    return siglip_loss_local(img, txt, labels, t, b, normalize=normalize, tile=tile)


@full_precision
def siglip_loss_local(
    img: Tensor,
    all_txt: Tensor,
    labels: Tensor,
    t: Tensor | float = 10.0,
    b: Tensor | float = -10.0,
    *,
    normalize: bool = True,
    tile: int | None = None,
) -> Tensor:
    """SigLIP's loss of one process's N images against some of the texts; its parts add up (section 3.3).

    Args:
        img: (N, D) own image embeddings.
        all_txt: (M, D) text embeddings: those of all processes, or a chunk of them.
        labels: (N,) int64, which of the texts belongs to each image, -1 where none of them does.
        t, b, normalize, tile: as in `siglip_loss`.

    Returns:
        scalar, the sum over N * M pairs divided by N. The mean over processes is `siglip_loss` of the whole batch.
    """
    _check_candidates("siglip_loss_local", img, all_txt, labels)
    t, b = (torch.as_tensor(x, dtype=img.dtype, device=img.device).reshape(()) for x in (t, b))
    img, all_txt = _unit(img, all_txt) if normalize else (img, all_txt)
    if tile is not None:
        _check_tile("siglip_loss", tile)
        return _TiledSigLIP.apply(img, all_txt, t, b, labels, tile)
    mine = labels[:, None] == torch.arange(len(all_txt), device=img.device)
    sign = torch.where(mine, 1.0, -1.0).to(img.dtype)
    return -F.logsigmoid(sign * (t * img @ all_txt.T + b)).sum() / len(img)


@full_precision
def clip_distillation(
    img: Tensor,
    txt: Tensor,
    log_scale: Tensor | float,
    teacher_img: Tensor,
    teacher_txt: Tensor,
    teacher_log_scale: Tensor | float,
    *,
    max_scale: float = MAX_SCALE,
    normalize: bool = True,
) -> Tensor:
    """Cross-entropy of a student's two softmaxes with those of a teacher (open_clip's distillation).

    It is no divergence: where the student equals the teacher it is the teacher's entropy, not 0. The teacher gets no
    gradient.

    Args:
        img, txt, log_scale: as in `clip_loss`; teacher_img, teacher_txt, teacher_log_scale: the same of the teacher.

    Returns:
        scalar, mean over both directions and N pairs.
    """
    _check_pairs("clip_distillation", img, txt)
    _check_pairs("clip_distillation", teacher_img, teacher_txt)
    if len(img) != len(teacher_img):
        raise InputError(
            f"clip_distillation got {len(img)} pairs of the student and {len(teacher_img)} of the teacher."
        )
    scale = _scale("clip_distillation", log_scale, max_scale, img)
    teacher_scale = _scale("clip_distillation", teacher_log_scale, max_scale, teacher_img)
    if normalize:
        img, txt, teacher_img, teacher_txt = _unit(img, txt, teacher_img, teacher_txt)
    student, teacher = scale * img @ txt.T, (teacher_scale * teacher_img @ teacher_txt.T).detach()
    directions = ((student, teacher), (student.T, teacher.T))
    return sum((F.cross_entropy(s, q.softmax(dim=1)) for s, q in directions), start=student.new_zeros(())) / 2


@full_precision
def caption_loss(logits: Tensor, labels: Tensor, *, pad_id: int = 0) -> Tensor:
    """Cross-entropy of the next token, mean over the tokens of the batch that are not padding (CoCa, eq. 2).

    Args:
        logits: (B, L, V) float.
        labels: (B, L) int64, the token that each place has to predict; `pad_id` is not counted.

    Returns:
        scalar; 0 where everything is padding.
    """
    if logits.ndim != 3 or labels.shape != logits.shape[:2]:
        shapes = f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        raise InputError(f"caption_loss needs logits (B, L, V) and labels (B, L); got {shapes}.")
    counted = (labels != pad_id).sum().clamp_min(1)
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=pad_id, reduction="sum") / counted


def coca_loss(
    img: Tensor,
    txt: Tensor,
    log_scale: Tensor | float,
    caption_logits: Tensor,
    caption_labels: Tensor,
    *,
    contrastive_weight: float = 1.0,
    caption_weight: float = 2.0,
    pad_id: int = 0,
    max_scale: float = MAX_SCALE,
    normalize: bool = True,
) -> tuple[Tensor, Tensor]:
    """CoCa's two terms, each times its weight: match the caption and write it (Yu et al. 2022, eq. 4).

    Args:
        img, txt, log_scale, max_scale, normalize: as in `clip_loss`.
        caption_logits, caption_labels, pad_id: as in `caption_loss`.

    Returns:
        (contrastive, captioning), scalars whose sum is the loss.
    """
    contrastive = clip_loss(img, txt, log_scale, max_scale=max_scale, normalize=normalize)
    captioning = caption_loss(caption_logits, caption_labels, pad_id=pad_id)
    return contrastive_weight * contrastive, caption_weight * captioning


class _TiledCLIP(torch.autograd.Function):
    """CLIP's loss from `tile` rows of logits at a time, with the gradient computed on the way.

    With P the softmax over rows, Q that over columns and Z = s X Y^T the logits, dL/dZ = (P + Q - 2 I) / 2N. A column's
    normaliser needs all rows, so logits are computed twice: once for the normalisers, once for the gradient.
    """

    @staticmethod
    def forward(ctx: Any, img: Tensor, txt: Tensor, scale: Tensor, tile: int) -> Tensor:
        n, scaled = len(img), img * scale
        of_row, of_column = img.new_empty(n), img.new_full((n,), -math.inf)
        for start in range(0, n, tile):
            rows = slice(start, start + tile)
            z = scaled[rows] @ txt.T
            of_row[rows] = z.logsumexp(dim=1)
            of_column = torch.logaddexp(of_column, z.logsumexp(dim=0))
        loss = (of_row.sum() + of_column.sum() - 2 * (scaled * txt).sum()) / (2 * n)
        if any(ctx.needs_input_grad):
            by_img, by_txt = torch.empty_like(img), torch.zeros_like(txt)
            for start in range(0, n, tile):
                rows = slice(start, start + tile)
                z = scaled[rows] @ txt.T
                p = (z - of_row[rows, None]).exp_()
                p += z.sub_(of_column).exp_()
                p.diagonal(start).sub_(2)
                by_img[rows] = p @ txt
                by_txt.addmm_(p.T, scaled[rows])
            # s only scales the logits, so its gradient is that of the images along themselves.
            by_scale = torch.dot(by_img.flatten(), img.flatten()) / (2 * n)
            ctx.save_for_backward(by_img.mul_(scale / (2 * n)), by_txt.div_(2 * n), by_scale)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return (*_once(ctx, grad_output), None)


class _TiledSigLIP(torch.autograd.Function):
    """SigLIP's loss from `tile` rows at a time: dL/dlogit is its sigmoid, less 1 for true pairs."""

    @staticmethod
    def forward(ctx: Any, img: Tensor, txt: Tensor, t: Tensor, b: Tensor, labels: Tensor, tile: int) -> Tensor:
        n, scaled = len(img), img * t
        loss, by_b = img.new_zeros(()), img.new_zeros(())
        by_img, by_txt = torch.empty_like(img), torch.zeros_like(txt)
        differentiate = any(ctx.needs_input_grad)
        for start in range(0, n, tile):
            rows = slice(start, start + tile)
            z = scaled[rows] @ txt.T + b
            row = (labels[rows] >= 0).nonzero()[:, 0]
            column = labels[rows][row]
            z[row, column] *= -1  # -log sigmoid(z) = softplus(-z), without cancellation
            loss += F.softplus(z).sum()
            if differentiate:
                p = z.sigmoid_()
                p[row, column] *= -1
                by_img[rows] = p @ txt
                by_txt.addmm_(p.T, scaled[rows])
                by_b += p.sum()
        if differentiate:
            ctx.save_for_backward(by_img * (t / n), by_txt / n, (by_img * img).sum() / n, by_b / n)
        return loss / n

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return (*_once(ctx, grad_output), None, None)


def _once(ctx: Any, grad_output: Tensor) -> list[Tensor]:
    if torch.is_grad_enabled():  # create_graph=True; once_differentiable would let a wrong second derivative pass
        raise InputError("a loss with tile cannot be differentiated twice: use tile=None for higher derivatives.")
    return [gradient * grad_output for gradient in ctx.saved_tensors]


def _scale(name: str, log_scale: Tensor | float, max_scale: float, like: Tensor) -> Tensor:
    log = torch.as_tensor(log_scale, dtype=like.dtype, device=like.device)
    if log.numel() != 1 or not max_scale > 0:
        raise InputError(f"{name} needs one log_scale and max_scale > 0; got {tuple(log.shape)} and {max_scale}.")
    return log.reshape(()).clamp(max=math.log(max_scale)).exp()


def _unit(*embeddings: Tensor) -> tuple[Tensor, ...]:
    return tuple(F.normalize(z, dim=1) for z in embeddings)


def _check_pairs(name: str, img: Tensor, txt: Tensor) -> None:
    if img.ndim != 2 or img.shape != txt.shape or not len(img):
        raise InputError(
            f"{name} needs image and text embeddings of one shape (N, D), N >= 1; got {tuple(img.shape)} and "
            f"{tuple(txt.shape)}."
        )
    if img.dtype != txt.dtype or not img.is_floating_point():
        raise InputError(f"{name} needs embeddings of one floating-point dtype; got {img.dtype} and {txt.dtype}.")


def _check_candidates(name: str, own: Tensor, candidates: Tensor, labels: Tensor) -> None:
    fits = own.ndim == candidates.ndim == 2 and own.shape[1] == candidates.shape[1] and own.dtype == candidates.dtype
    if not fits or labels.shape != own.shape[:1] or not len(own) or not own.is_floating_point():
        raise InputError(
            f"{name} needs (N, D) and (M, D) of one floating-point dtype and (N,) labels; got {tuple(own.shape)} "
            f"{own.dtype}, {tuple(candidates.shape)} {candidates.dtype} and {tuple(labels.shape)}."
        )


def _check_tile(name: str, tile: int) -> None:
    if tile < 1:
        raise InputError(f"{name} got tile={tile}: a tile has at least 1 row.")
