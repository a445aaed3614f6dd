"""CLIP and SigLIP on captioned scenes: what their forward computes, that they learn, what they refuse."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sslcourse import methods
from sslcourse.data.augment import center_view
from sslcourse.data.captioned import HELD_OUT, PAIRS, captioned, combinations, pairs_of
from sslcourse.data.images import Images
from sslcourse.data.load import load
from sslcourse.data.rng import step_generator
from sslcourse.data.shapes import CLASSES, COLOURS, Shapes
from sslcourse.errors import InputError
from sslcourse.evaluate.zeroshot import clip_retrieval_recall
from sslcourse.losses.clip import clip_loss, siglip_loss
from sslcourse.methods.clip import CLIP
from sslcourse.methods.siglip import SigLIP
from sslcourse.nn.vocabulary import Vocabulary
from sslcourse.train import fit, load_model, read_log

SIDE = 24


def small(cls: type, **train: object):
    base = cls.PRESETS["cpu"]
    settings = {"batch_size": 32, "warmup_epochs": 0.5, "log_every": 5, "monitor_every": 20} | train
    return replace(
        base,
        dim=32,
        text_dim=32,
        text_depth=1,
        augment=replace(base.augment, size=SIDE),
        train=replace(base.train, **settings),
    )


@pytest.fixture(scope="module")
def scenes() -> Images:
    return captioned("train", 320, SIDE)


def test_two_colours_of_every_shape_are_held_out() -> None:
    assert len(PAIRS) == len(CLASSES) * len(COLOURS)
    assert len(set(HELD_OUT)) == len(HELD_OUT) == 20
    kinds, colours = np.divmod(HELD_OUT, len(COLOURS))
    assert np.bincount(kinds).tolist() == np.bincount(colours).tolist() == [2] * 10
    for pair in HELD_OUT[:3]:
        assert PAIRS[pair] == f"{list(COLOURS)[pair % 10]} {CLASSES[pair // 10]}"


def test_no_training_scene_shows_or_names_a_held_out_pair(scenes: Images) -> None:
    for name in (PAIRS[pair] for pair in HELD_OUT):
        colour, kind = name.split()
        for five in scenes.captions:
            assert f"{colour} {kind}" not in five[1]  # the brief one, which names colour and shape only
    assert max(len(five[1].split(" and ")) for five in scenes.captions) == 2  # some scenes have three objects
    assert scenes.images.shape == (320, 3, SIDE, SIDE)
    assert len(scenes.captions) == 320


def test_combinations_are_scenes_of_one_pair() -> None:
    for held_out in (True, False):
        found = combinations("test", 60, 16, held_out=held_out)
        assert bool(torch.isin(found.labels, torch.tensor(HELD_OUT)).all()) == held_out
        assert found.classes == PAIRS
    p = Shapes("test", 16, preset="captions").parameters(range(50))
    assert ((pairs_of(p) >= 0).sum(1) == p.count).all()


def test_captions_stay_with_their_images(scenes: Images) -> None:
    index = torch.tensor([5, 2, 9])
    assert scenes.subset(index).captions == [scenes.captions[i] for i in (5, 2, 9)]
    mask = torch.zeros(320, dtype=torch.bool)
    mask[7] = True
    assert scenes.subset(mask).captions == [scenes.captions[7]]
    assert load("captions", "train", size=SIDE, n=3).captions == scenes.captions[:3]
    with pytest.raises(InputError, match="captions of 1"):
        Images(scenes.images[:2], scenes.labels[:2], captions=[["a star"]])


def test_a_vocabulary_is_kept_with_the_weights(scenes: Images) -> None:
    words = [text for five in scenes.captions for text in five]
    learned, read = Vocabulary(1024, 32), Vocabulary(1024, 32)
    learned.learn(words)
    read.load_state_dict(learned.state_dict())
    assert read(words[:20]).equal(learned(words[:20]))
    assert learned(words[:20]).max() < 1024
    learned.keep([["a star", "a red star"], ["a moon"], ["one", "two", "three"]])
    drawn = learned.draw(torch.tensor([2, 0, 0, 1, 2]), torch.tensor([0.99, 0.0, 0.5, 0.9, 0.4]))
    assert drawn.equal(learned(["three", "a star", "a red star", "a moon", "two"]))
    with pytest.raises(InputError, match="at least 514"):
        Vocabulary(100, 32)


@pytest.mark.parametrize("cls", [CLIP, SigLIP])
def test_the_loss_is_that_of_the_drawn_pairs(cls: type, scenes: Images) -> None:
    module = methods.build(cls, small(cls))
    module.prepare(scenes)
    indices = torch.tensor([3, 1, 200, 17])
    views = module.views(scenes.images[indices], step_generator(0, 1))
    out = module(views, indices=indices)
    texts = [scenes.captions[i][int(5 * u)] for i, u in zip(indices.tolist(), views[1].tolist(), strict=True)]
    img, txt = module.encode_image(views[0]), module.encode_text(texts)
    if cls is CLIP:
        expected = clip_loss(img, txt, module.logit_scale)
        assert module.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    else:
        expected = siglip_loss(img, txt, 10.0, -10.0)
    torch.testing.assert_close(out["loss"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(F.normalize(out["positive"], dim=1), txt, rtol=1e-4, atol=1e-5)
    out["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_the_factor_of_clip_is_limited_and_that_of_siglip_is_not() -> None:
    for cls, kept in ((CLIP, 100.0), (SigLIP, 1000.0)):
        module = methods.build(cls, small(cls))
        module.logit_scale.data.fill_(np.log(1000.0))
        module.after_step(0, 1)
        assert module.logit_scale.exp().item() == pytest.approx(kept, rel=1e-4)


def test_siglips_text_tower_sees_the_padding_and_clips_does_not(scenes: Images) -> None:
    for cls, differs in ((CLIP, False), (SigLIP, True)):
        module = methods.build(cls, small(cls)).eval()
        module.prepare(scenes)
        ids = module.vocabulary(["a red star"])
        other = ids.clone()
        other[0, -3] = 5
        assert torch.allclose(module.text(ids), module.text(other), atol=1e-6) != differs


@pytest.mark.parametrize("cls", [CLIP, SigLIP])
def test_it_learns_in_seconds_and_comes_back_from_its_file(cls: type, scenes: Images, tmp_path: Path) -> None:
    config = small(cls, steps=90 if cls is CLIP else 160, epochs=100, lr=2e-2)
    module = methods.build(cls, config)
    fit(module, scenes, config, tmp_path / "run", progress=False)
    losses = [line["loss"] for line in read_log(tmp_path / "run")]
    assert losses[-1] < losses[0] - 0.3
    with torch.no_grad():
        img = module.eval().encode_image(center_view(scenes.images[:100], SIDE))
        txt = module.encode_text([five[0] for five in scenes.captions[:100]])
    assert clip_retrieval_recall(img, txt, [[i] for i in range(100)], 10) > 0.25  # by chance 0.1
    again = load_model(tmp_path / "run").eval()
    texts = [five[0] for five in scenes.captions[:8]]
    torch.testing.assert_close(again.encode_text(texts), module.eval().encode_text(texts))


@pytest.mark.parametrize("cls", [CLIP, SigLIP])
@pytest.mark.parametrize("name", CLIP.PRESETS)
def test_every_preset_builds(cls: type, name: str) -> None:
    with torch.device("meta"):
        assert cls(cls.PRESETS[name]).backbone.num_features > 0


def test_what_cannot_be_learned_from_is_refused(scenes: Images) -> None:
    module = methods.build(CLIP, small(CLIP))
    with pytest.raises(InputError, match="this data has none; train on --data captions"):
        module.prepare(replace(scenes, captions=[]))
    with pytest.raises(InputError, match="this data has none"):
        module.prepare(replace(scenes, captions=[[]] * 320))
    with pytest.raises(InputError, match="prepare"):
        module(module.views(scenes.images[:2], step_generator(0, 0)), indices=torch.arange(2))
    module.prepare(scenes)
    with pytest.raises(InputError, match="truncate"):
        module.encode_text("red star " * 40)
    with pytest.raises(InputError, match="at least one image"):
        captioned("train", 0)
