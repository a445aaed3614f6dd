"""Do several prompts name a class better than one? Prompt ensembles on pairs of colour and shape never seen together.

python -m benchmarks.findings.clip_prompts

The shipped CLIP, all 100 pairs to choose from. The ensembles average embeddings (Radford et al. 2021, section 3.1.4):
over four phrasings of the captions, and over what else may be said of an object, its size and its texture. What they
are compared with is one of the nine templates on average: what one gets who cannot try them all. The best of the nine
is chosen on the test images themselves, so it is an upper bound.
"""

from typing import Any

from benchmarks.findings import clip_common as common
from benchmarks.findings.common import Finding, run
from sslcourse.data.captioned import PAIRS, combinations

BARE, PHOTO = "a {}", "a photo of a {}"
PHRASINGS = (BARE, PHOTO, "a photo that shows a {}", "a {} on a plain background")
LOOKS = tuple(f"a {look} {{}}" for look in ("large", "small", "striped", "checked", "dotted"))
ARMS = {
    "a {}": (BARE,),
    "a photo of a {}": (PHOTO,),
    "4 phrasings": PHRASINGS,
    "name and 5 looks": (BARE, *LOOKS),
    "all 9": (*PHRASINGS, *LOOKS),
}


def setting() -> dict[str, Any]:
    """What all arms share."""
    return common.setting() | {"classes": len(PAIRS), "images": "of 20 pairs never seen in training"}


def measure(seed: int) -> dict[str, float]:
    """Zero-shot accuracy with each set of templates, on the same images."""
    images = combinations("test", common.TEST, common.SIZE, seed)
    img = common.embed(images.images)
    alone = [common.words_accuracy(img, images.labels, PAIRS, (template,)) for template in ARMS["all 9"]]
    found = {"one of 9, mean": sum(alone) / len(alone), "one of 9, best": max(alone)}
    return found | {arm: common.words_accuracy(img, images.labels, PAIRS, t) for arm, t in ARMS.items()}


if __name__ == "__main__":
    question = "Does an ensemble of prompts recognise more than one prompt?"
    run(Finding("clip_prompts", question, "zero-shot accuracy, 100 classes", "one of 9, mean", setting()), measure)
