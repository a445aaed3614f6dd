"""CLIP's and SigLIP's towers, their files, and what is done with them: zero-shot, retrieval, images as files."""

import inspect
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sslcourse.data.preprocess import clip_preprocess, open_image
from sslcourse.errors import InputError
from sslcourse.evaluate.zeroshot import (
    clip_retrieval_recall,
    ensemble,
    prompt_logits,
    top_k,
    zero_shot_accuracy,
    zero_shot_weights,
)
from sslcourse.nn.clip import CLIP, CLIPViT, SigLIPViT, to_half
from sslcourse.nn.clip_resnet import CLIPResNet
from sslcourse.nn.text import TextTransformer, interpolate_text_pos, quick_gelu
from sslcourse.zoo.clip import clip, model_of

TEXT = {"vocab_size": 30, "context_length": 6, "dim": 16, "depth": 2, "n_heads": 2, "out": 8}


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny(**text: object) -> CLIP:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CLIP(CLIPViT(32, 16, 16, 1, 2, 8), TextTransformer(**(TEXT | text))).eval()


def test_a_causal_text_tower_does_not_see_what_follows_the_end() -> None:
    tokens = torch.tensor([[28, 3, 29, 0, 0, 0]])
    other = torch.tensor([[28, 3, 29, 7, 8, 9]])
    model = tiny()
    torch.testing.assert_close(model.encode_text(tokens), model.encode_text(other))
    torch.testing.assert_close(model.encode_text(tokens[:, :3]), model.encode_text(tokens))
    sees_all = tiny(causal=False)
    assert not torch.allclose(sees_all.encode_text(tokens), sees_all.encode_text(other))


def test_logits_are_scaled_cosines() -> None:
    model, x, tokens = tiny(), randn(3, 3, 32, 32), torch.tensor([[28, 1, 29], [28, 2, 29]])
    expected = F.cosine_similarity(model.encode_image(x)[:, None], model.encode_text(tokens)[None], dim=2) / 0.07
    torch.testing.assert_close(model(x, tokens), expected)


@pytest.mark.skipif(find_spec("open_clip") is None, reason="open_clip_torch is not installed")
def test_the_towers_are_those_of_open_clip() -> None:
    from open_clip.model import CLIP as Official

    vision = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
    text = {"context_length": 6, "vocab_size": 30, "width": 16, "heads": 2, "layers": 2}
    official = Official(8, vision, text).eval()
    ours = CLIP(CLIPViT(32, 8, 32, 2, 2, 8), TextTransformer(**TEXT)).eval()
    ours.load_state_dict(clip(official.state_dict(), ours))
    x, tokens = randn(2, 3, 32, 32), torch.tensor([[28, 1, 29, 0, 0, 0], [28, 5, 6, 7, 8, 29]])
    torch.testing.assert_close(ours.encode_image(x), official.encode_image(x))
    torch.testing.assert_close(ours.encode_text(tokens), official.encode_text(tokens))


def test_siglips_image_tower_is_timms_and_its_file_is_read() -> None:
    from timm.models.vision_transformer import VisionTransformer

    shape = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 0}
    official = VisionTransformer(32, 8, class_token=False, global_pool="map", **shape).eval()
    ours = CLIP(SigLIPViT(32, 8, 24, 2, 3), TextTransformer(**(TEXT | {"out": 24}), proj_bias=True), logit_bias=-10.0)
    state = {f"visual.trunk.{key}": value for key, value in official.state_dict().items()}
    own = {k: v for k, v in ours.state_dict().items() if not k.startswith("visual.")}
    state |= {k.replace("text.proj.", "text.text_projection."): v for k, v in own.items()}
    state["logit_bias"] = torch.tensor([-9.0])  # some files keep it as a vector
    ours.load_state_dict(clip(state, ours))
    x = randn(2, 3, 32, 32)
    torch.testing.assert_close(ours.eval().encode_image(x), official(x), atol=1e-5, rtol=1e-4)
    assert ours.logit_bias.item() == -9


def test_a_file_of_openais_layout_describes_its_model() -> None:
    for visual in (CLIPViT(32, 16, 64, 1, 1, 8), CLIPResNet(32, (1, 1, 1, 2), 4, 2, 8)):
        source = CLIP(visual, TextTransformer(30, 6, 64, 2, 1, 8, act=quick_gelu))
        state = {k.removeprefix("text."): v for k, v in to_half(source).state_dict().items()}
        state["text_projection"] = state.pop("proj.weight").T
        if "visual.proj.weight" in state:
            state["visual.proj"] = state.pop("visual.proj.weight").T
        state |= {"input_resolution": torch.tensor(32), "vocab_size": torch.tensor(30)}
        model = model_of(state)
        model.load_state_dict(clip(state, model))
        assert all(p.dtype == torch.float32 for p in model.parameters())
        for key, value in source.state_dict().items():
            assert model.state_dict()[key].to(value.dtype).equal(value)
    with pytest.raises(InputError, match="no CLIP"):
        model_of({"weight": torch.ones(2, 2)})


def test_half_precision_narrows_matrices_only() -> None:
    model = to_half(tiny())
    for key, value in model.state_dict().items():
        narrow = key.endswith(("in_proj_weight", "in_proj_bias", "conv1.weight")) or ".mlp." in key or "proj." in key
        assert value.dtype == (torch.float16 if narrow else torch.float32), key
    z = model.encode_image(randn(1, 3, 32, 32))
    assert z.dtype == torch.float16
    torch.testing.assert_close(z.float(), tiny().encode_image(randn(1, 3, 32, 32)), atol=2e-2, rtol=2e-2)


def test_positions_fit_other_sizes() -> None:
    model = tiny()
    assert model.encode_image(randn(1, 3, 48, 32)).shape == (1, 8)
    assert CLIPResNet(32, (1, 1, 1, 1), 4, 2, 8).eval()(randn(2, 3, 64, 64)).shape == (2, 8)
    assert interpolate_text_pos(randn(6, 4), 10).shape == (10, 4)
    with pytest.raises(InputError, match="do not tile"):
        model.encode_image(randn(1, 3, 33, 32))
    with pytest.raises(InputError, match="L <= 6"):
        model.encode_text(torch.zeros(1, 7, dtype=torch.long))


def test_class_weights_are_normalised_twice_and_keep_the_order() -> None:
    table = {f"{t} {c}": randn(5, seed=10 * i + j) for i, c in enumerate("ab") for j, t in enumerate(("x", "y", "z"))}
    templates = ("x {}", "y {}", "z {}")
    W = zero_shot_weights(lambda texts: torch.stack([table[t] for t in texts]), ["b", "a"], templates, batch_size=2)
    for column, name in zip(W.T, "ba", strict=True):
        mean = sum(table[t.format(name)] / table[t.format(name)].norm() for t in templates) / 3
        torch.testing.assert_close(column, mean / mean.norm())
    img = randn(4, 5, seed=99)
    torch.testing.assert_close(prompt_logits(7 * img, W, 10.0), 10 * F.normalize(img, dim=1) @ W)
    torch.testing.assert_close(ensemble(randn(2, 1, 5)), F.normalize(randn(2, 1, 5)[:, 0], dim=1).T)


def test_top_k_and_accuracy() -> None:
    p, best = top_k(torch.tensor([[0.0, 2.0, 1.0]]), 5)
    assert best.tolist() == [[1, 2, 0]]
    assert p.sum().item() == pytest.approx(1)
    assert zero_shot_accuracy(torch.eye(3), torch.tensor([0, 1, 1]), torch.eye(3)).value == pytest.approx(2 / 3)


def test_retrieval_takes_the_best_caption_and_no_advantage_of_ties() -> None:
    txt = torch.eye(4)
    img = torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.9]])
    assert clip_retrieval_recall(img, txt, [[3, 0], [3]], 1) == 0.5  # the first finds caption 0, the second needs two
    assert clip_retrieval_recall(img, txt, [[3, 0], [3]], 2) == 1
    assert clip_retrieval_recall(torch.ones(2, 3), torch.ones(4, 3), [[0], [1]], 3) == 0
    assert clip_retrieval_recall(torch.ones(2, 3), torch.ones(4, 3), [[0], [1]], 4) == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: zero_shot_weights(lambda t: randn(len(t), 3), []), "one or more class names"),
        (lambda: zero_shot_weights(lambda t: randn(len(t), 3), ["a", " "]), "none blank"),
        (lambda: zero_shot_weights(lambda t: randn(len(t), 3), ["a"], ["a photo"]), "braces"),
        (lambda: prompt_logits(randn(2, 3), randn(2, 3)), r"\(D, C\)"),
        (lambda: top_k(randn(2, 3), 0), "k >= 1"),
        (lambda: clip_retrieval_recall(randn(2, 3), randn(4, 3), [[0], []], 1), "one or more positions"),
    ],
)
def test_bad_input_is_one_sentence(call, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


def test_any_readable_image_is_taken_and_others_are_refused_by_name(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 40 * 50).reshape(40, 50).astype(np.uint16)
    alpha = np.zeros((40, 50, 4), np.uint8)
    Image.fromarray(grey).save(tmp_path / "wide.png")
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "wide.png").read_bytes()[:60])
    plain = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    wide = clip_preprocess(open_image(tmp_path / "wide.png"), 32, *plain)
    assert wide.shape == (3, 32, 32)
    assert wide.min() < 0.1
    assert wide.max() > 0.9
    assert clip_preprocess(open_image(tmp_path / "alpha.png"), 32, *plain).min() == 1  # transparent is white
    for name, words in (("broken.png", "not a readable image"), ("none.png", "no image file")):
        with pytest.raises(InputError, match=words):
            open_image(tmp_path / name)


def test_names_and_parameters_of_the_syllabus() -> None:
    expected = {
        zero_shot_weights: ["encode", "classes", "templates"],
        prompt_logits: ["img", "W", "scale"],
        clip_retrieval_recall: ["img", "txt", "gt_lists", "k"],
    }
    for function, names in expected.items():
        assert list(inspect.signature(function).parameters)[: len(names)] == names
