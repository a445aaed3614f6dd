"""Clips, VideoMAE, Unmasked Teacher, I-JEPA: what they may see, what is compared, that they learn on `Shapes`."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sslcourse import methods
from sslcourse.data.augment import Augment
from sslcourse.data.clips import ClipSet, clip_view, load_clips, sample_clip
from sslcourse.data.hog import hog_targets
from sslcourse.data.load import load
from sslcourse.data.masks import cube_mask
from sslcourse.data.multiblock import block_size, multiblock_masks
from sslcourse.data.rng import step_generator
from sslcourse.errors import InputError
from sslcourse.methods.ijepa import IJEPA
from sslcourse.methods.maskfeat_video import MaskFeatVideo
from sslcourse.methods.unmasked_teacher import UnmaskedTeacher
from sslcourse.methods.videomae import VideoMAE
from sslcourse.nn.clip import CLIPViT
from sslcourse.nn.patches import patchify, tubelet_embed
from sslcourse.nn.positions import sinusoid
from sslcourse.nn.teachers import CLIPTeacher, HogTeacher, ViTTeacher, teacher_of
from sslcourse.nn.video_vit import VideoViT
from sslcourse.nn.vit import ViT
from sslcourse.train import fit

PLAIN = Augment(32, scale=(0.6, 1.0), jitter_p=0.0, gray=0.0, blur=0.0)


@pytest.fixture(scope="module")
def clips() -> ClipSet:
    return load_clips("shapes", size=32, frames=8, n=96)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def short(cls, steps=30, **changes):
    config = cls.PRESETS["cpu"]
    train = replace(config.train, steps=steps, batch_size=16, warmup_epochs=0.5, monitor_every=10)
    return replace(config, train=train, **changes)


# --- clips -----------------------------------------------------------------------------------------------------------


def test_the_view_of_a_clip_is_the_same_in_all_frames(clips):
    still = clips.images[:3, :, :1].expand(-1, -1, 5, -1, -1)
    view = clip_view(still, PLAIN, step_generator(0, 0))
    assert view.shape == (3, 3, 5, 32, 32)
    assert torch.equal(view, view[:, :, :1].expand_as(view))
    frame = PLAIN(still[:, :, 0], generator=step_generator(0, 0))
    torch.testing.assert_close(view[:, :, 0], frame)
    with pytest.raises(InputError, match="crop and a flip"):
        clip_view(still, replace(PLAIN, gray=0.5), step_generator(0, 0))


def test_sampled_frames_fit_and_reach_both_ends():
    g = torch.Generator().manual_seed(0)
    drawn = torch.stack([sample_clip(10, 3, 2, "random", g) for _ in range(200)])
    assert (drawn.diff(dim=1) == 2).all()
    assert sorted(drawn[:, 0].unique().tolist()) == [0, 1, 2, 3, 4, 5]
    assert sample_clip(11, 3, 2, "center").tolist() == [3, 5, 7]
    assert sample_clip(2, 4, 3, "center").tolist() == [0, 1, 1, 1]  # too short: it stays on its last frame
    for bad in ((0, 1, 1, "center"), (5, 1, 1, "middle"), (5, 2, 1, "random")):
        with pytest.raises(InputError, match="sample_clip"):
            sample_clip(*bad)


def test_clips_from_a_folder_of_folders(tmp_path):
    for name, n in (("a", 7), ("b", 3)):
        (tmp_path / name).mkdir()
        for i in range(n):
            Image.new("RGB", (40, 30), (10 * i, 0, 0)).save(tmp_path / name / f"{i:03d}.png")
    found = load_clips(tmp_path, size=16, frames=3)
    assert found.images.shape == (3, 3, 3, 16, 16)
    assert found.labels.tolist() == [0, 0, 1]
    assert found.images[1, 0, :, 8, 8].tolist() == [30, 40, 50]
    assert load_clips(tmp_path, size=16, frames=2, stride=3).images[0, 0, :, 8, 8].tolist() == [0, 30]
    with pytest.raises(InputError, match="no video of 9 frames"):
        load_clips(tmp_path, size=16, frames=9)
    with pytest.raises(InputError, match="the longest has 7, and a clip of 3 frames with stride 4 needs 9"):
        load_clips(tmp_path, size=16, frames=3, stride=4)
    with pytest.raises(InputError, match="no clips"):
        load_clips(tmp_path / "nowhere")


def test_a_mask_beside_a_frame_is_no_frame(tmp_path):
    (tmp_path / "bear").mkdir()
    for i in range(3):
        Image.new("RGB", (20, 20), (100, 0, 0)).save(tmp_path / "bear" / f"{i:05d}.jpg")
        Image.new("L", (20, 20), 255).save(tmp_path / "bear" / f"{i:05d}.png")
    Image.new("RGB", (20, 20), (100, 0, 0)).save(tmp_path / "bear" / "00003.png")
    found = load_clips(tmp_path, size=16, frames=4)
    assert found.images.shape == (1, 3, 4, 16, 16)
    assert found.images[0, 1:].max() < 10


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"stride": 0}, {"n": 0}, {"size": 0}])
def test_clips_are_of_one_frame_or_more(tmp_path, wrong):
    for name in ("shapes", tmp_path):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}=0"):
            load_clips(name, **({"size": 16} | wrong))


def test_what_is_wrong_with_a_folder_of_frames_is_said(tmp_path):
    with pytest.raises(InputError, match="has no folders of frames"):
        load_clips(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "0.jpg")
    with pytest.raises(InputError, match="holds images, but no folders of frames"):
        load_clips(tmp_path)
    (tmp_path / "davis.zip").touch()
    with pytest.raises(InputError, match=r"name the archive that is in it, .*davis\.zip"):
        load_clips(tmp_path)
    (tmp_path / "a").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "0.jpg")
    with pytest.raises(InputError, match="the longest has 1"):
        load_clips(tmp_path, size=8, frames=2)
    (tmp_path / "a" / "1.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"1\.jpg is no readable image"):
        load_clips(tmp_path, size=8, frames=2)


def test_frames_are_read_as_images_are(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a" / "0.png")
    assert load_clips(tmp_path, size=8, frames=1).images.min() == 255  # white, not the red under it


@pytest.mark.parametrize("ratio", [1.5, -1.0])
def test_boxes_hide_a_part_of_a_clip(ratio):
    with pytest.raises(InputError, match="ratio lies between 0 and 1"):
        cube_mask(4, 8, 8, ratio, step_generator(0, 0))


# --- the networks ----------------------------------------------------------------------------------------------------


def test_positions_are_those_of_attention_is_all_you_need():
    table = sinusoid(7, 6)
    for pos in range(7):
        for i in range(3):
            angle = torch.tensor(pos / 10000 ** (2 * i / 6))
            torch.testing.assert_close(table[pos, 2 * i : 2 * i + 2], torch.stack([angle.sin(), angle.cos()]))


def test_tubelets_are_a_strided_3d_convolution_and_hidden_ones_are_left_out():
    network, x = VideoViT(16, 4, 4, 2, 24, 1, 2), numbers(2, 3, 4, 16, 16)
    conv = network.patch_embed.proj(x).flatten(2).transpose(1, 2)
    torch.testing.assert_close(network.patch_embed(x), conv, rtol=1e-4, atol=1e-5)
    mask = torch.zeros(2, 32, dtype=torch.bool)
    mask[:, ::2] = True
    torch.testing.assert_close(network.embed(x, mask), network.embed(x)[:, 1::2])
    still = network(x[:, :, 0])
    torch.testing.assert_close(still, network(x[:, :, :1].expand(-1, -1, 4, -1, -1)))
    assert network.forward_map(x).shape == (2, 24, 4, 4)
    with pytest.raises(InputError, match="whole tubelets"):
        VideoViT(16, 4, 5, 2)


def test_teachers_say_where_they_look_and_what_they_see():
    frames = numbers(3, 3, 32, 32)
    vit = ViT(32, 8, dim=24, depth=3, n_heads=2)
    clip = CLIPViT(32, 8, 24, 3, 2, 16)
    for teacher, stride in ((ViTTeacher(vit), 8), (CLIPTeacher(clip), 8), (HogTeacher(8), 8)):
        look, features = teacher(frames, 2)
        assert look.shape == (3, 16)
        assert (look >= 0).all()
        assert (look.sum(dim=1) <= 1 + 1e-5).all()
        assert features.shape == (2, 3, 16, teacher.width)
        assert teacher.stride == stride
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(2, 3, 16))
    whole = clip.transformer(clip.embed(frames))
    expected = F.normalize(clip.proj(clip.ln_post(whole[:, 1:])), dim=-1)
    torch.testing.assert_close(CLIPTeacher(clip)(frames, 1)[1][0], expected)
    with pytest.raises(InputError, match="class token"):
        ViTTeacher(ViT(32, 8, dim=24, depth=1, n_heads=2, class_token=False, pool="avg"))
    assert isinstance(teacher_of("", 4), HogTeacher)


def test_weights_of_the_repository_teach_by_name_where_they_are_a_vit():
    teacher = teacher_of("mae_shapes", 4)
    assert isinstance(teacher, ViTTeacher)
    assert teacher.stride == 8
    assert not any(p.requires_grad for p in teacher.parameters())
    with pytest.raises(InputError, match=r"clip_shapes holds a ConvNet; .* pretrain clip --data captions --backbone"):
        teacher_of("clip_shapes", 4)


# --- VideoMAE --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tube", "frame", "random", "cube"])
def test_videomae_sees_visible_tubelets_only(clips, kind):
    module = methods.build(VideoMAE, short(VideoMAE, backbone="vit_mini_patch4", mask=kind, ratio=0.75))
    x, mask = module.views(clips.images[:4], step_generator(0, 0))
    t, h, w = module.backbone.grid_size
    assert len(mask.sum(dim=1).unique()) == 1
    assert abs(float(mask.float().mean()) - 0.75) < 0.02
    places = mask.view(4, t, h, w)
    if kind == "tube":
        assert torch.equal(places, places[:, :1].expand_as(places))
        assert not torch.equal(places[0], places[1])
    if kind == "frame":
        assert torch.equal(places, places[:, :, :1, :1].expand_as(places))
    x.requires_grad_()
    tokens = module.backbone.forward_features(x, mask)
    (gradient,) = torch.autograd.grad((tokens * numbers(*tokens.shape)).sum(), x)
    seen = tubelet_embed(gradient, 2, 4).abs().amax(dim=2) > 0
    assert torch.equal(seen, ~mask)


def test_videomae_compares_hidden_tubelets_standardised_by_colour(clips):
    module = methods.build(VideoMAE, short(VideoMAE, backbone="vit_mini_patch4"))
    x, mask = module.views(clips.images[:4], step_generator(0, 0))
    out = module([x, mask])
    (gradient,) = torch.autograd.grad(out["loss"], out["pred"])
    assert torch.equal(gradient.abs().amax(dim=2) > 0, mask)
    busiest = int(tubelet_embed(x, 2, 4)[2].std(dim=1).argmax())
    one = module.target(x)[2, busiest].view(-1, 3)
    torch.testing.assert_close(one.mean(dim=0), torch.zeros(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(one.std(dim=0), torch.ones(3), rtol=0, atol=1e-3)
    raw = methods.build(VideoMAE, short(VideoMAE, norm_pix=False)).target(x)
    assert raw.min() >= -1e-4
    assert raw.max() <= 1 + 1e-4


def test_videomae_learns_on_clips_in_seconds(clips, tmp_path):
    config = short(VideoMAE, norm_pix=False)
    module = methods.build(VideoMAE, config)
    views = module.views(clips.images[:32], step_generator(0, 0))
    before = module.eval()(views)["loss"]
    fit(module, clips, config, tmp_path / "run", progress=False)
    assert module.eval()(views)["loss"] < 0.6 * before


# --- MaskFeat for video ----------------------------------------------------------------------------------------------


def test_maskfeat_for_video_asks_for_the_hog_of_a_tubelets_first_frame(clips):
    module = methods.build(MaskFeatVideo, short(MaskFeatVideo, backbone="vit_mini_patch4"))
    x, mask = module.views(clips.images[:4], step_generator(0, 0))
    target = module.target(x)
    frames = [hog_targets(x[:, :, t], 4, cell=2) for t in (0, 2, 4, 6)]
    torch.testing.assert_close(target, torch.cat(frames, dim=1))
    out = module([x, mask])
    (gradient,) = torch.autograd.grad(out["loss"], out["pred"])
    assert torch.equal(gradient.abs().amax(dim=2) > 0, mask)
    hidden = mask.view(4, 4, 8, 8).repeat_interleave(2, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)[:, None]
    torch.testing.assert_close(module([torch.where(hidden, 9.0, x), mask])["pred"], out["pred"])


@pytest.mark.parametrize("target", ["pixels", "pca", "codebook"])
def test_maskfeat_for_video_takes_other_targets(clips, target):
    module = methods.build(MaskFeatVideo, short(MaskFeatVideo, target=target)).train()
    x, mask = module.views(clips.images[:4], step_generator(0, 0))
    out = module([x, mask])
    out["loss"].backward()
    assert out["loss"].isfinite()
    assert out["pred"].shape == (*mask.shape, module.frame_target.values)
    second = module.target(x).unflatten(1, module.backbone.grid_size).flatten(2, 3)[:, 1]
    torch.testing.assert_close(second, module.frame_target(x[:, :, 2]))


@pytest.mark.parametrize("kind", ["cube", "tube", "frame"])
def test_maskfeat_for_video_hides_in_the_three_ways_of_the_paper(clips, kind):
    module = methods.build(MaskFeatVideo, short(MaskFeatVideo, mask=kind, ratio=0.5))
    x, mask = module.views(clips.images[:8], step_generator(0, 0))
    places = mask.view(8, *module.backbone.grid_size)
    assert 0.4 < places.float().mean() <= 0.5
    assert bool((places == places[:, :1]).all()) == (kind == "tube")
    assert bool((places == places[:, :, :1, :1]).all()) == (kind == "frame")
    assert module([x, mask])["loss"].isfinite()
    with pytest.raises(InputError, match="unknown mask 'tubes'"):
        MaskFeatVideo(short(MaskFeatVideo, mask="tubes"))


def test_maskfeat_for_video_learns_on_clips_in_seconds(clips, tmp_path):
    config = short(MaskFeatVideo)
    module = methods.build(MaskFeatVideo, config)
    views = module.views(clips.images[:32], step_generator(0, 0))
    before = module.eval()(views)["loss"]
    fit(module, clips, config, tmp_path / "run", progress=False)
    assert module.eval()(views)["loss"] < 0.8 * before


# --- Unmasked Teacher ------------------------------------------------------------------------------------------------


def test_unmasked_teacher_keeps_a_fifth_of_every_frame_where_the_teacher_looks(clips):
    module = methods.build(UnmaskedTeacher, short(UnmaskedTeacher, backbone="vit_mini_patch4"))
    x, race = module.views(clips.images[:8], step_generator(0, 0))
    look, _ = module.ask(x)
    mask = module([x, race])["mask"].view(8, 8, 64)
    assert ((~mask).sum(dim=2) == 64 - int(64 * 0.8)).all()
    assert not torch.equal(mask[:, 0], mask[:, 1])  # no tubes
    assert look[~mask].mean() > 1.3 * look[mask].mean()


def test_the_teacher_is_frozen_and_sees_everything_the_student_only_what_stays(clips):
    module = methods.build(UnmaskedTeacher, short(UnmaskedTeacher, backbone="vit_mini_patch4"))
    x, race = module.views(clips.images[:4], step_generator(0, 0))
    assert not any(p.requires_grad for p in module.teacher.parameters())
    mask = module([x, race])["mask"]
    hidden = mask.view(4, 8, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3)[:, None]
    tokens = module.backbone.forward_features(x, mask)
    torch.testing.assert_close(module.backbone.forward_features(torch.where(hidden, 9.0, x), mask), tokens)
    assert not torch.equal(module.ask(torch.where(hidden, 9.0, x))[0], module.ask(x)[0])


def test_unmasked_teacher_takes_clip_at_its_own_patch_size(clips, tmp_path):
    teacher = CLIPTeacher(CLIPViT(64, 8, 24, 2, 2, 16))
    config = short(UnmaskedTeacher, steps=15)
    module = UnmaskedTeacher(config, teacher=teacher)
    before = [p.clone() for p in teacher.parameters()]
    views = module.views(clips.images[:16], step_generator(0, 0))
    start = module.eval()(views)["loss"]
    fit(module, clips, config, tmp_path / "run", progress=False)
    assert module.eval()(views)["loss"] < 0.95 * start
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    with pytest.raises(InputError, match="aligns 1 to 4 layers"):
        UnmaskedTeacher(replace(config, layers=9))


# --- I-JEPA ----------------------------------------------------------------------------------------------------------


def test_multiblock_masks_are_boxes_and_a_context_without_them():
    context, targets = multiblock_masks(14, 14, torch.Generator().manual_seed(0), batch=50)
    assert context.shape[0] == 50
    assert context.shape[1] > 10
    for places in targets.flatten(0, 1):
        rows, columns = places // 14, places % 14
        assert (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1) == len(places)
    assert not (context[:, :, None] == targets.flatten(1)[:, None]).any()
    assert (context.diff(dim=1) > 0).all()
    assert len({tuple(row) for row in context.tolist()}) > 40
    with pytest.raises(InputError, match="leave nothing"):
        multiblock_masks(2, 2, torch.Generator().manual_seed(0), batch=1, target_scale=(0.1, 0.1))


@pytest.mark.parametrize("u", [0.0, 0.4, 0.999])
def test_a_block_has_about_its_area_and_never_fills_the_grid(u):
    rows, columns = block_size(14, 14, u, (0.15, 0.2), (0.75, 1.5))
    assert 0.75 < rows * columns / (196 * (0.15 + 0.05 * u)) < 1.25
    assert block_size(14, 14, u, (1.0, 1.0), (1.0, 1.0)) == (13, 13)


def test_ijepa_s_context_knows_nothing_of_other_patches_behind_a_stem_of_convolutions():
    module = methods.build(IJEPA, short(IJEPA, backbone="vit_mini_conv8"))
    x, context, _ = module.views(load("shapes", "train", size=32, n=64).images[:4], step_generator(0, 0))
    x.requires_grad_()
    tokens = module.encode(x, context)
    (gradient,) = torch.autograd.grad((tokens * numbers(*tokens.shape)).sum(), x)
    expected = torch.zeros(4, 16, dtype=torch.bool).scatter_(1, context, True)
    assert not expected.all()
    assert torch.equal(patchify(gradient, 8).abs().amax(dim=2) > 0, expected)


def test_ijepa_sees_the_context_only_and_its_target_moves_slowly():
    images = load("shapes", "train", size=32, n=64).images
    module = methods.build(IJEPA, short(IJEPA))
    x, context, targets = module.views(images[:4], step_generator(0, 0))
    x.requires_grad_()
    tokens = module.encode(x, context)
    (gradient,) = torch.autograd.grad((tokens * numbers(*tokens.shape)).sum(), x)
    seen = patchify(gradient, 4).abs().amax(dim=2) > 0
    expected = torch.zeros(4, 64, dtype=torch.bool).scatter_(1, context, True)
    assert torch.equal(seen, expected)
    out = module([x, context, targets])
    assert not out["target"].requires_grad
    assert out["pred"].shape == out["target"].shape == (4 * 4, targets.shape[2], 128)
    torch.testing.assert_close(out["target"].mean(dim=-1), torch.zeros(16, targets.shape[2]), rtol=0, atol=1e-4)
    old = module.target.norm.weight.clone()
    with torch.no_grad():
        module.backbone.norm.weight.add_(1.0)
    module.after_step(0, 100)
    m = 0.98 + 0.02 / 100
    torch.testing.assert_close(module.target.norm.weight, old + (1 - m))
    assert not any(p.requires_grad for p in module.target.parameters())


def test_ijepa_learns_on_shapes_in_seconds(tmp_path):
    data = load("shapes", "train", size=32, n=320)
    config = short(IJEPA, steps=60, m=1.0)  # a fixed random target: the loss alone says whether it is learned
    module = methods.build(IJEPA, config)
    views = module.views(data.images[:64], step_generator(0, 0))
    before = module.eval()(views)["loss"]
    fit(module, data, config, tmp_path / "run", progress=False)
    assert module.eval()(views)["loss"] < 0.9 * before
    with pytest.raises(InputError, match="momentum"):
        IJEPA(replace(config, m=1.5))


@pytest.mark.parametrize("cls", [VideoMAE, MaskFeatVideo, UnmaskedTeacher, IJEPA])
def test_every_preset_builds(cls):
    for config in cls.PRESETS.values():
        assert methods.get(cls.name)(config).backbone.num_features > 0
