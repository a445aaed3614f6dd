"""The zero-shot playground of chapter 10 in a headless browser: its arithmetic is the library's, and keys move it."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from browser import NAMES, Tab, chromium
from matplotlib.figure import Figure

from sslcourse.evaluate.zeroshot import ensemble, prompt_logits

ROOT = Path(__file__).resolve().parents[1]
CLASSES, TEMPLATES, DIM = ["red star", "orange moon", "teal ring"], ["a {}", "a large {}", "one {}"], 24


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    if not any(map(shutil.which, NAMES)):
        pytest.skip("there is no Chromium on this machine")
    with chromium() as page:
        yield page


def test_the_playground_computes_what_the_library_does(
    tab: Tab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "book"))
    from figures import clip as pictures

    g = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    txt = F.normalize(torch.randn(3, 3, DIM, generator=g), dim=2)
    img = txt[labels].mean(dim=1) + 0.35 * torch.randn(8, DIM, generator=g)
    images = torch.randint(0, 256, (8, 3, 16, 16), generator=g, dtype=torch.uint8)
    data = pictures.playground_data(images, labels, CLASSES, TEMPLATES, img, txt.flatten(0, 1))
    page = tmp_path / "page.html"
    script = (ROOT / "book" / "_static" / "js" / "words.js").read_text(encoding="utf-8")
    body = pictures.playground(data, Figure(), alt="a still picture for readers without a script").data
    page.write_text(f"<!doctype html><meta charset=utf-8><title>t</title>{body}<script>{script}</script>")
    tab.open(page, 700, "light")

    def said() -> tuple[int, float, str]:
        one, total = tab.run("[...document.querySelectorAll('.readout')].map(p => p.textContent)")
        found = re.search(r"(\d+) of 8 scenes recognised, mean margin (.)(\d\.\d+)", total)
        assert found, total
        return int(found[1]), float(found[3]) * (1 if found[2] == "+" else -1), one

    def expected(chosen: list[int]) -> tuple[int, float]:
        cosines = prompt_logits(img, ensemble(txt[:, chosen]), 1.0)
        own = cosines[torch.arange(8), labels]
        margin = own - cosines.scatter(1, labels[:, None], -2.0).amax(dim=1)
        return int((margin > 0).sum()), margin.mean().item()

    def press(key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" and key == " " else {}
            tab.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    assert not tab.trouble()
    assert tab.run("document.querySelector('.ssl-words img')") is None  # the still picture has made room
    for chosen in ([0], [0, 1], [0, 1, 2]):
        if len(chosen) > 1:
            tab.run(f"document.querySelectorAll('.templates input')[{chosen[-1]}].focus()")
            press(" ", 32)
        hits, margin, one = said()
        assert hits == expected(chosen)[0]
        assert margin == pytest.approx(expected(chosen)[1], abs=5e-3)
        assert one.startswith("Scene 1 shows a red star")
    tab.run("document.querySelector('.scenes input').focus()")
    press("ArrowRight", 39)
    assert said()[2].startswith("Scene 2 shows an orange moon")
    for k in range(3):  # the last template cannot be taken away
        tab.run(f"document.querySelectorAll('.templates input')[{k}].click()")
    assert tab.run("document.querySelectorAll('.templates input:checked').length") == 1
