"""Backbones by name: every one maps (B, 3, H, W) to (B, num_features)."""

from typing import Any

from torch import nn

from sslcourse.errors import InputError, unknown
from sslcourse.nn.convnet import ConvNet
from sslcourse.nn.vit import SIZES, ViT

SMALL_IMAGE = 64  # up to this side a ResNet gets the small-image stem
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2")
# Width, depth, heads and patch; "mini" is for minutes on a CPU at 32 px.
VITS = {"vit_mini_patch4": (128, 4, 4, 4)} | {f"vit_{size}_patch16": (*shape, 16) for size, shape in SIZES.items()}
NAMES = ("convnet", *RESNETS, *VITS)


def backbone(name: str, image_size: int = 224, **kwargs: Any) -> nn.Module:
    """An untrained backbone with `num_features`, (B, 3, H, W) float -> (B, num_features).

    Args:
        name: "convnet", the small network of the CPU presets; "resnet18", "resnet50", ... of timm, with a 3x3 stride 1
            stem and no max-pooling where `image_size` <= 64 (SimCLR, Chen et al. 2020, appendix B.9), which they would
            otherwise shrink 4 times before the first block; "vit_small_patch16", ..., our `ViT`, the class token.
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
    if name == "convnet":
        return ConvNet(**kwargs)
    if name in VITS:
        return vit(name, image_size, **kwargs)
    import timm  # seconds to import, and the others do without it

    model = timm.create_model(name, num_classes=0, **kwargs)
    return small_image_stem(model) if image_size <= SMALL_IMAGE else model


def vit(name: str, image_size: int = 224, **kwargs: Any) -> ViT:
    """An untrained ViT by name, for methods that need one; `kwargs` as in `ViT`.

    Raises:
        InputError: another kind of backbone, or a size that its patches do not fill.
    """
    if name not in VITS:
        raise InputError(f"This method needs a ViT as its backbone ({', '.join(VITS)}); got {name!r}.")
    dim, depth, n_heads, patch_size = VITS[name]
    return ViT(image_size, patch_size, dim=dim, depth=depth, n_heads=n_heads, **kwargs)


def masked_backbone(name: str, image_size: int = 224, **kwargs: Any) -> Any:
    """An encoder that replaces hidden patches by a learned token: `forward_map(x, mask)`, `stride`, `num_features`.

    A ViT by name. Without absolute positions (`pos=False`) it has BEiT's layer scale of 0.1, if `kwargs` name no other.
    """
    if not kwargs.get("pos", True):
        kwargs = {"layer_scale": 0.1} | kwargs
    return vit(name, image_size, mask_token=True, **kwargs)


def small_image_stem(resnet: nn.Module) -> nn.Module:
    """Replace the 7x7 stride 2 convolution of a timm ResNet by a 3x3 stride 1 one and leave out the max-pooling."""
    old: Any = resnet.conv1
    resnet.conv1 = nn.Conv2d(old.in_channels, old.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(resnet.conv1.weight, mode="fan_out", nonlinearity="relu")
    resnet.maxpool = nn.Identity()
    return resnet
