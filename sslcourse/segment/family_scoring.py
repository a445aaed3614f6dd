"""How good SAM's relatives are where the truth is known: all masks at once, words, mattes, outlines."""

from pathlib import Path

import torch
from torch import Tensor

from sslcourse.data.rng import step_generator
from sslcourse.segment.fastsam_net import FastNet, find_all
from sslcourse.segment.grounded_training import NAMES, NamedScenes
from sslcourse.segment.mask_prompts import box_of
from sslcourse.segment.masks import boundary_iou
from sslcourse.segment.matter import Matter, matte
from sslcourse.segment.matting import gradient_error, mse, sad
from sslcourse.segment.matting_training import soft_objects
from sslcourse.segment.predictor import Predictor
from sslcourse.segment.resize import resize_longest, to_pixels
from sslcourse.segment.sam import Sam
from sslcourse.segment.scenes import N_PARTS, SceneMasks
from sslcourse.segment.scoring import iou_of, objects_of
from sslcourse.segment.text_to_box import TextToBox, find_text


@torch.no_grad()
def everything_ious(model: FastNet, scenes: SceneMasks, part: int = 0, min_area: int = 12) -> Tensor:
    """(M,) IoU of every object (0 whole, 1 emblem, 2 dot) with the best of all masks that one pass finds."""
    index, masks = scenes.objects(part, min_area)
    found = [find_all(model, scenes.images[i, :3]).masks for i in range(len(scenes))]
    best = [
        iou_of(found[i], mask).max() if len(found[i]) else torch.zeros((), dtype=torch.double)
        for i, mask in zip(index.tolist(), masks, strict=True)
    ]
    return torch.stack(best)


@torch.no_grad()
def boundary_ious(model: Sam, scenes: SceneMasks, part: int = 0, width: int = 1) -> tuple[Tensor, Tensor]:
    """(M,) IoU and boundary IoU (of bands `width` px wide) of the mask for the tight box of every object."""
    ious, rims = [], []
    size = (model.image_size, model.image_size)
    for some in objects_of(model.eval(), scenes, part):
        low, _ = model.decode(some.embedding, boxes=box_of(some.masks), multimask=False)
        mask = model.postprocess(low, size, size)[:, 0] > model.mask_threshold
        ious.append(iou_of(mask, some.masks))
        rims.append(boundary_iou(mask, some.masks, width))
    return torch.cat(ious), torch.cat(rims)


@torch.no_grad()
def text_ious(model: TextToBox, sam: Sam, scenes: NamedScenes, min_area: int = 12) -> tuple[Tensor, Tensor]:
    """For every object whose name ("red star") is its own in the scene: IoU of box and of mask (M,) each.

    The box is the surest of `find_text`, the mask that of the SAM for it; both are 0 where nothing is found.
    """
    index, masks = scenes.objects(0, min_area)
    boxes_iou, masks_iou = [], []
    predictor, at = Predictor(sam), -1
    for s, mask in zip(index.tolist(), masks, strict=True):
        names = scenes.names[s]
        name = int(names[_object_of(scenes.images[s, 3], mask)])
        if int((names == name).sum()) != 1:
            continue
        if at != s:
            predictor.set_image(scenes.images[s, :3])
            at = s
        found = find_text(model, scenes.images[s, :3], NAMES[name], box_threshold=0.0)
        if not len(found.boxes):
            boxes_iou.append(0.0)
            masks_iou.append(0.0)
            continue
        boxes_iou.append(float(box_overlap(found.boxes[0], box_of(mask) + torch.tensor([0, 0, 1, 1]))))
        answer = predictor.predict(boxes=found.boxes[0], multimask=False)
        masks_iou.append(float(iou_of(answer.masks[0], mask)))
    return torch.tensor(boxes_iou), torch.tensor(masks_iou)


def _object_of(ids: Tensor, mask: Tensor) -> int:
    """The number of the object that a whole mask (H, W) of a map of parts (H, W) belongs to."""
    return (int(ids[mask][0]) - 1) // N_PARTS


def box_overlap(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes (..., 4) x1 y1 x2 y2."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp_min(0).prod(dim=-1)
    area = [(box[..., 2:] - box[..., :2]).prod(dim=-1) for box in (a, b)]
    return shared / (area[0] + area[1] - shared).clamp_min(1e-9)


@torch.no_grad()
def matte_errors(model: Matter, scenes: SceneMasks, seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """SAD, MSE and gradient error (N,) of the matte and of the mask that guided it, on composites of scenes."""
    generator = step_generator(seed, 0)
    images = scenes.images
    numbers = torch.rand(len(images), 3, generator=generator)
    noise = torch.randn(len(images), 1, *images.shape[-2:], generator=generator)
    composite, alpha, mask = soft_objects(images, numbers, noise)
    found, guide = model.eval()(model.sam.preprocess(composite), box_of(mask))
    true = alpha[:, 0]
    scores = {"SAD": sad, "MSE": mse, "gradient": gradient_error}
    answers = {"matte": found, "mask": guide.float()}
    return {who: {name: score(x, true) for name, score in scores.items()} for who, x in answers.items()}


@torch.no_grad()
def photograph_errors(model: Matter, folder: str | Path, name: str = "lemur") -> dict[str, dict[str, Tensor]]:
    """As `matte_errors`, (1,) each, for `name.png` with the matte `name_alpha.png`, at the model's size."""
    image = resize_longest(to_pixels(Path(folder) / f"{name}.png"), model.sam.image_size)
    true = resize_longest(to_pixels(Path(folder) / f"{name}_alpha.png"), model.sam.image_size)[:1].float() / 255
    found = matte(model, image, box_of(true > 0.5))
    scores = {"SAD": sad, "MSE": mse, "gradient": gradient_error}
    answers = {"matte": found.alpha, "mask": found.masks.float()}
    return {who: {key: score(x, true) for key, score in scores.items()} for who, x in answers.items()}
