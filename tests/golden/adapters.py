"""Which function runs which golden case: group, then name (a name can occur in two groups).

Adapters live in `groups/`, one file or more for each group. An adapter feeds the inputs of a case and the
hyperparameters *of its JSON* to the public API of the library and returns what the case calls its outputs. It
translates (a factor 2, another layout) in the open, with the reason in a comment, and computes nothing itself; the
cases come in variants with other seeds, shapes and hyperparameters, which the same adapters run.
"""

from groups import (
    clip,
    contrastive,
    evaluation,
    masked,
    masked_images,
    masked_video,
    metric,
    moco,
    nonegatives,
    sam,
    sam_family,
    sam_losses,
)
from loading import Adapter

ADAPTERS: dict[str, dict[str, Adapter]] = {
    "contrastive": contrastive.ADAPTERS
    | metric.ADAPTERS
    | moco.ADAPTERS
    | nonegatives.ADAPTERS
    | evaluation.CONTRASTIVE,
    "masked": masked.ADAPTERS | masked_images.ADAPTERS | masked_video.ADAPTERS | nonegatives.MASKED | evaluation.MASKED,
    "clip-sam": clip.ADAPTERS | sam.ADAPTERS | sam_losses.ADAPTERS | sam_family.ADAPTERS | evaluation.CLIP_SAM,
}
