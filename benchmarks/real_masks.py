"""A box around an object of a photograph: what models of `Shapes` make of it, beside methods that never learned.

GrabCut (Rother et al. 2004) is fitted to the box; SLIC (Achanta et al. 2012) keeps the superpixels that lie in the box
for the most part; the watershed (Meyer 1992) floods from the middle of the box and from outside of it. All work on the
photograph at 128 px, as the small models do.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.data.load import load
from sslcourse.data.zips import CocoPack, DavisPack
from sslcourse.evaluate.result import Result, mean_result
from sslcourse.segment.mask_prompts import box_of
from sslcourse.segment.predictor import Predictor
from sslcourse.segment.resize import resize_longest
from sslcourse.segment.sam import Sam
from sslcourse.segment.scoring import iou_of

SIDE, SMALLEST, MOST, SEED = 128, 200, 30, 0  # pixels of a mask at that side from which on it counts; masks in all
Segmenter = Callable[[Tensor, Tensor], Tensor]  # (3, H, W) uint8 and a box (4,) -> (H, W) bool


def objects(path: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Photographs (3, H, W) uint8 of at most 128 px and the masks (H, W) bool of single objects in them."""
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


BASELINES: dict[str, Segmenter] = {
    "the box itself": whole_box,
    "GrabCut": grabcut,
    "SLIC": slic_in_box,
    "watershed": watershed_in_box,
}


def by_sam(model: Sam) -> Segmenter:
    """The single mask for a box."""
    predictor = Predictor(model)

    def segment(image: Tensor, box: Tensor) -> Tensor:
        return predictor.set_image(image).predict(boxes=box, multimask=False).masks[0]

    return segment


def box_results(path: str, segmenters: dict[str, Segmenter]) -> list[Result]:
    """Mean IoU of every segmenter for the boxes of the same objects of a COCO or DAVIS pack."""
    name = "DAVIS" if isinstance(load(path), DavisPack) else "COCO"
    found = [pair for pair in (small(*o) for o in objects(path)) if int(pair[1].sum()) >= SMALLEST]
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(SEED))[:MOST].tolist()
    table = []
    for who, segment in segmenters.items():
        each = torch.stack([iou_of(segment(found[i][0], box_of(found[i][1])), found[i][1]) for i in order])
        detail = {"data": name, "by": who, "prompt": "box"}
        table.append(mean_result(f"{name} photographs, box, {who}: IoU", each, "objects", detail))
    return table
