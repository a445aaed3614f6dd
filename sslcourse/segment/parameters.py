"""`python -m sslcourse.segment.parameters`: how SAM and its relatives differ: parameters part by part, and which learn.

Published sizes are built without memory for their weights; small ones are those that come with the course.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import nn

from sslcourse.segment.build import build_hq_sam, build_mobile_sam, build_sam
from sslcourse.segment.fastsam_net import FastNet
from sslcourse.segment.files import load_small
from sslcourse.segment.hq import HQ_PARTS, HQSam
from sslcourse.segment.matter import Matter
from sslcourse.segment.sam import Sam
from sslcourse.segment.text_to_box import TextToBox
from sslcourse.segment.tiny_vit import TinyViT

HEADER = ("model", "image encoder", "prompts", "decoder", "trained", "kind of encoder")


class Row(NamedTuple):
    """Numbers of parameters: of what sees the image, of what reads the prompt, of what gives masks, boxes or mattes.

    `trained` is how many learn when the model is made from the one that it stems from.
    """

    model: str
    image: int
    prompts: int
    decoder: int
    trained: int
    encoder: str


def count(parameters: Iterable[nn.Parameter]) -> int:
    """How many numbers they hold."""
    return sum(p.numel() for p in parameters)


def row(name: str, model: nn.Module) -> Row:
    """The row of a SAM, MobileSAM, HQ-SAM, FastSAM, text-to-box model or matting model."""
    if isinstance(model, Matter):
        seen = count(model.sam.image_encoder.parameters())
        prompts, decoder = count(model.sam.prompt_encoder.parameters()), count(model.sam.mask_decoder.parameters())
        own = count(model.decoder.parameters())
        return Row(name, seen, prompts, decoder + own, own, type(model.sam.image_encoder).__name__)
    if isinstance(model, FastNet):
        heads = count(model.head.parameters()) + count(model.proto.parameters())
        whole = count(model.parameters())
        return Row(name, whole - heads, 0, heads, whole, "convolutions, one pass for all prompts")
    if isinstance(model, TextToBox):
        clip = model.clip[0]
        seen, own = count(clip.backbone.parameters()), count(model.parameters())
        return Row(
            name, seen, count(clip.text.parameters()), own, own, f"CLIP's {type(clip.backbone).__name__}, frozen"
        )
    if not isinstance(model, Sam):
        raise TypeError(f"a {type(model).__name__} is no model of SAM's family")
    parts = [count(part.parameters()) for part in (model.image_encoder, model.prompt_encoder, model.mask_decoder)]
    trained = sum(parts)
    if isinstance(model.image_encoder, TinyViT):
        trained = parts[0]
    if isinstance(model, HQSam):
        of_hq = (p for n, p in model.mask_decoder.named_parameters() if n.partition(".")[0] in HQ_PARTS)
        trained = count(of_hq)
    return Row(name, parts[0], parts[1], parts[2], trained, type(model.image_encoder).__name__)


def published() -> list[Row]:
    """SAM, HQ-SAM and MobileSAM as they were published."""
    with torch.device("meta"):
        return [
            row("SAM, ViT-H", build_sam("vit_h")),
            row("SAM, ViT-B", build_sam("vit_b")),
            row("HQ-SAM, ViT-B", build_hq_sam("vit_b")),
            row("MobileSAM", build_mobile_sam()),
        ]


def small(names: Iterable[str] = ("sam", "mobilesam", "hqsam", "fastsam", "grounded", "matting")) -> list[Row]:
    """The small models that come with the course."""
    return [row(f"tiny_{name}", load_small(name=f"tiny_{name}")) for name in names]


def table(rows: Iterable[Row]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(HEADER) + " |", "|---" * len(HEADER) + "|"]
    for r in rows:
        numbers = " | ".join(f"{n:,}" for n in (r.image, r.prompts, r.decoder, r.trained))
        lines.append(f"| {r.model} | {numbers} | {r.encoder} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table([*published(), *small()]))
