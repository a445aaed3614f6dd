"""Two random views of a batch: ours on the whole batch against lightly's PIL transform and kornia's batched one.

Random views cannot be compared number by number. The check before each timing compares what they do to the same
images: shape, mean and spread of every channel, the share of grey images, and that no two views of an image agree.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Pair, Row
from sslcourse.data.augment import MEAN, STD, Augment
from sslcourse.data.images import Images
from sslcourse.data.views import two_views

Views = tuple[Tensor, Tensor]


def pictures(n: int, side: int) -> Tensor:
    """(n, 3, side, side) uint8: smooth coloured fields, whose statistics a crop or a blur hardly moves."""
    coarse = torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return (F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def ours(x: Tensor, size: int) -> Callable[[], Views]:
    augment = partial(Augment(size), generator=torch.Generator().manual_seed(0))
    return lambda: two_views(x, augment)


def same_statistics(a: Views, b: Views) -> None:
    """Raise AssertionError unless both are two views a batch with about the same distribution of pixels."""
    one, other = torch.cat(a), torch.cat(b)
    assert one.shape == other.shape, (one.shape, other.shape)
    for name, f in {"mean": torch.mean, "standard deviation": torch.std}.items():
        gap = (f(one, (0, 2, 3)) - f(other, (0, 2, 3))).abs().max().item()
        assert gap < 0.25, f"the channels' {name} differs by {gap:.2f} of a standard deviation of ImageNet"
    tolerance = 5 * (2 * 0.2 * 0.8 / len(one)) ** 0.5  # five standard errors of a difference of two shares around 0.2
    assert abs(gray_share(one) - gray_share(other)) < tolerance, (gray_share(one), gray_share(other))
    for first, second in (a, b):
        assert (first - second).abs().mean((1, 2, 3)).min() > 0, "two views of an image are the same"


def gray_share(x: Tensor) -> float:
    """Share of the images whose three channels agree to a grey level."""
    pixels = x * x.new_tensor(STD).view(3, 1, 1) + x.new_tensor(MEAN).view(3, 1, 1)
    return float(((pixels.amax(1) - pixels.amin(1)).amax((1, 2)) < 1 / 255).float().mean())


def against_lightly(n: int, side: int, size: int) -> Pair:
    from lightly.transforms import SimCLRTransform
    from PIL import Image

    x = pictures(n, side)
    images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in x]
    transform = SimCLRTransform(input_size=size, cj_strength=1.0)

    def theirs() -> Views:
        first, second = zip(*(transform(image) for image in images), strict=True)
        return torch.stack(first), torch.stack(second)

    return ours(x, size), theirs


def against_kornia(n: int, side: int, size: int) -> Pair:
    import kornia.augmentation as K

    kernel = Augment(size).kernel_size
    chain = K.ImageSequential(
        K.RandomResizedCrop((size, size), scale=(0.08, 1.0)),
        K.RandomHorizontalFlip(),
        K.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur((kernel, kernel), (0.1, 2.0), p=0.5),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )
    x = pictures(n, side)
    floats = x / 255  # kornia takes floats; the conversion is ours to pay, not theirs
    return ours(x, size), lambda: two_views(floats, chain)


def loader_against_lightly(n: int = 2048, batch: int = 256, size: int = 32) -> Pair:
    """One epoch of two views: `Images.batches` and `Augment` against a DataLoader with two lasting workers."""
    from lightly.transforms import SimCLRTransform
    from PIL import Image
    from torch.utils.data import DataLoader

    data = Images(pictures(n, size), torch.zeros(n, dtype=torch.long))
    transform = SimCLRTransform(input_size=size, cj_strength=1.0)
    items = [(Image.fromarray(image.permute(1, 2, 0).numpy()), 0) for image in data.images]
    loader = DataLoader(
        _Transformed(items, transform), batch, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True
    )
    augment = partial(Augment(size), generator=torch.Generator().manual_seed(0))

    def mine() -> Views:
        return _concatenate(two_views(x, augment) for x, _, _ in data.batches(batch))

    def theirs() -> Views:
        return _concatenate(views for views, _ in loader)

    return mine, theirs


class _Transformed(torch.utils.data.Dataset):
    """Decoded images and a transform, as `LightlyDataset` pairs them, with nothing to read from disk."""

    def __init__(self, items: list, transform: Callable) -> None:
        self.items, self.transform = items, transform

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> tuple:
        image, label = self.items[i]
        return self.transform(image), label


def _concatenate(batches) -> Views:
    first, second = zip(*batches, strict=True)
    return torch.cat(first), torch.cat(second)


SMALL, LARGE = "two SimCLR views, 256 images of 32 px", "two SimCLR views, 32 images of 256 px to 224 px"
PIL, KORNIA = "lightly SimCLRTransform", "kornia ImageSequential"

ROWS = [
    Row(
        "aug-32", SMALL, PIL, partial(against_lightly, 256, 32, 32), 15.0, check=same_statistics, requires=("lightly",)
    ),
    Row(
        "aug-32", SMALL, KORNIA, partial(against_kornia, 256, 32, 32), 5.0, check=same_statistics, requires=("kornia",)
    ),
    Row(
        "aug-32-loader",
        "an epoch of 2,048 images of 32 px in two views",
        "lightly DataLoader, 2 workers",
        loader_against_lightly,
        target=9.0,
        check=same_statistics,
        requires=("lightly",),
    ),
    Row(
        "aug-224", LARGE, PIL, partial(against_lightly, 32, 256, 224), 2.0, check=same_statistics, requires=("lightly",)
    ),
    Row(
        "aug-224",
        LARGE,
        KORNIA,
        partial(against_kornia, 32, 256, 224),
        4.0,
        check=same_statistics,
        requires=("kornia",),
    ),
]
