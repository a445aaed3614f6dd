"""Adapters for the family of SAM: MobileSAM, HQ-SAM, FastSAM, Grounded-SAM, matting; and SAM's export."""

from typing import Any

import torch
from groups.sam import build_encoder, build_sam, gradients, loaded, parts
from loading import Adapter, Case, Skip
from torch import Tensor, nn
from torchvision.ops import nms

from sslcourse.segment import fastsam, matting, tiny_vit
from sslcourse.segment.grounded import caption, ground_boxes, label_map
from sslcourse.segment.hq import HQMaskDecoder, HQSam
from sslcourse.segment.m2m import M2MDecoder
from sslcourse.segment.mask_decoder import select_single
from sslcourse.segment.masks import stability_score
from sslcourse.segment.predictor import Predictor
from sslcourse.segment.prompts import PromptEncoder
from sslcourse.segment.resize import fit_longest
from sslcourse.segment.sam import Embedding
from sslcourse.zoo.segment import m2m, mobile_sam


def part_of(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _map(x: Tensor) -> Tensor:
    """Tokens (B, L, C) of a square map, which the official blocks pass on, to (B, C, H, W)."""
    side = round(x.shape[1] ** 0.5)
    return x.transpose(1, 2).unflatten(2, (side, side))


def mobilesam_tinyvit_blocks(case: Case) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name, keys in parts(case):
        if "cot" not in keys:
            side = round(len(case.expected[name]) ** 0.5)
            ids = tiny_vit.offset_ids(side, side)
            results[name] = ids
            continue
        state, x = part_of(case.state, f"{name}."), case.inputs[f"{name}/x"].requires_grad_()
        shape = case.expected[f"{name}/out"].shape
        if name.startswith("patch"):
            module: nn.Module = tiny_vit.PatchEmbed(shape[1])
        elif name.startswith("mbconv"):
            module = tiny_vit.MBConv(shape[1], state["conv1.c.weight"].shape[0] / shape[1])
        elif name.startswith("merge"):
            # The official stride follows from the width (1 for 320, 448, 576), here from the lengths.
            module = tiny_vit.PatchMerging(x.shape[2], shape[2], 1 if shape[1] == x.shape[1] else 2)
        elif name.startswith("block"):
            heads, offsets = state["attn.attention_biases"].shape
            ratio = state["mlp.fc1.weight"].shape[0] / shape[2]
            module = tiny_vit.TinyViTBlock(shape[2], heads, round(offsets**0.5), ratio)
        else:
            heads, offsets = state["attention_biases"].shape
            # Per head two keys and a value make the rows of qkv, the values alone the columns of proj.
            value = state["proj.weight"].shape[1] // heads
            key = (state["qkv.weight"].shape[0] // heads - value) // 2
            side = round(offsets**0.5)
            module = tiny_vit.Attention(shape[2], key, heads, (side, side), value / key)
        module.load_state_dict(mobile_sam(state, module))
        maps = x.ndim == 3 and name[:4] in ("merg", "bloc")
        out = module.eval()(_map(x) if maps else x)
        out = out.flatten(2).transpose(1, 2) if maps else out
        grad = torch.autograd.grad((out * case.inputs[f"{name}/cot"]).sum(), x)[0]
        results |= {f"{name}/out": out, f"{name}/grad_x": grad}
    return results


def mobilesam_tinyvit_encoder(case: Case) -> dict[str, Any]:
    h = case.hyper
    widths = (h["embed_dims"], h["depths"], h["num_heads"], h["window_sizes"])
    encoder = tiny_vit.TinyViT(h["img_size"], *widths, h["mlp_ratio"], h["neck_out"])
    encoder.load_state_dict(mobile_sam(case.state, encoder))
    encoder.eval()
    seen: dict[str, Tensor] = {}

    def watch(name: str, module: nn.Module, tokens: bool) -> None:
        def keep(_module: nn.Module, _inputs: Any, out: Tensor) -> None:
            seen[f"act/{name}"] = out.flatten(2).transpose(1, 2) if tokens else out

        module.register_forward_hook(keep)

    watch("patch_embed", encoder.patch_embed, tokens=False)
    for i, stage in enumerate(encoder.layers):
        watch(f"layer{i}", stage, tokens=True)
    x = case.inputs["x"].requires_grad_()
    out = encoder(x)
    return {"out": out} | seen | gradients((out * case.inputs["cot"]).sum(), case, encoder, x=x)


def _hq_hyper(case: Case, decoder: dict[str, Tensor], encoder: dict[str, Tensor]) -> dict[str, Any]:
    """What the JSON of HQ-SAM leaves out stands in the shapes of the state dict."""
    h = dict(case.hyper)
    h["iou"] = decoder["iou_prediction_head.layers.0.weight"].shape[0]
    h["hidden"] = decoder["transformer.layers.0.mlp.lin1.weight"].shape[0]
    h["tdepth"] = 1 + max(int(key.split(".")[2]) for key in decoder if key.startswith("transformer.layers."))
    if encoder:
        h["mlp"] = encoder["blocks.0.mlp.lin1.weight"].shape[0] / h["dim"]
    return h


def build_hq_decoder(h: dict[str, Any]) -> HQMaskDecoder:
    # The number of heads of the decoder is not in the JSON: 4 as in the cases of SAM.
    return HQMaskDecoder(h["dim"], h["pd"], 3, 4, h["hidden"], h["tdepth"], h["iou"])


def hqsam_mask_decoder(case: Case) -> dict[str, Any]:
    decoder = loaded(build_hq_decoder(_hq_hyper(case, case.state, {})), case.state)
    names = ("image_embeddings", "interm", "image_pe", "sparse", "dense")
    given = [case.inputs[name] for name in names]
    masks, hq, iou = decoder.predict_all_hq(*given)
    results: dict[str, Any] = {
        "hq_features": sum(decoder.late_and_early(given[0], given[1])),
        "all_masks": torch.cat([masks, hq], dim=1),
        "all_iou": iou,
    }
    for name, keys in parts(case):
        if keys == {"masks", "iou"}:
            flags = [part[-1] == "1" for part in name.split("_")]
            found = decoder.predict_hq(*given, multimask=flags[0], hq_only=flags[1])
            results |= {f"{name}/masks": found[0], f"{name}/iou": found[1]}
    return results | gradients((hq * case.inputs["cot"]).sum(), case, decoder)


def hqsam_full_predictor(case: Case) -> dict[str, Any]:
    decoder, encoder = part_of(case.state, "mask_decoder."), part_of(case.state, "image_encoder.")
    prompts = part_of(case.state, "prompt_encoder.")
    h = _hq_hyper(case, decoder, encoder)
    channels = prompts["mask_downscaling.3.weight"].shape[0]
    prompt_encoder = PromptEncoder(h["pd"], h["img"] // h["patch"], h["img"], channels)
    model = loaded(HQSam(build_encoder(h, h["pd"]), prompt_encoder, build_hq_decoder(h)), case.state)
    predictor = Predictor(model).set_image(case.inputs["image"].numpy())
    results: dict[str, Any] = {
        "features": predictor.embedding.image,
        "n_interm": torch.tensor(sum(block.window == 0 for block in model.image_encoder.blocks)),
        "interm0": predictor.embedding.early,
    }
    for name, keys in parts(case):
        if "low_res" not in keys:
            continue
        model.hq_only = name.endswith("hqonly")
        if name.startswith("box"):
            found = predictor.predict(boxes=case.inputs["box"], multimask=False, logits=True)
        else:
            prompt = case.inputs["points"], case.inputs["labels"]
            found = predictor.predict(*prompt, multimask=name.endswith("multi"), logits=True)
        results |= {f"{name}/logits": found.masks, f"{name}/iou": found.iou, f"{name}/low_res": found.low_res}
    return results


@torch.no_grad()
def sam_onnx_variant(case: Case) -> dict[str, Any]:
    found = case.sibling("sam_full_predictor")
    if found is None:
        raise Skip("the weights of this case are those of sam_full_predictor, which is not beside it")
    hyper, tensors = found
    weights = {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}
    model = build_sam(case, weights, hyper)
    size = tuple(int(n) for n in case.inputs["orig_size"].tolist())
    given = [case.inputs[name] for name in ("coords", "labels", "mask_input", "has_mask")]
    embedding = Embedding(case.inputs["image_embeddings"], torch.empty(1))
    encoder, pe = model.prompt_encoder, model.prompt_encoder.dense_pe()

    def decoded(n: int) -> tuple[Tensor, Tensor]:
        """All masks for the first n points; the export takes padding and corners of boxes from the caller."""
        sparse = encoder.embed_points(given[0][:, :n], given[1][:, :n])
        dense = encoder.embed_masks(given[2]) if float(given[3]) else encoder()[1]
        return model.mask_decoder.predict_all(embedding.image, pe, sparse, dense)

    n = given[0].shape[1]
    masks, iou = decoded(n)
    single, score = select_single(masks, iou, n)
    low_two, score_two = select_single(*decoded(2), 2)
    full = model.postprocess(masks, fit_longest(*size, model.image_size), size)
    return {
        "single/masks": model.postprocess(single, fit_longest(*size, model.image_size), size),
        "single/scores": score,
        "single/low_res": single,
        "two_points/scores": score_two,
        "two_points/low_res": low_two,
        "all/scores_stability": stability_score(masks),
        "all/stability_upscaled": stability_score(full),
        "all/areas": (full > 0).sum(dim=(-2, -1)),
    }


def fastsam_prompts(case: Case) -> dict[str, Any]:
    masks, size = case.inputs["masks"].bool(), tuple(case.hyper["image_size"])
    results: dict[str, Any] = {}
    for name, keys in parts(case):
        if {"points", "labels"} <= keys:
            chosen = fastsam.select_by_prompt(
                masks, *(case.inputs[f"{name}/{k}"] for k in ("points", "labels")), size=size
            )
            results[f"{name}/mask"] = chosen[None]
        elif "bbox" in keys:
            found = fastsam.select_by_boxes(masks, case.inputs[f"{name}/bbox"][None], size)
            results[f"{name}/mask"] = masks[found].float()
    # The official choice of several boxes passes through a set: no duplicates, small numbers in ascending order.
    several = fastsam.select_by_boxes(masks, case.inputs["boxes_multi/bboxes"], size)
    kept = fastsam.drop_contained(masks)
    areas = masks.flatten(1).sum(dim=1)
    limit = next(int(key.split("filter")[1]) for key in case.expected if key.startswith("format/ids_filter"))
    order = fastsam.by_area(masks)
    image = case.inputs["image"].flip(-1).permute(2, 0, 1)  # the official code reads it as BGR
    crops, ids, boxes = fastsam.text_crops(image, masks)
    left_out = torch.tensor([i for i in range(len(masks)) if i not in ids.tolist()])
    scores = fastsam.text_scores(*(case.inputs[f"retrieve/{kind}_features"] for kind in ("image", "text")))
    return results | {
        "boxes_multi/masks": masks[several.unique()].float(),
        "format/areas": areas,
        f"format/ids_filter{limit}": (areas >= limit).nonzero().flatten(),
        "filter_masks/kept_ids": kept,
        "filter_masks/removed_positions": torch.tensor([i for i, m in enumerate(order) if m not in kept]).long(),
        "bbox_from_mask": fastsam.tight_boxes(masks),
        "text/filter_id": left_out,
        "text/crop_boxes": boxes,
        "text/crop0": crops[0].permute(1, 2, 0),
        # The official way back from crops to masks is wrong where left-out masks follow each other.
        "text/selected_if_crop_j_wins": lambda official: None,
        "text/correct_index": ids,
        "retrieve/scores": scores.flatten(),
    }


def _sizes_of(boxes: Tensor, scaled: Tensor, net: tuple[int, int]) -> tuple[int, int]:
    """The original size, which the JSON does not say: the one under which the first sides come out as recorded."""
    sizes = ((h, w) for w in range(8, 321) for h in range(8, 321))
    ours = ((size, fastsam.unletterbox_boxes(boxes, net, size)) for size in sizes)
    return next((size for size, found in ours if torch.allclose(found, scaled, rtol=1e-4, atol=1e-3)), net)


def fastsam_yolo_masks(case: Case) -> dict[str, Any]:
    coef, proto, boxes = (case.inputs[name] for name in ("coef", "proto", "pboxes"))
    net, native = (tuple(case.expected[n].shape[1:]) for n in ("process_mask", "process_mask_native"))
    # The image of the detections is not in the JSON either: the detection of everything was snapped to it.
    image = (int(case.expected["adjusted"][:, 3].max()), int(case.expected["adjusted"][:, 2].max()))
    adjusted = fastsam.snap_to_border(case.inputs["boxes"], image)
    iou = fastsam.iou_with_image(adjusted, image)
    on_native = boxes * boxes.new_tensor([native[1] / net[1], native[0] / net[0]] * 2)
    # Without enlarging, the boxes are those of the network's input, brought to the prototypes.
    small = boxes * boxes.new_tensor([proto.shape[2] / net[1], proto.shape[1] / net[0]] * 2)
    original = _sizes_of(boxes, case.expected["scaled_boxes"], net)
    return {
        "adjusted": adjusted,
        "iou_with_full": iou,
        "high_iou_index": (iou > 0.9).nonzero().flatten(),
        "process_mask": fastsam.proto_masks(coef, proto, boxes, net).float(),
        "process_mask_noup": fastsam.proto_masks(coef, proto, small).float(),
        "process_mask_native": fastsam.proto_masks(coef, proto, on_native, native, crop_first=False).float(),
        "scaled_boxes": fastsam.unletterbox_boxes(boxes, net, original),
    }


def grounded_sam_glue(case: Case) -> dict[str, Any]:
    h, extra = case.hyper, case.info["extra"]
    width, height = h["image_wh"]
    limits = {"box_threshold": h["box_threshold"], "text_threshold": h["text_threshold"]}
    boxes = case.inputs["pred_boxes"][0]
    found = ground_boxes(case.inputs["pred_logits"][0], boxes, extra["tokens"], (height, width), **limits)
    # The official demos cut the score to four characters, and suppress by what is left of it.
    cut = [str(score)[:4] for score in found.scores.tolist()]
    scores = torch.tensor([float(score) for score in cut])
    masks = case.inputs["masks"][:, 0].bool()
    objects = [
        {"value": i + 1, "label": phrase, "logit": float(score), "box": box}
        for i, (phrase, score, box) in enumerate(zip(found.phrases, cut, found.boxes.tolist(), strict=True))
    ]
    return {
        "boxes_filt": boxes[found.queries],
        "boxes_xyxy": found.boxes,
        "scores": scores,
        "nms_keep": nms(found.boxes, scores, h["nms_iou"]),
        "label_map": label_map(masks).float(),
        "extra.caption_out": caption(extra["caption_in"]),
        "extra.phrases": [f"{phrase}({score})" for phrase, score in zip(found.phrases, cut, strict=True)],
        "extra.mask_json": [{"value": 0, "label": "background"}, *objects],
    }


def mam_losses(case: Case) -> dict[str, Any]:
    pred, target, weight = (case.inputs[name] for name in ("pred", "target", "weight"))
    pred = pred.requires_grad_()
    levels = case.hyper["levels"]
    lap = matting.laplacian_loss(pred, target, weight, levels)
    images = [case.inputs[name] for name in ("fg", "bg", "image")]
    return {
        "l1": matting.weighted_l1(pred, target, weight),
        "l1_noweight": matting.weighted_l1(pred, target),
        "lap": lap,
        "lap_noweight": matting.laplacian_loss(pred, target, None, levels),
        "grad_lap": torch.autograd.grad(lap, pred)[0],
        # Three channels of error over the weights of one in the official code; a mean over all of them in ours.
        "comp": 3 * matting.composition_loss(pred, *images, weight),
    }


def mam_refinement(case: Case) -> dict[str, Any]:
    mask, os8, os4, os1 = (case.inputs[name] for name in ("post_mask", "alpha_os8", "alpha_os4", "alpha_os1"))
    widths = tuple(case.hyper[f"{name}_width"] for name in ("os8", "os4", "os1"))
    inside = mask > 0.5
    results: dict[str, Any] = {
        "box": matting.outside_box(inside),
        "unknown_of_trimap": case.inputs["trimap"] == matting.UNKNOWN,
    }
    for side, one_sided in (("two", False), ("one", True)):
        results[f"pred_{side}"] = matting.unknown_of_alpha(os8, widths[1] // 2, one_sided=one_sided)
        results[f"mask_{side}"] = matting.unknown_of_mask(inside, widths[0] // 2, one_sided=one_sided)
        for guide, guided in (("maskguided", True), ("alpha", False)):
            results[f"fused_{guide}_{side}"] = matting.refine_alpha(
                mask, os8, os4, os1, widths=widths, mask_guided=guided, one_sided=one_sided
            )
    return results


def mam_m2m_decoder(case: Case) -> dict[str, Any]:
    channels = tuple(case.hyper["channels(nc,l2,l3,mid,refine)"])
    decoder = M2MDecoder(channels, case.hyper["layers"][1:])  # the official first entry is not used
    state = m2m(case.state, decoder)
    decoder.load_state_dict(state)
    features = case.inputs["features"].requires_grad_()
    image, mask, cot = (case.inputs[name] for name in ("image", "mask", "cot"))
    found = decoder.eval()(features, image, mask)
    loss = (found.os1 * cot).sum() + found.os8.sum()
    results: dict[str, Any] = {f"out/alpha_{name}": getattr(found, name) for name in ("os1", "os4", "os8")}
    size = image.shape[-2:]
    results["out/mask"] = nn.functional.interpolate(mask, size, mode="bilinear", align_corners=False)
    results["grad_features"] = torch.autograd.grad(loss, features)[0]
    results["train/alpha_os1"] = decoder.train()(features, image, mask).os1
    return results | {"train/u_after": decoder.conv1.u, "train/v_after": decoder.conv1.v}


ADAPTERS: dict[str, Adapter] = {
    "mobilesam_tinyvit_blocks": mobilesam_tinyvit_blocks,
    "mobilesam_tinyvit_encoder": mobilesam_tinyvit_encoder,
    "hqsam_mask_decoder": hqsam_mask_decoder,
    "hqsam_full_predictor": hqsam_full_predictor,
    "sam_onnx_variant": sam_onnx_variant,
    "fastsam_prompts": fastsam_prompts,
    "fastsam_yolo_masks": fastsam_yolo_masks,
    "grounded_sam_glue": grounded_sam_glue,
    "mam_losses": mam_losses,
    "mam_refinement": mam_refinement,
    "mam_m2m_decoder": mam_m2m_decoder,
}
