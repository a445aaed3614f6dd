"""A run of a method without negatives that stops in the middle resumes to the same bits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_clusters_and_distillation import NEW, images, small

from sslcourse import methods
from sslcourse.train import fit, load_model

__all__ = ["images"]


@pytest.mark.parametrize("name", NEW)
def test_a_run_resumes_to_the_same_weights(name: str, images: Any, tmp_path: Path) -> None:
    """Stopped in the middle of an epoch: memories, centres and clusters are part of the checkpoint."""
    config = small(name, steps=6)
    config = replace(config, train=replace(config.train, checkpoint_every=2))

    class Stopped(methods.get(name)):  # type: ignore[misc]
        def after_step(self, step: int, total: int) -> None:
            if hasattr(super(), "after_step"):
                super().after_step(step, total)
            if step == 3:
                raise KeyboardInterrupt

    data = images.subset(torch.arange(96))
    fit(name, data, config, tmp_path / "whole", progress=False)
    with pytest.raises(KeyboardInterrupt):
        fit(methods.build(Stopped, config), data, config, tmp_path / "parts", progress=False)
    fit(name, data, config, tmp_path / "parts", resume=True, progress=False)
    whole, parts = (load_model(tmp_path / part).state_dict() for part in ("whole", "parts"))
    for key, value in whole.items():
        assert torch.equal(value, parts[key]), key
