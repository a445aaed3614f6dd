"""Two random views of a batch: ours on the whole batch against lightly's PIL transform and kornia's batched one.

Random views cannot be compared number by number. The check before each timing compares what they do to the same
images: shape, mean and spread of every channel, the share of grey images, and that no two views of an image agree.
The rows without a remark measure the default; "mode fast" is `Augment(..., mode="fast")`.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Pair, Row
from sslcourse.data.augment import MEAN, STD, Augment
from sslcourse.data.images import Images
from sslcourse.data.views import two_views

Views = tuple[Tensor, Tensor]
Mode = Literal["exact", "fast"]


def pictures(n: int, side: int) -> Tensor:
    """(n, 3, side, side) uint8: smooth coloured fields, whose statistics a crop or a blur hardly moves."""
    coarse = torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return (F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def ours(x: Tensor, size: int, mode: Mode) -> Callable[[], Views]:
    augment = partial(Augment(size, mode=mode), generator=torch.Generator().manual_seed(0))
    return lambda: two_views(x, augment)


def same_statistics(a: Views, b: Views) -> None:
    """Raise AssertionError unless both are two views a batch with the same distribution, to five standard errors."""
    one, other = torch.cat(a), torch.cat(b)
    assert one.shape == other.shape, (one.shape, other.shape)
    statistics: dict[str, Callable[[Tensor], Tensor]] = {
        "mean": lambda x: x.mean((2, 3)),
        "spread": lambda x: x.std((2, 3)),
        "share of grey images": is_gray,
    }
    for name, f in statistics.items():
        x, y = f(one), f(other)  # (N, channels): one number an image, so that its standard error is known
        error = ((x.var(0) + y.var(0)) / len(x)).sqrt()
        assert ((x.mean(0) - y.mean(0)).abs() < 5 * error).all(), (name, x.mean(0), y.mean(0), error)
    for first, second in (a, b):
        assert (first - second).abs().mean((1, 2, 3)).min() > 0, "two views of an image are the same"


def is_gray(x: Tensor) -> Tensor:
    """(N, 1), 1 where the three channels of an image agree to a grey level, else 0."""
    pixels = x * x.new_tensor(STD).view(3, 1, 1) + x.new_tensor(MEAN).view(3, 1, 1)
    return ((pixels.amax(1) - pixels.amin(1)).amax((1, 2)) < 1 / 255).float()[:, None]


def against_lightly(n: int, side: int, size: int, mode: Mode = "exact") -> Pair:
    from lightly.transforms import SimCLRTransform
    from PIL import Image

    x = pictures(n, side)
    images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in x]
    transform = SimCLRTransform(input_size=size, cj_strength=1.0)

    def theirs() -> Views:
        first, second = zip(*(transform(image) for image in images), strict=True)
        return torch.stack(first), torch.stack(second)

    return ours(x, size, mode), theirs


def against_kornia(n: int, side: int, size: int, mode: Mode = "exact") -> Pair:
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
    return ours(x, size, mode), lambda: two_views(floats, chain)


def loader_against_lightly(n: int = 2048, batch: int = 256, size: int = 32) -> Pair:
    """One epoch of two views: `Images.batches` and `Augment` against a DataLoader with two lasting workers."""
    from lightly.transforms import SimCLRTransform
    from PIL import Image
    from torch.utils.data import DataLoader

    data = Images(pictures(n, size), torch.zeros(n, dtype=torch.long))
    transform = SimCLRTransform(input_size=size, cj_strength=1.0)
    items = [(Image.fromarray(image.permute(1, 2, 0).numpy()), 0) for image in data.images]
    loader = DataLoader(
        _Transformed(items, transform),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=2,
        persistent_workers=True,
        multiprocessing_context="spawn",  # forked workers inherit the locks of this process's threads and may hang
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


PIL = ("lightly SimCLRTransform", against_lightly, "lightly")
KORNIA = ("kornia ImageSequential", against_kornia, "kornia")


def _row(peer: tuple[str, Callable[..., Pair], str], n: int, side: int, size: int, target: float, mode: Mode) -> Row:
    name, prepare, module = peer
    remark = "" if mode == "exact" else f", mode {mode}"
    return Row(
        f"aug-{size}",
        f"two SimCLR views, {n} images of {side} px to {size} px{remark}",
        name,
        partial(prepare, n, side, size, mode),
        target,
        check=same_statistics,
        requires=(module,),
    )


ROWS = [
    _row(PIL, 256, 32, 32, 15.0, "exact"),
    _row(KORNIA, 256, 32, 32, 5.0, "exact"),
    _row(PIL, 256, 32, 32, 15.0, "fast"),
    _row(KORNIA, 256, 32, 32, 5.0, "fast"),
    _row(PIL, 32, 256, 224, 2.0, "exact"),
    _row(KORNIA, 32, 256, 224, 4.0, "exact"),
    Row(
        "aug-32-loader",
        "an epoch of 2,048 images of 32 px in two views",
        "lightly DataLoader, 2 workers",
        loader_against_lightly,
        target=9.0,
        check=same_statistics,
        requires=("lightly",),
    ),
]
