"""The embedded world: the same scenes for ever, labels that agree with the pixels, knobs that turn one thing each."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from sslcourse.data import Images, Shapes
from sslcourse.data.shapes import BACKGROUNDS, CLASSES, COLOURS, MOTIONS, PRESETS
from sslcourse.data.shapes.clips import moving
from sslcourse.data.shapes.sdf import EMBLEM, SHAPES, coverage
from sslcourse.errors import InputError

GOLDEN = Path(__file__).parent / "data" / "shapes.npz"


def same(a, b, levels=0):
    return (a.int() - b.int()).abs().max() <= levels


# --- the same for ever ---


@pytest.mark.parametrize("preset", PRESETS)
def test_frozen_scenes_stay_as_they_were(preset):
    frozen = np.load(GOLDEN)
    if preset in frozen:
        drawn = Shapes("train", 32, preset=preset).batch(frozen[f"{preset}_index"].tolist()).image
        assert same(drawn, torch.from_numpy(frozen[preset]), levels=1)
    if preset == "default":
        drawn = Shapes("test", 64, seed=7).batch([123_456]).image
        assert same(drawn, torch.from_numpy(frozen["default_64"]), levels=1)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_scene_does_not_depend_on_its_company(preset):
    world = Shapes("train", 32, preset=preset)
    together = world.batch([9, 2, 300, 7, 2])
    for position, index in enumerate([9, 2, 300, 7]):
        alone = world[index]
        for name in ("image", "boxes", "alpha", "parts", "visible", "kinds"):
            assert torch.equal(getattr(alone, name), getattr(together[position], name)), name
        assert (alone.label, alone.caption, alone.index) == (
            together[position].label,
            together[position].caption,
            index,
        )
    assert torch.equal(together.image[1], together.image[4])
    assert torch.equal(world.as_images(10).images[[9, 2]], together.image[:2])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("preset", PRESETS)
def test_a_gpu_draws_the_same_within_one_grey_level(preset):
    cpu, gpu = (Shapes("val", 64, preset=preset, device=d).batch(range(20)) for d in ("cpu", "cuda"))
    assert same(cpu.image, gpu.image.cpu(), levels=1)
    assert (cpu.parts != gpu.parts.cpu()).float().mean() < 1e-4


def test_splits_and_seeds_share_no_scene():
    worlds = [("train", 0), ("val", 0), ("test", 0), ("train", 1)]
    images = torch.cat([Shapes(split, 16, seed).as_images(150).images for split, seed in worlds]).flatten(1)
    assert len(images.unique(dim=0)) == len(images)
    assert [len(Shapes(split)) for split in ("train", "val", "test")] == [10_000, 2_000, 2_000]


def test_far_scenes_exist_and_the_usual_length_ends_a_loop():
    world = Shapes("val", 16)
    assert world.batch([10**9]).image.shape == (1, 3, 16, 16)
    assert torch.equal(world[-1].image, world[1999].image)
    with pytest.raises(IndexError):
        world[2000]


def test_nothing_touches_the_global_generator():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    Shapes("train", 16, preset="corrupted").clips([0, 1], 2)
    assert torch.equal(torch.rand(2), expected)


# --- classes and knobs ---


def test_every_ten_scenes_hold_every_class_once():
    labels = Shapes("train", 16).as_images(200).labels.view(20, 10)
    assert torch.equal(labels.sort(1).values, torch.arange(10).expand(20, 10))
    assert len(labels.unique(dim=0)) > 10
    some = Shapes("train", 16, classes=["star", "disc"])
    assert some.label_names == ["star", "disc"]
    assert some.as_images(40).labels.bincount().tolist() == [20, 20]


@pytest.mark.parametrize(
    ("knobs", "moved"),
    [
        ({"rotation": 90.0}, {"angle"}),
        ({"radius": (0.3, 0.9)}, {"radius"}),
        ({"shift": 0.1}, {"x", "y"}),
        ({"light": 0.9}, {"light"}),
        ({"colour_correlation": 1.0}, {"colour", "paint"}),
        ({"background_correlation": 1.0}, {"background", "ground_colour", "ground", "ground_waves"}),
        ({"textures": ["dots"]}, {"texture"}),
        ({"domains": ["inverted"]}, {"domain"}),
        ({"word": "own"}, {"word"}),
        ({"dark_objects": 1.0}, {"paint", "ground"}),
        ({"emblem": False}, {"emblem"}),
    ],
)
def test_a_knob_turns_one_attribute(knobs, moved):
    before, after = Shapes("train").parameters(range(50)), Shapes("train", **knobs).parameters(range(50))
    changed = {f.name for f in fields(before) if not np.array_equal(getattr(before, f.name), getattr(after, f.name))}
    assert changed == moved


def test_without_its_emblem_a_symmetric_shape_looks_the_same_from_all_sides():
    even = {"light": 0.0, "rotation": 0.0, "shift": 0.0, "textures": ["plain"], "backgrounds": ["plain"]}
    for domain in ("photo", "sketch"):
        world = {"classes": ["disc", "square", "ring", "cross"], "domains": [domain], **even}
        bare, worn = (Shapes("train", 32, **world, emblem=emblem).batch(range(20)) for emblem in (False, True))
        assert torch.equal(bare.image, bare.image.rot90(dims=(2, 3)))
        assert not torch.equal(worn.image, worn.image.rot90(dims=(2, 3)))
        assert not bare.parts[:, 0, 1:].any()
        assert torch.equal(bare.parts[:, 0, 0], worn.parts[:, 0, 0])


def test_correlation_ties_the_attribute_to_the_class():
    for share in (0.0, 0.8, 1.0):
        p = Shapes("train", background_correlation=share, colour_correlation=share, backgrounds=BACKGROUNDS).parameters(
            range(3000)
        )
        tied = share + (1 - share) / len(COLOURS)
        assert (p.colour[:, 0] == p.kind[:, 0]).mean() == pytest.approx(tied, abs=0.03)
        assert (p.ground_colour == p.kind[:, 0]).mean() == pytest.approx(tied, abs=0.03)
        tied = share + (1 - share) / len(BACKGROUNDS)
        assert (p.background == p.kind[:, 0] % len(BACKGROUNDS)).mean() == pytest.approx(tied, abs=0.03)


def test_orientation_is_a_quarter_turn_of_the_picture():
    still = {"shift": 0.0, "rotation": 0.0, "light": 0.0, "backgrounds": ["plain"]}
    upright = Shapes("train", 64, **still).batch(range(40))
    turned = Shapes("train", 64, quarter_turns=True, label="orientation", **still)
    assert turned.label_names == ["up", "right", "down", "left"]
    scenes = turned.batch(range(40))
    assert scenes.label.unique().tolist() == [0, 1, 2, 3]
    for before, after, k in zip(upright.image, scenes.image, scenes.label, strict=True):
        assert same(torch.rot90(before, -int(k), (1, 2)), after, levels=1)


def test_other_labels_follow_their_attribute():
    world = Shapes("train", 16, label="texture", textures=["checks", "dots"])
    scenes = world.batch(range(20))
    assert torch.equal(scenes.label, scenes.attributes["texture"][:, 0])
    assert {world.label_names[i] for i in scenes.label} == {"checks", "dots"}


def test_words_name_the_class_or_never_do():
    def words(word):
        return Shapes("train", 64, word=word).batch(range(60))

    assert torch.equal(words("own").attributes["word"], words("own").kinds[:, 0])
    assert (words("other").attributes["word"] != words("other").kinds[:, 0]).all()
    assert 0 < (words("random").attributes["word"] == words("random").kinds[:, 0]).sum() < 20
    plain = words("none")
    assert (plain.attributes["word"] == -1).all()
    changed = (words("own").image != plain.image).any(1)
    assert changed.flatten(1).any(1).all()
    assert (words("own").masks & changed[:, None]).flatten(1).sum(1).eq(0).all()  # the label hides what is behind it


def test_domains_and_corruption():
    photo, inverted = (Shapes("train", 32, domains=[d]).batch(range(5)).image for d in ("photo", "inverted"))
    assert same(photo, 255 - inverted, levels=1)
    sketch = Shapes("train", 32, preset="sketch").batch(range(5)).image.int()
    assert (sketch.amax(1) - sketch.amin(1)).max() <= 1  # ink and paper have no colour
    noisy = Shapes("train", 32, corruption="gaussian_noise", severity=5).batch(range(5)).image
    residual = (noisy.float() - photo.float()) / 255
    assert 0.15 < residual.std() < 0.31
    assert not torch.equal(residual[0], residual[1])


# --- labels ---


@pytest.mark.parametrize("preset", ["default", "hard", "multi", "captions", "written_word", "sketch"])
def test_labels_agree_with_each_other(preset):
    s = Shapes("train", 48, preset=preset).batch(range(60))
    whole, emblem, dot = s.parts.unbind(2)
    assert s.alpha.sum(1).max() <= 1 + 1e-5
    assert whole.sum(1).max() == 1  # no two objects share a pixel
    assert (emblem & ~whole).sum() == 0
    assert (dot & ~emblem).sum() == 0
    absent = s.kinds < 0
    assert torch.equal(absent, torch.arange(s.kinds.shape[1]) >= s.count[:, None])
    for labels in (whole[absent], s.boxes[absent], s.visible[absent]):
        assert labels.sum() == 0
    assert (s.visible <= 1).all()
    for mask, box in zip(whole.flatten(0, 1), s.boxes.flatten(0, 1), strict=True):
        y, x = mask.nonzero(as_tuple=True)
        tight = [x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [0, 0, 0, 0]
        assert box.tolist() == [float(v) for v in tight]


def test_every_default_object_shows_all_its_parts_even_at_32_pixels():
    s = Shapes("train", 32).batch(range(300))
    sizes = s.parts[:, 0].sum((2, 3))
    assert (sizes[:, 2] >= 1).all()
    assert (sizes[:, 1] > sizes[:, 2]).all()
    assert (sizes[:, 0] > 2 * sizes[:, 1]).all()


def test_near_objects_hide_far_ones():
    s = Shapes("train", 64, preset="multi").batch(range(100))
    assert s.count.unique().tolist() == [2, 3, 4]
    assert (s.visible[:, 0] == 1).all()
    rest = s.visible[:, 1:][s.kinds[:, 1:] >= 0]
    assert 0.2 < (rest < 0.95).float().mean() < 0.95
    scene = s[int((s.count == 2).nonzero()[0])]
    assert len(scene.kinds) == len(scene.boxes) == len(scene.masks) == 2


def test_alpha_says_where_the_object_and_where_the_ground_shows():
    # Another ground changes no pixel that is all object; other paint on the object none that is all ground.
    base = {"light": 0.0, "dark_objects": 1.0}
    a = Shapes("train", 64, backgrounds=["plain"], **base).batch(range(20))
    b = Shapes("train", 64, backgrounds=["checks"], **base).batch(range(20))
    c = Shapes("train", 64, backgrounds=["plain"], textures=["dots"], **base).batch(range(20))
    alpha = a.alpha.sum(1)[:, None].expand_as(a.image)
    assert torch.equal(alpha, b.alpha.sum(1)[:, None].expand_as(a.image))
    assert torch.equal(a.image[alpha == 1], b.image[alpha == 1])
    assert torch.equal(a.image[alpha == 0], c.image[alpha == 0])
    assert (a.image != b.image)[alpha == 0].float().mean() > 0.3
    assert ((alpha > 0) & (alpha < 1)).any()


def test_captions_say_what_is_there():
    world = Shapes("train", 16, preset="captions")
    s, five = world.batch(range(40)), world.captions(range(40))
    for b in range(40):
        assert len(set(five[b])) == 5
        assert s.caption[b] in five[b]
        for kind, colour in zip(s[b].kinds, s[b].attributes["colour"], strict=True):
            assert all(CLASSES[kind] in sentence for sentence in five[b])
            assert all(list(COLOURS)[colour] in sentence for sentence in five[b])
    assert any(" an orange" in sentence for caption in five for sentence in caption)


# --- clips ---


def test_clips_move_as_their_class_says():
    clips = Shapes("train", 48, shift=0.1).clips(range(40), frames=8)
    assert clips.video.shape == (40, 3, 8, 48, 48)
    assert clips.video.dtype == torch.uint8
    assert clips.masks.shape == (40, 1, 8, 48, 48)
    assert torch.equal(clips.motion.bincount(), torch.full((8,), 5))  # balanced
    assert torch.equal(clips.motions[:, 0], clips.motion)
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    mask = clips.masks[:, 0].float()
    area = mask.sum((2, 3))
    step_x, step_y = (((mask * a).sum((2, 3)) / area).diff(dim=1) for a in (x, y))
    for b, motion in enumerate(MOTIONS[m] for m in clips.motion):
        growth = area[b].diff()
        if motion in ("left", "right"):
            assert (step_x[b] * (1 if motion == "right" else -1) > 0.2).all()
            assert step_y[b].abs().max() < 0.5
        elif motion in ("up", "down"):
            assert (step_y[b] * (1 if motion == "down" else -1) > 0.2).all()
        elif motion in ("grow", "shrink"):
            assert (growth * (1 if motion == "grow" else -1) > 0).all()
        else:
            assert (area[b] / area[b].mean() - 1).abs().max() < 0.1


def test_clockwise_turns_the_angle_up_and_touches_nothing_else():
    # That a larger angle is clockwise on the screen is what test_orientation_is_a_quarter_turn_of_the_picture shows.
    p = Shapes("train").parameters(range(3))
    for motion, sign in (("clockwise", 1), ("anticlockwise", -1)):
        frames = moving(p, np.full((3, 1), MOTIONS.index(motion)), np.full((3, 1), 0.8), 5)
        angle = frames.angle.reshape(3, 5)
        assert np.allclose(np.diff(angle, axis=1), sign * 0.8 * np.pi / 5)
        assert np.allclose(angle[:, 2], p.angle[:, 0])  # half way: as in the still scene
        assert np.array_equal(frames.x.reshape(3, 5)[:, 0], p.x[:, 0])


def test_a_clip_does_not_depend_on_its_company():
    world = Shapes("train", 32, preset="multi", corruption="gaussian_noise")
    together = world.clips([4, 9], frames=3)
    alone = world.clips([9], frames=3)
    for name in ("video", "masks", "boxes", "motions"):
        assert torch.equal(getattr(together, name)[1], getattr(alone, name)[0]), name
    assert not torch.equal(alone.video[0, :, 0], alone.video[0, :, 1])


# --- the distance functions ---


@pytest.mark.parametrize("name", CLASSES)
def test_distances_are_honest(name):
    axis = torch.linspace(-1.3, 1.3, 521)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    d = SHAPES[name](x, y)
    step = 2.6 / 520
    # Never farther than the truth: from point to point, also diagonally, it changes by no more than the way between.
    assert max(d.diff(dim=0).abs().max(), d.diff(dim=1).abs().max()) < step * 1.001
    assert (d[1:, 1:] - d[:-1, :-1]).abs().max() < step * 2**0.5 * 1.001
    # And one pixel of distance is one pixel, at the outline.
    gy, gx = torch.gradient(d, spacing=(axis, axis))
    assert (torch.sqrt(gx**2 + gy**2)[d.abs() < 0.02] > 0.95).float().mean() > 0.9
    assert torch.sqrt(x**2 + y**2)[d < 0].max() < 1.12
    assert d[0].min() > 0
    ex, ey, er = EMBLEM[name]
    in_emblem = torch.sqrt((x - ex) ** 2 + (y - ey) ** 2) < er * 0.85
    assert (d[in_emblem] < 0).all()


def test_coverage_is_half_on_the_outline():
    d = torch.tensor([-1.0, -0.75, 0.0, 0.75, 1.0])
    torch.testing.assert_close(coverage(d), torch.tensor([1.0, 1.0, 0.5, 0.0, 0.0]))


# --- frozen difficulty (issue: pixels <= 0.50, random weights <= 0.35) ---


def test_pixels_and_random_features_do_not_solve_the_default_world():
    from sslcourse.evaluate import extract_features, knn_accuracy, pixel_features
    from sslcourse.nn.convnet import ConvNet

    train, test = Shapes("train", 32).as_images(2000), Shapes("test", 32).as_images(500)
    torch.manual_seed(0)
    network = ConvNet()
    for features, most in (
        (pixel_features(train, test), 0.50),
        (tuple(extract_features(network, part) for part in (train, test)), 0.35),
    ):
        assert knn_accuracy(features[0], train.labels, features[1], test.labels).value < most


# --- bad input ---


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Shapes("trian"), "did you mean 'train'"),
        (lambda: Shapes(preset="dafault"), "did you mean 'default'"),
        (lambda: Shapes(rotatoin=3), "did you mean 'rotation'"),
        (lambda: Shapes(classes=["disk"]), "did you mean 'disc'"),
        (lambda: Shapes(classes="disc"), r"classes=\['disc'\]"),
        (lambda: Shapes(corruption="fog"), "unknown corruption"),
        (lambda: Shapes(severity=6), "severity"),
        (lambda: Shapes(label="colours"), "did you mean 'colour'"),
        (lambda: Shapes(word="all"), "unknown value"),
        (lambda: Shapes(word="other", classes=["star"]), "two classes"),
        (lambda: Shapes(objects=3), "objects"),
        (lambda: Shapes(objects=(3, 2)), "objects"),
        (lambda: Shapes(radius=(0.8, 0.2)), "radius"),
        (lambda: Shapes(light=2.0), "light"),
        (lambda: Shapes(size=4), "8 pixels"),
        (lambda: Shapes().batch([]), "at least one"),
        (lambda: Shapes().batch([-1]), "below 0"),
        (lambda: Shapes().clips([0], frames=0), "frame"),
    ],
)
def test_bad_input_is_one_clear_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_as_images_is_what_the_loop_takes():
    images = Shapes("test", 16).as_images(30)
    assert isinstance(images, Images)
    assert images.classes == CLASSES
    assert images.images.shape == (30, 3, 16, 16)
    assert torch.equal(images.labels, Shapes("test", 16).batch(range(30)).label)
    assert torch.equal(Shapes("test", 16).as_images(5, start=25).images, images.images[25:])
