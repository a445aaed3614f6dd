"""Unmasked Teacher: a video network sees what an image network looks at, and agrees with it there.

Li, Wang, Li, Wang, He, Wang, Qiao 2023, "Unmasked teacher: towards training-efficient video foundation models",
arXiv:2303.16058, section 3.2:

    for a batch of clips:
        one crop and flip a clip, and numbers for the race below                            -> `views`
        the frozen teacher sees every frame: its attention, and features of its last layers -> `teacher`
        in every frame a fifth of the places stays, drawn by the teacher's attention        -> `forward`
        the student attends over all places that stay, of all frames together               -> `backbone`
        loss = mean squared distance of unit vectors, layer by layer                        -> `forward`

Nothing is painted: places that do not stay cost nothing.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcourse.data.augment import Augment
from sslcourse.data.clips import clip_view
from sslcourse.data.masks import hidden_count, umt_semantic_mask
from sslcourse.data.rng import shard_rows
from sslcourse.errors import InputError
from sslcourse.losses.masked import umt_align_loss
from sslcourse.methods.mae import VIEW
from sslcourse.methods.videomae import ADAMW
from sslcourse.nn.patches import keep_visible
from sslcourse.nn.positions import sinusoid
from sslcourse.nn.teachers import Teacher, teacher_of
from sslcourse.nn.video_vit import VideoViT, video_vit
from sslcourse.train.config import TrainConfig


class UnmaskedTeacher(nn.Module):
    """Unmasked Teacher with a ViT for clips.

    Attributes:
        backbone: the student, what is kept.
        teacher: frozen; see sslcourse.nn.teachers.
        heads: of each aligned layer, a linear layer to the teacher's width and a norm.
    """

    name: ClassVar[str] = "unmasked_teacher"
    stand_in: ClassVar[str] = "CLIP, whose place gradients and HOG take"  # the paper's teacher

    @dataclass(frozen=True)
    class Config:
        """Settings of Unmasked Teacher."""

        backbone: str = "vit_base_patch16"
        """Sizes of the student, those of a ViT; see sslcourse.nn.backbones."""
        teacher: str = ""
        """The teacher, CLIP in the paper: a run folder, or weights of the repository by name; empty: gradients and HOG
        stand in for one."""
        frames: int = 8
        """Frames of a clip."""
        stride: int = 4
        """Frames of a video from one of a clip to the next; clips of Shapes have stride 1."""
        ratio: float = 0.8
        """Part of the places that is left out."""
        layers: int = 6
        """How many last layers of both are aligned."""
        augment: Augment = field(default_factory=lambda: replace(VIEW, scale=(0.5, 1.0)))
        """The random crop and flip; its size is the side of the frames that the network sees."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """Length, optimiser and device of the training."""

    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, encoder: VideoViT | None = None, teacher: Teacher | None = None) -> None:
        """`encoder` and `teacher` take the places of those that `config` names."""
        super().__init__()
        self.config, size = config, config.augment.size
        self.backbone = encoder or video_vit(config.backbone, size, config.frames, 1)
        self.teacher = (teacher or teacher_of(config.teacher, self.backbone.stride)).requires_grad_(False)
        width, out = self.backbone.num_features, self.teacher.width
        if not 1 <= config.layers <= len(self.backbone.blocks) or hidden_count(100, config.ratio) >= 100:
            raise InputError(
                f"unmasked_teacher aligns 1 to {len(self.backbone.blocks)} layers and keeps some places; got "
                f"layers={config.layers}, ratio={config.ratio}."
            )
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, out), nn.LayerNorm(out, eps=1e-6)) for _ in range(config.layers)
        )

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Clips (B, 3, T, H, W) uint8 -> views (B, 3, T, size, size), exponential numbers (B, T, N) for the race."""
        x = clip_view(images, self.config.augment, generator, frames=self.config.frames)
        total, mine = shard_rows(len(x), generator)
        places = (x.shape[3] // self.backbone.stride) * (x.shape[4] // self.backbone.stride)
        race = torch.empty(total, x.shape[2], places).exponential_(generator=generator)[mine]
        return [x, race.to(x.device)]

    def ask(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's attention (B, T, N) and features (K, B, T * N, C) for clips (B, 3, T, H, W)."""
        b, _, t, h, w = x.shape
        frames = x.transpose(1, 2).flatten(0, 1)
        if self.teacher.stride != self.backbone.stride:  # at the size at which its patches are ours
            side = [n // self.backbone.stride * self.teacher.stride for n in (h, w)]
            frames = F.interpolate(frames, side, mode="bicubic")
        self.teacher.eval()
        look, features = self.teacher(frames, self.config.layers)
        return look.unflatten(0, (b, t)), features.unflatten(1, (b, t)).flatten(2, 3)

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Loss of a batch; "mask" (B, T * N) bool, True = left out."""
        x, race = views
        look, features = self.ask(x)
        mask = umt_semantic_mask(look, self.config.ratio, race).flatten(1)
        tokens = self.backbone.layers(self.backbone.embed(x, mask), self.config.layers)
        pos = sinusoid(mask.shape[1], tokens[0].shape[-1]).to(tokens[0])[None].expand(len(x), -1, -1)
        pos = keep_visible(pos, mask)  # the published code adds positions once more before the heads
        student = torch.stack([head(out + pos) for head, out in zip(self.heads, tokens, strict=True)])
        told = torch.stack([keep_visible(layer, mask) for layer in features])
        loss = umt_align_loss(student, told)
        return {"loss": loss, "embedding": tokens[-1].mean(dim=1), "pred": student, "target": told, "mask": mask}


# Appendix: AdamW (0.9, 0.95), lr 1.5e-4 x batch / 256, weight decay 0.05, 40 of 200 epochs of warm-up.
_ADAMW = replace(ADAMW, epochs=200, batch_size=2048)
UnmaskedTeacher.PRESETS = {
    # For clips of `Shapes`, 8 frames of 32 px, on a CPU.
    "cpu": UnmaskedTeacher.Config(
        "vit_mini_patch8",
        stride=1,
        layers=2,
        augment=replace(VIEW, size=32, scale=(0.6, 1.0), flip=0.0),
        train=replace(_ADAMW, epochs=100, steps=800, batch_size=32, lr=8e-3, warmup_epochs=1),
    ),
    "kinetics_vit_base": UnmaskedTeacher.Config(train=_ADAMW),
}
