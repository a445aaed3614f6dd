"""The widget's half in Python: prompts in, pictures of masks and predicted IoU out."""

import base64
import io

import pytest
import torch
from PIL import Image

from sslcourse.errors import InputError
from sslcourse.segment.build import build_tiny_sam
from sslcourse.segment.predictor import Predictor

pytest.importorskip("anywidget")

from sslcourse.segment.widget import ClickToSegment


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randint(256, (3, 40, 60), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def widget(pixels: torch.Tensor) -> ClickToSegment:
    return ClickToSegment(build_tiny_sam(64, 16, encoder="conv"), pixels)


def decoded(url: str) -> Image.Image:
    head, data = url.split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_the_browser_gets_the_image(widget: ClickToSegment, pixels: torch.Tensor):
    assert widget.size == [60, 40]
    assert decoded(widget.picture).tobytes() == pixels.permute(1, 2, 0).numpy().tobytes()
    assert "export default { render }" in str(widget._esm)


def test_one_click_gives_three_masks_as_the_predictor_does(widget: ClickToSegment, pixels: torch.Tensor):
    widget.points = [[30.0, 20.0, 1.0]]
    expected = Predictor(widget.predictor.model).set_image(pixels).predict([[30.0, 20.0]], [1])
    assert widget.iou == [round(value, 3) for value in expected.iou.tolist()]
    assert widget.chosen == int(expected.iou.argmax())
    assert torch.equal(widget.mask, expected.masks[widget.chosen])
    layers = [decoded(url) for url in widget.layers]
    assert [layer.size for layer in layers] == [(60, 40)] * 3
    shown = torch.tensor(list(layers[0].getchannel("A").tobytes())).view(40, 60) > 0
    assert torch.equal(shown, expected.masks[0])


def test_more_prompts_give_one_mask_and_clearing_gives_none(widget: ClickToSegment):
    widget.points = [[30.0, 20.0, 1.0], [5.0, 5.0, 0.0]]
    assert len(widget.layers) == len(widget.iou) == 1
    widget.points = []
    widget.box = [10.0, 10.0, 40.0, 30.0]
    assert len(widget.layers) == 1
    widget.box = []
    assert not widget.layers
    with pytest.raises(InputError, match="no mask yet"):
        widget.mask  # noqa: B018


def test_a_prompt_that_cannot_be_is_a_message(widget: ClickToSegment):
    widget.points = [[300.0, 20.0, 1.0]]
    assert "300" in widget.message
    assert not widget.layers
    widget.points = [[30.0, 20.0, 1.0]]
    assert not widget.message


def test_the_notebook_leaves_right_clicks_and_keys_to_the_image():
    """JupyterLab opens its menu over the image, and C copies the cell, unless the stage says that it must not."""
    stage = next(line for line in str(ClickToSegment._esm).splitlines() if 'class="stage"' in line)
    assert 'data-lm-suppress-shortcuts="true"' in stage
    assert "data-jp-suppress-context-menu" in stage
