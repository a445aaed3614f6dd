"""Each operation against torchvision's, image by image; then the distribution, determinism and bad input of Augment."""

from itertools import permutations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from torchvision.transforms import v2

from sslcourse.data import color
from sslcourse.data.augment import MEAN, STD, Augment, center_view
from sslcourse.data.resample import gaussian_blur, random_boxes, resized_crop
from sslcourse.errors import InputError

ORDERS = torch.tensor(list(permutations(range(4))))


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 6, height: int = 20, width: int = 27, seed: int = 0) -> torch.Tensor:
    """Random pixels, with grey, black, white and saturated patches, where hue has its special cases."""
    x = torch.rand(n, 3, height, width, generator=gen(seed))
    x[:, :, :4, :4] = 0.5
    x[:, :, 4:8, :4] = 0
    x[:, :, :4, 4:8] = 1
    x[:, 0, 4:8, 4:8], x[:, 1:, 4:8, 4:8] = 1, 0
    x[:, 1, 8:12, 4:8] = x[:, 0, 8:12, 4:8]  # two channels tie for the maximum or the minimum
    return x


def each(f, x, *columns):
    return torch.stack([f(image, *(c[i] for c in columns)) for i, image in enumerate(x)])


# ---- resampling ---------------------------------------------------------------------------------------------------

BOXES = {
    "whole image": (0, 0, 20, 27),
    "top left corner": (0, 0, 7, 5),
    "bottom right corner": (11, 20, 9, 7),
    "one pixel": (4, 3, 1, 1),
    "one row": (5, 0, 1, 27),
    "tall": (1, 9, 18, 3),
}


@pytest.mark.parametrize("size", [1, 5, 16, 33])  # shrinking, about the same, enlarging
@pytest.mark.parametrize("flip", [False, True])
def test_resized_crop_equals_torchvision(size, flip):
    boxes = torch.tensor(list(BOXES.values()))
    x = images(len(boxes))
    ours = resized_crop(x, boxes, size, torch.full((len(x),), flip))
    theirs = each(lambda i, b: tv.resized_crop(i, *b.tolist(), [size, size], antialias=True), x, boxes)
    theirs = tv.horizontal_flip(theirs) if flip else theirs
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_resized_crop_equals_torchvision_at_224_from_256():
    x = torch.rand(8, 3, 256, 256, generator=gen())
    boxes = random_boxes(8, 256, 256, scale=(0.08, 1), ratio=(3 / 4, 4 / 3), generator=gen())
    theirs = each(lambda i, b: tv.resized_crop(i, *b.tolist(), [224, 224], antialias=True), x, boxes)
    torch.testing.assert_close(resized_crop(x, boxes, 224), theirs, atol=1e-5, rtol=0)


def test_resized_crop_reads_uint8_as_fractions_of_255():
    x = (images() * 255).to(torch.uint8)
    boxes = torch.tensor(list(BOXES.values()))
    torch.testing.assert_close(resized_crop(x, boxes, 9), resized_crop(x / 255, boxes, 9), atol=1e-6, rtol=0)


def test_flip_is_per_image():
    x, boxes = images(2), torch.tensor([[0, 0, 20, 27]] * 2)
    out = resized_crop(x, boxes, 12, torch.tensor([True, False]))
    plain = resized_crop(x, boxes, 12)
    assert torch.equal(out[1], plain[1])
    torch.testing.assert_close(out[0], plain[0].flip(-1), atol=1e-6, rtol=0)


def test_blur_folded_into_the_crop_is_the_blur_after_it():
    x, boxes, sigma = images(), torch.tensor(list(BOXES.values())), torch.linspace(0, 2, 6)
    folded = resized_crop(x, boxes, 16, sigma=sigma, kernel_size=5)
    torch.testing.assert_close(folded, gaussian_blur(resized_crop(x, boxes, 16), sigma, 5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernel", [3, 7, 23])
def test_gaussian_blur_equals_torchvision(kernel):
    x, sigma = images(height=14, width=17), torch.tensor([0.1, 0.3, 0.7, 1.0, 1.5, 2.0])
    theirs = each(lambda i, s: tv.gaussian_blur(i, [kernel, kernel], [float(s)] * 2), x, sigma)
    torch.testing.assert_close(gaussian_blur(x, sigma, kernel), theirs, atol=1e-5, rtol=0)


def test_blur_of_sigma_zero_changes_nothing():
    x = images()
    assert torch.equal(gaussian_blur(x, torch.zeros(len(x)), 5), x)


def test_a_blur_kernel_wider_than_the_image_is_refused():
    with pytest.raises(InputError, match="odd and below"):
        gaussian_blur(images(height=4), torch.ones(6), 9)


# ---- colour -------------------------------------------------------------------------------------------------------

FACTORS = torch.tensor([0.0, 0.3, 0.9, 1.0, 1.4, 1.8])
SHIFTS = torch.tensor([-0.5, -0.21, 0.0, 0.1, 0.33, 0.5])


@pytest.mark.parametrize(
    ("name", "values"), [("brightness", FACTORS), ("contrast", FACTORS), ("saturation", FACTORS), ("hue", SHIFTS)]
)
def test_each_adjustment_equals_torchvision(name, values):
    x = images()
    theirs = each(lambda i, f: getattr(tv, f"adjust_{name}")(i, float(f)), x, values)
    torch.testing.assert_close(getattr(color, f"adjust_{name}")(x, values), theirs, atol=1e-5, rtol=0)


def test_grayscale_and_solarize_equal_torchvision():
    x, where = images(), torch.tensor([True, False, True, True, False, False])
    gray, sun = color.grayscale(x, where), color.solarize(x, 0.5, where)
    for i in range(len(x)):
        torch.testing.assert_close(gray[i], tv.rgb_to_grayscale(x[i], 3) if where[i] else x[i], atol=1e-6, rtol=0)
        assert torch.equal(sun[i], tv.solarize(x[i], 0.5) if where[i] else x[i])


def test_color_jitter_equals_torchvision_in_all_24_orders():
    x = images(24)
    low, high = torch.tensor([0.2, 0.2, 0.2, -0.2]), torch.tensor([1.8, 1.8, 1.8, 0.2])
    factors = low + (high - low) * torch.rand(24, 4, generator=gen(1))
    names = ("brightness", "contrast", "saturation", "hue")

    def theirs(image, factor, order):
        for k in order.tolist():
            image = getattr(tv, f"adjust_{names[k]}")(image, float(factor[k]))
        return image

    torch.testing.assert_close(
        color.color_jitter(x, factors, ORDERS), each(theirs, x, factors, ORDERS), atol=1e-5, rtol=0
    )


def test_color_jitter_leaves_its_input_alone():
    x = images(24)
    before = x.clone()
    color.color_jitter(x, torch.full((24, 4), 0.3), ORDERS)
    color.color_jitter_fast(x, torch.full((24, 4), 0.3), ORDERS)
    assert torch.equal(x, before)


def test_fast_jitter_is_exact_where_nothing_clamps_and_hue_stays():
    x = 0.4 + 0.2 * torch.rand(24, 3, 8, 8, generator=gen())  # mid greys, far from 0 and 1
    factors = torch.cat([0.9 + 0.2 * torch.rand(24, 3, generator=gen(1)), torch.zeros(24, 1)], 1)
    exact, fast = color.color_jitter(x, factors, ORDERS), color.color_jitter_fast(x, factors, ORDERS)
    torch.testing.assert_close(fast, exact, atol=1e-5, rtol=0)


def test_fast_hue_turns_the_way_of_the_exact_one_and_keeps_greys():
    """A turn by the same sign is nearer to the exact one than the opposite turn is; greys stay where they are."""
    x = 0.35 + 0.3 * torch.rand(4, 3, 16, 16, generator=gen())
    order = torch.arange(4).expand(4, 4)
    factors = torch.tensor([[1, 1, 1, h] for h in (-0.2, -0.1, 0.1, 0.2)])
    exact = color.color_jitter(x, factors, order)
    same = color.color_jitter_fast(x, factors, order)
    opposite = color.color_jitter_fast(x, factors * torch.tensor([1, 1, 1, -1]), order)
    assert ((exact - same).abs().mean((1, 2, 3)) < 0.6 * (exact - opposite).abs().mean((1, 2, 3))).all()
    gray = torch.full((4, 3, 2, 2), 0.4)
    torch.testing.assert_close(color.color_jitter_fast(gray, factors, order), gray, atol=1e-3, rtol=0)


# ---- the distribution of the crops --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [(32, 32, (0.08, 1.0), (3 / 4, 4 / 3)), (30, 80, (0.5, 1.0), (3 / 4, 4 / 3)), (40, 32, (0.05, 0.14), (0.5, 1.0))],
)
def test_boxes_are_distributed_as_torchvision_draws_them(height, width, scale, ratio):
    n = 3000
    ours = random_boxes(n, height, width, scale=scale, ratio=ratio, generator=gen()).numpy()
    reference = v2.RandomResizedCrop(8, scale=scale, ratio=ratio)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        draws = [reference.make_params([torch.zeros(3, height, width)]) for _ in range(n)]
    theirs = np.array([[d["top"], d["left"], d["height"], d["width"]] for d in draws])
    for name, a, b in zip(("top", "left", "height", "width"), ours.T, theirs.T, strict=True):
        grid = np.arange(max(height, width) + 1)
        gap = np.abs(np.searchsorted(np.sort(a), grid, "right") - np.searchsorted(np.sort(b), grid, "right")).max() / n
        assert gap < 1.95 * (2 / n) ** 0.5, name  # two-sample Kolmogorov-Smirnov, p = 0.001


@pytest.mark.parametrize(("height", "width", "box"), [(10, 100, (0, 43, 10, 13)), (100, 10, (43, 0, 13, 10))])
def test_the_fallback_is_the_largest_centred_box(height, width, box):
    """A full-area crop of a long image never has an allowed aspect ratio."""
    boxes = random_boxes(5, height, width, scale=(1, 1), ratio=(3 / 4, 4 / 3), generator=gen())
    assert boxes.tolist() == [list(box)] * 5


def test_boxes_lie_inside_the_image():
    boxes = random_boxes(5000, 7, 9, scale=(0.01, 1), ratio=(0.3, 3), generator=gen())
    top, left, h, w = boxes.unbind(1)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] > 0).all()
    assert (top + h <= 7).all()
    assert (left + w <= 9).all()


# ---- Augment ------------------------------------------------------------------------------------------------------


def pixels(n: int = 8, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=gen(9))


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 24), (7, 50)])
def test_shape_type_and_unchanged_input(mode, height, width):
    x = pixels(height=height, width=width)
    before = x.clone()
    out = Augment(24, mode=mode, solarize=0.5)(x, generator=gen())
    assert out.shape == (8, 3, 24, 24)
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()
    assert torch.equal(x, before)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_one_seed_gives_one_view_and_leaves_the_global_generator_alone(mode):
    augment, x, state = Augment(32, mode=mode), pixels(), torch.get_rng_state()
    a, b, c = (augment(x, generator=gen(s)) for s in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_every_image_has_its_own_parameters(mode):
    out = Augment(32, mode=mode)(pixels(1).expand(64, -1, -1, -1), generator=gen())
    assert len({v.numpy().tobytes() for v in out}) == 64
    draws = Augment(32).draw(64, 32, 32, generator=gen())
    assert all(len(v.unique(dim=0)) > 1 for v in draws if v.dtype != torch.bool or v is draws.flip or v is draws.gray)


def test_the_whole_view_equals_the_chain_of_torchvision():
    """The whole pipeline on one batch is the chain of torchvision's functions with the numbers that were drawn."""
    augment = Augment(24, solarize=0.5)
    x = pixels(32, 40, 36)
    d = augment.draw(32, 40, 36, generator=gen(5))
    names = ("brightness", "contrast", "saturation", "hue")

    def theirs(image, *row):
        box, flip, factors, order, gray, sigma, sun = row
        image = tv.resized_crop(image / 255, *box.tolist(), [24, 24], antialias=True)
        image = tv.horizontal_flip(image) if flip else image
        for k in order.tolist():
            image = getattr(tv, f"adjust_{names[k]}")(image, float(factors[k]))
        image = tv.rgb_to_grayscale(image, 3) if gray else image
        image = tv.gaussian_blur(image, [augment.kernel_size] * 2, [float(sigma)] * 2) if sigma else image
        return tv.normalize(tv.solarize(image, 0.5) if sun else image, MEAN, STD)

    expected, ours = each(theirs, x, *d), augment(x, generator=gen(5))
    near = (ours - expected).abs()
    # A pixel within rounding of the threshold may be solarised in one and not in the other.
    assert (near > 1e-4).float().mean() < 1e-3
    fast = Augment(24, mode="fast", solarize=0.5)(x, generator=gen(5))
    assert (fast - expected).abs()[~d.solarize].mean() < 0.15  # of a standard deviation of ImageNet


def test_probabilities_of_zero_and_one():
    x = pixels(200)
    never = Augment(32, scale=(1, 1), ratio=(1, 1), flip=0, jitter_p=0, gray=0, blur=0)(x, generator=gen())
    torch.testing.assert_close(never, center_view(x, 32), atol=1e-4, rtol=0)
    always = Augment(32, scale=(1, 1), ratio=(1, 1), flip=1, jitter_p=0, gray=0, blur=0)(x, generator=gen())
    torch.testing.assert_close(always, center_view(x, 32).flip(-1), atol=1e-4, rtol=0)
    draws = Augment(32).draw(4000, 32, 32, generator=gen())
    shares = [draws.flip, (draws.factors != torch.tensor([1.0, 1, 1, 0])).any(1), draws.gray, draws.sigma > 0]
    torch.testing.assert_close(
        torch.stack([s.float().mean() for s in shares]), torch.tensor([0.5, 0.8, 0.2, 0.5]), atol=0.03, rtol=0
    )


def test_orders_are_uniform_over_the_24():
    order = Augment(8).draw(24_000, 8, 8, generator=gen()).order
    counts = (order @ torch.tensor([64, 16, 4, 1])).unique(return_counts=True)[1]
    assert len(counts) == 24
    assert ((counts - 1000).abs() < 5 * 1000**0.5).all()


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_batches_do_not_mix(mode):
    """An image's view depends on its own pixels and numbers only; a batch of 1 and a strided batch work."""
    augment, x = Augment(16, mode=mode), pixels()
    draws = augment.draw(8, 32, 32, generator=gen())
    together = augment.apply(x, draws)
    alone = torch.cat([augment.apply(x[i : i + 1], type(draws)(*(d[i : i + 1] for d in draws))) for i in range(8)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    strided = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    torch.testing.assert_close(augment.apply(strided, draws), together, atol=1e-5, rtol=0)
    doubled = x.repeat_interleave(2, dim=3)[..., ::2]
    torch.testing.assert_close(augment.apply(doubled, draws), together, atol=1e-5, rtol=0)
    assert augment(x[:0], generator=gen()).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_one_graph_for_all_draws(mode):
    """Compiled, there is no branch on data: other numbers run through the same graph, which gives the eager views."""
    augment, x, graphs = Augment(16, mode=mode, solarize=0.5), pixels(), []
    compiled = torch.compile(
        augment.apply, fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph.forward
    )
    for seed in range(3):
        draws = augment.draw(8, 32, 32, generator=gen(seed))
        ours, expected = compiled(x, draws), augment.apply(x, draws)
        assert (
            (ours - expected).abs() > 1e-4
        ).float().mean() < 1e-3  # a pixel at the threshold may be solarised or not
    assert len(graphs) == 1


def test_float_types():
    x, augment = pixels(), Augment(16)
    reference = augment(x, generator=gen())
    torch.testing.assert_close(augment(x / 255, generator=gen()), reference, atol=1e-4, rtol=0)
    half = augment((x / 255).bfloat16(), generator=gen())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), reference, atol=0.1, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):  # resampling weights keep float32 inside autocast
        assert torch.equal(augment(x, generator=gen()), reference)


def test_center_view_equals_torchvision():
    x = pixels(2, 50, 67)
    chain = v2.Compose([v2.Resize(27), v2.CenterCrop(24), v2.Normalize(MEAN, STD)])
    torch.testing.assert_close(center_view(x, 24, crop=24 / 27), chain(x / 255), atol=1e-5, rtol=0)
    torch.testing.assert_close(center_view(pixels(), 32), tv.normalize(pixels() / 255, MEAN, STD), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(2, 3, 8, 8, dtype=torch.int16), "uint8, or float"),
        (torch.full((2, 3, 8, 8), 200.0), "divide by 255"),
        (torch.full((2, 3, 8, 8), float("nan")), r"in \[0, 1\]"),
        (torch.zeros(8, 8), r"\(B, 3, H, W\)"),
        (torch.zeros(3, 8, 8), r"\(B, 3, H, W\)"),
        (torch.zeros(2, 1, 8, 8), r"\(B, 3, H, W\)"),
    ],
)
def test_bad_images(bad, message):
    with pytest.raises(InputError, match=message):
        Augment(8)(bad, generator=gen())
    with pytest.raises(InputError, match=message):
        center_view(bad, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size"),
        ({"size": -3}, "size"),
        ({"size": 8, "flip": 1.5}, "flip"),
        ({"size": 8, "scale": (0.5, 0.1)}, "scale"),
        ({"size": 8, "scale": (0.0, 1.0)}, "scale"),
        ({"size": 8, "ratio": (0.0, 1.0)}, "ratio"),
        ({"size": 8, "blur_sigma": (0.0, 1.0)}, "blur_sigma"),
        ({"size": 8, "jitter": (1, 1, 1, 0.6)}, "hue"),
        ({"size": 8, "mode": "quick"}, "mode"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(InputError, match=message):
        Augment(**arguments)


def test_bad_center_view_and_generator():
    with pytest.raises(InputError, match="size"):
        center_view(pixels(), 0)
    if torch.cuda.is_available():
        with pytest.raises(InputError, match="CPU"):
            Augment(8)(pixels(), generator=torch.Generator("cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_views_of_the_cpu():
    x, augment = pixels(64), Augment(32)
    cpu, gpu = augment(x, generator=gen()), augment(x.cuda(), generator=gen()).cpu()
    assert ((cpu - gpu).abs() < 1e-3).float().mean() > 0.999
