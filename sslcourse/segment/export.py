"""The prompted half of SAM as one graph, for a browser or a phone: the image is encoded once, elsewhere.

Inputs and outputs are those of the official export (Kirillov et al. 2023, their repository's ONNX notebook): points and
corners of boxes are one list with labels, and whoever calls pads that list with a point of label -1 where there is no
box. Of the masks the one that `select_single` chooses is given, or (`multimask`) all.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from sslcourse.errors import InputError
from sslcourse.segment.mask_decoder import select_single
from sslcourse.segment.sam import Sam

INPUTS = ("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input")
OUTPUTS = ("low_res_masks", "iou_predictions")


class PromptedMasks(nn.Module):
    """Prompts for one image to low-resolution masks.

    `forward(image_embeddings (1, C, g, g), point_coords (1, T, 2) in pixels of the model's input, point_labels (1, T),
    mask_input (1, 1, 4g, 4g), has_mask_input (1,))` gives logits (1, M, 4g, 4g) and predicted IoU (1, M). M is 1, or 4
    with `multimask`, the unambiguous mask first.
    """

    def __init__(self, model: Sam, multimask: bool = False) -> None:
        super().__init__()
        self.prompt_encoder, self.mask_decoder, self.multimask = model.prompt_encoder, model.mask_decoder, multimask
        self.register_buffer("image_pe", model.prompt_encoder.dense_pe().detach(), persistent=False)
        self.image_pe: Tensor

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        encoder = self.prompt_encoder
        sparse = encoder.embed_points(point_coords, point_labels)
        without = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        share = has_mask_input.reshape(-1, 1, 1, 1)
        dense = share * encoder.embed_masks(mask_input) + (1 - share) * without
        masks, iou = self.mask_decoder.predict_all(image_embeddings, self.image_pe, sparse, dense)
        return (masks, iou) if self.multimask else select_single(masks, iou, point_coords.shape[1])


def example_inputs(model: Sam, n_points: int = 5) -> tuple[Tensor, ...]:
    """Inputs of the right shapes, in the order of `INPUTS`."""
    grid, dim = model.prompt_encoder.grid, model.prompt_encoder.dim
    g = torch.Generator().manual_seed(0)
    points = torch.rand(1, n_points, 2, generator=g) * model.image_size
    labels = torch.ones(1, n_points)
    image, mask = torch.randn(1, dim, grid, grid, generator=g), torch.zeros(1, 1, 4 * grid, 4 * grid)
    return image, points, labels, mask, torch.zeros(1)


def export_onnx(model: Sam, path: str | os.PathLike[str], *, multimask: bool = True, optimize: bool = True) -> Path:
    """Write the decoder as ONNX with any number of points; with one mask the choice is that for three points or more.

    Without `optimize` every weight keeps its name and its values; a runtime does then what is left out here.

    Raises:
        InputError: the packages onnx and onnxscript are not installed.
    """
    lacking = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if lacking:
        raise InputError(f"the export to ONNX needs {' and '.join(lacking)}: pip install {' '.join(lacking)}.")
    points = {1: torch.export.Dim("n_points", min=2, max=1024)}
    shapes = dict.fromkeys(INPUTS) | {"point_coords": points, "point_labels": points}
    torch.onnx.export(
        PromptedMasks(model, multimask).eval(),
        example_inputs(model),
        path,
        input_names=INPUTS,
        output_names=OUTPUTS,
        dynamic_shapes=shapes,
        dynamo=True,
        external_data=False,
        optimize=optimize,
        verbose=False,
    )
    return Path(path)
