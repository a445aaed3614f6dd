"""What comes out of the embedded world: scenes with every label that the methods of the course need."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

PARTS: list[str] = ["whole", "emblem", "dot"]


@dataclass(frozen=True)
class Scene:
    """One image with its labels. Objects are listed from near to far; object 0 is the one that `label` speaks of.

    Attributes:
        image: (3, H, W) uint8.
        index: number of the scene in its split.
        label: index into `Shapes.label_names`.
        kinds: (K,) int64 classes of the objects, indices into `CLASSES`; only the K objects that are there.
        boxes: (K, 4) float, x1 y1 x2 y2 in pixels around what shows of each object (x2, y2 exclusive; zeros if hidden).
        alpha: (K, H, W) float in [0, 1], the matte: which share of a pixel's colour each object gives.
        parts: (K, 3, H, W) bool, what shows of the whole, its emblem and the dot in the emblem. They are nested: a
            point on the dot is a point on all three, so one click has three right answers.
        visible: (K,) float in [0, 1], the share of each object that no nearer one hides.
        attributes: name -> scalar (of the scene or its nearest object) or (K,) tensor; indices where there are names.
        caption: one English sentence.
    """

    image: Tensor
    index: int
    label: int
    kinds: Tensor
    boxes: Tensor
    alpha: Tensor
    parts: Tensor
    visible: Tensor
    attributes: dict[str, Tensor]
    caption: str

    @property
    def masks(self) -> Tensor:
        """(K, H, W) bool instance masks: the visible whole of each object. No two overlap."""
        return self.parts[:, 0]


@dataclass(frozen=True)
class Scenes:
    """B scenes as batched tensors; K is the most objects a scene can have, absent ones have kind -1 and empty masks.

    Attributes: as in `Scene`, with a leading B: image (B, 3, H, W), index (B,), label (B,), kinds (B, K),
        boxes (B, K, 4), alpha (B, K, H, W), parts (B, K, 3, H, W), visible (B, K), attributes (B,) or (B, K) each,
        caption a list of B sentences; count (B,) is the number of objects.
    """

    image: Tensor
    index: Tensor
    label: Tensor
    count: Tensor
    kinds: Tensor
    boxes: Tensor
    alpha: Tensor
    parts: Tensor
    visible: Tensor
    attributes: dict[str, Tensor]
    caption: list[str]

    def __len__(self) -> int:
        return len(self.image)

    @property
    def masks(self) -> Tensor:
        """(B, K, H, W) bool instance masks: the visible whole of each object. No two overlap."""
        return self.parts[:, :, 0]

    def __getitem__(self, b: int) -> Scene:
        k = int(self.count[b])
        return Scene(
            image=self.image[b],
            index=int(self.index[b]),
            label=int(self.label[b]),
            kinds=self.kinds[b, :k],
            boxes=self.boxes[b, :k],
            alpha=self.alpha[b, :k],
            parts=self.parts[b, :k],
            visible=self.visible[b, :k],
            attributes={name: a[b, :k] if a.ndim > 1 else a[b] for name, a in self.attributes.items()},
            caption=self.caption[b],
        )

    def to(self, device: torch.device | str) -> "Scenes":
        """The same scenes with every tensor on `device`."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in moved.items():
            if isinstance(value, Tensor):
                moved[name] = value.to(device)
        moved["attributes"] = {name: a.to(device) for name, a in self.attributes.items()}
        return Scenes(**moved)


def boxes_of(masks: Tensor) -> Tensor:
    """Tight boxes (..., 4) float x1 y1 x2 y2 of masks (..., H, W) bool; x2, y2 exclusive; zeros for an empty mask."""
    h, w = masks.shape[-2:]
    rows, cols = masks.any(-1).int(), masks.any(-2).int()
    x1, y1 = cols.argmax(-1), rows.argmax(-1)
    x2, y2 = w - cols.flip(-1).argmax(-1), h - rows.flip(-1).argmax(-1)
    box = torch.stack([x1, y1, x2, y2], -1).float()
    return box * masks.flatten(-2).any(-1)[..., None]
