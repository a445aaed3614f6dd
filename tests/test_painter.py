"""The mask painter of chapter 7: its data, and its script in a browser, without a network."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from browser import NAMES, Tab, chromium

from sslcourse import methods
from sslcourse.data import Shapes
from sslcourse.evaluate.reconstruction import copy_nearest, unexplained
from sslcourse.methods.mae import MAE

BOOK = Path(__file__).parents[1] / "book"
sys.path.append(str(BOOK))

from figures import masks as pictures  # noqa: E402

SEEDS = 2


@pytest.fixture(scope="module")
def scenes() -> torch.Tensor:
    return Shapes("test", size=64).as_images(2).images


@pytest.fixture(scope="module")
def html(scenes: torch.Tensor) -> str:
    config = replace(MAE.PRESETS["pictures"], decoder_depth=1)
    made = pictures.painter(methods.build(MAE, config), scenes, ["one", "two"], seeds=SEEDS, alt="a still picture")
    return str(made.data)


@pytest.fixture
def tab() -> Iterator[Tab]:
    if not any(map(shutil.which, NAMES)):
        pytest.skip("there is no Chromium on this machine")
    with chromium() as page:
        yield page


def content(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*)</script>', html, re.S)[1])  # type: ignore[index]


def bits(digits: str) -> torch.Tensor:
    return torch.tensor([bool(int(digit, 16) & bit) for digit in digits for bit in (8, 4, 2, 1)]).view(1, 8, 8)


def test_the_data_are_complete_and_errors_are_those_of_the_library(html: str, scenes: torch.Tensor) -> None:
    data = content(html)
    assert len(html) < 400_000
    assert len(data["settings"]) == 2 * len(pictures.RATIOS) + 1
    assert len(data["errors"]) == len(scenes) * len(data["settings"]) * SEEDS
    for s, setting in enumerate(data["settings"]):
        for k, digits in enumerate(setting["masks"]):
            mask = bits(digits)
            assert mask.sum() == 64 - int(64 * (1 - setting["ratio"]))
            truth = scenes[1:] / 255
            copied = unexplained(copy_nearest(truth, mask), truth, mask).item()
            assert data["errors"][(len(data["settings"]) + s) * SEEDS + k][0] == pytest.approx(copied, abs=1e-3)


def test_pictures_of_pieces_are_put_together_again() -> None:
    photo = torch.rand(3, 130, 200, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pictures.mosaic(pictures.tiles(photo, 64), 3), photo[:, :128, :192])


def test_the_painter_in_a_browser(html: str, scenes: torch.Tensor, tab: Tab, tmp_path: Path) -> None:
    page, script = tmp_path / "painter.html", (BOOK / "_static" / "js" / "painter.js").as_uri()
    page.write_text(
        f'<!doctype html><meta charset="utf-8"><script defer src="{script}"></script>{html}', encoding="utf-8"
    )
    tab.open(page, 900, "light")
    tab.run("new Promise(r => setTimeout(r, 500))")
    assert not tab.trouble()
    assert tab.run("document.querySelector('.ssl-painter img') === null")  # the still has made way
    said = "document.querySelector('.readout').textContent"
    assert tab.run(said).startswith("48 of 64 patches hidden (random)")

    def turn(control: str, value: str) -> None:
        tab.run(f"(() => {{ const c = {control}; c.value = '{value}'; c.dispatchEvent(new Event('input')) }})()")

    kind, ratio = "document.querySelectorAll('select')[1]", "document.querySelectorAll('input')[0]"
    turn(kind, "block")
    turn(ratio, "6")
    data = content(html)
    at = next(i for i, s in enumerate(data["settings"]) if (s["kind"], s["ratio"]) == ("block", pictures.RATIOS[6]))
    copied, painted = (f"{e:.2f}" for e in data["errors"][at * SEEDS])
    assert f"copying leaves {copied}, the MAE {painted}" in tab.run(said)
    pixels = tab.run("[...document.querySelectorAll('canvas')[1].getContext('2d').getImageData(0, 0, 64, 64).data]")
    shown = torch.tensor(pixels).view(64, 64, 4)[..., :3].permute(2, 0, 1)
    ours = 255 * copy_nearest(scenes[:1] / 255, bits(data["settings"][at]["masks"][0]))[0]
    assert (shown - ours).abs().mean() < 6  # the browser copies from a compressed picture
    turn(kind, "grid")
    assert tab.run(f"{ratio}.disabled")
    assert "(grid)" in tab.run(said)
