"""How the small text-to-box model learns: scenes with the names of their objects, and every name there is as text."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torchvision.ops import complete_box_iou_loss

from sslcourse.data.rng import shard_rows
from sslcourse.data.shapes import CLASSES, COLOURS, Shapes
from sslcourse.errors import InputError
from sslcourse.methods.clip import CLIP
from sslcourse.segment.losses import sigmoid_focal
from sslcourse.segment.mask_prompts import box_of
from sslcourse.segment.masks import to_xyxy
from sslcourse.segment.scenes import N_PARTS, SceneMasks, pack_scenes, part_mask
from sslcourse.segment.text_to_box import TextToBox
from sslcourse.train.config import TrainConfig

# "red disc" for every colour and kind, then "disc" for every kind.
NAMES = [f"{colour} {kind}" for colour in COLOURS for kind in CLASSES] + list(CLASSES)
_AT_ONCE = 64


@dataclass(frozen=True)
class NamedScenes(SceneMasks):
    """`SceneMasks` with the number of every object's name among `NAMES`: (N, K) int64, -1 where there is no object."""

    names: Tensor


def draw_named(n: int, split: str = "train", size: int = 128, start: int = 0) -> NamedScenes:
    """`n` captioned scenes of `Shapes` with masks and names; the same ones for ever."""
    world = Shapes(split, size, preset="captions")
    images, names = [], []
    for i in range(start, start + n, _AT_ONCE):
        drawn = world.batch(range(i, min(i + _AT_ONCE, start + n)))
        images.append(pack_scenes(drawn))
        name = drawn.attributes["colour"] * len(CLASSES) + drawn.kinds
        names.append(name.masked_fill(drawn.kinds < 0, -1))
    return NamedScenes(torch.cat(images), world.settings.objects[1], torch.cat(names))


def owners(ids: Tensor, n_objects: int, grid: int) -> tuple[Tensor, Tensor]:
    """Which object a query answers for, (B, Q) int64 or -1, and the boxes of all, (B, K, 4) x1 y1 x2 y2 in pixels.

    A query answers for the object that covers the middle of its cell, as in FCOS (Tian et al. 2019).
    """
    which = torch.arange(n_objects, device=ids.device) * N_PARTS
    boxes = box_of(part_mask(ids[:, None].expand(-1, n_objects, -1, -1), which.expand(len(ids), -1)))
    boxes[..., 2:] += 1
    cell = ids.shape[-1] // grid
    middle = ids[:, cell // 2 :: cell, cell // 2 :: cell].flatten(1).long()
    return torch.where(middle > 0, (middle - 1) // N_PARTS, -1), boxes


class GroundedTraining(nn.Module):
    """The training of a `TextToBox`; `net` is the model."""

    @dataclass(frozen=True)
    class Config:
        """The model and its training."""

        image_size: int = 128
        """Side of the scenes in pixels."""
        dim: int = 64
        """Width of the space that queries and tokens share."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """The training loop's settings."""

    name = "grounded"
    uses: ClassVar[tuple[str, ...]] = ("indices",)
    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, clip: CLIP) -> None:
        super().__init__()
        self.config = config
        self.net = TextToBox(clip, config.image_size, config.dim)
        self.tokens = self.net.read(NAMES)
        self.names = torch.zeros(0, 0, dtype=torch.long)

    def prepare(self, data: NamedScenes) -> None:
        """Remember what the objects are called."""
        if not isinstance(data, NamedScenes):
            raise InputError("the text-to-box model learns from draw_named(n): scenes whose objects have names.")
        self.names = data.names

    def views(self, images: Tensor, generator: Generator) -> list[Tensor]:
        """(B, 4, H, W) uint8 -> CLIP's features and the maps of parts, of half of the images mirrored."""
        total, mine = shard_rows(len(images), generator)
        flip = (torch.rand(total, generator=generator)[mine] < 0.5).to(images.device)
        images = torch.where(flip[:, None, None, None], images.flip(-1), images)
        return [self.net.features(images[:, :3]), images[:, 3]]

    def forward(self, views: list[Tensor], indices: Tensor) -> dict[str, Tensor]:
        """Focal loss of all queries and tokens, complete IoU of the boxes of the queries that answer for an object."""
        names = self.names.to(indices.device)[indices]
        logits, boxes = self.net(views[0], self.tokens.features.to(indices.device))
        owner, true = owners(views[1], names.shape[1], self.net.grid)
        there = owner >= 0
        name = names.gather(1, owner.clamp_min(0))  # (B, Q)
        target = matches(name, self.tokens.phrase.to(name.device)) & there[..., None]
        n = there.sum().clamp_min(1)
        match = sigmoid_focal(logits, target).sum() / n
        image, _ = at = there.nonzero(as_tuple=True)
        found = to_xyxy(boxes[at]) * self.config.image_size
        box = complete_box_iou_loss(found, true[image, owner[at]]).sum() / n
        return {"loss": match + box, "match": match, "box": box}


def matches(name: Tensor, phrase: Tensor) -> Tensor:
    """Whether tokens of phrases (T,) fit objects of a name (...), both numbers among `NAMES`: (..., T) bool."""
    n_kinds = len(CLASSES)
    kind = name % n_kinds + len(NAMES) - n_kinds
    return (name[..., None] == phrase) | (kind[..., None] == phrase)


GroundedTraining.PRESETS = {
    "cpu": GroundedTraining.Config(
        train=TrainConfig(
            epochs=8, batch_size=16, optimizer="adamw", lr=0.032, weight_decay=0.01, warmup_epochs=0.3, clip_grad=5.0,
            channels_last=False, accelerator="cpu", monitor_every=10**9, checkpoint_every=250,
        )
    )
}  # fmt: skip
