"""Without its safeguard a method collapses, and the monitor says so."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from test_clusters_and_distillation import images, small

from sslcourse.train import fit, load_model
from sslcourse.train.monitor import CollapseWarning

__all__ = ["images"]
pytestmark = pytest.mark.slow  # a minute in all

SAFEGUARDS = {
    "byol": {"m": 0.0, "predictor": False},
    "simsiam": {"stop_gradient": False},
}


@pytest.mark.parametrize("name", SAFEGUARDS)
def test_without_its_safeguard_it_collapses_and_the_monitor_says_so(name: str, images: Any, tmp_path: Path) -> None:
    changes = SAFEGUARDS[name]
    seen = {}
    for kept in (True, False):
        config = small(name, steps=150, lr=2e-2, **(changes if not kept else {}))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(name, images, config, tmp_path / str(kept), progress=False)
        seen[kept] = any(issubclass(w.category, CollapseWarning) for w in caught)
    assert seen == {True: False, False: True}


def test_without_sharpening_the_teacher_of_dino_becomes_uniform(images: Any, tmp_path: Path) -> None:
    """The other collapse of figure 7: with the centre alone every output is 1 / K."""
    entropies = {}
    for tt in (0.04, 1.0):
        config = small("dino", steps=60, ts=0.1, tt=tt, tt_start=tt, n_local=0)
        fit("dino", images, config, tmp_path / str(tt), progress=False)
        model: Any = load_model(tmp_path / str(tt))
        views = model.views(images.images[:128], torch.Generator().manual_seed(0))
        with torch.no_grad():
            p = model.targets(model.teacher["head"](model.backbone(views[0])), tt)
        entropies[tt] = float(-(p * p.clamp_min(1e-12).log()).sum(1).mean() / torch.tensor(float(p.shape[1])).log())
    assert entropies[1.0] > 0.999
    assert entropies[0.04] < 0.95
