"""`sslcourse segment IMAGE`: masks for points, boxes, words or everything: an overlay, a picture a mask, COCO JSON."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sslcourse.commands.arguments import parse
from sslcourse.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from sslcourse.segment.fastsam_net import FastNet
    from sslcourse.segment.sam import Sam


@dataclass(frozen=True)
class Options:
    """Segment an image: what lies under points, what is in boxes, what words name, or everything. Coordinates are
    pixels, x before y.

    Points together mean one object; every box means one of its own, in which the points lie where there are both. Words
    choose among everything: the mask whose place in the image looks most like them to a CLIP. A FastSAM always finds
    everything first, and points and boxes choose, too.
    """

    image: Annotated[Path, tyro.conf.Positional]
    """The image file."""
    point: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """x,y in the object; can be given several times."""
    exclude: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """x,y that is not in the object; can be given several times."""
    box: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """x1,y1,x2,y2 around the object; can be given several times."""
    text: str | None = None
    """What the object is called; with --grounded several things, separated by full stops."""
    grounded: bool = False
    """Read --text with the course's text-to-box model, and segment in every box that it finds."""
    matte: bool = False
    """Also write how much of every pixel is the object, for every mask (alpha000.png, ...), with the course's matting
    model."""
    everything: bool = False
    """Find all objects instead."""
    grid: int = 32
    """Points a side that --everything and --text ask."""
    min_iou: float | None = None
    """Predicted IoU from which on --everything and --text keep a mask; 0.4 for the course's small models, which promise
    less than they hold, 0.8 for official ones."""
    min_stability: float | None = None
    """Stability from which on they do; 0.6 for the course's models, 0.9 for official ones."""
    model: str = "tiny_sam"
    """A model of the course (tiny_sam, tiny_mobilesam, tiny_hqsam, tiny_fastsam), a file of sslcourse.segment.train, or
    with --weights a name such as sam_vit_b."""
    weights: Path | None = None
    """The official checkpoint of that name."""
    words: str = "clip_shapes"
    """The CLIP that reads --text: the course's, a run of clip, or with --words-weights a name such as clip_vit_b32."""
    words_weights: Path | None = None
    """The official checkpoint of that name."""
    out: Path | None = None
    """Folder to write; IMAGE-masks by default."""


def numbers(text: str, n: int, option: str) -> list[float]:
    """`n` numbers that commas separate."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != n:
        wanted = "x,y" if n == 2 else "x1,y1,x2,y2"
        raise InputError(f"--{option} takes {wanted} in pixels; got '{text}'.")
    return found


def run(argv: list[str]) -> None:
    options = parse(Options, argv, "segment")
    prompted = bool(options.point or options.exclude or options.box)
    if prompted + options.everything + (options.text is not None) != 1:
        raise InputError(
            "segment needs one kind of prompt: --point x,y or --box x1,y1,x2,y2, --text WORDS, or --everything."
        )
    points = [numbers(text, 2, "point") for text in options.point]
    points += [numbers(text, 2, "exclude") for text in options.exclude]
    labels = [1] * len(options.point) + [0] * len(options.exclude)
    boxes = [numbers(text, 4, "box") for text in options.box]
    if options.grounded and options.text is None:
        raise InputError("--grounded reads words: give them with --text.")
    if points and len(boxes) > 1:
        raise InputError("points belong to one object; give them with one --box at most.")

    from sslcourse.segment.resize import to_pixels
    from sslcourse.segment.sam import Sam

    pixels = to_pixels(options.image)
    model = _model(options)
    if options.grounded:
        boxes = _grounded(options, pixels)
    if not isinstance(model, Sam):
        found = _fast(model, pixels, points, labels, boxes)
    elif prompted or options.grounded:
        found = _prompted(model, pixels, points, labels, boxes)
    else:
        found = _everything(model, pixels, options)
    if options.text is not None and not options.grounded:
        found = _named(options.text, pixels, *found, options)
    out = options.out or options.image.with_name(f"{options.image.stem}-masks")
    _write(out, options.image, pixels, *found)
    if options.matte:
        _write_mattes(out, pixels, found[0])


def _model(options: Options) -> "Sam | FastNet":
    from sslcourse.segment.fastsam_net import FastNet
    from sslcourse.segment.files import load_small
    from sslcourse.segment.sam import Sam
    from sslcourse.zoo.weights import SHIPPED

    if options.weights is not None:
        from sslcourse import zoo

        return zoo.load(options.model, options.weights)  # type: ignore[return-value]
    model = load_small(name=options.model) if options.model in SHIPPED else load_small(options.model)
    if not isinstance(model, Sam | FastNet):
        raise InputError(f"{options.model} takes no prompts: it is what --grounded or --matte uses.")
    return model


def _grounded(options: Options, pixels: "Tensor") -> list[list[float]]:
    """The boxes of what the words name."""
    from typing import cast

    from sslcourse.segment.files import load_small
    from sslcourse.segment.text_to_box import TextToBox, find_text

    found = find_text(cast(TextToBox, load_small(name="tiny_grounded")), pixels, options.text or "")
    if not len(found.boxes):
        raise InputError(f"found nothing that '{options.text}' could be.")
    for box, phrase, score in zip(found.boxes.tolist(), found.phrases, found.scores.tolist(), strict=True):
        print(f"sslcourse: '{phrase}' {score:.2f} in {','.join(f'{x:.0f}' for x in box)}", file=sys.stderr)
    return found.boxes.tolist()


def _fast(
    model: "FastNet", pixels: "Tensor", points: list[list[float]], labels: list[int], boxes: list[list[float]]
) -> tuple["Tensor", list[float]]:
    """Everything that FastSAM finds and its scores; or what points together, or boxes one by one, choose of it."""
    import torch

    from sslcourse.segment.fastsam import select_by_boxes, select_by_points
    from sslcourse.segment.fastsam_net import find_all

    found = find_all(model, pixels)
    if not points and not boxes:
        return found.masks, found.scores.tolist()
    if not len(found.masks):
        raise InputError("FastSAM found no object in this image that a prompt could choose.")
    if points:
        given = torch.tensor(points)
        return select_by_points(found.masks, given, torch.tensor(labels))[None], [float(found.scores.max())]
    chosen = select_by_boxes(found.masks, torch.tensor(boxes))
    return found.masks[chosen], found.scores[chosen].tolist()


def _prompted(
    model: "Sam", pixels: "Tensor", points: list[list[float]], labels: list[int], boxes: list[list[float]]
) -> tuple["Tensor", list[float]]:
    """(K, H, W) masks and their predicted IoU: three for one point, one for several prompts, one a box."""
    from sslcourse.segment.predictor import Predictor

    predictor = Predictor(model).set_image(pixels)
    if boxes and not points:
        found = predictor.predict(boxes=boxes, multimask=False)
        return found.masks[:, 0], found.iou[:, 0].tolist()
    ambiguous = len(points) == 1 and not boxes
    found = predictor.predict(points, labels, boxes[0] if boxes else None, multimask=ambiguous)
    return found.masks, found.iou.tolist()


def _everything(model: "Sam", pixels: "Tensor", options: Options) -> tuple["Tensor", list[float]]:
    import torch

    from sslcourse.segment.automatic import SMALL, AutomaticMasks, Thresholds
    from sslcourse.segment.predictor import Predictor

    usual = SMALL if options.weights is None else Thresholds(pred_iou=0.8, stability=0.9)
    given = {"pred_iou": options.min_iou, "stability": options.min_stability}
    limits = replace(usual, **{name: value for name, value in given.items() if value is not None})
    found = AutomaticMasks(Predictor(model), options.grid, limits=limits)(pixels)
    masks = [record.mask for record in found]
    empty = torch.zeros(0, *pixels.shape[1:], dtype=torch.bool)
    return torch.stack(masks) if masks else empty, [record.predicted_iou for record in found]


def _named(
    text: str, pixels: "Tensor", masks: "Tensor", iou: list[float], options: Options
) -> tuple["Tensor", list[float]]:
    """The one of the masks that the text means most."""
    from sslcourse.segment.fastsam import masks_by_text
    from sslcourse.zoo.words import word_model

    scores = masks_by_text(pixels, masks, word_model(options.words, options.words_weights), text)
    if not len(masks) or not bool(scores.max() > 0):
        raise InputError(f"found no object that '{text}' could be; try a lower --min-iou or --min-stability.")
    best = int(scores.argmax())
    print(f"sslcourse: '{text}' is one of {len(masks)} masks with probability {scores[best]:.2f}", file=sys.stderr)
    return masks[best][None], [iou[best]]


def _write(out: Path, image: Path, pixels: "Tensor", masks: "Tensor", iou: list[float]) -> None:
    from PIL import Image

    from sslcourse.segment.rle import coco_export, mask_to_rle
    from sslcourse.viz.masks import overlay

    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(overlay(pixels, masks).permute(1, 2, 0).numpy()).save(out / "overlay.png")
    for i, mask in enumerate(masks):
        Image.fromarray(mask.numpy()).save(out / f"mask{i:03d}.png")
    if len(masks):
        rles = [mask_to_rle(mask) for mask in masks]
        coco = coco_export(rles, image_id=1, file_name=image.name, scores=iou)
        (out / "masks.json").write_text(json.dumps(coco) + "\n", encoding="utf-8")
    for i, (mask, score) in enumerate(zip(masks, iou, strict=True)):
        print(f"mask{i:03d}.png  {int(mask.sum()):>9,} px  predicted IoU {score:.2f}")
    print(f"sslcourse: {len(masks)} masks are in {out}, all of them in overlay.png", file=sys.stderr)


def _write_mattes(out: Path, pixels: "Tensor", masks: "Tensor") -> None:
    from typing import cast

    from PIL import Image

    from sslcourse.segment.fastsam import tight_boxes
    from sslcourse.segment.files import load_small
    from sslcourse.segment.matter import Matter, matte

    model = cast(Matter, load_small(name="tiny_matting"))
    shown = masks[masks.flatten(1).any(dim=1)]
    for i, box in enumerate(tight_boxes(shown)):
        alpha = matte(model, pixels, box[None]).alpha[0]
        Image.fromarray((alpha * 255).round().byte().numpy()).save(out / f"alpha{i:03d}.png")
    print(f"sslcourse: {len(shown)} mattes are in {out}", file=sys.stderr)
