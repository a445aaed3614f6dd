"""Crop, resize, flip and blur as matrix products: every image of a batch has its own boxes, flips and blurs.

An antialiased bilinear resize is separable and linear, so a crop of height h resized to S rows is a matrix (S, H)
whose rows hold a few weights each. Two batched products, columns then rows, resample the whole batch; a flip reverses
the rows of the matrix, a blur is one more matrix in front of it.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad, threshold

from sslcourse.errors import InputError


def resize_weights(
    start: Tensor, length: Tensor, source: int, size: int, flip: Tensor | None = None, *, gain: float = 1.0
) -> Tensor:
    """Weights (B, size, source) that resize the pixels [start, start + length) of a line of `source` to `size`.

    The triangle filter of PIL and of `torch.nn.functional.interpolate(mode="bilinear", antialias=True)`: as wide as an
    output pixel when shrinking, as an input pixel when enlarging, cut off and renormalised at the ends of the crop.

    Args:
        start, length: (B,) first pixel and number of pixels.
        flip: (B,) bool, mirror the line.
        gain: what the weights of an output pixel add up to.
    """
    start, length = start.float()[:, None], length.float()[:, None]
    scale = length / size
    center = (torch.arange(size, device=start.device) + 0.5) * scale
    if flip is not None:
        center = torch.where(flip[:, None], center.flip(1), center)
    pixel = torch.arange(source, device=start.device) - start + 0.5
    pixel = torch.where((pixel > 0) & (pixel < length), pixel, torch.inf)  # no weight outside the crop
    distance = (pixel[:, None, :] - center[:, :, None]).abs_()
    weights = distance.neg_().add_(scale.clamp(min=1)[:, :, None]).clamp_(min=0)
    return weights.mul_(gain / weights.sum(2, keepdim=True))


def resized_crop(
    x: Tensor,
    boxes: Tensor,
    size: int,
    flip: Tensor | None = None,
    *,
    sigma: Tensor | None = None,
    kernel_size: int = 1,
) -> Tensor:
    """Cut a box out of every image and resize it to (size, size), antialiased bilinear.

    Equals torchvision's `resized_crop(..., antialias=True)` on float input to rounding.

    Args:
        x: (B, 3, H, W) float, or uint8, which is read as x / 255.
        boxes: (B, 4) top, left, height, width in pixels, inside the image.
        flip: (B,) bool, mirror left to right after the crop.
        sigma, kernel_size: blur the result as `gaussian_blur` would, at the cost of blurring the weights.

    Returns:
        (B, 3, size, size) float32.
    """
    top, left, h, w = boxes.unbind(1)
    rows = resize_weights(top, h, x.shape[2], size, gain=1 / 255 if x.dtype == torch.uint8 else 1.0)
    columns = resize_weights(left, w, x.shape[3], size, flip)
    if sigma is not None:
        blur = blur_matrix(sigma, kernel_size, size)
        rows, columns = blur @ rows, blur @ columns
    return _resample(x.float(), rows, columns)


def blur_matrix(sigma: Tensor, kernel_size: int, size: int) -> Tensor:
    """(B, size, size) matrices that blur a line of `size` pixels, mirrored at its ends; sigma 0 gives the identity."""
    radius = kernel_size // 2
    if kernel_size % 2 == 0 or radius >= size:
        raise InputError(f"the blur kernel has to be odd and below {2 * size}, twice the image; got {kernel_size}.")
    offset = torch.arange(-radius, radius + 1, device=sigma.device)
    # Below 0.01 the neighbours' weights are 0 in float32, so 0.01 stands for 0 without a division by it.
    kernel = torch.softmax(-0.5 * (offset / sigma.float().clamp(min=0.01)[:, None]) ** 2, dim=1)
    kernel = threshold(kernel, 1e-9, 0)  # no denormal weights, with which a CPU multiplies many times slower
    # A row one shorter than the repeated vector starts one later each time: the kernel moves along the diagonal.
    length = size + 2 * radius
    band = pad(kernel, (0, size)).repeat(1, size)[:, : size * length].view(-1, size, length)
    matrix = band[:, :, radius : radius + size].clone()
    if radius:  # taps beyond an end fall on the mirrored pixels
        matrix[:, :, 1 : radius + 1] += band[:, :, :radius].flip(2)
        matrix[:, :, -radius - 1 : -1] += band[:, :, -radius:].flip(2)
    return matrix


def gaussian_blur(x: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Blur every image by its own Gaussian, torchvision's `gaussian_blur`; sigma 0 leaves an image as it is.

    Args:
        x: (B, 3, H, W) float.
        sigma: (B,) standard deviation in pixels.
        kernel_size: odd; the border is mirrored without repeating the edge pixel.
    """
    height, width = x.shape[-2:]
    columns = blur_matrix(sigma, kernel_size, width)
    rows = columns if height == width else blur_matrix(sigma, kernel_size, height)
    return _resample(x.float(), rows, columns).to(x.dtype)


def _resample(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 3, S, T) by `rows` (B, S, H) and `columns` (B, T, W)."""
    narrow = x.flatten(1, 2) @ columns.mT
    return rows[:, None] @ narrow.view(*x.shape[:3], columns.shape[1])


def random_boxes(
    n: int,
    height: int,
    width: int,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """`n` boxes (n, 4) int64 of top, left, height, width, distributed as torchvision's `RandomResizedCrop` draws them.

    The area is uniform in `scale` of the image's, the aspect ratio w / h log-uniform in `ratio`; ten tries to fit it
    into the image, then the largest centred box whose ratio is allowed (Inception cropping, Szegedy et al. 2015).
    """
    tries = 10
    u = torch.rand(2, n, tries, generator=generator, dtype=torch.float64)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * u[0])
    log_ratio = math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * u[1]
    w = (area * log_ratio.exp()).sqrt().round()
    h = (area / log_ratio.exp()).sqrt().round()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(1, keepdim=True)
    w, h = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0]
    none = ~fits.any(1)
    fall_h, fall_w = _fallback(height, width, ratio)
    place = torch.rand(
        2, n, generator=generator, dtype=torch.float64
    )  # drawn always, so the stream does not depend on fit
    top = torch.where(none, (height - fall_h) // 2, (place[0] * (height - h + 1)).floor())
    left = torch.where(none, (width - fall_w) // 2, (place[1] * (width - w + 1)).floor())
    h, w = torch.where(none, fall_h, h), torch.where(none, fall_w, w)
    return torch.stack([top, left, h, w], 1).long()


def _fallback(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Height and width of the largest centred box with an allowed aspect ratio."""
    if width / height < ratio[0]:
        return max(1, round(width / ratio[0])), width
    if width / height > ratio[1]:
        return height, max(1, round(height * ratio[1]))
    return height, width
