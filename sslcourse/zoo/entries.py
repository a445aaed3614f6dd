"""The models that can be loaded by name: how each is built, how its official file is read, where it is published."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import nn

from sslcourse.data.preprocess import CLIP_MEAN, CLIP_STD
from sslcourse.errors import InputError
from sslcourse.nn.clip import CLIP, CLIPViT, SigLIPViT
from sslcourse.nn.clip_resnet import CLIPResNet
from sslcourse.nn.dvae import DalleEncoder
from sslcourse.nn.patches import interpolate_pos
from sslcourse.nn.pvt import PVT
from sslcourse.nn.swin import Swin
from sslcourse.nn.text import TextTransformer, quick_gelu
from sslcourse.nn.video_vit import VideoViT
from sslcourse.nn.vit import SIZES, ViT
from sslcourse.zoo import clip, masked, nonegatives, readers
from sslcourse.zoo.readers import State


@dataclass(frozen=True)
class Entry:
    """One published checkpoint.

    Attributes:
        build: image_size -> the untrained model.
        read: (tensors of the file, model) -> tensors under the model's names.
        published: project page and file, for people.
        megabytes: size of the file.
        image_size: side in pixels it was trained at.
        mean, std: what its inputs are standardised with.
        wrapped_in: keys that may wrap the tensors in the file, outermost first; a key that is absent is passed over.
    """

    build: Callable[[int], nn.Module]
    read: Callable[[State, Any], State]
    published: str
    megabytes: int
    image_size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    wrapped_in: tuple[str, ...] = ()


def _timm_vit(size: str, image_size: int) -> ViT:
    dim, depth, n_heads = SIZES[size]
    resize = partial(interpolate_pos, antialias=True)  # timm's way
    return ViT(image_size, 16, dim=dim, depth=depth, n_heads=n_heads, interpolate=resize)


_OFFSET = partial(interpolate_pos, offset=0.1)  # DINO's way, which iBOT and DINOv2 kept
_SMOOTH = partial(interpolate_pos, antialias=True)  # DINOv2 with registers


def _distilled_vit(size: str, patch: int, registers: int, v2: bool, image_size: int) -> ViT:
    dim, depth, n_heads = SIZES[size]
    return ViT(
        image_size,
        patch,
        dim=dim,
        depth=depth,
        n_heads=n_heads,
        registers=registers,
        mask_token=v2,
        layer_scale=1.0 if v2 else None,
        interpolate=_SMOOTH if registers else _OFFSET,
    )


def _dino(size: str, patch: int, file: str, megabytes: int) -> Entry:
    build = partial(_distilled_vit, size, patch, 0, False)
    return Entry(
        build, nonegatives.dino, f"github.com/facebookresearch/dino, {file}", megabytes, wrapped_in=("teacher",)
    )


def _ibot(size: str, megabytes: int) -> Entry:
    build = partial(_distilled_vit, size, 16, 0, False)
    where = f"github.com/bytedance/ibot, ViT-{size[0].upper()}/16, backbone (teacher)"
    return Entry(build, nonegatives.ibot, where, megabytes, wrapped_in=("state_dict", "teacher"))


def _dinov2(size: str, megabytes: int, registers: int = 0) -> Entry:
    file = f"dinov2_vit{size[0]}14{'_reg4' if registers else ''}_pretrain.pth"
    build = partial(_distilled_vit, size, 14, registers, True)
    where = f"github.com/facebookresearch/dinov2, {file}"
    return Entry(build, nonegatives.dinov2, where, megabytes, image_size=518, wrapped_in=("teacher",))


def _timm_entry(size: str, megabytes: int) -> Entry:
    return Entry(
        build=partial(_timm_vit, size),
        read=readers.timm_vit,
        published=f"timm's Hugging Face page, vit_{size}_patch16_224.augreg_in21k_ft_in1k, model.safetensors",
        megabytes=megabytes,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


_HALF = (0.5, 0.5, 0.5)  # BEiT standardises to [-1, 1]


def _masked(
    build: Callable[[int], nn.Module], read: Callable[[State, Any], State], published: str, megabytes: int, **how: Any
) -> Entry:
    return Entry(build, read, f"github.com/{published}", megabytes, wrapped_in=("model",), **how)


def _mae(size: str, patch: int, file: str, megabytes: int, **how: Any) -> Entry:
    dim, depth, n_heads = SIZES[size]
    build = partial(ViT, patch_size=patch, dim=dim, depth=depth, n_heads=n_heads, **how)
    return _masked(build, masked.mae, f"facebookresearch/mae, {file}", megabytes)


def _relative_vit(rel_pos: Any, **how: Any) -> Callable[[int], nn.Module]:
    """ViT-B with relative positions and layer scale, as in BEiT and SimMIM."""
    return partial(ViT, dim=768, depth=12, n_heads=12, pos=False, rel_pos=rel_pos, layer_scale=0.1, **how)


def _swin_window(image_size: int) -> int:
    """The side of the last map, so that windows cut every map whole: 6 for SimMIM's 192 px, 8 for UM-MAE's 256 px."""
    if image_size < 32 or image_size % 32:
        raise InputError(f"a Swin of four stages takes images whose side is a multiple of 32 px; got {image_size}.")
    return image_size // 32


def _swin_base(image_size: int) -> Swin:
    return Swin(image_size, 4, 128, (2, 2, 18, 2), (4, 8, 16, 32), _swin_window(image_size))


def _ummae_swin(image_size: int) -> Swin:
    return Swin(image_size, window=_swin_window(image_size), relative="mlp", eps=1e-6)


def _video_base(frames: int, tubelet: int, **how: Any) -> Callable[[int], nn.Module]:
    return partial(VideoViT, frames=frames, tubelet=tubelet, **how)


def _dalle(image_size: int) -> DalleEncoder:
    return DalleEncoder()  # for any size


_MASKED = {
    "mae_vit_base_patch16": _mae("base", 16, "mae_pretrain_vit_base.pth", 344),
    "mae_vit_large_patch16": _mae("large", 16, "mae_pretrain_vit_large.pth", 1214),
    "mae_vit_base_patch16_ft": _mae("base", 16, "mae_finetuned_vit_base.pth", 347, n_classes=1000, pool="avg"),
    "beit_vit_base_patch16": _masked(
        _relative_vit("shared"),
        masked.beit,
        "microsoft/unilm, beit_base_patch16_224_pt22k.pth",
        368,
        mean=_HALF,
        std=_HALF,
    ),
    "beit_vit_base_patch16_ft": _masked(
        _relative_vit("blocks", n_classes=1000, pool="avg"),
        masked.beit,
        "microsoft/unilm, beit_base_patch16_224_pt22k_ft1k.pth",
        347,
        mean=_HALF,
        std=_HALF,
    ),
    "simmim_vit_base_patch16": _masked(
        _relative_vit("shared", pool="mean"), masked.simmim, "microsoft/SimMIM, pre-trained ViT-Base, 800 epochs", 346
    ),
    "simmim_swin_base": _masked(
        _swin_base,
        masked.swin,
        "microsoft/SimMIM, pre-trained Swin-Base, 800 epochs, 192 px, window 6",
        360,
        image_size=192,
    ),
    "ummae_swin_tiny": _masked(
        _ummae_swin, masked.ummae, "implus/UM-MAE, Swin-T, 200 epochs, vmr 0.25", 135, image_size=256
    ),
    "ummae_pvt_small": _masked(PVT, masked.ummae, "implus/UM-MAE, PVT-S, 200 epochs, vmr 0.25", 110, image_size=256),
    "videomae_vit_base_patch16": _masked(
        _video_base(16, 2), masked.videomae, "MCG-NJU/VideoMAE, ViT-B, Kinetics-400, pre-training checkpoint.pth", 377
    ),
    "videomae_vit_base_patch16_ft": _masked(
        _video_base(16, 2, n_classes=400, norm="mean"),
        masked.videomae,
        "MCG-NJU/VideoMAE, ViT-B, Kinetics-400, fine-tuned checkpoint.pth",
        347,
    ),
    "umt_vit_base_patch16": _masked(
        _video_base(8, 1), masked.umt, "OpenGVLab/unmasked_teacher, B/16, Kinetics-710, pre-training", 353
    ),
    "dalle_encoder": _masked(
        _dalle, masked.dalle, "openai/DALL-E, encoder.pkl, whose state_dict() has to be saved first", 216
    ),
}


def _sam_entry(name: str, published: str, megabytes: int, family: str = "") -> Entry:
    def build(image_size: int) -> nn.Module:
        from sslcourse.segment import build  # the family is imported by those who use it

        return getattr(build, f"build_{family}")(name, image_size) if family else build.build_mobile_sam(image_size)

    def read(state: State, model: nn.Module) -> State:
        from sslcourse.zoo import segment

        return (segment.sam if family else segment.mobile_sam)(state, model)

    return Entry(build, read, published, megabytes, image_size=1024)


def _clip_vit(size: str, patch_size: int, out: int, image_size: int, *, quick: bool = True) -> CLIP:
    """A CLIP with a ViT; its text tower is as wide as the embedding."""
    dim, depth, n_heads = SIZES[size]
    act = quick_gelu if quick else F.gelu
    visual = CLIPViT(image_size, patch_size, dim, depth, n_heads, out, act=act)
    return CLIP(visual, TextTransformer(dim=out, n_heads=out // 64, out=out, act=act))


def _clip_resnet50(image_size: int) -> CLIP:
    return CLIP(CLIPResNet(image_size), TextTransformer(out=1024, act=quick_gelu))


def _siglip_base(image_size: int) -> CLIP:
    text = TextTransformer(32_000, 64, 768, 12, 12, 768, causal=False, pool="last", proj_bias=True, eps=1e-6)
    return CLIP(SigLIPViT(image_size), text, logit_bias=-10.0)


def _openai_entry(build: Callable[[int], nn.Module], file: str, megabytes: int) -> Entry:
    return Entry(
        build=build,
        read=clip.clip,
        published=f"OpenAI's GitHub page CLIP, {file}, the archive itself or its state dict",
        megabytes=megabytes,
        mean=CLIP_MEAN,
        std=CLIP_STD,
    )


def _openclip_entry(build: Callable[[int], nn.Module], page: str, megabytes: int, **statistics: Any) -> Entry:
    return Entry(
        build=build,
        read=clip.clip,
        published=f"Hugging Face, {page}, open_clip_model.safetensors or open_clip_pytorch_model.bin",
        megabytes=megabytes,
        wrapped_in=("state_dict",),
        **statistics,
    )


ENTRIES: dict[str, Entry] = {
    **_MASKED,
    "timm_vit_tiny_patch16": _timm_entry("tiny", 23),
    "timm_vit_small_patch16": _timm_entry("small", 88),
    "timm_vit_base_patch16": _timm_entry("base", 346),
    "timm_vit_large_patch16": _timm_entry("large", 1217),
    # Sizes are 4 bytes a parameter, rounded up.
    "dino_vit_small_patch16": _dino("small", 16, "dino_deitsmall16_pretrain.pth", 87),
    "dino_vit_small_patch8": _dino("small", 8, "dino_deitsmall8_pretrain.pth", 87),
    "dino_vit_base_patch16": _dino("base", 16, "dino_vitbase16_pretrain.pth", 344),
    "dino_vit_base_patch8": _dino("base", 8, "dino_vitbase8_pretrain.pth", 344),
    "ibot_vit_small_patch16": _ibot("small", 87),
    "ibot_vit_base_patch16": _ibot("base", 344),
    "ibot_vit_large_patch16": _ibot("large", 1214),
    "dinov2_vit_small_patch14": _dinov2("small", 89),
    "dinov2_vit_base_patch14": _dinov2("base", 347),
    "dinov2_vit_large_patch14": _dinov2("large", 1218),
    "dinov2_vit_small_patch14_reg4": _dinov2("small", 89, 4),
    "dinov2_vit_base_patch14_reg4": _dinov2("base", 347, 4),
    "dinov2_vit_large_patch14_reg4": _dinov2("large", 1218, 4),
    "sam_vit_b": _sam_entry("vit_b", "github.com/facebookresearch/segment-anything, sam_vit_b_01ec64.pth", 375, "sam"),
    "sam_vit_l": _sam_entry("vit_l", "github.com/facebookresearch/segment-anything, sam_vit_l_0b3195.pth", 1250, "sam"),
    "sam_vit_h": _sam_entry("vit_h", "github.com/facebookresearch/segment-anything, sam_vit_h_4b8939.pth", 2565, "sam"),
    "hqsam_vit_b": _sam_entry("vit_b", "github.com/SysCV/sam-hq, sam_hq_vit_b.pth", 380, "hq_sam"),
    "hqsam_vit_l": _sam_entry("vit_l", "github.com/SysCV/sam-hq, sam_hq_vit_l.pth", 1255, "hq_sam"),
    "hqsam_vit_h": _sam_entry("vit_h", "github.com/SysCV/sam-hq, sam_hq_vit_h.pth", 2571, "hq_sam"),
    "mobile_sam": _sam_entry("vit_t", "github.com/ChaoningZhang/MobileSAM, mobile_sam.pt", 41),
    "clip_vit_b32": _openai_entry(partial(_clip_vit, "base", 32, 512), "ViT-B-32.pt", 354),
    "clip_vit_b16": _openai_entry(partial(_clip_vit, "base", 16, 512), "ViT-B-16.pt", 351),
    "clip_vit_l14": _openai_entry(partial(_clip_vit, "large", 14, 768), "ViT-L-14.pt", 933),
    "clip_resnet50": _openai_entry(_clip_resnet50, "RN50.pt", 256),
    "openclip_vit_b32": _openclip_entry(
        partial(_clip_vit, "base", 32, 512, quick=False),
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        606,
        mean=CLIP_MEAN,
        std=CLIP_STD,
    ),
    "siglip_vit_b16": _openclip_entry(
        _siglip_base, "timm/ViT-B-16-SigLIP", 813, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    ),
}
