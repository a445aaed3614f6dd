"""Several views of one video: a network sees short clips and square crops, so a video is judged by many of them."""

from torch import Tensor

from sslcourse.errors import InputError


def video_views_eval(logits: Tensor, clips: int, crops: int) -> Tensor:
    """Class scores of videos, from logits of all their views (SlowFast, Feichtenhofer et al. 2019, section 4).

        score(v) = 1 / (clips * crops) * sum over the views of v of softmax(logits)

    Probabilities are averaged, not logits (one view with very large logits would decide alone) and not decisions
    (a view that hesitates would count as much as a sure one).

    Args:
        logits: (V * clips * crops, C), the views of a video one after the other.
        clips: clips of each video, >= 1.
        crops: crops of each clip, >= 1.

    Returns:
        (V, C) float, rows sum to 1; `argmax(1)` is the prediction.
    """
    if logits.ndim != 2 or clips < 1 or crops < 1 or len(logits) % (clips * crops):
        raise InputError(
            f"video_views_eval needs logits (V * {clips} * {crops}, C), clips and crops of 1 or more; got "
            f"{tuple(logits.shape)}."
        )
    return logits.float().softmax(dim=1).unflatten(0, (-1, clips * crops)).mean(dim=1)
