"""Adapters for Segment Anything: its parts, its losses, prompts and automatic masks."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from loading import Adapter, Case
from torch import Tensor, nn
from torchvision.ops import nms

from sslcourse.segment.automatic import AutomaticMasks, Thresholds
from sslcourse.segment.grids import crop_boxes, layer_grids, point_grid
from sslcourse.segment.image_encoder import (
    ImageEncoder,
    decomposed_bias,
    relative_positions,
    window_partition,
    window_unpartition,
)
from sslcourse.segment.mask_decoder import MaskDecoder, TwoWayTransformer, dynamic_multimask
from sslcourse.segment.mask_prompts import box_of
from sslcourse.segment.masks import (
    boxes_near_crop_edge,
    remove_small_regions,
    stability_score,
    uncrop_boxes,
    uncrop_masks,
)
from sslcourse.segment.predictor import Predictor
from sslcourse.segment.prompts import PromptEncoder
from sslcourse.segment.resize import fit_longest, resize_boxes, resize_longest, resize_points
from sslcourse.segment.rle import area_of, mask_to_rle, pack_counts, rle_to_mask, unpack_counts
from sslcourse.segment.sam import Sam
from sslcourse.zoo.segment import sam as read_sam


def parts(case: Case) -> Iterator[tuple[str, set[str]]]:
    """The names before the first slash, with what follows each."""
    names: dict[str, set[str]] = {}
    for key in case.expected:
        head, _, rest = key.partition("/")
        names.setdefault(head, set()).add(rest)
    yield from names.items()


def loaded(module: nn.Module, state: dict[str, Tensor]) -> Any:
    module.load_state_dict(read_sam(state, module))
    return module.eval()


def build_encoder(h: dict[str, Any], out: int) -> ImageEncoder:
    return ImageEncoder(
        h["img"], h["patch"], h["dim"], h["depth"], h["heads"], h.get("mlp", 4), h["ws"], h["glob"], out
    )


def build_prompts(h: dict[str, Any]) -> PromptEncoder:
    return PromptEncoder(h["pdim"], h["img"] // h["patch"], h["img"], h["mic"])


def build_decoder(h: dict[str, Any]) -> MaskDecoder:
    return MaskDecoder(h["pdim"], 3, h["theads"], h["tmlp"], h["tdepth"], h["hid"])


def build_sam(case: Case, state: dict[str, Tensor] | None = None, h: dict[str, Any] | None = None) -> Sam:
    h = h or case.hyper
    model = Sam(build_encoder(h, h["pdim"]), build_prompts(h), build_decoder(h))
    return loaded(model, case.state if state is None else state)


def gradients(loss: Tensor, case: Case, module: nn.Module, **tensors: Tensor) -> dict[str, Tensor]:
    """`grad/NAME` for every name the case lists, of a parameter of `module` or of `tensors`."""
    leaves = dict(module.named_parameters()) | tensors
    names = [key.removeprefix("grad/") for key in case.expected if key.startswith("grad/")]
    found = torch.autograd.grad(loss, [leaves[name] for name in names])
    return {f"grad/{name}": g for name, g in zip(names, found, strict=True)}


def sam_window_relpos(case: Case) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name, _ in parts(case):
        if name.startswith("win"):
            x, window = case.inputs[f"{name}/x"], case.hyper["windows"][int(name[3:])]["ws"]
            windows, padded = window_partition(x, window)
            results[f"{name}/windows"] = windows
            assert window_unpartition(windows, padded, tuple(x.shape[1:3])).equal(x)
        elif name.startswith("rel"):
            q, k, _ = case.expected[f"{name}/out"].shape
            results[f"{name}/out"] = relative_positions(case.inputs[f"{name}/table"], q, k)
        else:
            q, h, w = (case.inputs[f"{name}/{part}"] for part in ("q", "rel_h", "rel_w"))
            size = ((len(h) + 1) // 2, (len(w) + 1) // 2)
            # The official function adds to the logits it is given.
            results[f"{name}/out"] = case.inputs[f"{name}/attn"] + decomposed_bias(q, h, w, size, size)
    return results


def sam_image_encoder(case: Case) -> dict[str, Any]:
    out_channels = case.state["neck.3.weight"].shape[0]
    encoder = loaded(build_encoder(case.hyper, out_channels), case.state)
    x = case.inputs["x"].requires_grad_()
    seen: dict[str, Tensor] = {}
    watched = {"patch_embed": encoder.patch_embed} | {f"block{i}": block for i, block in enumerate(encoder.blocks)}
    for name, module in watched.items():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({f"act/{name}": out}))
    out = encoder(x)
    loss = (out * case.inputs["cotangent"]).sum()
    return {"out": out} | seen | gradients(loss, case, encoder, x=x)


def sam_prompt_encoder(case: Case) -> dict[str, Any]:
    encoder = loaded(build_prompts(case.hyper), case.state)
    results: dict[str, Any] = {"dense_pe": encoder.dense_pe()}
    names = {"coords": "points", "labels": "labels", "boxes": "boxes", "masks": "masks"}
    for name, keys in parts(case):
        if "sparse" not in keys:
            continue
        given = {ours: case.inputs[f"{name}/{key}"] for key, ours in names.items() if key in keys}
        sparse, dense = encoder(**given)
        results |= {f"{name}/sparse": sparse, f"{name}/dense": dense}
    return results


def sam_two_way_transformer(case: Case) -> dict[str, Any]:
    h = case.hyper
    module = loaded(TwoWayTransformer(h["pdim"], h["theads"], h["tmlp"], h["tdepth"]), case.state)
    image, tokens = case.inputs["image_embedding"].requires_grad_(), case.inputs["tokens"].requires_grad_()
    out_tokens, out_image = module(image, case.inputs["image_pe"], tokens)
    loss = (out_tokens * case.inputs["cot_tokens"]).sum() + (out_image * case.inputs["cot_image"]).sum()
    grads = torch.autograd.grad(loss, [image, tokens])
    return {
        "out_tokens": out_tokens,
        "out_image": out_image,
        "grad_image_embedding": grads[0],
        "grad_tokens": grads[1],
    }


def sam_mask_decoder(case: Case) -> dict[str, Any]:
    decoder = loaded(build_decoder(case.hyper), case.state)
    image, pe, dense = (case.inputs[name] for name in ("image_embeddings", "image_pe", "dense"))
    sparse = case.inputs["sparse"].requires_grad_()
    masks, iou = decoder.predict_all(image, pe, sparse, dense)
    results: dict[str, Any] = {"all_masks": masks, "all_iou": iou}
    for name, multimask in (("single", False), ("multi", True)):
        results[f"{name}_masks"], results[f"{name}_iou"] = decoder(image, pe, sparse, dense, multimask)
    nothing = sparse.new_zeros(1, 0, sparse.shape[-1])
    results["noprompt_multi_masks"], results["noprompt_multi_iou"] = decoder(image, pe, nothing, dense[:1], True)
    loss = (masks * case.inputs["cotangent"]).sum() + iou.sum()
    return results | gradients(loss, case, decoder, sparse=sparse)


def sam_resize_longest_side(case: Case) -> dict[str, Any]:
    table, target = case.inputs["shape_table"], case.hyper["target"]
    image = case.inputs["image"].permute(2, 0, 1)
    old = (int(image.shape[-2]), int(image.shape[-1]))
    new = fit_longest(*old, target)
    sizes = torch.tensor([fit_longest(*row[:3].tolist()) for row in table])
    # The official rounding lets a side vanish; ours keeps at least one pixel.
    assert sizes.equal(table[:, 3:].clamp_min(1)), "sizes differ"
    coords = resize_points(case.inputs["coords"], old, new)
    # The official torch path resizes floats; PIL on uint8 is what SAM was trained with, and rounds.
    resized = resize_longest(image, target)

    def within_rounding(official: Tensor) -> None:
        assert (official[0] - resized).abs().max() <= 1.01, "resized pixels differ by more than rounding"

    return {
        "resized": resized.permute(1, 2, 0),
        "resized_torch": within_rounding,
        "coords_out": coords,
        "coords_torch_out": coords.float(),
        "boxes_out": resize_boxes(case.inputs["boxes"], old, new),
    }


def sam_pre_post_process(case: Case) -> dict[str, Any]:
    class Square(nn.Module):
        image_size = case.hyper["img_size"]

    model = Sam(Square(), PromptEncoder(8, 4), MaskDecoder(8, n_heads=1))
    sizes = tuple(case.hyper["input_size"]), tuple(case.hyper["original_size"])
    return {
        "preprocessed": model.preprocess(case.inputs["image"]),
        "upscaled": model.postprocess(case.inputs["low_res"], *sizes),
    }


def sam_full_predictor(case: Case) -> dict[str, Any]:
    model = build_sam(case)
    image = case.inputs["image"]
    predictor = Predictor(model).set_image(image.numpy())
    results: dict[str, Any] = {"image_embedding": predictor.embedding.image}
    for name, keys in parts(case):
        if name.startswith("forward"):
            results |= _forward(model, case, name, keys)
        elif name == "batched_boxes":
            found = predictor.predict(boxes=case.inputs[f"{name}/boxes_original"], multimask=False)
            results |= {f"{name}/iou": found.iou, f"{name}/low_res": found.low_res}
        elif name == "mask_only":
            # The mask of the case before it, three masks.
            found = predictor.predict(masks=case.inputs["refine/mask_input"], logits=True)
            results |= {f"{name}/iou": found.iou, f"{name}/low_res": found.low_res}
        elif name == "refine":
            # With the point of the first case.
            points = [case.inputs[f"point1_multi/point_{key}"] for key in ("coords", "labels")]
            mask = case.inputs["refine/mask_input"]
            found = predictor.predict(*points, masks=mask, multimask=False, logits=True)
            results |= _named(name, found)
        elif keys - {""}:
            given = {"point_coords": "points", "point_labels": "labels", "box": "boxes"}
            prompt = {ours: case.inputs[f"{name}/{key}"] for key, ours in given.items() if key in keys}
            found = predictor.predict(**prompt, multimask=name.endswith("multi"), logits=True)
            masks = predictor.predict(**prompt, multimask=name.endswith("multi")).masks
            results |= _named(name, found) | {f"{name}/masks": masks.to(torch.uint8)}
    return results


def _named(name: str, found: Any) -> dict[str, Tensor]:
    return {f"{name}/logits": found.masks, f"{name}/iou": found.iou, f"{name}/low_res": found.low_res}


@torch.no_grad()
def _forward(model: Sam, case: Case, name: str, keys: set[str]) -> dict[str, Any]:
    """The official batched forward: prompts in the frame of the resized image, masks on the original."""
    image = case.inputs[f"{name}/image"]
    given = {"point_coords": "points", "point_labels": "labels", "boxes": "boxes"}
    prompt = {ours: case.inputs[f"{name}/{key}"] for key, ours in given.items() if key in keys}
    low_res, iou = model.decode(model.encode(model.preprocess(image)[None]), **prompt)
    original = tuple(case.expected[f"{name}/masks"].shape[-2:])
    masks = model.postprocess(low_res, tuple(image.shape[-2:]), original) > model.mask_threshold
    return {f"{name}/masks": masks.to(torch.uint8), f"{name}/iou": iou, f"{name}/low_res": low_res}


def sam_amg_stability(case: Case) -> dict[str, Any]:
    ours = stability_score(case.inputs["logits"], case.hyper["threshold"], case.hyper["offset"])

    def same_where_finite(official: Tensor) -> None:
        assert ours.isfinite().all(), "not finite"
        torch.testing.assert_close(ours[official.isfinite()], official[official.isfinite()], rtol=1e-6, atol=0)

    return {"score": same_where_finite}


def sam2_dynamic_multimask(case: Case) -> dict[str, Any]:
    logits, iou, delta = case.inputs["logits"], case.inputs["iou"], case.hyper["delta"]
    masks, chosen = dynamic_multimask(logits, iou, delta, case.hyper["thresh"])
    return {"out": masks, "out_iou": chosen, "stability": stability_score(logits[:, :1], delta=delta, empty=1.0)}


def sam_amg_point_grid(case: Case) -> dict[str, Any]:
    layers = layer_grids(*case.hyper["layers"])  # points a side, layers of crops, scale
    results: dict[str, Any] = {f"layer{i}": grid for i, grid in enumerate(layers)}
    results["counts"] = torch.tensor([len(grid) for grid in layers])
    grids = [key for key in case.expected if key.startswith("grid")]
    return results | {key: point_grid(int(key.removeprefix("grid"))) for key in grids}


def sam_amg_crop_boxes(case: Case) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for i, (size, layers, overlap) in case.hyper["cases(im_size,n_layers,overlap_ratio)"].items():
        results[f"boxes{i}"], results[f"layers{i}"] = crop_boxes(tuple(size), layers, overlap)
    return results


def sam_amg_edges_uncrop(case: Case) -> dict[str, Any]:
    crop, image = (torch.tensor(case.hyper[name]) for name in ("crop_box", "orig_box"))
    boxes = case.inputs["boxes"]
    size = (int(image[3]), int(image[2]))
    return {
        "near_edge": boxes_near_crop_edge(boxes, crop, image, case.hyper["atol"]),
        "uncropped": uncrop_boxes(boxes, crop),
        "masks_uncropped": uncrop_masks(case.inputs["masks"], crop, size),
    }


def sam_amg_mask_to_box(case: Case) -> dict[str, Any]:
    masks = case.inputs["masks"].bool()
    boxes = box_of(masks).long()
    shape = case.expected["boxes_reshaped"].shape
    # Which of the masks is the single one is not said: any of them that fits.
    single = case.expected["box_single"]
    one = next((box_of(mask).long() for mask in masks if box_of(mask).long().equal(single)), boxes[0])
    return {"boxes": boxes, "boxes_reshaped": box_of(masks.unflatten(0, shape[:-1])).long(), "box_single": one}


def sam_amg_nms_order(case: Case) -> dict[str, Any]:
    return {"keep": nms(case.inputs["boxes"], case.inputs["scores"], case.hyper["iou"])}


def sam_amg_rle(case: Case) -> dict[str, Any]:
    masks = case.inputs["masks"].bool()
    rles = [mask_to_rle(mask) for mask in masks]
    assert all(rle_to_mask(rle).equal(mask) for rle, mask in zip(rles, masks, strict=True))
    counts = [rle["counts"] for rle in rles]
    packed = [pack_counts(c) for c in counts]
    assert [unpack_counts(text) for text in packed] == counts
    return {
        "counts_flat": torch.tensor([c for part in counts for c in part]),
        "counts_offsets": torch.tensor([0, *itertools.accumulate(map(len, counts))]),
        "area": torch.tensor([area_of(rle) for rle in rles]),
        "extra.coco_rle_counts": packed,
        "extra.size": rles[0]["size"],
    }


def sam_amg_small_regions(case: Case) -> dict[str, Any]:
    results: dict[str, Any] = {}
    changed: list[list[Any]] = []
    for key in case.expected:
        name, _, what = key.partition("/")
        mode, _, area = what.partition("_")
        if mode != "in":
            mask, was = remove_small_regions(case.inputs[f"{name}/in"].bool(), int(area), mode)  # type: ignore[arg-type]
            results[key] = mask
            changed.append([key, was])
    order = [name for name, _ in case.info["extra"]["changed"]]
    return results | {"extra.changed": sorted(changed, key=lambda item: order.index(item[0]))}


def _automatic(case: Case, model: Any) -> dict[str, Any]:
    h = case.hyper
    limits = Thresholds(h["pred_iou_thresh"], h["stability_score_thresh"], nms=h.get("box_nms_thresh", 0.7))
    generator = AutomaticMasks(
        model,
        h["points_per_side"],
        h["points_per_batch"],
        limits,
        crop_layers=h.get("crop_n_layers", 0),
        crop_points_scale=h.get("crop_n_points_downscale_factor", 1),
        crop_nms=h.get("crop_nms_thresh", 0.7),
        min_region=h.get("min_mask_region_area", 0),
    )
    found = generator(case.inputs["image"].numpy())
    results: dict[str, Any] = {
        "segmentation": torch.stack([one.mask for one in found]),
        "area": torch.tensor([one.area for one in found]),
        "bbox": torch.tensor([one.bbox for one in found]),
        "predicted_iou": torch.tensor([one.predicted_iou for one in found]),
        "point_coords": torch.tensor([one.point for one in found]),
        "stability_score": torch.tensor([one.stability_score for one in found]),
        "crop_box": torch.tensor([one.crop_box for one in found]),
    }
    if "coco_rle" in case.info.get("extra", {}):
        results["extra.coco_rle"] = [pack_counts(one.rle["counts"]) for one in found]
    return results


class Ellipses:
    """The analytic predictor of the recording: nested ellipses around objects, an answer without a network."""

    def __init__(self, objects: Tensor) -> None:
        self.objects = objects

    def set_image(self, pixels: Tensor) -> None:
        self.origin = pixels[:2, 0, 0].double()  # the image holds x and y in its first channels
        self.size = tuple(pixels.shape[-2:])

    def predict_low_res(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        xy = points[:, 0].double() + self.origin
        distance = torch.cdist(xy, self.objects[:, :2])
        d, nearest = distance.min(dim=1)
        cx, cy, a, b = self.objects[nearest].T[:, :, None, None, None]
        factor = 0.6 + 0.35 * torch.arange(3.0, dtype=torch.float64)[:, None, None]
        steep = 6 + 4 * torch.arange(3.0, dtype=torch.float64)[:, None, None]
        y, x = (torch.arange(n).double() + o for n, o in zip(self.size, self.origin.flip(0), strict=True))
        logits = steep * (1 - ((x - cx) / (a * factor)) ** 2 - ((y[:, None] - cy) / (b * factor)) ** 2)
        pins = (7 * x + 13 * y[:, None]) % 61 == 0
        logits = torch.where(pins & (logits > 1.5), -5.0, logits)
        base, slope = torch.tensor([0.97, 0.93, 0.90]).double(), torch.tensor([0.004, 0.003, 0.002]).double()
        return logits.float(), (base - slope * d[:, None]).float()

    def upscale(self, low_res: Tensor) -> Tensor:
        return low_res


def sam_amg_logic(case: Case) -> dict[str, Any]:
    return _automatic(case, Ellipses(case.inputs["objects"]))


def sam_amg_full(case: Case) -> dict[str, Any]:
    return _automatic(case, Predictor(build_sam(case)))


ADAPTERS: dict[str, Adapter] = {
    "sam_window_relpos": sam_window_relpos,
    "sam_image_encoder": sam_image_encoder,
    "sam_prompt_encoder": sam_prompt_encoder,
    "sam_two_way_transformer": sam_two_way_transformer,
    "sam_mask_decoder": sam_mask_decoder,
    "sam_resize_longest_side": sam_resize_longest_side,
    "sam_pre_post_process": sam_pre_post_process,
    "sam_full_predictor": sam_full_predictor,
    "sam_amg_stability": sam_amg_stability,
    "sam2_dynamic_multimask": sam2_dynamic_multimask,
    "sam_amg_point_grid": sam_amg_point_grid,
    "sam_amg_crop_boxes": sam_amg_crop_boxes,
    "sam_amg_edges_uncrop": sam_amg_edges_uncrop,
    "sam_amg_mask_to_box": sam_amg_mask_to_box,
    "sam_amg_nms_order": sam_amg_nms_order,
    "sam_amg_rle": sam_amg_rle,
    "sam_amg_small_regions": sam_amg_small_regions,
    "sam_amg_logic_crop": sam_amg_logic,
    "sam_amg_logic_nocrop": sam_amg_logic,
    "sam_amg_full_plain": sam_amg_full,
    "sam_amg_full_cleanup": sam_amg_full,
}
