"""Click on an image and see the masks: a notebook widget around `Predictor`.

    from sslcourse.segment.files import load_tiny
    from sslcourse.segment.widget import ClickToSegment
    ClickToSegment(load_tiny(), "photo.jpg")

A left click says "this belongs to the object", a right click "this does not", a drag draws a box around it. The image
is encoded once; every prompt after that costs one pass of the mask decoder. Needs the extra `course` (anywidget).
"""

import base64
import io
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from PIL import Image
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.segment.predictor import Prediction, Predictor
from sslcourse.segment.resize import to_pixels
from sslcourse.segment.sam import Sam

_COLOUR = (255, 160, 0)  # of the mask, at _OPACITY; its outline is opaque
_OPACITY = 0.5


class ClickToSegment(anywidget.AnyWidget):
    """An image that can be clicked on, the masks that the model gives for the clicks, and their predicted IoU.

    Attributes:
        points: [x, y, label] in pixels of the image; label 1 belongs to the object, 0 does not. Can be set from code.
        box: [x1, y1, x2, y2], or [] for none.
        chosen: which of the masks is shown: the one with the largest predicted IoU at first.
        prediction: the masks as tensors, None before the first prompt.
    """

    _esm = Path(__file__).with_name("widget.js")
    _css = Path(__file__).with_name("widget.css")

    picture = traitlets.Unicode(help="the image as a data URL").tag(sync=True)
    size = traitlets.List(traitlets.Int(), help="width and height of the image").tag(sync=True)
    points = traitlets.List(traitlets.List(traitlets.Float())).tag(sync=True)
    box = traitlets.List(traitlets.Float()).tag(sync=True)
    layers = traitlets.List(traitlets.Unicode(), help="masks as transparent pictures").tag(sync=True)
    iou = traitlets.List(traitlets.Float()).tag(sync=True)
    chosen = traitlets.Int(0).tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)

    def __init__(self, model: Sam, image: Any) -> None:
        """`image`: a path, a PIL image, an array (H, W[, 3 or 4]) or a tensor (3, H, W) uint8."""
        pixels = to_pixels(image)
        self.predictor = Predictor(model).set_image(pixels)
        self.prediction: Prediction | None = None
        height, width = pixels.shape[1:]
        super().__init__(picture=_data_url(pixels.permute(1, 2, 0).numpy()), size=[int(width), int(height)])
        self.observe(self._prompt, names=["points", "box"])

    @property
    def mask(self) -> Tensor:
        """(H, W) bool: the mask that is shown."""
        if self.prediction is None:
            raise InputError("There is no mask yet: click on the image, or set `points` or `box`.")
        return self.prediction.masks[self.chosen]

    def _prompt(self, change: Any) -> None:
        """Ask the model again. A single click can mean a part or the whole: three masks; all else gives one."""
        if not self.points and not self.box:
            self.prediction, self.message = None, ""
            self.layers, self.iou, self.chosen = [], [], 0
            return
        where = [point[:2] for point in self.points] or None
        labels = [int(point[2]) for point in self.points] or None
        try:
            found = self.predictor.predict(
                where, labels, self.box or None, multimask=len(self.points) == 1 and not self.box
            )
        except InputError as error:
            self.message = str(error)
            return
        self.prediction, self.message = found, ""
        self.layers = [_layer(mask) for mask in found.masks]
        self.iou = [round(value, 3) for value in found.iou.tolist()]
        self.chosen = int(found.iou.argmax())


def _layer(mask: Tensor) -> str:
    """A mask (H, W) bool as a picture that lies over the image."""
    inside = mask.cpu()
    grown = torch.nn.functional.max_pool2d((~inside).float()[None, None], 3, 1, 1)[0, 0] > 0
    alpha = torch.where(inside & grown, 255, inside * round(255 * _OPACITY)).numpy().astype(np.uint8)
    colour = np.broadcast_to(np.array(_COLOUR, dtype=np.uint8), (*alpha.shape, 3))
    return _data_url(np.dstack([colour, alpha]))


def _data_url(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
