"""Corruptions: each does what its name says, more with severity, on any batch, and refuses what it cannot take."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from sslcourse.data.corruptions import CORRUPTIONS, RANDOM, corrupt
from sslcourse.data.shapes import Shapes
from sslcourse.errors import InputError

SEVERITIES = (1, 2, 3, 4, 5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def photos():
    return Shapes("test", 32, backgrounds=("gradient", "clouds")).as_images(12).images


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_damage_grows_with_severity_and_type_shape_stay(photos, kind):
    damage = []
    for severity in SEVERITIES:
        bad = corrupt(photos, kind, severity, generator())
        assert bad.dtype == torch.uint8
        assert bad.shape == photos.shape
        damage.append((bad.float() - photos.float()).square().mean().item())
    assert damage[0] > 0
    assert damage == sorted(damage)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_float_and_uint8_agree_and_odd_sizes_work(photos, kind):
    odd = photos[:3, :, :29, :27]
    as_bytes = corrupt(odd, kind, 3, generator())
    as_float = corrupt(odd.float() / 255, kind, 3, generator())
    assert as_float.dtype == torch.float32
    assert (as_float * 255 - as_bytes.float()).abs().max() <= 0.51


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_generator_alone_decides(photos, kind):
    first, again = corrupt(photos, kind, 2, generator(1)), corrupt(photos, kind, 2, generator(1))
    other = corrupt(photos, kind, 2, generator(2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (kind not in RANDOM)


def test_noise_has_the_stated_strength():
    gray = torch.full((4, 3, 64, 64), 0.5)
    assert corrupt(gray, "gaussian_noise", 2, generator()).std().item() == pytest.approx(0.08, rel=0.03)
    # A Poisson count of mean 12 * 0.5, divided by 12, has the variance 0.5 / 12.
    assert corrupt(gray, "shot_noise", 3, generator()).var().item() == pytest.approx(0.5 / 12, rel=0.05)
    salted = corrupt(gray, "impulse_noise", 5, generator())
    assert (salted != 0.5).float().mean().item() == pytest.approx(0.27, abs=0.01)
    assert (salted == 1).sum().item() == pytest.approx((salted == 0).sum().item(), rel=0.1)


def test_blurs_and_blocks_leave_flat_images_alone():
    flat = torch.full((2, 3, 32, 32), 0.4)
    for kind in ("gaussian_blur", "motion_blur", "pixelate", "contrast", "saturate"):
        torch.testing.assert_close(corrupt(flat, kind, 5, generator()), flat, atol=1e-3, rtol=0)


def test_motion_blurs_along_one_line():
    dot = torch.zeros(1, 3, 33, 33)
    dot[..., 16, 16] = 1
    y, x = corrupt(dot, "motion_blur", 5, generator(3))[0, 0].nonzero().float().T
    spread = torch.linalg.eigvalsh(torch.cov(torch.stack([x, y])))
    assert spread[1] > 5 * spread[0]


def test_pixelate_gives_square_blocks():
    image = torch.rand(1, 3, 32, 32, generator=generator())
    blocks = corrupt(image, "pixelate", 2)  # half the side: 2 x 2 blocks
    torch.testing.assert_close(blocks[..., ::2, ::2], blocks[..., 1::2, 1::2])
    torch.testing.assert_close(blocks[..., ::2, ::2], torch.nn.functional.avg_pool2d(image, 2))


def test_jpeg_is_close_to_a_real_encoder(photos):
    ours = corrupt(photos, "jpeg", 2).float()
    real = []
    for image in photos:
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=18, subsampling=0)
        real.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1))
    gap = (ours - torch.stack(real).float()).abs().mean()
    assert gap < 0.15 * (ours - photos.float()).abs().mean()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: corrupt(x, "gausian_noise", 1), "did you mean 'gaussian_noise'"),
        (lambda x: corrupt(x, "contrast", 6), "severity"),
        (lambda x: corrupt(x, "haze", 1), "generator"),
        (lambda x: corrupt(x[0], "contrast", 1), "B, C, H, W"),
        (lambda x: corrupt(x.float(), "contrast", 1), "0, 1"),
        (lambda x: corrupt(x.long(), "contrast", 1), "uint8"),
    ],
)
def test_bad_input_is_one_clear_sentence(photos, call, words):
    with pytest.raises(InputError, match=words):
        call(photos)
