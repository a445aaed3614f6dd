"""BEiT, SimMIM, MaskFeat and the dVAE: what they see, what they are asked, that they learn on `Shapes`."""

from dataclasses import replace

import pytest
import torch

from sslcourse import methods
from sslcourse.commands.pretrain import missing_teacher
from sslcourse.data.hog import hog_targets
from sslcourse.data.load import load
from sslcourse.data.rng import step_generator
from sslcourse.errors import InputError
from sslcourse.losses.dvae import gumbel_dvae_step, gumbel_noise, tau_schedule
from sslcourse.losses.masked import beit_loss
from sslcourse.methods.beit import BEiT
from sslcourse.methods.data2vec import Data2Vec
from sslcourse.methods.deit import DeiT
from sslcourse.methods.dvae import DiscreteVAE
from sslcourse.methods.mae import MAE
from sslcourse.methods.maskfeat import MaskFeat
from sslcourse.methods.simclr import SimCLR
from sslcourse.methods.simmim import SimMIM
from sslcourse.nn.patches import patchify
from sslcourse.nn.targets import PseudoLabelTarget, TeacherTarget, patch_target
from sslcourse.train import fit, load_model

SIDE = 32
METHODS = {"beit": BEiT, "simmim": SimMIM, "maskfeat": MaskFeat}
EACH = pytest.mark.parametrize("cls", METHODS.values(), ids=METHODS)


def small(cls, **changes):
    config = cls.PRESETS["cpu"]
    train = {"warmup_epochs": 0.5, "monitor_every": 20, "batch_size": 32} | changes.pop("train", {})
    return replace(config, train=replace(config.train, **train), **changes)


@pytest.fixture(scope="module")
def shapes():
    return load("shapes", "train", size=SIDE, n=640)


def views(module, shapes, n=4):
    return module.views(shapes.images[:n], step_generator(0, 0))


@EACH
def test_the_prediction_does_not_depend_on_hidden_pixels(cls, shapes):
    module = methods.build(cls, small(cls))
    x, mask = views(module, shapes)
    x.requires_grad_()
    pred = module([x, mask])["pred"]
    weights = torch.randn(pred.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((pred * weights).sum(), x)
    seen = patchify(gradient, 4).abs().amax(dim=2)
    hidden = mask.flatten(1)
    assert (seen[hidden] == 0).all()
    assert (seen[~hidden] > 0).all()
    assert 0 < hidden.sum() < hidden.numel()


@EACH
def test_the_loss_looks_at_hidden_places_only(cls, shapes):
    module = methods.build(cls, small(cls))
    x, mask = views(module, shapes)
    out = module([x, mask])
    (gradient,) = torch.autograd.grad(out["loss"], out["pred"])
    per_patch = (patchify(gradient, 4) if cls is SimMIM else gradient).abs().amax(dim=2)
    assert (per_patch[~mask.flatten(1)] == 0).all()
    assert (per_patch[mask.flatten(1)] > 0).all()


@EACH
def test_where_nothing_is_hidden_the_loss_is_over_everything(cls, shapes):
    module = methods.build(cls, small(cls, ratio=0.0))
    x, mask = views(module, shapes)
    out = module([x, mask])
    assert not mask.any()
    assert out["loss"].isfinite()
    (gradient,) = torch.autograd.grad(out["loss"], out["pred"])
    assert (gradient.abs().flatten(2).amax(dim=2) > 0).all()


@EACH
def test_one_seed_gives_one_mask_and_another_another(cls, shapes):
    module = methods.build(cls, small(cls))
    first = module.views(shapes.images[:4], step_generator(3, 5))
    torch.testing.assert_close(first, module.views(shapes.images[:4], step_generator(3, 5)), rtol=0, atol=0)
    assert not torch.equal(first[1], module.views(shapes.images[:4], step_generator(3, 6))[1])


@EACH
def test_it_learns_on_shapes_in_seconds(cls, shapes, tmp_path):
    config = small(cls, train={"steps": 40}, **({"vocabulary": 16} if cls is BEiT else {}))
    module = methods.build(cls, config)
    x = views(module, shapes, 64)
    module.train()(x)  # a codebook comes from the first batch it sees
    before = module.eval()(x)["loss"]
    fit(module, shapes, config, tmp_path / "run", progress=False)
    after = module.eval()(x)["loss"]
    assert after < before - 0.02
    assert after < 0.85 * before


@pytest.mark.parametrize("cls", [*METHODS.values(), DiscreteVAE], ids=[*METHODS, "dvae"])
def test_every_preset_builds(cls):
    for config in cls.PRESETS.values():
        with torch.device("meta"):
            assert methods.get(cls.name)(config).backbone.num_features > 0


def test_simmim_hides_whole_squares_and_paints_the_rest_over_nothing_else(shapes):
    module = methods.build(SimMIM, small(SimMIM))
    x, mask = views(module, shapes)
    assert mask.shape == (4, 8, 8)
    assert torch.equal(mask, mask[:, ::2, ::2].repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert (mask.flatten(1).sum(dim=1) == 4 * 10).all()  # ceil(0.6 * 16) squares of 4 patches
    painted = module.reconstruct([x, mask])
    same = patchify(painted == x, 4).all(dim=2)
    assert same[~mask.flatten(1)].all()
    assert not same[mask.flatten(1)].any()
    with pytest.raises(InputError, match="whole squares"):
        SimMIM(small(SimMIM, mask_patch=12))


def test_maskfeat_asks_for_the_hog_of_the_whole_view(shapes):
    module = methods.build(MaskFeat, small(MaskFeat))
    x, mask = views(module, shapes)
    torch.testing.assert_close(module.target(x), hog_targets(x, 4, cell=2))
    out = module([x, mask])
    error = (out["pred"] - hog_targets(x, 4, cell=2)).square().mean(dim=2)
    torch.testing.assert_close(out["loss"], error[mask.flatten(1)].mean())


@pytest.mark.parametrize("target", ["pixels", "normalized", "pca", "codebook"])
def test_maskfeat_takes_other_targets(shapes, target):
    module = methods.build(MaskFeat, small(MaskFeat, target=target)).train()
    out = module(views(module, shapes))
    out["loss"].backward()
    assert out["loss"].isfinite()
    assert out["pred"].shape == (4, 64, module.target.values)


def test_beit_ablations(shapes):
    x, _ = views(methods.build(BEiT, small(BEiT)), shapes)
    for change in (
        {"mask": "random"},
        {"mask": "paper"},
        {"mask": "exact"},
        {"rel_pos": "blocks"},
        {"rel_pos": "none"},
    ):
        module = methods.build(BEiT, small(BEiT, **change))
        assert module(views(module, shapes))["loss"].isfinite()
    module = methods.build(BEiT, small(BEiT, recover_all=True)).train()
    _, mask = views(module, shapes)
    out = module([x, mask])
    tokens = module.target(x)
    torch.testing.assert_close(out["loss"], beit_loss(out["pred"], tokens, torch.ones_like(tokens, dtype=torch.bool)))
    with pytest.raises(InputError, match="did you mean 'paper'"):
        BEiT(small(BEiT, mask="papr"))


@pytest.mark.parametrize("name", ["swin_mini", "pvt_mini", "convnet"])
@pytest.mark.parametrize("cls", [BEiT, MaskFeat, Data2Vec, MAE])
def test_methods_that_read_tokens_take_no_pyramid(cls, name):
    with pytest.raises(InputError, match=f"needs a ViT as its backbone .* got '{name}'"):
        cls(small(cls, backbone=name))


def test_a_vocabulary_and_a_decoder_have_to_be_there():
    with pytest.raises(InputError, match="vocabulary of 1 token or more; got 0"):
        BEiT(small(BEiT, vocabulary=0))
    for wrong in ({"decoder_depth": -1}, {"decoder_heads": 0}, {"decoder_heads": 7}):
        with pytest.raises(InputError, match="a decoder has 0 blocks or more"):
            MAE(small(MAE, **wrong))


def test_branches_of_beit_start_smaller_the_deeper_they_are():
    blocks = methods.build(BEiT, small(BEiT)).backbone.blocks
    for i, block in enumerate(blocks, start=1):
        for weight in (block.attn.proj.weight, block.mlp.fc2.weight):
            assert weight.detach().std().item() == pytest.approx(0.02 / (2 * i) ** 0.5, rel=0.05)


def test_a_codebook_names_the_nearest_patch(shapes):
    target = patch_target("codebook", 4, vocabulary=16).train()
    x = shapes.images[:32].float() / 255
    ids = target(x)
    assert ids.shape == (32, 64)
    assert len(ids.unique()) > 8
    patch = patchify(x, 4)[3, 20]
    assert ids[3, 20] == (target.table - patch).square().sum(dim=1).argmin()


# --- a supervised teacher ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["vit_mini_patch8", "convnet_fast"])
def supervised(request, shapes, tmp_path_factory):
    config = small(DeiT, backbone=request.param, classes=10, train={"steps": 3, "batch_size": 16, "warmup_epochs": 0.0})
    config = replace(config, augment=replace(config.augment, size=SIDE))
    run = tmp_path_factory.mktemp("deit") / "run"
    fit(methods.build(DeiT, config), shapes, config, run, progress=False)
    return run


@pytest.mark.parametrize("cls", [MaskFeat, BEiT, MAE])
@pytest.mark.parametrize("target", ["pseudo_label", "teacher"])
def test_a_supervised_run_teaches_by_its_classes_or_its_features(cls, target, supervised, shapes, tmp_path):
    config = small(cls, target=target, teacher=str(supervised), train={"steps": 2, "batch_size": 8})
    module = methods.build(cls, config)
    fit(module, shapes, config, tmp_path / "run", progress=False)
    teacher = load_model(supervised)
    out = module(views(module, shapes))
    assert out["loss"].isfinite()
    assert out["pred"].shape[2] == (10 if target == "pseudo_label" else teacher.backbone.num_features)
    for name, value in teacher.backbone.state_dict().items():
        assert torch.equal(module.target.teacher.state_dict()[name], value), name  # batch norm's means too


def test_a_pseudo_label_is_what_the_classifier_says_of_the_place(supervised, shapes):
    teacher = load_model(supervised)
    stride = teacher.backbone.stride
    target = patch_target("pseudo_label", stride, teacher=str(supervised)).train()
    assert isinstance(target, PseudoLabelTarget)
    assert not any(p.requires_grad for p in target.parameters())
    x, _ = views(methods.build(BEiT, small(BEiT)), shapes, 16)
    logits = teacher.head(teacher.backbone.forward_map(x).permute(0, 2, 3, 1)).flatten(1, 2)
    assert torch.equal(target(x), logits.argmax(dim=2))
    if not hasattr(teacher.backbone, "cls_token"):
        torch.testing.assert_close(logits.mean(dim=1), teacher.head(teacher.backbone(x)))
    doubled = patch_target("pseudo_label", stride * 2, teacher=str(supervised))
    assert doubled(torch.nn.functional.interpolate(x, scale_factor=2)).shape == target(x).shape


def test_pseudo_labels_need_a_classifier(shapes, tmp_path):
    config = small(SimCLR, train={"steps": 1, "batch_size": 8})
    config = replace(config, augment=replace(config.augment, size=SIDE))
    fit(methods.build(SimCLR, config), shapes, config, tmp_path / "run", progress=False)
    with pytest.raises(InputError, match="a run of simclr keeps none; name a run of deit"):
        patch_target("pseudo_label", 4, teacher=str(tmp_path / "run"))
    with pytest.raises(InputError, match="belong together"):
        patch_target("pseudo_label", 4)


def test_a_paper_s_preset_says_what_stands_in_for_its_teacher():
    paper = BEiT.PRESETS["imagenet_vit_base"]
    note = missing_teacher("beit", "imagenet_vit_base", paper)
    assert "dVAE, whose place a k-means codebook" in note
    assert "--target teacher --teacher RUN" in note
    assert missing_teacher("beit", "imagenet_vit_base", replace(paper, target="teacher", teacher="run")) == ""
    assert missing_teacher("beit", "imagenet_vit_base", replace(paper, target="hog")) == ""
    assert missing_teacher("beit", "cpu", BEiT.PRESETS["cpu"]) == ""
    assert missing_teacher("mae", "imagenet_vit_base", MAE.PRESETS["imagenet_vit_base"]) == ""
    umt = methods.get("unmasked_teacher").PRESETS["kinetics_vit_base"]
    assert "gradients and HOG" in missing_teacher("unmasked_teacher", "kinetics_vit_base", umt)
    assert missing_teacher("unmasked_teacher", "kinetics_vit_base", replace(umt, teacher="run")) == ""


# --- the dVAE --------------------------------------------------------------------------------------------------------


def test_a_cold_sample_is_one_hot_and_follows_the_probabilities():
    g = torch.Generator().manual_seed(0)
    logits = torch.tensor([0.7, 0.2, 0.1]).log().view(1, 3, 1, 1).expand(4000, 3, 1, 1)
    codes, _ = gumbel_dvae_step(logits, torch.eye(3), 1e-3, gumbel_noise(4000, (3, 1, 1), g))
    assert (codes.amax(dim=1) > 0.99).float().mean() > 0.98
    torch.testing.assert_close(codes.mean(dim=(0, 2, 3)), torch.tensor([0.7, 0.2, 0.1]), rtol=0, atol=0.03)


def test_straight_through_is_one_hot_forward_and_relaxed_backward():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 3, 4, generator=g, dtype=torch.float64).requires_grad_()
    codebook, noise = torch.randn(5, 6, generator=g, dtype=torch.float64), gumbel_noise(2, (5, 3, 4), g).double()
    hard, _ = gumbel_dvae_step(logits, codebook, 0.7, noise, hard=True)
    ids = (logits + noise).argmax(dim=1)
    torch.testing.assert_close(hard, codebook[ids].permute(0, 3, 1, 2))
    soft, _ = gumbel_dvae_step(logits, codebook, 0.7, noise)
    weight = torch.randn(hard.shape, generator=g, dtype=torch.float64)
    a, b = (torch.autograd.grad((codes * weight).sum(), logits)[0] for codes in (hard, soft))
    torch.testing.assert_close(a, b)
    assert a.abs().max() > 0
    assert torch.autograd.gradcheck(lambda z: gumbel_dvae_step(z, codebook, 0.7, noise), logits)


def test_the_divergence_is_0_for_even_tokens_and_log_k_for_sure_ones():
    codebook, noise = torch.eye(4), torch.zeros(1, 4, 1, 2)
    even = gumbel_dvae_step(torch.full((1, 4, 1, 2), 3.0), codebook, 1.0, noise)[1]
    torch.testing.assert_close(even, torch.tensor(0.0), rtol=0, atol=1e-6)
    sure = 1e4 * torch.eye(4)[None, :, :1, None].expand(1, 4, 1, 2)
    torch.testing.assert_close(gumbel_dvae_step(sure, codebook, 1.0, noise)[1], torch.tensor(4.0).log())


def test_the_temperature_falls_from_1_to_a_sixteenth():
    taus = [tau_schedule(step, 100) for step in range(101)]
    assert taus[0] == 1.0
    assert taus[-1] == 1 / 16
    assert taus == sorted(taus, reverse=True)
    for bad in (0.0, -1.0):
        with pytest.raises(InputError, match="above 0"):
            gumbel_dvae_step(torch.zeros(1, 2, 1, 1), torch.eye(2), bad, torch.zeros(1, 2, 1, 1))
    with pytest.raises(InputError, match="codebook of 2 rows"):
        gumbel_dvae_step(torch.zeros(1, 2, 1, 1), torch.eye(3), 1.0, torch.zeros(1, 2, 1, 1))


def test_a_dvae_learns_to_paint_with_tokens_and_teaches_beit(shapes, tmp_path):
    config = small(DiscreteVAE, train={"steps": 60})
    module = methods.build(DiscreteVAE, config)
    x, _ = views(module, shapes, 64)
    fit(module, shapes, config, tmp_path / "dvae", progress=False)
    assert float(module.tau) == pytest.approx(1 / 16)
    dvae = module.eval().backbone
    error = (dvae.decode(dvae.tokenize(x)) - x).square().mean()
    assert error < 0.5 * (x - x.mean(dim=(0, 2, 3), keepdim=True)).square().mean()
    assert len(dvae.tokenize(x).unique()) > 8
    torch.testing.assert_close(dvae(x).sum(dim=1), torch.ones(64))

    student = methods.build(BEiT, small(BEiT, target="teacher", teacher=str(tmp_path / "dvae")))
    assert isinstance(student.target, TeacherTarget)
    assert student.target.values == 128
    assert not any(p.requires_grad for p in student.target.parameters())
    batch = views(student, shapes)
    assert torch.equal(student.target(batch[0]), load_model(tmp_path / "dvae").backbone.tokenize(batch[0]).flatten(1))
    student(batch)["loss"].backward()
    with pytest.raises(InputError, match="belong together"):
        patch_target("teacher", 4)
    with pytest.raises(InputError, match="belong together"):
        patch_target("hog", 4, teacher="somewhere")
