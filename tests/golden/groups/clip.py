"""Adapters for CLIP, open_clip and SigLIP."""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from loading import Adapter, Case, Skip
from PIL import Image
from torch import Tensor, nn

from sslcourse.data.preprocess import clip_preprocess
from sslcourse.data.tokenizer import BPETokenizer
from sslcourse.errors import InputError
from sslcourse.evaluate.zeroshot import prompt_logits, zero_shot_weights
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
from sslcourse.nn.clip import CLIP, CLIPViT
from sslcourse.nn.patches import interpolate_pos
from sslcourse.nn.text import TextTransformer, interpolate_text_pos, quick_gelu
from sslcourse.zoo import clip as reader

# The official losses take embeddings of unit length, and their scale is clamped by the training loop, not by the loss.
PLAIN: dict[str, Any] = {"normalize": False}
SEEDS = 10_000  # tried for the generator of a recording
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


def clip_quickgelu(case: Case) -> dict[str, Any]:
    (x,) = _leaves(case, "x")
    y = quick_gelu(x)
    return {"quick_gelu": y, "grad": torch.autograd.grad(y.sum(), x)[0], "exact_gelu": F.gelu(x)}


def clip_preprocessing(case: Case) -> dict[str, Any]:
    hyper, names = case.hyper, [key for key in case.inputs if key.startswith("image")]
    how = hyper["n_px"], tuple(hyper["mean"]), tuple(hyper["std"])
    return {
        name.replace("image", "out"): clip_preprocess(Image.fromarray(case.inputs[name].numpy()), *how)
        for name in names
    }


def openclip_resize_pos_embed(case: Case) -> dict[str, Any]:
    old = (case.hyper["old_grid"],) * 2
    image = interpolate_pos(case.inputs["old"][None], *case.hyper["new_grid"], grid=old, antialias=True)
    length = len(case.expected["new_text"])
    return {"new": image[0], "new_text": interpolate_text_pos(case.inputs["old_text"], length)}


def openai_clip(case: Case) -> dict[str, Any]:
    model = reader.model_of(case.state)
    _load(model, case.state)
    seen: dict[str, Tensor] = {}
    _watch(model, seen)
    (image,) = _leaves(case, "image")
    text = case.inputs["text"]
    img, txt = model.encode_image(image), model.encode_text(text)
    logits = model(image, text)
    n = min(len(img), len(txt))
    loss = clip_loss(img[:n], txt[:n], model.logit_scale, max_scale=math.inf)
    wanted = [key for key in case.expected if key.startswith("grad/")]
    leaves = [image if key == "grad/image" else _parameter(model, key.removeprefix("grad/")) for key in wanted]
    found = torch.autograd.grad(loss, leaves)
    # Their projections are matrices right of the features, ours are linear layers.
    turned = ("grad/text_projection", "grad/visual.proj")
    return {
        "image_features": img,
        "text_features": txt,
        "logits_per_image": logits,
        "logits_per_text": logits.T,
        "loss": loss,
        **{f"act/{key}": value for key, value in seen.items()},
        **{key: g.T if key in turned else g for key, g in zip(wanted, found, strict=True)},
    }


def openclip_model(case: Case) -> dict[str, Any]:
    model = _openclip(case)
    _load(model, case.state)
    img, txt = model.encode_image(case.inputs["image"]), model.text(case.inputs["text"], _recorded_mask(case, model))
    unit = model.encode_image(case.inputs["image"], normalize=True)
    results = {
        "image_features": img,
        "text_features": txt,
        "image_features_normalized": unit,
        "fwd_image": unit,
        "fwd_text": F.normalize(txt, dim=1),
        "fwd_logit_scale": model.logit_scale.exp(),
    }
    return results | ({} if model.logit_bias is None else {"fwd_logit_bias": model.logit_bias})


def openclip_zeroshot(case: Case) -> dict[str, Any]:
    model = _openclip(case)
    _load(model, case.state)
    classes = case.info["extra"]["classnames"]
    mask = _recorded_mask(case, model)
    rows = case.inputs["tokens"].unflatten(0, (len(classes), -1))
    # The case gives tokens in place of texts, so the text of a prompt is its number here.
    templates = [f"{{}}/{t}" for t in range(rows.shape[1])]

    def encode(texts: list[str]) -> Tensor:
        at = [(classes.index(name), int(t)) for name, _, t in (text.rpartition("/") for text in texts)]
        return model.text(torch.stack([rows[c, t] for c, t in at]), mask)

    weights = zero_shot_weights(encode, classes, templates)
    img = model.encode_image(case.inputs["image"], normalize=True)
    return {
        "classifier": weights,
        "classifier_legacy": zero_shot_weights(encode, classes, templates, batch_size=len(templates)),
        "image_features": img,
        "logits": prompt_logits(img, weights, 100.0),
    }


def _openclip(case: Case) -> CLIP:
    """A model by open_clip's configuration."""
    hyper, v, t = case.hyper, case.hyper["vision_cfg"], case.hyper["text_cfg"]
    act = quick_gelu if hyper.get("quick_gelu") else F.gelu
    heads = v["width"] // v.get("head_width", 64)
    visual = CLIPViT(
        v["image_size"],
        v["patch_size"],
        v["width"],
        v["layers"],
        heads,
        hyper["embed_dim"],
        pool="avg" if v.get("pool_type") == "avg" else "cls",
        norm_after_pool=v.get("final_ln_after_pool", False),
        act=act,
    )
    text = TextTransformer(
        t["vocab_size"],
        t["context_length"],
        t["width"],
        t["layers"],
        t["heads"],
        hyper["embed_dim"],
        causal=not t.get("no_causal_mask", False),
        pool={"argmax": "eot"}.get(t.get("pool_type", "argmax"), t.get("pool_type")),
        proj_bias=t.get("proj_bias", False),
        act=act,
    )
    return CLIP(visual, text, logit_bias=hyper.get("init_logit_bias"))


def _recorded_mask(case: Case, model: CLIP) -> Tensor | None:
    """The mask under which the text tower was recorded; None for the tower's own.

    Whoever recorded these cases filled every tensor of the model with numbers of one generator: positions,
    text_projection, attn_mask, class_embedding, ... So the causal mask was overwritten too, and being no part of a
    state dict it is not in the file. It is drawn here again, where the tensors before and after it prove the stream.
    """
    state, names = case.state, ("positional_embedding", "text_projection", "", "visual.class_embedding")
    if names[0] not in state:
        return None  # a tower under `text.` has no mask in these cases
    length = model.text.get_parameter("positional_embedding").shape[0]
    for seed in range(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        shapes = [state[name].shape if name else (length, length) for name in names]
        first = torch.randn(shapes[0], generator=generator)
        if _proportional(first, state[names[0]]):
            _, mask, last = (torch.randn(shape, generator=generator) for shape in shapes[1:])
            return mask / length**0.5 if _proportional(last, state[names[-1]]) else None
    return None


def _proportional(x: Tensor, y: Tensor) -> bool:
    return F.cosine_similarity(x.flatten(), y.flatten(), dim=0).item() > 0.9999


def _load(model: CLIP, state: dict[str, Tensor]) -> None:
    model.load_state_dict(reader.clip(state, model))
    model.eval()


def _parameter(model: CLIP, official: str) -> Tensor:
    """The parameter that goes by `official` in their file: `text_projection` is `text.proj.weight` here."""
    key = official if official.startswith(("visual.", "logit_")) else f"text.{official}"
    key = {"visual.proj": "visual.proj.weight", "text.text_projection": "text.proj.weight"}.get(key, key)
    return model.get_parameter(key)


def _watch(model: CLIP, seen: dict[str, Tensor]) -> None:
    """Keep what passes through the parts that the cases list; their blocks are (L, N, D)."""
    parts: dict[str, nn.Module] = {}
    if isinstance(model.visual, CLIPViT):
        parts["visual_ln_pre"] = model.visual.ln_pre
        parts |= {f"visual_block{i}_LND": b for i, b in enumerate(model.visual.transformer.resblocks)}
    else:
        parts |= {f"visual_layer{i}": model.visual.get_submodule(f"layer{i}") for i in (1, 2, 3, 4)}
        model.visual.get_submodule("layer1").register_forward_pre_hook(lambda _m, x: seen.update(visual_stem=x[0]))
    parts |= {f"text_block{i}_LND": b for i, b in enumerate(model.text.transformer.resblocks)}
    for name, module in parts.items():
        module.register_forward_hook(
            lambda _m, _i, out, name=name: seen.update({name: out.transpose(0, 1) if "LND" in name else out})
        )


def clip_tokenizer(case: Case) -> dict[str, Any]:
    try:
        tokenizer = BPETokenizer.official()
    except InputError as error:
        raise Skip(str(error)) from error
    strings, length = case.info["extra"]["strings"], case.hyper["context_length"]
    encoded = [tokenizer.encode(text) for text in strings]
    too_long = [i for i, text in enumerate(strings) if _too_long(tokenizer, text, length)]
    return {
        "tokens": tokenizer(strings, length, truncate=True),
        "encode_flat": torch.tensor([i for ids in encoded for i in ids]),
        "encode_offsets": torch.tensor([0, *itertools.accumulate(map(len, encoded))]),
        "overflow_index": torch.tensor(too_long),
        "extra.decoded": [tokenizer.decode(ids) for ids in encoded],
    }


def _too_long(tokenizer: BPETokenizer, text: str, length: int) -> bool:
    try:
        tokenizer(text, length)
    except InputError:
        return True
    return False


def _leaves(case: Case, *names: str) -> list[Tensor]:
    return [case.inputs[name].clone().requires_grad_() for name in names]


ADAPTERS: dict[str, Adapter] = {
    "clip_quickgelu": clip_quickgelu,
    "clip_preprocess": clip_preprocessing,
    "clip_vit_tiny": openai_clip,
    "clip_resnet_tiny": openai_clip,
    "clip_tokenizer": clip_tokenizer,
    "openclip_vit_gelu": openclip_model,
    "openclip_siglip_text": openclip_model,
    "openclip_zeroshot": openclip_zeroshot,
    "openclip_resize_pos_embed": openclip_resize_pos_embed,
    "openclip_logit_scale_clamp": openclip_logit_scale_clamp,
    "openclip_clip_loss": openclip_clip_loss,
    "openclip_siglip_loss": openclip_siglip_loss,
    "openclip_distill_coca_loss": openclip_distill_coca_loss,
    "openclip_distributed_losses": openclip_distributed_losses,
}
