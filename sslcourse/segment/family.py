"""How the relatives of a trained SAM learn from it: MobileSAM's small encoder, HQ-SAM's sharper masks.

MobileSAM (Zhang et al. 2023, section 3.2): the encoder alone is distilled, since a decoder that is trained along
(coupled) has to chase an encoder that changes. HQ-SAM (Ke et al. 2023, section 3): SAM is frozen, and the new token
learns cross entropy + dice on points, most of them where the mask is uncertain.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from sslcourse.data.rng import shard_rows
from sslcourse.errors import InputError
from sslcourse.segment.build import build_tiny_sam
from sslcourse.segment.hq import HQ_PARTS, HQMaskDecoder, HQSam
from sslcourse.segment.losses import n_fresh, point_losses, uncertain_points
from sslcourse.segment.sam import Sam
from sslcourse.segment.tiny_vit import decoupled_distill
from sslcourse.segment.training import SamTraining
from sslcourse.train.config import TrainConfig


class MobileTraining(nn.Module):
    """A TinyViT learns to give the embeddings of a trained SAM; `sam` is the result, with the teacher's decoder."""

    @dataclass(frozen=True)
    class Config:
        """What is distilled; the sizes are those of the teacher."""

        image_size: int = 128
        """Side of the scenes in pixels."""
        dim: int = 64
        """Width of the image embedding."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """The training loop's settings."""

    name = "mobilesam"
    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config, teacher: Sam) -> None:
        super().__init__()
        self.config = config
        self.sam = build_tiny_sam(config.image_size, config.dim, encoder="mobile")
        self.sam.prompt_encoder.load_state_dict(teacher.prompt_encoder.state_dict())
        self.sam.mask_decoder.load_state_dict(teacher.mask_decoder.state_dict())
        for part in (self.sam.prompt_encoder, self.sam.mask_decoder):
            part.requires_grad_(False)
        self.teacher = (teacher.requires_grad_(False).eval(),)  # in a tuple: no part of the module and its checkpoint

    def views(self, images: Tensor, generator: Generator) -> list[Tensor]:
        """(B, 3 or 4, H, W) uint8, of which the colours count -> standardised pixels, half of them mirrored."""
        total, mine = shard_rows(len(images), generator)
        flip = (torch.rand(total, generator=generator)[mine] < 0.5).to(images.device)
        return [self.sam.preprocess(torch.where(flip[:, None, None, None], images.flip(-1), images)[:, :3])]

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        teacher = self.teacher[0].to(views[0].device)
        return {"loss": decoupled_distill(self.sam.image_encoder, teacher.image_encoder, views[0])}


class HQTraining(SamTraining):
    """The HQ token of a frozen SAM learns sharp masks; `sam` is the result."""

    name = "hqsam"

    def __init__(self, config: SamTraining.Config, teacher: Sam) -> None:
        super().__init__(config)
        model = build_tiny_sam(config.image_size, config.dim, encoder=config.encoder, hq=True)
        assert isinstance(model, HQSam)
        own, known = model.state_dict(), teacher.state_dict()
        new = {key for key in own if key.removeprefix("mask_decoder.").partition(".")[0] in HQ_PARTS}
        if {k: v.shape for k, v in own.items() if k not in new} != {k: v.shape for k, v in known.items()}:
            raise InputError("the SAM to be sharpened has other parts or sizes than the HQ-SAM that is built.")
        model.load_state_dict(known, strict=False)
        model.train_hq_only()
        self.sam = model

    def train(self, mode: bool = True) -> "HQTraining":
        """As `nn.Module.train`, but the statistics of a frozen encoder stay what they are."""
        super().train(mode)
        self.sam.image_encoder.eval()
        return self

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """The loss of the HQ mask for the first prompts; points are drawn from the numbers of `views`."""
        pixels, ids, numbers = views
        given = self.prompts(ids, numbers)
        decoder, encoder = self.sam.mask_decoder, self.sam.prompt_encoder
        assert isinstance(decoder, HQMaskDecoder)
        with torch.no_grad():
            embedding = self.sam.encode(pixels)
        some = embedding[given.image]
        sparse, dense = encoder.embed_points(given.points, given.labels), encoder()[1]
        _, hq, _ = decoder.predict_all_hq(some.image, some.early, encoder.dense_pe(), sparse, dense)
        target = given.soft[:, None]
        n = target.shape[-1] ** 2 // 4
        seed = Generator().manual_seed(int(numbers[0, 0, 0] * 2**31))
        candidates = torch.rand(len(hq), 3 * n, 2, generator=seed).to(hq.device)
        fresh = torch.rand(len(hq), n_fresh(n), 2, generator=seed).to(hq.device)
        losses = point_losses(hq, target, uncertain_points(hq, candidates, fresh, n))
        return {"loss": losses.cross_entropy + losses.dice}


_CPU = SamTraining.PRESETS["cpu"]
MobileTraining.PRESETS = {"cpu": MobileTraining.Config(train=_CPU.train)}
HQTraining.PRESETS = {"cpu": replace(_CPU, rounds=1, train=replace(_CPU.train, epochs=2))}
