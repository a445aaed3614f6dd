"""Masks as run lengths, and the COCO format for them.

A mask is read column by column; the counts are the lengths of the runs of zeros and ones in turn, zeros first (0 if the
first pixel is set). COCO packs the counts into a string: every count from the third on is written as its difference to
the one before the last, in groups of 5 bits, lowest first, as characters from code 48 on, plus 32 while more follow.
"""

from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor

from sslcourse.errors import InputError


class RLE(TypedDict):
    """`size` is [height, width]; the counts sum to their product."""

    size: list[int]
    counts: list[int]


def mask_to_rle(mask: Tensor) -> RLE:
    """Run lengths of a mask (H, W) bool, column by column, zeros first."""
    if mask.ndim != 2 or mask.dtype != torch.bool:
        raise InputError(f"mask_to_rle takes one bool mask (H, W); got {mask.dtype} {(*mask.shape,)}.")
    pixels = mask.T.flatten()
    starts = (pixels[1:] != pixels[:-1]).nonzero().flatten() + 1  # of every run but the first
    edges = torch.cat([starts.new_zeros(1), starts, starts.new_tensor([len(pixels)])])
    counts = edges.diff().tolist() if len(pixels) else []
    first = [0] if len(pixels) and bool(pixels[0]) else []
    return {"size": list(mask.shape), "counts": first + counts}


def rle_to_mask(rle: RLE) -> Tensor:
    """The mask (H, W) bool of run lengths."""
    height, width = rle["size"]
    counts = torch.tensor(rle["counts"], dtype=torch.long)
    if bool((counts < 0).any()) or int(counts.sum()) != height * width:
        raise InputError(f"run lengths sum to {int(counts.sum())}, where a mask of {height} x {width} px was expected.")
    values = torch.arange(len(counts)) % 2 == 1
    return values.repeat_interleave(counts).view(width, height).T


def area_of(rle: RLE) -> int:
    """Number of pixels that are set."""
    return sum(rle["counts"][1::2])


def pack_counts(counts: Sequence[int]) -> str:
    """Run lengths as COCO's string."""
    out = []
    for i, count in enumerate(counts):
        rest = count - counts[i - 2] if i > 2 else count
        while True:
            group, rest = rest & 0x1F, rest >> 5
            more = rest != (-1 if group & 0x10 else 0)  # the top bit of the last group is the sign
            out.append(chr(48 + group + 32 * more))
            if not more:
                break
    return "".join(out)


def unpack_counts(packed: str) -> list[int]:
    """The inverse of `pack_counts`."""
    counts: list[int] = []
    value = shift = 0
    for character in packed:
        group = ord(character) - 48
        if not 0 <= group < 64:
            raise InputError(f"{character!r} does not occur in COCO's run lengths.")
        value |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise InputError("COCO's run lengths end in the middle of a number.")
    return counts


def coco_rle(rle: RLE) -> dict[str, Any]:
    """A COCO segmentation: {"size": [H, W], "counts": string}."""
    return {"size": list(rle["size"]), "counts": pack_counts(rle["counts"])}


def coco_export(
    masks: Sequence[RLE],
    *,
    image_id: int,
    file_name: str = "",
    category_id: int = 1,
    scores: Sequence[float] | None = None,
    first_id: int = 1,
) -> dict[str, Any]:
    """One image and its masks as a COCO dictionary: images, annotations (RLE, box x y w h, area), categories.

    Boxes cover their pixels (one pixel is 1 x 1), as COCO's do; `scores` become the `score` of the annotations.
    """
    if not masks:
        raise InputError("coco_export needs at least one mask, which tells the size of the image.")
    height, width = masks[0]["size"]
    annotations = []
    for i, rle in enumerate(masks):
        if list(rle["size"]) != [height, width]:
            raise InputError(f"mask {i} is {rle['size']}, where the first one is {[height, width]}.")
        annotation: dict[str, Any] = {
            "id": first_id + i,
            "image_id": image_id,
            "category_id": category_id,
            "segmentation": coco_rle(rle),
            "area": area_of(rle),
            "bbox": _covering_box(rle),
            "iscrowd": 0,
        }
        annotations.append(annotation if scores is None else annotation | {"score": float(scores[i])})
    return {
        "images": [{"id": image_id, "file_name": file_name, "height": height, "width": width}],
        "annotations": annotations,
        "categories": [{"id": category_id, "name": "object"}],
    }


def _covering_box(rle: RLE) -> list[float]:
    mask = rle_to_mask(rle)
    rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
    if not len(rows):
        return [0.0, 0.0, 0.0, 0.0]
    x, y = float(columns[0]), float(rows[0])
    return [x, y, float(columns[-1]) + 1 - x, float(rows[-1]) + 1 - y]
