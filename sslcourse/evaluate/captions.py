"""What a model of images and words knows of captioned images: pairs it never saw together, and which caption is whose.

`python -m benchmarks.shipped` writes these numbers of the small CLIP into weights/README.md.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image

from sslcourse.data.captioned import HELD_OUT, PAIRS, captioned, combinations
from sslcourse.data.images import Images
from sslcourse.data.shapes import Shapes
from sslcourse.errors import InputError
from sslcourse.evaluate.result import Result, accuracy, mean_result
from sslcourse.evaluate.zeroshot import clip_retrieval_recall, prompt_logits, zero_shot_weights
from sslcourse.zoo.words import WordModel

TEMPLATES = ("a {}", "a photo of a {}")  # how captions of the world name one object


def pair_accuracy(model: WordModel, images: Images, candidates: Sequence[int], *, name: str = "zero-shot") -> Result:
    """Zero-shot accuracy on `combinations`, with some of `PAIRS` to choose from.

    Args:
        model: from `word_model`.
        images: labels are numbers of `PAIRS`.
        candidates: the pairs whose names are offered, every label among them.

    Returns:
        accuracy over images; `detail` has that of the shape and of the colour alone.
    """
    offered = torch.tensor(candidates)
    if not bool(torch.isin(images.labels, offered).all()):
        raise InputError("pair_accuracy: an image shows a pair that is not offered.")
    weights = zero_shot_weights(model.text, [PAIRS[i] for i in candidates], TEMPLATES)
    logits = prompt_logits(model.embed(_pil(images)), weights)
    said = offered[logits.argmax(dim=1)]
    detail = {
        "protocol": "zero_shot_pairs",
        "n_classes": len(candidates),
        "shape": (said // 10 == images.labels // 10).double().mean().item(),
        "colour": (said % 10 == images.labels % 10).double().mean().item(),
    }
    return accuracy(name, logits, torch.searchsorted(offered, images.labels), detail)


def caption_recall(model: WordModel, images: Images, k: int = 1, *, group: int = 100) -> dict[str, Result]:
    """Recall@k of captions by images and of images by captions, among `group` images and their captions at a time.

    The candidates of an image are one caption of each image of its group, the first one: with all five of them one
    image would have five right answers.

    Args:
        model: from `word_model`.
        images: with captions; what does not fill a group is left out.
        k: how many candidates are looked at.
        group: images of a group, whose captions compete.

    Returns:
        "image_to_text" and "text_to_image", with intervals over images.
    """
    if not images.captions or not 1 < group <= len(images):
        raise InputError(f"caption_recall needs captions and a group of 2 to {len(images)} images; got {group}.")
    n = len(images) // group * group
    with torch.no_grad():
        txt = model.text([texts[0] for texts in images.captions[:n]])
    img = model.embed(_pil(images.subset(torch.arange(n))))
    found = {}
    for name, queries, keys in (("image_to_text", img, txt), ("text_to_image", txt, img)):
        groups = zip(queries.split(group), keys.split(group), strict=True)
        each = [clip_retrieval_recall(q[None], part, [[i]], k) for some, part in groups for i, q in enumerate(some)]
        detail = {"protocol": "caption_recall", "k": k, "among": group, "direction": name}
        found[name] = mean_result(f"{name} recall@{k} of {group}", torch.stack(each), "images", detail)
    return found


def relation_accuracy(model: WordModel, *, n: int = 1000, size: int = 32, split: str = "test", seed: int = 0) -> Result:
    """Which is in front? Scenes of two objects, and two sentences that differ in their order only; chance is 1/2.

    A model that reads a caption as a bag of words cannot tell them apart (Yuksekgonul et al. 2023, "When and why
    vision-language models behave like bags-of-words").
    """
    world = Shapes(split, size, seed, preset="captions", objects=(2, 2))
    images, right = world.images_of(range(n)), [five[1] for five in world.captions(range(n))]
    wrong = [" in front of ".join(reversed(text.split(" in front of "))) for text in right]
    kept = torch.tensor([a != b for a, b in zip(right, wrong, strict=True)])  # two alike have no order
    with torch.no_grad():
        img = F.normalize(model.embed(_pil(images)), dim=1)
        scores = torch.stack([(img * F.normalize(model.text(texts), dim=1)).sum(dim=1) for texts in (right, wrong)], 1)
    gap = (scores[:, 0] - scores[:, 1])[kept]
    each = (gap > 1e-6).double() + 0.5 * (gap.abs() <= 1e-6).double()  # a tie is a coin toss
    return mean_result("which object is in front", each, "images", {"protocol": "relation", "n_classes": 2})


def captioned_results(model: WordModel, *, n: int = 1000, size: int = 32) -> list[Result]:
    """The table of a model of captioned scenes, on scenes of the test split."""
    unseen = combinations("test", n, size)
    seen = combinations("test", n, size, held_out=False)
    every = range(len(PAIRS))
    return [
        pair_accuracy(model, unseen, sorted(HELD_OUT), name="unseen pairs, among the 20 unseen"),
        pair_accuracy(model, unseen, every, name="unseen pairs, among all 100"),
        pair_accuracy(model, seen, every, name="seen pairs, among all 100"),
        *caption_recall(model, captioned("test", n, size)).values(),
        relation_accuracy(model, n=n, size=size),
    ]


def _pil(images: Images) -> list[Image.Image]:
    return [Image.fromarray(image.permute(1, 2, 0).cpu().numpy()) for image in images.images]
