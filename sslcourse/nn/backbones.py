"""Backbones by name: every one maps (B, 3, H, W) to (B, num_features)."""

from typing import Any

from torch import nn

from sslcourse.errors import InputError, unknown
from sslcourse.nn.convnet import ConvNet
from sslcourse.nn.pvt import PVT
from sslcourse.nn.swin import Swin
from sslcourse.nn.vit import SIZES, ViT

SMALL_IMAGE = 64  # up to this side a ResNet gets the small-image stem
# Strides of the four stages. The first at full size is the most faithful and, at 32 px, half of the cost.
CONVNETS = {"convnet": (1, 2, 2, 2), "convnet_fast": (2, 2, 2, 1)}
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2")
# What a `ViT` of a name is made with; "mini" is for minutes on a CPU at 32 px.
_MINI: dict[str, Any] = {"dim": 128, "depth": 4, "n_heads": 4}
VITS: dict[str, dict[str, Any]] = {
    "vit_mini_patch4": _MINI | {"patch_size": 4},
    "vit_mini_patch8": _MINI | {"patch_size": 8},  # a quarter of the patches, for methods with many crops
    "vit_mini_conv8": _MINI | {"patch_size": 8, "stem": "conv"},  # learns in far fewer steps
    # Two blocks on the map of `convnet_fast`: what learns without labels in a minute.
    "vit_mini_hybrid8": _MINI | {"depth": 2, "patch_size": 8, "stem": "hybrid", "pool": "mean"},
} | {
    f"vit_{size}_patch16": {"dim": dim, "depth": depth, "n_heads": n_heads, "patch_size": 16}
    for size, (dim, depth, n_heads) in SIZES.items()
}
# Patch, width, blocks and heads of each stage; windows are an eighth of a 224 px image's first map, as in the papers.
SWINS = {
    "swin_mini": (2, 32, (2, 2, 2), (1, 2, 4)),
    "swin_tiny": (4, 96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "swin_base": (4, 128, (2, 2, 18, 2), (4, 8, 16, 32)),
}
# Patch, then of each stage: widths, blocks, heads, expansion of the MLP, by how much keys and values are shrunk.
PVTS: dict[str, tuple[Any, ...]] = {
    "pvt_mini": (2, (32, 64, 128), (2, 2, 2), (1, 2, 4), (4, 4, 4), (4, 2, 1)),
    "pvt_small": (4, (64, 128, 320, 512), (3, 4, 6, 3), (1, 2, 5, 8), (8, 8, 4, 4), (4, 2, 1, 1)),
}
NAMES = (*CONVNETS, *RESNETS, *VITS, *SWINS, *PVTS)


def backbone(name: str, image_size: int = 224, **kwargs: Any) -> nn.Module:
    """An untrained backbone with `num_features`, (B, 3, H, W) float -> (B, num_features).

    Args:
        name: "convnet", a small network for CPUs, and "convnet_fast", a third of its work; "resnet18", "resnet50", ...
            of timm, with a 3x3 stride 1 stem and no max-pooling where `image_size` <= 64 (SimCLR, Chen et al. 2020,
            appendix B.9), which they would otherwise shrink 4 times before the first block; "vit_small_patch16", ...,
            our `ViT`, the class token ("vit_mini_conv8" with `conv_stem`; "vit_mini_hybrid8", two blocks on a small
            convolutional network, the mean of its patches); "swin_tiny", "pvt_small", ..., pyramids.
        image_size: side of the training images in pixels; a ViT's position embedding is made for it and interpolated
            for others.
        kwargs: passed on to `ConvNet`, `ViT` or `timm.create_model`.

    Raises:
        InputError: an unknown name, or a size that the network cannot take.
    """
    if name not in NAMES:
        raise unknown("backbone", name, NAMES)
    if image_size < 8:
        raise InputError(f"Backbones take images of 8 pixels or more; got image_size={image_size}.")
    if name in CONVNETS:
        return ConvNet(**({"strides": CONVNETS[name]} | kwargs))
    if name in VITS:
        return vit(name, image_size, **kwargs)
    if name in SWINS:
        patch_size, dim, stages, heads = SWINS[name]
        return Swin(image_size, patch_size, dim, stages, heads, max(4, image_size // (8 * patch_size)), **kwargs)
    if name in PVTS:
        return PVT(image_size, *PVTS[name], **kwargs)
    import timm  # seconds to import, and the others do without it

    model = timm.create_model(name, num_classes=0, **kwargs)
    return small_image_stem(model) if image_size <= SMALL_IMAGE else model


def vit(name: str, image_size: int = 224, **kwargs: Any) -> ViT:
    """An untrained ViT by name, for methods that need one; `kwargs` as in `ViT`.

    Raises:
        InputError: another kind of backbone, or a size that its patches do not fill.
    """
    if name not in VITS:
        raise _no_vit(name)
    return ViT(image_size, **(VITS[name] | kwargs))


def _no_vit(name: str) -> InputError:
    return InputError(f"This method needs a ViT as its backbone ({', '.join(VITS)}); got {name!r}.")


def masked_vit(name: str, image_size: int = 224, **kwargs: Any) -> ViT:
    """`masked_backbone` for methods that read the tokens of a ViT, blocks or classes, and so take no pyramid.

    Raises:
        InputError: another kind of backbone.
    """
    if name not in VITS:
        raise _no_vit(name)
    return masked_backbone(name, image_size, **kwargs)


def masked_backbone(name: str, image_size: int = 224, *, mask_token: bool = True, **kwargs: Any) -> Any:
    """An encoder for masked images by name: `forward_map(x, mask)`, `stride`, `num_features`.

    Args:
        mask_token: whether it has a learned token for hidden patches.
        kwargs: of `ViT` (without absolute positions, `pos=False`, it gets BEiT's layer scale of 0.1 if they name no
            other) or of `Swin`; those that the other kinds do not have are left out for them.

    Raises:
        InputError: a backbone that is no ViT, Swin or PVT.
    """
    relative = kwargs.pop("relative", None)
    if name in SWINS:
        return backbone(name, image_size, mask_token=mask_token, **({"relative": relative} if relative else {}))
    if name in PVTS:
        return backbone(name, image_size, mask_token=mask_token)
    if not kwargs.get("pos", True):
        kwargs = {"layer_scale": 0.1} | kwargs
    return vit(name, image_size, mask_token=mask_token, **kwargs)


def small_image_stem(resnet: nn.Module) -> nn.Module:
    """Replace the 7x7 stride 2 convolution of a timm ResNet by a 3x3 stride 1 one and leave out the max-pooling."""
    old: Any = resnet.conv1
    resnet.conv1 = nn.Conv2d(old.in_channels, old.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(resnet.conv1.weight, mode="fan_out", nonlinearity="relu")
    resnet.maxpool = nn.Identity()
    return resnet
