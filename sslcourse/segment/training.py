r"""How a promptable segmenter learns: a first prompt, then clicks on its own errors.

Kirillov et al. 2023, "Segment Anything", appendix A ("Training algorithm"). Every image gives several objects; each is
prompted by a point in it or by a box with noise. After every answer a pixel is clicked that is still wrong, and the
model is shown its last mask beside the clicks. Half of these clicks are pixels drawn among all that are wrong, the
other half the middle of the largest error, where an annotator would click, and where evaluation does (RITM, Sofiiuk et
al. 2022, section 4.3):

    mask_0 = decode(prompt)                             one point: three masks, of which the best learns
    mask_r = decode(prompt + clicks on errors(mask_{r-1}), mask_{r-1})        no doubt left: one mask
    loss   = sum over r of   20 focal + dice + (predicted IoU - IoU)^2

The sum is estimated: of the answers behind the first, one learns in every batch, which one is drawn, and those that
lead to it are given without a gradient, at a third of the price. Sometimes no click is made: then the model is to keep
and smooth what it is shown, as in SAM's two last answers of eleven.

`SamTraining` goes through the one training loop: `fit(SamTraining(config), scenes, config, folder)`.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from sslcourse.data.rng import shard_rows
from sslcourse.segment.build import build_tiny_sam
from sslcourse.segment.clicks import center_click, jittered_box, one_click
from sslcourse.segment.losses import focal_dice, min_over_masks
from sslcourse.segment.prompts import BOTTOM_RIGHT, INCLUDE, PADDING, TOP_LEFT
from sslcourse.segment.sam import Sam
from sslcourse.segment.scenes import N_PARTS, part_mask
from sslcourse.train.config import TrainConfig


@dataclass(frozen=True)
class Prompted:
    """N objects to segment: their images, first prompts and masks at the decoder's resolution."""

    image: Tensor  # (N,) int64, which image of the batch
    points: Tensor  # (N, 2, 2) x y in pixels: a point and padding, or the corners of a box
    labels: Tensor  # (N, 2)
    soft: Tensor  # (N, s, s) float, the share of each cell that is in the mask
    full: Tensor  # (N, H, W) bool, the masks themselves


class SamTraining(nn.Module):
    """A tiny SAM and its training; `sam` is the model. Scenes come from `segment.scenes`."""

    @dataclass(frozen=True)
    class Config:
        """What is learned from every scene."""

        image_size: int = 128
        """Side of the scenes in pixels."""
        dim: int = 64
        """Width of the prompts, the decoder and the image embedding."""
        encoder: Literal["vit", "conv"] = "vit"
        """SAM's vision transformer, or a convolutional network, which learns faster from little."""
        prompts: int = 8
        """Objects of every scene that are prompted, half by a point, half by a box."""
        rounds: int = 3
        """Most answers to a prompt; from the second on, each follows a click on an error."""
        quiet: float = 0.0
        """How often a later answer follows no click, but only the mask of the one before."""
        centered: float = 0.0
        """Share of the clicks on errors that go to the middle of the largest one, as an annotator's; the others go to
        any pixel that is wrong."""
        share: tuple[float, float, float] = (0.5, 0.3, 0.2)
        """How often wholes, emblems and dots are asked for."""
        relax: float = 0.05
        """Weight of the mean loss of the three masks beside the best one's: no head stays without a gradient."""
        min_area: int = 4
        """Parts that cover fewer cells of the decoder's output are not asked for."""
        train: TrainConfig = field(default_factory=TrainConfig)
        """The training loop's settings."""

    name = "sam"
    PRESETS: ClassVar[dict[str, Config]]

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.sam: Sam = build_tiny_sam(config.image_size, config.dim, encoder=config.encoder)

    def views(self, images: Tensor, generator: Generator) -> list[Tensor]:
        """(B, 4, H, W) uint8 of `SceneMasks` -> standardised pixels, maps of parts, (B, P, ...) uniform numbers."""
        total, mine = shard_rows(len(images), generator)
        n_targets = 6 * N_PARTS  # Shapes has at most six objects
        numbers = torch.rand(total, self.config.prompts, n_targets + 6 + self.config.rounds, generator=generator)[mine]
        flip = torch.rand(total, generator=generator)[mine] < 0.5
        numbers, flip = numbers.to(images.device), flip.to(images.device)
        images = torch.where(flip[:, None, None, None], images.flip(-1), images)
        return [self.sam.preprocess(images[:, :3]), images[:, 3], numbers]

    def prompts(self, ids: Tensor, numbers: Tensor) -> Prompted:
        """First prompts: (B, H, W) maps of parts and the uniform numbers of `views`; the points come first."""
        config, (b, p, _) = self.config, numbers.shape
        side, n_targets = 4 * self.sam.prompt_encoder.grid, 6 * N_PARTS
        cell = ids.shape[-1] // side
        which = torch.arange(n_targets, device=ids.device)
        small = ids[:, None, cell // 2 :: cell, cell // 2 :: cell]
        there = part_mask(small.expand(-1, n_targets, -1, -1), which.expand(b, -1))
        there = there.flatten(2).sum(dim=2) >= config.min_area  # (B, targets)
        weight = torch.tensor(config.share, device=ids.device)[which % N_PARTS]
        race = -numbers[..., :n_targets].clamp_min(1e-9).log() / weight  # the first arrival is drawn by weight
        target = race.masked_fill(~there[:, None], torch.inf).argmin(dim=2)  # (B, P)
        numbers = numbers[..., n_targets:]
        # A click on an inner part may mean an outer one: that is the ambiguity.
        deeper = target % N_PARTS + ((N_PARTS - target % N_PARTS) * numbers[..., 0]).long().clamp_max(N_PARTS - 1)
        inner = target // N_PARTS * N_PARTS + deeper.clamp_max(N_PARTS - 1)
        inner = torch.where(there.gather(1, inner), inner, target)
        full = part_mask(ids[:, None].expand(-1, p, -1, -1), target).flatten(0, 1)
        clicked = part_mask(small.expand(-1, p, -1, -1), inner).flatten(0, 1)
        numbers = numbers.flatten(0, 1)
        point = to_pixels(one_click(clicked, None, numbers[:, 1])[0], cell)
        boxed = (torch.arange(b * p, device=ids.device) % 2 == 1)[:, None]
        box = jittered_box(full, numbers[:, 2:6]).view(-1, 2, 2)
        points = torch.where(boxed[..., None], box, torch.cat([point, torch.zeros_like(point)], dim=1))
        corners, alone = (
            ids.new_tensor([TOP_LEFT, BOTTOM_RIGHT]).long(),
            torch.tensor([INCLUDE, PADDING]).to(ids.device),
        )
        labels = torch.where(boxed, corners, alone)
        order = boxed[:, 0].long().argsort(stable=True)
        image = torch.arange(b, device=ids.device).repeat_interleave(p)
        soft = F.avg_pool2d(full.float()[:, None], cell)[:, 0]
        return Prompted(image[order], points[order], labels[order], soft[order], full[order])

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:
        """The loss, its first and last round, and the mean IoU of the last answers."""
        pixels, ids, numbers = views
        given = self.prompts(ids, numbers)
        clicks = numbers[..., -self.config.rounds :].flatten(0, 1)
        embedding = self.sam.encode(pixels).image[given.image]
        points, labels, gt = given.points, given.labels, given.soft > 0.5
        single = labels[:, 0] != INCLUDE
        masks, iou = self.answer(embedding, points, labels, None)
        first = last = self._first_loss(masks, iou, given.soft, single)
        best = torch.where(single, 0, iou[:, 1:].argmax(dim=1) + 1)
        shown = masks[torch.arange(len(masks)), best][:, None].detach()
        learns = 1 + int(clicks[0, 0] * (self.config.rounds - 1))
        for r in range(1, min(learns + 1, self.config.rounds)):
            seen = F.interpolate(shown, given.full.shape[-2:], mode="bilinear", align_corners=False)
            place, label = self._click(given.full, seen[:, 0] > 0, clicks[:, r])
            points = torch.cat([points, place], dim=1)
            labels = torch.cat([labels, label], dim=1)
            with torch.set_grad_enabled(r == learns and torch.is_grad_enabled()):
                masks, iou = self.answer(embedding, points, labels, shown)
            if r == learns:
                last = min_over_masks(masks[:, :1], given.soft, iou[:, :1])
            shown = masks[:, :1].detach()
        hit = ((shown[:, 0] > 0) & gt).flatten(1).sum(dim=1)
        union = ((shown[:, 0] > 0) | gt).flatten(1).sum(dim=1).clamp_min(1)
        loss = first + last if self.config.rounds > 1 else first
        return {"loss": loss, "first": first, "last": last, "iou": (hit / union).mean()}

    def _click(self, gt: Tensor, pred: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """A click on an error of (N, H, W) masks. One number (N,) in [0, 1) says which: none (a padding point) below
        `quiet`, then the middle of the largest error for the share `centered` of the rest, then any wrong pixel."""
        quiet, centered = self.config.quiet, self.config.centered
        left = ((uniform - quiet) / (1 - quiet)).clamp_min(0)
        middle = left < centered
        place, label = one_click(gt, pred, ((left - centered) / max(1 - centered, 1e-6)).clamp(0, 1))
        if bool(middle.any()):
            place[middle], label[middle] = center_click(gt[middle], pred[middle])
        return place, label.masked_fill((uniform < quiet)[:, None], PADDING)

    def answer(self, image: Tensor, points: Tensor, labels: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """All masks (N, 4, s, s) and their predicted IoU (N, 4)."""
        encoder = self.sam.prompt_encoder
        dense = encoder()[1] if mask is None else encoder.embed_masks(mask)
        return self.sam.mask_decoder.predict_all(image, encoder.dense_pe(), encoder.embed_points(points, labels), dense)

    def _first_loss(self, masks: Tensor, iou: Tensor, soft: Tensor, single: Tensor) -> Tensor:
        """One point: the best of three masks learns, all a little. A box: mask 0 learns."""
        several, gt = masks[~single, 1:], soft[~single]
        ambiguous = min_over_masks(several, gt, iou[~single, 1:])
        ambiguous = ambiguous + self.config.relax * focal_dice(several, gt[:, None])
        sure = min_over_masks(masks[single, :1], soft[single], iou[single, :1])
        share = single.float().mean()
        return (1 - share) * ambiguous + share * sure


def to_pixels(cells: Tensor, cell: int) -> Tensor:
    """Places of cells of the decoder's output to the pixels of the model's input in their middle."""
    return (cells + 0.5) * cell - 0.5


_CPU = TrainConfig(
    epochs=6, batch_size=8, optimizer="adamw", lr=0.032, weight_decay=0.01, warmup_epochs=0.2, clip_grad=1.0,
    channels_last=False, accelerator="cpu", monitor_every=10**9, checkpoint_every=250,
)  # fmt: skip
_CLICKS = SamTraining.Config(
    encoder="conv",
    prompts=6,
    rounds=4,
    quiet=0.1,
    share=(0.45, 0.35, 0.2),
    train=replace(_CPU, lr=0.016, final_lr=0.0132, warmup_epochs=0.05, steps=275),
)
SamTraining.PRESETS = {
    # Three legs of one training (`segment.train`): six times over 2,000 scenes of 128 px with one correction; then, on
    # other scenes, up to three corrections at a high learning rate, which falls in the last leg.
    "cpu": SamTraining.Config(encoder="conv", prompts=6, rounds=2, train=_CPU),
    "cpu_clicks": _CLICKS,
    "cpu_clicks_end": replace(
        _CLICKS, train=replace(_CLICKS.train, lr=0.0137, final_lr=0.0, warmup_epochs=0.0, steps=240)
    ),
}
