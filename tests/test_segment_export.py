"""The exported decoder gives the masks of the model."""

from pathlib import Path

import pytest
import torch

from sslcourse.errors import InputError
from sslcourse.segment import export
from sslcourse.segment.build import build_tiny_sam
from sslcourse.segment.export import INPUTS, PromptedMasks, example_inputs, export_onnx
from sslcourse.segment.mask_decoder import select_single
from sslcourse.segment.sam import Embedding, Sam


@pytest.fixture(scope="module")
def model() -> Sam:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_tiny_sam(32, 16, encoder="conv").eval()


@torch.no_grad()
@pytest.mark.parametrize("with_mask", [False, True])
def test_the_graph_is_the_model(model: Sam, with_mask: bool) -> None:
    image, points, labels, mask, _ = example_inputs(model, 2)
    mask = torch.randn(mask.shape, generator=torch.Generator().manual_seed(1))
    given = image, points, labels, mask, torch.tensor([float(with_mask)])
    masks, iou = PromptedMasks(model, multimask=True)(*given)
    embedding = Embedding(image, torch.zeros(1))
    shown = mask if with_mask else None
    for several, part in ((True, slice(1, None)), (False, slice(0, 1))):
        # Without a box the model closes the points with padding; a caller of the graph does it.
        padded = torch.cat([points, torch.zeros(1, 1, 2)], dim=1), torch.cat([labels, torch.tensor([[-1.0]])], dim=1)
        again, score = PromptedMasks(model, multimask=True)(image, *padded, mask, torch.tensor([float(with_mask)]))
        wanted, expected = model.decode(embedding, points, labels, masks=shown, multimask=several)
        torch.testing.assert_close(again[:, part], wanted, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(score[:, part], expected, atol=1e-4, rtol=1e-4)
    one, _ = PromptedMasks(model)(*given)
    torch.testing.assert_close(one, select_single(masks, iou, 2)[0])


def test_onnx_says_what_it_needs(model: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install onnx onnxscript"):
        export_onnx(model, tmp_path / "a.onnx")


@torch.no_grad()
def test_onnx_runs_with_any_number_of_points(model: Sam, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(export_onnx(model, tmp_path / "a.onnx")))
    for n in (2, 5, 9):
        given = example_inputs(model, n)
        found = session.run(None, {name: x.numpy() for name, x in zip(INPUTS, given, strict=True)})
        wanted = PromptedMasks(model, multimask=True)(*given)
        for ours, theirs in zip(wanted, found, strict=True):
            torch.testing.assert_close(torch.from_numpy(theirs), ours, atol=1e-4, rtol=1e-4)
