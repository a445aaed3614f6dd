"""Painting hidden patches: the copy baseline, its score, a trained MAE, and the small one that is shipped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from sslcourse import catalogue, methods
from sslcourse.cli import main
from sslcourse.commands import reconstruct
from sslcourse.data import Shapes
from sslcourse.data.masks import mask_order, random_mask, upsample_mask
from sslcourse.data.rng import step_generator
from sslcourse.errors import InputError
from sslcourse.evaluate.reconstruction import copy_nearest, paint, unexplained
from sslcourse.methods.mae import MAE
from sslcourse.methods.simmim import SimMIM
from sslcourse.methods.ummae import UMMAE
from sslcourse.train import fit, load_model
from sslcourse.train.checkpoint import Run
from sslcourse.train.config import to_dict
from sslcourse.zoo.weights import shipped


def noise_images(b=3, h=8, w=12):
    return torch.rand(b, 3, h, w, generator=torch.Generator().manual_seed(0))


def test_copying_by_hand():
    """One row of four patches of 1 x 1; the ends are visible, and the two hidden ones have one neighbour each."""
    x = torch.tensor([0.0, 9.0, 9.0, 1.0]).view(1, 1, 1, 4)
    mask = torch.tensor([[[False, True, True, False]]])
    assert copy_nearest(x, mask).flatten().tolist() == [0, 0, 1, 1]
    # In the middle of three both ends are equally near.
    assert copy_nearest(x[..., 1:], torch.tensor([[[False, True, False]]])).flatten().tolist() == [9, 5, 1]


def test_copying_paints_the_mean_colour_of_the_nearest_patch_and_leaves_the_others():
    x, generator = noise_images(), torch.Generator().manual_seed(1)
    mask = random_mask(4, 6, 0.75, generator, batch=3)
    copied = copy_nearest(x, mask)
    wide = upsample_mask(mask, 2)[:, None].expand_as(x)
    assert torch.equal(copied[~wide], x[~wide])
    means = x.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    for b, i, j in mask.nonzero().tolist():
        gaps = {(k, m): (k - i) ** 2 + (m - j) ** 2 for k, m in (~mask[b]).nonzero().tolist()}
        near = [means[b, :, k, m] for (k, m), gap in gaps.items() if gap == min(gaps.values())]
        torch.testing.assert_close(copied[b, :, 2 * i, 2 * j], torch.stack(near).mean(dim=0))
        assert torch.equal(copied[b, :, 2 * i, 2 * j], copied[b, :, 2 * i + 1, 2 * j + 1])


def test_unexplained_is_zero_for_the_truth_and_one_for_the_mean_colour():
    x = noise_images()
    mask = random_mask(4, 6, 0.5, torch.Generator().manual_seed(1), batch=3)
    assert unexplained(x, x, mask).tolist() == [0, 0, 0]
    flat = x.mean(dim=(2, 3), keepdim=True).expand_as(x)
    torch.testing.assert_close(unexplained(flat, x, mask), torch.ones(3))
    visible_only = torch.where(upsample_mask(mask, 2)[:, None], x, x + 1)
    assert unexplained(visible_only, x, mask).tolist() == [0, 0, 0], "visible pixels do not count"
    assert unexplained(x, x, torch.zeros_like(mask)).tolist() == [0, 0, 0]
    x[0] = 0.5 + x[0] / 1000  # an image of nearly one colour
    own, together = (unexplained(x + 0.1, x, mask, pooled=pooled) for pooled in (False, True))
    assert own[0] > 1000 * together[0]
    spread = 0.01 * mask.sum() * 12 / (3 * together.mean())  # 12 numbers a patch
    by_hand = ((x - x.mean(dim=(2, 3), keepdim=True)).square() * upsample_mask(mask, 2)[:, None]).sum() / 3
    torch.testing.assert_close(spread, by_hand)


def test_bad_masks_are_refused():
    x = noise_images()
    with pytest.raises(InputError, match="a visible patch"):
        copy_nearest(x, torch.ones(3, 4, 6, dtype=torch.bool))
    for shape in ((3, 3, 6), (2, 4, 6), (4, 6)):
        with pytest.raises(InputError, match="has to fit"):
            copy_nearest(x, torch.zeros(shape, dtype=torch.bool))
    with pytest.raises(InputError, match="of one shape"):
        unexplained(x, x[:1], torch.zeros(3, 4, 6, dtype=torch.bool))


def test_painting_at_another_ratio_than_the_training_had():
    cpu = MAE.PRESETS["cpu"]
    mae = methods.build(MAE, replace(cpu, target="pixels")).train()
    images = Shapes("test", size=32).as_images(4).images
    order = mask_order("random", 8, 8, 0.5, step_generator(0, 0), batch=4)
    painted, mask = paint(mae, images, order, 0.5)
    assert mask.shape == (4, 8, 8)
    assert mask.flatten(1).sum(dim=1).tolist() == [32] * 4
    wide = upsample_mask(mask, 4)[:, None].expand_as(painted)
    torch.testing.assert_close(painted[~wide], (images / 255)[~wide], atol=1e-5, rtol=0)
    assert not torch.isclose(painted[wide], (images / 255)[wide]).all()
    assert mae.config.ratio == cpu.ratio
    assert mae.training
    with pytest.raises(InputError, match=r"\[0, 1\)"):
        paint(mae, images, order, 1.0)


def test_the_shipped_mae_beats_copying_and_paints_from_the_command_line(tmp_path, capsys):
    try:
        path = shipped("mae_shapes")
    except InputError:
        pytest.skip("no checkout: weights/mae_shapes.safetensors is not here")
    mae = load_model(path)
    images = Shapes("test", size=64).as_images(20).images
    for kind in ("random", "block", "grid"):
        order = mask_order(kind, 8, 8, 0.75, step_generator(0, 0), batch=20)
        painted, mask = paint(mae, images, order, 0.75)
        ours, copied = (unexplained(x, images / 255, mask).mean() for x in (painted, copy_nearest(images / 255, mask)))
        assert ours < 0.8 * copied, kind
    to_pil_image(images[0]).save(tmp_path / "a.png")
    assert main(["reconstruct", str(tmp_path / "a.png"), "--out", str(tmp_path / "b.png")]) == 0
    said = capsys.readouterr().out
    assert "mean squared error" in said
    assert "standardised" not in said, "this one paints means and contrasts itself"


# --- sslcourse reconstruct -------------------------------------------------------------------------------------------


@pytest.fixture
def picture(tmp_path):
    """A small image file."""
    to_pil_image(noise_images(1, 48, 40)[0]).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize(
    ("cls", "changed", "told"),
    [
        (MAE, {"target": "normalized"}, True),
        (MAE, {"target": "pixels"}, False),
        (UMMAE, {"norm_pix": True}, True),
        (UMMAE, {"norm_pix": False}, False),
        (SimMIM, {}, False),
    ],
)
def test_the_error_says_where_the_true_mean_and_contrast_are_painted_in(
    cls, changed, told, picture, monkeypatch, capsys
):
    """Otherwise a network that has learned nothing has a small error, too."""
    method = methods.build(cls, replace(cls.PRESETS["cpu"], **changed)).eval()
    monkeypatch.setattr(reconstruct, "method_of", lambda weights: method)
    assert main(["reconstruct", str(picture), "--out", str(picture.with_name("b.png"))]) == 0
    sentence = "(patches are standardised: the true mean and contrast of hidden ones are painted in)"
    assert (sentence in capsys.readouterr().out) == told


@pytest.mark.parametrize("name", ["x", "x.foo", ".png", "x.xbm", "x.grib"])
def test_an_ending_of_no_picture_is_refused_before_anything_is_read(name, tmp_path, capsys):
    assert main(["reconstruct", str(tmp_path / "none.png"), "--out", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert f"{name} does not end like a picture" in error
    assert "none.png" not in error
    reconstruct.check_ending(tmp_path / "x.JPG")


def test_images_are_opened_like_those_of_datasets(tmp_path, monkeypatch):
    """16 bits are scaled, a photograph is turned upright, and what hides under transparency stays hidden."""
    method = methods.build(MAE, replace(MAE.PRESETS["cpu"], target="pixels")).eval()
    monkeypatch.setattr(reconstruct, "method_of", lambda weights: method)
    Image.fromarray(np.full((40, 40), 30000, dtype=np.uint16)).save(tmp_path / "wide.png")
    turned = Image.new("RGB", (40, 40), "black")
    turned.paste("white", (0, 0, 20, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # has to be turned clockwise, which takes the left half to the top
    turned.save(tmp_path / "turned.png", exif=exif)
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(tmp_path / "clear.png")

    def original(name):
        out = tmp_path / "out.png"
        assert main(["reconstruct", str(tmp_path / name), "--out", str(out)]) == 0
        return pil_to_tensor(Image.open(out)).chunk(3, dim=2)[2].float()

    assert (original("wide.png") - 30000 / 257).abs().max() < 1.5
    top, bottom = original("turned.png").chunk(2, dim=1)
    assert top.mean() > 240
    assert bottom.mean() < 15
    assert original("clear.png").min() > 253


def test_an_image_that_cannot_be_opened_is_one_sentence(picture, tmp_path, monkeypatch, capsys):
    assert main(["reconstruct", str(tmp_path / "none.png")]) == 2
    assert capsys.readouterr().err == f"sslcourse: there is no image file {tmp_path / 'none.png'}.\n"
    assert main(["reconstruct", str(tmp_path)]) == 2
    assert "[Errno" not in capsys.readouterr().err
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert main(["reconstruct", str(picture)]) == 2
    assert "too many pixels to be opened safely" in capsys.readouterr().err


def test_weights_of_ours_are_known_by_what_they_say_not_by_their_name(tmp_path):
    config = replace(SimMIM.PRESETS["cpu"], train=replace(SimMIM.PRESETS["cpu"].train, steps=1, batch_size=2))
    fit("simmim", Shapes("test", size=32).as_images(4), config, tmp_path / "run", progress=False)
    saved = (tmp_path / "run" / "model.safetensors").rename(tmp_path / "mine.safetensors")
    method = reconstruct.method_of(saved)
    assert method.name == "simmim"
    assert not method.training
    with pytest.raises(InputError, match=f"give the run folder.*--weights {tmp_path / 'run'}"):
        reconstruct.method_of(tmp_path / "run" / "checkpoint.pt")


@pytest.mark.parametrize("content", [[1], {"model": [1]}, {"model": {1: torch.ones(1)}}, {}])
def test_a_file_of_anything_else_is_refused_in_one_sentence(content, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(InputError, match="where a dict of tensors or one inside model was expected"):
        reconstruct.method_of(tmp_path / "a.pth")


def test_a_mistyped_name_of_shipped_weights_gets_the_right_one_suggested():
    with pytest.raises(InputError, match="did you mean 'mae_shapes'"):
        reconstruct.method_of(Path("mae_shape"))


@pytest.mark.parametrize(("name", "changed"), [("beit", {"target": "pixels"}), ("videomae", {})])
def test_a_method_that_is_not_painted_is_not_said_to_predict_no_pixels(name, changed, tmp_path):
    cls = methods.get(name)
    config = replace(cls.PRESETS["cpu"], **changed)
    Run(tmp_path, name, to_dict(config)).finish(methods.build(cls, config))
    words = f"a run of {name}, whose predictions cannot be painted by this command; take a run of mae, simmim or ummae"
    with pytest.raises(InputError, match=words):
        reconstruct.method_of(tmp_path)


def test_the_methods_that_the_sentence_names_are_all_that_can_be_painted():
    can = [name for name in catalogue.available() if hasattr(methods.get(name), "reconstruct")]
    assert sorted(can) == ["mae", "simmim", "ummae"]
