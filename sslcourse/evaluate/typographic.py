"""The typographic attack: a word on a label in front of the object, and a model that reads instead of looking.

Goh et al. 2021, "Multimodal neurons in artificial neural networks", distill.pub: CLIP sees an apple, Granny Smith
85.6 %; with a paper that says "iPod" on it, iPod 99.7 %. A model that was trained on captions has learned to read, and
does not know that it was asked about the thing. What words add to an embedding can be projected out, as Materzynska et
al. 2022, "Disentangling visual and written concepts in CLIP", do with a learned projection.
"""

import torch
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.evaluate.result import Result, mean_result


def typographic_attack(clean: Tensor, attacked: Tensor, labels: Tensor, words: Tensor) -> dict[str, Result]:
    """What written words do to a zero-shot classifier.

    Args:
        clean: (N, C) logits of images without a word.
        attacked: (N, C) logits of the same images with a word on them.
        labels: (N,) int64 classes of the objects.
        words: (N,) int64 classes that the words name, never the object's own.

    Returns:
        "clean" and "attacked", the accuracies; "fooled", the share of images that were right and are now taken for what
        the word says, among those that were right. All with intervals over images.

    Raises:
        InputError: other shapes, or a word that tells the truth.
    """
    if clean.shape != attacked.shape or clean.ndim != 2 or labels.shape != words.shape or len(labels) != len(clean):
        raise InputError(
            f"typographic_attack takes (N, C) logits twice and (N,) classes twice; got {tuple(clean.shape)}, "
            f"{tuple(attacked.shape)}, {tuple(labels.shape)}, {tuple(words.shape)}."
        )
    if bool((labels == words).any()):
        raise InputError("typographic_attack needs words that lie: some name the object's own class.")
    before, after = (logits.argmax(dim=1).to(labels.device) for logits in (clean, attacked))
    right = before == labels
    if not bool(right.any()):
        raise InputError("typographic_attack: no image is right without a word, so there is nothing to attack.")
    detail = {"protocol": "typographic_attack", "n_classes": clean.shape[1]}
    return {
        "clean": mean_result("clean", right.double(), "images", detail),
        "attacked": mean_result("attacked", (after == labels).double(), "images", detail),
        "fooled": mean_result("fooled", (after == words)[right].double(), "images", detail),
    }


def without_directions(z: Tensor, directions: Tensor) -> Tensor:
    """Embeddings without what points along some directions: z - Q Q^T z, Q an orthonormal basis of their span.

    Args:
        z: (N, D) float.
        directions: (K, D) float, for example differences between texts with and without a written word; may depend on
            each other linearly.

    Returns:
        (N, D), orthogonal to every direction.
    """
    if z.ndim != 2 or directions.ndim != 2 or z.shape[1] != directions.shape[1]:
        raise InputError(
            f"without_directions takes (N, D) and (K, D); got {tuple(z.shape)} and {tuple(directions.shape)}."
        )
    u, s, _ = torch.linalg.svd(directions.T.double(), full_matrices=False)
    basis = u[:, s > 1e-6 * s.amax().clamp(min=1e-30)]
    return (z.double() - z.double() @ basis @ basis.T).to(z.dtype)
