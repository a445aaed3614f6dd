"""The interactive figures of the chapter on SAM, in a headless Chromium, from a file, with the network off."""

import gzip
import json
import re
import shutil
import sys
from base64 import b64decode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import NAMES, Tab, chromium

from benchmarks.findings.common import FOLDER
from benchmarks.findings.data_engine import HOW, ROUNDS
from sslcourse.segment.build import build_tiny_sam
from sslcourse.segment.files import load_tiny
from sslcourse.segment.rle import rle_to_mask
from sslcourse.segment.sam import Sam
from sslcourse.segment.scenes import draw_scenes

BOOK = Path(__file__).resolve().parents[1] / "book"
FILM = FOLDER / "curves" / "data_engine.json"
RUNTIME = BOOK / "_static" / "onnxruntime"
sys.path.append(str(BOOK))

from figures import decoder as kept  # noqa: E402
from figures import segment as figure  # noqa: E402

START = (48, 44, 1)
PROMPTS: list[dict[str, Any]] = [
    {"points": [[50.0, 52.0, 1]]},
    {"points": [[50.0, 52.0, 1], [90.0, 90.0, 0], [60.0, 40.0, 1]]},
    {"box": [20.0, 20.0, 84.0, 88.0]},
    {"box": [20.0, 20.0, 84.0, 88.0], "points": [[90.0, 100.0, 0]]},
]


@pytest.fixture(scope="module")
def model() -> Sam:
    return load_tiny()


@pytest.fixture(scope="module")
def html(model: Sam) -> str:
    import matplotlib

    matplotlib.use("Agg")
    scene = draw_scenes(29, "test").images[28]
    image = figure.clickable(model, "a scene", scene[:3], scene[3], START)
    photo = figure.clickable(model, "a photograph", scene[:3].flip(2), None, START)
    still = figure.panels([{"picture": scene[:3].permute(1, 2, 0).numpy()}], columns=1)
    return str(figure.click_to_segment(model, [image, photo], still, "a scene with two stars").data)


@pytest.fixture(scope="module")
def page(html: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tab, Path]]:
    if not any(map(shutil.which, NAMES)):
        pytest.skip("there is no Chromium on this machine")
    folder = tmp_path_factory.mktemp("page")
    for name in ("js", "onnxruntime", "css"):
        shutil.copytree(BOOK / "_static" / name, folder / "_static" / name)
    file = folder / "page.html"
    scripts = "".join(f"<script defer src=_static/js/{name}.js></script>" for name in ("segment", "engine"))
    recorded = figure.recorded(FILM)
    film = figure.engine_film(recorded, figure.engine_still(recorded), "three sketches in two rounds").data
    head = f"<!doctype html><meta charset=utf-8><title>page</title>{scripts}"
    file.write_text(f"{head}<body>{html}{film}", encoding="utf-8")
    with chromium() as tab:
        yield tab, file


def ready(tab: Tab, file: Path) -> None:
    tab.open(file, 800, "light")
    tab.run("new Promise(r => { const w = () => document.querySelector('.stage') ? r() : setTimeout(w, 50); w(); })")


def asked(tab: Tab, prompt: dict[str, Any]) -> list[float]:
    """What the page predicts for a prompt, from an empty one."""
    script = f"""(async () => {{
      const figure = document.querySelector('.ssl-click').segment, prompt = {json.dumps(prompt)};
      await figure.prompt('box', []);
      await figure.prompt('points', []);
      await figure.prompt('box', prompt.box || []);
      await figure.prompt('points', prompt.points || []);
      if (figure.get('message')) throw new Error(figure.get('message'));
      return figure.get('iou');
    }})()"""
    return list(tab.run(script))


@torch.no_grad()
def wanted(model: Sam, prompt: dict[str, Any]) -> torch.Tensor:
    """The same from the model: one pass after each click, with the mask before it."""
    scene = draw_scenes(29, "test").images[28]
    embedding = model.encode(model.preprocess(scene[None, :3]))
    box = torch.tensor([prompt["box"]]) if "box" in prompt else None
    low: torch.Tensor | None = None
    iou = torch.zeros(1, 1)
    points = prompt.get("points", [])
    for n in range(0 if box is not None else 1, len(points) + 1):
        given = torch.tensor([points[:n]]).view(1, n, 3)
        several = n == 1 and box is None
        places = (given[..., :2], given[..., 2].long()) if n else (None, None)
        low, iou = model.decode(embedding, *places, box, low, multimask=several)
        low = low[:, iou[0].argmax()][:, None]
    return iou[0]


def test_the_page_answers_as_the_model_does(page: tuple[Tab, Path], model: Sam) -> None:
    tab, file = page
    ready(tab, file)
    for prompt in PROMPTS:
        found = torch.tensor(asked(tab, prompt))
        torch.testing.assert_close(found, wanted(model, prompt), atol=5e-3, rtol=0)  # a half-precision embedding
    assert not tab.trouble()


def test_first_answer_needs_no_runtime_and_the_keyboard_prompts(page: tuple[Tab, Path]) -> None:
    tab, file = page
    ready(tab, file)
    assert tab.run("document.querySelectorAll('.masks button').length") == 3
    assert not tab.run("!!window.onnxruntimeFiles")
    press = (
        "const press = (key) => document.querySelector('.stage').dispatchEvent(new KeyboardEvent('keydown', {key}));"
    )
    root = "const root = document.querySelector('.ssl-click');"
    points = f"{press} {root} ['c', 'ArrowLeft', 'ArrowUp', 'i'].forEach(press); root.segment.get('points')"
    (x, y, label), *more = tab.run(f"(() => {{ {points.replace('root.segment.get', 'return root.segment.get')} }})()")
    assert (x, y, label, more) == (pytest.approx(61.44), pytest.approx(61.44), 1, [])
    said = tab.run(
        f"(async () => {{ {press} {root} await root.answered; press('e'); await root.answered; press('u');"
        "await root.answered; press('2'); return root.querySelector('.readout').textContent; })()"
    )
    assert re.search(r"Predicted IoU -?[\d.]+; true IoU with the nearest part [\d.]+ \((whole|emblem|dot)\)", said)
    assert tab.run("document.querySelector('.masks [aria-checked=true]').textContent").startswith("mask 2")
    ticked = tab.run(
        f"(async () => {{ {root} root.querySelector('.tick input').click(); const p = root.segment.get('points');"
        "await root.segment.prompt('points', [...p, [3, 3, 1]]); return root.segment.get('points')[p.length][2]; })()"
    )
    assert ticked == 0
    photo = tab.run(
        f"(async () => {{ {root} root.querySelectorAll('.tabs button')[1].click();"
        "await new Promise(r => setTimeout(r, 500)); return root.querySelector('.readout').textContent; })()"
    )
    assert "no true one" in photo
    assert not tab.trouble()


def test_without_a_runtime_the_page_says_so(page: tuple[Tab, Path], tmp_path: Path) -> None:
    tab, file = page
    shutil.copytree(file.parent / "_static" / "js", tmp_path / "_static" / "js")
    shutil.copy(file, tmp_path / "page.html")
    ready(tab, tmp_path / "page.html")
    figure = "const figure = document.querySelector('.ssl-click').segment;"
    asks = "await figure.prompt('points', [[9, 9, 1]]); return figure.get('message');"
    assert "cannot run the decoder" in tab.run(f"(async () => {{ {figure} {asks} }})()")


def test_film_goes_from_round_to_round(page: tuple[Tab, Path]) -> None:
    tab, file = page
    ready(tab, file)
    find = "const root = document.querySelector('.ssl-engine'), buttons = [...root.querySelectorAll('button')];"
    assert tab.run(f"(() => {{ {find} return buttons.map((b) => b.textContent); }})()")[:3] == [
        "Play",
        "Step",
        "Next round",
    ]
    press = "const press = (name) => buttons.find((b) => b.textContent === name).click();"
    said = "root.querySelector('.readout').textContent"
    step = tab.run(
        f"(() => {{ {find} {press} press('Step'); return [{said}, root.querySelectorAll('circle').length]; }})()"
    )
    assert step == ["Round 1 assisted, scene 1.", 1]
    ends = tab.run(f"(() => {{ {find} {press} return [1, 2, 3, 4, 5].map(() => (press('Next round'), {said})); }})()")
    assert [end.split(" ended")[0] for end in ends] == [f"Round {name}" for name in ROUNDS]
    assert tab.run(f"(() => {{ {find} return root.querySelectorAll('rect').length; }})()") == 4 * len(ROUNDS)
    assert tab.run(f"(() => {{ {find} return buttons.filter((b) => b.disabled).length; }})()") == 2
    again = f"(() => {{ {find} {press} press('Start again'); return root.querySelectorAll('rect, circle').length; }})()"
    assert tab.run(again) == 0
    assert not tab.trouble()


def test_film_does_not_play_where_motion_is_not_wanted(page: tuple[Tab, Path]) -> None:
    tab, file = page
    ready(tab, file)
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    tab.call("Page.navigate", url=file.as_uri())
    tab.run("new Promise(r => { const w = () => document.querySelector('.chart') ? r() : setTimeout(w, 50); w(); })")
    assert "Play" not in tab.run("document.querySelector('.ssl-engine .buttons').textContent")


def test_film_is_complete() -> None:
    """A mask and an IoU in every frame, the annotator's patience kept, the rounds those of the finding."""
    film = figure.recorded(FILM)
    assert [told["name"] for told in film["rounds"]] == list(ROUNDS)
    assert film["annotator"]["good"] == HOW.good
    for told in film["rounds"]:
        assert len(told["scenes"]) == len(film["pictures"])
        for frames in told["scenes"]:
            assert len(frames) <= HOW.patience
            assert frames or told["name"] == "5 automatic"
            assert all(one["iou"] < HOW.good for one in frames[:-1] if one["click"])
            for one in frames:
                assert rle_to_mask({"size": [film["size"]] * 2, "counts": one["counts"]}).shape == (128, 128)


def test_page_without_script_shows_the_still_picture(html: str) -> None:
    assert re.match(
        r'<div class="ssl-click"><img src="data:image/png;base64,[^"]+" alt="a scene with two stars">', html
    )


def test_kept_graph_is_that_of_the_decoder(model: Sam) -> None:
    """It names every weight in order; another architecture is refused with a word on what to do."""
    record = json.loads(kept.FILE.read_text(encoding="utf-8"))
    graph = gzip.decompress(b64decode(record["graph"]))
    places = [graph.index(name.encode()) for name, _ in record["weights"]]
    assert len(set(places)) == len(places) == len(kept._state(model))
    numbers = sum(torch.Size(shape).numel() for _, shape in record["weights"])
    assert len(gzip.decompress(b64decode(kept.decoder(model)["weights"]))) == 4 * numbers
    with pytest.raises(ValueError, match=r"python -m figures\.decoder"):
        kept.decoder(build_tiny_sam(128, 32, encoder="conv"))


def test_runtime_is_the_package_s() -> None:
    """Its two files have the digests that README.txt states."""
    text = (RUNTIME / "onnxruntime.js").read_text(encoding="utf-8")
    assert len(text) < 5 * 2**20
    said = dict(re.findall(r"^    (\w+) +\S+ +sha256 ([0-9a-f]{64})$", (RUNTIME / "README.txt").read_text(), re.M))
    assert not re.search(
        "T" + "ODO|FIX" + "ME|X{3}|HA" + "CK", text, re.I
    )  # chance spells them in base64; see README.txt
    held = dict(re.findall(r'"(\w+)":"([\w+/= ]+)"', text))
    assert {name: sha256(gzip.decompress(b64decode(data))).hexdigest() for name, data in held.items()} == said
    assert set(said) == {"module", "wasm"}
    assert "MIT License" in (RUNTIME / "LICENSE").read_text(encoding="utf-8")
