"""Adapters for the losses of SAM and HQ-SAM, and for the simulated annotator."""

from typing import Any

import torch
from groups.sam import parts
from loading import Adapter, Case
from torch import Tensor

from sslcourse.segment.clicks import center_click, jittered_box, uniform_clicks
from sslcourse.segment.losses import (
    ClickStep,
    StepLosses,
    dice_loss,
    focal_loss,
    iou_regression,
    multi_step,
    point_losses,
    point_sampled_loss,
    sample_at,
    sigmoid_focal,
    uncertain_points,
)
from sslcourse.segment.mask_prompts import box_of


def torchvision_sigmoid_focal(case: Case) -> dict[str, Any]:
    each = sigmoid_focal(case.inputs["logits"], case.inputs["targets"], case.hyper["alpha"], case.hyper["gamma"])
    return {"none": each, "mean": each.mean(), "sum": each.sum()}


def sam_loss_focal_dice_iou(case: Case) -> dict[str, Any]:
    logits, gt = case.inputs["logits"].requires_grad_(), case.inputs["targets"][:, None]
    alpha, gamma, n = case.hyper["alpha"], case.hyper["gamma"], case.hyper["num_objects"]
    # The official losses are divided by the number of objects and summed later; ours are means over them.
    focal, dice = focal_loss(logits, gt, alpha, gamma) / n, dice_loss(logits, gt) / n
    iou = {
        f"iou_{name}": iou_regression(logits, gt, case.inputs["pred_iou"], error) / n
        for name, error in (("mse", "squared"), ("l1", "absolute"))
    }
    return {
        "focal": focal,
        "focal_noalpha": focal_loss(logits, gt, -1, gamma) / n,
        "dice": dice,
        "grad_focal": torch.autograd.grad(focal.sum(), logits, retain_graph=True)[0],
        "grad_dice": torch.autograd.grad(dice.sum(), logits, retain_graph=True)[0],
        "focal_single": focal[:, 0].sum(),
        "dice_single": dice[:, 0].sum(),
    } | iou


def sam_loss_multistep(case: Case) -> dict[str, Any]:
    weights = case.hyper["weights"]
    focal, dice = weights["loss_mask(focal)"], weights["loss_dice"]
    results: dict[str, Any] = {}
    frames = range(case.hyper["frames"])
    leaves = {
        name: case.inputs[f"frame0/step0/{name}"].requires_grad_() for name in ("masks", "ious")
    }  # the case lists their gradients

    def read(t: int, step: int, name: str) -> Tensor:
        return leaves[name] if t == step == 0 and name in leaves else case.inputs[f"frame{t}/step{step}/{name}"]

    styles = {"sam1_style": ("best", "squared", False), "sam2_default": ("all", "absolute", True)}
    for style, (iou_of, error, with_presence) in styles.items():
        if f"{style}/core_loss" not in case.expected:
            continue
        sums = StepLosses(*torch.zeros(4))
        for t in frames:
            steps = [
                ClickStep(read(t, s, "masks"), read(t, s, "ious"), read(t, s, "obj_logits") if with_presence else None)
                for s in range(case.hyper["steps"])
            ]
            gt = case.inputs["targets"][t].float()
            losses = multi_step(steps, gt, focal=focal, dice=dice, iou_of=iou_of, error=error)  # type: ignore[arg-type]
            sums = StepLosses(*(a + b for a, b in zip(sums, losses, strict=True)))
        core = sums.total(focal, dice, weights["loss_iou"], weights["loss_class"])
        grads = torch.autograd.grad(core, list(leaves.values()))
        results |= {
            f"{style}/loss_mask": sums.focal,
            f"{style}/loss_dice": sums.dice,
            f"{style}/loss_iou": sums.iou,
            f"{style}/loss_class": sums.presence,
            f"{style}/core_loss": core,
            f"{style}/grad_frame0_step0_masks": grads[0],
            f"{style}/grad_frame0_step0_ious": grads[1],
        }
    return results


def hq_loss_masks_pointsample(case: Case) -> dict[str, Any]:
    src, target = case.inputs["src"].requires_grad_(), case.inputs["target"]
    draws = case.inputs["rand_oversample"], case.inputs["rand_extra"]
    points = uncertain_points(src, *draws, case.hyper["num_points"])
    losses = point_losses(src, target, points)
    seeded = torch.Generator().manual_seed(0)  # the JSON's seed of the larger run
    sizes = {"oversample": case.hyper["oversample"], "importance": case.hyper["importance"]}
    full = point_sampled_loss(src, target, seeded, n=case.hyper["loss_masks_num_points"], **sizes)
    return {
        "point_coords": points,
        "point_logits": sample_at(src, points),
        "point_labels": sample_at(target, points),
        "bce": losses.cross_entropy,
        "dice": losses.dice,
        "grad_src": torch.autograd.grad(losses.cross_entropy + losses.dice, src)[0],
        "full_12544_bce": full.cross_entropy,
        "full_12544_dice": full.dice,
    }


def sam_click_sampling(case: Case) -> dict[str, Any]:
    gt, pred = (case.inputs[name][:, 0].bool() for name in ("gt", "pred"))
    noise, bound = case.hyper["noise"], case.hyper["noise_bound"]
    box, uniform = jittered_box(gt, case.inputs["box/rand"][:, 0], noise, bound), case.inputs["uniform/rand"]
    results: dict[str, Any] = {
        "box/coords": box.unflatten(1, (2, 2)),
        "box/labels": torch.tensor([2, 3]).expand(len(gt), 2),
        "box/noiseless": jittered_box(gt, case.inputs["box/rand"][:, 0], 0.0).unflatten(1, (2, 2)),
        "box_of_mask": box_of(gt)[:, None],
    }
    results["uniform/points"], results["uniform/labels"] = uniform_clicks(gt, pred, uniform)
    results["first/points"], results["first/labels"] = uniform_clicks(gt, None, case.inputs["first/rand"])
    for name, _ in parts(case):
        if name.startswith("center_pad"):
            found = center_click(gt, pred, border_counts=name.endswith("1"))
            results[f"{name}/points"], results[f"{name}/labels"] = found
    return results


ADAPTERS: dict[str, Adapter] = {
    "torchvision_sigmoid_focal": torchvision_sigmoid_focal,
    "sam_loss_focal_dice_iou": sam_loss_focal_dice_iou,
    "sam_loss_multistep": sam_loss_multistep,
    "hq_loss_masks_pointsample": hq_loss_masks_pointsample,
    "sam_click_sampling": sam_click_sampling,
}
