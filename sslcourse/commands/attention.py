"""`sslcourse attention IMAGE --weights RUN`: where each head of a ViT looks, and its patches as colours."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from sslcourse.commands.arguments import parse
from sslcourse.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

MOST = 480  # pixels: the side at which DINO's figures are made


@dataclass(frozen=True)
class Options:
    """Draw where the class token of a ViT looks in an image, head by head, and the patches' features as colours.

    The white outline holds --mass of a head's attention. Beside the picture, a JSON file has for each head the share of
    the image that the outline covers.
    """

    image: Annotated[Path, tyro.conf.Positional]
    """An image file."""
    weights: Path
    """A run folder of `sslcourse pretrain` with a ViT; or, with --model, the official file of that name."""
    model: str | None = None
    """The published model that --weights holds, for example dino_vit_small_patch16."""
    out: Path | None = None
    """The picture; IMAGE-attention.png in this folder by default."""
    size: int | None = None
    """Shorter side in pixels at which the network sees the image; twice the side it was trained at by default, at most
    480."""
    mass: float = 0.6
    """Share of a head's attention that its outline holds."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""


def run(argv: list[str]) -> None:
    options = parse(Options, argv, "attention")

    import torch

    from sslcourse.commands.weights import load_encoder
    from sslcourse.evaluate.attention import attention_masks
    from sslcourse.evaluate.encoder import patch_side, resize_to_multiple
    from sslcourse.viz.attention import attention_figure, pca_colours

    image = read_image(options.image)
    encoder = load_encoder(options.weights, options.model, options.device)
    trained = encoder.size or MOST
    side = options.size or max(min(2 * trained, MOST), trained)
    if side < 8 or side > 4096:
        raise InputError(f"--size is the shorter side in pixels, 8 to 4096; got {side}.")
    scale = side / min(image.shape[1:])
    shape: Any = [max(1, round(s * scale)) for s in image.shape[1:]]
    seen = torch.nn.functional.interpolate(image[None].float(), shape, mode="bilinear", antialias=True)
    seen = resize_to_multiple(seen.round().clamp(0, 255).to(torch.uint8), patch_side(encoder.backbone))
    attention = encoder.attention(seen)
    masks = attention_masks(attention, options.mass)
    figure = attention_figure(seen[0], attention[0], masks[0], pca_colours(encoder.maps(seen))[0])
    out = options.out or Path(f"{options.image.stem}-attention.png")
    figure.savefig(out, dpi=150, bbox_inches="tight")
    shares = [round(share, 4) for share in masks[0].float().mean(dim=(1, 2)).tolist()]
    numbers = {"image": str(options.image), "mass": options.mass, "grid": list(attention.shape[2:]), "covered": shares}
    out.with_suffix(".json").write_text(json.dumps(numbers, indent=2) + "\n")
    listed = ", ".join(f"{share:.0%}" for share in shares)
    print(f"{out}: {options.mass:.0%} of the attention of each head lies on {listed} of the image.")


def read_image(path: Path) -> "Tensor":
    """(3, H, W) uint8, upright.

    Raises:
        InputError: no such file, or one that is no image.
    """
    import numpy as np
    import torch
    from PIL import Image, UnidentifiedImageError

    from sslcourse.data.decode import to_rgb

    if not path.is_file():
        raise InputError(f"there is no image file {path}.")
    try:
        with Image.open(path) as opened:
            return torch.from_numpy(np.array(to_rgb(opened))).permute(2, 0, 1)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path} cannot be read as an image ({type(error).__name__}).") from None
