r"""Learning a classifier with few labels: an image keeps its class when it is augmented.

Pseudo-label (Lee 2013) trains on its own confident guesses. UDA (Xie et al. 2020) asks a strongly augmented view for
the sharpened prediction of the unaugmented one, FixMatch (Sohn et al. 2020) for its arg max. MixMatch (Berthelot et al.
2019) averages the predictions of several views, sharpens them, and mixes everything with mixup.
The target never has a gradient.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.losses.precision import full_precision


@full_precision
def pseudo_label_loss(logits: Tensor, threshold: float = 0.95) -> Tensor:
    """Cross-entropy with the class that the network itself finds most likely (Lee 2013, Eq. 15).

    Args:
        logits: (B, K) float of unlabelled images.
        threshold: guesses with a lower probability count as 0; the paper uses all of them.

    Returns:
        scalar, mean over B.
    """
    return fixmatch_consistency(logits, logits, threshold)


@full_precision
def fixmatch_consistency(weak: Tensor, strong: Tensor, threshold: float = 0.95) -> Tensor:
    """Cross-entropy of the strong view with the confident arg max of the weak one (Sohn et al. 2020, Eq. 4).

    Args:
        weak, strong: (B, K) float logits of two views of the same unlabelled images.
        threshold: images whose weak view is less certain count as 0.

    Returns:
        scalar, mean over all B, confident or not.
    """
    _check("fixmatch_consistency", weak, strong)
    confidence, guess = weak.detach().softmax(dim=1).max(dim=1)
    return (F.cross_entropy(strong, guess, reduction="none") * (confidence >= threshold)).mean()


@full_precision
def uda_consistency(original: Tensor, augmented: Tensor, tau: float = 0.4, threshold: float = 0.8) -> Tensor:
    """KL( sharpened p(original) || p(augmented) ) of the confident images (Xie et al. 2020, Eq. 1 and Sec. 2.3).

    Args:
        original, augmented: (B, K) float logits of an unlabelled image and of its strongly augmented view.
        tau: temperature of the target, softmax(original / tau), > 0; below 1 sharpens.
        threshold: images whose original has a lower largest probability count as 0.

    Returns:
        scalar, mean over all B.
    """
    _check("uda_consistency", original, augmented)
    if not tau > 0:
        raise InputError(f"uda_consistency got tau={tau}: the temperature must be greater than 0.")
    original = original.detach()
    log_target = (original / tau).log_softmax(dim=1)
    divergence = F.kl_div(augmented.log_softmax(dim=1), log_target, reduction="none", log_target=True).sum(dim=1)
    return (divergence * (original.softmax(dim=1).amax(dim=1) >= threshold)).mean()


def sharpen(p: Tensor, T: float = 0.5) -> Tensor:
    """p^(1/T), normalised again (MixMatch, Berthelot et al. 2019, Eq. 7): (B, K) probabilities -> (B, K)."""
    if not T > 0:
        raise InputError(f"sharpen got T={T}: the temperature must be greater than 0.")
    return (p.clamp_min(torch.finfo(p.dtype).tiny).log() / T).softmax(dim=1)


@torch.no_grad()
def guess_labels(logits: list[Tensor], T: float = 0.5) -> Tensor:
    """The sharpened mean prediction of several views (MixMatch, Eq. 6 and 7): each (B, K) -> (B, K), no gradient."""
    mean = torch.stack([view.softmax(dim=1) for view in logits]).mean(dim=0)
    return sharpen(mean, T)


@full_precision
def mixmatch_loss(logits: Tensor, target: Tensor, n_labelled: int, weight: float = 75.0) -> Tensor:
    """Cross-entropy of the mixed labelled images plus `weight` times the squared error of the rest (MixMatch, Eq. 3-5).

    Args:
        logits: (B, K) float, the labelled images first.
        target: (B, K) mixed class probabilities.
        n_labelled: how many of the rows are labelled.
        weight: lambda_U, of the unlabelled term; the squared error is averaged over classes and images.

    Returns:
        scalar.
    """
    _check("mixmatch_loss", logits, target)
    labelled, unlabelled = logits[:n_labelled], logits[n_labelled:]
    loss = logits.sum() * 0.0
    if len(labelled):
        loss = loss + F.cross_entropy(labelled, target[:n_labelled])
    if len(unlabelled):
        loss = loss + weight * (unlabelled.softmax(dim=1) - target[n_labelled:]).pow(2).mean()
    return loss


def _check(name: str, a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or a.shape != b.shape:
        raise InputError(f"{name} needs two (B, K) tensors of one shape; got {tuple(a.shape)} and {tuple(b.shape)}.")
