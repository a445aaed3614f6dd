"""`sslcourse zeroshot IMAGE... --labels "a, b, c"`: which of the words fits each image, as a table and a picture."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sslcourse.commands.arguments import parse
from sslcourse.errors import InputError


@dataclass(frozen=True)
class Options:
    """Classify images by words: the label whose prompts are most similar to the image wins."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Image files."""
    labels: str
    """Class names, separated by commas."""
    model: str = "clip_shapes"
    """The small CLIP of the repository, which knows coloured shapes; a run of clip or siglip (a folder or a
    model.safetensors); or an official model by name (clip_vit_b32, ...), with --weights."""
    weights: Path | None = None
    """The official checkpoint of that name."""
    templates: tuple[str, ...] = ("a {}", "a photo of a {}")
    """Prompts with {} where the label goes; their embeddings are averaged."""
    truncate: bool = False
    """Cut labels that are too long for the model instead of refusing them."""
    top: int = 5
    """How many labels to show for an image."""
    out: Path = Path("zeroshot.png")
    """Where to write the picture of the scores."""


def run(argv: list[str]) -> None:
    options = parse(Options, argv, "zeroshot")
    labels = split_labels(options.labels)
    if not options.images:
        raise InputError('zeroshot needs one or more images: sslcourse zeroshot IMAGE... --labels "a, b, c".')
    if options.top < 1:
        raise InputError(f"--top is at least 1; got {options.top}.")

    from sslcourse.data.preprocess import open_image
    from sslcourse.evaluate.zeroshot import prompt_logits, zero_shot_weights
    from sslcourse.viz.scores import scores
    from sslcourse.zoo.words import word_model

    images = [open_image(path) for path in options.images]
    model = word_model(options.model, options.weights, truncate=options.truncate)
    weights = zero_shot_weights(model.text, labels, options.templates)
    p = model.probabilities(prompt_logits(model.embed(images), weights, 1.0))

    best, index = p.topk(min(options.top, len(labels)), dim=1)
    width = max(len(str(path)) for path in options.images)
    for path, values, at in zip(options.images, best.tolist(), index.tolist(), strict=True):
        shown = ", ".join(f"{labels[i]} {value:.3f}" for i, value in zip(at, values, strict=True))
        print(f"{path!s:<{width}}  {shown}")
    figure = scores(images, labels, p, top=options.top, titles=[path.name for path in options.images])
    try:
        figure.savefig(options.out, dpi=150, bbox_inches="tight")
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot write the picture {options.out}: {error}.") from error
    print(f"sslcourse: the scores as a picture are in {options.out}", file=sys.stderr)


def split_labels(text: str) -> list[str]:
    """The labels of "a, b, c".

    Raises:
        InputError: none, a blank one, or one that occurs twice.
    """
    labels = [label.strip() for label in text.split(",")]
    if not all(labels):
        raise InputError(f'--labels takes class names separated by commas, none of them blank; got "{text}".')
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise InputError(f"--labels names '{twice[0]}' twice.")
    return labels
