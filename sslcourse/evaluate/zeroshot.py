"""Zero-shot: classes are named in words, the words are embedded, and an image takes the nearest class.

    w_c = unit( mean_t unit( text(template_t with class c) ) ),      logits = scale * unit(image) . w_c

Radford et al. 2021, section 3.1.4: an ensemble of prompts in the space of embeddings costs no more than one prompt once
the class weights are there. Retrieval asks the same of pairs: is the own caption among the k most similar ones?
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.evaluate.result import Result, accuracy

Encode = Callable[[list[str]], Tensor]  # texts -> (n, D) embeddings

PLAIN = ("a photo of a {}.",)  # the paper's first prompt
# A few of our own in the paper's spirit: what else a picture of a thing may be.
TEMPLATES = (
    "a photo of a {}.",
    "a picture of one {}.",
    "a close view of the {}.",
    "a drawing of a {}.",
    "the {} alone.",
)


def prompts(name: str, templates: Sequence[str] = PLAIN) -> list[str]:
    """Every template with the class name in the place of its braces."""
    if not templates or any(template.count("{}") != 1 for template in templates):
        raise InputError(f"a template has one pair of braces for the class name; got {list(templates)!r}.")
    return [template.replace("{}", name) for template in templates]


def ensemble(embeddings: Tensor) -> Tensor:
    """Class weights of prompt embeddings: normalise, average over the templates, normalise again.

    Args:
        embeddings: (C, T, D) float, T prompts for each of C classes.

    Returns:
        (D, C), columns of unit length.
    """
    if embeddings.ndim != 3 or not embeddings.shape[1]:
        raise InputError(f"ensemble takes (classes, templates, D) embeddings; got {tuple(embeddings.shape)}.")
    return F.normalize(F.normalize(embeddings, dim=2).mean(dim=1), dim=1).T


@torch.no_grad()
def zero_shot_weights(
    encode: Encode, classes: Sequence[str], templates: Sequence[str] = PLAIN, *, batch_size: int = 256
) -> Tensor:
    """The classifier that words make (section 3.1.4), classes in the order given.

    Args:
        encode: texts -> (n, D) embeddings, normalised or not.
        classes: names of the classes.
        templates: prompts with braces where the name goes.
        batch_size: texts embedded at a time.

    Returns:
        (D, C), columns of unit length.

    Raises:
        InputError: no class, a blank one, or a template without braces.
    """
    if isinstance(classes, str) or not classes or not all(name.strip() for name in classes):
        raise InputError(f"zero-shot needs a list of one or more class names, none blank; got {classes!r}.")
    texts = [text for name in classes for text in prompts(name, templates)]
    parts = [encode(texts[i : i + batch_size]) for i in range(0, len(texts), batch_size)]
    return ensemble(torch.cat(parts).unflatten(0, (len(classes), len(templates))))


def prompt_logits(img: Tensor, W: Tensor, scale: float | Tensor = 100.0) -> Tensor:
    """Scores of every image for every class: (N, D) embeddings, L2-normalised inside, (D, C) weights -> (N, C)."""
    if img.ndim != 2 or W.ndim != 2 or img.shape[1] != W.shape[0]:
        raise InputError(
            f"prompt_logits takes images (N, D) and weights (D, C); got {tuple(img.shape)}, {tuple(W.shape)}."
        )
    return scale * F.normalize(img, dim=1) @ W


def top_k(logits: Tensor, k: int = 5) -> tuple[Tensor, Tensor]:
    """Probabilities and indices of the k best classes (all, where there are fewer), best first: (N, k) each."""
    if logits.ndim != 2 or not logits.shape[1] or k < 1:
        raise InputError(f"top_k takes (N, C) logits, C >= 1, and k >= 1; got {tuple(logits.shape)} and k={k}.")
    values, indices = logits.softmax(dim=1).topk(min(k, logits.shape[1]), dim=1)
    return values, indices


def zero_shot_accuracy(img: Tensor, labels: Tensor, W: Tensor) -> Result:
    """Accuracy over images of the classifier `W` (D, C) on embeddings (N, D)."""
    detail = {"protocol": "zero_shot", "n_classes": W.shape[1]}
    return accuracy("zero_shot", prompt_logits(img, W), labels, detail)


@torch.no_grad()
def clip_retrieval_recall(img: Tensor, txt: Tensor, gt_lists: Sequence[Sequence[int]], k: int) -> Tensor:
    """Recall@k of images that look for their captions: the share with one of their own among the k most similar.

    The best own caption counts; a wrong caption that scores the same stands before it, so that constant embeddings find
    nothing. For texts that look for images call it with (txt, img) and the image of each text.

    Args:
        img: (Q, D) float queries, L2-normalised inside.
        txt: (M, D) float candidates, L2-normalised inside.
        gt_lists: Q lists of one or more positions in `txt`.
        k: how many candidates are looked at, >= 1.

    Returns:
        scalar in [0, 1], a mean over the Q queries.
    """
    if img.ndim != 2 or txt.ndim != 2 or img.shape[1] != txt.shape[1] or len(gt_lists) != len(img) or not len(img):
        raise InputError(
            f"retrieval needs (Q, D), (M, D), Q lists; got {tuple(img.shape)}, {tuple(txt.shape)}, {len(gt_lists)}."
        )
    if k < 1 or any(not own or min(own) < 0 or max(own) >= len(txt) for own in gt_lists):
        raise InputError(
            f"retrieval needs k >= 1 and for every query one or more positions below {len(txt)}; got k={k}."
        )
    mine = torch.zeros(len(img), len(txt), dtype=torch.bool)
    for row, own in zip(mine, gt_lists, strict=True):
        row[list(own)] = True
    mine = mine.to(img.device)
    scores = F.normalize(img, dim=1) @ F.normalize(txt, dim=1).T
    best = scores.masked_fill(~mine, -torch.inf).amax(dim=1, keepdim=True)
    before = ((scores >= best) & ~mine).sum(dim=1)
    return (before < k).double().mean()
