"""Adapters for CLIP, open_clip and SigLIP: losses."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from loading import Adapter, Case
from torch import Tensor

from sslcourse.losses import (
    clamp_log_scale,
    clip_distillation,
    clip_loss,
    clip_loss_local,
    coca_loss,
    gather_negatives,
    siglip_loss,
    siglip_loss_local,
)

# The official losses take embeddings of unit length, and their scale is clamped by the training loop, not by the loss.
PLAIN: dict[str, Any] = {"normalize": False}
UNCLAMPED: dict[str, Any] = {"normalize": False, "max_scale": math.inf}


def openclip_clip_loss(case: Case) -> dict[str, Any]:
    img, txt, log_scale = _leaves(case, "image_features", "text_features", "log_logit_scale")
    loss = clip_loss(img, txt, log_scale, **UNCLAMPED)
    by_img, by_txt, by_scale = torch.autograd.grad(loss, (img, txt, log_scale))
    case.inputs["logit_bias"]  # a softmax does not see it, so ours has none
    return {
        "loss": loss,
        "grad_image": by_img,
        "grad_text": by_txt,
        "grad_log_logit_scale": by_scale,
        "loss_bias": loss,
        "grad_image_bias": by_img,
        "grad_bias": lambda official: torch.testing.assert_close(official, torch.zeros(()), rtol=0, atol=1e-5),
    }


def openclip_logit_scale_clamp(case: Case) -> dict[str, Any]:
    clamped = clamp_log_scale(case.inputs["log_scale"].clone(), math.exp(case.hyper["max"]))
    return {"clamped": clamped, "scale": clamped.exp()}


def openclip_siglip_loss(case: Case) -> dict[str, Any]:
    img, txt, log_scale, bias = _leaves(case, "image_features", "text_features", "log_logit_scale", "logit_bias")
    loss = siglip_loss(img, txt, log_scale.exp(), bias, **PLAIN)
    by_img, by_txt, by_scale, by_bias = torch.autograd.grad(loss, (img, txt, log_scale, bias))
    nobody = torch.full((len(img),), -1)
    return {
        "loss": loss,
        "grad_image": by_img,
        "grad_text": by_txt,
        "grad_log_logit_scale": by_scale,
        "grad_logit_bias": by_bias,
        "loss_chunked": siglip_loss(img, txt, log_scale.exp(), bias, tile=4, **PLAIN),
        "loss_negative_only": siglip_loss_local(img, txt, nobody, log_scale.exp(), bias, **PLAIN),
    }


def openclip_distill_coca_loss(case: Case) -> dict[str, Any]:
    img, txt, logits = _leaves(case, "image_features", "text_features", "caption_logits")
    log_scale, hyper = case.inputs["log_logit_scale"], case.hyper
    teacher = case.inputs["teacher_image"], case.inputs["teacher_text"], math.log(hyper["teacher_scale"])
    distill = clip_distillation(img, txt, log_scale, *teacher, **UNCLAMPED)
    contrastive, captioning = coca_loss(
        img,
        txt,
        log_scale,
        logits,
        case.inputs["caption_labels"],
        contrastive_weight=hyper["clip_loss_weight"],
        caption_weight=hyper["caption_loss_weight"],
        pad_id=hyper["pad_id"],
        **UNCLAMPED,
    )
    return {
        "contrastive": clip_loss(img, txt, log_scale, **UNCLAMPED),
        "distill": distill,
        "grad_image_distill": torch.autograd.grad(distill, img)[0],
        "coca_clip": contrastive,
        "coca_caption": captioning,
        "grad_caption_logits": torch.autograd.grad(captioning, logits)[0],
    }


def openclip_distributed_losses(case: Case) -> dict[str, Any]:
    img, txt, scale = _leaves(case, "image_features", "text_features", "logit_scale")
    bias, world = case.inputs["logit_bias"], case.hyper["world_size"]
    whole = clip_loss(img, txt, scale.log(), **UNCLAMPED)
    pairwise = siglip_loss(img, txt, scale, bias, **PLAIN)
    results: dict[str, Any] = {
        "full_clip_loss": whole,
        "full_clip_grad_image": torch.autograd.grad(whole, img)[0],
        "full_siglip_loss": pairwise,
        "full_siglip_grad_image": torch.autograd.grad(pairwise, img)[0],
    }
    for mode in {key.partition("/")[0] for key in case.expected if "/" in key}:
        found = _by_rank(partial(_official_mode, mode, bias), img, txt, scale, world, "grad0" not in mode)
        results |= {f"{mode}/{key}": value for key, value in found.items()}
    return results


def _official_mode(mode: str, bias: Tensor, imgs: list[Tensor], txts: list[Tensor], scale: Tensor, rank: int) -> Tensor:
    """The loss of process `rank` in one of the modes that open_clip offers."""
    all_txt, labels = gather_negatives(txts, rank)
    if mode.startswith("siglip"):  # ring, all-reduce and gather are ways to send the same texts
        return siglip_loss_local(imgs[rank], all_txt, labels, scale, bias, **PLAIN)
    all_img, _ = gather_negatives(imgs, rank)
    if "local0" in mode:
        return clip_loss(all_img, all_txt, scale.log(), **UNCLAMPED)
    # Their local loss without gathered gradients detaches what is compared with, the process's own part too.
    candidates = (all_img, all_txt) if "grad0" not in mode else (all_img.detach(), all_txt.detach())
    return clip_loss_local(imgs[rank], txts[rank], *candidates, labels, scale.log(), **UNCLAMPED)


def _by_rank(
    loss_of: Callable[[list[Tensor], list[Tensor], Tensor, int], Tensor],
    img: Tensor,
    txt: Tensor,
    scale: Tensor,
    world: int,
    gathered: bool,
) -> dict[str, Tensor]:
    """Losses of all processes, and the gradient that reaches each part of the batch before it is averaged.

    `gathered`: every process's loss sends a gradient to every part, as `train.distributed.gather` does; otherwise
    (an official mode whose gradient shrinks with the number of processes) only a process's own does.
    """
    losses, scales = [], [scale.detach().clone().requires_grad_() for _ in range(world)]
    imgs, txts = ([part.detach().requires_grad_() for part in x.chunk(world)] for x in (img, txt))
    for rank in range(world):
        mine = [[p if gathered or r == rank else p.detach() for r, p in enumerate(parts)] for parts in (imgs, txts)]
        losses.append(loss_of(*mine, scales[rank], rank))
    found = torch.autograd.grad(torch.stack(losses).sum(), [*imgs, *txts, *scales])
    by_img, by_txt, by_scale = (torch.stack(found[i * world : (i + 1) * world]) for i in range(3))
    return {"loss": torch.stack(losses), "grad_image": by_img, "grad_text": by_txt, "grad_scale": by_scale}


def _leaves(case: Case, *names: str) -> list[Tensor]:
    return [case.inputs[name].clone().requires_grad_() for name in names]


ADAPTERS: dict[str, Adapter] = {
    "openclip_logit_scale_clamp": openclip_logit_scale_clamp,
    "openclip_clip_loss": openclip_clip_loss,
    "openclip_siglip_loss": openclip_siglip_loss,
    "openclip_distill_coca_loss": openclip_distill_coca_loss,
    "openclip_distributed_losses": openclip_distributed_losses,
}
