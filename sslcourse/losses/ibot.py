r"""iBOT: masked image modelling whose targets come from the teacher: an online tokenizer.

The teacher sees the whole view, the student the view with some patches masked, and predicts the teacher's distribution
at those patches:

    L = 1/B sum_b 1/|M_b| sum_{i in M_b} -sum_k softmax((t_bi - c') / tt)_k log softmax(s_bi / ts)_k

Zhou et al. 2021, "iBOT: image BERT pre-training with online tokenizer", arXiv:2111.07832, Eq. 2 and 3. The loss of the
class tokens is `dino_loss`; the centre c' of the patches is moved by `update_center` with *all* patches.
"""

import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.dino import dino_targets
from sslcourse.losses.precision import full_precision


@full_precision
def ibot_patch_loss(
    s_patch: Tensor, t_patch: Tensor, mask: Tensor, center: Tensor, ts: float = 0.1, tt: float = 0.04
) -> Tensor:
    """iBOT's patch loss of one view.

    Args:
        s_patch: (B, N, K) student logits of the masked view.
        t_patch: (B, N, K) teacher logits of the same view, unmasked; detached.
        mask: (B, N) bool, True = masked.
        center: K values, subtracted from the teacher's logits; the one of the patches, not that of the class token.
        ts, tt: temperatures of student and teacher, > 0.

    Returns:
        scalar: mean over the masked patches of each image, then over all B images. An image without a mask adds
        nothing and still counts in B, as in the official code.
    """
    if center.numel() != t_patch.shape[-1]:
        raise InputError(f"ibot_patch_loss needs {t_patch.shape[-1]} values of the centre; got {tuple(center.shape)}.")
    return masked_distillation_loss(s_patch, dino_targets(t_patch, center.flatten(), tt), mask, ts)


@full_precision
def masked_distillation_loss(s_patch: Tensor, targets: Tensor, mask: Tensor, ts: float = 0.1) -> Tensor:
    """The same with given targets (B, N, K), whose rows sum to 1: those of `sinkhorn_centering` in DINOv2."""
    if s_patch.ndim != 3 or s_patch.shape != targets.shape or mask.shape != s_patch.shape[:2] or not len(s_patch):
        raise InputError(
            f"iBOT's patch loss needs logits and targets (B, N, K) and a mask (B, N); got {tuple(s_patch.shape)}, "
            f"{tuple(targets.shape)} and {tuple(mask.shape)}."
        )
    if not ts > 0:
        raise InputError(f"A temperature must be greater than 0; got ts={ts}.")
    each = -(targets.detach() * F.log_softmax(s_patch / ts, dim=-1)).sum(dim=-1)  # (B, N)
    hidden = mask.to(each.dtype)
    return ((each * hidden).sum(dim=1) / hidden.sum(dim=1).clamp_min(1)).mean()
