"""What the small models of weights/ can do, on scenes that they have not seen. Writes weights/README.md.

    python -m benchmarks.shipped [NAME ...] [--coco PATH/coco.zip] [--matting PATH]

measures the named models (all that are there by default) and keeps the results in weights/results.json.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sslcourse.errors import InputError
from sslcourse.evaluate.result import Result, from_json, mean_result, to_json
from sslcourse.zoo.weights import SHIPPED, shipped

FOLDER = Path(__file__).parent.parent / "weights"
KEPT, PAGE = FOLDER / "results.json", FOLDER / "README.md"
SCENES, FEWER = 200, 60  # that the tiny SAM is scored on, and its relatives


def words(name: str, coco: str | None) -> list[Result]:
    """Zero-shot accuracy, recall and relations on scenes of the test split; recall on photographs, if given."""
    from sslcourse.data.load import load_images
    from sslcourse.evaluate.captions import caption_recall, captioned_results
    from sslcourse.zoo.words import word_model

    model = word_model(name, truncate=True)
    table = captioned_results(model)
    if coco:
        photographs = load_images(coco, size=64)
        for k in (1, 10):
            found = caption_recall(model, photographs, k).values()  # type: ignore[arg-type]
            table += [Result(f"photographs, {r.name}", r.value, r.low, r.high, r.n, r.over, r.detail) for r in found]
    return table


def clicks_and_boxes(name: str) -> list[Result]:
    """Mean IoU of wholes, emblems and dots: a click (best of three masks, and the chosen one), three clicks, a box."""
    from sslcourse.segment.family_scoring import boundary_ious
    from sslcourse.segment.files import load_tiny
    from sslcourse.segment.scenes import draw_scenes
    from sslcourse.segment.scoring import box_ious, click_ious
    from sslcourse.segment.train import PARTS

    model = load_tiny(name=name)
    scenes = draw_scenes(SCENES if name == "tiny_sam" else FEWER, "test", presets=("captions",))
    table = []
    for part, what in enumerate(PARTS):
        oracle, chosen = click_ious(model, scenes, part, clicks=3)
        prompts = {
            "one click, best of three masks": oracle,
            "one click, the mask with the largest predicted IoU": chosen[:, 0],
            "three clicks": chosen[:, 2],
            "box": box_ious(model, scenes, part),
        }
        for prompt, each in prompts.items():
            table.append(mean_result(f"{what}, {prompt}: IoU", each, f"{what}s", {"part": what, "prompt": prompt}))
        _, rims = boundary_ious(model, scenes, part)
        table.append(mean_result(f"{what}, box: boundary IoU", rims, f"{what}s", {"part": what, "prompt": "boundary"}))
    return table


def everything(name: str) -> list[Result]:
    """FastSAM: how well the best of all masks of a scene fits each object, and how many masks there are."""
    from typing import cast

    from sslcourse.segment.family_scoring import everything_ious
    from sslcourse.segment.fastsam_net import FastNet, find_all
    from sslcourse.segment.files import load_small
    from sslcourse.segment.scenes import draw_scenes
    from sslcourse.segment.train import PARTS

    model, scenes = cast(FastNet, load_small(name=name)), draw_scenes(FEWER, "test")
    table = []
    for part, what in enumerate(PARTS):
        each = everything_ious(model, scenes, part)
        table.append(mean_result(f"{what}, best of all masks: IoU", each, f"{what}s", {"part": what}))
    n = torch.tensor([float(len(find_all(model, image[:3]).masks)) for image in scenes.images])
    return [*table, mean_result("masks in a scene", n, "scenes", {})]


def words_to_masks(name: str) -> list[Result]:
    """Text to box to mask, for objects whose name ("red star") is their own in the scene."""
    from typing import cast

    from sslcourse.segment.family_scoring import text_ious
    from sslcourse.segment.files import load_small, load_tiny
    from sslcourse.segment.grounded_training import draw_named
    from sslcourse.segment.text_to_box import TextToBox

    boxes, masks = text_ious(cast(TextToBox, load_small(name=name)), load_tiny(), draw_named(FEWER, "test"))
    return [
        mean_result("name, box: IoU", boxes.double(), "objects", {}),
        mean_result("name, box of IoU 0.5 and more", (boxes >= 0.5).double(), "objects", {}),
        mean_result("name, mask of tiny_sam in that box: IoU", masks.double(), "objects", {}),
    ]


def mattes(name: str, sample: str | None = None) -> list[Result]:
    """SAD, MSE and gradient error of mattes, and of the masks that guided them: composites of scenes; a photograph."""
    from typing import cast

    from sslcourse.segment.family_scoring import matte_errors, photograph_errors
    from sslcourse.segment.files import load_small
    from sslcourse.segment.matter import Matter
    from sslcourse.segment.scenes import draw_scenes

    model = cast(Matter, load_small(name=name))
    table = []
    for who, errors in matte_errors(model, draw_scenes(FEWER, "test")).items():
        table += [mean_result(f"composites, {who}: {what}", each, "scenes", {}) for what, each in errors.items()]
    if sample:
        for who, errors in photograph_errors(model, sample).items():
            table += [mean_result(f"lemur at 128 px, {who}: {what}", x, "photograph", {}) for what, x in errors.items()]
    return table


def paintings(name: str) -> list[Result]:
    """Share of hidden pixels' variance that is missed, on scenes of the test split: by the model, and by copying."""
    from sslcourse.data import Shapes
    from sslcourse.data.masks import mask_order
    from sslcourse.data.rng import step_generator
    from sslcourse.evaluate.reconstruction import copy_nearest, paint, unexplained
    from sslcourse.train import load_model

    model: Any = load_model(shipped(name))
    images = Shapes("test", size=model.config.augment.size).as_images(SCENES).images
    grid, table = model.backbone.grid_size, []
    for kind, ratio in (("random", 0.5), ("random", 0.75), ("random", 0.9), ("block", 0.75), ("grid", 0.75)):
        order = mask_order(kind, *grid, ratio, step_generator(0, 0), batch=len(images))
        painted, mask = paint(model, images, order, ratio)
        for who, result in {"painted": painted, "copied from the nearest": copy_nearest(images / 255, mask)}.items():
            missed = unexplained(result, images / 255, mask, pooled=True)
            what = f"{kind} mask of {ratio:.0%}, {who}: unexplained"
            table.append(mean_result(what, missed, "scenes", {"mask": kind, "ratio": ratio, "by": who}))
    return table


def page(kept: dict[str, list[dict[str, object]]]) -> str:
    """weights/README.md."""
    lines = [
        "# Small trained models",
        "",
        "Chapters and labs start from these; they know the embedded world `Shapes` and nothing else. Half precision, "
        "not part of the wheel. `make weights` trains them again (an hour on two CPU cores); a "
        "program that was installed without a checkout finds them in the folder that `SSLCOURSE_WEIGHTS` names. "
        "Written by `python -m benchmarks.shipped`; no number here is typed.",
    ]
    for name, rows in kept.items():
        size = (FOLDER / f"{name}.safetensors").stat().st_size
        lines += ["", f"## {name}", "", f"{size / 1e6:.1f} MB, made by `{SHIPPED[name]}`.", ""]
        lines += ["| on held-out data | value | 95 % interval | n |", "|---|---|---|---|"]
        for r in map(from_json, rows):
            lines.append(f"| {r.name} | {r.value:.3f} | {r.interval} | {r.counted} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shipped", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SHIPPED)}")
    parser.add_argument("--coco", metavar="PATH", help="photographs with captions, to show what the CLIP does not know")
    parser.add_argument("--matting", metavar="PATH", help="folder of lemur.png and lemur_alpha.png, likewise")
    options = parser.parse_args()
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for name in options.names or [name for name in SHIPPED if (FOLDER / f"{name}.safetensors").exists()]:
        shipped(name)  # is there such a name, and its file?
        measure: dict[str, Callable[[str], list[Result]]] = {
            "clip_shapes": partial(words, coco=options.coco),
            "mae_shapes": paintings,
            "tiny_fastsam": everything,
            "tiny_grounded": words_to_masks,
            "tiny_matting": partial(mattes, sample=options.matting),
        }
        results = measure.get(name, clicks_and_boxes)(name)
        kept[name] = [to_json(r) for r in results]
        print("\n".join(map(str, results)))
    kept = {name: kept[name] for name in SHIPPED if name in kept}
    KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(page(kept))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"sslcourse: {error}", file=sys.stderr)
        sys.exit(2)
