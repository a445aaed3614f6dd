"""Video protocols: motions read from changes, unknown ones noticed, segments and tubes scored as by hand."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from sslcourse.data.shapes import MOTIONS, Clips
from sslcourse.errors import InputError
from sslcourse.evaluate.actions import (
    ATTRIBUTES,
    _ridge,
    _share_below,
    action_recognition,
    clip_features,
    open_set,
    shapes_clips,
    temporal_localisation,
    tube_localisation,
    untrimmed,
    zero_shot,
    zero_shot_actions,
)
from sslcourse.evaluate.encoder import Encoder
from sslcourse.evaluate.localisation import (
    Found,
    Truth,
    average_precision_of,
    mean_ap,
    run_lengths,
    segment_iou,
    tube_iou,
)


class Blocks(nn.Module):
    """Colours of 4 x 4 blocks."""

    def forward_map(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 4)


def squares(n: int, seed: int = 0, frames: int = 6) -> Clips:
    """A bright square on dark ground that moves left, right, up or down: the first four motions."""
    g = torch.Generator().manual_seed(seed)
    motion = torch.arange(n) % 4
    video = torch.randint(0, 30, (n, 3, frames, 32, 32), generator=g, dtype=torch.uint8)
    masks = torch.zeros(n, 1, frames, 32, 32, dtype=torch.bool)
    boxes = torch.zeros(n, 1, frames, 4)
    for i in range(n):
        step = torch.tensor([[0, -2], [0, 2], [-2, 0], [2, 0]])[motion[i]]
        y, x = (12 + torch.randint(-2, 3, (2,), generator=g)).tolist()
        for t in range(frames):
            top, left = y + int(step[0]) * (t - frames // 2), x + int(step[1]) * (t - frames // 2)
            masks[i, 0, t, top : top + 8, left : left + 8] = True
            boxes[i, 0, t] = torch.tensor([left, top, left + 8, top + 8])
            video[i, :, t, top : top + 8, left : left + 8] = 220
    return Clips(video, torch.arange(n), motion, motion, motion[:, None], motion[:, None], masks, boxes)


ENCODER = Encoder(Blocks(), mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0))


def test_motion_is_read_from_the_change_and_not_from_one_frame() -> None:
    train, test = squares(48), squares(24, 1)
    result = action_recognition(ENCODER, train, test)
    assert result.value > 0.9
    assert result.low <= result.value <= result.high

    def still(clips: Clips) -> Clips:
        middle = clips.video[:, :, 3:4].expand_as(clips.video).contiguous()
        return Clips(
            middle, *(getattr(clips, f) for f in ("index", "motion", "label", "kinds", "motions", "masks", "boxes"))
        )

    assert action_recognition(ENCODER, still(train), still(test)).value < 0.6


def test_a_network_of_clips_is_asked_directly() -> None:
    class Video(nn.Module):
        def forward_clip(self, x: Tensor) -> Tensor:
            return x.mean(dim=(3, 4)).flatten(1)

    assert clip_features(Encoder(Video()), squares(3).video).shape == (3, 18)
    with pytest.raises(InputError, match="T >= 3"):
        clip_features(ENCODER, squares(1).video[:, :, :2])


def test_zero_shot_takes_the_most_similar_class() -> None:
    classes = torch.eye(3)
    features = torch.tensor([[5.0, 1.0, 0.0], [0.0, 0.1, 0.2], [1.0, 0.0, 0.0]])
    assert zero_shot(features, classes, torch.tensor([0, 2, 1])).value == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="zero_shot"):
        zero_shot(features, torch.eye(4), torch.tensor([0, 2, 1]))


def test_an_unseen_motion_is_named_by_its_attributes() -> None:
    train, test = squares(64), squares(24, 1)
    result = zero_shot_actions(ENCODER, train, test, unseen=("right", "down"))
    assert result.n == 12  # test clips of the other motions are not asked
    assert result.value > 0.9
    assert result.detail["chance"] == 0.5
    assert result.detail["among_all"] <= result.value
    with pytest.raises(InputError, match="did you mean 'left'"):
        zero_shot_actions(ENCODER, train, test, unseen=("leftt", "right"))
    with pytest.raises(InputError, match="two unseen motions"):
        zero_shot_actions(ENCODER, train, test, unseen=("right",))


def test_no_clip_of_an_unseen_motion_is_trained_on() -> None:
    train, test = squares(32), squares(16, 1)
    noise = Clips(train.video.clone(), *(getattr(train, f.name) for f in dataclasses.fields(Clips)[1:]))
    unseen = (train.motion == MOTIONS.index("right")) | (train.motion == MOTIONS.index("down"))
    noise.video[unseen] = 255 - noise.video[unseen]
    a, b = (zero_shot_actions(ENCODER, t, test, unseen=("right", "down")) for t in (train, noise))
    assert torch.equal(a.kept["each"], b.kept["each"])


def test_attributes_say_what_the_motions_do() -> None:
    """Measured on the masks of the embedded world: where the object goes, and whether it grows."""
    clips = shapes_clips("train", 64, 64)
    first, last = clips.boxes[:, 0, 0], clips.boxes[:, 0, -1]
    moved = ((last[:, :2] + last[:, 2:]) - (first[:, :2] + first[:, 2:])) / 2
    grown = (last[:, 2:] - last[:, :2]).amax(dim=1) - (first[:, 2:] - first[:, :2]).amax(dim=1)
    want = ATTRIBUTES[clips.motion]
    for axis in range(2):
        goes = want[:, axis] != 0
        assert torch.equal(moved[goes, axis].sign(), want[goes, axis])
    grows = want[:, 3] != 0
    assert torch.equal(grown[grows].sign(), want[grows, 3])
    turns = {name: ATTRIBUTES[MOTIONS.index(name), 2].item() for name in ("clockwise", "anticlockwise")}
    assert turns == {"clockwise": 1.0, "anticlockwise": -1.0}


def test_ridge_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import Ridge

    g = torch.Generator().manual_seed(0)
    x, y, q = torch.randn(20, 50, generator=g), torch.randn(20, 3, generator=g), torch.randn(5, 50, generator=g)
    mean, std = x.mean(0), x.std(0)
    model = Ridge(alpha=0.5 * 20).fit(((x - mean) / std).numpy(), y.numpy())
    theirs = torch.from_numpy(model.predict(((q - mean) / std).numpy())).float()
    torch.testing.assert_close(_ridge(x, y, q, 0.5), theirs, rtol=1e-4, atol=1e-4)


def test_auroc_parts_count_ties_as_half() -> None:
    wins = _share_below(torch.tensor([0.5, 0.9, 0.1]), torch.tensor([0.5, 0.2]))
    assert wins.tolist() == [0.75, 1.0, 0.0]


def test_unknown_motions_are_less_sure() -> None:
    train, test = squares(48), squares(24, 1)
    result = open_set(ENCODER, train, test, known=2)
    assert result.n == 12
    assert result.detail["n_unknown"] == 12
    assert result.detail["closed_accuracy"] > 0.9
    assert 0 <= result.low <= result.value <= result.high <= 1
    with pytest.raises(InputError, match="known motions"):
        open_set(ENCODER, train, test, known=8)
    with pytest.raises(InputError, match="of unknown"):
        open_set(ENCODER, train, test, known=6)  # these clips have only four motions


def test_segments_and_their_overlap() -> None:
    assert run_lengths(torch.tensor([0, 0, 3, 3, 3, 0])) == [(0, 2, 0), (2, 5, 3), (5, 6, 0)]
    assert segment_iou(torch.tensor([2, 6]), torch.tensor([4, 8])) == pytest.approx(2 / 6)
    assert segment_iou(torch.tensor([0, 2]), torch.tensor([2, 4])) == 0.0


def test_tubes_count_frames_in_which_either_has_a_box() -> None:
    a = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 0, 0], [0, 0, 0, 0]])
    b = torch.tensor([[0.0, 0, 4, 4], [2, 0, 6, 4], [1, 1, 3, 3], [0, 0, 0, 0]])
    assert tube_iou(a, b) == pytest.approx((1 + 8 / 24 + 0) / 3)
    assert tube_iou(torch.zeros(2, 4), torch.zeros(2, 4)) == 0.0


def test_average_precision_by_hand() -> None:
    def at(start: int, end: int) -> Tensor:
        return torch.tensor([start, end])

    truth = [Truth(0, 0, at(0, 10)), Truth(1, 0, at(5, 10)), Truth(2, 0, at(0, 4))]
    found = [
        Found(0, 0, 0.9, at(0, 9)),  # right
        Found(0, 0, 0.8, at(0, 10)),  # a second one for the same segment
        Found(1, 0, 0.7, at(0, 5)),  # beside it
        Found(1, 0, 0.6, at(5, 9)),  # right
    ]
    # Right at ranks 1 and 4 of 4, three to find; the envelope of the precisions 1, 1/2, 1/3, 1/2 is 1, 1/2, 1/2, 1/2.
    assert average_precision_of(truth, found, segment_iou, 0.5) == pytest.approx((1 + 0.5) / 3)
    assert average_precision_of(truth, [], segment_iou, 0.5) == 0.0
    assert mean_ap([*truth, Truth(3, 1, at(0, 2))], found, segment_iou, 0.5) == pytest.approx(0.25)
    with pytest.raises(InputError, match="at least one"):
        average_precision_of([], found, segment_iou, 0.5)


def test_motion_is_found_in_time() -> None:
    train, test = (untrimmed(squares(n, s), frames=16, seed=s) for n, s in ((40, 0), (20, 1)))
    assert train.video.shape == (40, 3, 16, 32, 32)
    assert train.frame_labels.gt(0).sum(1).tolist() == [6] * 40
    result = temporal_localisation(ENCODER, train, test)
    assert result.value > 0.5
    assert result.detail["frame_accuracy"] > 0.6
    assert result.low <= result.value <= result.high
    assert temporal_localisation(ENCODER, train, test, iou=0.99).value < result.value
    with pytest.raises(InputError, match="more than"):
        untrimmed(squares(2), frames=6)


def test_motion_is_found_in_space_and_time() -> None:
    result = tube_localisation(ENCODER, squares(24), squares(12, 1), iou=0.3)  # the maps have blocks of 4 px
    assert result.value > 0.5
    assert result.low <= result.value <= result.high
    assert tube_localisation(ENCODER, squares(24), squares(12, 1), iou=0.95).value < 0.5


def test_clips_of_the_embedded_world_have_every_motion() -> None:
    clips = shapes_clips("train", 16, 32, frames=4)
    assert clips.motion.bincount(minlength=len(MOTIONS)).tolist() == [2] * 8
    assert clips.masks.shape[:3] == (16, 1, 4)
