"""Prompting a model on one image: `set_image` once, then as many prompts as wanted, one by one or many at a time."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.segment.bounds import Bounds, bounds_of
from sslcourse.segment.resize import Size, fit_longest, resize_boxes, resize_longest, resize_points, to_pixels
from sslcourse.segment.sam import Embedding, Sam

_BLOCK = 2**26  # pixels of logits that are in memory at once when masks are brought to the size of the image


class Prediction(NamedTuple):
    """M masks of a prompt; with a leading N where N prompts were given.

    Attributes:
        masks: (M, H, W) bool on the original image, or float logits where those were asked for.
        iou: (M,) IoU that the model predicts for them.
        low_res: (M, 4g, 4g) logits in the model's frame, which can be a mask prompt.
    """

    masks: Tensor
    iou: Tensor
    low_res: Tensor


class Predictor:
    """Masks for prompts on one image. Coordinates are x y in pixels of the original image.

    Attributes:
        size: (H, W) of the image that was set; None before.
        input_size: (h, w) it was resized to.
    """

    def __init__(self, model: Sam) -> None:
        self.model = model.eval()
        self.size: Size | None = None
        self.input_size: Size = (0, 0)
        self._embedding: Embedding | None = None

    @torch.no_grad()
    def set_image(self, image: Any) -> "Predictor":
        """Encode an image: a path, a PIL image, an array (H, W[, 3 or 4]) or a tensor (3, H, W) uint8."""
        pixels = to_pixels(image)
        size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
        small = resize_longest(pixels, self.model.image_size).to(self.model.mean.device)
        self._embedding = self.model.encode(self.model.preprocess(small)[None])
        self.size, self.input_size = size, fit_longest(*size, self.model.image_size)
        return self

    @property
    def embedding(self) -> Embedding:
        """Of the image that was set."""
        if self._embedding is None:
            raise InputError("set_image comes before a prompt.")
        return self._embedding

    def predict(
        self,
        points: Any = None,
        labels: Any = None,
        boxes: Any = None,
        masks: Any = None,
        *,
        multimask: bool = True,
        logits: bool = False,
    ) -> Prediction:
        """Masks for one prompt, or for N prompts at once.

        Args:
            points: (P, 2) x y, or (N, P, 2).
            labels: (P,) or (N, P): 1 include, 0 exclude, -1 no point. All 1 by default.
            boxes: (4,) x1 y1 x2 y2, or (N, 4).
            masks: (1, 4g, 4g) logits of an earlier prediction, or (N, 1, 4g, 4g).
            multimask: three masks for an ambiguous prompt, or one.
            logits: give logits instead of bool masks.

        Raises:
            InputError: no image, no prompt, shapes that do not belong together, or places outside the image.
        """
        given = {"points": points, "boxes": boxes, "masks": masks}
        tensors = {name: self._tensor(name, value) for name, value in given.items() if value is not None}
        if not tensors:
            raise InputError("a prediction needs a prompt: points, boxes or masks.")
        one = {name: x.ndim == _NDIM[name] - 1 for name, x in tensors.items()}
        if len(set(one.values())) > 1:
            raise InputError("points, boxes and masks are all of one prompt, or all of N prompts.")
        single = all(one.values())
        if single:
            tensors = {name: x[None] for name, x in tensors.items()}
        if "points" in tensors:
            tensors["labels"] = self._labels(labels, tensors["points"], single)
        elif labels is not None:
            raise InputError("labels say what points mean: give points too.")
        self._check_inside(tensors)
        low_res, iou = self.predict_low_res(**tensors, multimask=multimask)
        full = self.upscale(low_res) if logits else self.upscale_masks(low_res)
        return Prediction(full[0], iou[0], low_res[0]) if single else Prediction(full, iou, low_res)

    @torch.no_grad()
    def predict_low_res(
        self,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        *,
        multimask: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """(N, M, 4g, 4g) logits and (N, M) IoU of N prompts; points (N, P, 2) and boxes (N, 4) in original pixels."""
        embedding, size = self.embedding, self._size()
        if points is not None:
            points = resize_points(points, size, self.input_size)
        if boxes is not None:
            boxes = resize_boxes(boxes, size, self.input_size)
        return self.model.decode(embedding, points, labels, boxes, masks, multimask=multimask)

    @torch.no_grad()
    def upscale(self, low_res: Tensor) -> Tensor:
        """(N, M, 4g, 4g) logits to (N, M, H, W) logits on the original image."""
        return self.model.postprocess(low_res, self.input_size, self._size())

    @torch.no_grad()
    def bounds(self, low_res: Tensor, threshold: float, delta: float) -> Bounds:
        """What the masks that logits (K, 4g, 4g) become on the original image have to be like, see `segment.bounds`."""
        return bounds_of(self.model.uncover(low_res[:, None], self.input_size)[:, 0], self._size(), threshold, delta)

    def upscale_masks(self, low_res: Tensor) -> Tensor:
        """`upscale` and threshold: (N, M, H, W) bool; only some of the logits are in memory at a time."""
        height, width = self._size()
        flat = low_res.flatten(0, 1)[:, None]
        at_once = max(1, _BLOCK // max(height * width, self.model.image_size**2))
        parts = [self.upscale(part) > self.model.mask_threshold for part in flat.split(at_once)]
        masks = torch.cat(parts) if parts else torch.zeros(0, 1, height, width, dtype=torch.bool)
        return masks.view(*low_res.shape[:2], height, width)

    def _size(self) -> Size:
        if self.size is None:
            raise InputError("set_image comes before a prompt.")
        return self.size

    def _tensor(self, name: str, value: Any) -> Tensor:
        """A prompt as a float tensor on the model's device."""
        try:
            x = torch.as_tensor(value, dtype=torch.float32, device=self.model.mean.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{name} are numbers of the shape {_SHAPES[name]}; got {value!r:.60}.") from error
        last = {"points": 2, "boxes": 4, "masks": 4 * self.model.prompt_encoder.grid}[name]
        if x.ndim not in (_NDIM[name], _NDIM[name] - 1) or x.shape[-1] != last:
            raise InputError(f"{name} have the shape {_SHAPES[name]}; got {(*x.shape,)}.")
        if not bool(x.isfinite().all()):
            raise InputError(f"{name} are finite numbers; got NaN or infinity.")
        return x

    def _labels(self, labels: Any, points: Tensor, single: bool) -> Tensor:
        if labels is None:
            return torch.ones(points.shape[:2], dtype=torch.long, device=points.device)
        x = torch.as_tensor(labels, device=points.device)
        x = x[None] if single else x
        if x.shape != points.shape[:2] or not bool(((x == 0) | (x == 1) | (x == -1)).all()):
            raise InputError(
                f"labels are one number a point, 1 include, 0 exclude, -1 no point; got {(*x.shape,)} for "
                f"{(*points.shape[:2],)} points."
            )
        return x.long()

    def _check_inside(self, tensors: dict[str, Tensor]) -> None:
        """The borders of an image are inside: x = 0 and x = W are; what lies beyond is a mistake of the caller."""
        height, width = self._size()
        for name in ("points", "boxes"):
            if name not in tensors:
                continue
            places = tensors[name].unflatten(-1, (-1, 2))
            if name == "points":
                places = places[tensors["labels"] >= 0]
            limit = places.new_tensor([width, height])
            outside = (places < 0) | (places > limit)
            if bool(outside.any()):
                x, y = places[outside.any(dim=-1)][0].tolist()
                raise InputError(f"{name}: ({x:g}, {y:g}) is outside the image of {width} x {height} px.")
        if "boxes" in tensors and bool((tensors["boxes"][:, :2] > tensors["boxes"][:, 2:]).any()):
            raise InputError("boxes are x1 y1 x2 y2 with x1 <= x2 and y1 <= y2.")


_NDIM = {"points": 3, "boxes": 2, "masks": 4}  # of N prompts; one dimension less for one
_SHAPES = {"points": "(P, 2) or (N, P, 2)", "boxes": "(4,) or (N, 4)", "masks": "(1, 4g, 4g) or (N, 1, 4g, 4g)"}
