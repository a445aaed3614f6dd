"""How the one-pass network of `fastsam_net` learns: which cell answers for which object, and three losses.

An object is answered for by the cells around the middle of its box, at the level of its part. They learn score (focal
loss over all cells), box (complete IoU, Zheng et al. 2020) and mask (cross entropy and dice inside the box, YOLACT).
"""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torchvision.ops import complete_box_iou_loss

from sslcourse.data.rng import shard_rows
from sslcourse.segment.fastsam import crop_to_boxes
from sslcourse.segment.fastsam_net import FINE, STRIDE, FastNet, cell_middles
from sslcourse.segment.losses import dice_loss, sigmoid_focal
from sslcourse.segment.mask_prompts import box_of
from sslcourse.segment.scenes import N_PARTS, part_mask
from sslcourse.train.config import TrainConfig

_MIN_AREA = 4  # cells of the prototypes below which a part is not asked for


class Wanted(NamedTuple):
    """P cells that answer for an object: image and cell of each (P,), its box (P, 4) and mask (P, h, w) bool."""

    image: Tensor
    cell: Tensor
    boxes: Tensor
    masks: Tensor


def assign(ids: Tensor, grid: int) -> Wanted:
    """Which cells answer for what: those whose middle is less than one cell, on both axes, from that of a box.

    Args:
        ids: (B, H, W) uint8 maps of parts (`segment.scenes`).
        grid: cells a side; the cells of the parts follow each other.
    """
    small = ids[:, FINE // 2 :: FINE, FINE // 2 :: FINE]
    which = torch.arange(6 * N_PARTS, device=ids.device)  # Shapes has at most six objects
    masks = part_mask(small[:, None].expand(-1, len(which), -1, -1), which.expand(len(ids), -1))
    there = masks.flatten(2).sum(dim=2) >= _MIN_AREA
    boxes = box_of(masks)
    boxes[..., 2:] += 1
    boxes = boxes * FINE
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    far = (cell_middles(grid, ids.device) - middle[:, :, None]).abs().amax(dim=-1)  # (B, targets, cells)
    image, target, cell = ((far < STRIDE) & there[..., None]).nonzero(as_tuple=True)
    return Wanted(image, target % N_PARTS * grid**2 + cell, boxes[image, target], masks[image, target])


class FastTraining(nn.Module):
    """The training of a small FastSAM on scenes of `segment.scenes`; `net` is the model."""

    @dataclass(frozen=True)
    class Config:
        """The model and its training."""

        image_size: int = 128
        """Side of the scenes in pixels."""
        width: int = 16
        """Channels of the first map."""
        n_proto: int = 16
        """Prototypes that the masks combine."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """The training loop's settings."""

    name = "fastsam"
    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.net = FastNet(config.image_size, config.width, config.n_proto)

    def views(self, images: Tensor, generator: Generator) -> list[Tensor]:
        """(B, 4, H, W) uint8 of `SceneMasks` -> standardised pixels and maps of parts, half of them mirrored."""
        total, mine = shard_rows(len(images), generator)
        flip = (torch.rand(total, generator=generator)[mine] < 0.5).to(images.device)
        images = torch.where(flip[:, None, None, None], images.flip(-1), images)
        return [self.net.preprocess(images[:, :3]), images[:, 3]]

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """The loss, and its parts."""
        found, wanted = self.net(views[0]), assign(views[1], self.config.image_size // STRIDE)
        target = torch.zeros_like(found.scores)
        target[wanted.image, wanted.cell] = 1
        n = max(len(wanted.image), 1)
        score = sigmoid_focal(found.scores, target).sum() / n
        at = (wanted.image, wanted.cell)
        box = complete_box_iou_loss(found.boxes[at], wanted.boxes).sum() / n
        logits = torch.einsum("pk,pkhw->phw", found.coef[at], found.proto[wanted.image])
        inside = crop_to_boxes(torch.ones_like(logits), wanted.boxes / FINE)
        gt = wanted.masks.to(logits.dtype)
        entropy = F.binary_cross_entropy_with_logits(logits, gt, reduction="none") * inside
        entropy = (entropy.sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp_min(1)).sum() / n
        dice = dice_loss(logits.masked_fill(inside == 0, -1e4), gt).sum() / n
        return {"loss": score + box + entropy + dice, "score": score, "box": box, "mask": entropy + dice}


FastTraining.PRESETS = {
    "cpu": FastTraining.Config(
        train=TrainConfig(
            epochs=4, batch_size=16, optimizer="adamw", lr=0.048, weight_decay=0.01, warmup_epochs=0.3, clip_grad=5.0,
            channels_last=False, accelerator="cpu", monitor_every=10**9, checkpoint_every=250,
        )
    )
}  # fmt: skip
