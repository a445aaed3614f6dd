"""`sslcourse reconstruct IMAGE`: what a masked method sees of an image, what it paints, and the truth."""

from dataclasses import dataclass, replace
from difflib import get_close_matches
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import tyro

from sslcourse.commands.arguments import parse
from sslcourse.errors import InputError

_SHIPPED = "mae_shapes"  # of the weights that come with the repository the ones that can paint


@dataclass(frozen=True)
class Options:
    """Hide part of an image, let a trained MAE, SimMIM or UM-MAE paint it, write the three pictures side by side."""

    image: Annotated[Path, tyro.conf.Positional]
    """Any image; its middle square is taken."""
    weights: Path = Path(_SHIPPED)
    """Run folder of `sslcourse pretrain` or the model.safetensors in it, the official MAE ViT-B with its decoder
    (mae_visualize_vit_base.pth), or mae_shapes, the small one that comes with the repository and has seen `Shapes`
    only."""
    ratio: float = 0.75
    """Part of the image that is hidden."""
    seed: int = 0
    """Of the places that are hidden."""
    out: Path = Path("reconstruction.png")
    """Where the pictures go: masked, predicted, original. Its ending says which kind of file, as .png or .jpg."""


def run(argv: list[str]) -> None:
    options = parse(Options, argv, "reconstruct")
    check_ending(options.out)
    import torch
    from torchvision.transforms.functional import pil_to_tensor, to_pil_image

    from sslcourse.data.augment import center_view
    from sslcourse.data.preprocess import open_image
    from sslcourse.data.rng import step_generator

    image = pil_to_tensor(open_image(options.image))[None]
    method = prepared(method_of(options.weights), options.ratio)
    size = method.config.augment.size
    square = (255 * center_view(image, size, (0.0,) * 3, (1.0,) * 3)).round().to(torch.uint8)
    views = method.views(square, step_generator(options.seed, 0))
    with torch.no_grad():
        triple = pictures(method, views)
    strip = torch.cat(list(triple), dim=2).clamp(0, 1)
    factor = max(1, 224 // size)
    strip = strip.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    to_pil_image(strip).save(options.out)
    distance = float((triple[1] - triple[2]).square().mean())
    told = " (patches are standardised: the true mean and contrast of hidden ones are painted in)"
    print(
        f"{options.out}: masked, predicted, original; mean squared error of pixels in [0, 1]: {distance:.4f}"
        f"{told if standardised(method.config) else ''}"
    )


def check_ending(out: Path) -> None:
    """Raise an `InputError` where the ending of `out` names no kind of file that colours can be written to."""
    from PIL import Image

    try:  # some kinds can only be read, and some take no colours
        Image.new("RGB", (8, 8)).save(BytesIO(), Image.registered_extensions()[out.suffix.lower()])
    except (KeyError, ValueError, OSError):
        raise InputError(f"{out} does not end like a picture that can be written; end --out in .png or .jpg.") from None


def method_of(weights: Path) -> Any:
    """The trained method in a run folder or a file of ours, the official MAE of a file, or the shipped one.

    Raises:
        InputError: weights that are not there or cannot be read, or of a method that this command cannot paint with.
    """
    from sslcourse.train import load_model
    from sslcourse.train.checkpoint import MODEL
    from sslcourse.zoo.weights import SHIPPED, shipped

    path = shipped(str(weights)) if str(weights) in SHIPPED else weights
    if not path.exists() and get_close_matches(str(weights), [_SHIPPED]):
        raise InputError(f"there is no run folder or file {weights}; did you mean '{_SHIPPED}'?")
    if path.is_file() and path.name != MODEL and not _ours(path):
        return _official(path)
    found: Any = load_model(path)
    if not hasattr(found, "reconstruct"):
        raise InputError(
            f"{weights} is a run of {found.name}, whose predictions cannot be painted by this command; take a run of "
            "mae, simmim or ummae."
        )
    return found.eval()


def _ours(path: Path) -> bool:
    """Whether a file is safetensors that says itself which method of ours it is, whatever its name."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            return "sslcourse" in (opened.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _official(path: Path) -> Any:
    """The official MAE ViT-B, whose file holds its decoder, too."""
    from sslcourse.methods.mae import MAE
    from sslcourse.zoo import masked
    from sslcourse.zoo.entries import ENTRIES
    from sslcourse.zoo.load import misfits, read_checkpoint, unwrap

    content = read_checkpoint(path)
    if isinstance(content, dict) and {"format", "method", "step", "optimizer"} <= content.keys():
        raise InputError(
            f"{path} is what a run resumes from; give the run folder, whose model.safetensors is read: "
            f"--weights {path.parent}."
        )
    method = MAE(replace(MAE.PRESETS["imagenet_vit_base"], target="pixels"))
    state = masked.mae(unwrap(content, ENTRIES["mae_vit_base_patch16"], path), method)
    if problems := misfits(state, method):
        raise InputError(f"{path} is not the official MAE ViT-B with its decoder: {problems}.")
    method.load_state_dict(state)
    return method.eval()


def standardised(config: Any) -> bool:
    """Whether a method predicts patches without mean and spread, so that painting them takes the true ones."""
    return getattr(config, "target", None) == "normalized" or getattr(config, "norm_pix", False)


def prepared(method: Any, ratio: float) -> Any:
    """The method with another ratio, and a view that is the whole image."""
    whole = replace(method.config.augment, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    config = replace(method.config, augment=whole)
    if hasattr(config, "ratio"):
        if not 0 <= ratio < 1:
            raise InputError(f"the ratio of what is hidden has to be in [0, 1); got {ratio}.")
        config = replace(config, ratio=ratio)
    elif ratio != 0.75:
        raise InputError(f"{method.name} keeps one of each 2 x 2 cells, so its ratio is 0.75; got {ratio}.")
    method.config = config
    return method


def pictures(method: Any, views: list[Any]) -> tuple[Any, Any, Any]:
    """Masked, predicted and original image, each (3, S, S) float in about [0, 1], of views of one image."""
    import torch

    x, config = views[0], method.config
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.augment.mean, config.augment.std))
    hidden = method(views)["mask"].flatten()
    side = round(hidden.numel() ** 0.5)
    cell = x.shape[2] // side
    hidden = hidden.view(side, side).repeat_interleave(cell, 0).repeat_interleave(cell, 1)
    original, painted = (image[0] * std + mean for image in (x, method.reconstruct(views)))
    return torch.where(hidden, 0.5, original), painted, original
