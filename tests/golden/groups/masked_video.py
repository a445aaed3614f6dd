"""Adapters for masked video modelling: VideoMAE, Unmasked Teacher, and the targets of MaskFeat."""

from typing import Any

import torch
from groups.masked import gradients
from loading import Adapter, Case
from torch import Tensor

from sslcourse.data.augment import Augment
from sslcourse.data.masks import upsample_mask
from sslcourse.losses.masked import maskfeat_loss
from sslcourse.methods.maskfeat_video import MaskFeatVideo
from sslcourse.methods.unmasked_teacher import UnmaskedTeacher
from sslcourse.methods.videomae import VideoMAE
from sslcourse.nn.clip import CLIPViT
from sslcourse.nn.positions import sinusoid
from sslcourse.nn.teachers import CLIPTeacher
from sslcourse.nn.text import quick_gelu
from sslcourse.nn.video_vit import VideoViT
from sslcourse.zoo import masked as readers


def videomae_pretrain(case: Case) -> dict[str, Any]:
    hyper, x, mask = case.hyper, case.inputs["videos"], case.inputs["mask"]
    size, p, t = hyper["img_size"][0], hyper["patch_size"], hyper["tubelet_size"]
    shape = (hyper["encoder_embed_dim"], hyper["encoder_depth"], hyper["encoder_num_heads"])
    config = VideoMAE.Config(
        norm_pix=hyper["normlize_target"],
        decoder_dim=hyper["decoder_embed_dim"],
        decoder_depth=hyper["decoder_depth"],
        decoder_heads=hyper["decoder_num_heads"],
        augment=Augment(size),
    )
    model = VideoMAE(config, VideoViT(size, p, hyper["num_frames"], t, *shape))
    model.load_state_dict(readers.videomae(case.state, model))
    out = model([x, mask])
    out["loss"].backward()
    n, width = mask.shape[1], model.backbone.num_features
    return {
        "pred": out["pred"][mask].view(len(x), -1, out["pred"].shape[-1]),
        "target": model.target(x)[mask].view(len(x), -1, out["pred"].shape[-1]),
        "loss": out["loss"],
        "enc_pos": sinusoid(n, width)[None],
        "dec_pos": model.decoder.pos_embed,
    } | gradients(case, model, readers.videomae)


def videomae_vit(case: Case) -> dict[str, Any]:
    hyper, x = case.hyper, case.inputs["videos"]
    shape = (hyper["embed_dim"], hyper["depth"], hyper["num_heads"])
    size, frames = hyper["img_size"][0], (hyper["all_frames"], hyper["tubelet_size"])
    model = VideoViT(size, hyper["patch_size"], *frames, *shape, n_classes=hyper["num_classes"], norm="mean")
    model.load_state_dict(readers.videomae(case.state, model))
    return {"features": model.forward_clip(x), "logits": model(x)}


def umt_pretrain(case: Case) -> dict[str, Any]:
    hyper, x = case.hyper, case.inputs["videos"]
    tower = CLIPViT(
        hyper["clip"], hyper["p"], hyper["tw"], hyper["tl"], hyper["th"], hyper["td"], act=quick_gelu
    )  # the official teacher's patches have a depth of one frame
    told = {key.removeprefix("teacher."): v for key, v in case.state.items() if key.startswith("teacher.")}
    told["conv1.weight"] = told["conv1.weight"].squeeze(2)
    told["proj.weight"] = told.pop("proj").T
    tower.load_state_dict(told)
    student = VideoViT(hyper["img"], hyper["p"], hyper["T"], 1, hyper["d"], hyper["dep"], hyper["h"])
    config = UnmaskedTeacher.Config(ratio=hyper["r"], layers=hyper["K"], augment=Augment(hyper["img"]))
    model = UnmaskedTeacher(config, student, CLIPTeacher(tower))

    def read(state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
        mine = {key.removeprefix("student."): v for key, v in state.items() if key.startswith("student.")}
        return readers.umt(mine, model)

    model.load_state_dict(read(case.state, model))
    look, features = model.ask(x)
    # The official places were drawn by multinomial: a race in which they arrive in that order.
    rank = case.inputs["importance"].argsort(dim=1) + 1.0
    out = model([x, (rank * look.flatten(0, 1)).view_as(look)])
    out["loss"].backward()
    return {
        "attn": look.flatten(0, 1),
        "teacher": features,
        "mask": out["mask"],
        "targets_vis": out["target"],
        "student": torch.nn.functional.normalize(out["pred"], dim=-1),
        "loss": out["loss"].view(1),
    } | gradients(case, model, read)


def maskfeat_video(case: Case) -> dict[str, Any]:
    """Target and loss only: the network is left out.

    The official encoder is MViTv2, which the library does not have (its MaskFeat for video has a ViT for clips). So
    the recorded `pred` and its state dict are not held against anything of ours: `pred` is taken as given, and the
    loss is that of the official prediction with our target, mask and mean.
    """
    hyper, x = case.hyper, case.inputs["x"]
    size, frames, (tubelet, patch, _) = hyper["img_size"], hyper["T"], hyper["feat_stride"]
    # A network without blocks: the target needs the sizes of tubelets only.
    config = MaskFeatVideo.Config(frames=frames, tubelet=tubelet, augment=Augment(size))
    model = MaskFeatVideo(config, VideoViT(size, patch, frames, tubelet, dim=8, depth=0, n_heads=1))
    # Official masks are told on squares of several patches, ours on the patches.
    squares = case.inputs["mask"].bool()
    mask = upsample_mask(squares, hyper["feat_size"][1] // squares.shape[-1]).flatten(1)
    target = model.target(x)
    pred = torch.zeros_like(target)  # what stays visible has no recorded prediction and does not count
    pred[mask] = case.expected["pred"]
    left_out = {"pred": lambda official: None}
    return left_out | {"target": target[mask], "loss": maskfeat_loss(pred, target, mask)}


ADAPTERS: dict[str, Adapter] = {
    "maskfeat_video": maskfeat_video,
    "umt_pretrain": umt_pretrain,
    "videomae_pretrain": videomae_pretrain,
    "videomae_pretrain_rawpix": videomae_pretrain,
    "videomae_vit": videomae_vit,
}
