"""The data engine on a model whose answers are known: what is clicked, collected, counted and trained on."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sslcourse.errors import InputError
from sslcourse.segment.build import build_tiny_sam
from sslcourse.segment.engine import STAGES, Annotator, data_engine, run_stage
from sslcourse.segment.sam import Embedding, Sam
from sslcourse.segment.scenes import SceneMasks, draw_scenes, part_mask


@pytest.fixture(scope="module")
def scenes() -> SceneMasks:
    return draw_scenes(3, size=64, presets=("multi",))


class Knows(Sam):
    """Answers with the clicked object after `late` clicks, before that with nothing; as sure of it as it is told."""

    scenes: SceneMasks
    late = 1
    predicted = 0.5

    def encode(self, images: Tensor) -> Embedding:
        same = [bool((self.preprocess(scene[:3]) == images[0]).all()) for scene in self.scenes.images]
        return Embedding(torch.tensor([[float(same.index(True))]]), torch.zeros(1))

    def decode(self, embedding: Embedding, points: Any = None, labels: Any = None, *_: Any, **more: Any) -> Any:
        ids = self.scenes.images[int(embedding.image[0, 0]), 3]
        x, y = (int(v) for v in points[0, 0])
        k = (int(ids[y, x]) - 1) // 3
        mask = part_mask(ids, torch.tensor(3 * k))
        shown = mask if points.shape[1] >= self.late else mask & ~mask
        n = 3 if more["multimask"] else 1
        return (shown.float() * 40 - 20).expand(1, n, -1, -1), torch.full((1, n), self.predicted)

    def postprocess(self, low_res: Tensor, input_size: Any, original_size: Any) -> Tensor:
        return low_res


def knowing(scenes: SceneMasks, late: int = 1, predicted: float = 0.5) -> Knows:
    tiny = build_tiny_sam(64, 16, encoder="conv")
    model = Knows(tiny.image_encoder, tiny.prompt_encoder, tiny.mask_decoder)
    model.scenes, model.late, model.predicted = scenes, late, predicted
    return model


@pytest.mark.parametrize("late", [1, 3])
def test_an_annotator_clicks_until_the_mask_is_good(scenes: SceneMasks, late: int) -> None:
    found = run_stage(knowing(scenes, late), scenes, "assisted")
    objects = len(scenes.objects(0, 12)[1])
    assert (found.objects, found.masks, found.iou) == (objects, objects, 1.0)
    assert found.clicks == late * objects
    assert found.seconds == pytest.approx(objects * (4.0 + 1.5 * late))


def test_patience_ends(scenes: SceneMasks) -> None:
    found = run_stage(knowing(scenes, late=9), scenes, "assisted", Annotator(patience=2))
    assert found.clicks == 2 * found.objects
    assert found.iou == 0.0


def test_confident_masks_cost_nothing(scenes: SceneMasks) -> None:
    sure, unsure = knowing(scenes, predicted=0.95), knowing(scenes, predicted=0.5)
    free = run_stage(sure, scenes, "semi-automatic")
    assert (free.clicks, free.seconds, free.masks) == (0, 0.0, free.objects)
    clicked = run_stage(unsure, scenes, "semi-automatic")
    assert clicked.clicks == clicked.objects
    nobody = run_stage(unsure, scenes, "automatic")
    assert (nobody.masks, nobody.clicks, nobody.iou) == (0, 0, 0.0)
    assert not nobody.collected.images[:, 3].any()


def test_the_model_is_trained_on_what_was_collected(scenes: SceneMasks) -> None:
    seen: list[SceneMasks] = []
    rounds = data_engine(knowing(scenes, predicted=0.95), [scenes] * 3, lambda model, found: seen.append(found))
    assert [found.stage for found in rounds] == list(STAGES)
    assert len(seen) == 2
    for found in (*seen, rounds[2].collected):
        assert torch.equal(found.images[:, :3], scenes.images[:, :3])
        assert torch.equal(found.objects(0, 12)[1], scenes.objects(0, 12)[1])
        assert len(found.objects(1)[1]) == 0  # parts were not asked for
    with pytest.raises(InputError, match="stage of the data engine"):
        run_stage(knowing(scenes), scenes, "manual")  # type: ignore[arg-type]
