"""The random view of SimCLR and its relatives, drawn per image and computed for a whole batch on its device.

    augment = Augment(32)
    view = augment(images, generator=step_generator(seed, step))     # (B, 3, H, W) uint8 -> (B, 3, 32, 32) float

The random numbers (17 an image) come from a CPU generator and then move to the device, so a seed gives the same views
on a CPU and on a GPU. The operations themselves stand in `resample.py` (crop, flip, blur) and `color.py`.
Source: SimCLR, Chen et al. 2020, appendix A; solarisation: BYOL, Grill et al. 2020, appendix B.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sslcourse.data.color import (
    HUE,
    color_map,
    grayscale,
    jitter_by_plan,
    jitter_map,
    jitter_plan,
    needs,
    solarize,
    standardize,
)
from sslcourse.data.resample import gaussian_blur, random_boxes, resized_crop
from sslcourse.data.rng import shard_rows
from sslcourse.errors import InputError

Triple = tuple[float, float, float]
MEAN: Triple = (0.485, 0.456, 0.406)  # of ImageNet's RGB, what most published encoders expect
STD: Triple = (0.229, 0.224, 0.225)
CACHED_PIXELS = 1 << 16  # an image's worth of work that stays in a core's L2 cache: 3 channels, 4 bytes, a few copies


class Draws(NamedTuple):
    """The random numbers of one view of a batch, one row an image."""

    boxes: Tensor  # (B, 4) int64: top, left, height, width
    flip: Tensor  # (B,) bool
    factors: Tensor  # (B, 4) brightness, contrast, saturation, hue; (1, 1, 1, 0) where there is no jitter
    order: Tensor  # (B, 4) int64, the order of those four
    gray: Tensor  # (B,) bool
    sigma: Tensor  # (B,) blur in output pixels, 0 where there is none
    solarize: Tensor  # (B,) bool

    def rows(self, rows: slice) -> "Draws":
        """The numbers of some of the images."""
        return Draws(*(t[rows] for t in self))

    def to(self, device: torch.device | str) -> "Draws":
        """The same numbers on `device`."""
        return Draws(*(t.to(device, non_blocking=True) for t in self))


@dataclass(frozen=True)
class Augment:
    """Crop, flip, colour jitter, grey, blur, solarise, standardise: `augment(x, generator=g)`."""

    size: int
    """Side of the square view in pixels."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Range of the crop's area, as a part of the image."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the crop's aspect ratio, width / height, drawn on a logarithmic scale."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2)
    """How far brightness, contrast, saturation (factors in 1 +- value, not below 0) and hue (+- value, a part of a full
    circle) go; the four run in a random order."""
    jitter_p: float = 0.8
    """Probability of the colour jitter."""
    gray: float = 0.2
    """Probability of going grey."""
    blur: float = 0.5
    """Probability of a Gaussian blur; its kernel is a tenth of the view wide (SimCLR), made odd."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Range of the blur's standard deviation, in pixels of the view."""
    solarize: float = 0.0
    """Probability of inverting the pixels >= `solarize_threshold`."""
    solarize_threshold: float = 0.5
    """Pixels in [0, 1] from which on solarisation inverts."""
    mean: Triple = MEAN
    """Mean of the standardisation (x - mean) / std of pixels in [0, 1]."""
    std: Triple = STD
    """Standard deviation of the standardisation."""
    mode: Literal["exact", "fast"] = "exact"
    """exact: SimCLR's order, every operation equal to torchvision's. fast: jitter and grey as one affine map of colour
    an image (`color_jitter_fast`), after the blur, which it folds into the crop; that it trains as well has not been
    shown, so it is not the default."""

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size <= 0:
            raise InputError(f"Augment needs a size of at least 1 pixel; got {self.size}.")
        for name in ("flip", "jitter_p", "gray", "blur", "solarize"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"Augment's {name} is a probability, between 0 and 1; got {getattr(self, name)}.")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise InputError(f"Augment's scale has to be 0 < low <= high <= 1; got {self.scale}.")
        for name in ("ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise InputError(f"Augment's {name} has to be 0 < low <= high; got {(low, high)}.")
        if min(self.jitter) < 0 or self.jitter[3] > 0.5:
            raise InputError(f"Augment's jitter has to be >= 0, and its hue (the last) <= 0.5; got {self.jitter}.")
        if self.mode not in ("exact", "fast"):
            raise InputError(f"Augment's mode is 'exact' or 'fast'; got {self.mode!r}.")

    @property
    def kernel_size(self) -> int:
        """Width of the blur's kernel: a tenth of the view, odd, at least 3 (as SimCLR's code computes it)."""
        return min(2 * max(self.size // 20, 1), 2 * (self.size - 1)) + 1

    def __call__(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """One random view of every image.

        Args:
            x: (B, 3, H, W) uint8, or float in [0, 1].
            generator: a CPU generator; the same state gives the same views.

        Returns:
            (B, 3, size, size) float32 (or the float type of `x`), standardised.
        """
        check_images(x)
        if generator.device.type != "cpu":
            raise InputError(f"Augment draws on the CPU; got a generator on {generator.device}, pass a CPU one.")
        n, mine = shard_rows(len(x), generator)
        draws = self.draw(n, *x.shape[2:], generator=generator).rows(mine)
        return self.apply(x, draws.to(x.device))

    def draw(self, n: int, height: int, width: int, *, generator: torch.Generator) -> Draws:
        """The random numbers of one view of `n` images of (height, width), on the CPU."""
        boxes = random_boxes(n, height, width, scale=self.scale, ratio=self.ratio, generator=generator)
        u = torch.rand(n, 14, generator=generator)
        jitter = torch.tensor(self.jitter)
        low = torch.cat([(1 - jitter[:3]).clamp(min=0), -jitter[3:]])
        high = torch.cat([1 + jitter[:3], jitter[3:]])
        neutral = torch.tensor([1.0, 1.0, 1.0, 0.0])
        sigma = self.blur_sigma[0] + (self.blur_sigma[1] - self.blur_sigma[0]) * u[:, 12]
        return Draws(
            boxes=boxes,
            flip=u[:, 0] < self.flip,
            factors=torch.where(u[:, 1:2] < self.jitter_p, low + (high - low) * u[:, 2:6], neutral),
            order=u[:, 6:10].argsort(1),
            gray=u[:, 10] < self.gray,
            sigma=torch.where(u[:, 11] < self.blur, sigma, 0.0),
            solarize=u[:, 13] < self.solarize,
        )

    def apply(self, x: Tensor, draws: Draws) -> Tensor:
        """The views that `draws` (on the device of `x`) describes; no randomness is in here.

        On a CPU a few images at a time, so that they stay in the cache from one operation to the next, sorted so that
        neighbours need the same operations, and only the window of the images that their crops share.
        """
        out = x.new_empty(len(x), 3, self.size, self.size, dtype=x.dtype if x.is_floating_point() else torch.float32)
        if x.device.type != "cpu" or torch.compiler.is_compiling() or not len(x):
            return self._view(x, draws, self._plan(draws)).to(out.dtype)
        order = _alike(draws)
        draws = Draws(*(t[order] for t in draws))
        plan = self._plan(draws)
        step = max(1, torch.get_num_threads() * CACHED_PIXELS // self.size**2)  # every core gets a cache's worth
        for start in range(0, len(x), step):
            part = slice(start, start + step)
            images, numbers = _window(x.index_select(0, order[part]), Draws(*(t[part] for t in draws)))
            out.index_copy_(0, order[part], self._view(images, numbers, plan[part]).to(out.dtype))
        return out

    def _plan(self, draws: Draws) -> Tensor:
        if self.mode == "fast":
            return jitter_map(draws.factors, draws.order, draws.gray)
        return jitter_plan(draws.factors, draws.order)

    def _view(self, x: Tensor, draws: Draws, plan: Tensor) -> Tensor:
        gray, blur, solar = needs(torch.stack([draws.gray, draws.sigma > 0, draws.solarize], 1))
        with torch.autocast(x.device.type, enabled=False):  # bf16 resampling weights would be off by half a grey level
            if self.mode == "fast":
                sigma = draws.sigma if self.blur and blur else None
                view = resized_crop(x, draws.boxes, self.size, draws.flip, sigma=sigma, kernel_size=self.kernel_size)
                view = color_map(view, plan)
            else:
                view = resized_crop(x, draws.boxes, self.size, draws.flip)
                view = jitter_by_plan(view, plan) if self.jitter_p else view
                view = grayscale(view, draws.gray) if self.gray and gray else view
                view = gaussian_blur(view, draws.sigma, self.kernel_size) if self.blur and blur else view
            view = solarize(view, self.solarize_threshold, draws.solarize) if self.solarize and solar else view
            return view.sub_(view.new_tensor(self.mean).view(3, 1, 1)).div_(view.new_tensor(self.std).view(3, 1, 1))


def center_view(x: Tensor, size: int, mean: Triple = MEAN, std: Triple = STD, *, crop: float = 1.0) -> Tensor:
    """The view for evaluation: resize the shorter side to size / crop, cut out the centre, standardise.

    Args:
        x: (B, 3, H, W) uint8, or float in [0, 1]; or clips (B, 3, T, H, W), each frame for itself.
        size: side of the square view.
        crop: part of the shorter side that is kept: 1 for small images, 0.875 is the custom for ImageNet.

    Returns:
        (B, 3, size, size) float32 (or the float type of `x`), as torchvision's `Resize`, `CenterCrop`, `Normalize`; a
        clip keeps its T.
    """
    if x.ndim == 5:
        frames = center_view(x.transpose(1, 2).flatten(0, 1), size, mean, std, crop=crop)
        return frames.unflatten(0, (len(x), -1)).transpose(1, 2)
    check_images(x)
    if size <= 0 or not 0 < crop <= 1:
        raise InputError(f"center_view needs size >= 1 and 0 < crop <= 1; got size {size}, crop {crop}.")
    dtype = x.dtype if x.is_floating_point() else torch.float32
    height, width = x.shape[-2:]
    short = round(size / crop)
    shape = (short * height // min(height, width), short * width // min(height, width))
    view = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    if shape != (height, width):
        view = interpolate(view, shape, mode="bilinear", antialias=True)
    top, left = round((shape[0] - size) / 2), round((shape[1] - size) / 2)
    return standardize(view[:, :, top : top + size, left : left + size], mean, std).to(dtype)


def _alike(draws: Draws) -> Tensor:
    """An order (B,) that brings together the images with a blur, and those whose hue shift comes at the same place."""
    hue_at = (draws.order == HUE).int().argmax(1)
    jittered = draws.factors[:, HUE] != 0
    return (5 * (draws.sigma > 0) + torch.where(jittered, hue_at, 4)).argsort(stable=True)


def _window(x: Tensor, draws: Draws) -> tuple[Tensor, Draws]:
    """Cut `x` down to the rows and columns that its crops read."""
    start, length = draws.boxes.split(2, 1)
    (top, left), (bottom, right) = start.amin(0).tolist(), (start + length).amax(0).tolist()
    boxes = torch.cat([start - start.amin(0), length], 1)
    return x[:, :, top:bottom, left:right], draws._replace(boxes=boxes)


def check_images(x: Tensor) -> None:
    """Raise `InputError` unless `x` is (B, 3, H, W), uint8 or float in [0, 1]."""
    if x.ndim != 4 or x.shape[1] != 3:
        raise InputError(f"images have to be (B, 3, H, W); got {tuple(x.shape)}.")
    if x.dtype == torch.uint8:
        return
    if not x.is_floating_point():
        raise InputError(
            f"images have to be uint8, or float in [0, 1]; got {x.dtype}, convert them with .to(torch.uint8)."
        )
    if x.numel():
        low, high = (float(v) for v in x.aminmax())
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # also false for NaN
            raise InputError(
                f"float images have to be in [0, 1]; got {low:g} to {high:g}, divide by 255 or pass uint8."
            )
