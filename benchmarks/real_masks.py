"""A box around an object, or a click on it: what models of `Shapes` make of photographs, beside what never learned.

    python -m benchmarks.real_masks --coco PATH/coco.zip --davis PATH/davis.zip
    python -m benchmarks.results        # writes them into RESULTS.md

GrabCut (Rother et al. 2004) is fitted to the box; SLIC (Achanta et al. 2012) keeps the superpixels that lie in the box
for the most part; the watershed (Meyer 1992) floods from the middle of the box and from outside of it. For a click in
the middle, SLIC keeps the superpixel below it; the watershed and the random walker (Grady 2006) start from it and from
the border of the image. All work at 128 px, as the small models do. Scenes of `Shapes` stand beside the photographs:
those that the models were trained on the like of, and sketches, which they have never seen.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sslcourse.data.load import load
from sslcourse.data.zips import CocoPack, DavisPack
from sslcourse.errors import InputError
from sslcourse.evaluate.result import Result, from_json, mean_result, to_json
from sslcourse.segment.clicks import center_click
from sslcourse.segment.files import load_tiny
from sslcourse.segment.mask_prompts import box_of
from sslcourse.segment.predictor import Prediction, Predictor
from sslcourse.segment.resize import resize_longest
from sslcourse.segment.scenes import draw_scenes
from sslcourse.segment.scoring import iou_of

KEPT = Path(__file__).parent / "evaluation" / "masks.json"
MODELS = {"tiny_sam": "tiny SAM", "tiny_mobilesam": "tiny MobileSAM", "tiny_hqsam": "tiny HQ-SAM"}
SCENES = {"scenes": "captions", "sketches": "sketch"}  # and the preset of `Shapes` that draws them
SIDE, SMALLEST, MOST, SEED = 128, 200, 40, 0  # pixels of a mask at that side from which on it counts; masks in all
Segmenter = Callable[
    [Tensor, Tensor], Tensor
]  # (3, H, W) uint8 and a box (4,) or a click (2,) -> (K, H, W) or (H, W) bool


def objects(path: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Photographs (3, H, W) uint8, or scenes of a preset, and the masks (H, W) bool of single objects in them."""
    if path in SCENES.values():
        scenes = draw_scenes(MOST, "test", SIDE, (path,))
        for i, mask in zip(*scenes.objects(0), strict=True):
            yield scenes.images[i, :3], mask
        return
    pack = load(path)
    if isinstance(pack, CocoPack):
        for i in pack.with_masks:
            image = pack[i]
            for segment, mask in zip(image.segments, image.instance_masks(), strict=True):
                if segment.is_thing and not segment.is_crowd:
                    yield image.image, mask
    elif isinstance(pack, DavisPack):
        for clip in pack.clips:
            frames = pack[clip]
            for at in (0, len(frames.masks) // 2):
                yield frames.video[:, at], frames.masks[at]


def small(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the longest side 128 px."""
    pixels = resize_longest(image, SIDE)
    size = (int(pixels.shape[1]), int(pixels.shape[2]))
    return pixels, F.interpolate(mask[None, None].float(), size, mode="area")[0, 0] > 0.5


def in_box(size: tuple[int, int], box: Tensor) -> Tensor:
    """(H, W) bool: the pixels of a box x1 y1 x2 y2, its last row and column with it."""
    x1, y1, x2, y2 = (round(x) for x in box.tolist())
    inside = torch.zeros(size, dtype=torch.bool)
    inside[y1 : y2 + 1, x1 : x2 + 1] = True
    return inside


def whole_box(image: Tensor, box: Tensor) -> Tensor:
    """The box itself."""
    return in_box((image.shape[1], image.shape[2]), box)


def slic_in_box(image: Tensor, box: Tensor) -> Tensor:
    """Superpixels of which more than 9 parts in 10 are in the box."""
    from skimage.segmentation import slic

    labels = torch.from_numpy(slic(image.permute(1, 2, 0).numpy(), n_segments=150, start_label=0)).flatten()
    inside = whole_box(image, box).flatten()
    total = torch.bincount(labels)
    shared = torch.bincount(labels[inside], minlength=len(total))
    return (shared > 0.9 * total)[labels].view(image.shape[1:])


def watershed_in_box(image: Tensor, box: Tensor) -> Tensor:
    """What floods from the middle third of the box before the water from outside of the box comes."""
    from skimage.color import rgb2gray
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    x1, y1, x2, y2 = box.tolist()
    third = torch.tensor([x1 + (x2 - x1) / 3, y1 + (y2 - y1) / 3, x2 - (x2 - x1) / 3, y2 - (y2 - y1) / 3])
    markers = 2 * (~whole_box(image, box)).int() + whole_box(image, third).int()
    heights = sobel(rgb2gray(image.permute(1, 2, 0).numpy()))
    return torch.from_numpy(watershed(heights, markers.numpy()) == 1)


def grabcut(image: Tensor, box: Tensor, rounds: int = 3, components: int = 5, gamma: float = 50.0) -> Tensor:
    """GrabCut: two mixtures of colours and a minimum cut, in turn (eq. 7 to 11 of the paper; four neighbours)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow
    from sklearn.mixture import GaussianMixture

    height, width = image.shape[1:]
    pixels = image.permute(1, 2, 0).reshape(-1, 3).numpy().astype(float)
    inside = whole_box(image, box).flatten().numpy()
    if inside.all() or inside.sum() < 2 * components or (~inside).sum() < 2 * components:
        return torch.from_numpy(inside).view(height, width)
    number = np.arange(height * width).reshape(height, width)
    beside, below = (number[:, :-1], number[:, 1:]), (number[:-1], number[1:])
    pairs = np.stack([np.concatenate([one.ravel(), two.ravel()]) for one, two in zip(beside, below, strict=True)])
    apart = ((pixels[pairs[0]] - pixels[pairs[1]]) ** 2).sum(axis=1)
    links = gamma * np.exp(-apart / max(2 * apart.mean(), 1e-9))
    chosen, scale, source, sink = inside.copy(), 100, height * width, height * width + 1
    for _ in range(rounds):
        if chosen.sum() < 2 * components:
            break
        fits = [
            -GaussianMixture(components, reg_covar=1e-2 * 255, random_state=SEED).fit(pixels[m]).score_samples(pixels)
            for m in (chosen, ~chosen)
        ]
        cost = np.stack(fits) - np.minimum(*fits)
        to_back = np.where(inside, cost[1], 0.0)  # what it costs to call it background: capacity from the source
        to_front = np.where(inside, cost[0], 1e6)
        rows = np.concatenate([np.full(len(to_back), source), number.ravel(), pairs[0], pairs[1]])
        columns = np.concatenate([number.ravel(), np.full(len(to_front), sink), pairs[1], pairs[0]])
        values = np.minimum(np.concatenate([to_back, to_front, links, links]) * scale, 2**28).astype(np.int32)
        graph = coo_matrix((values, (rows, columns)), shape=(sink + 1, sink + 1)).tocsr()
        residual = graph - maximum_flow(graph, source, sink).flow
        residual.data[residual.data < 0] = 0
        residual.eliminate_zeros()
        reached = np.zeros(sink + 1, dtype=bool)
        reached[breadth_first_order(residual, source, return_predecessors=False)] = True
        chosen = reached[:-2] & inside
    return torch.from_numpy(chosen).view(height, width)


def superpixel(image: Tensor, click: Tensor) -> Tensor:
    """The one below the click."""
    from skimage.segmentation import slic

    labels = torch.from_numpy(slic(image.permute(1, 2, 0).numpy(), n_segments=150, start_label=0))
    return labels == labels[int(click[1]), int(click[0])]


def seeds(image: Tensor, click: Tensor, radius: int = 3) -> np.ndarray:
    """(H, W) int: 1 around the click, 2 on the border of the image, 0 elsewhere."""
    y, x = torch.meshgrid(*(torch.arange(n) for n in image.shape[1:]), indexing="ij")
    marks = torch.full(image.shape[1:], 2)
    marks[1:-1, 1:-1] = 0
    marks[torch.hypot(x - click[0], y - click[1]) <= radius] = 1
    return marks.int().numpy()


def watershed_from(image: Tensor, click: Tensor) -> Tensor:
    """What floods from the click before the water from the border comes."""
    from skimage.color import rgb2gray
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    heights = sobel(rgb2gray(image.permute(1, 2, 0).numpy()))
    return torch.from_numpy(watershed(heights, seeds(image, click)) == 1)


def walker_from(image: Tensor, click: Tensor) -> Tensor:
    """The pixels from which a random walk, that avoids edges, meets the click before the border."""
    from skimage.segmentation import random_walker

    pixels = image.permute(1, 2, 0).double().numpy() / 255
    return torch.from_numpy(
        random_walker(pixels, seeds(image, click), beta=1000, tol=1e-5, mode="cg_j", channel_axis=2) == 1
    )


BASELINES: dict[str, dict[str, Segmenter]] = {
    "box": {"the box itself": whole_box, "GrabCut": grabcut, "SLIC": slic_in_box, "watershed": watershed_in_box},
    "click": {"SLIC": superpixel, "watershed": watershed_from, "random walker": walker_from},
}


def by_sam(name: str, answer: Callable[[Predictor, Tensor], Prediction]) -> Segmenter:
    """The masks that a small SAM gives, best predicted IoU first."""
    predictor = Predictor(load_tiny(name=name))

    def segment(image: Tensor, prompt: Tensor) -> Tensor:
        found = answer(predictor.set_image(image), prompt)
        return found.masks[found.iou.argsort(descending=True)]

    return segment


def segmenters(prompt: str) -> dict[str, Segmenter]:
    """Everybody who answers a box or a click."""
    if prompt == "box":
        models = {
            who: by_sam(name, lambda p, box: p.predict(boxes=box, multimask=False)) for name, who in MODELS.items()
        }
    else:
        models = {who: by_sam(name, lambda p, at: p.predict(at[None])) for name, who in MODELS.items()}
    return models | BASELINES[prompt]


def results(data: str, path: str) -> list[Result]:
    """Mean IoU of everybody for boxes around the same objects, and for clicks in their middle.

    Of several masks for a click, that of the highest predicted IoU counts, and beside it the best one.
    """
    found = [pair for pair in (small(*o) for o in objects(path)) if int(pair[1].sum()) >= SMALLEST]
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(SEED))[:MOST].tolist()
    table = []
    for prompt in BASELINES:
        for who, segment in segmenters(prompt).items():
            each = []
            for image, mask in (found[i] for i in order):
                given = box_of(mask) if prompt == "box" else center_click(mask[None], None)[0][0, 0]
                each.append(iou_of(segment(image, given).reshape(-1, *mask.shape), mask))
            scores = {who: torch.stack([iou[0] for iou in each])}
            if len(each[0]) > 1:
                scores[f"{who}, best of three"] = torch.stack([iou.max() for iou in each])
            for name, score in scores.items():
                detail = {"data": data, "by": name, "prompt": prompt}
                table.append(mean_result(f"{data}, {prompt}, {name}: IoU", score, "objects", detail))
    return table


def encoders(rounds: int = 15) -> dict[str, dict[str, float]]:
    """Millions of operations of the image encoders of the tiny SAM and of the MobileSAM that learned from it, and their
    milliseconds of the processor an image, one thread: the median of some rounds in turns."""
    models = {who: load_tiny(name=name).image_encoder for name, who in MODELS.items() if name != "tiny_hqsam"}
    x = torch.zeros(1, 3, SIDE, SIDE)
    taken: dict[str, list[float]] = {who: [] for who in models}
    found = {}
    with torch.no_grad():
        for who, model in models.items():
            with FlopCounterMode(display=False) as counter:
                model(x)
            found[who] = {"million": counter.get_total_flops() / 1e6}
        for _ in range(rounds):
            for who, model in models.items():
                start = time.process_time()
                model(x)
                taken[who].append(1000 * (time.process_time() - start))
    return {who: of | {"ms": statistics.median(taken[who])} for who, of in found.items()}


def section(record: dict[str, Any]) -> list[str]:
    """Of RESULTS.md: a table a prompt, a column a set of images."""
    rows = [from_json(row) for row in record["results"]]
    lines = [
        "## Masks for a box or a click",
        "",
        "`python -m benchmarks.real_masks --coco PATH/coco.zip --davis PATH/davis.zip`: mean IoU (1 is the true mask) "
        f"with its 95 % interval over objects, at {SIDE} px, objects of {SMALLEST} pixels and more. The small models "
        "know painted scenes of `Shapes`, nothing else: `scenes` are unseen ones of that kind, `sketches` are drawn in "
        "a style they have not seen. GrabCut, SLIC, the watershed and the random walker learned nothing. Boxes are "
        "tight; clicks are in the middle of an object.",
        "",
    ]
    for prompt in dict.fromkeys(r.detail["prompt"] for r in rows):
        some = {(r.detail["by"], r.detail["data"]): r for r in rows if r.detail["prompt"] == prompt}
        data = list(dict.fromkeys(name for _, name in some))
        counted = {name: next(r.counted for (_, there), r in some.items() if there == name) for name in data}
        lines += [f"| {prompt} | " + " | ".join(f"{name}, {counted[name]}" for name in data) + " |"]
        lines += ["|---" * (len(data) + 1) + "|"]
        for who in dict.fromkeys(by for by, _ in some):
            cells = [f"{some[who, name].value:.3f} {some[who, name].interval}" for name in data]
            lines.append(f"| {who} | " + " | ".join(cells) + " |")
        lines.append("")
    costs = [f"{c['million']:.0f} million and {c['ms']:.1f} ms for the {who}" for who, c in record["encoders"].items()]
    lines += [
        f"The image encoder takes, in operations and in time an image on one core: {', '.join(costs)}. This teacher is "
        "so small that its student is no speed-up: fewer operations, in more and smaller steps. What MobileSAM brings "
        "at the size that was published is the row `sam-encoder` of `python -m benchmarks`.",
        "",
    ]
    return [*lines, f"{record['minutes']:.1f} CPU minutes, one thread.", ""]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_masks", description=__doc__.splitlines()[0])
    for name in ("coco", "davis"):
        parser.add_argument(f"--{name}", metavar="PATH", required=True, help="a pack of photographs with masks")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    start = time.process_time()
    try:
        table = [r for name, path in SCENES.items() for r in results(name, path)]
        table += [r for name, path in (("COCO", args.coco), ("DAVIS", args.davis)) for r in results(name, path)]
    except InputError as error:
        print(f"benchmarks.real_masks: {error}", file=sys.stderr)
        return 2
    minutes = (time.process_time() - start) / 60
    record = {"minutes": minutes, "encoders": encoders(), "results": [to_json(r) for r in table]}
    KEPT.write_text(json.dumps(record, indent=1) + "\n")
    print("\n".join(section(record)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
