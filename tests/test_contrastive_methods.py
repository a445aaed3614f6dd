"""Methods of parts 1 to 4: views, gradients, presets, learning, resuming, and monitors that see a collapse."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sslcourse import methods
from sslcourse.data.load import load
from sslcourse.data.rng import step_generator
from sslcourse.data.saliency import SaliencyNet, border_contrast, robust_background, superpixels
from sslcourse.errors import InputError
from sslcourse.losses import info_nce, moco_logits
from sslcourse.methods.dilo import backgrounds
from sslcourse.methods.moco import MoCo
from sslcourse.train import CollapseWarning, fit, load_model, read_log

# Pretext tasks: steps after which the loss has fallen by so much.
PRETEXT = {
    "rotation": (80, 0.03),
    "jigsaw": (40, 0.02),
    "context_prediction": (60, 0.02),
    "colorization": (40, 0.2),
    "inpainting": (40, 0.1),
    "denoising": (40, 0.1),
}
CONTRASTIVE = ("moco_v1", "moco_v2", "moco_v3", "mochi", "hcl", "supcon", "densecl", "dilo", "looc")
MEMORIES = ("instance_discrimination", "cmc")
FEW_LABELS = ("pseudo_label", "uda", "mixmatch", "fixmatch")
METHODS = pytest.mark.parametrize("name", [*CONTRASTIVE, *PRETEXT, *MEMORIES, *FEW_LABELS])


@pytest.fixture(scope="module")
def shapes():
    return load("shapes", "train", size=24, n=256)


def tiny(name, **settings):
    config = methods.get(name).PRESETS["cpu"]
    train = {"batch_size": 16, "warmup_epochs": 0.5, "log_every": 1, "monitor_every": 5, "accelerator": "cpu"}
    # Weak colour jitter, so that a few steps are enough: most of the presets' views take thousands of images to match.
    compared = name in (*CONTRASTIVE, *MEMORIES, "rotation")
    weak = {"jitter": (0.4, 0.4, 0.4, 0.1), "gray": 0.0, "solarize": 0.0} if compared else {}
    small = {} if name in ("jigsaw", "context_prediction") else {"augment": replace(config.augment, size=24, **weak)}
    fits = {"queue": 128} if hasattr(config, "queue") else {}
    fits |= {"grid": 3} if name == "densecl" else {}
    fits |= {"n_hard": 32} if name == "mochi" else {}
    own = {key: settings.pop(key) for key in list(settings) if hasattr(config, key)}
    return replace(config, **(fits | small | own), train=replace(config.train, **(train | settings)))


def outputs(module, data, n=8, step=0):
    if module.name in FEW_LABELS:
        module.risen.fill_(1.0)
    known = {"labels": data.labels[:n], "indices": torch.arange(n)}
    views = module.views(data.images[:n], step_generator(0, step))
    return module(views, **{key: known[key] for key in getattr(module, "uses", ())})


@METHODS
def test_views_follow_the_seed_and_the_gradient_reaches_everything_that_is_trained(name, shapes):
    module = methods.build(name, tiny(name))
    one, two, other = (module.views(shapes.images[:8], step_generator(3, s)) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], other[0])
    out = outputs(module, shapes)
    assert out["embedding"].shape[0] == 8
    out["loss"].backward()
    idle = [n for n, p in module.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert idle == []


@METHODS
def test_every_preset_builds(name):
    cls = methods.get(name)
    for config in cls.PRESETS.values():
        if name not in ("jigsaw", "colorization"):  # permutations and colours cannot be listed without memory
            with torch.device("meta"):
                assert cls(config).backbone.num_features > 0
        assert config.train.epochs >= 10


@pytest.mark.parametrize("name", PRETEXT)
def test_it_gets_better_at_its_pretext_task_in_seconds(name, shapes, tmp_path):
    steps, fall = PRETEXT[name]
    few = shapes.subset(torch.arange(64))
    fit(
        name,
        few,
        tiny(name, steps=steps, epochs=40, **({"lr": 3e-3} if name == "rotation" else {})),
        tmp_path / "run",
        progress=False,
    )
    losses = [line["loss"] for line in read_log(tmp_path / "run")]
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - fall


def matched(module, data):
    """Share of images whose second view is nearer to the first view than that of any other image."""
    with torch.no_grad():
        out = outputs(copy.deepcopy(module), data, n=128, step=10**6)
    first, second = (F.normalize(out[key], dim=1) for key in ("embedding", "positive"))
    return ((first @ second.T).argmax(dim=1) == torch.arange(128)).float().mean().item()


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_it_learns_to_tell_images_apart_in_seconds(name, shapes, tmp_path):
    settings = {"m": 0.9} if hasattr(tiny(name), "m") else {}
    settings |= {"labels": False} if name == "supcon" else {}
    settings |= {"ratio": 0.1} if name == "dilo" else {}  # half of the pairs could not be matched on other backgrounds
    config = tiny(name, steps=60, epochs=10, lr=3e-3, batch_size=32, **settings)
    module = methods.build(name, config)
    before = matched(module, shapes)
    fit(module, shapes, config, tmp_path / "run", progress=False)
    assert matched(module, shapes) > before + 0.04


@pytest.mark.parametrize("name", MEMORIES)
def test_images_come_nearer_to_their_memories_than_to_those_of_others(name, shapes, tmp_path):
    """After 24 epochs an embedding is that of its own image's memory more often than an untrained one."""
    few = shapes.subset(torch.arange(128))
    config = tiny(name, steps=192, lr=3e-3, images=128, negatives=64)
    module = methods.build(name, config)

    def found(module):
        with torch.no_grad():
            v = module.embed(module.views(few.images, step_generator(0, 0))[0])[0]
        return ((v @ module.memories[-1].T).topk(5).indices == torch.arange(128)[:, None]).any(1).float().mean().item()

    assert found(module) < 0.15
    fit(module, few, config, tmp_path / "run", progress=False)
    assert found(module) > 0.25
    assert module.seen == 128
    with pytest.raises(InputError, match="needs a higher --images"):
        fit(name, shapes, tiny(name, steps=1, images=16, batch_size=256), tmp_path / "refused", progress=False)


def test_a_memory_moves_by_its_momentum(shapes):
    module = methods.build("instance_discrimination", tiny("instance_discrimination", m=0.25, images=64))
    views = module.views(shapes.images[:8], step_generator(0, 0))
    before, v = module.memories.clone(), module.embed(views[0])[0].detach()
    rows = torch.tensor([3, 9, 11, 20, 31, 40, 41, 63])
    module(views, indices=rows)
    torch.testing.assert_close(module.memories[0, rows], F.normalize(0.75 * v + 0.25 * before[0, rows], dim=1))
    others = torch.ones(64, dtype=torch.bool)
    others[rows] = False
    assert torch.equal(module.memories[0, others], before[0, others])
    module.eval()
    module(views, indices=rows)
    torch.testing.assert_close(module.memories[0, rows], F.normalize(0.75 * v + 0.25 * before[0, rows], dim=1))


@pytest.mark.parametrize("name", FEW_LABELS)
def test_only_every_so_many_th_label_is_looked_at(name, shapes):
    module = methods.build(name, tiny(name, one_in=4))
    module.risen.fill_(1.0)
    views, indices = module.views(shapes.images[:16], step_generator(0, 0)), torch.arange(16)
    wrong = torch.where(indices % 4 == 0, shapes.labels[:16], (shapes.labels[:16] + 3) % 10)
    known = [module(views, labels=labels, indices=indices)["loss"] for labels in (shapes.labels[:16], wrong)]
    torch.testing.assert_close(known[0], known[1])
    changed = module(views, labels=(shapes.labels[:16] + 1) % 10, indices=indices)["loss"]
    assert (changed - known[0]).abs() > 1e-3
    with pytest.raises(InputError, match="--classes"):
        module(views, labels=torch.full((16,), 10), indices=indices)


@pytest.mark.parametrize("name", FEW_LABELS)
def test_the_classifier_learns_its_labelled_images(name, shapes, tmp_path):
    config = tiny(name, steps=120, lr=3e-3, one_in=2, **({"weight": 5.0} if name == "mixmatch" else {}))
    few = shapes.subset(torch.arange(64))
    module = methods.build(name, config)
    fit(module, few, config, tmp_path / "run", progress=False)
    x = module.views(few.images, step_generator(1, 1))[0]
    with torch.no_grad():
        right = module.head(module.backbone(x)).argmax(dim=1) == few.labels
    assert right[::2].float().mean() > 0.4


@pytest.mark.parametrize("name", ["moco_v2", "moco_v3", "densecl", "looc", "colorization", "supcon", "cmc", "mixmatch"])
def test_a_resumed_run_gives_the_same_bits(name, shapes, tmp_path, monkeypatch):
    config = tiny(name, steps=6, checkpoint_every=3)
    fit(name, shapes, config, tmp_path / "whole", progress=False)
    module, steps = methods.build(name, config), []
    after = getattr(module, "after_step", lambda *_: None)

    def die(step, total):
        after(step, total)
        steps.append(step)
        if step == 4:
            raise KeyError("killed")

    module.after_step = die
    with pytest.raises(KeyError):
        fit(module, shapes, config, tmp_path / "parts", progress=False)
    fit(name, shapes, config, tmp_path / "parts", resume=True, progress=False)
    a, b = (load_model(tmp_path / run).state_dict() for run in ("whole", "parts"))
    torch.testing.assert_close(a, b, rtol=0, atol=0)


# --- What keeps each from collapsing --------------------------------------------------------------------------------


def attraction_only(name):
    """The method without its negatives: only the positive pair is left in the loss."""

    class Without(methods.get(name)):
        def forward(self, views, **known):
            out = super().forward(views, **known)
            online, second = (F.normalize(out[key], dim=1) for key in ("embedding", "positive"))
            return out | {"loss": (online - second).pow(2).sum(1).mean()}

    return Without


@pytest.mark.parametrize("name", ["moco_v1", "moco_v2", "mochi", "hcl", "supcon", "densecl", "dilo", "looc"])
def test_without_negatives_it_collapses_and_the_monitor_says_so(name, shapes, tmp_path):
    # Batch norm in the head would be another safeguard. Views that differ much pull harder.
    preset = methods.get(name).PRESETS["cpu"]
    settings: dict = {"augment": replace(preset.augment, size=24)}
    settings |= {"m": 0.0} if hasattr(preset, "m") else {}
    settings |= {"bn": False} if hasattr(tiny(name), "bn") else {}
    config = tiny(name, steps=60, epochs=10, lr=0.03, **settings)
    module = methods.build(attraction_only(name), config)
    if name == "hcl":
        module.head = torch.nn.Linear(module.backbone.num_features, 16)
    with pytest.warns(CollapseWarning, match="COLLAPSE"):
        fit(module, shapes, config, tmp_path / "run", progress=False)


# --- MoCo -----------------------------------------------------------------------------------------------------------


def test_moco_without_momentum_and_queue_is_info_nce_in_one_direction(shapes):
    module = methods.build("moco_v1", tiny("moco_v1", m=0.0, queue=0))
    with torch.no_grad():
        module.head[0].weight.mul_(1.5)
    module.after_step(0, 10)
    views = module.views(shapes.images[:8], step_generator(0, 0))
    q, k = (module.head(module.backbone(x)) for x in views[:2])
    torch.testing.assert_close(module(views)["loss"], info_nce(q, k, tau=module.config.tau))


def test_keys_enter_the_queue_after_the_loss_and_only_in_training(shapes):
    module = methods.build("moco_v2", tiny("moco_v2"))
    before = module.queue.keys.clone()
    out = outputs(module, shapes)
    logits, labels = moco_logits(out["embedding"], out["positive"], before, module.config.tau)
    torch.testing.assert_close(out["loss"], F.cross_entropy(logits, labels))
    torch.testing.assert_close(module.queue.keys[:8], F.normalize(out["positive"], dim=1))
    assert torch.equal(module.queue.keys[8:], before[8:])
    assert module.queue.ptr == 8
    module.eval()
    outputs(module, shapes)
    assert module.queue.ptr == 8


def test_shuffling_changes_the_groups_of_batch_norm_and_nothing_else(shapes):
    config = tiny("moco_v1")
    x, order = MoCo(config).views(shapes.images[:8], step_generator(0, 0))[1:]
    plain, shuffled, grouped = (methods.build("moco_v1", replace(config, **c)) for c in (
        {}, {"bn_groups": 2}, {"bn_groups": 2, "shuffle": False}))  # fmt: skip
    torch.testing.assert_close(shuffled.eval().keys(x, order), plain.eval().keys(x, order))
    assert not torch.allclose(shuffled.train().keys(x, order), grouped.keys(x, order))


def test_a_vit_of_moco_v3_has_fixed_positions_and_patches():
    config = replace(tiny("moco_v3"), backbone="vit_mini_patch4")
    vit = methods.build("moco_v3", config).backbone
    assert not vit.pos_embed.requires_grad
    assert not any(p.requires_grad for p in vit.patch_embed.parameters())
    assert vit.pos_embed[0, 0].abs().sum() == 0
    assert vit.pos_embed[0, 1:].unique(dim=0).shape[0] == 36


# --- DenseCL, DiLo, LooC, SupCon ------------------------------------------------------------------------------------


@pytest.mark.parametrize("match", ["projected", "random", "geometric"])
def test_densecl_has_other_ways_to_match(match, shapes):
    out = outputs(methods.build("densecl", tiny("densecl", match=match)), shapes)
    assert out["loss"].isfinite()


@pytest.mark.parametrize("kind", ["image", "texture", "gray"])
def test_a_background_is_not_the_object(kind):
    scenes = load("shapes", "test", size=32, n=8).images.float() / 255
    scene = backgrounds(scenes, border_contrast(scenes), kind, step_generator(0, 0))
    assert scene.shape == scenes.shape
    assert 0 <= scene.min() <= scene.max() <= 1
    assert (scene - scenes).abs().amax(dim=(1, 2, 3)).min() > 0.05


def test_saliency_finds_a_disc_on_a_textured_ground():
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    disc = ((y - 14) ** 2 + (x - 18) ** 2) < 64
    image = torch.tensor([40.0, 120.0, 60.0]).view(3, 1, 1) + 10 * torch.randn(
        3, 32, 32, generator=torch.Generator().manual_seed(0)
    )
    image = torch.where(disc, torch.tensor([220.0, 60.0, 40.0]).view(3, 1, 1), image).clamp(0, 255).to(torch.uint8)
    for method in (border_contrast, robust_background):
        found = method(image[None])[0, 0]
        assert found.min() == 0
        assert found.max() == 1
        assert found[disc].mean() > 3 * found[~disc].mean()
    flat = torch.full((1, 3, 16, 16), 128, dtype=torch.uint8)
    assert robust_background(flat).isfinite().all()
    assert superpixels(torch.rand(1, 3, 16, 24), grid=4).unique().numel() <= 16


def test_a_small_network_learns_saliency_from_masks():
    generator = torch.Generator().manual_seed(0)
    corner = torch.randint(2, 20, (64, 2, 1), generator=generator)
    along = torch.arange(32)
    rows, columns = ((along >= c) & (along < c + 9) for c in corner.unbind(1))
    mask = (rows[:, :, None] & columns[:, None, :])[:, None]
    x = torch.where(mask, 200, 60) + torch.randint(-30, 30, (64, 3, 32, 32), generator=generator)
    net = SaliencyNet(8).fit(x[:48].to(torch.uint8), mask[:48], steps=60)
    found = net(x[48:].to(torch.uint8)) > 0.5
    assert (found & mask[48:]).sum() / (found | mask[48:]).sum() > 0.8


def test_looc_shares_one_augmentation_with_each_key(shapes):
    module = methods.build("looc", tiny("looc", augmentations=("rotation",)))
    plain = replace(module.config.augment, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter_p=0.0, gray=0.0)
    module.config = replace(module.config, augment=replace(plain, solarize=0.0, blur=0.0))
    q, k0, k1 = module.views(shapes.images[:32], step_generator(0, 0))
    torch.testing.assert_close(q, k1)
    same = torch.isclose(q, k0, atol=1e-4).flatten(1).all(1).float().mean()
    assert same < 0.6
    both = methods.build("looc", tiny("looc", augmentations=("color", "rotation"), concatenate=True))
    assert both.backbone.num_features == 256 + 3 * 256
    assert len(both.queues) == 3


def test_supcon_asks_for_labels(shapes, tmp_path):
    unlabelled = replace(shapes, labels=torch.full_like(shapes.labels, -1))
    with pytest.raises(InputError, match="needs a label"):
        fit("supcon", unlabelled, tiny("supcon", steps=1), tmp_path / "a", progress=False)
    fit("supcon", unlabelled, tiny("supcon", steps=1, labels=False), tmp_path / "b", progress=False)
    inside = outputs(methods.build("supcon", tiny("supcon", loss="in")), shapes)["loss"]
    assert inside <= outputs(methods.build("supcon", tiny("supcon")), shapes)["loss"]


def test_bad_settings_are_refused():
    for name, settings in (
        ("moco_v1", {"tau": 0.0}),
        ("moco_v3", {"m": 2.0}),
        ("densecl", {"match": "nearest"}),
        ("supcon", {"loss": "both"}),
        ("looc", {"augmentations": ("blur",)}),
        ("dilo", {"saliency": "eyes"}),
        ("mochi", {"n_hard": 1000}),
        ("cmc", {"negatives": 0}),
        ("fixmatch", {"one_in": 0}),
        ("denoising", {"damage": "fire"}),
        ("context_prediction", {"patch": 20}),
    ):
        with pytest.raises(InputError) as error:
            methods.build(name, tiny(name, **settings))
        assert "\n" not in str(error.value)
