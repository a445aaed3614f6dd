"""Video: what happens in a clip, is it anything known, when does it happen, and where?

The clips of `Shapes` answer all four: every object moves in one of eight ways. A frame encoder sees motion only as a
change of its features, so a clip is described by the mean of its maps and by the difference of its last and its first
third, on a grid of 3 x 3 (motion that leaves no trace on that grid is missed, by design: it is a probe).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcourse.data.rng import mix, step_generator
from sslcourse.data.shapes import MOTIONS, Clips, Shapes
from sslcourse.data.shapes.scene import boxes_of
from sslcourse.errors import InputError, unknown
from sslcourse.evaluate.encoder import Encoder
from sslcourse.evaluate.linear import LinearProbe, fit_linear
from sslcourse.evaluate.localisation import Found, Truth, localisation_result, run_lengths, segment_iou, tube_iou
from sslcourse.evaluate.result import Result, accuracy, mean_result

GRID = 3
# Of every motion: signs of the movement along x and y, of the turn, and of the growth.
ATTRIBUTES = torch.tensor([
    [-1, 0, 0, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, -1, 0], [0, 0, 0, 1], [0, 0, 0, -1],
]).float()  # fmt: skip
UNSEEN = ("right", "down", "anticlockwise", "shrink")  # each the opposite of one that is seen
L2 = (1e-4, 1e-2, 1.0)
PLACES = 20_000  # places of training clips that the probe for tubes is fitted on


def clip_features(encoder: Encoder, video: Tensor, *, grid: int = GRID) -> Tensor:
    """(B, 2 D grid^2) features of clips (B, 3, T, H, W) uint8, from the maps of their frames.

    A backbone with `forward_clip`, (B, 3, T, H, W) float -> (B, D), is asked directly instead.
    """
    if video.ndim != 5 or video.dtype != torch.uint8 or video.shape[2] < 3:
        raise InputError(f"Clips are (B, 3, T, H, W) uint8 with T >= 3; got {video.dtype} {tuple(video.shape)}.")
    if hasattr(encoder.backbone, "forward_clip"):
        return encoder.clips(video)
    pooled = frame_features(encoder, video, grid=grid)  # (B, T, D grid^2)
    third = max(1, video.shape[2] // 3)
    change = pooled[:, -third:].mean(dim=1) - pooled[:, :third].mean(dim=1)
    return torch.cat([pooled.mean(dim=1), change], dim=1)


def frame_features(encoder: Encoder, video: Tensor, *, grid: int = GRID) -> Tensor:
    """(B, T, D grid^2) features of every frame of (B, 3, T, H, W) uint8: the map, pooled to a grid."""
    b = len(video)
    frames = video.transpose(1, 2).flatten(0, 1)
    pooled = [F.adaptive_avg_pool2d(encoder.maps(part), grid).flatten(1) for part in frames.split(1024)]
    return torch.cat(pooled).unflatten(0, (b, -1))


def action_recognition(encoder: Encoder, train: Clips, test: Clips, *, seed: int = 0) -> Result:
    """Accuracy of a linear probe on `clip_features` for what the nearest object does."""
    probe = fit_linear(clip_features(encoder, train.video), train.motion, n_cls=len(MOTIONS), sweep=L2, seed=seed)
    scores = probe(clip_features(encoder, test.video))
    return accuracy("action", scores, test.motion, {"protocol": "action", **probe.detail})


def zero_shot(features: Tensor, classes: Tensor, labels: Tensor) -> Result:
    """Accuracy without a training label: the class whose embedding (of its name, say) is most similar.

    Args:
        features: (N, D) of images or clips; classes: (C, D) in the same space; cosine similarity.
        labels: (N,) int64.
    """
    if features.ndim != 2 or classes.ndim != 2 or features.shape[1] != classes.shape[1] or not len(features):
        raise InputError(f"zero_shot compares (N, D) with (C, D); got {(*features.shape,)} and {(*classes.shape,)}.")
    scores = F.normalize(features, dim=1) @ F.normalize(classes, dim=1).T
    return accuracy("zero_shot", scores, labels, {"protocol": "zero_shot", "n_classes": len(classes)})


def zero_shot_actions(
    encoder: Encoder, train: Clips, test: Clips, *, unseen: Sequence[str] = UNSEEN, l2: float = 1.0, seed: int = 0
) -> Result:
    """Accuracy on motions of which no clip was trained on, known only by their attributes.

    A ridge regression reads the attributes (movement along x and y, turn, growth) from `clip_features` of the other
    motions; a test clip of an unseen one goes to the unseen motion whose attributes are most similar (direct attribute
    prediction, Lampert et al. 2009; scored by `zero_shot`). `detail` has the accuracy with all motions to choose from,
    and the chance level.

    Args:
        unseen: names of `MOTIONS` that are kept out of the training.
        l2: strength of the ridge, relative to the number of clips; features are standardised.
    """
    for name in unseen:
        if name not in MOTIONS:
            raise unknown("motion", name, MOTIONS)
    held_out = torch.tensor([MOTIONS.index(name) for name in unseen], dtype=torch.long)
    kept = ~torch.isin(train.motion, held_out)
    asked = torch.isin(test.motion, held_out)
    if len(held_out) < 2 or not bool(kept.any()) or not bool(asked.any()):
        raise InputError("Zero-shot recognition needs two unseen motions, clips of others to train on, and test clips.")
    predicted = _ridge(
        clip_features(encoder, train.video[kept]),
        ATTRIBUTES[train.motion[kept]],
        clip_features(encoder, test.video[asked]),
        l2,
    )
    truth = test.motion[asked]
    place = torch.full((len(MOTIONS),), -1).scatter_(0, held_out, torch.arange(len(held_out)))
    result = zero_shot(predicted, ATTRIBUTES[held_out], place[truth])
    among_all = zero_shot(predicted, ATTRIBUTES, truth).value
    detail = {"protocol": "zero_shot", "unseen": list(unseen), "l2": l2, "among_all": among_all, "seed": seed}
    return replace(result, detail=result.detail | detail | {"chance": 1 / len(held_out)})


def open_set(encoder: Encoder, train: Clips, test: Clips, *, known: int = 6, seed: int = 0) -> Result:
    """AUROC of the largest probability: do clips of known motions get a higher one than clips of the others?

    Hendrycks and Gimpel 2017, "A baseline for detecting misclassified and out-of-distribution examples". The interval
    is over the clips; `detail` has the accuracy on known motions.

    Args:
        known: the probe is fitted on the first so many motions; the rest appears in the test clips only.
    """
    if not 2 <= known < len(MOTIONS):
        raise InputError(f"open_set needs 2 to {len(MOTIONS) - 1} known motions; got {known}.")
    kept = train.motion < known
    probe = fit_linear(clip_features(encoder, train.video[kept]), train.motion[kept], n_cls=known, sweep=L2, seed=seed)
    scores = probe(clip_features(encoder, test.video)).softmax(dim=1)
    confidence, seen = scores.amax(dim=1).double(), test.motion < known
    if not bool(seen.any()) or bool(seen.all()):
        raise InputError("open_set needs test clips of known and of unknown motions.")
    closed = (scores[seen].argmax(dim=1) == test.motion[seen]).double().mean().item()
    # A known clip's part in the AUROC: the share of unknown clips with less confidence. The interval resamples these.
    wins = _share_below(confidence[seen], confidence[~seen])
    detail = {"protocol": "open_set", "known": known, "closed_accuracy": closed, "n_unknown": int((~seen).sum())}
    return mean_result("open_set", wins, "clips", detail | {"seed": seed}, seed=seed)


@dataclass(frozen=True)
class Untrimmed:
    """Longer clips in which the motion fills only some frames; before and after it the scene stands still.

    Attributes:
        video: (B, 3, T, H, W) uint8, with sensor noise, so that a still scene is no constant.
        start, end: (B,) int64, the frames of the motion are start .. end - 1.
        motion: (B,) int64.
    """

    video: Tensor
    start: Tensor
    end: Tensor
    motion: Tensor

    def __len__(self) -> int:
        return len(self.video)

    @property
    def frame_labels(self) -> Tensor:
        """(B, T) int64: 0 where nothing moves, 1 + motion where it does."""
        t = torch.arange(self.video.shape[2])
        inside = (t >= self.start[:, None]) & (t < self.end[:, None])
        return torch.where(inside, self.motion[:, None] + 1, 0)


def untrimmed(clips: Clips, *, frames: int = 24, noise: float = 3.0, seed: int = 0) -> Untrimmed:
    """Clips put somewhere into still ones of `frames` frames, with noise of so many grey levels."""
    b, _, length, _, _ = clips.video.shape
    if frames <= length:
        raise InputError(f"untrimmed needs more than the {length} frames of the clips; got {frames}.")
    start = torch.randint(frames - length + 1, (b,), generator=step_generator(seed, 0))
    at = (torch.arange(frames) - start[:, None]).clamp(0, length - 1)  # (B, frames): which frame of the clip shows
    video = torch.stack([clip[:, index] for clip, index in zip(clips.video.cpu(), at, strict=True)])
    grain = noise * torch.randn(video.shape, generator=step_generator(seed, 1))
    return Untrimmed((video + grain).round().clamp(0, 255).to(torch.uint8), start, start + length, clips.motion.cpu())


def temporal_localisation(
    encoder: Encoder, train: Untrimmed, test: Untrimmed, *, iou: float = 0.5, seed: int = 0
) -> Result:
    """mAP of the found segments: which motion, from which frame to which? (tIoU of at least `iou`; ActivityNet)

    A linear probe names every frame by how its features change around it; runs of one motion are segments, scored by
    their mean probability.
    """
    probe = fit_linear(*_frames(encoder, train), n_cls=len(MOTIONS) + 1, sweep=(1e-2,), seed=seed)
    x, _ = _frames(encoder, test)
    probability = probe(x).softmax(dim=1).unflatten(0, (len(test), -1))
    found = []
    for clip, p in enumerate(probability):
        for start, end, label in run_lengths(p.argmax(dim=1)):
            if label:
                score = p[start:end, label].mean().item()
                found.append(Found(clip, label - 1, score, torch.tensor([start, end])))
    spans = torch.stack([test.start, test.end], dim=1)
    truth = [Truth(clip, int(label), spans[clip]) for clip, label in enumerate(test.motion)]
    result = localisation_result("temporal", truth, found, segment_iou, iou, seed)
    result.detail["frame_accuracy"] = (probability.argmax(dim=2) == test.frame_labels).double().mean().item()
    return result


def tube_localisation(encoder: Encoder, train: Clips, test: Clips, *, iou: float = 0.5, seed: int = 0) -> Result:
    """mAP of the found tubes: which motion, and in which box in every frame? (mean box IoU of at least `iou`)

    Two linear probes. One tells places of the frozen maps that hold an object from those that do not, which gives one
    box a frame; the other names the motion of the clip, as in `action_recognition` (a single place cannot tell where
    an object goes). A tube is scored by the product of their probabilities.
    """
    places = _place_probe(encoder, train, seed)
    motions = fit_linear(
        clip_features(encoder, train.video), train.motion, n_cls=len(MOTIONS), sweep=(1e-2,), seed=seed
    )
    named = motions(clip_features(encoder, test.video)).softmax(dim=1)
    found = []
    for clip in range(len(test)):
        share = _object_share(encoder, places, test.video[clip])
        mask = share > 0.5
        if bool(mask.any()):
            label = int(named[clip].argmax())
            score = named[clip, label].item() * share[mask].mean().item()
            found.append(Found(clip, label, score, boxes_of(mask)))
    truth = [Truth(clip, int(test.motion[clip]), test.boxes[clip, 0].cpu()) for clip in range(len(test))]
    return localisation_result("tubes", truth, found, tube_iou, iou, seed)


def shapes_clips(split: str, n: int, size: int = 64, *, frames: int = 8, seed: int = 0) -> Clips:
    """Clips of `Shapes` with one object each."""
    return Shapes(split, size, seed).clips(range(n), frames=frames)


def _frames(encoder: Encoder, clips: Untrimmed) -> tuple[Tensor, Tensor]:
    """Features (B T, ...) and labels (B T,) of every frame: the change from two frames before to two frames after."""
    pooled = frame_features(encoder, clips.video)
    t = torch.arange(pooled.shape[1])
    last = len(t) - 1
    change = pooled[:, (t + 2).clamp(max=last)] - pooled[:, (t - 2).clamp(min=0)]
    return torch.cat([change, change.abs()], dim=2).flatten(0, 1), clips.frame_labels.flatten()


def _place_probe(encoder: Encoder, clips: Clips, seed: int) -> LinearProbe:
    """Nothing (0) or an object (1), from the features of places of all training clips, both equally often."""
    x, y = [], []
    each = max(2, PLACES // len(clips))
    for clip in range(len(clips)):
        maps = encoder.maps(clips.video[clip].transpose(0, 1))
        size = (maps.shape[2], maps.shape[3])
        share = F.adaptive_avg_pool2d(clips.masks[clip, 0].float().cpu()[:, None], size)[:, 0]
        label = (share > 0.5).long().flatten()
        order = torch.randperm(len(label), generator=step_generator(mix(seed, 6), clip))
        order = torch.cat([order[label[order] == value][: each // 2] for value in (0, 1)])
        x.append(maps.movedim(1, 3).flatten(0, 2)[order])
        y.append(label[order])
    return fit_linear(torch.cat(x), torch.cat(y), n_cls=2, sweep=(1e-2,), seed=seed)


def _object_share(encoder: Encoder, probe: LinearProbe, video: Tensor) -> Tensor:
    """(T, H, W): probability that a pixel of a clip (3, T, H, W) shows an object."""
    share = probe(encoder.maps(video.transpose(0, 1)).movedim(1, 3)).softmax(dim=3)[..., 1]
    return F.interpolate(share[:, None], video.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def _ridge(x: Tensor, y: Tensor, q: Tensor, l2: float) -> Tensor:
    """Ridge regression of y (N, A) on standardised x (N, D), applied to q (M, D): (M, A). Solved among the N clips."""
    mean, std = x.mean(dim=0), x.std(dim=0).clamp_min(1e-6)
    x, q, middle = (x - mean) / std, (q - mean) / std, y.mean(dim=0)
    gram = (x @ x.T).double()
    weight = torch.linalg.solve(gram + l2 * len(x) * torch.eye(len(x), dtype=torch.float64), (y - middle).double())
    return ((q @ x.T).double() @ weight + middle).float()


def _share_below(a: Tensor, b: Tensor) -> Tensor:
    """(len(a),): the share of `b` below each of `a`, equal ones counted half."""
    order = b.sort().values
    below, upto = (torch.searchsorted(order, a, side=side) for side in ("left", "right"))
    return (below + upto).double() / (2 * len(b))
