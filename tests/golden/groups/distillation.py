"""Adapters for DINO and iBOT."""

from functools import partial
from typing import Any

import torch
from groups.moco import Stub
from groups.states import gradients_of
from loading import Adapter, Case
from torch import Tensor

from sslcourse.data.mask_batches import ibot_masks
from sslcourse.losses.dino import (
    dino_loss,
    teacher_temperature,
    update_center,
)
from sslcourse.losses.ibot import ibot_patch_loss
from sslcourse.nn.dino_head import DINOHead, IBOTHead
from sslcourse.nn.multicrop import multicrop_forward
from sslcourse.nn.patches import interpolate_pos
from sslcourse.nn.vit import ViT
from sslcourse.train.optim import ema_update, param_groups
from sslcourse.train.schedules import clip_each_gradient, drop_gradients, warmup_then_cosine
from sslcourse.zoo import nonegatives as readers

OFFSET = partial(interpolate_pos, offset=0.1)  # how DINO, iBOT and DINOv2 without registers resize positions


def dino_cosine_scheduler(case: Case) -> dict[str, Any]:
    hyper, per_epoch = case.hyper, case.hyper["niter_per_ep"]
    total, warmup = hyper["epochs"] * per_epoch, hyper["warmup_epochs"] * per_epoch
    ends = (hyper["base_value"], hyper["final_value"])
    values = [warmup_then_cosine(k, total, warmup, *ends, start=hyper["start_warmup_value"]) for k in range(total)]
    return {"out.schedule": torch.tensor(values, dtype=torch.float64)}


def dino_ema_and_gradient_utils(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    student, teacher = (_head(case.states[name]) for name in ("student", "teacher"))
    named = dict(student.named_parameters())
    before = {key: value for key, value in case.expected.items() if key.startswith("grad_before.")}  # given, in fact
    for key, value in before.items():
        named[key.removeprefix("grad_before.")].grad = value.clone()
    names = {id(p): name for name, p in named.items()}
    groups = [[names[id(p)] for p in group["params"]] for group in param_groups(student, 0.04)]
    norms = clip_each_gradient(student.parameters(), hyper["clip"])
    clipped = {f"grad_clipped.{name}": p.grad.clone() for name, p in named.items() if p.grad is not None}
    drop_gradients(student, "last_layer")
    assert groups == case.info["param_groups"]
    assert {name for name, p in named.items() if p.grad is None} >= set(case.info["grad_none_after_cancel_epoch0"])
    ema_update(student, teacher, hyper["m"])
    return {
        **before,
        **clipped,
        "out.norms": norms,
        **{f"teacher_after/{name}": value for name, value in teacher.state_dict().items()},
    }


def dino_head(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    v2 = "cotangent" not in case.inputs  # DINOv2 has no option to fix the length of the prototypes
    head = DINOHead(
        hyper["in_dim"],
        hyper["out_dim"],
        hyper["hidden_dim"],
        hyper["bottleneck_dim"],
        hyper.get("nlayers", 3),
        bn=hyper.get("use_bn", False),
        norm_last_layer=False if v2 else hyper.get("norm_last_layer", True),
    )
    head.load_state_dict(readers.dino_head(case.state, head))
    x = case.inputs["x"].requires_grad_()
    y = head(x)
    (y.square() if v2 else y * case.inputs["cotangent"]).sum().backward()
    after = {f"state_after/{name}": value for name, value in head.state_dict().items()}
    return {"out.y": y, "grad.x": x.grad} | after | gradients_of(case, readers.dino_head, head)


def dino_loss_case(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    k, epochs = hyper["out_dim"], hyper["nepochs"]
    warm = (hyper["warmup_teacher_temp"], hyper["teacher_temp"], hyper["warmup_teacher_temp_epochs"])
    schedule = [teacher_temperature(epoch, *warm) for epoch in range(epochs)]
    results: dict[str, Any] = {"out.teacher_temp_schedule": torch.tensor(schedule, dtype=torch.float64)}
    center = torch.zeros(1, k)
    for step in range(sum(name.startswith("student") for name in case.inputs)):
        student, teacher = case.inputs[f"student{step}"].requires_grad_(), case.inputs[f"teacher{step}"]

        def loss_of(student: Tensor, teacher: Tensor, center: Tensor, tt: float = schedule[step]) -> Tensor:
            return dino_loss(student.chunk(hyper["ncrops"]), teacher.chunk(2), center, hyper["student_temp"], tt)

        loss = loss_of(student, teacher, center)
        results |= {f"out.loss{step}": loss, f"grad.student{step}": torch.autograd.grad(loss, student)[0]}
        results[f"out64.loss{step}"] = loss_of(student.double(), teacher.double(), center.double())
        center = update_center(center, teacher, hyper["center_momentum"])
        results[f"out.center{step}"] = center
    return results


def dino_multicrop_wrapper(case: Case) -> dict[str, Any]:
    crops = [case.inputs[f"crop{i}"] for i in range(len(case.hyper["sizes"]))]
    backbone, head = Stub(case.hyper["width"]), _head(readers.dino_head(case.state, None))
    backbone.load_state_dict(readers.backbone(case.state))
    y = multicrop_forward(backbone, head, crops)
    parts = {f"backbone.{k}": v for k, v in backbone.state_dict().items()}
    parts |= {f"head.{k}": v for k, v in head.state_dict().items()}
    return {"out.y": y} | {f"state_after/{name}": value for name, value in parts.items()}


def _head(state: dict[str, Tensor]) -> DINOHead:
    """A head of the widths of a state dict."""
    hidden, in_dim = state["mlp.0.weight"].shape
    out, bottleneck = state["last_layer.weight_v"].shape
    layers = sum(value.ndim == 2 for key, value in state.items() if key.startswith("mlp."))
    head = DINOHead(in_dim, out, hidden, bottleneck, layers, bn=any("running_mean" in key for key in state))
    head.load_state_dict(state)
    return head


def dino_vit(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    vit = ViT(
        hyper["img_size"][0],
        hyper["patch_size"],
        dim=hyper["embed_dim"],
        depth=hyper["depth"],
        n_heads=hyper["num_heads"],
        mlp_ratio=hyper["mlp_ratio"],
        qkv_bias=hyper["qkv_bias"],
        interpolate=OFFSET,
    )
    vit.load_state_dict(readers.dino(case.state, vit))
    results: dict[str, Any] = {}
    for i in range(len(case.inputs)):
        x = case.inputs[f"x{i}"].requires_grad_()
        results |= {f"out.y{i}": vit(x), f"out.attn{i}": vit.get_last_attention(x), f"out.tokens{i}": vit.embed(x)}
        results[f"out.pos{i}"] = vit.interpolate(vit.pos_embed, *vit.patch_embed.grid(x), grid=vit.grid_size)
        results |= {f"out.inter{i}_{j}": layer for j, layer in enumerate(vit.get_intermediate_layers(x, 2))}
    x = case.inputs["x0"]
    vit.zero_grad()
    vit(x).square().sum().backward()
    grads = {f"grad_param.{name}": p.grad for name, p in vit.named_parameters()}
    return results | {"grad.x0": x.grad} | grads


def masked_dino_vit(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    settings = {"dim": hyper["d"], "depth": hyper["dep"], "n_heads": hyper["h"]}
    vit = ViT(hyper["img"], hyper["p"], interpolate=OFFSET, **settings)
    vit.load_state_dict(readers.dino(case.state, vit))
    head = _head(readers.dino_head(case.state, None))
    results: dict[str, Any] = {}
    with torch.no_grad():
        for i in range(len(hyper["o"])):
            x = case.inputs[f"x{i}"]
            results |= {f"cls{i}": vit(x), f"attn{i}": vit.get_last_attention(x), f"tokens{i}": vit.forward_features(x)}
            results[f"pos{i}"] = vit.interpolate(vit.pos_embed, *vit.patch_embed.grid(x), grid=vit.grid_size)
        results["head_out"] = head(results["cls0"])
    return results


def ibot_head(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    own = None if hyper.get("shared_head") else hyper["patch_out_dim"]
    head = IBOTHead(hyper["in_dim"], hyper["out_dim"], hyper["hidden_dim"], hyper["bottleneck_dim"], patch_out_dim=own)
    head.load_state_dict(readers.dino_head(case.state, head))
    with torch.no_grad():
        cls, patch = head.forward_tokens(case.inputs["x"])
        after = {f"state_after/{name}": value for name, value in head.state_dict().items()}
        return {"out.cls": cls, "out.patch": patch, "out.cls_only": head(case.inputs["x_cls_only"])} | after


def ibot_loss(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    epochs, warmup, shift = hyper["nepochs"], hyper["warmup_teacher_temp_epochs"], hyper["mim_start_epoch"]
    first = (hyper["warmup_teacher_temp"], hyper["teacher_temp"], warmup)
    second = (hyper["warmup_teacher_temp2"], hyper["teacher_temp2"], warmup)
    temps = [teacher_temperature(e, *first) for e in range(epochs)]
    # The patches' schedule starts with masked image modelling, after a time at its first value.
    temps2 = [teacher_temperature(max(e - shift, 0), *second) for e in range(epochs)]
    results: dict[str, Any] = {
        "out.teacher_temp_schedule": torch.tensor(temps, dtype=torch.float64),
        "out.teacher_temp2_schedule": torch.tensor(temps2, dtype=torch.float64),
    }
    center, center2 = torch.zeros(1, hyper["out_dim"]), torch.zeros(1, 1, hyper["patch_out_dim"])
    views, ts = hyper["ngcrops"], hyper.get("student_temp", 0.1)
    for step in range(sum(name.startswith("student_patch") for name in case.inputs)):
        names = ("student_cls", "student_patch", "student_local_cls", "teacher_cls", "teacher_patch")
        s, sp, local, t, tp = (case.inputs.get(f"{name}{step}") for name in names)
        student = [x.requires_grad_() for x in (s, sp, local) if x is not None]
        crops = [*s.chunk(views), *(local.chunk(hyper["nlcrops"]) if local is not None else ())]
        masks = [case.inputs[f"mask{step}_{v}"].flatten(1) for v in range(views)]
        cls = hyper["lambda1"] * dino_loss(crops, t.chunk(views), center, ts, temps[step])
        by_view = zip(sp.chunk(views), tp.chunk(views), masks, strict=True)
        each = [ibot_patch_loss(a, b, mask, center2, ts, temps2[step]) for a, b, mask in by_view]
        patch = hyper["lambda2"] * torch.stack(each).mean()
        grads = torch.autograd.grad(cls + patch, student)
        found = [name for name in names[:3] if f"{name}{step}" in case.inputs]
        results |= {f"grad.{name}{step}": g for name, g in zip(found, grads, strict=True)}
        results |= {f"out.cls{step}": cls, f"out.patch{step}": patch, f"out.loss{step}": cls + patch}
        center = update_center(center, t, hyper["center_momentum"])
        center2 = update_center(center2, tp, hyper["center_momentum2"])
        results |= {f"out.center{step}": center, f"out.center2_{step}": center2}
    return results


def ibot_masking(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    ratio, variation = hyper["pred_ratio"], hyper["pred_ratio_var"]
    h, w = hyper["grid"]
    ours = ibot_masks(400, h, w, torch.Generator().manual_seed(0), ratio=ratio, variation=variation)
    pairs = zip(*([x] if isinstance(x, int | float) else x for x in (ratio, variation)), strict=True)
    most = max(r + v for r, v in pairs) * h * w
    return {"out.masks": partial(alike, ours, most), "out.counts": lambda official: None}  # counted with the masks


def alike(ours: Tensor, most: float, official: Tensor) -> None:
    """Another random stream: the counts have the same bound and, within four standard errors, the same mean."""
    a, b = ours.flatten(1).sum(dim=1).double(), official.flatten(1).sum(dim=1).double()
    assert ours.shape[1:] == official.shape[1:]
    assert a.max() <= most
    assert b.max() <= most
    error = (a.var() / len(a) + b.var() / len(b)).sqrt()
    assert (a.mean() - b.mean()).abs() <= 4 * error + 0.5, f"{a.mean()} hidden on average, official {b.mean()}"


def ibot_vit_masked(case: Case) -> dict[str, Any]:
    hyper = case.hyper
    shape = {"dim": hyper["embed_dim"], "depth": hyper["depth"], "n_heads": hyper["num_heads"]}
    vit = ViT(
        hyper["img_size"][0],
        hyper["patch_size"],
        **shape,
        mlp_ratio=hyper["mlp_ratio"],
        qkv_bias=hyper["qkv_bias"],
        mask_token=True,
        interpolate=OFFSET,
        layer_scale=hyper.get("init_values") or None,
    )
    vit.load_state_dict(readers.ibot(case.state, vit))
    x, mask = case.inputs["x"], case.inputs["mask"].flatten(1)
    with torch.no_grad():
        return {"out.tokens": vit.forward_features(x, mask), "out.tokens_unmasked": vit.forward_features(x)}


CONTRASTIVE: dict[str, Adapter] = {
    "dino_cosine_scheduler": dino_cosine_scheduler,
    "dino_ema_and_gradient_utils": dino_ema_and_gradient_utils,
    "dino_head": dino_head,
    "dino_loss": dino_loss_case,
    "dino_multicrop_wrapper": dino_multicrop_wrapper,
    "dino_vit": dino_vit,
    "ibot_head": ibot_head,
    "ibot_loss": ibot_loss,
    "ibot_masking": ibot_masking,
    "ibot_vit_masked": ibot_vit_masked,
    "dinov2_head": dino_head,
}
MASKED: dict[str, Adapter] = {"dino_vit": masked_dino_vit}
